# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Class-balanced sampling: in each epoch a part of the clips, those of rare classes more often than others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from transformers.utils import logging

from .sampling import EpochSampler

logger = logging.get_logger(__name__)

_CHOICE_STREAM = 3  # a use of the seed beside those of `EpochSampler`
# scheme -> (added to the number of clips of a class, power of the sum over a clip's classes)
_SCHEMES = {"m2d": (100.0, 1 / 1.5), "ast": (0.01, 1.0)}


def sample_weights(labels: Sequence[Sequence[str]], scheme: str) -> np.ndarray:
    """How much likelier each clip is drawn than others: (N,) float64, 0 for a clip without labels.

    Args:
        labels: of each clip; a class that a clip has twice counts once.
        scheme: "m2d", (sum over labels of 1000 / (count + 100)) ** (1 / 1.5), or "ast", sum over labels of
            1000 / (count + 0.01), which AudioMAE has too; count is the number of clips of the class.

    Raises:
        ValueError: for another scheme.
    """
    if scheme not in _SCHEMES:
        raise ValueError(f"Unknown `scheme` {scheme!r}. Choose one of {sorted(_SCHEMES)}.")
    added, power = _SCHEMES[scheme]
    clips = [sorted(set(names)) for names in labels]
    counts = Counter(name for names in clips for name in names)
    return np.array([sum(1000 / (counts[name] + added) for name in names) ** power for names in clips])


class WeightedEpochSampler:
    """Batches of clips that are drawn by weight, with the interface of `EpochSampler` and without any state.

    Each epoch has `samples_per_epoch` clips, drawn without replacement: one after the other, each time in proportion
    to the weights of those that are left. An `EpochSampler` shuffles them and cuts them into batches and processes.
    A clip of weight 0 is never drawn.
    """

    def __init__(
        self,
        weights: Sequence[float] | np.ndarray,
        samples_per_epoch: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        """See the class.

        Args:
            weights: (N,) of the clips of the data set.
            samples_per_epoch: clips of one epoch over all processes; M2D and AudioMAE have 200,000 of 2 million.
            batch_size: clips per process and step.

        Raises:
            ValueError: for weights that are not numbers of at least 0, or fewer positive ones than clips are wanted;
                and as `EpochSampler`.
        """
        self.weights = np.asarray(weights, dtype=np.float64)
        if self.weights.ndim != 1 or not np.all(np.isfinite(self.weights) & (self.weights >= 0)):
            raise ValueError(
                f"`weights` must be a finite number of at least 0 for each clip, got {self.weights}. See "
                "`sample_weights`."
            )
        num_drawable = int(np.count_nonzero(self.weights))
        if not 1 <= samples_per_epoch <= num_drawable:
            raise ValueError(
                f"`samples_per_epoch` is {samples_per_epoch}, but {num_drawable} clips have a weight above 0, and "
                "none is drawn twice in an epoch. Choose a number from 1 to that."
            )
        if samples_per_epoch == num_drawable:
            logger.warning_once(
                f"`samples_per_epoch` is {samples_per_epoch}, all clips that can be drawn: weights have no effect. "
                "Choose a smaller number to see rare classes more often."
            )
        self._places = EpochSampler(samples_per_epoch, batch_size, seed, process_index, num_processes)
        self._drawn: tuple[int, np.ndarray] | None = None  # (epoch, its clips) of the last question

    @property
    def num_examples(self) -> int:
        """Clips of the data set."""
        return len(self.weights)

    @property
    def batch_size(self) -> int:
        """Clips per process and step."""
        return self._places.batch_size

    @property
    def global_batch_size(self) -> int:
        """Clips per step over all processes."""
        return self._places.global_batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one epoch."""
        return self._places.steps_per_epoch

    def locate(self, global_step: int) -> tuple[int, int]:
        """(epoch, step within it) of a step counted from the start of training."""
        return self._places.locate(global_step)

    def batch_indices(self, epoch: int, step: int) -> list[int]:
        """Indices of this process' clips in a step of an epoch.

        Raises:
            IndexError: if the epoch has no such step.
        """
        drawn = self.epoch_indices(epoch)
        return [int(drawn[place]) for place in self._places.batch_indices(epoch, step)]

    def spare_indices(self, epoch: int, step: int) -> Iterator[int]:
        """Clips of the epoch that may replace bad ones in a step, none of the batch's; see `EpochSampler`."""
        drawn = self.epoch_indices(epoch)
        for place in self._places.spare_indices(epoch, step):
            yield int(drawn[place])

    def seed_of(self, epoch: int, step: int, position: int) -> int:
        """The draw seed of the clip at a position of this process' batch; the same for any number of processes."""
        return self._places.seed_of(epoch, step, position)

    def epoch_indices(self, epoch: int) -> np.ndarray:
        """The clips of an epoch, (samples_per_epoch,) in the order of the data set; the same on every process.

        Those with the smallest exponential variables divided by weight are distributed as draws without replacement
        (Efraimidis and Spirakis, 2006), and take one pass over the weights.
        """
        if self._drawn is None or self._drawn[0] != epoch:
            rng = np.random.default_rng((_CHOICE_STREAM, self._places.seed, epoch))
            waits = np.full(self.num_examples, np.inf)
            np.divide(rng.standard_exponential(self.num_examples), self.weights, out=waits, where=self.weights > 0)
            number = self._places.num_examples
            # sorted: the order that argpartition leaves depends on the processor
            self._drawn = (epoch, np.sort(np.argpartition(waits, number - 1)[:number]))
        return self._drawn[1]


__all__ = ["WeightedEpochSampler", "sample_weights"]

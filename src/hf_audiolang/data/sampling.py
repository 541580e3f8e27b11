# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Which clips make which step: every batch is a function of (seed, step), so resuming needs nothing but the step.

EpochSampler: step -> indices and draw seeds -> TrainDataset[step]: batch -> build_train_loader: steps in order
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from functools import lru_cache
from multiprocessing.context import BaseContext

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers.utils import logging

from .collate import BadExampleError, Collator, Example
from .records import MAX_BAD_FRACTION, RecordDataset, TooManyBadExamples

logger = logging.get_logger(__name__)

PREFETCH_BATCHES = 4  # per worker; performance.md section 4, rule 5
_ORDER_STREAM, _DRAW_STREAM = 1, 2  # the two uses of the seed
_MIN_SEEN = 200  # examples before a share of bad ones is judged on those seen so far


class EpochSampler:
    """Shuffled batches of a fixed number of clips, without any state.

    Each epoch is one permutation; global batch `step` of it is cut into `num_processes` equal pieces, so that two
    processes with half the batch size see the clips, crops and captions of one process. A batch never has one clip
    twice, over all processes.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        """See the class.

        Args:
            batch_size: clips per process and step.

        Raises:
            ValueError: if a batch over all processes has more clips than there are, or a number is out of range.
        """
        if batch_size < 1 or num_processes < 1 or not 0 <= process_index < num_processes or seed < 0:
            raise ValueError(
                f"`batch_size` {batch_size} and `num_processes` {num_processes} must be positive, `process_index` "
                f"{process_index} below `num_processes`, and `seed` {seed} not negative."
            )
        if batch_size * num_processes > num_examples:
            raise ValueError(
                f"`batch_size` {batch_size} on {num_processes} process(es) needs {batch_size * num_processes} "
                f"examples, got {num_examples}. Lower `batch_size`, or add data: a batch may not have one clip twice."
            )
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes

    @property
    def global_batch_size(self) -> int:
        """Clips per step over all processes."""
        return self.batch_size * self.num_processes

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one epoch; the clips that are left over differ from epoch to epoch."""
        return self.num_examples // self.global_batch_size

    def locate(self, global_step: int) -> tuple[int, int]:
        """(epoch, step within it) of a step counted from the start of training."""
        return divmod(global_step, self.steps_per_epoch)

    def batch_indices(self, epoch: int, step: int) -> list[int]:
        """Indices of this process' clips in a step of an epoch.

        Raises:
            IndexError: if the epoch has no such step.
        """
        start = self._batch_start(step) + self.process_index * self.batch_size
        order = _epoch_order(self.num_examples, self.seed, epoch)
        return [int(index) for index in order[start : start + self.batch_size]]

    def spare_indices(self, epoch: int, step: int) -> Iterator[int]:
        """Clips that may replace bad ones in a step: the ones that follow in the epoch's order, none of the batch's.

        Two processes never get the same spare in the same step.
        """
        order = _epoch_order(self.num_examples, self.seed, epoch)
        after_batch = self._batch_start(step) + self.global_batch_size
        num_spares = self.num_examples - self.global_batch_size
        for place in range(self.process_index, num_spares, self.num_processes):
            yield int(order[(after_batch + place) % self.num_examples])

    def seed_of(self, epoch: int, step: int, position: int) -> int:
        """The draw seed of the clip at a position of this process' batch; the same for any number of processes."""
        place = self.process_index * self.batch_size + position
        entropy = (_DRAW_STREAM, self.seed, epoch, step, place)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _batch_start(self, step: int) -> int:
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"`step` {step} is not in an epoch of {self.steps_per_epoch} steps. Use `locate`.")
        return step * self.global_batch_size


@lru_cache(maxsize=4)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """(num_examples,) permutation of an epoch."""
    return np.random.default_rng((_ORDER_STREAM, seed, epoch)).permutation(num_examples)


class TrainDataset(Dataset):
    """Whole batches by global step: `dataset[step]` is what the model gets at that step on this process.

    A bad example is replaced by a spare of the same epoch under the collator's "skip" (the batch keeps its number of
    clips and says in `skipped` what was replaced and why); under "error" it ends the run.
    """

    def __init__(self, dataset: RecordDataset, sampler: EpochSampler, collator: Collator) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.collator = collator

    def __getitem__(self, step: int) -> dict:
        """The batch of a global step.

        Raises:
            BadExampleError: under "error", naming the record.
            TooManyBadExamples: if a batch runs out of spares.
        """
        epoch, epoch_step = self.sampler.locate(step)
        spares = self.sampler.spare_indices(epoch, epoch_step)
        examples: list[Example] = []
        skipped: list[str] = []
        for position, index in enumerate(self.sampler.batch_indices(epoch, epoch_step)):
            draw_seed = self.sampler.seed_of(epoch, epoch_step, position)
            examples.append(self._draw_or_replace(index, draw_seed, spares, skipped))
        return self.collator.collate(examples, skipped)

    def _draw_or_replace(self, index: int, draw_seed: int, spares: Iterator[int], skipped: list[str]) -> Example:
        """The example of `index` or of the first good spare; each failure is added to `skipped`."""
        max_skipped = self.sampler.batch_size + 20  # our choice: ends a run on a wrong folder after one batch
        while True:
            try:
                return self.collator.draw(self.dataset[index], draw_seed)
            except BadExampleError as error:
                if self.collator.on_bad_example == "error":
                    raise
                skipped.append(str(error))
            index = next(spares, None)
            if index is None or len(skipped) > max_skipped:
                raise TooManyBadExamples(_too_many_message(skipped, self.sampler.num_examples))


class BadExampleLog:
    """Counts bad examples once each, warns at the first sight of each, and stops the run above 5 %.

    The share is taken of the examples seen so far (at least 200 of them) or of the data set, whichever is smaller.

    Attributes:
        messages: one per bad example, in the order of their discovery.
    """

    def __init__(self, num_examples: int) -> None:
        self.num_examples = num_examples
        self.num_seen = 0
        self.messages: list[str] = []
        self._known: set[str] = set()

    def update(self, skipped: Sequence[str], num_seen: int) -> None:
        """Adds the `skipped` messages of a batch of `num_seen` clips.

        Raises:
            TooManyBadExamples: above 5 %; names the count and the first ones.
        """
        self.num_seen += num_seen + len(skipped)
        for message in skipped:
            record_id = message[: message.find("`", 1) + 1] or message
            if record_id not in self._known:
                self._known.add(record_id)
                self.messages.append(message)
                logger.warning("Bad example %d, replaced by another clip: %s", len(self.messages), message)
        num_judged = min(self.num_examples, max(self.num_seen, _MIN_SEEN))
        if len(self.messages) > MAX_BAD_FRACTION * num_judged:
            raise TooManyBadExamples(_too_many_message(self.messages, num_judged))


class TrainLoader(DataLoader):
    """DataLoader over steps that counts bad examples as batches arrive.

    Attributes:
        bad_examples: the `BadExampleLog` of this run.
    """

    def __init__(self, dataset: TrainDataset, **options: object) -> None:
        super().__init__(dataset, **options)
        self.bad_examples = BadExampleLog(dataset.sampler.num_examples)

    def __iter__(self) -> Iterator[dict]:
        for batch in super().__iter__():
            self.bad_examples.update(batch["skipped"], len(batch["input_features"]))
            yield batch


def build_train_loader(
    dataset: RecordDataset,
    sampler: EpochSampler,
    collator: Collator,
    start_step: int,
    num_steps: int,
    num_workers: int = 0,
) -> TrainLoader:
    """A DataLoader whose k-th batch is that of global step `start_step + k`, whatever `num_workers`.

    Batches hold what `Collator.collate` gives. The loader has a random generator of its own: making or reading it
    leaves torch's global one alone. Workers start from a fresh server process (not by forking threads that hold
    locks), so the data set and the processor must be picklable, and each holds its own copy of sounds in memory.

    Raises:
        ValueError: if the sampler counts other examples than the data set has.
        TooManyBadExamples: while reading, if more than 5 % of the examples are bad.
    """
    if sampler.num_examples != len(dataset):
        raise ValueError(
            f"`sampler` counts {sampler.num_examples} examples but `dataset` has {len(dataset)}. "
            "Build the sampler with `len(dataset)`."
        )
    worker_options = {}
    if num_workers > 0:
        worker_options = {
            "worker_init_fn": _limit_threads,
            "multiprocessing_context": _worker_context(),
            "prefetch_factor": PREFETCH_BATCHES,
        }
    return TrainLoader(
        TrainDataset(dataset, sampler, collator),
        sampler=range(start_step, start_step + num_steps),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_unchanged,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
        **worker_options,
    )


def _worker_context() -> BaseContext:
    """Fresh processes that fork from a server which has imported this module once, before any thread ran."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    return context


def _limit_threads(worker_id: int) -> None:
    torch.set_num_threads(1)


def _unchanged(batch: dict) -> dict:
    return batch


def _too_many_message(messages: Sequence[str], num_judged: int) -> str:
    first = "\n  ".join(messages[:10])
    return (
        f"{len(messages)} bad examples among {num_judged}, more than {MAX_BAD_FRACTION:.0%}. Repair or remove them "
        f"(`on_bad_example` cannot help at this rate). The first:\n  {first}"
    )


__all__ = [
    "PREFETCH_BATCHES",
    "EpochSampler",
    "TrainDataset",
    "BadExampleLog",
    "TrainLoader",
    "build_train_loader",
]

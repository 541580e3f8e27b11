# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What all probes share: their settings, what one of them finds on one fold, and the mean over folds and seeds.

LabelledData (of each fold) -> ProbeScores: a value per seed -> mean over the folds -> mean and interval over the seeds
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import nn

from hf_audiolang.data.labels_records import LabelledData, LabelledRecords

from .clip_cuts import UnitLength
from .embed import AudioOptions
from .metrics.intervals import half_width_95
from .results import TaskResult, task_record

FIRST_SEED = 42  # EVAR; the others follow


@dataclass(frozen=True)
class ProbeSettings:
    """How clips are probed.

    Attributes:
        num_seeds: probes that are trained, with the seeds 42, 43, ...; three or more give a useful interval.
        clip_seconds: all clips get this length (EVAR's unit duration), see `clip_cuts.UnitLength`; None: as they are.
        learning_rates: in place of the protocol's own, which an empty tuple leaves; the best one on the dev clips is
            taken for each seed.
        layer: of the layer probe, see `layer_probe`.
        predicts_numbers: of the layer probe: the labels of a clip are numbers, one for each of the data's classes.
        reading: reading and batching of the clips.
        cache_dir: folder of stored features, see `feature_cache`; None stores nothing.

    Raises:
        ValueError: if a number is out of its range.
    """

    num_seeds: int = 3
    clip_seconds: float | None = None
    learning_rates: tuple[float, ...] = ()
    layer: str | int = "all"
    predicts_numbers: bool = False
    reading: AudioOptions = field(default_factory=AudioOptions)
    cache_dir: str | Path | None = None

    def __post_init__(self):
        if self.num_seeds < 1:
            raise ValueError(f"`num_seeds` must be at least 1, got {self.num_seeds}. Three give an interval.")
        if self.clip_seconds is not None and not self.clip_seconds > 0:
            raise ValueError(
                f"`clip_seconds` must be positive, got {self.clip_seconds}. Leave it out for whole clips."
            )
        if not all(0 < rate <= 100 for rate in self.learning_rates):
            raise ValueError(
                f"`learning_rates` must lie between 0 and 100, got {self.learning_rates}. Leave them out, or give "
                "others."
            )

    @property
    def seeds(self) -> range:
        """The seeds of the probes."""
        return range(FIRST_SEED, FIRST_SEED + self.num_seeds)

    def cut_of(self, part: str) -> UnitLength | None:
        """How the clips of a part are cut to one length: at random, of test clips the first part; None: not at all."""
        if self.clip_seconds is None:
            return None
        return UnitLength(self.clip_seconds, None if part == "test" else FIRST_SEED)


@dataclass(frozen=True)
class ProbeScores:
    """What a probe found on one fold.

    Attributes:
        values: metric name -> a value on the test clips per seed; one value where nothing is drawn.
        chance: metric name -> what guessing reaches.
        num_clips: test clips.
        skipped: one message per clip that was left out, of any part.
        details: how the values came about, ready for JSON.
        notes: what a reader should know of them, one sentence each.
    """

    values: Mapping[str, Sequence[float]]
    chance: Mapping[str, float]
    num_clips: int
    skipped: Sequence[str]
    details: Mapping[str, object]
    notes: Sequence[str] = ()


def parts_of(data: LabelledData) -> dict[str, LabelledRecords]:
    """The clips "train", "dev" (the validation clips, if there are any) and "test".

    Raises:
        ValueError: if training or test clips are missing.
    """
    train, test = data.train_and_test()
    parts = {"train": train, "dev": data.validation, "test": test}
    return {name: records for name, records in parts.items() if records is not None}


def summarize(
    task: str, model: nn.Module, folds: Sequence[LabelledData], scores: Sequence[ProbeScores], seconds: float
) -> TaskResult:
    """The result of one probe: of each seed the mean over the folds, then the mean over the seeds.

    The record holds the half-widths of the 95 % intervals over the seeds under `ci95` (metric name -> number; none
    for one value), and what each fold gave.

    Args:
        task: name of the probe.
        model: its config names where it was loaded from.
        folds: the data of each fold; one without folds.
        scores: what the probe found on each of them.
        seconds: wall time of all.
    """
    per_seed = {
        name: np.mean([of_fold.values[name] for of_fold in scores], axis=0) for name in scores[0].values
    }  # metric -> (Z,)
    chance = {name: np.mean([of_fold.chance[name] for of_fold in scores]) for name in scores[0].chance}
    skipped = list(dict.fromkeys(message for of_fold in scores for message in of_fold.skipped))
    record = task_record(
        task, model, folds[0], skipped, sum(of_fold.num_clips for of_fold in scores), seconds,
        ci95={name: half_width_95(values) for name, values in per_seed.items() if len(values) > 1},
        per_seed={name: values.tolist() for name, values in per_seed.items()},
        num_train_clips=[len(data.train) for data in folds], num_classes=len(folds[0].classes),
        folds=[
            {"fold": data.fold, "values": dict(of_fold.values), **of_fold.details}
            for data, of_fold in zip(folds, scores, strict=True)
        ],
        notes=list(dict.fromkeys(note for part in (*folds, *scores) for note in part.notes)),
    )  # fmt: skip
    return TaskResult({name: values.mean() for name, values in per_seed.items()}, chance, record)


__all__ = ["FIRST_SEED", "ProbeScores", "ProbeSettings", "parts_of", "summarize"]

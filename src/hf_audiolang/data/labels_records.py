# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What labelled data are made of: clips as a source lists them, and the parts that training and tests take.

LabelSource (records and clips, of one folder, table or Hub id) -> LabelledData (train, validation, test; classes)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .records import Record, RecordDataset, RecordSubset, checked_index

TASKS = ("classification", "tagging", "frames")
PARTS = ("train", "validation", "test")
# Names that a split may have in a folder, a column or a `datasets` table.
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "eval": "validation",
    "test": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clip:
    """What a source says of one clip.

    Attributes:
        id: unique in its source; a file's path relative to the folder.
        labels: names of its classes, each once.
        split: one of `PARTS`, or "" where the source has no splits.
        fold: number of its fold, None where the source has no folds.
        place: where it is written, for messages.
    """

    id: str
    labels: tuple[str, ...]
    split: str = ""
    fold: int | None = None
    place: str = ""


@dataclass(frozen=True)
class LabelSource:
    """Everything that a folder, a table or a Hub id holds, before splits and classes are settled.

    Attributes:
        name: what messages and records call it.
        records: one per clip, in the order of `clips`; their sounds are read at access.
        clips: what is known without the sounds.
        classes: class names in the order that the source states; None if it states none.
        is_multi_label: whether its form allows no label or several, whatever the clips have.
        has_events: whether it has strong labels.
        is_embedded: whether the sounds are stored in a table, each of which must be read whole to be checked.
        notes: what a reader should know, one sentence each.
    """

    name: str
    records: RecordDataset
    clips: Sequence[Clip]
    classes: list[str] | None = None
    is_multi_label: bool = False
    has_events: bool = False
    is_embedded: bool = False
    notes: Sequence[str] = ()


class LabelledRecords(RecordSubset):
    """Some clips of a data set with their labels, which are known without reading a sound.

    Attributes:
        name: what results call it, such as `sounds, test`.
        ids: of each clip.
        labels: class names of each clip, each once.
        skipped: one message per clip of the whole source that was left out because it cannot be used.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        indices: Sequence[int],
        clips: Sequence[Clip],
        *,
        name: str = "",
        durations: Mapping[int, float] | None = None,
        skipped: Sequence[str] = (),
    ) -> None:
        """`clips`: of all records of `dataset`; `indices` takes some of them, `durations` as in `RecordSubset`."""
        super().__init__(dataset, indices, durations=durations, skipped=skipped)
        self.name = name
        self._ids = [clips[index].id for index in self.indices]
        self.labels = [clips[index].labels for index in self.indices]

    @property
    def ids(self) -> list[str]:
        """Ids of the clips, without touching their audio."""
        return list(self._ids)

    def __getitem__(self, index: int) -> Record:
        index = checked_index(index, len(self))
        return replace(super().__getitem__(index), id=self._ids[index], labels=self.labels[index])


class JoinedRecords:
    """Several data sets of records as one, in their order."""

    def __init__(self, datasets: Sequence[RecordDataset]) -> None:
        """`datasets`: none of them changes its length."""
        self.datasets = list(datasets)
        self._places = [(number, row) for number, dataset in enumerate(datasets) for row in range(len(dataset))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        number, row = self._places[checked_index(index, len(self))]
        return self.datasets[number][row]


@dataclass(frozen=True)
class LabelledData:
    """Labelled clips in parts that have no clip in common.

    Attributes:
        train: training clips; None if the source has test clips alone.
        validation: clips that choose among settings and epochs; None if there are none.
        test: clips that are reported on; None if none could be held out.
        classes: class names; their order is that of the label ids.
        is_multi_label: whether a clip may have no label or several.
        name: of the data, for reports.
        notes: what was decided or is unusual, one sentence each.
        folds: numbers of the folds that the source has; empty if it has none.
        fold: the fold that is the test part, if folds are used.
    """

    train: LabelledRecords | None
    validation: LabelledRecords | None
    test: LabelledRecords | None
    classes: list[str]
    is_multi_label: bool
    name: str
    notes: list[str] = field(default_factory=list)
    folds: tuple[int, ...] = ()
    fold: int | None = None

    @property
    def parts(self) -> dict[str, LabelledRecords]:
        """Name -> clips of the parts that there are."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    def fold_record(self) -> dict[str, int]:
        """What a record of a measurement says about the fold; nothing without folds."""
        return {} if self.fold is None else {"fold": self.fold}

    def train_and_test(self) -> tuple[LabelledRecords, LabelledRecords]:
        """(training clips, test clips).

        Raises:
            ValueError: if one of the two is missing.
        """
        missing = [name for name in ("train", "test") if getattr(self, name) is None]
        if missing:
            raise ValueError(
                f"{self.name} has no {' and no '.join(missing)} clips. Both are needed: give more clips per class, or "
                "a column `split`."
            )
        return self.train, self.test


def split_name(text: str) -> str | None:
    """The one of `PARTS` that a split is, by any of its usual names; None if it is none."""
    return SPLIT_NAMES.get(text.strip().lower())


__all__ = [
    "TASKS",
    "PARTS",
    "SPLIT_NAMES",
    "Clip",
    "LabelSource",
    "LabelledRecords",
    "JoinedRecords",
    "LabelledData",
    "split_name",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What is done to frozen features before any probe is trained: class ids, a part for choosing, one scale.

records -> class names -> targets;  training clips -> training and dev rows per seed;  inputs -> mean 0, deviation 1
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from hf_audiolang.data.records import Record

DEV_SHARE = 0.1  # evaluation.md section 3; of each class at least one clip, if it has two
CONSTANT = 1e-6  # a deviation below this share of the mean is rounding
BLOCK_ROWS = 2**16


def class_names(records_of: dict[str, Sequence[Record]], is_multi_label: bool) -> list[str]:
    """The labels of the training records in their sorted order, after a check of all records.

    Args:
        records_of: name of a set -> its records; one is called "train".
        is_multi_label: whether a clip may have no label or several.

    Raises:
        ValueError: for a clip without exactly one label where it needs one, too few classes, or a label that `train`
            lacks.
    """
    check_single_labels(records_of, is_multi_label)
    classes = sorted({label for record in records_of["train"] for label in record.labels})
    fewest = 1 if is_multi_label else 2
    if len(classes) < fewest:
        raise ValueError(f"`train` has {len(classes)} classes, got {classes}. A probe needs {fewest} or more.")
    for name, records in records_of.items():
        unseen = sorted({label for record in records for label in record.labels} - set(classes))
        if unseen:
            raise ValueError(
                f"`{name}` has {len(unseen)} labels that `train` lacks, got {unseen[:5]}. Add training clips of them, "
                "or leave their clips out."
            )
    return classes


def check_single_labels(records_of: dict[str, Sequence[Record]], is_multi_label: bool) -> None:
    """Raises ValueError, naming the record, for a clip without exactly one label where each must have one."""
    if is_multi_label:
        return
    for name, records in records_of.items():
        wrong = [record for record in records if len(set(record.labels)) != 1]
        if wrong:
            raise ValueError(
                f"`{name}`: record {wrong[0].id!r} must have exactly one label, got {list(wrong[0].labels)}. Name the "
                "column with the labels, leave the clip out, or pass `is_multi_label=True`."
            )


def label_targets(records: Sequence[Record], classes: Sequence[str], is_multi_label: bool) -> np.ndarray:
    """(N,) int64 class indices, or (N, C) float32 0 and 1.

    Raises:
        ValueError: for a label that is no class; names the record.
    """
    place = {label: index for index, label in enumerate(classes)}
    for record in records:
        unknown = sorted(set(record.labels) - set(place))
        if unknown:
            raise ValueError(
                f"Record {record.id!r} has the label {unknown[0]!r}, which is none of the {len(place)} classes. "
                "Correct its spelling, or add it to the classes."
            )
    if not is_multi_label:
        return np.array([place[record.labels[0]] for record in records], dtype=np.int64)
    targets = np.zeros((len(records), len(classes)), dtype=np.float32)
    for row, record in zip(targets, records, strict=True):
        row[[place[label] for label in record.labels]] = 1
    return targets


def split_rows(labels: Sequence[Sequence[str]], num_dev: int | None, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(numbers of training clips (Z, N), of dev clips (Z, N')), one row per seed.

    Args:
        labels: of each training clip.
        num_dev: dev clips that were given, counted after the training clips; None splits a tenth of each class off
            the training clips, anew for each seed.
        seeds: Z of them.

    Raises:
        ValueError: if no clip can be split off.
    """
    if num_dev is not None:
        rows = torch.arange(len(labels) + num_dev).expand(len(seeds), -1)
        return rows[:, : len(labels)], rows[:, len(labels) :]
    held_out = [_drawn_dev_rows(labels, np.random.default_rng(seed)) for seed in seeds]
    num_dev = min(map(len, held_out))  # with several labels per clip the draws differ in size
    if num_dev == 0:
        raise ValueError(
            f"`train` has {len(labels)} clips, of which none can be split off without taking the last one of a "
            "class. Give validation clips (`dev`, or a column `split`), or add some to train."
        )
    dev_rows = np.stack([rows[:num_dev] for rows in held_out])
    train_rows = np.stack([np.setdiff1d(np.arange(len(labels)), rows) for rows in dev_rows])
    return torch.from_numpy(train_rows), torch.from_numpy(dev_rows)


def standardised(sets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name of the set -> its inputs (M, D') with mean 0 and deviation 1 of each column on `train`.

    A column that is constant there is 0 everywhere.
    """
    mean, deviation = _moments(sets["train"])
    is_constant = deviation <= CONSTANT * np.abs(mean)
    factor = np.where(is_constant, 0, 1 / np.where(is_constant, 1, deviation)).astype(np.float32)
    mean = mean.astype(np.float32)
    return {name: ((inputs - mean) * factor).astype(inputs.dtype) for name, inputs in sets.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs the block with one thread of torch, then as many as before.

    The steps of probes are many and small: on two cores that other programs kept busy, two threads took twelve times
    as long as one.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _drawn_dev_rows(labels: Sequence[Sequence[str]], rng: np.random.Generator) -> list[int]:
    """Clips in random order, each taken unless a class of its would then give more than its share."""
    sets = [set(of_clip) or {""} for of_clip in labels]  # clips without any label are a class here
    counts = Counter(label for of_clip in sets for label in of_clip)
    room = {label: min(count - 1, max(1, round(DEV_SHARE * count))) for label, count in counts.items()}
    taken = []
    for row in rng.permutation(len(sets)):
        if all(room[label] > 0 for label in sets[row]):
            taken.append(int(row))
            room.update({label: room[label] - 1 for label in sets[row]})
    return taken


def _moments(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (D',) in float64, block by block: a copy of all in float64 may not fit."""
    blocks = np.array_split(inputs, math.ceil(len(inputs) / BLOCK_ROWS))
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / len(inputs)
    return mean, np.sqrt(sum(np.square(block - mean).sum(axis=0) for block in blocks) / len(inputs))


__all__ = [
    "DEV_SHARE",
    "check_single_labels",
    "class_names",
    "label_targets",
    "one_thread",
    "split_rows",
    "standardised",
]

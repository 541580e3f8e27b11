# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Linear probes of a frozen encoder under two poolings: how CaptionStew compares pre-trained encoders (4.2).

    clips -> frozen audio encoder -> frames (N, T', D')
        mean over real frames -> standardise -> Linear -> logits (N, C)
        standardise -> multi-head attention with one learned query -> LayerNorm -> dropout -> Linear -> logits (N, C)

One label per clip: cross-entropy and accuracy. Any number of labels: binary cross-entropy and mAP. A seed draws the
split of the training clips into training and dev part, the first weights, the order of the clips and the dropout; the
learning rate and epoch that are best on its dev part are measured on the test clips. Reported is the mean over the
seeds, with the 95 % interval by Student's t.

Standardising is our choice, as the study's protocol says nothing of it and EVAR does it: one step of AdamW moves every
weight by about the learning rate, so without it the scale of an encoder's features, not their content, would decide
which learning rates work. Each of the D' inputs (clip means for the mean, frames for attention) has mean 0 and
deviation 1 over all of `train`; an input that is constant there stays at 0.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor
from .embed import AudioOptions, longest_seconds
from .frame_cache import FrameFeatures, frame_features
from .metrics.intervals import half_width_95
from .probe_training import POOLINGS, ProbeClips, ProbeRecipe, predict, probe_score, train_sweep
from .results import TaskResult, task_record

DEV_SHARE = 0.1  # evaluation.md section 3; of each class at least one clip, if it has two
CONSTANT = 1e-6  # a deviation below this share of the mean is rounding
BLOCK_ROWS = 2**16


@dataclass(frozen=True)
class PoolingScores:
    """Test scores under one pooling, with how they came about; a value per seed.

    Attributes:
        scores: accuracy or mAP on the test clips.
        learning_rates: the best ones on the dev clips.
        epochs: the best ones on the dev clips, from 1.
        dev_scores: accuracy or mAP on the dev clips, of that learning rate and epoch.
        chance: one over the number of classes, or the mAP of a constant score on the test clips.
        n_classes_scored: classes with a positive test clip, or all of them with one label per clip.
        num_dev_clips: of each seed.
    """

    scores: list[float]
    learning_rates: list[float]
    epochs: list[int]
    dev_scores: list[float]
    chance: float
    n_classes_scored: int
    num_dev_clips: int


def evaluate(
    model: nn.Module,
    processor: AudioProcessor,
    train: Sequence[Record],
    test: Sequence[Record],
    *,
    dev: Sequence[Record] | None = None,
    poolings: Sequence[str] = ("mean", "attention"),
    is_multi_label: bool = False,
    num_seeds: int = 3,
    options: AudioOptions | None = None,
    cache_dir: str | Path | None = None,
) -> TaskResult:
    """`probe_mean/accuracy` and `probe_attention/accuracy`, or `.../mAP` of clips with any number of labels.

    The record holds the half-widths of the 95 % intervals under `ci95` (metric name -> number; none for one seed), and
    per pooling what each seed chose.

    Args:
        model: a system or an audio encoder; weights and modes stay as they are.
        processor: holds the model's feature extractor, or is it.
        train: records with `labels`; the classes are theirs.
        test: records with labels that `train` has, too; keep the clips of the two apart.
        dev: clips that choose learning rate and epoch; None splits a tenth of each class off `train`, anew for each
            seed.
        poolings: "mean", "attention" or both.
        is_multi_label: whether a clip may have no label or several.
        num_seeds: seeds 0, 1, ...
        options: reading and batching of the clips.
        cache_dir: folder that keeps the frames for the next call, see `frame_cache`.

    Raises:
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if no clip of a set is readable, a frame is not finite, or `probe_frames` refuses labels or names.
    """
    start, options = time.perf_counter(), options or AudioOptions()
    _check_names(poolings, num_seeds)
    datasets = {"train": train, "dev": dev, "test": test}
    datasets = {name: dataset for name, dataset in datasets.items() if dataset is not None}
    _class_names({name: _plain(dataset) for name, dataset in datasets.items()}, is_multi_label)  # before encoding
    sets = {name: frame_features(model, processor, data, options, cache_dir) for name, data in datasets.items()}
    found = probe_frames(
        sets["train"], sets["test"], dev=sets.get("dev"), poolings=poolings, is_multi_label=is_multi_label,
        num_seeds=num_seeds, device=next(model.parameters()).device,
    )  # fmt: skip
    names = {pooling: f"probe_{pooling}/{'mAP' if is_multi_label else 'accuracy'}" for pooling in found}
    known, asked = sets["train"], sets["test"]
    record = task_record(
        "tagging_probe" if is_multi_label else "clip_probe", model, test, asked.skipped, len(asked.records),
        time.perf_counter() - start,
        ci95={names[p]: half_width_95(of_pooling.scores) for p, of_pooling in found.items() if num_seeds > 1},
        num_seeds=num_seeds, poolings={pooling: asdict(of_pooling) for pooling, of_pooling in found.items()},
        recipe=asdict(ProbeRecipe()), num_train_clips=len(known.records), train_skipped=known.skipped,
        dev_data=f"{DEV_SHARE:.0%} of each class of the training clips" if dev is None else _name_of(dev),
        num_shared_ids=len({record.id for record in known.records} & {record.id for record in asked.records}),
        num_classes=len({label for record in known.records for label in record.labels}),
        num_features=known.frames.shape[1], num_heads=ProbeRecipe().num_heads(known.frames.shape[1]),
        max_seconds=longest_seconds(processor, options), long_audio=options.long_audio,
    )  # fmt: skip
    values = {names[pooling]: np.mean(of_pooling.scores) for pooling, of_pooling in found.items()}
    return TaskResult(values, {names[pooling]: of_pooling.chance for pooling, of_pooling in found.items()}, record)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Runs the block with one thread of torch, then as many as before.

    The steps of a sweep are many and small: on two cores that other programs kept busy, two threads took twelve times
    as long as one.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@_one_thread()
def probe_frames(
    train: FrameFeatures,
    test: FrameFeatures,
    *,
    dev: FrameFeatures | None = None,
    poolings: Sequence[str] = ("mean", "attention"),
    is_multi_label: bool = False,
    num_seeds: int = 3,
    recipe: ProbeRecipe | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, PoolingScores]:
    """Scores of probes on frames that are there already: pooling -> what its seeds reached on `test`.

    On a CPU one thread works.

    Args:
        train: frames of the training clips; the classes are the labels of their records.
        test: frames of the test clips.
        dev: frames of the clips that choose learning rate and epoch; None splits a tenth off `train`.
        poolings: names in `probe_training.POOLINGS`.
        is_multi_label: whether a clip may have no label or several.
        num_seeds: seeds 0, 1, ...
        recipe: how probes are trained.
        device: where they are trained; the draws are the same everywhere.

    Raises:
        ValueError: if a pooling is unknown, there is no seed, a label is missing or unknown in `train`, there are too
            few classes, no clip can be split off, or no class has a positive dev or test clip.
    """
    _check_names(poolings, num_seeds)
    recipe = recipe or ProbeRecipe()
    sets = {"train": train, "dev": dev, "test": test}
    sets = {name: features for name, features in sets.items() if features is not None}
    classes = _class_names({name: features.records for name, features in sets.items()}, is_multi_label)
    targets = {name: _targets(features.records, classes, is_multi_label) for name, features in sets.items()}
    train_rows, dev_rows = _split_rows(train, dev, num_seeds)
    found = {}
    for pooling in poolings:
        inputs = _standardised(pooling, sets)
        known = ["train", "dev"] if dev is not None else ["train"]
        clips = _joined([inputs[name] for name in known], np.concatenate([targets[name] for name in known]), device)
        sweep = train_sweep(
            pooling, clips, train_rows.to(device), dev_rows.to(device),
            num_classes=len(classes), seeds=range(num_seeds), recipe=recipe,
        )  # fmt: skip
        asked = _joined([inputs["test"]], targets["test"], device)
        rows = torch.arange(len(test.records), device=device).expand(num_seeds, -1)
        logits = predict(pooling, sweep.best_weights(), asked, rows, recipe.batch_clips)[0].cpu().numpy()  # (Z, N, C)
        of_seeds = [probe_score(logits_of_seed, targets["test"]) for logits_of_seed in logits]
        chosen = [(rate, seed) for seed, rate in enumerate(sweep.best_rates())]
        found[pooling] = PoolingScores(
            scores=[of_seed["score"] for of_seed in of_seeds],
            learning_rates=[recipe.learning_rates[rate] for rate, _ in chosen],
            epochs=[int(sweep.epochs[place]) for place in chosen],
            dev_scores=[float(sweep.dev_scores[place]) for place in chosen],
            chance=of_seeds[0]["chance"],
            n_classes_scored=of_seeds[0]["n_classes_scored"],
            num_dev_clips=dev_rows.shape[1],
        )
    return found


def _plain(dataset: Sequence[Record]) -> list[Record]:
    """The records without their audio."""
    return [replace(dataset[index], audio=None) for index in range(len(dataset))]


def _name_of(dataset: Sequence[Record]) -> str:
    return getattr(dataset, "name", type(dataset).__name__)


def _check_names(poolings: Sequence[str], num_seeds: int) -> None:
    unknown = [pooling for pooling in poolings if pooling not in POOLINGS]
    if unknown or not poolings:
        raise ValueError(
            f"`poolings` must name some of {sorted(POOLINGS)}, got {list(poolings)!r}. Choose among them."
        )
    if num_seeds < 1:
        raise ValueError(f"`num_seeds` must be at least 1, got {num_seeds}. Three give an interval.")


def _class_names(records_of: dict[str, Sequence[Record]], is_multi_label: bool) -> list[str]:
    """The labels of the training records in their sorted order, after a check of all records."""
    for name, records in records_of.items():
        wrong = [record for record in records if len(set(record.labels)) != 1]
        if wrong and not is_multi_label:
            raise ValueError(
                f"`{name}`: record {wrong[0].id!r} must have exactly one label, got {list(wrong[0].labels)}. Name the "
                "column with the labels, leave the clip out, or pass `is_multi_label=True`."
            )
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


def _targets(records: Sequence[Record], classes: Sequence[str], is_multi_label: bool) -> np.ndarray:
    """(N,) int64 class indices, or (N, C) float32 0 and 1."""
    place = {label: index for index, label in enumerate(classes)}
    if not is_multi_label:
        return np.array([place[record.labels[0]] for record in records])
    targets = np.zeros((len(records), len(classes)), dtype=np.float32)
    for row, record in zip(targets, records, strict=True):
        row[[place[label] for label in record.labels]] = 1
    return targets


def _split_rows(train: FrameFeatures, dev: FrameFeatures | None, num_seeds: int) -> tuple[Tensor, Tensor]:
    """(numbers of training clips (Z, N), of dev clips (Z, N')), dev clips that were given counted after `train`."""
    if dev is not None:
        num_train, num_dev = len(train.records), len(dev.records)
        rows = torch.arange(num_train + num_dev).expand(num_seeds, -1)
        return rows[:, :num_train], rows[:, num_train:]
    held_out = [_drawn_dev_rows(train.records, np.random.default_rng(seed)) for seed in range(num_seeds)]
    num_dev = min(map(len, held_out))  # with several labels per clip the draws differ in size
    if num_dev == 0:
        raise ValueError(
            f"`train` has {len(train.records)} clips, of which none can be split off without taking the last one of a "
            "class. Pass `dev`, or add training clips."
        )
    dev_rows = np.stack([rows[:num_dev] for rows in held_out])
    train_rows = np.stack([np.setdiff1d(np.arange(len(train.records)), rows) for rows in dev_rows])
    return torch.from_numpy(train_rows), torch.from_numpy(dev_rows)


def _drawn_dev_rows(records: Sequence[Record], rng: np.random.Generator) -> list[int]:
    """Clips in random order, each taken unless a class of its would then give more than its share."""
    labels = [set(record.labels) or {""} for record in records]  # clips without any label are a class here
    counts = Counter(label for of_clip in labels for label in of_clip)
    room = {label: min(count - 1, max(1, round(DEV_SHARE * count))) for label, count in counts.items()}
    taken = []
    for row in rng.permutation(len(records)):
        if all(room[label] > 0 for label in labels[row]):
            taken.append(int(row))
            room.update({label: room[label] - 1 for label in labels[row]})
    return taken


def _standardised(pooling: str, sets: dict[str, FrameFeatures]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name of the set -> (input of the pooling (M, D') by the numbers of `train`, lengths (N,)).

    The mean over its frames stands for a clip under "mean", as a clip of one frame.
    """
    if pooling == "mean":
        inputs = {name: (features.clip_means(), np.ones_like(features.lengths)) for name, features in sets.items()}
    else:
        inputs = {name: (features.frames, features.lengths) for name, features in sets.items()}
    mean, deviation = _moments(inputs["train"][0])
    is_constant = deviation <= CONSTANT * np.abs(mean)
    factor = np.where(is_constant, 0, 1 / np.where(is_constant, 1, deviation)).astype(np.float32)
    mean = mean.astype(np.float32)
    return {name: (((x - mean) * factor).astype(x.dtype), lengths) for name, (x, lengths) in inputs.items()}


def _moments(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (D',) in float64, block by block: a copy of all in float64 may not fit."""
    blocks = np.array_split(inputs, math.ceil(len(inputs) / BLOCK_ROWS))
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / len(inputs)
    return mean, np.sqrt(sum(np.square(block - mean).sum(axis=0) for block in blocks) / len(inputs))


def _joined(
    inputs: Sequence[tuple[np.ndarray, np.ndarray]], targets: np.ndarray, device: torch.device | str
) -> ProbeClips:
    """The clips of one set or of two, on the device."""
    lengths = np.concatenate([of_set for _, of_set in inputs])
    frames = np.concatenate([frames for frames, _ in inputs])
    parts = (frames, np.cumsum(lengths) - lengths, lengths, targets)
    return ProbeClips(*(torch.from_numpy(part).to(device) for part in parts))


__all__ = ["PoolingScores", "evaluate", "frame_features", "probe_frames"]

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

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor
from .embed import AudioOptions, longest_seconds
from .feature_cache import FrozenFeatures
from .frozen_features import frame_features
from .metrics.intervals import half_width_95
from .probe_data import DEV_SHARE, class_names, label_targets, one_thread, split_rows, standardised
from .probe_training import POOLINGS, ProbeClips, ProbeRecipe, predict, probe_score, train_sweep
from .results import TaskResult, task_record


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
        cache_dir: folder that keeps the frames for the next call, see `feature_cache`.

    Raises:
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if no clip of a set is readable, a frame is not finite, or `probe_frames` refuses labels or names.
    """
    start, options = time.perf_counter(), options or AudioOptions()
    _check_names(poolings, num_seeds)
    datasets = {"train": train, "dev": dev, "test": test}
    datasets = {name: dataset for name, dataset in datasets.items() if dataset is not None}
    class_names({name: _plain(dataset) for name, dataset in datasets.items()}, is_multi_label)  # before encoding
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
        num_features=known.rows.shape[1], num_heads=ProbeRecipe().num_heads(known.rows.shape[1]),
        max_seconds=longest_seconds(processor, options), long_audio=options.long_audio,
    )  # fmt: skip
    values = {names[pooling]: np.mean(of_pooling.scores) for pooling, of_pooling in found.items()}
    return TaskResult(values, {names[pooling]: of_pooling.chance for pooling, of_pooling in found.items()}, record)


@one_thread()
def probe_frames(
    train: FrozenFeatures,
    test: FrozenFeatures,
    *,
    dev: FrozenFeatures | None = None,
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
    classes = class_names({name: features.records for name, features in sets.items()}, is_multi_label)
    targets = {name: label_targets(features.records, classes, is_multi_label) for name, features in sets.items()}
    train_labels, num_dev = [record.labels for record in train.records], None if dev is None else len(dev.records)
    train_rows, dev_rows = split_rows(train_labels, num_dev, range(num_seeds))
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


def _standardised(pooling: str, sets: dict[str, FrozenFeatures]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name of the set -> (input of the pooling (M, D') by the numbers of `train`, lengths (N,)).

    The mean over its frames stands for a clip under "mean", as a clip of one frame.
    """
    if pooling == "mean":
        inputs = {name: (features.clip_means(), np.ones_like(features.lengths)) for name, features in sets.items()}
    else:
        inputs = {name: (features.rows, features.lengths) for name, features in sets.items()}
    scaled = standardised({name: x for name, (x, _) in inputs.items()})
    return {name: (scaled[name], lengths) for name, (_, lengths) in inputs.items()}


def _joined(
    inputs: Sequence[tuple[np.ndarray, np.ndarray]], targets: np.ndarray, device: torch.device | str
) -> ProbeClips:
    """The clips of one set or of two, on the device."""
    lengths = np.concatenate([of_set for _, of_set in inputs])
    frames = np.concatenate([frames for frames, _ in inputs])
    parts = (frames, np.cumsum(lengths) - lengths, lengths, targets)
    return ProbeClips(*(torch.from_numpy(part).to(device) for part in parts))


__all__ = ["PoolingScores", "evaluate", "frame_features", "probe_frames"]

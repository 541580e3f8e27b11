# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Probe of the layers of a frozen encoder by MARBLE's protocol (M2D-CLAP IV-B2, Table III): which layer knows it?

    first 30 s of a clip -> windows of 5 s -> encoder -> mean over time of each layer -> MLP -> mean of the logits

`layer` is "all" (a softmax-weighted sum of all layers, its weights trained with the MLP), "best" (each layer by
itself, the best one on the validation clips is tested), a number from 0 (the input of the first layer), or "clip":
the encoder's own clip feature, as M2D-CLAP was probed. Classes without both labels in the test clips are left out of
mAP and ROC-AUC, and counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import nn

from hf_audiolang.data.labels_records import LabelledData
from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor
from .clip_cuts import Windows
from .feature_cache import FrozenFeatures
from .frozen_features import clip_features, layer_features
from .layer_probe_training import LayerClips, LayerRecipe, LayerRun, TargetKind, clip_outputs, train_best
from .metrics import mean_average_precision, mean_roc_auc, r2_score
from .probe_data import check_single_labels, label_targets, one_thread, split_rows
from .probe_protocol import ProbeScores, ProbeSettings, parts_of
from .probe_training import probe_score

LAYERS = ("all", "best", "clip")


def score_fold(
    model: nn.Module, processor: AudioProcessor, data: LabelledData, settings: ProbeSettings
) -> ProbeScores:
    """`layers/accuracy`; `layers/mAP` and `layers/ROC_AUC` with any number of labels; `layers/R2_NAME` of numbers.

    With `settings.clip_seconds` clips are cut to this length in place of windows.

    Args:
        model: a system or an audio encoder; weights and modes stay as they are.
        processor: holds the model's feature extractor, or is it.
        data: labelled clips; without validation clips a tenth of each class of the training clips chooses, another
            one for each seed.
        settings: seeds, layer, learning rates (by default MARBLE's five).

    Raises:
        TooManyBadExamples: if more clips are bad than `settings.reading` allows.
        ValueError: if training or test clips are missing, a label is no class, the layer does not exist, or the
            encoder gives no hidden states.
    """
    check_layer(settings.layer)
    sets = _encoded(model, processor, data, settings)
    num_layers = sets["train"].rows.shape[1]
    if isinstance(settings.layer, int) and settings.layer >= num_layers:
        raise ValueError(f"`layer` is {settings.layer}, but the encoder has the layers 0 to {num_layers - 1}.")
    recipe = LayerRecipe(learning_rates=settings.learning_rates or LayerRecipe.learning_rates)
    kind: TargetKind = "numbers" if settings.predicts_numbers else "multi" if data.is_multi_label else "single"
    found = layer_scores(
        sets, data.classes, kind, layer=settings.layer, seeds=settings.seeds, recipe=recipe,
        device=next(model.parameters()).device,
    )  # fmt: skip
    skipped = [message for features in sets.values() for message in features.skipped]
    details = {**found.details, "clip_seconds": settings.clip_seconds, "recipe": asdict(recipe)}
    return replace(found, skipped=skipped, details=details)


def check_layer(layer: str | int) -> None:
    """Raises ValueError if `layer` is neither a name in `LAYERS` nor a number from 0."""
    if layer not in LAYERS and not (isinstance(layer, int) and layer >= 0):
        raise ValueError(f"Unknown `layer` {layer!r}. Choose one of {list(LAYERS)}, or the number of a layer from 0.")


@one_thread()
def layer_scores(
    sets: dict[str, FrozenFeatures],
    classes: Sequence[str],
    kind: TargetKind,
    *,
    layer: str | int = "all",
    seeds: Sequence[int],
    recipe: LayerRecipe | None = None,
    device: torch.device | str = "cpu",
) -> ProbeScores:
    """Scores of probes on layer features that are there already; on a CPU one thread works.

    Args:
        sets: features (M, L, D') of "train", "test" and, if given, "dev".
        classes: class names in the order of the label ids, or names of the numbers.
        kind: of the targets.
        layer: see `score_fold`.
        seeds: one probe is trained for each.
        recipe: how they are trained.
        device: where.

    Raises:
        ValueError: for a label that is no class or no number, or values that have no score.
    """
    recipe = recipe or LayerRecipe()
    clips = {name: _clips(features, classes, kind, device) for name, features in sets.items()}
    _check_numbers(clips, classes, kind)
    chosen = [
        _choose(train, dev, len(classes), layer, seed, recipe)
        for seed, (train, dev) in zip(seeds, _splits(clips, sets["train"], kind, seeds), strict=True)
    ]
    test = clips["test"]
    targets = test.targets.cpu().numpy()
    of_seeds = []
    for run, number, _ in chosen:
        outputs = clip_outputs(run.probe, test if number is None else test.layer(number))
        of_seeds.append(_values(outputs.cpu().numpy(), targets, classes, kind))
    runs = [run for run, _, _ in chosen]
    details = {
        "layer": layer,
        "num_layers": test.rows.shape[1],
        "layers": [number for _, number, _ in chosen],
        "layer_weights": np.mean([run.layer_weights for run in runs], axis=0).tolist(),
        "layer_dev_scores": np.mean([scores for _, _, scores in chosen], axis=0).tolist(),
        "learning_rates": [run.learning_rate for run in runs],
        "epochs": [run.epoch for run in runs],
        "dev_scores": [run.dev_score for run in runs],
        **_class_counts(targets, kind),
    }
    values = {f"layers/{name}": [of_seed[name] for of_seed in of_seeds] for name in of_seeds[0]}
    chance = {f"layers/{name}": value for name, value in _chance(targets, classes, kind).items()}
    return ProbeScores(values, chance, len(targets), [], details)


def _encoded(
    model: nn.Module, processor: AudioProcessor, data: LabelledData, settings: ProbeSettings
) -> dict[str, FrozenFeatures]:
    """Layers, or clip features as one layer, of "train", "dev" (if there are validation clips) and "test"."""
    sets = {}
    for name, records in parts_of(data).items():
        cut = settings.cut_of(name) or Windows()
        if settings.layer == "clip":
            found = clip_features(model, processor, records, settings.reading, settings.cache_dir, cut=cut)
            sets[name] = replace(found, rows=found.rows[:, None])
        else:
            sets[name] = layer_features(model, processor, records, settings.reading, settings.cache_dir, cut=cut)
    return sets


def _clips(
    features: FrozenFeatures, classes: Sequence[str], kind: TargetKind, device: torch.device | str
) -> LayerClips:
    if kind == "numbers":
        targets = np.array([_numbers(record, len(classes)) for record in features.records], dtype=np.float32)
    else:
        check_single_labels({"clips": features.records}, kind == "multi")
        targets = label_targets(features.records, classes, kind == "multi")
    parts = (features.rows, features.lengths, targets)
    return LayerClips(*(torch.from_numpy(part).to(device) for part in parts), kind)


def _check_numbers(clips: dict[str, LayerClips], classes: Sequence[str], kind: TargetKind) -> None:
    """R2 needs numbers that differ, of the clips that choose and of those that are tested."""
    for name in ("dev", "test") if kind == "numbers" else ():
        if name not in clips:
            continue
        targets = clips[name].targets
        for number, column in zip(classes, targets.T, strict=True):
            if (column == column[0]).all():
                part = "validation" if name == "dev" else "test"
                raise ValueError(
                    f"The {len(targets)} {part} clips all have the same `{number}`, {column[0].item():g}: R2 is not "
                    "defined. Give clips that differ."
                )


def _numbers(record: Record, num_outputs: int) -> list[float]:
    try:
        numbers = [float(label) for label in record.labels]
    except ValueError:
        numbers = []
    if len(numbers) != num_outputs or not np.isfinite(numbers).all():
        raise ValueError(
            f"Record {record.id!r} must have {num_outputs} numbers as labels, got {list(record.labels)}. Write one "
            "for each of `classes`, or leave the clip out."
        )
    return numbers


def _splits(
    clips: dict[str, LayerClips], train: FrozenFeatures, kind: TargetKind, seeds: Sequence[int]
) -> Iterator[tuple[LayerClips, LayerClips]]:
    """(clips that train, clips that choose) for each seed."""
    if "dev" in clips:
        yield from ((clips["train"], clips["dev"]) for _ in seeds)
        return
    labels = [() if kind == "numbers" else record.labels for record in train.records]
    for kept, held_out in zip(*split_rows(labels, None, seeds), strict=True):
        yield clips["train"].take(kept), clips["train"].take(held_out)


def _choose(
    train: LayerClips, dev: LayerClips, num_outputs: int, layer: str | int, seed: int, recipe: LayerRecipe
) -> tuple[LayerRun, int | None, list[float]]:
    """(best run on the dev clips, the layer it hears or None for all, dev score of each layer that was tried)."""
    if layer in ("all", "clip"):
        run = train_best(train, dev, num_outputs, seed, recipe)
        return run, None, [run.dev_score]
    numbers = range(train.rows.shape[1]) if layer == "best" else [layer]
    runs = [train_best(train.layer(n), dev.layer(n), num_outputs, seed, recipe) for n in numbers]
    place = max(range(len(runs)), key=lambda place: runs[place].merit)
    return runs[place], numbers[place], [run.dev_score for run in runs]


def _values(outputs: np.ndarray, targets: np.ndarray, classes: Sequence[str], kind: TargetKind) -> dict[str, float]:
    if kind == "numbers":
        return {f"R2_{name}": r2_score(outputs[:, c], targets[:, c]) for c, name in enumerate(classes)}
    if kind == "single":
        return {"accuracy": probe_score(outputs, targets)["score"]}
    area = mean_roc_auc(outputs, targets)["ROC_AUC"]  # first: it refuses targets without any class to score
    scored = _has_both(targets)
    return {"mAP": mean_average_precision(outputs[:, scored], targets[:, scored])["mAP"], "ROC_AUC": area}


def _chance(targets: np.ndarray, classes: Sequence[str], kind: TargetKind) -> dict[str, float]:
    """What an output that is the same for all clips reaches."""
    if kind == "numbers":
        return {f"R2_{name}": 0.0 for name in classes}
    if kind == "single":
        return {"accuracy": 1 / len(classes)}
    return _values(np.zeros(targets.shape), targets, classes, kind)


def _class_counts(targets: np.ndarray, kind: TargetKind) -> dict[str, int]:
    """Classes with both labels among the test clips, and those without, which are left out."""
    if kind != "multi":
        return {}
    num_scored = int(_has_both(targets).sum())
    return {"num_classes_scored": num_scored, "num_classes_skipped": targets.shape[1] - num_scored}


def _has_both(targets: np.ndarray) -> np.ndarray:
    """(C,) True for classes with a positive and a negative clip."""
    return targets.any(axis=0) & ~targets.all(axis=0)


__all__ = ["LAYERS", "check_layer", "layer_scores", "score_fold"]

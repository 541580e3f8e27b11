# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Linear evaluation of a frozen encoder by EVAR's protocol (M2D-CLAP IV-B1, Table II).

    clip of the task's length -> encoder -> clip feature (D') -> standardise by the training clips -> Linear -> (C,)

One label per clip: cross-entropy and accuracy; any number of labels: binary cross-entropy and mAP. The weights of the
epoch that is best on the validation clips are tested. Long clips give a random part in training and validation, the
first part in the test; short ones are followed by silence.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import nn

from hf_audiolang.data.labels_records import LabelledData

from .capabilities import AudioProcessor
from .feature_cache import FrozenFeatures
from .frozen_features import clip_features
from .probe_data import check_single_labels, label_targets, one_thread, split_rows, standardised
from .probe_protocol import ProbeScores, ProbeSettings, parts_of
from .probe_training import ProbeClips, ProbeRecipe, predict, probe_score, train_sweep

# EVAR's lineareval.py with M2D's configuration; a batch is never larger than the training set.
RECIPE = ProbeRecipe(
    learning_rates=(3e-5,), num_epochs=200, batch_clips=200, lr_end_ratio=1.0, weight_decay=1e-8, patience=20,
    takes_last_equal=True,
)  # fmt: skip


def score_fold(
    model: nn.Module, processor: AudioProcessor, data: LabelledData, settings: ProbeSettings
) -> ProbeScores:
    """`linear/accuracy`, or `linear/mAP` of clips with any number of labels, for each seed.

    Args:
        model: a system or an audio encoder; weights and modes stay as they are.
        processor: holds the model's feature extractor, or is it.
        data: labelled clips; the validation clips choose the epoch, the same for each seed; without any a tenth of
            each class of the training clips does, another one for each seed. They do not count in the standardisation
            if they came as validation clips.
        settings: seeds, length of the clips, learning rates.

    Raises:
        TooManyBadExamples: if more clips are bad than `settings.reading` allows.
        ValueError: if training or test clips are missing, or a label is no class.
    """
    sets = unit_features(model, processor, data, settings)
    recipe = replace(RECIPE, learning_rates=settings.learning_rates or RECIPE.learning_rates)
    found = linear_scores(
        sets, data.classes, is_multi_label=data.is_multi_label, seeds=settings.seeds, recipe=recipe,
        device=next(model.parameters()).device,
    )  # fmt: skip
    skipped = [message for features in sets.values() for message in features.skipped]
    details = {**found.details, "clip_seconds": settings.clip_seconds, "recipe": asdict(recipe)}
    return replace(found, skipped=skipped, details=details)


def unit_features(
    model: nn.Module,
    processor: AudioProcessor,
    data: LabelledData,
    settings: ProbeSettings,
    names: Sequence[str] = ("train", "dev", "test"),
) -> dict[str, FrozenFeatures]:
    """Clip features of the parts "train", "dev" (the validation clips, if there are any) and "test", as named."""
    sets = {
        name: clip_features(model, processor, records, settings.reading, settings.cache_dir, cut=settings.cut_of(name))
        for name, records in parts_of(data).items()
        if name in names
    }
    check_single_labels({name: features.records for name, features in sets.items()}, data.is_multi_label)
    return sets


@one_thread()
def linear_scores(
    sets: dict[str, FrozenFeatures],
    classes: Sequence[str],
    *,
    is_multi_label: bool,
    seeds: Sequence[int],
    recipe: ProbeRecipe = RECIPE,
    device: torch.device | str = "cpu",
) -> ProbeScores:
    """Scores of linear layers on features that are there already; on a CPU one thread works.

    Args:
        sets: features of "train", "test" and, if given, "dev".
        classes: class names in the order of the label ids.
        is_multi_label: whether a clip may have no label or several.
        seeds: one layer is trained for each, all at once.
        recipe: how they are trained.
        device: where; the draws are the same everywhere.

    Raises:
        ValueError: for a label that is no class, or no class with a positive dev or test clip.
    """
    inputs = standardised({name: features.clip_means() for name, features in sets.items()})
    targets = {name: label_targets(features.records, classes, is_multi_label) for name, features in sets.items()}
    known = [name for name in ("train", "dev") if name in sets]
    train_labels = [record.labels for record in sets["train"].records]
    num_dev = len(sets["dev"].records) if "dev" in sets else None
    train_rows, dev_rows = (rows.to(device) for rows in split_rows(train_labels, num_dev, seeds))
    clips = ProbeClips.of_rows([inputs[name] for name in known], [targets[name] for name in known], device)
    sweep = train_sweep("mean", clips, train_rows, dev_rows, num_classes=len(classes), seeds=seeds, recipe=recipe)
    asked = ProbeClips.of_rows([inputs["test"]], [targets["test"]], device)
    rows = torch.arange(len(inputs["test"]), device=device).expand(len(seeds), -1)
    logits = predict("mean", sweep.best_weights(), asked, rows, recipe.batch_clips)[0].cpu().numpy()  # (Z, N, C)
    of_seeds = [probe_score(of_seed, targets["test"]) for of_seed in logits]
    name = f"linear/{'mAP' if is_multi_label else 'accuracy'}"
    places = [(rate, seed) for seed, rate in enumerate(sweep.best_rates())]
    details = {
        "learning_rates": [recipe.learning_rates[rate] for rate, _ in places],
        "epochs": [int(sweep.epochs[place]) for place in places],
        "dev_scores": [float(sweep.dev_scores[place]) for place in places],
        "num_dev_clips": dev_rows.shape[1],
        "num_features": inputs["test"].shape[1],
        "num_classes_scored": of_seeds[0]["n_classes_scored"],
    }
    values = {name: [of_seed["score"] for of_seed in of_seeds]}
    notes = _notes(details["epochs"], details["dev_scores"], recipe)
    return ProbeScores(values, {name: of_seeds[0]["chance"]}, len(asked.targets), [], details, notes)


def _notes(epochs: Sequence[int], dev_scores: Sequence[float], recipe: ProbeRecipe) -> list[str]:
    is_late = [epoch == recipe.num_epochs and score < 1 for epoch, score in zip(epochs, dev_scores, strict=True)]
    if not any(is_late):
        return []
    return [
        f"The best epoch of {sum(is_late)} of {len(epochs)} probes was the last one, {recipe.num_epochs}: they may "
        "have been learning still. Higher `learning_rates` may show more, above all on few clips."
    ]


__all__ = ["RECIPE", "linear_scores", "score_fold", "unit_features"]

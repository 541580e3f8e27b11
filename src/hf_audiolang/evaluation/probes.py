# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""All probes of a frozen encoder by name, the control with random weights, and the table of what they find.

run_probe("linear", encoder, processor, folds) -> TaskResult -> probe_table([...])

linear   EVAR's linear evaluation of clip features       linear_evaluation
knn      votes of the nearest training clips             knn
layers   MARBLE's MLP on the layers                      layer_probe
pooling  mean and attention pooling of the frames        probe
frames   a linear layer on every frame                   frame_probe
"""

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import nn

from hf_audiolang.data.labels_records import LabelledData

from . import frame_probe, knn, layer_probe, linear_evaluation, probe
from .capabilities import AudioProcessor
from .frozen_features import encoder_of
from .probe_protocol import ProbeScores, ProbeSettings, summarize
from .results import TaskResult

NOTES = {
    "linear": "Linear layer on standardised clip features (EVAR)",
    "knn": "votes of the 10 nearest training clips",
    "layers": "MLP on the layers (MARBLE)",
    "pooling": "linear layer on pooled frames",
    "frames": "linear layer on every frame",
}
# settings that some probes alone have
SETTINGS = {
    "linear": ("clip_seconds", "learning_rates"),
    "knn": ("clip_seconds",),
    "layers": ("clip_seconds", "learning_rates", "layer", "predicts_numbers"),
    "pooling": (),
    "frames": ("learning_rates",),
}


def run_probe(
    name: str,
    model: nn.Module,
    processor: AudioProcessor,
    folds: LabelledData | Sequence[LabelledData],
    settings: ProbeSettings | None = None,
) -> TaskResult:
    """What a probe finds in a frozen encoder: the mean over folds and seeds, with the interval over seeds.

    The record holds the half-widths of the 95 % intervals under `ci95`, the value of each seed under `per_seed`, and
    under `folds` what each fold gave.

    Args:
        name: "linear", "knn", "layers", "pooling" or "frames".
        model: a system, a captioner or a classifier, whose `audio_model` is asked, or an audio encoder; weights and
            modes stay as they are.
        processor: holds the model's feature extractor, or is it.
        folds: labelled data, or those of each fold.
        settings: seeds, lengths, cache.

    Raises:
        TooManyBadExamples: if more clips are bad than `settings.reading` allows.
        ValueError: for an unknown probe, no data, or as the probe says.
    """
    if name not in PROBES:
        raise ValueError(f"Unknown probe {name!r}. Choose one of {sorted(PROBES)}.")
    folds = [folds] if isinstance(folds, LabelledData) else list(folds)
    if not folds:
        raise ValueError("`folds` is empty, got 0 data sets. Give the data of one fold or more.")
    start, settings = time.perf_counter(), settings or ProbeSettings()
    _check_settings(name, settings)
    scores = [PROBES[name](model, processor, data, settings) for data in folds]
    return summarize(f"{name}_probe", model, folds, scores, time.perf_counter() - start)


def with_random_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """An audio encoder of the same architecture, its weights drawn from `seed`: the control of every probe.

    Args:
        model: a model whose encoder is taken as the pattern, or an encoder; it stays as it is.
        seed: of the weights.
    """
    encoder = encoder_of(model)
    first = next(encoder.parameters())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = type(encoder)(deepcopy(encoder.config))
    return fresh.to(first.device, first.dtype).eval()


def probe_table(columns: Mapping[str, TaskResult]) -> str:
    """Markdown table: a row per metric, with 95 % interval, a column per result; then what the numbers are of.

    Args:
        columns: heading -> result; the same metrics in all of them.
    """
    results = list(columns.values())
    names = list(dict.fromkeys(name for result in results for name in result))
    lines = [f"| metric | {' | '.join(columns)} | chance |", "|---|" + "---:|" * (len(columns) + 1)]
    for name in names:
        chance = next((100 * result.chance[name] for result in results if name in result.chance), None)
        cells = [_cell(result, name) for result in results]
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if chance is None else f'{chance:.1f}'} |")
    lines += ["", "In percent; +- is the 95 % interval over the seeds of the probe.", ""]
    for heading, result in columns.items():
        lines.append(f"- {heading}: {_about(result)}")
    lines += [f"- {note}" for note in dict.fromkeys(note for result in results for note in result.record["notes"])]
    return "\n".join(lines) + "\n"


def _check_settings(name: str, settings: ProbeSettings) -> None:
    """Raises ValueError for a setting that would change nothing."""
    for field in sorted({field for known in SETTINGS.values() for field in known} - set(SETTINGS[name])):
        value = getattr(settings, field)
        if value != getattr(ProbeSettings, field):
            others = sorted(other for other, known in SETTINGS.items() if field in known)
            raise ValueError(
                f"`{field}` is {value!r}, but the probe {name!r} has none. Leave it out, or use {others}."
            )


def _pooling_scores(
    model: nn.Module, processor: AudioProcessor, data: LabelledData, settings: ProbeSettings
) -> ProbeScores:
    """Mean and attention pooling by their own protocol (CaptionStew 4.2), whose seeds begin at 0."""
    train, test = data.train_and_test()
    found = probe.evaluate(
        model, processor, train, test, dev=data.validation, is_multi_label=data.is_multi_label,
        num_seeds=settings.num_seeds, options=settings.reading, cache_dir=settings.cache_dir,
    )  # fmt: skip
    poolings = found.record["poolings"]
    values = {name: poolings[name.split("/")[0].removeprefix("probe_")]["scores"] for name in found}
    skipped = [*found.record["train_skipped"], *found.record["skipped"]]
    details = {name: found.record[name] for name in ("poolings", "recipe", "dev_data", "num_features", "num_heads")}
    return ProbeScores(values, found.chance, found.record["num_clips"], skipped, details)


def _cell(result: TaskResult, name: str) -> str:
    if name not in result:
        return "-"
    width = result.record["ci95"].get(name)
    return f"{100 * result[name]:.1f}" + ("" if width is None else f" +- {100 * width:.1f}")


def _about(result: TaskResult) -> str:
    record = result.record
    folds = record["folds"]
    parts = [f"{record['model']} on {record['data']}", f"{record['num_clips']} test clips"]
    parts.append(f"{', '.join(map(str, record['num_train_clips']))} training clips")
    parts += [f"mean over {len(folds)} folds"] if len(folds) > 1 else []
    parts += [f"{record['num_skipped']} clips left out"] if record["num_skipped"] else []
    parts += [f"weights {record['weights']}"] if "weights" in record else []
    return f"{NOTES[record['task'].removesuffix('_probe')]}; {', '.join(parts)}."


PROBES = {
    "linear": linear_evaluation.score_fold,
    "knn": knn.score_fold,
    "layers": layer_probe.score_fold,
    "pooling": _pooling_scores,
    "frames": frame_probe.score_fold,
}

__all__ = ["NOTES", "PROBES", "SETTINGS", "probe_table", "run_probe", "with_random_weights"]

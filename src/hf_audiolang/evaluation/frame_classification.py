# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sound event detection by a trained head: when is each of its classes heard.

clips -> windows -> ...ForAudioFrameClassification -> logits (T, C) of each clip -> frame mAP, PSDS, F1

It is zero-shot detection with logits in the place of similarities: windows, smoothing and metrics are the same.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from torch import nn

from hf_audiolang.data.records import Record

from . import detection
from .capabilities import AudioProcessor
from .classification import class_names
from .detection import check_events, constant_scores
from .frame_scores import FrameScoreOptions, ScoredRecords, score_records
from .frame_times import frame_offset_of
from .frames import FrameSurface, frame_labels
from .metrics import mean_average_precision
from .metrics.detections import Smoothing
from .results import TaskResult, task_record


def evaluate(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: Sequence[Record],
    *,
    median_frames: int = 3,
    options: FrameScoreOptions | None = None,
) -> TaskResult:
    """`frame_classification/mAP`, and `/PSDS1`, `/PSDS2` and the other values of `detection.evaluate`, all in [0, 1].

    Args:
        model: an `...ForAudioFrameClassification`.
        processor: holds the model's feature extractor, or is it.
        dataset: records whose `events` have `label`, `onset`, `offset` in seconds; clips of any length.
        median_frames: of the median filter on the logits.
        options: windows, batches and the rule for bad clips.

    Raises:
        ValueError: if an event is faulty or of an unknown label, or there is none.
    """
    start, classes, smoothing = time.perf_counter(), class_names(model), Smoothing(median_frames)
    check_events(dataset, classes)
    scored = head_scores(model, processor, dataset, options)
    values = detection.score(scored.frame_scores, scored.records, classes, smoothing)
    constant = [constant_scores(record, len(classes)) for record in scored.records]
    chance = detection.score(constant, scored.records, classes, Smoothing(1))
    frames = frame_precision(scored, classes, frame_offset_of(_surface(model)))
    record = task_record(
        "frame_classification", model, dataset, scored.skipped, len(scored.records), time.perf_counter() - start,
        smoothing=asdict(smoothing), frame_rate_hz=float(np.mean(scored.frame_rates_hz)), num_classes=len(classes),
        num_classes_scored=frames["n_classes_scored"], num_events=sum(len(item.events) for item in scored.records),
    )  # fmt: skip
    return TaskResult(_named(frames["mAP"], values), _named(frames["chance"], chance), record)


def _named(mean_precision: float, detections: dict[str, float]) -> dict[str, float]:
    named = {name.replace("detection/", "frame_classification/"): value for name, value in detections.items()}
    return {"frame_classification/mAP": mean_precision, **named}


def head_scores(
    model: nn.Module, processor: AudioProcessor, dataset: Sequence[Record], options: FrameScoreOptions | None = None
) -> ScoredRecords:
    """Logits (T, C) of every frame of every readable clip."""
    one_per_class = np.eye(model.config.num_labels, dtype=np.float32)
    return score_records(_surface(model), processor, dataset, lambda _: one_per_class, options=options)


def _surface(model: nn.Module) -> FrameSurface:
    """The classifier with the surface of a system: its frames are the logits of the classes."""
    return FrameSurface(model, model.audio_config, "logits")


def frame_precision(scored: ScoredRecords, classes: Sequence[str], offset_seconds: float) -> dict[str, float | int]:
    """`mAP`, `chance` and `n_classes_scored` over all frames; classes that are never heard are left out."""
    scores = np.concatenate([item.scores for item in scored.frame_scores])  # (all frames, C)
    positives = np.concatenate([
        frame_labels(record, classes, len(item.scores), rate, offset_seconds)
        for record, item, rate in zip(scored.records, scored.frame_scores, scored.frame_rates_hz, strict=True)
    ])  # fmt: skip
    heard = positives.any(axis=0)
    if not heard.any():
        raise ValueError(f"No event covers the centre of one of {len(scores)} frames. Check the events' times.")
    return mean_average_precision(scores[:, heard], positives[:, heard])


__all__ = ["evaluate", "frame_precision", "head_scores"]

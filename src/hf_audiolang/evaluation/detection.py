# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Zero-shot sound event detection: when is each class heard, by the cosine of frames with the class names.

    clips -> frame_scores_of -> (T, C) per clip -> score: smoothing -> PSDS1, PSDS2, segment F1, event F1

The two steps are apart so that smoothing can be chosen on validation clips that are encoded once. Clips without an
event count with their duration (MGA-CLAP's script leaves them out, which raises PSDS).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
from torch import nn
from transformers import ProcessorMixin

from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor
from .frame_scores import BARE_LABEL, FrameScoreOptions, ScoredRecords, embed_labels, score_records
from .metrics.detections import FrameScores, Segment, Smoothing
from .metrics.event_scores import event_f1, segment_f1
from .metrics.psds import PSDS1, PSDS2, psds
from .results import TaskResult, task_record
from .zero_shot import resolve_templates

ROUNDING_SECONDS = 0.05  # our choice: annotations are rounded, and compressed files end some milliseconds early


def evaluate(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    labels: Sequence[str],
    templates: Sequence[str] | str = BARE_LABEL,
    *,
    label_text: Callable[[str], str] | None = None,
    median_frames: int = 3,
    join_seconds: float = 0.0,
    pool_frames: int = 1,
    options: FrameScoreOptions | None = None,
) -> TaskResult:
    """`detection/PSDS1`, `PSDS2`, both also with `_no_spread`, `segment_F1` and `event_F1`, all in [0, 1].

    Chance is what a constant score reaches.

    Args:
        model: has `get_text_features` and `get_audio_frame_features`, or `get_audio_features` alone.
        processor: the model's processor.
        dataset: records whose `events` have `label`, `onset`, `offset` in seconds; clips of any length.
        labels: all class names; those without an event in the data set are left out of the means.
        templates: prompts of the classes; bare names by default, as MGA-CLAP has it.
        label_text: class name -> words in the prompt; by default `_` becomes a space.
        median_frames: see `Smoothing`, as the next two.
        join_seconds: see `Smoothing`.
        pool_frames: see `Smoothing`.
        options: windows, batches and the rule for bad clips.

    Raises:
        ValueError: if an event is faulty or of an unknown label (the message names record and row), or there is none.
    """
    start, smoothing = time.perf_counter(), Smoothing(median_frames, join_seconds, pool_frames)
    check_events(dataset, labels)  # before anything is encoded
    text_embeds = embed_labels(model, processor, labels, templates, label_text)  # (C, E)
    scored = frame_scores_of(model, processor, dataset, text_embeds, options=options)
    values = score(scored.frame_scores, scored.records, labels, smoothing)
    constant = [constant_scores(record, len(labels)) for record in scored.records]
    chance = score(constant, scored.records, labels, Smoothing(1))
    record = task_record(
        "detection", model, dataset, scored.skipped, len(scored.records), time.perf_counter() - start,
        templates=list(resolve_templates(templates)), smoothing=asdict(smoothing),
        frame_rate_hz=float(np.mean(scored.frame_rates_hz)), num_classes=len(labels),
        num_classes_scored=len({event["label"] for record in scored.records for event in record.events}),
        num_events=sum(len(record.events) for record in scored.records),
        audio_seconds=float(sum(record.duration for record in scored.records)),
    )  # fmt: skip
    return TaskResult(values, chance, record)


def frame_scores_of(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: Sequence[Record],
    text_embeds: np.ndarray,
    *,
    options: FrameScoreOptions | None = None,
) -> ScoredRecords:
    """Raw frame scores of every readable clip against the same texts, for any number of `score` calls.

    Args:
        model: as in `evaluate`.
        processor: holds the model's feature extractor, or is it.
        dataset: map-style sequence of `Record`.
        text_embeds: (C, E) unit-norm, of `embed_labels`.
        options: windows, batches and the rule for bad clips.

    Raises:
        TooManyBadExamples: if more clips are bad than `options.reading` allows.
        ValueError: if no clip is readable.
    """
    return score_records(model, processor, dataset, lambda _: text_embeds, options=options)


def score(
    frame_scores: Sequence[FrameScores],
    records: Sequence[Record],
    labels: Sequence[str],
    smoothing: Smoothing,
) -> dict[str, float]:
    """The values of `evaluate` from raw frame scores.

    Args:
        frame_scores: N scores with C columns each.
        records: N records with `events` and `duration`.
        labels: C class names; those without an event are left out.
        smoothing: of the scores.

    Raises:
        ValueError: as `evaluate`; also for a NaN score, by record, frame and label.
    """
    segments = [
        segment for index, record in enumerate(records) for segment in event_segments(record, labels, clip=str(index))
    ]
    if not segments:
        raise ValueError(f"None of the {len(records)} records has an event. Detection needs `events` with times.")
    heard = {segment.label for segment in segments}
    columns = [column for column, label in enumerate(labels) if label in heard]
    smoothed = {}
    for index, (item, record) in enumerate(zip(frame_scores, records, strict=True)):
        check_not_nan(item, record, labels)
        smoothed[str(index)] = smoothing.apply(FrameScores(np.asarray(item.scores)[:, columns], item.edges))
    clip_seconds = {str(index): record.duration for index, record in enumerate(records)}
    case = (smoothed, segments, [labels[column] for column in columns], clip_seconds)
    strict, loose = psds(*case, PSDS1), psds(*case, PSDS2)
    return {
        "detection/PSDS1": strict.psds,
        "detection/PSDS2": loose.psds,
        # without the spread penalty the area under the mean curve is the mean of the areas
        "detection/PSDS1_no_spread": float(np.mean(list(strict.psds_per_class.values()))),
        "detection/PSDS2_no_spread": float(np.mean(list(loose.psds_per_class.values()))),
        "detection/segment_F1": segment_f1(*case).f1,
        "detection/event_F1": event_f1(*case).f1,
    }


def check_events(dataset: Sequence[Record], labels: Sequence[str]) -> None:
    """Makes sure that the events of all clips have known labels and times in order; reads no sound.

    Raises:
        ValueError: as `event_segments`; for what lies outside of a clip only where its duration is known.
    """
    for index in range(len(dataset)):
        record = dataset[index]
        duration = math.inf if record.duration is None else record.duration
        event_segments(replace(record, duration=duration), labels, clip="")


def event_segments(record: Record, labels: Sequence[str], *, clip: str) -> list[Segment]:
    """The ground truth of one record, cut to the clip.

    Args:
        record: `events` with `label`, `onset`, `offset` in seconds, and its `duration`.
        labels: class names.
        clip: name of the clip in the segments.

    Raises:
        ValueError: if an event has an unknown label, ends before it begins, or lies outside of the clip by more than
            rounding; the message names record and row.
    """
    segments = []
    for row, event in enumerate(record.events):
        place = f"Record {record.id!r}, event row {row}"
        if event["label"] not in labels:
            raise ValueError(
                f"{place}: the label {event['label']!r} is not among the {len(labels)} `labels`. Add it to the class "
                "list or correct its spelling."
            )
        onset, offset = checked_times(place, event["onset"], event["offset"], record.duration)
        segments.append(Segment(clip, event["label"], onset, offset))
    return segments


def checked_times(place: str, onset: float, offset: float, seconds: float) -> tuple[float, float]:
    """Onset and offset, cut to a clip of `seconds` where they are outside of it by rounding.

    Raises:
        ValueError: if they are no such times; the message begins with `place`.
    """
    if not (math.isfinite(onset) and math.isfinite(offset) and onset < offset):
        raise ValueError(f"{place}: the offset must come after the onset, got {onset} and {offset}. Correct the row.")
    if onset < -ROUNDING_SECONDS or offset > seconds + ROUNDING_SECONDS or onset >= seconds:
        raise ValueError(
            f"{place}: [{onset}, {offset}] is outside of the clip, which is {seconds:.3f} s long. Cut it to the clip, "
            "or correct the row."
        )
    return max(float(onset), 0.0), min(float(offset), float(seconds))


def check_not_nan(item: FrameScores, record: Record, labels: Sequence[str]) -> None:
    """Raises ValueError, naming record, frame and label, if a score (T, C) is NaN."""
    is_nan = np.isnan(item.scores)
    if is_nan.any():
        frame, column = np.argwhere(is_nan)[0]
        raise ValueError(
            f"Record {record.id!r}: the score of {labels[column]!r} is NaN at frame {frame} "
            f"({int(is_nan.sum())} NaN in the clip). Find the model output that is not finite."
        )


def constant_scores(record: Record, num_labels: int) -> FrameScores:
    """Scores that say nothing: one frame over the whole clip, (1, C) ones."""
    return FrameScores(np.ones((1, num_labels)), np.array([0.0, record.duration]))


__all__ = [
    "ROUNDING_SECONDS",
    "check_events",
    "check_not_nan",
    "checked_times",
    "constant_scores",
    "evaluate",
    "event_segments",
    "frame_scores_of",
    "score",
]

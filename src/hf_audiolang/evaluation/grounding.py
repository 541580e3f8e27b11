# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Text-to-audio grounding: when is a phrase heard, by the cosine of frames with the phrase.

    clips -> frame_scores_of -> (T, phrases of the clip) -> score: smoothing -> PSDSm, PSDS1, frame AP

A query is a phrase in a clip; all queries form one class (MGA-CLAP's script). A phrase that is not heard, without
segments or with (0, 0) alone, is left out. The two steps are apart so that smoothing can be chosen on validation clips
that are encoded once.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from torch import nn
from transformers import ProcessorMixin

from hf_audiolang.data.records import Record, RecordSubset

from .detection import check_not_nan, checked_times, constant_scores
from .embed import embed_texts
from .frame_scores import FrameScoreOptions, ScoredRecords, check_lengths, score_records
from .metrics import average_precision
from .metrics.detections import FrameScores, Segment, Smoothing
from .metrics.psds import PSDSM, grounding_psds
from .results import TaskResult, task_record

SCENARIOS = {"grounding/PSDSm": PSDSM, "grounding/PSDS1": replace(PSDSM, dtc=0.7, gtc=0.7)}


def evaluate(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    *,
    thresholds: str = "all",
    median_frames: int = 3,
    join_seconds: float = 0.5,
    pool_frames: int = 1,
    options: FrameScoreOptions | None = None,
) -> TaskResult:
    """`grounding/PSDSm` (dtc = gtc = 0.5), `grounding/PSDS1` (0.7) and `grounding/frame_AP`, all in [0, 1].

    Chance is what a constant score reaches.

    Args:
        model: has `get_text_features` and `get_audio_frame_features`, or `get_audio_features` alone.
        processor: the model's processor.
        dataset: records whose `phrases` have `phrase` and `segments` [[onset, offset], ...] in seconds.
        thresholds: "all" scores that occur, or "mga50": those of MGA-CLAP's script, for comparison.
        median_frames: see `Smoothing`, as the next two; the defaults are MGA-CLAP's script.
        join_seconds: see `Smoothing`.
        pool_frames: see `Smoothing`.
        options: windows, batches and the rule for bad clips.

    Raises:
        ValueError: if a segment is faulty (the message names record and row), or no phrase is heard.
    """
    start, smoothing = time.perf_counter(), Smoothing(median_frames, join_seconds, pool_frames)
    scored = frame_scores_of(model, processor, dataset, options=options)
    values = score(scored.frame_scores, scored.records, smoothing, thresholds=thresholds)
    constant = [constant_scores(record, len(heard_phrases(record))) for record in scored.records]
    chance = score(constant, scored.records, Smoothing(1), thresholds=thresholds)
    chance["grounding/frame_AP"] = _mean_share(scored)
    record = task_record(
        "grounding", model, dataset, scored.skipped, len(scored.records), time.perf_counter() - start,
        thresholds=thresholds, smoothing=asdict(smoothing), frame_rate_hz=float(np.mean(scored.frame_rates_hz)),
        num_queries=sum(len(heard_phrases(record)) for record in scored.records),
        num_phrases_not_heard=sum(len(record.phrases) - len(heard_phrases(record)) for record in scored.records),
    )  # fmt: skip
    return TaskResult(values, chance, record)


def frame_scores_of(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    *,
    options: FrameScoreOptions | None = None,
) -> ScoredRecords:
    """Raw frame scores (T, phrases) of every readable clip that has a heard phrase, one column for each of those.

    Args:
        model: as in `evaluate`.
        processor: the model's processor.
        dataset: map-style sequence of `Record`; clips without a heard phrase are not encoded.
        options: windows, batches and the rule for bad clips.

    Raises:
        TooManyBadExamples: if more clips are bad than `options.reading` allows.
        ValueError: if no phrase is heard, one is blank, or no clip is readable.
    """
    phrases: dict[str, int] = {}  # phrase -> row of its embedding
    indices = []
    for index in range(len(dataset)):
        record = dataset[index]
        heard = heard_phrases(record)
        if any(not entry["phrase"].strip() for entry in heard):
            raise ValueError(
                f"Record {record.id!r} has a blank phrase, got {heard}. Write what is heard, or remove it."
            )
        for entry in heard:
            phrases.setdefault(entry["phrase"], len(phrases))
            _times_of(replace(record, duration=math.inf), entry)  # what can be wrong without knowing the clip's end
        if heard:
            indices.append(index)
    if not indices:
        raise ValueError(f"None of the {len(dataset)} records has a phrase that is heard. Grounding needs `phrases`.")
    check_lengths(model, processor, {phrase: [phrase] for phrase in phrases}, "phrases")
    embeds = embed_texts(model, processor, list(phrases))  # (distinct phrases, E)
    wanted = RecordSubset(dataset, indices, skipped=getattr(dataset, "skipped", ()))

    def texts_of(record: Record) -> np.ndarray:
        return embeds[[phrases[entry["phrase"]] for entry in heard_phrases(record)]]

    return score_records(model, processor, wanted, texts_of, options=options)


def score(
    frame_scores: Sequence[FrameScores], records: Sequence[Record], smoothing: Smoothing, *, thresholds: str = "all"
) -> dict[str, float]:
    """The values of `evaluate` from raw frame scores.

    Args:
        frame_scores: N scores with one column per heard phrase.
        records: N records with `phrases` and `duration`.
        smoothing: of the scores, for PSDS; frame AP takes the raw ones.
        thresholds: "all" or "mga50".

    Raises:
        ValueError: as `evaluate`; also for a NaN score, by record, frame and phrase.
    """
    queries: dict[str, FrameScores] = {}
    clip_seconds: dict[str, float] = {}
    segments: list[Segment] = []
    precisions = []
    for index, (item, record) in enumerate(zip(frame_scores, records, strict=True)):
        heard = heard_phrases(record)
        check_not_nan(item, record, [entry["phrase"] for entry in heard])
        for column, entry in enumerate(heard):
            query = f"{index}/{column}"
            queries[query] = FrameScores(item.scores[:, column : column + 1], item.edges)
            clip_seconds[query] = record.duration
            times = _times_of(record, entry)
            segments += [Segment(query, "phrase", onset, offset) for onset, offset in times]
            is_heard = _heard_frames(item, times)
            if is_heard.any():  # none if all segments lie between the centres of two frames
                precisions.append(average_precision(item.scores[:, column], is_heard))
    values = {
        name: grounding_psds(
            queries, segments, clip_seconds, scenario=scenario, thresholds=thresholds, smoothing=smoothing
        ).psds
        for name, scenario in SCENARIOS.items()
    }
    return {**values, "grounding/frame_AP": float(np.mean(precisions)) if precisions else 0.0}


def heard_phrases(record: Record) -> list[dict]:
    """The entries of `record.phrases` with a segment other than (0, 0)."""
    return [entry for entry in record.phrases if _real_segments(entry)]


def _real_segments(entry: dict) -> list[tuple[int, tuple[float, float]]]:
    """(row, (onset, offset)) of the segments that are not (0, 0), which stands for a phrase that is not heard."""
    return [(row, tuple(times)) for row, times in enumerate(entry["segments"]) if tuple(times) != (0, 0)]


def _times_of(record: Record, entry: dict) -> list[tuple[float, float]]:
    return [
        checked_times(f"Record {record.id!r}, phrase {entry['phrase']!r}, segment row {row}", *times, record.duration)
        for row, times in _real_segments(entry)
    ]


def _heard_frames(item: FrameScores, times: Sequence[tuple[float, float]]) -> np.ndarray:
    """(T,) bool: True where the centre of the frame lies in a segment."""
    centres = (item.edges[:-1] + item.edges[1:]) / 2
    return np.any([(centres >= onset) & (centres < offset) for onset, offset in times], axis=0)


def _mean_share(scored: ScoredRecords) -> float:
    """Mean share of heard frames over the queries that have one: the frame AP of a constant score."""
    shares = [
        _heard_frames(item, _times_of(record, entry)).mean()
        for item, record in zip(scored.frame_scores, scored.records, strict=True)
        for entry in heard_phrases(record)
    ]
    return float(np.mean([share for share in shares if share > 0] or [0.0]))


__all__ = ["SCENARIOS", "evaluate", "frame_scores_of", "heard_phrases", "score"]

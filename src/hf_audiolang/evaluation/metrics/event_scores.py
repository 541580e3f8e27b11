# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""F1 of detections with the best threshold of each class: by segments of a second, and by onset and offset, in numpy.

    segment F1: a segment is active if an event overlaps it; its score is the highest of the frames that overlap it
    event F1: a detection is right if its onset and offset lie within the collars of an event; one to one

Definitions: Mesaros et al. 2016; every score that occurs is a threshold (Ebbers et al. 2022). F1 = 2 TP / (number of
detections + number of events), the counts summed over clips; the macro mean is over the classes that have an event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .detections import TIME_DECIMALS, FrameScores, Segment, check_clips, check_segments, score_runs

ONSET_COLLAR = 0.2  # seconds; DCASE
OFFSET_COLLAR = 0.2  # seconds, or
OFFSET_SHARE = 0.2  # this share of the event if that is longer


@dataclass(frozen=True)
class F1Result:
    """Best F1 scores.

    Attributes:
        f1: macro mean over the classes with an event, in [0, 1].
        f1_per_class: class -> F1 at its best threshold.
        thresholds: class -> that threshold; detections are the frames with at least this score. inf: none found.
    """

    f1: float
    f1_per_class: dict[str, float]
    thresholds: dict[str, float]


def segment_f1(
    frame_scores: Mapping[str, FrameScores],
    segments: Sequence[Segment],
    labels: Sequence[str],
    clip_seconds: Mapping[str, float],
    *,
    segment_seconds: float = 1.0,
) -> F1Result:
    """Segment-based F1 with the best threshold per class; equal to `sed_scores_eval` class by class.

    Args:
        frame_scores: scores per clip.
        segments: events of all clips; clips without an event count.
        labels: C names of the score columns; classes without an event are left out.
        clip_seconds: duration per clip, the same clips as `frame_scores`; the last segment may reach beyond it.
        segment_seconds: length of a segment.

    Raises:
        ValueError: if the arguments are malformed, as in `psds`, or there is no event.
    """
    columns = _check(frame_scores, segments, labels, clip_seconds)
    events = _events_by_clip(segments, labels)
    scores, activity = [], []
    for clip, item in frame_scores.items():
        num_segments = int(np.ceil(round(clip_seconds[clip] / segment_seconds, TIME_DECIMALS)))
        borders = (np.arange(num_segments + 1) * segment_seconds).round(TIME_DECIMALS)
        scores.append(_segment_scores(item, borders))
        is_active = np.zeros((num_segments, len(labels)), dtype=bool)
        for column, onset, offset in events.get(clip, ()):
            is_active[:, column] |= (borders[:-1] < round(offset, TIME_DECIMALS)) & (
                borders[1:] > round(onset, TIME_DECIMALS)
            )
        activity.append(is_active)
    all_scores, all_active = np.concatenate(scores), np.concatenate(activity)  # (segments of all clips, C)
    found = {}
    for column in columns:
        is_active = all_active[:, column].astype(np.int64)
        found[labels[column]] = _best_f1(
            all_scores[:, column], np.ones_like(is_active), is_active, int(is_active.sum())
        )
    return _result(found)


def event_f1(
    frame_scores: Mapping[str, FrameScores],
    segments: Sequence[Segment],
    labels: Sequence[str],
    clip_seconds: Mapping[str, float],
    *,
    onset_collar: float = ONSET_COLLAR,
    offset_collar: float = OFFSET_COLLAR,
    offset_share: float = OFFSET_SHARE,
) -> F1Result:
    """Collar-based F1 with the best threshold per class; equal to `sed_scores_eval` class by class.

    Args:
        frame_scores: scores per clip.
        segments: events of all clips; clips without an event count.
        labels: C names of the score columns; classes without an event are left out.
        clip_seconds: duration per clip, the same clips as `frame_scores`.
        onset_collar: allowed deviation of the onset, seconds.
        offset_collar: allowed deviation of the offset, seconds, or
        offset_share: this share of the event's duration, whichever is longer.

    Raises:
        ValueError: if the arguments are malformed, as in `psds`, or there is no event.
    """
    columns = _check(frame_scores, segments, labels, clip_seconds)
    events = _events_by_clip(segments, labels)
    parts = []  # of (column, score, change of detections, change of right ones)
    for clip, item in frame_scores.items():
        scores, edges = np.asarray(item.scores, dtype=np.float64), np.asarray(item.edges, dtype=np.float64)
        column, onset, offset, high, low = score_runs(scores, edges)
        one, none = np.ones(len(column), dtype=np.int64), np.zeros(len(column), dtype=np.int64)
        parts += [(column, high, one, none), (column, low, -one, none)]
        for own in sorted({event[0] for event in events.get(clip, ())}):
            is_own = column == own
            times = np.array([event[1:] for event in events[clip] if event[0] == own])  # (G, 2)
            collar = np.maximum(offset_collar, offset_share * (times[:, 1] - times[:, 0]))
            onset_error = np.abs(onset[is_own, None] - times[:, 0]) - onset_collar
            offset_error = np.abs(offset[is_own, None] - times[:, 1]) - collar
            is_hit = (onset_error.round(TIME_DECIMALS) <= 0) & (offset_error.round(TIME_DECIMALS) <= 0)  # (R, G)
            score, right = _hits(is_hit, high[is_own], low[is_own])
            parts.append((np.full(len(score), own), score, np.zeros_like(right), right))
    column, score, detected, right = (np.concatenate(part) for part in zip(*parts, strict=True))
    counts = np.bincount([event[0] for rows in events.values() for event in rows], minlength=len(labels))
    found = {}
    for own in columns:
        is_own = column == own
        found[labels[own]] = _best_f1(score[is_own], detected[is_own], right[is_own], int(counts[own]))
    return _result(found)


def _check(
    frame_scores: Mapping[str, FrameScores],
    segments: Sequence[Segment],
    labels: Sequence[str],
    clip_seconds: Mapping[str, float],
) -> list[int]:
    """Columns of the classes that have an event."""
    check_clips(frame_scores, labels, clip_seconds)
    check_segments(enumerate(segments), labels, clip_seconds)
    if not segments:
        raise ValueError("`segments` has no event, got 0 rows. F1 needs at least one event: check the ground truth.")
    heard = {segment.label for segment in segments}
    return [column for column, label in enumerate(labels) if label in heard]


def _events_by_clip(segments: Sequence[Segment], labels: Sequence[str]) -> dict[str, list[tuple[int, float, float]]]:
    """Clip -> (column, onset, offset) of its events."""
    position = {label: column for column, label in enumerate(labels)}
    events: dict[str, list[tuple[int, float, float]]] = {}
    for segment in segments:
        events.setdefault(segment.clip, []).append((position[segment.label], segment.onset, segment.offset))
    return events


def _segment_scores(item: FrameScores, borders: np.ndarray) -> np.ndarray:
    """(segments, C) highest score of the frames that overlap each segment; -inf where there is none."""
    edges = np.asarray(item.edges, dtype=np.float64).round(TIME_DECIMALS)
    padded = np.pad(np.asarray(item.scores, dtype=np.float64), ((0, 1), (0, 0)), constant_values=-np.inf)
    num_frames = len(edges) - 1
    first = np.searchsorted(edges[1:], borders[:-1], side="right")  # first frame that ends after the segment's start
    last = np.searchsorted(edges[:-1], borders[1:], side="left")  # first frame that starts at its end or later
    pairs = np.stack([np.minimum(first, num_frames), np.minimum(last, num_frames)], axis=1)
    highest = np.maximum.reduceat(padded, pairs.ravel(), axis=0)[::2]
    return np.where((pairs[:, 1] > pairs[:, 0])[:, None], highest, -np.inf)


def _hits(is_hit: np.ndarray, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(score, change of the number of right detections when the threshold falls to it), each event counted once.

    Args:
        is_hit: (R, G) which run fits which event.
        high: (R,) highest threshold of the run.
        low: (R,) threshold at which it is a part of a longer one.
    """
    fits = is_hit.any(axis=1)
    is_hit, high, low = is_hit[fits], high[fits], low[fits]
    thresholds = np.unique(np.concatenate([high, low]))[::-1]
    thresholds = thresholds[thresholds > -np.inf]
    counts = [_most_pairs(is_hit[(low < threshold) & (threshold <= high)]) for threshold in thresholds]
    return thresholds, np.diff(np.array(counts, dtype=np.int64), prepend=0)


def _most_pairs(is_hit: np.ndarray) -> int:
    """Most pairs of a run and an event, each in one pair at most: augmenting paths where there is a choice."""
    if is_hit.sum(axis=0).max(initial=0) <= 1 and is_hit.sum(axis=1).max(initial=0) <= 1:
        return int(is_hit.sum())
    run_of: dict[int, int] = {}

    def place(run: int, tried: set[int]) -> bool:
        for event in np.flatnonzero(is_hit[run]).tolist():
            if event not in tried:
                tried.add(event)
                if event not in run_of or place(run_of[event], tried):
                    run_of[event] = run
                    return True
        return False

    return sum(place(run, set()) for run in range(len(is_hit)))


def _best_f1(score: np.ndarray, detected: np.ndarray, right: np.ndarray, num_events: int) -> tuple[float, float]:
    """(F1, threshold) where F1 is highest, from changes of the counts when the threshold falls to each score."""
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > -np.inf]
    score = score[order]
    if not len(score):
        return 0.0, np.inf
    last_of_tie = np.append(score[1:] != score[:-1], True)
    num_detected, num_right = np.cumsum(detected[order])[last_of_tie], np.cumsum(right[order])[last_of_tie]
    f1 = 2 * num_right / (num_detected + num_events)
    best = int(f1.argmax())
    return float(f1[best]), float(score[last_of_tie][best]) if f1[best] > 0 else np.inf


def _result(found: dict[str, tuple[float, float]]) -> F1Result:
    f1 = {label: value for label, (value, _) in found.items()}
    return F1Result(
        float(np.mean(list(f1.values()))), f1, {label: threshold for label, (_, threshold) in found.items()}
    )


__all__ = ["OFFSET_COLLAR", "OFFSET_SHARE", "ONSET_COLLAR", "F1Result", "event_f1", "segment_f1"]

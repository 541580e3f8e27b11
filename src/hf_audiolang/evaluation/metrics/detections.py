# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What the scores of detection and grounding share: frame scores, ground truth, smoothing, runs at every threshold."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TIME_DECIMALS = 6


@dataclass(frozen=True)
class Segment:
    """One event of the ground truth: what is heard in which clip, from `onset` to `offset` seconds."""

    clip: str
    label: str
    onset: float
    offset: float


@dataclass(frozen=True)
class FrameScores:
    """Scores of one clip.

    Attributes:
        scores: (T, C) one column per label, higher = more likely, no NaN; -inf is never detected.
        edges: (T + 1,) seconds; frame t covers [edges[t], edges[t + 1]).
    """

    scores: np.ndarray
    edges: np.ndarray


@dataclass(frozen=True)
class Smoothing:
    """What is done to frame scores before events are counted in them: pool, then median filter, then join.

    All three act on scores as they would on the detections of every threshold. Choose them on other clips than those
    that are reported.

    Attributes:
        median_frames: odd width of the median filter; 1 = none.
        join_seconds: detections at most this far apart, in whole frames and rounded up, become one; 0 = none.
        pool_frames: so many frames become one, with their highest score, before all else; 1 = none.

    Raises:
        ValueError: if a value is out of its range.
    """

    median_frames: int = 3
    join_seconds: float = 0.0
    pool_frames: int = 1

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.median_frames < 1 or self.median_frames % 2 == 0:
            raise ValueError(f"`median_frames` must be odd and at least 1, got {self.median_frames}. Choose 1, 3, ...")
        if not 0 <= self.join_seconds < math.inf:
            raise ValueError(f"`join_seconds` must be 0 or more, got {self.join_seconds}. Choose 0 to join nothing.")
        if self.pool_frames < 1:
            raise ValueError(f"`pool_frames` must be at least 1, got {self.pool_frames}. Choose 1 to pool nothing.")

    def apply(self, item: FrameScores) -> FrameScores:
        """The smoothed scores of one clip, (ceil(T / pool_frames), C) float64."""
        scores, edges = np.asarray(item.scores, dtype=np.float64), np.asarray(item.edges, dtype=np.float64)
        if self.pool_frames > 1:
            starts = np.arange(0, len(scores), self.pool_frames)
            scores, edges = np.maximum.reduceat(scores, starts, axis=0), np.append(edges[starts], edges[-1])
        frame_seconds = edges[1] - edges[0]
        join_frames = math.ceil(round(self.join_seconds / frame_seconds, TIME_DECIMALS))
        return FrameScores(smooth_scores(scores, self.median_frames, join_frames), edges)


def smooth_scores(scores: np.ndarray, median_frames: int = 1, join_frames: int = 0) -> np.ndarray:
    """(T, C) scores after a median filter and after gaps between detections were closed.

    Both act on scores as they would on the detections of every threshold: thresholding the result equals filtering
    the thresholded scores.

    Args:
        scores: (T, C), float, without NaN.
        median_frames: odd width of the median filter; the ends are mirrored with the first frame repeated (scipy's
            "reflect"). 1 = none.
        join_frames: detections with at most this many frames between them become one. 0 = none.

    Raises:
        ValueError: if `scores` is not (T, C), `median_frames` is even or below 1, or `join_frames` is negative.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2:
        raise ValueError(f"`scores` must be (T, C), got the shape {scores.shape}. Pass one column per class.")
    if median_frames < 1 or median_frames % 2 == 0:
        raise ValueError(f"`median_frames` must be odd and at least 1, got {median_frames}. Choose 1, 3, 5, ...")
    if join_frames < 0:
        raise ValueError(f"`join_frames` must not be negative, got {join_frames}. Choose 0 to join nothing.")
    if median_frames > 1:
        side = median_frames // 2
        padded = np.pad(scores, ((side, side), (0, 0)), mode="symmetric")
        scores = np.median(_windows(padded, median_frames), axis=-1)
    if join_frames > 0:
        # greyscale closing; -inf around the clip so that no gap at its ends is closed
        width = join_frames + 1
        padded = np.pad(scores, ((join_frames, join_frames), (0, 0)), constant_values=-np.inf)
        scores = _windows(_windows(padded, width).max(axis=-1), width).min(axis=-1)
    return scores


def score_runs(scores: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every maximal run of frames >= some threshold: column, onset, offset, and its thresholds low < th <= high.

    Args:
        scores: (T, C) without NaN; -inf is in no run.
        edges: (T + 1,) seconds.

    Returns:
        five arrays (R,), at most T runs per column; `low` is -inf for the run over a whole clip.
    """
    # each frame is grown to both sides over frames that are not lower, in steps of falling powers of two on a table
    # of window minima
    num_frames, num_columns = scores.shape
    column = np.broadcast_to(np.arange(num_columns), scores.shape)
    minima = [scores]  # minima[k][t] = min of scores[t : t + 2 ** k]
    while 2 ** len(minima) <= num_frames:
        half = 2 ** (len(minima) - 1)
        minima.append(np.minimum(minima[-1][:-half], minima[-1][half:]))
    first = np.broadcast_to(np.arange(num_frames)[:, None], scores.shape)
    last = first + 1  # exclusive
    for step, table in reversed([(2**k, table) for k, table in enumerate(minima)]):
        reaches = (first >= step) & (table[np.clip(first - step, 0, len(table) - 1), column] >= scores)
        first = first - step * reaches
        reaches = (last + step <= num_frames) & (table[np.minimum(last, len(table) - 1), column] >= scores)
        last = last + step * reaches
    padded = np.pad(scores, ((1, 1), (0, 0)), constant_values=-np.inf)
    low = np.maximum(padded[first, column], padded[last + 1, column])  # higher of the two neighbours
    _, distinct = np.unique((column * num_frames + first) * (num_frames + 1) + last, return_index=True)
    distinct = distinct[scores.ravel()[distinct] > -np.inf]
    column, first, last, high, low = (part.ravel()[distinct] for part in (column, first, last, scores, low))
    return column, edges[first], edges[last], high, low


def check_clips(
    frame_scores: Mapping[str, FrameScores], labels: Sequence[str], clip_seconds: Mapping[str, float]
) -> None:
    """Raises ValueError, naming the clip, if scores, edges and durations (seconds) are malformed or do not match."""
    if len(set(labels)) != len(labels):
        raise ValueError(f"`labels` must differ, got {list(labels)}. Give one name per score column.")
    if frame_scores.keys() != clip_seconds.keys():
        odd = sorted(map(str, frame_scores.keys() ^ clip_seconds.keys()))
        raise ValueError(
            f"`frame_scores` and `clip_seconds` must hold the same clips, got {len(odd)} in only one of them: "
            f"{odd[:3]}. Give scores and a duration for every clip, those without an event too."
        )
    for clip, item in frame_scores.items():
        if not 0 < clip_seconds[clip] < math.inf:
            raise ValueError(
                f"`clip_seconds` of clip {clip!r} is {clip_seconds[clip]}. Give its duration in seconds, above 0."
            )
        scores, edges = np.asarray(item.scores), np.asarray(item.edges)
        if scores.ndim != 2 or scores.shape[1] != len(labels) or edges.shape != (len(scores) + 1,) or not len(scores):
            raise ValueError(
                f"Clip {clip!r} has `scores` {scores.shape} and `edges` {edges.shape}, expected (T, {len(labels)}) "
                "and (T + 1,) with T of at least 1. Give one column per label and the end of the last frame too."
            )
        if np.isnan(scores).any():
            row, column = np.argwhere(np.isnan(scores))[0]
            raise ValueError(
                f"`scores` of clip {clip!r} is NaN at frame {row}, label {labels[column]!r} "
                f"({int(np.isnan(scores).sum())} NaN in the clip). Find the model output that is not finite."
            )
        if not (np.isfinite(edges).all() and edges[0] >= 0 and (np.diff(edges) > 0).all()):
            raise ValueError(
                f"`edges` of clip {clip!r} must rise from 0 or later, got {edges[:3]} ... {edges[-1]}. "
                "Give the onset of each frame and the offset of the last one, in seconds."
            )


def check_segments(
    rows: Iterable[tuple[int, Segment]], labels: Sequence[str], clip_seconds: Mapping[str, float]
) -> None:
    """Raises ValueError, naming the row, if a segment is unknown, empty or outside of its clip."""
    known = set(labels)
    for row, segment in rows:
        place = f"`segments` row {row}, {segment}"
        if segment.clip not in clip_seconds:
            raise ValueError(f"{place}: unknown clip. Use one of the {len(clip_seconds)} clips of `clip_seconds`.")
        if segment.label not in known:
            raise ValueError(f"{place}: unknown label. Use one of {sorted(map(str, known))[:10]}, or remove the row.")
        if not segment.offset > segment.onset:
            raise ValueError(f"{place}: the offset must come after the onset. Correct or remove the row.")
        seconds = clip_seconds[segment.clip]
        if segment.onset < 0 or segment.offset > seconds + 10**-TIME_DECIMALS:
            raise ValueError(f"{place}: outside of its clip of {seconds} s. Cut it to the clip, or correct the row.")


def _windows(values: np.ndarray, width: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, width, axis=0)


__all__ = [
    "TIME_DECIMALS",
    "FrameScores",
    "Segment",
    "Smoothing",
    "check_clips",
    "check_segments",
    "score_runs",
    "smooth_scores",
]

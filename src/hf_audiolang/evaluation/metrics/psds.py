# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Polyphonic sound detection score (PSDS) over all thresholds, and PSDSm of text-to-audio grounding, in numpy.

    frame scores (T, C) -> runs (maximal stretches >= a threshold, each with the thresholds at which it is one)
    runs x events -> changes of TP, FP and cross-triggers per score -> per class TPR(eFPR) -> mean - spread -> area

Definitions: Bilen et al. 2020 (PSDS) and Ebbers et al. 2022 (every score that occurs is a threshold). Per class c and
threshold, a detection d is relevant if sum_g |d & g| >= dtc |d| over the events g of class c in its clip, otherwise a
false positive; an event g is found if sum_d |d & g| >= gtc |g| over the relevant d; a false positive triggers
class o if sum_g |d & g| >= cttc |d| over the events of o. All in seconds, compared after rounding to 6 decimals.

    eFPR_c = FP / hours of audio + alpha_ct mean_o(CT_co / hours of events of o)        per hour
    PSDS = 1 / max_efpr  integral_0^max_efpr  max(0, mean_c TPR_c(x) - alpha_st std_c TPR_c(x)) dx
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .detections import (
    TIME_DECIMALS,
    FrameScores,
    Segment,
    Smoothing,
    check_clips,
    check_segments,
    score_runs,
    smooth_scores,
)

EMPTY_CLASSES = ("exclude", "zero")
MGA50_THRESHOLDS = np.arange(50) / 50 + 0.01  # 0.01, 0.03, ..., 0.99, of the MGA-CLAP grounding script
GROUNDING_SMOOTHING = Smoothing(median_frames=3, join_seconds=0.5)  # of the MGA-CLAP grounding script
CLASS_BLOCK = 64  # classes treated at a time: bounds the memory for hundreds of classes


@dataclass(frozen=True)
class PsdsScenario:
    """Tolerances and penalties of one PSDS; `dataclasses.replace(PSDS1, alpha_st=0.0)` leaves out the spread penalty.

    Attributes:
        dtc: share of a detection that events must cover for it to be relevant, in (0, 1].
        gtc: share of an event that relevant detections must cover for it to be found, in (0, 1].
        cttc: share of a false positive that another class must cover to be a cross-trigger, in (0, 1]; None = unused.
        alpha_ct: weight of the cross-trigger rate in the effective false positive rate, at least 0.
        alpha_st: weight of the standard deviation over classes (spread penalty), at least 0.
        max_efpr: effective false positives per hour up to which the area is taken (e_max).

    Raises:
        ValueError: if a value is out of its range, or only one of `cttc` and `alpha_ct` is used.
    """

    dtc: float
    gtc: float
    cttc: float | None = None
    alpha_ct: float = 0.0
    alpha_st: float = 0.0
    max_efpr: float = 100.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("dtc", "gtc", "cttc"):
            value = getattr(self, name)
            if not (name == "cttc" and value is None) and not 0 < value <= 1:
                raise ValueError(f"`{name}` is a share of a duration, got {value}. Choose a value in (0, 1].")
        for name in ("alpha_ct", "alpha_st"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` is a weight, got {getattr(self, name)}. Choose a value of at least 0.")
        if not 0 < self.max_efpr < math.inf:
            raise ValueError(f"`max_efpr` must be positive and finite, got {self.max_efpr}. Choose 100 per hour.")
        if (self.cttc is None) != (self.alpha_ct == 0):
            raise ValueError(
                f"`cttc` and `alpha_ct` go together, got {self.cttc} and {self.alpha_ct}. "
                "Give both, or leave both out (None and 0)."
            )


PSDS1 = PsdsScenario(dtc=0.7, gtc=0.7, alpha_st=1.0)
PSDS2 = PsdsScenario(dtc=0.1, gtc=0.1, cttc=0.3, alpha_ct=0.5, alpha_st=1.0)
PSDSM = PsdsScenario(dtc=0.5, gtc=0.5, max_efpr=800.0)


@dataclass(frozen=True)
class PsdsResult:
    """A PSDS and the curves behind it.

    Attributes:
        psds: in [0, 1].
        psds_per_class: area under the curve of each scored class, in [0, 1], without the spread penalty.
        efpr: (X,) effective false positives per hour at which the curve steps, ascending from 0 to `max_efpr`.
        etpr: (X,) effective true positive rate from `efpr[k]` on.
    """

    psds: float
    psds_per_class: dict[str, float]
    efpr: np.ndarray
    etpr: np.ndarray


def psds(
    frame_scores: Mapping[str, FrameScores],
    segments: Sequence[Segment],
    labels: Sequence[str],
    clip_seconds: Mapping[str, float],
    scenario: PsdsScenario,
    *,
    thresholds: np.ndarray | None = None,
    empty_classes: str = "exclude",
    drop_empty: bool = False,
) -> PsdsResult:
    """PSDS of frame scores against segments; equal to `sed_scores_eval` with `empty_classes="zero"`.

    Args:
        frame_scores: scores per clip.
        segments: events of all clips in any order; clips without an event count with their duration.
        labels: C names of the score columns.
        clip_seconds: duration per clip, the same clips as `frame_scores`.
        scenario: `PSDS1`, `PSDS2`, `PSDSM` or your own.
        thresholds: decide by score > threshold for these only; None = all scores that occur.
        empty_classes: classes without any event are left out with a warning ("exclude") or have a TPR of 0 ("zero").
        drop_empty: leave out clips without any event, as the MGA-CLAP script does; raises the score.

    Raises:
        ValueError: if clips and durations do not match, scores or edges are malformed or NaN, a segment is unknown,
            empty or outside of its clip, or no segment is left; the message names the row.
    """
    if empty_classes not in EMPTY_CLASSES:
        raise ValueError(f"Unknown `empty_classes` {empty_classes!r}. Choose one of {sorted(EMPTY_CLASSES)}.")
    check_clips(frame_scores, labels, clip_seconds)
    check_segments(enumerate(segments), labels, clip_seconds)
    if drop_empty:
        heard = {segment.clip for segment in segments}
        frame_scores = {clip: item for clip, item in frame_scores.items() if clip in heard}
    kept = _scored_columns(segments, labels, empty_classes)
    names = [labels[column] for column in kept]
    events = _Events.of(segments, names, list(frame_scores))
    audio_seconds = float(sum(clip_seconds[clip] for clip in frame_scores))
    curves = []
    for start in range(0, len(names), CLASS_BLOCK):
        columns = kept[start : start + CLASS_BLOCK]
        clips = [(_thresholded(item.scores, columns, thresholds), item.edges) for item in frame_scores.values()]
        changes = _score_changes(clips, start, events, scenario)
        curves += [
            _class_curve(changes, column, events.counts[column], audio_seconds, scenario.max_efpr)
            for column in range(start, start + len(columns))
        ]
    efpr, etpr = _mean_curve(curves, scenario)
    per_class = {name: _area(*curve, scenario.max_efpr) for name, curve in zip(names, curves, strict=True)}
    return PsdsResult(_area(efpr, etpr, scenario.max_efpr), per_class, efpr, etpr)


def grounding_psds(
    frame_scores: Mapping[str, FrameScores],
    segments: Sequence[Segment],
    clip_seconds: Mapping[str, float],
    *,
    scenario: PsdsScenario = PSDSM,
    thresholds: str = "all",
    smoothing: Smoothing = GROUNDING_SMOOTHING,
) -> PsdsResult:
    """PSDSm of text-to-audio grounding: one query = one phrase in one clip, all queries form one class (MGA-CLAP).

    By default scores pass a 3-frame median filter, and detections up to 0.5 s apart are joined, as in the script.
    Queries without a segment are left out, and so are segments (0, 0), which stand for a phrase that is not heard.

    Args:
        frame_scores: per query (T, 1) cosine similarities of the phrase and the frames.
        segments: `clip` is the query; `label` is not looked at.
        clip_seconds: per query the duration of its clip.
        scenario: tolerances; dtc = gtc = 0.7 and 0.1 are the stricter and looser variants of the script.
        thresholds: "all" scores that occur, or "mga50": 0.01, 0.03, ..., 0.99 on sigmoid(cosine), for comparison.
        smoothing: of the scores.

    Raises:
        ValueError: as `psds`, or if `thresholds` is unknown.
    """
    if thresholds not in ("all", "mga50"):
        raise ValueError(f"Unknown `thresholds` {thresholds!r}. Choose one of ['all', 'mga50'].")
    check_clips(frame_scores, ["phrase"], clip_seconds)
    heard = {
        row: Segment(segment.clip, "phrase", segment.onset, segment.offset)
        for row, segment in enumerate(segments)
        if (segment.onset, segment.offset) != (0, 0)
    }
    check_segments(heard.items(), ["phrase"], clip_seconds)
    smoothed = {}
    for query, item in frame_scores.items():
        smoothed[query] = smoothing.apply(item)
        if thresholds == "mga50":  # monotone: the order of smoothing and sigmoid does not matter
            scores = 1 / (1 + np.exp(-smoothed[query].scores))
            smoothed[query] = FrameScores(scores, smoothed[query].edges)
    grid = MGA50_THRESHOLDS if thresholds == "mga50" else None
    return psds(smoothed, list(heard.values()), ["phrase"], clip_seconds, scenario, thresholds=grid, drop_empty=True)


@dataclass(frozen=True)
class _Events:
    """G events as arrays: `label` and `clip` are indices, `counts` and `seconds` are per class."""

    onset: np.ndarray
    offset: np.ndarray
    label: np.ndarray
    of_clip: list[np.ndarray]
    counts: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of(cls, segments: Sequence[Segment], names: Sequence[str], clips: Sequence[str]) -> "_Events":
        onset = np.array([segment.onset for segment in segments], dtype=np.float64)
        offset = np.array([segment.offset for segment in segments], dtype=np.float64)
        position = {name: index for index, name in enumerate(names)}
        label = np.array([position[segment.label] for segment in segments])
        of_clip = {clip: [] for clip in clips}
        for index, segment in enumerate(segments):
            of_clip[segment.clip].append(index)
        rows = [np.array(indices, dtype=np.int64) for indices in of_clip.values()]
        counts = np.bincount(label, minlength=len(names))
        return cls(onset, offset, label, rows, counts, np.bincount(label, offset - onset, len(names)))


@dataclass(frozen=True)
class _Changes:
    """Changes of a class's counts when the threshold falls to a score: parallel arrays (N,)."""

    label: np.ndarray
    score: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    trigger_rate: np.ndarray


def _thresholded(scores: np.ndarray, columns: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """The kept columns; with `thresholds`, the number of thresholds below each score, and -inf for none."""
    kept = np.asarray(scores, dtype=np.float64)[:, columns]
    if thresholds is None:
        return kept
    levels = np.searchsorted(np.sort(thresholds), kept, side="left").astype(np.float64)
    return np.where(levels == 0, -np.inf, levels)


def _score_changes(
    clips: Sequence[tuple[np.ndarray, np.ndarray]], start: int, events: _Events, scenario: PsdsScenario
) -> _Changes:
    """Changes of all clips for the classes `start`, `start` + 1, ... in the columns of the clips' scores."""
    num_others = max(len(events.counts) - 1, 1)
    trigger_weight = scenario.alpha_ct * 3600 / (np.maximum(events.seconds, 1e-12) * num_others)  # (C,) per hour
    false_runs, covers = [], []
    for (scores, edges), indices in zip(clips, events.of_clip, strict=True):
        label, onset, offset, high, low = score_runs(scores, np.asarray(edges, dtype=np.float64))
        label = label + start
        event_label = events.label[indices]
        overlap = np.minimum(offset[:, None], events.offset[indices]) - np.maximum(
            onset[:, None], events.onset[indices]
        )
        overlap = np.maximum(overlap, 0.0)  # (runs, events of the clip)
        heard = np.unique(event_label)
        covered = (overlap @ (event_label[:, None] == heard)).round(TIME_DECIMALS)  # (runs, classes of the clip)
        is_own = label[:, None] == heard
        is_relevant = (covered * is_own).sum(axis=1) >= (scenario.dtc * (offset - onset)).round(TIME_DECIMALS)
        rate = np.zeros(len(label))
        if scenario.cttc is not None:
            needed = (scenario.cttc * (offset - onset)).round(TIME_DECIMALS)
            rate = ((covered >= needed[:, None]) & ~is_own) @ trigger_weight[heard]
        is_false = ~is_relevant
        false_runs.append((label[is_false], high[is_false], low[is_false], rate[is_false]))
        run, event = np.nonzero(is_relevant[:, None] & (label[:, None] == event_label) & (overlap > 0))
        covers.append((indices[event], high[run], low[run], overlap[run, event]))
    return _join_changes(_columns(false_runs), _found_changes(*_columns(covers), events, scenario.gtc))


def _columns(rows: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _found_changes(
    event: np.ndarray, high: np.ndarray, low: np.ndarray, overlap: np.ndarray, events: _Events, gtc: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(label, score, +1 or -1) wherever an event becomes found or is lost again, from its overlaps with runs."""
    event, score = np.tile(event, 2), np.concatenate([high, low])
    change = np.concatenate([overlap, -overlap])
    order = np.lexsort((-score, event))
    event, score = event[order], score[order]
    covered = np.cumsum(change[order])  # no offset between events: the changes of each event sum to 0
    last_of_tie = np.append((np.diff(event) != 0) | (score[1:] != score[:-1]), True)[: len(event)]
    event, score, covered = event[last_of_tie], score[last_of_tie], covered[last_of_tie]
    event_seconds = events.offset[event] - events.onset[event]
    is_found = covered.round(TIME_DECIMALS) >= (gtc * event_seconds).round(TIME_DECIMALS)
    was_found = np.append(False, is_found[:-1] & (event[1:] == event[:-1]))[: len(event)]
    change = is_found.astype(np.int64) - was_found
    has_change = (change != 0) & (score > -np.inf)
    return events.label[event[has_change]], score[has_change], change[has_change]


def _join_changes(false_runs: list[np.ndarray], found: tuple[np.ndarray, ...]) -> _Changes:
    label, high, low, rate = false_runs
    one, none, found_none = np.ones(len(label), int), np.zeros(2 * len(label), int), np.zeros(len(found[0]), int)
    parts = [
        np.concatenate([label, label, found[0]]),
        np.concatenate([high, low, found[1]]),
        np.concatenate([none, found[2]]),
        np.concatenate([one, -one, found_none]),
        np.concatenate([rate, -rate, found_none]),
    ]
    order = np.lexsort((-parts[1], parts[0]))
    order = order[parts[1][order] > -np.inf]
    return _Changes(*(part[order] for part in parts))


def _class_curve(
    changes: _Changes, label: int, num_events: int, audio_seconds: float, max_efpr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ascending eFPR from 0 to at most `max_efpr`, and the best TPR at each."""
    begin, end = np.searchsorted(changes.label, [label, label + 1])
    score = changes.score[begin:end]
    last_of_tie = np.append(score[1:] != score[:-1], True)[: len(score)]
    true_positives, false_positives, trigger_rate = (
        np.append(0, np.cumsum(part[begin:end])[last_of_tie])
        for part in (changes.true_positives, changes.false_positives, changes.trigger_rate)
    )
    # the sum of added and removed rates may end at -1e-17 instead of 0
    efpr = 3600 * false_positives / audio_seconds + np.maximum(trigger_rate, 0.0)
    order = np.argsort(efpr, kind="stable")
    efpr, tpr = efpr[order], np.maximum.accumulate(true_positives[order]) / max(num_events, 1)
    is_kept = np.append(np.diff(efpr) != 0, True) & (efpr <= max_efpr)
    return efpr[is_kept], tpr[is_kept]


def _mean_curve(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], scenario: PsdsScenario
) -> tuple[np.ndarray, np.ndarray]:
    efpr = np.unique(np.concatenate([x for x, _ in curves] + [[scenario.max_efpr]]))
    rates = np.stack([tpr[np.searchsorted(x, efpr, side="right") - 1] for x, tpr in curves])  # (C, X)
    return efpr, np.maximum(rates.mean(axis=0) - scenario.alpha_st * rates.std(axis=0), 0.0)


def _area(efpr: np.ndarray, tpr: np.ndarray, max_efpr: float) -> float:
    return float(np.sum(tpr * np.diff(efpr, append=max_efpr)) / max_efpr)


def _scored_columns(segments: Sequence[Segment], labels: Sequence[str], empty_classes: str) -> np.ndarray:
    """(C',) columns that enter the mean."""
    if not segments:
        raise ValueError("`segments` has no event, got 0 rows. PSDS needs at least one event: check the ground truth.")
    heard = {segment.label for segment in segments}
    has_event = np.array([label in heard for label in labels])
    if empty_classes == "zero" or has_event.all():
        return np.arange(len(labels))
    warnings.warn(
        f"{int((~has_event).sum())} of {len(labels)} classes have no event and are left out of the PSDS.",
        stacklevel=3,
    )
    return np.flatnonzero(has_event)


__all__ = [
    "GROUNDING_SMOOTHING",
    "MGA50_THRESHOLDS",
    "PSDS1",
    "PSDS2",
    "PSDSM",
    "FrameScores",
    "PsdsResult",
    "PsdsScenario",
    "Segment",
    "Smoothing",
    "grounding_psds",
    "psds",
    "smooth_scores",
]

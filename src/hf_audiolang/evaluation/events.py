# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""From frame scores to events with a start and an end, and the files they are written to.

FrameScores (T, C) -> max(cosine, 0) -> median filter -> runs >= threshold -> close gaps -> drop short ones
    -> DetectedEvent(label, score, start, end)
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .metrics.psds import TIME_DECIMALS, FrameScores, smooth_scores

EVENT_FILES = (".csv", ".json", ".txt")


@dataclass(frozen=True)
class EventRule:
    """When frames count as an event. The values are our choice; set them on recordings like your own.

    0.25 gave the best macro F1 of frames on 100 validation scenes with the small MGA-CLAP of configs/pretrain.

    Attributes:
        threshold: least max(cosine, 0) of a frame, in (0, 1).
        median_seconds: width of the median filter, rounded to an odd number of frames; 0 = none.
        join_seconds: detections of a label with a gap shorter than this become one.
        min_seconds: shorter detections are dropped.

    Raises:
        ValueError: if a value is out of its range.
    """

    threshold: float = 0.25
    median_seconds: float = 0.0
    join_seconds: float = 0.5
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 < self.threshold < 1:
            raise ValueError(f"`threshold` is a similarity in (0, 1), got {self.threshold}. Choose 0.25, for example.")
        for name in ("median_seconds", "join_seconds", "min_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}. Give a number of seconds.")


@dataclass(frozen=True)
class DetectedEvent:
    """One detection.

    Attributes:
        label: what is heard.
        score: mean of max(cosine, 0), not smoothed, over its frames, in [0, 1].
        start: seconds from the beginning of the file.
        end: seconds from the beginning of the file.
    """

    label: str
    score: float
    start: float
    end: float

    def to_dict(self) -> dict[str, str | float]:
        """The four fields by name."""
        return asdict(self)


def find_events(
    frame_scores: FrameScores, labels: Sequence[str], rule: EventRule | None = None
) -> list[DetectedEvent]:
    """The detections in one recording, sorted by start, then by label.

    Args:
        frame_scores: `scores` (T, C) cosine similarities, `edges` (T + 1,) seconds.
        labels: C names of the columns.
        rule: threshold and smoothing.

    Raises:
        ValueError: if the columns are not the labels', or a score is NaN; the message names frame and label.
    """
    rule = rule or EventRule()
    cosines, edges = np.asarray(frame_scores.scores, dtype=np.float64), np.asarray(frame_scores.edges)
    if cosines.ndim != 2 or cosines.shape[1] != len(labels) or edges.shape != (len(cosines) + 1,):
        raise ValueError(
            f"`frame_scores` has scores {cosines.shape} and edges {edges.shape}, expected (T, {len(labels)}) and "
            "(T + 1,). Give one column per label."
        )
    if np.isnan(cosines).any():
        frame, column = np.argwhere(np.isnan(cosines))[0]
        raise ValueError(
            f"`frame_scores` is NaN at frame {frame}, label {labels[column]!r}. Find the model output that is not "
            "finite."
        )
    found = [
        event
        for column, label in enumerate(labels)
        for event in _events_of_label(np.maximum(cosines[:, column], 0.0), edges, label, rule)
    ]
    return sorted(found, key=lambda event: (event.start, event.label))


def write_events(events_by_file: Mapping[str, Sequence[DetectedEvent]], path: str | Path) -> Path:
    """Writes detections as a table (.csv), as JSON (.json) or as an Audacity label track (.txt); returns the path.

    Args:
        events_by_file: name of a recording -> its detections; a label track holds those of one recording.
        path: file to write; its folder is made.

    Raises:
        ValueError: for another suffix, or several recordings in a label track.
    """
    path = check_events_path(path, len(events_by_file))
    suffix = path.suffix.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [(str(file), event) for file, events in events_by_file.items() for event in events]
    with path.open("w", encoding="utf-8", newline="") as file:
        if suffix == ".csv":
            table = csv.writer(file)
            table.writerow(["file", "label", "score", "start", "end"])
            table.writerows([name, e.label, f"{e.score:.4f}", f"{e.start:.3f}", f"{e.end:.3f}"] for name, e in rows)
        elif suffix == ".json":
            listed = {str(name): [event.to_dict() for event in events] for name, events in events_by_file.items()}
            file.write(json.dumps(listed, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        else:
            file.writelines(f"{e.start:.6f}\t{e.end:.6f}\t{' '.join(e.label.split())}\n" for _, e in rows)
    return path


def check_events_path(path: str | Path, num_files: int = 1) -> Path:
    """The path itself if detections of so many recordings can be written to it.

    Raises:
        ValueError: for an unknown suffix, or several recordings in a label track.
    """
    path = Path(path)
    if path.suffix.lower() not in EVENT_FILES:
        raise ValueError(
            f"`path` ends with {path.suffix!r}, of {path.name!r}. Choose one of {list(EVENT_FILES)}: table, JSON, "
            "Audacity label track."
        )
    if path.suffix.lower() == ".txt" and num_files > 1:
        raise ValueError(
            f"`path` {path.name!r} is an Audacity label track, which holds one recording, got {num_files}. "
            "Write .csv or .json, or one .txt for each."
        )
    return path


def _events_of_label(scores: np.ndarray, edges: np.ndarray, label: str, rule: EventRule) -> list[DetectedEvent]:
    """The detections of one label from its scores (T,)."""
    frame_seconds = edges[1] - edges[0]
    median_frames = 2 * math.floor(rule.median_seconds / frame_seconds / 2) + 1  # nearest odd number
    active = smooth_scores(scores[:, None], median_frames)[:, 0] >= rule.threshold
    changes = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    runs: list[list[int]] = []
    for first, last in changes.reshape(-1, 2).tolist():
        if runs and round(edges[first] - edges[runs[-1][1]], TIME_DECIMALS) < rule.join_seconds:
            runs[-1][1] = last
        else:
            runs.append([first, last])
    events = [
        DetectedEvent(
            label,
            float(scores[first:last].mean()),
            round(float(edges[first]), TIME_DECIMALS),
            round(float(edges[last]), TIME_DECIMALS),
        )
        for first, last in runs
    ]
    return [event for event in events if round(event.end - event.start, TIME_DECIMALS) >= rule.min_seconds]


__all__ = ["EVENT_FILES", "DetectedEvent", "EventRule", "check_events_path", "find_events", "write_events"]

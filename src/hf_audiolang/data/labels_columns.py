# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Columns of a labelled table: which hold what, and what stands in their cells."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .labels_records import SPLIT_NAMES, split_name

USUAL = {
    "audio": ("file_name", "filename", "audio"),
    "label": ("label", "labels", "event_label"),  # event_label: DESED's tables
    "split": ("split",),
    "fold": ("fold",),
}
ONSET, OFFSET, EVENTS = "onset", "offset", "events"


@dataclass(frozen=True)
class LabelColumns:
    """Names of columns by what they hold: `audio`, `label`, `split`, `fold`.

    Attributes:
        asked: named by the caller; must exist.
        planned: named by a plan that was written for another copy of the data; tried before the usual names.
    """

    asked: Mapping[str, str] = field(default_factory=dict)
    planned: Mapping[str, str] = field(default_factory=dict)

    def find(self, kind: str, columns: Sequence[str], place: str) -> str | None:
        """The column of that kind, None if there is none.

        Raises:
            ValueError: if the one that was asked for is missing; lists the columns found.
        """
        if kind in self.asked:
            if self.asked[kind] not in columns:
                raise ValueError(
                    f"`{kind}_column` {self.asked[kind]!r} is missing: {place} has the columns {list(columns)}. Pass "
                    "one of these."
                )
            return self.asked[kind]
        names = [self.planned[kind]] if kind in self.planned else []
        return next((name for name in (*names, *USUAL[kind]) if name in columns), None)

    def find_audio(self, columns: Sequence[str], place: str) -> str:
        """The column with the sounds or their file names.

        Raises:
            ValueError: if there is none.
        """
        found = self.find("audio", columns, place)
        if found is None:
            raise ValueError(
                f"{place} has the columns {list(columns)}, none of which is one of {list(USUAL['audio'])}. Pass "
                "`audio_column` with the right one."
            )
        return found


def cell_labels(value: object) -> tuple[str, ...]:
    """The labels in a cell, each once: a text with `;` between them, a JSON list, a list, a number, or None."""
    if isinstance(value, str):
        listed = _json_list(value)
        value = value.split(";") if listed is None else listed
    if value is None:
        return ()
    values = [value] if not isinstance(value, Sequence) else value
    labels = ("" if label is None else str(label).strip() for label in values)
    return tuple(dict.fromkeys(label for label in labels if label))


def cell_split(value: object, place: str) -> str:
    """The part of the data that a cell names.

    Raises:
        ValueError: if it names none.
    """
    part = split_name(str(value or ""))
    if part is None:
        raise ValueError(f"{place} has the split {value!r}. Write one of {list(SPLIT_NAMES)}.")
    return part


def cell_fold(value: object, place: str) -> int | None:
    """The number of a fold in a cell, None in an empty one.

    Raises:
        ValueError: if it is no whole number.
    """
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number.is_integer():
        raise ValueError(f"{place} has the fold {value!r}. Write its number.")
    return int(number)


def cell_event(row: Mapping, labels: Sequence[str], place: str) -> dict | None:
    """The event of a row with `onset` and `offset` in seconds, None if times and label are empty: nothing is heard.

    Raises:
        ValueError: if the times are no numbers with 0 <= onset < offset, or there is not exactly one label.
    """
    times = [row.get(ONSET), row.get(OFFSET)]
    if not labels and all(time in (None, "") for time in times):
        return None
    try:
        onset, offset = (float(time) for time in times)
    except (TypeError, ValueError):
        onset = offset = math.nan
    if not (0 <= onset < offset < math.inf) or len(labels) != 1:
        raise ValueError(
            f"{place} is no event: onset {times[0]!r}, offset {times[1]!r}, labels {list(labels)}. Write seconds with "
            "0 <= onset < offset and one label, or leave all three empty in a clip without events."
        )
    return {"label": labels[0], "onset": onset, "offset": offset}


def listed_events(value: object, place: str) -> tuple[dict, ...]:
    """The events of a cell with a list of objects that have `label`, `onset`, `offset`.

    Raises:
        ValueError: as `cell_event`, or if it is no such list.
    """
    rows = value if isinstance(value, Sequence) and not isinstance(value, str) else [value] if value else []
    wrong = [row for row in rows if not isinstance(row, Mapping)]
    if wrong:
        raise ValueError(
            f"{place} has the events {value!r}. Write a list of objects with label, onset and offset (in a .jsonl)."
        )
    return tuple({**row, **cell_event(row, cell_labels([row.get("label")]), place)} for row in rows)


def event_labels(events: Sequence[Mapping]) -> tuple[str, ...]:
    """The labels of events, each once, in their order."""
    return tuple(dict.fromkeys(event["label"] for event in events))


def _json_list(text: str) -> list | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, list) else None


__all__ = [
    "USUAL",
    "ONSET",
    "OFFSET",
    "EVENTS",
    "LabelColumns",
    "cell_labels",
    "cell_split",
    "cell_fold",
    "cell_event",
    "listed_events",
    "event_labels",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Labels in a text table beside the sounds: metadata.csv, .tsv or .jsonl, or any file of these kinds.

    file_name,label              one label, or several with `;` between them, or a JSON list, or several rows
    file_name,label,split,fold   with its own split, or its fold for cross-validation
    file_name,dog,cat,rain       one 0/1 column per class
    filename,onset,offset,event_label   events with their times in seconds, one a row

Rows of one file become one clip with the labels and events of all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .captions_checks import BadRows, path_inside
from .labels_checks import read_classes_file
from .labels_columns import (
    EVENTS,
    OFFSET,
    ONSET,
    LabelColumns,
    cell_event,
    cell_fold,
    cell_labels,
    cell_split,
    event_labels,
    listed_events,
)
from .labels_folders import named_splits, sub_folders
from .labels_records import Clip, LabelSource
from .metadata_files import TABLE_SUFFIXES, read_rows
from .records import Record, find_caption_columns

_EXAMPLE = "file_name,label\ndoor.wav,door"
_NO_CLASSES = {"id", "duration", "mode", "part", "seed"}  # columns that are no classes of a multi-hot table


@dataclass
class _File:
    """What the rows of one sound file say together."""

    place: str
    split: str
    fold: int | None
    labels: list[str] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class _Table:
    """The columns of one table; `classes` are those of a multi-hot one; `sound_path` stands for `audio`."""

    name: str
    audio: str | None
    sound_path: str | None
    label: str | None
    split: str | None
    fold: str | None
    classes: tuple[str, ...]
    has_times: bool
    has_events: bool


def find_label_tables(folder: Path) -> dict[str, Path]:
    """Split -> table of a folder; "" -> the one in the folder itself; empty if there is none.

    Raises:
        ValueError: if a folder has several tables called metadata, or only some of the folders with tables are called
            like splits.
    """
    own = _table_in(folder)
    if own is not None:
        return {"": own}
    tables = {path: found for path in sub_folders(folder) if (found := _table_in(path)) is not None}
    return {split: tables[path] for split, path in named_splits(folder, tables).items()}


def read_label_tables(
    root: Path,
    tables: dict[str, Path],
    columns: LabelColumns,
    bad_rows: BadRows,
    sound_path: str | None = None,
) -> LabelSource:
    """The clips of one table, or of one per split.

    Args:
        root: the folder; ids are paths relative to it, and no file may lie outside.
        tables: split -> table; "" where the table is no split.
        columns: which columns hold what.
        bad_rows: gets the rows without a file name.
        sound_path: template of a sound's path relative to `root`, filled with the cells of its row; None: the column
            with the file name holds it, relative to the table.

    Raises:
        ValueError: for missing columns, malformed rows, cells that are no label, split, fold, event or 0/1, rows of
            one file that differ in split or fold, a path that leaves the folder, or no rows.
    """
    root = Path(os.path.realpath(root))
    records, clips, classes = [], [], read_classes_file(root)
    is_multi_label = has_events = False
    for split, path in tables.items():
        rows = list(read_rows(path))
        if not rows:
            raise ValueError(f"`{path}` has 0 rows. Write one row per sound, such as:\n{_EXAMPLE}")
        names = list(dict.fromkeys(name for _, row in rows for name in row))
        table = _table_of(path, names, columns, sound_path)
        for key, file in _merged(root, path, rows, table, split, bad_rows).items():
            labels = tuple(dict.fromkeys(file.labels)) or event_labels(file.events)
            records.append(Record(id=key, audio=str(root / key), labels=labels, events=tuple(file.events)))
            clips.append(Clip(key, labels, file.split, file.fold, file.place))
        is_multi_label |= bool(table.classes) or table.has_times or table.has_events
        has_events |= table.has_times or table.has_events
        classes = classes or list(table.classes) or None
    name = str(root if len(tables) > 1 or next(iter(tables.values())).stem == "metadata" else path)
    return LabelSource(name, records, clips, classes, is_multi_label, has_events)


def _table_in(folder: Path) -> Path | None:
    found = [path for suffix in TABLE_SUFFIXES if (path := folder / f"metadata{suffix}").is_file()]
    if len(found) > 1:
        raise ValueError(f"`{folder}` has {[path.name for path in found]}. Keep one of them.")
    return found[0] if found else None


def _table_of(path: Path, columns: Sequence[str], asked: LabelColumns, sound_path: str | None) -> _Table:
    """The columns of a table by what they hold; without a label column all others are classes."""
    place = f"`{path}`"
    kinds = {kind: asked.find(kind, columns, place) for kind in ("label", "split", "fold")}
    audio = asked.find_audio(columns, place) if sound_path is None else None
    has_times = ONSET in columns and OFFSET in columns
    has_events = EVENTS in columns
    known = {audio, *kinds.values(), ONSET, OFFSET, *_NO_CLASSES, *find_caption_columns(columns)}
    classes = () if kinds["label"] or has_events else tuple(name for name in columns if name not in known)
    if not kinds["label"] and not has_events and not classes:
        raise ValueError(
            f"{place} has the columns {list(columns)}, none of which holds labels. Add `label`, or pass "
            "`label_column` with the right one."
        )
    return _Table(path.name, audio, sound_path, classes=classes, has_times=has_times, has_events=has_events, **kinds)


def _merged(
    root: Path, path: Path, rows: Sequence[tuple[int, dict]], table: _Table, split: str, bad_rows: BadRows
) -> dict[str, _File]:
    """Path relative to `root` -> what its rows say."""
    folder = os.path.relpath(os.path.realpath(path.parent), root) if table.sound_path is None else "."
    files: dict[str, _File] = {}
    for line, row in rows:
        name = _sound_of(row, table, path)
        place = f"{path.name} line {line} (`{name}`)"
        if not name:
            bad_rows.add(None, f"{place} has an empty `{table.audio}`. Write the file's name, or remove the row.")
            continue
        key = path_inside(root, name if folder == "." or _is_absolute(name) else f"{folder}/{name}", place)
        part = split or (cell_split(row.get(table.split), place) if table.split else "")
        fold = cell_fold(row.get(table.fold), place) if table.fold else None
        file = files.setdefault(key, _File(place, part, fold))
        if (file.split, file.fold) != (part, fold):
            raise ValueError(
                f"{place} and {file.place} are the same file but differ in split or fold: {(part, fold)} and "
                f"{(file.split, file.fold)}. Make them agree."
            )
        _add_row(file, row, table, place)
    return files


def _sound_of(row: dict, table: _Table, path: Path) -> str:
    if table.sound_path is None:
        return str(row.get(table.audio) or "").strip()
    try:
        return table.sound_path.format_map(row)
    except KeyError as error:
        raise ValueError(
            f"`{path}` has the columns {list(row)}, without {error} of the plan's `sound_path` {table.sound_path!r}. "
            "Give the published table, or a metadata.csv of your own."
        ) from error


def _add_row(file: _File, row: dict, table: _Table, place: str) -> None:
    """Adds the labels and events of a row."""
    if table.has_events:
        file.events += listed_events(row.get(EVENTS), place)
    labels = cell_labels(row.get(table.label)) if table.label else _multi_hot_labels(row, table, place)
    if table.has_times:
        event = cell_event(row, labels, place)
        file.events += [event] if event else []
    file.labels += labels


def _multi_hot_labels(row: dict, table: _Table, place: str) -> tuple[str, ...]:
    """The classes whose columns have a 1."""
    for name in table.classes:
        if str(row.get(name)).strip() not in ("0", "1"):
            raise ValueError(
                f"{place} has {row.get(name)!r} in column {name!r}. {table.name} has no column `label`, so its other "
                f"{len(table.classes)} columns are classes with 0 or 1 in every row. Correct it, or pass "
                "`label_column`."
            )
    return tuple(name for name in table.classes if str(row[name]).strip() == "1")


def _is_absolute(name: str) -> bool:
    return Path(name).is_absolute()


__all__ = ["find_label_tables", "read_label_tables"]

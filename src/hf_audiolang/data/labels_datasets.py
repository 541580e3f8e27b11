# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Labels in tables of the `datasets` library: a folder that `save_to_disk` wrote, or a data set of the Hub.

A `ClassLabel` column (or a list of them) gives its names in its order; texts and numbers are names by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .captions_datasets import TableRecords, encoded_sounds, open_hub_dataset
from .labels_columns import EVENTS, LabelColumns, cell_fold, cell_split, event_labels, listed_events
from .labels_records import Clip, JoinedRecords, LabelSource, split_name
from .records import as_texts

if TYPE_CHECKING:
    import datasets


def open_label_folder(folder: Path) -> dict[str, datasets.Dataset]:
    """Name -> table of each split that `save_to_disk` wrote; "" -> the table where there are no splits."""
    import datasets

    table = datasets.load_from_disk(str(folder))
    return dict(table) if isinstance(table, datasets.DatasetDict) else {"": table}


def open_label_hub(name: str, splits: Mapping[str, str], revision: str | None) -> dict[str, datasets.Dataset]:
    """Name -> table of splits of a data set of the Hub.

    Args:
        name: `owner/name`.
        splits: one of `PARTS` -> name of the split there; all splits if empty.
        revision: branch, tag or commit.

    Raises:
        FileNotFoundError: if `name` is no `owner/name` and there is no such folder either.
        ValueError: if the Hub (or its cache, when offline) does not have it, with its own words.
    """
    if not splits:
        return dict(open_hub_dataset(name, None, revision))
    return {part: open_hub_dataset(name, there, revision) for part, there in splits.items()}


def read_label_splits(place: str, tables: Mapping[str, datasets.Dataset], columns: LabelColumns) -> LabelSource:
    """The clips of the splits of a data set.

    Args:
        place: folder or Hub id.
        tables: name of a split -> its table; splits with other names than train, validation, test and their aliases
            are left out, which a note says.
        columns: which columns hold what.

    Raises:
        ValueError: for missing columns, cells that are no label, split or fold, no rows, or no split that is known.
    """
    parts = {split_name(name) if name else "": table for name, table in tables.items()}
    unknown = [name for name in tables if name and split_name(name) is None]
    parts.pop(None, None)
    if not parts or len(parts) + len(unknown) < len(tables):
        raise ValueError(
            f"`{place}` has the splits {list(tables)}. Call them train, validation and test, each once, or write a "
            "plan with `splits`."
        )
    found = [_read_table(place, part, table, columns, len(parts) > 1) for part, table in parts.items()]
    notes = [f"Splits of {place} that are left out: {unknown}."] if unknown else []
    classes = next((source.classes for source in found if source.classes), None)
    return LabelSource(
        place,
        JoinedRecords([source.records for source in found]),
        [clip for source in found for clip in source.clips],
        classes,
        is_multi_label=any(source.is_multi_label for source in found),
        has_events=any(source.has_events for source in found),
        is_embedded=any(source.is_embedded for source in found),
        notes=notes,
    )


def _read_table(
    place: str, part: str, table: datasets.Dataset, columns: LabelColumns, is_one_of_several: bool
) -> LabelSource:
    """The clips of one split; rows with the same sound are merged, ids of several splits start with its name."""
    where = f"`{place}`" + (f" split {part!r}" if part else "")
    if len(table) == 0:
        raise ValueError(f"{where} has 0 rows. Give at least one.")
    table, names = table.with_format(None), table.column_names
    audio = columns.find_audio(names, where)
    kinds = {kind: columns.find(kind, names, where) for kind in ("label", "split", "fold")}
    has_events = EVENTS in names
    if kinds["label"] is None and not has_events:
        raise ValueError(
            f"{where} has the columns {names}, none of which holds labels. Pass `label_column` with the right one."
        )
    places = [f"{where} row {row}" for row in range(len(table))]
    labels, classes, is_listed = _labels_of(table, kinds["label"], places)
    splits = _cells(table, None if is_one_of_several else kinds["split"], cell_split, places, part)
    folds = _cells(table, kinds["fold"], cell_fold, places, None)
    kept = table.select_columns([audio, *([EVENTS] if has_events else [])])
    sounds, keys, folder = encoded_sounds(kept, audio, place)
    rows_of: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    firsts = [rows[0] for rows in rows_of.values()]
    records = TableRecords(sounds, audio, firsts, ids=list(rows_of), captions=[()] * len(firsts), folder=folder)
    clips = []
    for key, rows in rows_of.items():
        joined = tuple(dict.fromkeys(label for row in rows for label in labels[row]))
        clip_id, first = f"{part}/{key}" if is_one_of_several else key, rows[0]
        clips.append(Clip(clip_id, joined, splits[first], folds[first], f"{places[first]} (`{key}`)"))
    return LabelSource(place, records, clips, classes, is_listed, has_events, folder is None)


def _labels_of(
    table: datasets.Dataset, column: str | None, places: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[str] | None, bool]:
    """(labels of each row, class names in the column's order if it has one, whether a row may hold several).

    Without a column they are the labels of the events.
    """
    import datasets

    if column is None:
        cells = zip(table[EVENTS], places, strict=True)
        return [event_labels(listed_events(cell, place)) for cell, place in cells], None, True
    feature = table.features[column]
    is_listed = isinstance(feature, datasets.LargeList | datasets.Sequence)
    inner = feature.feature if is_listed else feature
    names = list(inner.names) if isinstance(inner, datasets.ClassLabel) else None
    labels = []
    for cell, place in zip(table[column], places, strict=True):
        values = (cell or ()) if is_listed else [cell]
        if any(not isinstance(value, str | int | None) for value in values):
            raise ValueError(
                f"{place} has {cell!r} in column {column!r}, which is no label. Pass `label_column` with a column of "
                "class names or class numbers."
            )
        labels.append(_named(values, names))
    return labels, names, is_listed


def _named(values: Sequence[str | int | None], names: Sequence[str] | None) -> tuple[str, ...]:
    """Labels in a cell, each once; -1 is `datasets`' mark of a hidden label."""
    if names is not None:
        values = [names[value] for value in values if value is not None and value >= 0]
    texts = as_texts([None if value is None else str(value) for value in values])
    return tuple(dict.fromkeys(text for text in texts if text))


def _cells(table: datasets.Dataset, column: str | None, read, places: Sequence[str], default) -> list:
    """What `read` makes of the cells of a column, `default` for each row without one."""
    if column is None:
        return [default] * len(table)
    return [read(value, place) for value, place in zip(table[column], places, strict=True)]


__all__ = ["open_label_folder", "open_label_hub", "read_label_splits"]

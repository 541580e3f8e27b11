# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Numbers in a text table beside the sounds, such as arousal and valence of music: targets of a regression.

    file_name,arousal,valence,split
    a.wav,0.31,-0.2,train

They come as labelled data: the labels of a clip are its numbers as texts, `classes` are the names of the columns.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .captions import MAX_HEADER_CHECKS, check_sounds
from .captions_checks import BadRows, path_inside
from .label_plans import LabelPlan
from .labels_columns import LabelColumns, cell_fold, cell_split
from .labels_metadata import find_label_tables
from .labels_records import PARTS, Clip, LabelledData, LabelledRecords
from .labels_splits import split_clips
from .metadata_files import read_rows
from .records import Record


def load_numbers(
    folder: str | Path, plan: LabelPlan, *, fold: int | None = None, on_bad_example: str = "skip", seed: int = 0
) -> LabelledData:
    """Training, validation and test clips with numbers as labels.

    Args:
        folder: has a metadata.csv, .tsv or .jsonl with a row per sound, or one in each of its splits.
        plan: its `class_order` names the columns with the numbers.
        fold: number of the fold that is tested.
        on_bad_example: what to do with an unreadable sound: "skip" leaves it out, "error" raises.
        seed: another seed holds other clips out where parts are missing.

    Raises:
        FileNotFoundError: if there is no such table.
        ValueError: for missing columns, cells that are no number, a file with two rows, splits or folds that do not
            fit; the message names them.
        TooManyBadExamples: if more than 5 % of the sounds are bad.
    """
    root = Path(os.path.realpath(Path(folder).expanduser()))
    tables = find_label_tables(root) if root.is_dir() else {}
    if not tables:
        raise FileNotFoundError(
            f"`{folder}` has no metadata.csv, .tsv or .jsonl. Write one with the columns "
            f"{['file_name', *(plan.classes() or [])]}."
        )
    clips = [clip for split, path in tables.items() for clip in _clips(root, split, path, plan)]
    twice = sorted(name for name, count in Counter(clip.id for clip in clips).items() if count > 1)
    if twice:
        raise ValueError(f"`{folder}` has {len(twice)} files with several rows, got {twice[:5]}. Write one per file.")
    records = [Record(id=clip.id, audio=str(root / clip.id), labels=clip.labels) for clip in clips]
    bad_rows = BadRows(on_bad_example)
    checked = check_sounds(records, [clip.place for clip in clips], bad_rows, MAX_HEADER_CHECKS)
    without_labels = [replace(clips[index], labels=()) for index in checked.indices]  # any clip may be held out
    split = split_clips(without_labels, str(folder), fold=fold, seed=seed)
    parts = {
        part: LabelledRecords(
            records, [checked.indices[row] for row in rows], clips, name=f"{folder}, {part}",
            durations=checked.durations, skipped=checked.skipped,
        )
        for part, rows in split.parts.items()
    }  # fmt: skip
    return LabelledData(
        **{part: parts.get(part) for part in PARTS}, classes=plan.classes(), is_multi_label=True, name=str(folder),
        notes=split.notes, folds=split.folds, fold=split.fold,
    )  # fmt: skip


def _clips(root: Path, split: str, path: Path, plan: LabelPlan) -> Iterator[Clip]:
    """The clips of one table."""
    rows = list(read_rows(path))
    columns, place = list(dict.fromkeys(name for _, row in rows for name in row)), f"`{path}`"
    asked = LabelColumns(planned=plan.columns)
    names = plan.classes() or []
    missing = [name for name in names if name not in columns]
    if missing or not names:
        raise ValueError(
            f"{place} has the columns {columns}, without {missing or 'numbers'}. Add a column for each name in the "
            f"plan's `class_order`, {names}."
        )
    audio = asked.find_audio(columns, place)
    split_column, fold_column = asked.find("split", columns, place), asked.find("fold", columns, place)
    folder = os.path.relpath(path.parent, root)
    for line, row in rows:
        name = str(row.get(audio) or "").strip()
        where = f"{path.name} line {line} (`{name}`)"
        key = path_inside(root, name if folder == "." else f"{folder}/{name}", where)
        part = split or (cell_split(row.get(split_column), where) if split_column else "")
        yield Clip(
            key, _numbers(row, names, where), part,
            cell_fold(row.get(fold_column), where) if fold_column else None, where,
        )  # fmt: skip


def _numbers(row: dict, names: Sequence[str], place: str) -> tuple[str, ...]:
    for name in names:
        try:
            number = float(row.get(name))
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{place} has {row.get(name)!r} in the column {name!r}. Write a number.")
    return tuple(str(row[name]) for name in names)


__all__ = ["load_numbers"]

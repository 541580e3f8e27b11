# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Your own captioned sounds: a folder with metadata.csv or metadata.jsonl, a `datasets` folder, or a Hub id.

rows -> structural checks (always errors) -> bad rows (skipped and counted, or errors) -> records

    file_name,caption
    door.wav,"a door creaks, then closes"
    birds/park.flac,birds sing in a park
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha1
from pathlib import Path

from transformers.utils import logging

from .audio_files import find_audio_files
from .audio_io import AudioError, audio_info
from .captions_checks import ON_BAD_EXAMPLE, BadRows, choose_columns, path_inside, row_captions
from .captions_datasets import open_datasets_folder, open_hub_dataset, read_table
from .metadata_files import read_rows
from .records import Record, RecordDataset, RecordSubset, record_ids

logger = logging.get_logger(__name__)

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
# Our choice: opening a header takes 0.1-0.5 ms, so the checks of a load stay within seconds.
MAX_HEADER_CHECKS = 20_000  # files
MAX_EMBEDDED_CHECKS = 2_000  # sounds stored inside a `datasets` table, each of which must be read whole
_AGREEING_COLUMNS = ("label", "labels", "events", "phrases")  # what rows of one file may not contradict each other in
_EXAMPLE = 'file_name,caption\ndoor.wav,"a door creaks, then closes"'


def load_captions(
    name_or_path: str | Path,
    split: str = "train",
    *,
    audio_column: str | None = None,
    caption_column: str | None = None,
    on_bad_example: str = "skip",
    max_header_checks: int | None = None,
    needs_captions: bool = True,
) -> RecordSubset:
    """The records of a folder with a metadata file, of a `datasets` folder on disk, or of a data set of the Hub.

    A folder with a metadata file is taken whole whatever `split` says, unless it has a sub-folder of that name with
    a metadata file of its own. Several rows of one file become one record with several captions.

    Args:
        name_or_path: a folder, or a Hub id `owner/name` if there is no such folder.
        audio_column: column with the file name or sound; by default `file_name` or `audio`.
        caption_column: column with a caption or a list of them; by default `captions`, `caption`, `caption_1`,
            `caption_2`, ..., or `text`.
        on_bad_example: what to do with an empty caption, a missing file or an unreadable header: "skip" leaves the
            row out, with a message in `.skipped`; "error" raises.
        max_header_checks: how many sounds are opened up front (their headers give the durations); by default
            20,000 files, or 2,000 sounds inside a `datasets` table. The others are checked when they are used.
        needs_captions: False takes rows without captions too, and a folder of sound files without any metadata.

    Raises:
        FileNotFoundError: if there is neither such a folder nor such a data set, or the folder has no metadata.
        ValueError: for a missing column, malformed rows, a path that leaves the folder, rows that contradict each
            other, no rows; under "error" for a bad row.
        TooManyBadExamples: if more than 5 % of the rows are bad.
    """
    if on_bad_example not in ON_BAD_EXAMPLE:
        raise ValueError(f"Unknown `on_bad_example` {on_bad_example!r}. Choose one of {list(ON_BAD_EXAMPLE)}.")
    bad_rows = BadRows(on_bad_example)
    folder = Path(name_or_path).expanduser()
    if folder.is_file():
        raise ValueError(f"`{name_or_path}` is a file. Pass the folder that holds it and its sounds.")
    if folder.is_dir():
        metadata_path = _find_metadata(folder, split)
        if metadata_path is not None:
            records, places = _read_folder(metadata_path, audio_column, caption_column, bad_rows, needs_captions)
            return check_sounds(records, places, bad_rows, max_header_checks or MAX_HEADER_CHECKS)
        if not is_datasets_folder(folder):
            records = _read_sounds(folder, needs_captions)
            return check_sounds(
                records, [f"`{record.id}`" for record in records], bad_rows, max_header_checks or MAX_HEADER_CHECKS
            )
    table = open_datasets_folder(folder, split) if folder.is_dir() else open_hub_dataset(str(name_or_path), split)
    records, places = read_table(
        table, str(name_or_path), audio_column, caption_column, bad_rows, needs_captions=needs_captions
    )
    return check_sounds(records, places, bad_rows, max_header_checks or MAX_EMBEDDED_CHECKS)


def split_held_out(dataset: RecordDataset, fraction: float = 0.1) -> tuple[RecordSubset, RecordSubset]:
    """(training part, held-out part) by a hash of each record's id, which for files is the file name.

    A file falls on its side by its name alone: adding files moves none (but for data sets so small that a side
    would be empty: there the name nearest to the border changes sides). Records of one id stay together.

    Raises:
        ValueError: if `fraction` is not between 0 and 1, or there are fewer than two different ids.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` is {fraction}. Give the share to hold out, between 0 and 1.")
    ids = record_ids(dataset)
    position = {record_id: id_position(record_id) for record_id in ids}
    if len(position) < 2:
        raise ValueError(f"`dataset` has {len(position)} distinct record(s). Holding some out needs at least two.")
    ordered = sorted(position, key=position.__getitem__)
    num_held_out = sum(value < fraction for value in position.values())
    held_out_ids = set(ordered[: min(max(num_held_out, 1), len(ordered) - 1)])
    skipped = getattr(dataset, "skipped", ())
    train = [index for index, record_id in enumerate(ids) if record_id not in held_out_ids]
    held_out = [index for index, record_id in enumerate(ids) if record_id in held_out_ids]
    return RecordSubset(dataset, train, skipped=skipped), RecordSubset(dataset, held_out)


def check_sounds(
    records: RecordDataset, places: Sequence[str], bad_rows: BadRows, max_header_checks: int
) -> RecordSubset:
    """The good records, after opening up to `max_header_checks` of the sounds; adds the durations read."""
    durations: dict[int, float] = {}
    open_ones = [index for index in range(len(records)) if index not in bad_rows.records][:max_header_checks]
    for index in logging.tqdm(open_ones, desc="Checking sound files", disable=len(open_ones) < 1000):
        record = records[index]
        try:
            if record.audio is None:
                raise AudioError(f"`{record.id}` has no audio, got None. Give its path or bytes.")
            name = record.id if isinstance(record.audio, bytes) else None
            durations[index] = audio_info(record.audio, name=name).duration
        except AudioError as error:
            bad_rows.add(index, f"{places[index]}: {error}")
    bad_rows.finish(len(records))
    kept = [index for index in range(len(records)) if index not in bad_rows.records]
    return RecordSubset(records, kept, durations=durations, skipped=bad_rows.messages)


def _find_metadata(folder: Path, split: str) -> Path | None:
    """The metadata file of a folder or of its sub-folder `split`, None without one."""
    for place in (folder, folder / split):
        found = [place / name for name in METADATA_NAMES if (place / name).is_file()]
        if len(found) > 1:
            raise ValueError(f"`{place}` has both {METADATA_NAMES[0]} and {METADATA_NAMES[1]}. Keep one of them.")
        if found:
            return found[0]
    return None


def is_datasets_folder(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote it."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _read_sounds(folder: Path, needs_captions: bool) -> list[Record]:
    """A record without captions of every sound file below a folder that has no metadata."""
    if needs_captions:
        raise FileNotFoundError(
            f"`{folder}` has no metadata.csv, no metadata.jsonl and is no `datasets` folder. "
            f"Write a metadata.csv beside the sounds, such as:\n{_EXAMPLE}"
        )
    return [
        replace(Record.from_row({"audio": str(path), "captions": []}), id=path.relative_to(folder).as_posix())
        for path in find_audio_files([folder])
    ]


def _read_folder(
    metadata_path: Path,
    audio_column: str | None,
    caption_column: str | None,
    bad_rows: BadRows,
    needs_captions: bool,
) -> tuple[list[Record], list[str]]:
    """(records, their places in messages) of a metadata file; rows of one file are merged."""
    rows = list(read_rows(metadata_path))
    if not rows:
        raise ValueError(f"`{metadata_path}` has 0 rows. Write one row per sound, such as:\n{_EXAMPLE}")
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    audio, captions = choose_columns(columns, f"`{metadata_path}`", audio_column, caption_column, needs_captions)
    folder = Path(os.path.realpath(metadata_path.parent))
    merged: dict[str, list[tuple[str, dict, tuple[str, ...]]]] = {}
    for line, row in rows:
        name = str(row.get(audio) or "").strip()
        place = f"{metadata_path.name} line {line} (`{name}`)"
        if not name:
            bad_rows.add(None, f"{place} has an empty `{audio}`. Write the file's name, or remove the row.")
            continue
        key = path_inside(folder, name, place)
        texts = tuple(text for column in captions for text in row_captions(row.get(column)) if text)
        if needs_captions and not texts:
            bad_rows.add(None, f"{place} has an empty caption. Write one, or remove the row.")
            continue
        merged.setdefault(key, []).append((place, row, texts))
    records = [_merged_record(folder, key, group) for key, group in merged.items()]
    return records, [group[0][0] for group in merged.values()]


def _merged_record(folder: Path, key: str, group: Sequence[tuple[str, dict, tuple[str, ...]]]) -> Record:
    """One record of all rows of a file: every different caption, in order."""
    first_place, first_row, _ = group[0]
    for place, row, _ in group[1:]:
        for column in _AGREEING_COLUMNS:
            if row.get(column) != first_row.get(column):
                raise ValueError(
                    f"{place} and {first_place} are the same file but differ in `{column}`: {row.get(column)!r} and "
                    f"{first_row.get(column)!r}. Make them agree."
                )
    captions = tuple(dict.fromkeys(text for _, _, texts in group for text in texts))
    extras = {name: first_row[name] for name in (*_AGREEING_COLUMNS, "mode") if first_row.get(name)}
    record = Record.from_row({**extras, "audio": str(folder / key), "captions": list(captions)})
    return replace(record, id=key)


def id_position(record_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return int.from_bytes(sha1(record_id.encode(), usedforsecurity=False).digest()[:8], "big") / 2**64


__all__ = [
    "METADATA_NAMES",
    "MAX_HEADER_CHECKS",
    "MAX_EMBEDDED_CHECKS",
    "load_captions",
    "split_held_out",
    "check_sounds",
    "is_datasets_folder",
    "id_position",
]

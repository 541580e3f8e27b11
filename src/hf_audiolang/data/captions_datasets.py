# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Tables of the `datasets` library as records; their sounds stay encoded and are decoded by `audio_io`.

An `Audio` column may hold paths instead of bytes. `datasets` makes them absolute, so they are followed wherever they
lead: load tables from people you trust. Paths in a column of texts must stay within the table's folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING

from .captions_checks import BadRows, choose_columns, path_inside, row_captions
from .records import Record

if TYPE_CHECKING:
    import datasets

_KNOWN_COLUMNS = ("labels", "events", "phrases", "mode")


class TableRecords:
    """Lazy records of a `datasets.Dataset`; ids and captions are known, the sounds are read at access.

    Attributes:
        ids: one per record, unique.
    """

    def __init__(
        self,
        table: datasets.Dataset,
        audio_column: str,
        rows: Sequence[int],
        *,
        ids: Sequence[str],
        captions: Sequence[tuple[str, ...]],
        folder: Path | None,
    ) -> None:
        """`rows`: the table row of each record; `folder`: where a column of paths starts, None for stored sounds."""
        self.table = table
        self.audio_column = audio_column
        self.rows = list(rows)
        self.ids = list(ids)
        self.captions = list(captions)
        self.folder = folder

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        row = dict(self.table[self.rows[index]])
        if self.folder is not None:
            row[self.audio_column] = str(self.folder / self.ids[index])
        row["captions"] = list(self.captions[index])
        return replace(Record.from_row(row, self.audio_column, "captions"), id=self.ids[index])

    def captions_of(self, index: int) -> tuple[str, ...]:
        """Captions of a record; its sound is not read."""
        return self.captions[index]


def open_datasets_folder(folder: Path, split: str) -> datasets.Dataset:
    """The table that `save_to_disk` wrote, or the split of it.

    Raises:
        ValueError: if there are several splits and none is called `split`.
    """
    import datasets

    table = datasets.load_from_disk(str(folder))
    if isinstance(table, datasets.DatasetDict):
        if split not in table:
            raise ValueError(f"`{folder}` has no split {split!r}. Choose one of {sorted(table)}.")
        return table[split]
    return table


def open_hub_dataset(
    name: str, split: str | None, revision: str | None = None
) -> datasets.Dataset | datasets.DatasetDict:
    """A split of a data set of the Hub, or all of them.

    Args:
        name: `owner/name`.
        split: None gives all splits by their names.
        revision: branch, tag or commit; None is the newest.

    Raises:
        FileNotFoundError: if `name` is no `owner/name` and there is no such folder either.
        ValueError: if the Hub (or its cache, when offline) does not have it, with its own words.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith((".", "~")):
        raise FileNotFoundError(f"There is no folder `{name}`. Correct the path, or give a Hub id `owner/name`.")
    import datasets

    version = {"revision": revision} if revision else {}
    try:
        return datasets.load_dataset(name, split=split, **version)
    except (OSError, ValueError) as error:
        what = f"its split {split!r}" if split else "it"
        raise ValueError(
            f"`{name}` is no folder here, and as a Hub data set {what} cannot be loaded: {error} "
            "Correct the path, the id or the split."
        ) from error


def read_table(
    table: datasets.Dataset,
    place: str,
    audio_column: str | None,
    caption_column: str | None,
    bad_rows: BadRows,
    *,
    needs_captions: bool = True,
) -> tuple[TableRecords, list[str]]:
    """(records, their places in messages) of a table; rows with the same sound are merged.

    Without `needs_captions` rows need none.

    Raises:
        ValueError: for a missing column, no rows, or a column of paths that leave the folder.
    """
    if len(table) == 0:
        raise ValueError(f"`{place}` has 0 rows. Give at least one.")
    audio, caption_names = choose_columns(
        table.column_names, f"`{place}`", audio_column, caption_column, needs_captions
    )
    known = [name for name in _KNOWN_COLUMNS if name in table.column_names and name not in caption_names]
    cells = [[row_captions(value) for value in table[name]] for name in caption_names]
    captions = [tuple(text for column in cells for text in column[row] if text) for row in range(len(table))]
    for row, texts in enumerate(captions):
        if needs_captions and not texts:
            bad_rows.add(None, f"`{place}` row {row} has an empty caption. Write one, or remove the row.")
    table, keys, folder = encoded_sounds(table.select_columns([audio, *known]), audio, place)
    merged: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if captions[row] or not needs_captions:
            merged.setdefault(key, []).append(row)
    records = TableRecords(
        table,
        audio,
        [rows[0] for rows in merged.values()],
        ids=list(merged),
        captions=[tuple(dict.fromkeys(text for row in rows for text in captions[row])) for rows in merged.values()],
        folder=folder,
    )
    return records, [f"`{place}` row {rows[0]} (`{key}`)" for key, rows in merged.items()]


def encoded_sounds(
    table: datasets.Dataset, audio_column: str, place: str
) -> tuple[datasets.Dataset, list[str], Path | None]:
    """(table whose sounds stay encoded, key of each row's sound, folder where a column of paths starts).

    Rows with the same sound have the same key. The folder is None for sounds that are stored in the table.

    Raises:
        ValueError: if the column holds no sounds, or paths that leave the folder.
    """
    import datasets

    table = table.with_format(None)  # one that names columns, as some casts leave it, would hide those made below
    if isinstance(table.features[audio_column], datasets.Audio):
        table = table.cast_column(audio_column, datasets.Audio(decode=False))
        return table, _sound_keys(table, audio_column), None
    if Path(place).expanduser().is_dir() and table.features[audio_column] == datasets.Value("string"):
        folder = Path(place).expanduser().resolve()
        names = table[audio_column]
        keys = [path_inside(folder, name, f"`{place}` row {row} (`{name}`)") for row, name in enumerate(names)]
        return table, keys, folder
    raise ValueError(
        f"`{place}` column {audio_column!r} is {table.features[audio_column]}, not sounds. Cast it to "
        "`datasets.Audio`, or pass another `audio_column`."
    )


def _sound_keys(table: datasets.Dataset, audio_column: str) -> list[str]:
    """One id per row: the stored path; rows of one path share it only if their bytes are the same."""
    paths = list(table.select_columns([audio_column]).flatten()[f"{audio_column}.path"])
    rows_of: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        rows_of.setdefault(path or f"row {row}", []).append(row)
    keys = [""] * len(paths)
    for path, rows in rows_of.items():
        digests: dict[str, str] = {}
        for row in rows:
            stored = table[row][audio_column]["bytes"] if len(rows) > 1 else None
            digest = sha1(stored, usedforsecurity=False).hexdigest() if stored else ""
            keys[row] = digests.setdefault(digest, f"{path}#{row}" if digests else path)
    return keys


__all__ = ["TableRecords", "encoded_sounds", "open_datasets_folder", "open_hub_dataset", "read_table"]

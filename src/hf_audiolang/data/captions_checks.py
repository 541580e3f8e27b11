# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Checks that every source of captioned sounds shares: columns, captions in a cell, paths, bad rows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from transformers.utils import logging

from .records import MAX_BAD_FRACTION, TooManyBadExamples, as_texts, find_caption_columns

logger = logging.get_logger(__name__)

ON_BAD_EXAMPLE = ("error", "skip")
FILE_COLUMNS = ("file_name", "audio")


def choose_columns(
    columns: Sequence[str],
    place: str,
    audio_column: str | None,
    caption_column: str | None,
    needs_captions: bool = True,
) -> tuple[str, list[str]]:
    """(audio column, caption columns) of a table: the ones asked for, or the ones with the usual names.

    Without `needs_captions` there may be no caption column.

    Raises:
        ValueError: if one is missing; lists the columns found and names the argument.
    """
    found = f"{place} has the columns {list(columns)}"
    audio = audio_column or next((name for name in FILE_COLUMNS if name in columns), None)
    if audio is None:
        raise ValueError(f"{found}, none of which is `file_name` or `audio`. Pass `audio_column` with the right one.")
    if audio not in columns:
        raise ValueError(f"`audio_column` {audio!r} is missing: {found}. Pass one of these.")
    if caption_column and caption_column not in columns:
        raise ValueError(f"`caption_column` {caption_column!r} is missing: {found}. Pass one of these.")
    captions = [caption_column] if caption_column else find_caption_columns(columns)
    if needs_captions and not captions:
        raise ValueError(
            f"No caption column: {found}, none of which is `caption`, `captions`, `caption_1` or `text`. "
            "Pass `caption_column` with the right one."
        )
    return audio, captions


def row_captions(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """The captions in one cell: a text, a list of texts, or a JSON list of texts written as text (in a CSV)."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return as_texts(value)
    return as_texts(value)


def path_inside(folder: Path, name: str, place: str) -> str:
    """The path of a file relative to `folder` (links followed), in POSIX form.

    Raises:
        ValueError: if it is absolute or leaves the folder.
    """
    is_absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive != ""
    if not is_absolute and ".." not in PurePosixPath(name).parts:
        resolved = Path(os.path.realpath(folder / name))
        if resolved.is_relative_to(folder):
            return resolved.relative_to(folder).as_posix()
        raise ValueError(f"{place} is a link to {str(resolved)!r}, outside `{folder}`. Copy the file into the folder.")
    raise ValueError(f"{place} leaves `{folder}`. Write the path relative to it, without `..`.")


class BadRows:
    """Collects the rows that cannot be used under "skip", raises at the first under "error"."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.num_lost_rows = 0  # bad rows that never became a record
        self.messages: list[str] = []
        self.records: set[int] = set()

    def add(self, record_index: int | None, message: str) -> None:
        """A bad row; `record_index` where the whole record must be left out."""
        if self.policy == "error":
            raise ValueError(f'{message} (`on_bad_example` "skip" leaves such rows out.)')
        self.messages.append(message)
        if record_index is None:
            self.num_lost_rows += 1
        else:
            self.records.add(record_index)

    def finish(self, num_records: int) -> None:
        """Logs what was skipped; raises above 5 % of the bad rows and the records of the others together."""
        if not self.messages:
            return
        num_examples = num_records + self.num_lost_rows
        first = "\n  ".join(self.messages[:10])
        if len(self.messages) > MAX_BAD_FRACTION * num_examples:
            raise TooManyBadExamples(
                f"{len(self.messages)} of {num_examples} examples cannot be used, more than {MAX_BAD_FRACTION:.0%}. "
                f"Repair or remove them. The first:\n  {first}"
            )
        logger.warning("Skipped %d of %d examples. The first:\n  %s", len(self.messages), num_examples, first)


__all__ = ["ON_BAD_EXAMPLE", "FILE_COLUMNS", "choose_columns", "row_captions", "path_inside", "BadRows"]

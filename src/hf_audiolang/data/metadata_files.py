# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Tables of text beside sound files: CSV and TSV with a header, or one JSON object per line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")


def read_rows(path: Path) -> Iterator[tuple[int, dict]]:
    """(line, row) of a file that ends in one of `TABLE_SUFFIXES`.

    Raises:
        ValueError: for text that is not UTF-8, a row that does not fit the header, or a line that is no JSON object;
            names the file and the line.
    """
    return _read_jsonl(path) if path.suffix == ".jsonl" else _read_csv(path)


def _read_csv(path: Path) -> Iterator[tuple[int, dict]]:
    """(line, row) of a CSV or TSV file with a header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            header = [name.strip() for name in next(reader, [])]
            if len(set(header)) < len(header):
                raise ValueError(f"`{path}` has a column name twice: {header}. Name them caption_1, caption_2, ...")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise ValueError(
                        f"{path.name} line {reader.line_num} has {len(cells)} cells but the header has {len(header)}: "
                        f'{cells}. Put quotes around texts with commas ("a dog barks, then howls").'
                    )
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"`{path}` line {reader.line_num} is not readable as CSV ({error}). Correct it.") from error


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict]]:
    """(line, row) of a file with one JSON object per line."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f"{path.name} line {line} is not JSON ({error.msg}). Correct the line."
                    ) from error
                if not isinstance(row, Mapping):
                    raise ValueError(
                        f"{path.name} line {line} is {type(row).__name__}, not an object. "
                        'Write {"file_name": "door.wav", "caption": "..."}.'
                    )
                yield line, dict(row)
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error


__all__ = ["TABLE_SUFFIXES", "read_rows"]

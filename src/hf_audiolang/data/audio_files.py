# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Which files of a folder are sounds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .audio_io import CODEC_SUFFIXES

AUDIO_SUFFIXES = CODEC_SUFFIXES | {
    ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".w64", ".wav",
}  # fmt: skip


def find_audio_files(paths: Iterable[str | Path]) -> list[Path]:
    """The given files, and the sound files (by suffix) of the given folders and their sub-folders, in name order.

    A file that does not exist is kept: whoever reads it reports it with the other unreadable ones.

    Raises:
        FileNotFoundError: if nothing is left.
    """
    paths = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    found: list[Path] = []
    for path in paths:
        inside = path.rglob("*") if path.is_dir() else [path]
        found += sorted(p for p in inside if p == path or (p.suffix.lower() in AUDIO_SUFFIXES and p.is_file()))
    found = [path for path in found if not path.is_dir()]
    if not found:
        named = ", ".join(f"'{path}'" for path in paths) or "no path"
        raise FileNotFoundError(
            f"`files` names no sound file, got {named}. Give files, or folders with files that end in one of "
            f"{' '.join(sorted(AUDIO_SUFFIXES))}."
        )
    return list(dict.fromkeys(found))


__all__ = ["AUDIO_SUFFIXES", "find_audio_files"]

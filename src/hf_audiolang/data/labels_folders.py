# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""A folder per class: the sub-folder that holds a sound file is its label.

    sounds/dog/a.wav                     sounds/train/dog/a.wav
    sounds/cat/deeper/b.flac             sounds/test/cat/b.flac

Sub-folders called train, validation (valid, val, dev, eval) and test are splits. Files may lie deeper in the folder of
their class; hidden ones do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .audio_files import AUDIO_SUFFIXES, find_audio_files
from .captions_checks import BadRows
from .labels_checks import read_classes_file
from .labels_records import Clip, LabelSource, split_name
from .records import Record

_EXAMPLE = "sounds/dog/a.wav, sounds/cat/b.wav"


def folder_records(folder: Path, files: Iterable[str | Path]) -> tuple[list[Record], list[Path]]:
    """Records of sound files with the sub-folder of `folder` that holds each as its label, and the other files.

    Args:
        folder: has one sub-folder per class.
        files: sound files in it, at any depth; their paths become the ids.
    """
    records, outside = [], []
    for path in map(Path, files):
        parts = path.relative_to(folder).parts
        if len(parts) > 1:
            records.append(Record(id=str(path), audio=path, labels=(parts[0],)))
        else:
            outside.append(path)
    return records, outside


def read_class_folders(root: Path, bad_rows: BadRows) -> LabelSource:
    """The clips of a folder with a sub-folder per class, or with such folders in its sub-folders train, test, ...

    Args:
        root: ids are paths relative to it.
        bad_rows: gets the sound files that lie in no class folder.

    Raises:
        FileNotFoundError: if there is no sound file.
        ValueError: if split and class folders lie side by side, or two of them are the same split.
    """
    records, clips = [], []
    splits = _split_folders(root)
    loose = [] if "" in splits else _loose_files(root)
    for split, folder in splits.items():
        found, outside = folder_records(folder, sound_files(folder))
        loose += outside
        for record in found:
            name = Path(record.id).relative_to(root).as_posix()
            records.append(replace(record, id=name))
            clips.append(Clip(name, record.labels, split=split, place=f"`{name}`"))
    for path in loose:
        bad_rows.add(None, f"`{path}` lies in no sub-folder, so its class is not known. Move it into one.")
    if not clips:
        raise FileNotFoundError(
            f"`{root}` has no sub-folder with sound files. Give a folder per class, such as {_EXAMPLE}; or write a "
            "metadata.csv with the columns file_name and label."
        )
    return LabelSource(str(root), records, clips, read_classes_file(root))


def named_splits(root: Path, holds_data: Iterable[Path]) -> dict[str, Path]:
    """Split -> sub-folder, if the sub-folders that hold data are called like splits; empty if none is.

    Raises:
        ValueError: if only some of them are, or two are the same split.
    """
    splits: dict[str, Path] = {}
    folders = list(holds_data)
    named = [folder for folder in folders if split_name(folder.name)]
    if named and len(named) < len(folders):
        others = sorted(folder.name for folder in folders if folder not in named)
        raise ValueError(
            f"`{root}` has the splits {[folder.name for folder in named]} beside the folders {others[:5]}. Keep "
            "either splits with a folder per class in each, or a folder per class, in it."
        )
    for folder in named:
        other = splits.setdefault(split_name(folder.name), folder)
        if other != folder:
            raise ValueError(f"`{root}` has `{other.name}` and `{folder.name}`, which are one split. Join them.")
    return splits


def sub_folders(root: Path) -> list[Path]:
    """The sub-folders of a folder in the order of their names, without hidden ones; links are followed."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def sound_files(folder: Path) -> list[Path]:
    """The sound files below a folder in the order of their paths, without hidden ones."""
    places = [*_loose_files(folder), *(path for path in sub_folders(folder) if _holds_sounds(path))]
    found = find_audio_files(places) if places else []
    return sorted(path for path in found if not _is_hidden(path, folder))


def _split_folders(root: Path) -> dict[str, Path]:
    """Split -> folder with the class folders; "" -> root where there are no splits."""
    holds_data = [folder for folder in sub_folders(root) if _holds_sounds(folder)]
    return named_splits(root, holds_data) or {"": root}


def _loose_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES]


def _holds_sounds(folder: Path) -> bool:
    return any(
        path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and not _is_hidden(path, folder)
        for path in folder.rglob("*")
    )


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


__all__ = ["folder_records", "named_splits", "read_class_folders", "sound_files", "sub_folders"]

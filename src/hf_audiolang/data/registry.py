# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Data sets by name: `build_dataset("sound_scenes", "train", size=4000)`, or a folder, or a Hub id."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path

from .captions import load_captions
from .records import RecordDataset, RecordView

BUILDERS: dict[str, Callable[..., RecordDataset]] = {}


def register(name: str) -> Callable[[Callable[..., RecordDataset]], Callable[..., RecordDataset]]:
    """Decorator that makes `builder(split, **options) -> data set of records` known as `name`.

    Raises:
        ValueError: if the name is taken.
    """

    def add(builder: Callable[..., RecordDataset]) -> Callable[..., RecordDataset]:
        if name in BUILDERS:
            raise ValueError(f"`name` {name!r} is registered already. Choose one that is not in {sorted(BUILDERS)}.")
        BUILDERS[name] = builder
        return builder

    return add


def build_dataset(name_or_path: str | Path, split: str = "train", **options: object) -> RecordDataset:
    """A map-style data set of records.

    Args:
        name_or_path: a registered name (`sound_scenes`), a folder with metadata.csv or metadata.jsonl, a `datasets`
            folder on disk, or a Hub id `owner/name`. A registered name wins over a folder, a folder over a Hub id.
        split: part of the data set.
        options: what the builder takes: those of `load_captions` for your own data, of `SoundScenes` plus
            `num_workers` for `sound_scenes`.

    Raises:
        FileNotFoundError: if there is no such name, folder or data set.
        TypeError: for an option that the builder does not have.
        ValueError: as the builder says.
    """
    name = str(name_or_path)
    if name in BUILDERS:
        return _call(BUILDERS[name], split, options, name)
    if not Path(name).expanduser().exists() and "/" not in name:
        near = difflib.get_close_matches(name, BUILDERS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise FileNotFoundError(
            f"There is no data set or folder `{name}`. {hint}Give one of {sorted(BUILDERS)}, a folder with a "
            "metadata.csv, or a Hub id `owner/name`."
        )
    return _call(lambda split, **rest: load_captions(name, split, **rest), split, options, name, load_captions)


@register("sound_scenes")
def build_sound_scenes(split: str, *, num_workers: int | None = None, **options: object) -> RecordView:
    """Rendered scenes of `SoundScenes(split, **options)`, in memory as int16.

    Args:
        num_workers: processes that render, by default one per core; the result does not depend on it.
    """
    from .sound_scenes import SoundScenes, materialize

    return RecordView(materialize(SoundScenes(split, **options), num_workers=num_workers))


def _call(
    builder: Callable[..., RecordDataset], split: str, options: dict, name: str, signature_of: Callable | None = None
) -> RecordDataset:
    """`builder(split, **options)` after its options have been checked by name."""
    parameters = inspect.signature(signature_of or builder).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise TypeError(f"Data set `{name}` has no option {unknown}. Its options are {known}.")
    return builder(split, **options)


__all__ = ["BUILDERS", "register", "build_dataset", "build_sound_scenes"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""One form for every data set: a map-style object whose items are `Record`s.

rows of SoundScenes, of `datasets` or of a metadata file -> Record.from_row -> training, evaluation
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

MAX_BAD_FRACTION = 0.05  # our choice: above it the data is wrong as a whole, not a few files of it


class TooManyBadExamples(ValueError):  # noqa: N818 - reads as the fact it states
    """More than 5 % of the examples cannot be used: the data set needs repair, skipping would hide it."""


@dataclass(frozen=True)
class Record:
    """One clip with all that is known about it.

    Attributes:
        id: unique in its data set; for a file its path relative to the data folder.
        audio: path, encoded file as bytes, or (S,) float32 / int16 mono waveform at `sampling_rate`.
        sampling_rate: Hz, of an array; None for a path or bytes.
        duration: seconds, None when not known without opening the file.
        captions: texts that describe the clip.
        labels: names of the sound classes that are heard.
        events: dicts with `label`, `onset`, `offset` (seconds) and whatever else the data set knows.
        phrases: dicts with `phrase` and `segments` [[onset, offset], ...] in seconds (grounding).
        mode: part of the data set the clip belongs to, such as SoundScenes' scene mode.
    """

    id: str
    audio: str | Path | bytes | np.ndarray | None = field(repr=False)  # bytes and samples flood a message
    sampling_rate: int | None = None
    duration: float | None = None
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    events: tuple[dict, ...] = ()
    phrases: tuple[dict, ...] = ()
    mode: str = ""

    @classmethod
    def from_row(
        cls,
        row: Mapping,
        audio_column: str = "audio",
        caption_column: str | None = None,
        default_id: str | None = None,
    ) -> Record:
        """The record of one row of SoundScenes, of a `datasets.Dataset` or of a metadata file.

        Args:
            row: column name -> value. The audio value is a path, bytes, a (S,) or (C, S) array with the row's
                `sampling_rate`, `{"array", "sampling_rate"}`, `{"bytes", "path"}` (`Audio(decode=False)`), a
                torchcodec decoder, or None.
            caption_column: column with a text or a list of texts; None looks for `captions`, `caption`,
                `caption_1`, `caption_2`, ... and `text`, and accepts a row without any of them.
            default_id: id of a row that has neither `id` nor a path.

        Raises:
            KeyError: if the row lacks a column that was named.
            TypeError: if the audio value has none of the forms above.
        """
        row_id = row.get("id")
        audio, sampling_rate, path = _audio_of(_column(row, audio_column, "audio_column"), row.get("sampling_rate"))
        duration = row.get("duration")
        if duration is None and isinstance(audio, np.ndarray):
            duration = len(audio) / sampling_rate
        return cls(
            id=str(row_id if row_id not in (None, "") else path or default_id or ""),
            audio=audio,
            sampling_rate=sampling_rate,
            duration=None if duration is None else float(duration),
            captions=_captions_of(row, caption_column),
            labels=as_texts(row.get("labels", row.get("label"))),
            events=tuple(dict(event) for event in row.get("events") or ()),
            phrases=tuple(dict(phrase) for phrase in row.get("phrases") or ()),
            mode=str(row.get("mode") or row.get("part") or ""),
        )


class RecordDataset(Protocol):
    """What every function of this package takes as a data set: `len(dataset)` and `dataset[index] -> Record`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class RecordView:
    """Lazy records of a sequence of rows: `view[i]` is `Record.from_row(rows[i])`.

    A row without `id` and without a path gets its index as id.
    """

    def __init__(self, rows: Sequence, audio_column: str = "audio", caption_column: str | None = None) -> None:
        self.rows = rows
        self.audio_column = audio_column
        self.caption_column = caption_column

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        index = checked_index(index, len(self))
        return Record.from_row(self.rows[index], self.audio_column, self.caption_column, default_id=str(index))

    def captions_of(self, index: int) -> tuple[str, ...]:
        """Captions of a record, without its audio where the rows have `structure(index)`, as scenes do."""
        index = checked_index(index, len(self))
        read = getattr(self.rows, "structure", self.rows.__getitem__)
        return _captions_of(read(index), self.caption_column)


class RecordSubset:
    """Some records of a data set, in the order of `indices`, with what was learned when they were checked.

    Attributes:
        skipped: one message per example that was left out because it cannot be used.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        indices: Sequence[int],
        *,
        durations: Mapping[int, float] | None = None,
        skipped: Sequence[str] = (),
    ) -> None:
        """`durations`: seconds by index of `dataset`, for records that do not know theirs."""
        self.dataset = dataset
        self.indices = list(indices)
        self.durations = dict(durations or {})
        self.skipped = list(skipped)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        source = self.indices[checked_index(index, len(self))]
        record = self.dataset[source]
        if record.duration is None and source in self.durations:
            return replace(record, duration=self.durations[source])
        return record

    def captions_of(self, index: int) -> tuple[str, ...]:
        """Captions of a record, without its audio where the data set below allows it."""
        return _caption_reader(self.dataset)(self.indices[checked_index(index, len(self))])

    @property
    def ids(self) -> list[str]:
        """Ids of the records, without touching their audio where the data set below allows it."""
        ids = record_ids(self.dataset)
        return [ids[index] for index in self.indices]


def record_ids(dataset: RecordDataset) -> list[str]:
    """Ids of all records: `dataset.ids` where the data set has it, otherwise read one by one."""
    ids = getattr(dataset, "ids", None)
    return list(ids) if ids is not None else [dataset[index].id for index in range(len(dataset))]


def dataset_captions(dataset: RecordDataset) -> Iterator[tuple[str, ...]]:
    """The captions of each record in turn: `dataset.captions_of` where the data set has it, else row by row.

    The data sets of this package that keep sounds encoded or unrendered leave them untouched here.
    """
    return map(_caption_reader(dataset), range(len(dataset)))


def checked_index(index: int, num_records: int) -> int:
    """`index` counted from the front.

    Raises:
        IndexError: outside the data set; iteration over a data set ends by it.
    """
    if not -num_records <= index < num_records:
        raise IndexError(f"`index` {index} is outside a data set of {num_records} records.")
    return int(index) % num_records


def find_caption_columns(columns: Sequence[str] | Mapping) -> list[str]:
    """The columns that hold captions: `captions`, else `caption`, else `caption_1`, `caption_2`, ..., else `text`.

    Returns:
        their names, in numeric order; empty when there is none.
    """
    for name in ("captions", "caption"):
        if name in columns:
            return [name]
    numbered = [name for name in columns if re.fullmatch(r"caption_\d+", str(name))]
    if numbered:
        return sorted(numbered, key=lambda name: int(name.rsplit("_", 1)[1]))
    return ["text"] if "text" in columns else []


def as_texts(value: str | Sequence[str] | np.ndarray | None) -> tuple[str, ...]:
    """A text, a list of texts or None as a tuple of texts; blanks around each are removed."""
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else list(value)
    return tuple("" if text is None else str(text).strip() for text in values)


def _caption_reader(dataset: RecordDataset) -> Callable[[int], tuple[str, ...]]:
    return getattr(dataset, "captions_of", None) or (lambda index: dataset[index].captions)


def _captions_of(row: Mapping, caption_column: str | None) -> tuple[str, ...]:
    columns = [caption_column] if caption_column else find_caption_columns(row)
    return tuple(text for name in columns for text in as_texts(_column(row, name, "caption_column")))


def _column(row: Mapping, name: str, argument: str) -> object:
    if name not in row:
        raise KeyError(
            f"No column {name!r}; the row has {sorted(map(str, row))}. Pass `{argument}` with one of these."
        )
    return row[name]


def _audio_of(value: object, row_rate: int | None) -> tuple[str | Path | bytes | np.ndarray | None, int | None, str]:
    """(audio, sampling rate of an array, path or ''), from each form in which audio stands in a row."""
    if value is None or isinstance(value, str | Path):
        return value, None, "" if value is None else str(value)
    if isinstance(value, bytes):
        return value, None, ""
    if isinstance(value, Mapping) and value.get("array") is not None:
        return _mono_array(value["array"]), int(value["sampling_rate"]), str(value.get("path") or "")
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        path = str(value.get("path") or "")
        return value.get("bytes") or path or None, None, path
    if hasattr(value, "get_all_samples"):  # torchcodec's AudioDecoder, which `datasets` gives for a decoded column
        samples = value.get_all_samples()
        return _mono_array(samples.data.numpy()), int(samples.sample_rate), ""
    if isinstance(value, np.ndarray) and row_rate is not None:
        return _mono_array(value), int(row_rate), ""
    raise TypeError(
        f"The audio of a row is {type(value).__name__}, which is no known form. Give a path, bytes, "
        "{'array', 'sampling_rate'}, {'bytes', 'path'} or a torchcodec decoder."
    )


def _mono_array(array: np.ndarray | Sequence[float]) -> np.ndarray:
    """(S,) float32 or int16 waveform; channels (the shorter axis of a 2-D array) are averaged."""
    array = np.asarray(array)
    if array.ndim == 2:
        channel_axis = int(np.argmin(array.shape))
        mono = array.mean(axis=channel_axis, dtype=np.float64)
        array = np.round(mono).astype(np.int16) if array.dtype == np.int16 else mono.astype(np.float32)
    if array.ndim != 1:
        raise TypeError(f"The audio of a row has shape {array.shape}. Give (samples,) or (channels, samples).")
    return array if array.dtype in (np.float32, np.int16) else array.astype(np.float32)


__all__ = [
    "MAX_BAD_FRACTION",
    "TooManyBadExamples",
    "Record",
    "RecordDataset",
    "RecordView",
    "RecordSubset",
    "record_ids",
    "dataset_captions",
    "checked_index",
    "find_caption_columns",
    "as_texts",
]

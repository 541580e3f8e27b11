# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Frozen features of clips and their place on disk: an encoder is asked once, whatever is trained on its answers.

    encoder, clips, options -> KEY -> cache_dir/frames-KEY.safetensors? -> FrozenFeatures
                                   -> else: compute -> write

KEY is a SHA-256 over all that the values depend on: weights, configuration and feature extractor, this package's
version, the rules of `AudioOptions`, and the clips: the samples of arrays, the bytes of encoded sounds, and path, size
and time of change of files. So a changed model or clip is encoded anew, and nothing has to be deleted by hand.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor, feature_extractor_of
from .embed import AudioOptions, longest_seconds
from .results import package_version


@dataclass(frozen=True)
class FrozenFeatures:
    """What an encoder gives for the readable clips of a data set, in its order; one row or several per clip.

    Attributes:
        rows: (M, D') or (M, L, D) float32 or float16, M the sum of `lengths`: clip after clip, as the encoder gave
            them. A row is a frame, a clip, or a piece of a clip.
        lengths: (N,) rows of each clip.
        indices: (N,) positions of these clips in the data set.
        records: N records without their audio: ids, captions, labels, events.
        skipped: one message per clip that was left out.
        rates_hz: (N,) rows per second, where rows are frames whose times are needed.

    Raises:
        ValueError: if numbers do not fit together, a clip has no row, or a row is not finite.
    """

    rows: np.ndarray
    lengths: np.ndarray
    indices: np.ndarray
    records: list[Record]
    skipped: list[str]
    rates_hz: np.ndarray | None = None

    def __post_init__(self):
        if self.rows.ndim < 2 or len(self.rows) != self.lengths.sum() or len(self.lengths) != len(self.records):
            raise ValueError(
                f"`rows` must be (M, D') with M the sum of one length per record, got {self.rows.shape}, lengths "
                f"that sum to {self.lengths.sum()}, and {len(self.records)} records. Pass all rows of all clips."
            )
        if (self.lengths < 1).any():
            name = self.records[int((self.lengths < 1).argmax())].id
            raise ValueError(f"Clip {name!r} has no frame, got 0. Leave it out: it is too short for the encoder.")
        is_bad = ~np.isfinite(self.rows).all(axis=tuple(range(1, self.rows.ndim)))  # (M,)
        if is_bad.any():
            name = self.records[int(np.searchsorted(self.starts, is_bad.argmax(), side="right")) - 1].id
            raise ValueError(
                f"`rows` has {int(is_bad.sum())} of {len(is_bad)} rows that are not finite, the first belongs to "
                f"clip {name!r}. Check the weights: the encoder gave NaN or infinity"
                + (", or values beyond half precision." if self.rows.dtype == np.float16 else ".")
            )

    @property
    def starts(self) -> np.ndarray:
        """(N,) row at which each clip begins."""
        return np.cumsum(self.lengths) - self.lengths

    def clip_means(self) -> np.ndarray:
        """(N, D') float32 mean over the rows of each clip."""
        sums = np.add.reduceat(self.rows, self.starts, axis=0, dtype=np.float64)
        lengths = self.lengths.reshape(-1, *[1] * (self.rows.ndim - 1))
        return (sums / lengths).astype(np.float32)


def stored_features(
    kind: str,
    encoder: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    options: AudioOptions,
    compute: Callable[[], FrozenFeatures],
    *,
    cache_dir: str | Path | None,
    about: Mapping[str, object],
) -> FrozenFeatures:
    """What `compute` gives, read from `cache_dir` if it was computed before.

    Args:
        kind: of the features; the file's name begins with it.
        encoder: its weights and configuration are part of the key.
        processor: holds the feature extractor, or is it.
        records: map-style sequence of `Record`.
        options: the rules for long and for bad clips.
        compute: encodes all clips.
        cache_dir: folder of stored features; made if missing. None stores nothing.
        about: what else the values depend on, ready for JSON.

    Raises:
        ValueError: if a stored file cannot be read.
    """
    if cache_dir is None:
        return compute()
    key, plain_records = _key(encoder, processor, records, options, about)
    path = Path(cache_dir) / f"{kind}-{key}.safetensors"
    if path.is_file():
        return _read(path, plain_records)
    found = compute()
    _write(path, found)
    return found


def _key(
    encoder: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    options: AudioOptions,
    about: Mapping[str, object],
) -> tuple[str, list[Record]]:
    """(24 hexadecimal digits, the records without their audio)."""
    about = {
        **about,
        "package": package_version(),
        "reading": [longest_seconds(processor, options), options.long_audio, options.on_bad_example],
        "max_bad_fraction": options.max_bad_fraction,
        "encoder": type(encoder).__name__,
        "config": {name: value for name, value in encoder.config.to_dict().items() if not name.startswith("_")},
        "feature_extractor": feature_extractor_of(processor).to_dict(),
        "left_out_before": list(getattr(records, "skipped", ())),
    }
    digest = sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for name, values in encoder.state_dict().items():
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    plain_records = []
    for index in range(len(records)):
        record = records[index]
        digest.update(f"{record.id} {record.sampling_rate}".encode() + sha256(_content(record.audio)).digest())
        plain_records.append(replace(record, audio=None))
    return digest.hexdigest()[:24], plain_records


def _content(audio: str | Path | bytes | np.ndarray | None) -> bytes:
    """What tells a sound from others; a file is not opened."""
    if isinstance(audio, np.ndarray):
        return audio.dtype.str.encode() + audio.tobytes()
    if isinstance(audio, bytes):
        return audio
    if audio is None or not Path(audio).is_file():
        return f"{audio}".encode()
    status = Path(audio).stat()
    return f"{audio} {status.st_size} {status.st_mtime_ns}".encode()


def _write(path: Path, features: FrozenFeatures) -> None:
    """Writes under another name first: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    tensors = {
        "rows": features.rows,
        "lengths": features.lengths,
        "indices": features.indices,
        "durations": np.array([record.duration for record in features.records]),
    }
    if features.rates_hz is not None:
        tensors["rates_hz"] = features.rates_hz
    save_file(tensors, unfinished, {"skipped": json.dumps(features.skipped)})
    unfinished.replace(path)


def _read(path: Path, records: Sequence[Record]) -> FrozenFeatures:
    try:
        with safe_open(path, framework="np") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
            skipped = json.loads(stored.metadata()["skipped"])
    except SafetensorError as error:
        raise ValueError(f"`cache_dir` holds '{path}', which cannot be read: {error}. Delete this file.") from error
    indices, durations = tensors["indices"], tensors["durations"]
    kept = [replace(records[i], duration=float(d)) for i, d in zip(indices, durations, strict=True)]
    return FrozenFeatures(tensors["rows"], tensors["lengths"], indices, kept, skipped, tensors.get("rates_hz"))


__all__ = ["FrozenFeatures", "stored_features"]

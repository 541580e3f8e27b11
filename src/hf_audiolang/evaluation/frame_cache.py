# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Frozen frames of clips, computed once: what probes are trained on.

    records -> waveforms -> feature extractor -> audio encoder in evaluation mode -> frames (T'_i, D') of each clip
            -> one array (sum of T'_i, D') without padding -> cache_dir/frames-KEY.safetensors -> next time from there

KEY is a SHA-256 over all that the values depend on: weights, configuration and feature extractor, this package's
version, the rules of `AudioOptions`, and the clips: the samples of arrays, the bytes of encoded sounds, and path, size
and time of change of files. So a changed model or clip is encoded anew, and nothing has to be deleted by hand.
"""

import json
import os
from collections.abc import Sequence
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
from .embed import (
    AudioOptions,
    RecordReader,
    audio_inputs,
    batches_by_length,
    evaluation_mode,
    longest_seconds,
    split_waveform,
)
from .results import package_version


@dataclass(frozen=True)
class FrameFeatures:
    """Final frames of the readable clips of a data set, in its order.

    Attributes:
        frames: (M, D') float32 or float16, M the sum of `lengths`: clip after clip, as the encoder gave them.
        lengths: (N,) real frames of each clip.
        indices: (N,) positions of these clips in the data set.
        records: N records without their audio: ids, captions, labels, events.
        skipped: one message per clip that was left out.

    Raises:
        ValueError: if numbers do not fit together, a clip has no frame, or a frame is not finite.
    """

    frames: np.ndarray
    lengths: np.ndarray
    indices: np.ndarray
    records: list[Record]
    skipped: list[str]

    def __post_init__(self):
        if self.frames.ndim != 2 or len(self.frames) != self.lengths.sum() or len(self.lengths) != len(self.records):
            raise ValueError(
                f"`frames` must be (M, D') with M the sum of one length per record, got {self.frames.shape}, lengths "
                f"that sum to {self.lengths.sum()}, and {len(self.records)} records. Pass all frames of all clips."
            )
        if (self.lengths < 1).any():
            name = self.records[int((self.lengths < 1).argmax())].id
            raise ValueError(f"Clip {name!r} has no frame, got 0. Leave it out: it is too short for the encoder.")
        is_bad = ~np.isfinite(self.frames).all(axis=1)  # (M,)
        if is_bad.any():
            name = self.records[int(np.searchsorted(self.starts, is_bad.argmax(), side="right")) - 1].id
            raise ValueError(
                f"`frames` has {int(is_bad.sum())} of {len(is_bad)} rows that are not finite, the first belongs to "
                f"clip {name!r}. Check the weights: the encoder gave NaN or infinity"
                + (", or values beyond half precision." if self.frames.dtype == np.float16 else ".")
            )

    @property
    def starts(self) -> np.ndarray:
        """(N,) row of `frames` at which each clip begins."""
        return np.cumsum(self.lengths) - self.lengths

    def clip_means(self) -> np.ndarray:
        """(N, D') float32 mean over the frames of each clip."""
        sums = np.add.reduceat(self.frames, self.starts, axis=0, dtype=np.float64)
        return (sums / self.lengths[:, None]).astype(np.float32)


def frame_features(
    model: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    options: AudioOptions | None = None,
    cache_dir: str | Path | None = None,
    *,
    half_precision: bool = False,
) -> FrameFeatures:
    """Final frames that the audio encoder gives for each clip, before any projection, padding left out.

    A clip over the limit is cut by the rule of `options.long_audio`; the frames of its pieces follow each other. What
    the feature extractor fills a short clip up with counts as real where the encoder's `frame_mask` says so.

    Args:
        model: a system or a captioner, whose `audio_model` is asked, or an audio encoder; weights and modes stay as
            they are.
        processor: holds the model's feature extractor, or is it.
        records: map-style sequence of `Record`.
        options: batching, the rule for long clips and the rule for bad ones.
        cache_dir: folder of stored frames; made if missing. None stores nothing.
        half_precision: round to float16, in memory and on disk: half the space, three digits.

    Raises:
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if no clip is readable, a frame is not finite, or a stored file cannot be read.
    """
    options = options or AudioOptions()
    system = getattr(model, "base_model", model)  # of a captioner
    encoder = getattr(system, "audio_model", system)
    dtype = np.float16 if half_precision else np.float32
    if cache_dir is None:
        return _encoded(encoder, processor, records, options, dtype)
    key, plain_records = _key(encoder, processor, records, options, dtype)
    path = Path(cache_dir) / f"frames-{key}.safetensors"
    if path.is_file():
        return _read(path, plain_records)
    found = _encoded(encoder, processor, records, options, dtype)
    _write(path, found)
    return found


def _encoded(
    encoder: nn.Module, processor: AudioProcessor, records: Sequence[Record], options: AudioOptions, dtype: type
) -> FrameFeatures:
    sampling_rate = feature_extractor_of(processor).sampling_rate
    reader = RecordReader(records, sampling_rate, options)
    longest = longest_seconds(processor, options)
    max_samples = None if longest is None else int(longest * sampling_rate)
    pieces = (
        ((index, number), piece)
        for index, waveform in reader
        for number, piece in enumerate(split_waveform(waveform, max_samples, options))
    )
    found: dict[tuple[int, int], np.ndarray] = {}  # (dataset index, number of the piece) -> (T', D')
    with evaluation_mode(encoder):
        for batch in batches_by_length(pieces, int(options.batch_seconds * sampling_rate)):
            output = encoder(**audio_inputs(encoder, processor, [piece for _, piece in batch]))
            features = output.frame_features.float().cpu().numpy()  # (B, T', D')
            is_real = output.frame_mask.cpu().numpy().astype(bool)  # (B, T')
            for (place, _), frames, kept in zip(batch, features, is_real, strict=True):
                found[place] = frames[kept].astype(dtype)
    reader.check_any_read()
    indices = sorted(reader.records)
    lengths = dict.fromkeys(indices, 0)
    for (index, _), frames in found.items():
        lengths[index] += len(frames)
    return FrameFeatures(
        np.concatenate([found[place] for place in sorted(found)]), np.array(list(lengths.values())),
        np.array(indices), [reader.records[index] for index in indices], reader.skipped,
    )  # fmt: skip


def _key(
    encoder: nn.Module, processor: AudioProcessor, records: Sequence[Record], options: AudioOptions, dtype: type
) -> tuple[str, list[Record]]:
    """(24 hexadecimal digits, the records without their audio)."""
    about = {
        "package": package_version(),
        "precision": np.dtype(dtype).name,
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


def _write(path: Path, features: FrameFeatures) -> None:
    """Writes under another name first: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    tensors = {
        "frames": features.frames,
        "lengths": features.lengths,
        "indices": features.indices,
        "durations": np.array([record.duration for record in features.records]),
    }
    save_file(tensors, unfinished, {"skipped": json.dumps(features.skipped)})
    unfinished.replace(path)


def _read(path: Path, records: Sequence[Record]) -> FrameFeatures:
    try:
        with safe_open(path, framework="np") as stored:
            tensors = {name: stored.get_tensor(name) for name in ("frames", "lengths", "indices", "durations")}
            skipped = json.loads(stored.metadata()["skipped"])
    except SafetensorError as error:
        raise ValueError(f"`cache_dir` holds '{path}', which cannot be read: {error}. Delete this file.") from error
    indices, durations = tensors["indices"], tensors["durations"]
    kept = [replace(records[i], duration=float(d)) for i, d in zip(indices, durations, strict=True)]
    return FrameFeatures(tensors["frames"], tensors["lengths"], indices, kept, skipped)


__all__ = ["FrameFeatures", "frame_features"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sound files to mono waveforms: crop -> decode -> mean of the channels -> resample.

soundfile reads WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF and more; only what it cannot open (M4A, MP4, AAC, WebM)
goes to torchcodec, an optional extra. Every error names the file.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch

from hf_audiolang.models.feature_extraction_log_mel import is_cut_off

from .records import Record

if TYPE_CHECKING:
    from torchcodec.decoders import AudioDecoder

# Our choice: torchaudio's default of 6 zero crossings lets a tone 6 % above the new Nyquist frequency through at
# -11 dB; with 32 it is at -50 dB and the pass band is flat to 94 % of Nyquist, at nearly the same cost.
RESAMPLE_FILTER_WIDTH = 32

CODEC_SUFFIXES = frozenset({".m4a", ".mp4", ".aac", ".webm", ".mkv", ".mka", ".mov", ".wma", ".3gp", ".m4b", ".ac3"})
_INTEGER_SCALE = {"int16": 2.0**15, "int32": 2.0**31}
_CODEC_SLACK_SECONDS = 0.25  # compressed containers round their length to packets


class AudioError(ValueError):
    """A sound that cannot be used; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a sound file says; `num_samples` counts per channel, `duration` is in seconds."""

    sampling_rate: int
    num_channels: int
    num_samples: int
    duration: float


def audio_info(source: str | Path | bytes, *, name: str | None = None) -> AudioInfo:
    """The header of a sound file, without decoding it.

    Args:
        source: path, or the encoded file as bytes.
        name: what messages call the source; its path by default.

    Raises:
        AudioError: if the file is missing, empty, unreadable, visibly truncated, or holds no samples.
    """
    name = name or _name_of(source)
    _check_source(source, name)
    if _needs_codec(source):
        return _codec_info(_codec_decoder(source, name), name)
    with _open(source, name) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.frames / file.samplerate)


def load_audio(
    source: str | Path | bytes,
    sampling_rate: int,
    *,
    offset_seconds: float = 0.0,
    duration_seconds: float | None = None,
    name: str | None = None,
) -> np.ndarray:
    """The waveform of a sound file, or of a piece of it: only that piece is decoded.

    The piece is cut in the file's own samples and then resampled, so its first and last 32 output samples
    hear silence outside.

    Args:
        source: path, or the encoded file as bytes.
        sampling_rate: Hz of the result.
        offset_seconds: start of the piece.
        duration_seconds: length of the piece; None or more than there is reads to the end.
        name: what messages call the source; its path by default.

    Returns:
        (S,) float32 mono, S <= round(duration_seconds * sampling_rate).

    Raises:
        AudioError: if the file is missing, empty, unreadable, truncated, holds no samples, NaN or infinite
            values, or ends before `offset_seconds`.
    """
    name = name or _name_of(source)
    _check_source(source, name)
    _check_piece(offset_seconds, duration_seconds)
    if _needs_codec(source):
        waveform, source_rate = _codec_read(source, name, offset_seconds, duration_seconds)
    else:
        waveform, source_rate = _soundfile_read(source, name, offset_seconds, duration_seconds)
    waveform = check_waveform(waveform, name)
    return _to_rate(waveform, source_rate, sampling_rate, duration_seconds)


def record_waveform(
    record: Record, sampling_rate: int, offset_seconds: float = 0.0, duration_seconds: float | None = None
) -> np.ndarray:
    """(S,) float32 mono waveform of a record, or of a piece of it, at `sampling_rate`.

    Raises:
        AudioError: as `load_audio`; also for a record without audio or an array without sampling rate.
    """
    name = record.id or "audio"
    if record.audio is None:
        raise AudioError(f"`{name}` has no audio, got None. Give a path, bytes or an array.")
    if not isinstance(record.audio, np.ndarray):
        return load_audio(
            record.audio,
            sampling_rate,
            offset_seconds=offset_seconds,
            duration_seconds=duration_seconds,
            name=None if isinstance(record.audio, str | Path) else name,
        )
    if not record.sampling_rate:
        raise AudioError(f"`sampling_rate` of the array of `{name}` is {record.sampling_rate}. Give its rate in Hz.")
    _check_piece(offset_seconds, duration_seconds)
    start, num_samples = _piece(len(record.audio), record.sampling_rate, offset_seconds, duration_seconds, name)
    waveform = check_waveform(record.audio[start : start + num_samples], name)
    return _to_rate(waveform, record.sampling_rate, sampling_rate, duration_seconds)


def check_waveform(array: np.ndarray, name: str) -> np.ndarray:
    """(S,) float32 form of a mono waveform; int16 and int32 are scaled to [-1, 1).

    Raises:
        AudioError: if it is not one-dimensional, empty, of no audio type, or holds NaN or infinite values.
    """
    array = np.asarray(array)
    if array.ndim != 1:
        raise AudioError(f"`{name}` has shape {array.shape}. Give a mono waveform of shape (samples,).")
    if array.size == 0:
        raise AudioError(f"`{name}` holds 0 samples. Remove it, or record it again.")
    if array.dtype.name in _INTEGER_SCALE:
        return array.astype(np.float32) / np.float32(_INTEGER_SCALE[array.dtype.name])
    if not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"`{name}` has samples of type {array.dtype}. Give float32 in [-1, 1], int16 or int32.")
    if not np.isfinite(array).all():
        raise AudioError(f"`{name}` holds NaN or infinite samples. Remove it, or write it again from its source.")
    return array.astype(np.float32, copy=False)


def resample(waveform: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """(S,) float32 at `source_rate` Hz -> (ceil(S * target_rate / source_rate),) float32 at `target_rate` Hz.

    Windowed sinc of torchaudio with 32 zero crossings; the filter of a pair of rates is built once per process.
    """
    if source_rate == target_rate:
        return waveform
    divisor = math.gcd(source_rate, target_rate)
    module = _resampler(source_rate // divisor, target_rate // divisor)
    with torch.no_grad():
        return module(torch.from_numpy(np.ascontiguousarray(waveform))).numpy()


@lru_cache(maxsize=64)
def _resampler(source_rate: int, target_rate: int) -> torch.nn.Module:
    import torchaudio

    return torchaudio.transforms.Resample(source_rate, target_rate, lowpass_filter_width=RESAMPLE_FILTER_WIDTH)


def _to_rate(waveform: np.ndarray, source_rate: int, target_rate: int, duration_seconds: float | None) -> np.ndarray:
    """Resampled waveform, cut to the number of samples that `duration_seconds` has at the new rate."""
    waveform = resample(waveform, source_rate, target_rate)
    if duration_seconds is None:
        return waveform
    return waveform[: max(1, round(duration_seconds * target_rate))]


def _name_of(source: str | Path | bytes) -> str:
    return f"{len(source)} bytes of audio" if isinstance(source, bytes) else str(source)


def _check_source(source: str | Path | bytes, name: str) -> None:
    if isinstance(source, bytes):
        num_bytes = len(source)
    elif not Path(source).exists():
        raise AudioError(f"`{name}` does not exist. Correct the path, or remove the row that names it.")
    elif not Path(source).is_file():
        raise AudioError(f"`{name}` is a folder, not a sound file. Give the path of a file.")
    else:
        num_bytes = Path(source).stat().st_size
    if num_bytes == 0:
        raise AudioError(f"`{name}` is empty (0 bytes). Copy it again from its source, or remove it.")


def _check_piece(offset_seconds: float, duration_seconds: float | None) -> None:
    if not (math.isfinite(offset_seconds) and offset_seconds >= 0):
        raise ValueError(f"`offset_seconds` is {offset_seconds}. Give 0 or a positive number of seconds.")
    if duration_seconds is not None and not duration_seconds > 0:
        raise ValueError(f"`duration_seconds` is {duration_seconds}. Give a positive number of seconds, or None.")


def _piece(
    num_samples: int, sampling_rate: int, offset_seconds: float, duration_seconds: float | None, name: str
) -> tuple[int, int]:
    """(first sample, number of samples) of a piece; floor and ceil keep offset + duration <= end inside the file."""
    if num_samples == 0:
        raise AudioError(f"`{name}` holds 0 samples. Remove it, or record it again.")
    start = math.floor(offset_seconds * sampling_rate + 1e-6)
    if start >= num_samples:
        raise AudioError(
            f"`{name}` is {num_samples / sampling_rate:.3f} s long but `offset_seconds` is {offset_seconds}. "
            "Start before its end."
        )
    if duration_seconds is None:
        return start, num_samples - start
    return start, min(max(1, math.ceil(duration_seconds * sampling_rate - 1e-6)), num_samples - start)


def _open(source: str | Path | bytes, name: str) -> soundfile.SoundFile:
    """Opened file with at least one sample whose header agrees with its size."""
    try:
        file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"`{name}` is not a readable sound file ({error.error_string}). "
            "Copy it again from its source, convert it to WAV or FLAC, or remove it."
        ) from error
    if is_cut_off(file):
        file.close()
        raise AudioError(f"`{name}` is truncated: it ends before its header says. Copy it again from its source.")
    if file.frames <= 0:
        file.close()
        raise AudioError(f"`{name}` holds 0 samples. Remove it, or record it again.")
    return file


def _soundfile_read(
    source: str | Path | bytes, name: str, offset_seconds: float, duration_seconds: float | None
) -> tuple[np.ndarray, int]:
    """((S,) float32, its rate): seek, decode the piece, average the channels."""
    with _open(source, name) as file:
        start, num_samples = _piece(file.frames, file.samplerate, offset_seconds, duration_seconds, name)
        try:
            if start:
                file.seek(start)
            samples = file.read(num_samples, dtype="float32", always_2d=True)  # (S, channels)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"`{name}` is truncated or damaged ({error.error_string}). Copy it again, or remove it."
            ) from error
        if is_cut_off(file, num_samples - len(samples)):
            raise AudioError(
                f"`{name}` is truncated: {len(samples)} of {num_samples} samples could be decoded. "
                "Copy it again from its source, or remove it."
            )
        rate = file.samplerate
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1), rate


def _needs_codec(source: str | Path | bytes) -> bool:
    """True for the containers that soundfile cannot open, told by suffix or, for bytes, by the MP4 signature."""
    if isinstance(source, bytes):
        return source[4:8] == b"ftyp"
    return Path(source).suffix.lower() in CODEC_SUFFIXES


def _codec_decoder(source: str | Path | bytes, name: str) -> AudioDecoder:
    try:
        from torchcodec.decoders import AudioDecoder
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError, OSError: torchcodec without FFmpeg
        raise AudioError(
            f"`{name}` needs a decoder that is not installed ({type(error).__name__}). Install FFmpeg and the extra: "
            "pip install 'hf-audiolang[codecs]', or convert the file to WAV, FLAC, OGG or MP3."
        ) from error
    try:
        return AudioDecoder(source if isinstance(source, bytes) else str(source), num_channels=1)
    except (RuntimeError, ValueError) as error:
        raise AudioError(
            f"`{name}` is not a readable sound file ({_first_line(error)}). Copy it again, or remove it."
        ) from error


def _codec_info(decoder: AudioDecoder, name: str) -> AudioInfo:
    metadata = decoder.metadata
    duration = float(metadata.duration_seconds or 0.0)
    if not duration:
        raise AudioError(f"`{name}` holds 0 samples. Remove it, or record it again.")
    rate = int(metadata.sample_rate)
    return AudioInfo(rate, int(metadata.num_channels), round(duration * rate), duration)


def _codec_read(
    source: str | Path | bytes, name: str, offset_seconds: float, duration_seconds: float | None
) -> tuple[np.ndarray, int]:
    decoder = _codec_decoder(source, name)
    info = _codec_info(decoder, name)
    start, num_samples = _piece(info.num_samples, info.sampling_rate, offset_seconds, duration_seconds, name)
    stop_seconds = None if duration_seconds is None else (start + num_samples) / info.sampling_rate
    try:
        samples = decoder.get_samples_played_in_range(start / info.sampling_rate, stop_seconds)
    except (RuntimeError, ValueError) as error:
        raise AudioError(
            f"`{name}` is truncated or damaged ({_first_line(error)}). Copy it again from its source, or remove it."
        ) from error
    if num_samples - samples.data.shape[-1] > _CODEC_SLACK_SECONDS * info.sampling_rate:
        raise AudioError(
            f"`{name}` is truncated: {samples.data.shape[-1]} of {num_samples} samples could be decoded. "
            "Copy it again from its source, or remove it."
        )
    return samples.data.mean(dim=0).numpy(), info.sampling_rate


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


__all__ = [
    "RESAMPLE_FILTER_WIDTH",
    "CODEC_SUFFIXES",
    "AudioError",
    "AudioInfo",
    "audio_info",
    "load_audio",
    "record_waveform",
    "check_waveform",
    "resample",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Waveforms to normalised log-mel features: one class whose numbers are its presets.

audio (array, tensor, dict, decoder, path; any length) -> mono (S,), first `max_seconds`, at least one window
-> log-mel (T, F) of each clip, edges made from its own samples -> (x - mean) / std -> padded batch and frame mask
"""

import copy
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from numbers import Number
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import PaddingStrategy, TensorType, logging

from .layers_log_mel import EDGES, LOG_RULES, LOGS, WINDOWS, LogMelNumbers, frame_mask, log_mel_batch, resample

try:
    import soundfile
except (ImportError, OSError):  # not installed, or without its C library: only file paths need it
    soundfile = None

logger = logging.get_logger(__name__)

MAX_CHANNELS = 16  # a two-dimensional clip has at most this many channels: the shorter axis
FILLS = ("zeros", "repeat")
OGG_WITHOUT_END = ("without an End-Of-Stream", "lacks an end-of-stream")  # in libsndfile's log
STREAM_SIZE = 2**31 - 2**16  # writers that cannot seek back put a size near 2^31 or 2^32: not a truncated file
MP3_SLACK = 2 * 1152  # samples: an MP3 length without header is exact to about two frames
EPS = 1.1920929e-07  # float32 machine epsilon, the floor of Kaldi and of the M2D runtime
KALDI = {
    "sampling_rate": 16000,
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "f_min": 20.0,
    "mel_scale": "kaldi",
    "mel_norm": None,
    "log": "ln",
    "log_floor": EPS,
    "log_rule": "clamp",
    "preemphasis": 0.97,
    "remove_dc": True,
}
CENTERED = {"mel_scale": "slaney", "mel_norm": "slaney", "window_type": "hann", "edges": "reflect"} | {
    "preemphasis": 0.0,
    "remove_dc": False,
    "std_scale": 1.0,
}
PRESETS: dict[str, dict] = {
    # SLAP 3.2: 16 kHz, 25 ms Hann / 10 ms, 64 bins, up to 30 s. Our choice: the filter bank is Kaldi's as in AST and
    # AudioMAE (the paper's wording), the statistics are measured, and std holds twice the deviation as in AST.
    "slap": KALDI
    | {"feature_size": 64, "f_max": 8000.0, "window_type": "hann_symmetric", "edges": "snip"}
    | {"mean": None, "std": None, "std_scale": 2.0, "max_seconds": 30.0},
    # M2D-CLAP IV-A and its authors' runtime (nnAudio): 25/10 ms, 80 bins 50-8000 Hz, statistics of the 2025 weights.
    "m2d_clap": CENTERED
    | {"feature_size": 80, "sampling_rate": 16000, "n_fft": 400, "win_length": 400, "hop_length": 160}
    | {"f_min": 50.0, "f_max": 8000.0, "log": "ln", "log_floor": EPS, "log_rule": "add"}
    | {"mean": -7.261779308319092, "std": 4.3511505126953125, "max_seconds": None},
    # MGA-CLAP 4.1 and its settings files (torchlibrosa): 32 kHz, 1024/320, 64 bins 50-14000 Hz, dB; its batch norm is
    # in the model. Every clip is filled to 10 s (our choice: batch mates must not change a clip).
    "mga_clap": CENTERED
    | {"feature_size": 64, "sampling_rate": 32000, "n_fft": 1024, "win_length": 1024, "hop_length": 320}
    | {"f_min": 50.0, "f_max": 14000.0, "log": "db", "log_floor": 1e-10, "log_rule": "clamp"}
    | {"mean": 0.0, "std": 1.0, "min_seconds": 10.0, "max_seconds": 10.0},
    # CaptionStew's Zipformer (lhotse, icefall): Kaldi 80 bins 20-7600 Hz, povey window, no snip_edges, not normalised;
    # padded frames are log(1e-10); the encoder needs 9 frames, 1360 samples.
    "captionstew": KALDI
    | {"feature_size": 80, "f_max": 7600.0, "window_type": "povey", "edges": "mirror"}
    | {"mean": 0.0, "std": 1.0, "std_scale": 1.0, "min_seconds": 0.085, "max_seconds": 30.0}
    | {"padding_value": -23.025850929940457},
    # transformers' ClapFeatureExtractor with truncation="rand_trunc": 48 kHz, 1024/480, 64 bins 0-14000 Hz, dB.
    "clap": CENTERED
    | {"feature_size": 64, "sampling_rate": 48000, "n_fft": 1024, "win_length": 1024, "hop_length": 480}
    | {"f_min": 0.0, "f_max": 14000.0, "log": "db", "log_floor": 1e-10, "log_rule": "clamp"}
    | {"mean": 0.0, "std": 1.0, "max_seconds": 10.0},
}


# A decoder is anything with torchcodec's `get_all_samples() -> object with data (C, S) and sample_rate`.
AudioSource = np.ndarray | Tensor | Sequence[float] | Mapping | str | Path | object


class LogMelFeatureExtractor(SequenceFeatureExtractor):
    r"""Log-mel features of audio clips with a frame mask; every difference between systems is a number.

    ```python
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap")
    clips = [np.random.default_rng(0).normal(0, 0.1, n) for n in (16000, 24000)]
    batch = extractor(clips, sampling_rate=16000, return_tensors="pt")
    batch["input_features"].shape  # (2, 151, 80)
    batch["input_features_mask"].sum(1)  # 101 and 151 frames
    ```

    The default numbers are those of the preset `"slap"`. A clip's features never depend on its batch mates, and
    nothing is random. Computation is in float32 whatever the autocast state, on the device asked for.

    Args:
        feature_size: number of mel bins F.
        sampling_rate: samples per second the extractor works at.
        padding_value: value of padded frames, after normalisation.
        n_fft: points of the Fourier transform.
        win_length: samples of the analysis window (centred in `n_fft` with centred frames, at its start otherwise).
        hop_length: samples between frames.
        window_type: `"hann"`, `"hann_symmetric"`, `"hamming"`, `"hamming_symmetric"` or `"povey"`.
        f_min: lower edge of the first mel filter, Hz.
        f_max: upper edge of the last mel filter, Hz.
        mel_scale: `"slaney"`, `"htk"` or `"kaldi"`.
        mel_norm: `"slaney"` or None.
        log: `"ln"`, `"log10"` or `"db"`.
        log_floor: power clamped at, or added, before the logarithm.
        log_rule: `"clamp"` or `"add"`.
        preemphasis: coefficient c of x[t] - c * x[t - 1] inside a frame; 0 for none.
        remove_dc: subtract each frame's mean first.
        edges: `"snip"`, `"mirror"`, `"reflect"` or `"zeros"`: see `LogMelNumbers`.
        mean: subtracted from the logarithms; None while the statistics are not measured.
        std: divides them; None while not measured.
        std_scale: `set_statistics` stores `std_scale` times the measured deviation.
        padding: how a clip shorter than `min_seconds` (or than one window) is filled: `"zeros"` or `"repeat"`.
        min_seconds: shorter clips are filled up to this; the filling counts as real frames.
        max_seconds: longer clips are cut to their first `max_seconds`; None for no limit.

    Raises:
        ValueError: for numbers that contradict each other or names that do not exist.
    """

    model_input_names = ["input_features", "input_features_mask"]

    def __init__(
        self,
        feature_size: int = 64,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        n_fft: int = 512,
        win_length: int = 400,
        hop_length: int = 160,
        window_type: str = "hann_symmetric",
        f_min: float = 20.0,
        f_max: float = 8000.0,
        mel_scale: str = "kaldi",
        mel_norm: str | None = None,
        log: str = "ln",
        log_floor: float = EPS,
        log_rule: str = "clamp",
        preemphasis: float = 0.97,
        remove_dc: bool = True,
        edges: str = "snip",
        mean: float | None = None,
        std: float | None = None,
        std_scale: float = 2.0,
        padding: str = "zeros",
        min_seconds: float = 0.0,
        max_seconds: float | None = 30.0,
        **kwargs,
    ):
        # The mask of frames is `input_features_mask`; the inherited `pad` must not add an `attention_mask` unasked.
        kwargs.setdefault("return_attention_mask", False)
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.n_fft = n_fft
        self.win_length = win_length
        self.hop_length = hop_length
        self.window_type = window_type
        self.f_min = f_min
        self.f_max = f_max
        self.mel_scale = mel_scale
        self.mel_norm = mel_norm
        self.log = log
        self.log_floor = log_floor
        self.log_rule = log_rule
        self.preemphasis = preemphasis
        self.remove_dc = remove_dc
        self.edges = edges
        self.mean = mean
        self.std = std
        self.std_scale = std_scale
        self.padding = padding
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds
        self._check_numbers()

    @classmethod
    def from_preset(cls, name: str, **numbers) -> "LogMelFeatureExtractor":
        """The extractor of a published system, with single numbers replaced by `numbers`.

        Args:
            name: one of `"slap"`, `"m2d_clap"`, `"mga_clap"`, `"captionstew"`, `"clap"`.
            **numbers: constructor arguments that differ from the preset.

        Raises:
            ValueError: if the preset does not exist.
        """
        if name not in PRESETS:
            raise ValueError(f"Unknown preset `name` {name!r}. Choose one of {sorted(PRESETS)}.")
        return cls(**(PRESETS[name] | numbers))

    def _check_numbers(self) -> None:
        names = {"window_type": WINDOWS, "log": tuple(LOGS), "log_rule": LOG_RULES, "edges": EDGES, "padding": FILLS}
        names |= {"mel_scale": ("slaney", "htk", "kaldi"), "mel_norm": ("slaney", None)}
        for field, allowed in names.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"Unknown `{field}` {getattr(self, field)!r}. Choose one of {list(allowed)}.")
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError(
                "`hop_length`, `win_length` and `n_fft` must satisfy 0 < hop_length <= win_length <= n_fft, got "
                f"{self.hop_length}, {self.win_length} and {self.n_fft}. Enlarge `n_fft` or shorten the others."
            )
        if not 0 <= self.f_min < self.f_max <= self.sampling_rate / 2:
            raise ValueError(
                f"`f_min` and `f_max` must satisfy 0 <= f_min < f_max <= {self.sampling_rate / 2} Hz, got "
                f"{self.f_min} and {self.f_max}. Choose `f_max` up to half the `sampling_rate`."
            )
        if (self.mean is None) != (self.std is None) or (self.std is not None and not self.std > 0):
            raise ValueError(
                f"`mean` and `std` must both be None or both be numbers with std > 0, got {self.mean} and {self.std}. "
                "Measure them with `measure_statistics`."
            )
        if self.max_seconds is not None and not 0 <= self.min_seconds <= self.max_seconds:
            raise ValueError(
                f"`min_seconds` must lie between 0 and `max_seconds` = {self.max_seconds}, got {self.min_seconds}. "
                "Enlarge `max_seconds`, or set it to None for no limit."
            )

    @property
    def numbers(self) -> LogMelNumbers:
        """The numbers that fix the unnormalised spectrogram."""
        fields = {name: getattr(self, name) for name in LogMelNumbers.__dataclass_fields__ if name != "num_mel_bins"}
        return LogMelNumbers(num_mel_bins=self.feature_size, **fields)

    @property
    def is_measured(self) -> bool:
        """Whether mean and standard deviation are known; features are not normalised otherwise."""
        return self.mean is not None

    def set_statistics(self, mean: float, std: float) -> None:
        """Stores the mean and `std_scale` times the standard deviation of unnormalised features."""
        self.mean, self.std = float(mean), float(std) * self.std_scale
        self._check_numbers()

    def num_frames(self, num_samples: int) -> int:
        """T of a clip of `num_samples` samples, after filling to `min_seconds` and cutting to `max_seconds`."""
        numbers, limit = self.numbers, self._limit(None, None)
        kept = num_samples if limit is None else min(num_samples, limit)
        return numbers.num_frames(max(kept, self._min_samples(numbers)))

    def __call__(
        self,
        waveforms: AudioSource | Sequence[AudioSource],
        sampling_rate: int | None = None,
        *,
        padding: bool | str | PaddingStrategy = True,
        truncation: bool = True,
        max_length: int | None = None,
        max_seconds: float | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | TensorType | None = None,
        device: str | torch.device | None = None,
    ) -> BatchFeature:
        """Log-mel features of one clip or of a list of clips of any lengths.

        Args:
            waveforms: one clip or several. A clip is a (S,) array, tensor or list of floats in [-1, 1], or of int16 or
                int32 samples, which are scaled to that range; the same with a channel axis, first or last (the
                shorter one, at most 16), which is averaged; a dict with `"array"` (or `"raw"`) and
                `"sampling_rate"`, or with the `"bytes"` or `"path"` of a sound file; a torchcodec decoder; or a path.
                Files and decoders of another rate are resampled. A (B, S) array or tensor is a batch of mono clips,
                unless its second axis is the shorter one and at most 16: then it is one clip (S, C). Put a clip
                (C, S) into a list.
            sampling_rate: rate of arrays that do not carry their own.
            padding: True or `"longest"` pads to the longest clip, `"max_length"` to the limit below, False returns a
                list of (T, F) arrays (or needs clips of equal length with `return_tensors`).
            truncation: False keeps clips longer than the limit.
            max_length: limit in samples, instead of `max_seconds`.
            max_seconds: limit in seconds, instead of the extractor's own.
            pad_to_multiple_of: round the padded number of frames up to a multiple.
            return_attention_mask: False leaves `input_features_mask` out.
            return_tensors: `"pt"` or `"np"`; None gives numpy arrays too.
            device: where to compute and, with `"pt"`, where the result stays. None: the device of a tensor given,
                otherwise the CPU.

        Returns:
            `input_features` (B, T, F) float32, padded frames equal to `padding_value`, and `input_features_mask`
            (B, T) bool, True at the clip's frames.

        Raises:
            ValueError: for another sampling rate, an empty clip, NaN or infinite samples, unreadable files; the
                message names the clip's index or file.
            FileNotFoundError: if a path does not exist.
            TypeError: for something that is not audio.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` must be {self.sampling_rate} Hz, the rate of this feature extractor, got "
                f"{sampling_rate}. Resample the audio, or pass file paths or decoders, which are resampled here."
            )
        limit = self._limit(max_length, max_seconds)
        clips = _split_batch(waveforms)
        if sampling_rate is None and not all(_carries_rate(clip) for clip in clips):
            logger.warning_once(
                f"`sampling_rate` was not passed to `{type(self).__name__}`: the audio is taken to be "
                f"{self.sampling_rate} Hz. At another rate the features are wrong without any error."
            )
        names = [_name_of(clip, index) for index, clip in enumerate(clips)]
        cut = limit if truncation else None
        tensors = [self._load(clip, name, cut) for clip, name in zip(clips, names, strict=True)]
        device = tensors[0].device if device is None else torch.device(device)

        numbers = self.numbers
        filled = [_fill(tensor, self._min_samples(numbers), self.padding) for tensor in tensors]
        num_frames = [numbers.num_frames(len(tensor)) for tensor in filled]
        max_frames = self._padded_frames(num_frames, padding, limit, pad_to_multiple_of)
        features = torch.empty(len(filled), max_frames, self.feature_size, device=device)  # (B, T, F)
        log_scale, offset = LOGS[self.log], 0.0
        if self.is_measured:
            log_scale, offset = log_scale / self.std, -self.mean / self.std
        checksums = log_mel_batch(
            filled, numbers, features, scale=log_scale, offset=offset, padding_value=self.padding_value
        )
        if not torch.isfinite(checksums.sum()):
            raise _not_finite(tensors, names, checksums)
        return self._to_batch(features, num_frames, padding, return_attention_mask, return_tensors)

    def _limit(self, max_length: int | None, max_seconds: float | None) -> int | None:
        """Samples a clip may have: of the call, otherwise of the extractor."""
        if max_length is not None:
            return max_length
        seconds = self.max_seconds if max_seconds is None else max_seconds
        return None if seconds is None else max(1, round(seconds * self.sampling_rate))

    def _min_samples(self, numbers: LogMelNumbers) -> int:
        return max(numbers.min_samples, round(self.min_seconds * self.sampling_rate))

    def _padded_frames(
        self, num_frames: list[int], padding: bool | str | PaddingStrategy, limit: int | None, multiple: int | None
    ) -> int:
        """T of the batch."""
        max_frames = max(num_frames)
        if _padding_strategy(padding) == PaddingStrategy.MAX_LENGTH:
            if limit is None:
                raise ValueError(
                    "`padding='max_length'` needs a limit, but this feature extractor has `max_seconds=None`. Pass "
                    "`max_seconds` or `max_length`, or `padding=True`."
                )
            numbers = self.numbers
            max_frames = max(max_frames, numbers.num_frames(max(limit, self._min_samples(numbers))))
        return max_frames if multiple is None else math.ceil(max_frames / multiple) * multiple

    def _load(self, clip: AudioSource, name: str, limit: int | None) -> Tensor:
        """(S,) float32 or int16 samples of one clip at the extractor's rate, at most `limit` of them."""
        samples, rate = clip, self.sampling_rate
        if isinstance(clip, Mapping) and ("array" in clip or "raw" in clip):
            samples = clip["array"] if "array" in clip else clip["raw"]
            rate = clip.get("sampling_rate", rate)
            if rate != self.sampling_rate:
                raise ValueError(
                    f"The `sampling_rate` of {name} must be {self.sampling_rate} Hz, got {rate}. Resample it, for "
                    f"example with `dataset.cast_column('audio', Audio(sampling_rate={self.sampling_rate}))`."
                )
        elif isinstance(clip, str | Path | Mapping):
            samples, rate = _read_file(clip, name, None if limit is None else limit / self.sampling_rate)
        elif _is_decoder(clip):
            decoded = clip.get_all_samples()
            samples, rate = decoded.data, int(decoded.sample_rate)
        waveform = _to_mono(samples, name)
        if not len(waveform):
            raise ValueError(f"{name} is empty: 0 samples. Pass at least one sample, or leave the clip out.")
        waveform = resample(waveform, rate, self.sampling_rate)
        return waveform if limit is None else waveform[:limit]

    def _to_batch(
        self,
        features: Tensor,
        num_frames: list[int],
        padding: bool | str | PaddingStrategy,
        return_mask: bool,
        return_tensors: str | TensorType | None,
    ) -> BatchFeature:
        mask = frame_mask(num_frames, features.shape[1], features.device)
        kind = None if return_tensors is None else TensorType(return_tensors)
        values = [features, mask]
        if kind != TensorType.PYTORCH:
            values = [value.cpu().numpy() for value in values]
        if _padding_strategy(padding) == PaddingStrategy.DO_NOT_PAD and kind is None:
            values = [[row[:end] for row, end in zip(value, num_frames, strict=True)] for value in values]
        elif _padding_strategy(padding) == PaddingStrategy.DO_NOT_PAD and len(set(num_frames)) > 1:
            raise ValueError(
                f"`padding=False` with `return_tensors={return_tensors!r}` needs clips of equal length, got "
                f"{num_frames} frames. Pass `padding=True`, or `return_tensors=None` for a list."
            )
        names = self.model_input_names if return_mask is not False else self.model_input_names[:1]
        return BatchFeature(dict(zip(names, values, strict=False)))


def measure_statistics(
    feature_extractor: LogMelFeatureExtractor, waveforms: Iterable[AudioSource], max_clips: int = 5000
) -> tuple[float, float]:
    """Mean and standard deviation of the unnormalised features over all frames and bins of the first clips.

    Args:
        feature_extractor: its own statistics, known or open, play no part.
        waveforms: clips of any accepted kind, read one at a time and at most `max_clips` of them.
        max_clips: 5000 in M2D-CLAP's code for the same purpose.

    Returns:
        Mean and (population) standard deviation, accumulated in float64. Pass both to `set_statistics`.

    Raises:
        ValueError: without clips, or when all values are equal.
    """
    extractor = copy.copy(feature_extractor)
    extractor.mean = extractor.std = None
    count, total, squares = 0, 0.0, 0.0
    shift = None  # first clip's mean: keeps the difference of squares below well conditioned
    for _, waveform in zip(range(max_clips), waveforms, strict=False):
        batch = extractor([waveform], sampling_rate=extractor.sampling_rate, return_tensors="pt")
        values = batch["input_features"][batch["input_features_mask"]].double()  # (T, F)
        shift = float(values.mean()) if shift is None else shift
        values = values - shift
        count += values.numel()
        total += float(values.sum())
        squares += float(values.square().sum())
    variance = squares / count - (total / count) ** 2 if count else 0.0
    if not variance > 0:
        raise ValueError(
            f"`waveforms` must hold sound to measure statistics, got {count} feature values with variance {variance}. "
            "Pass training clips that are not all silent."
        )
    return shift + total / count, math.sqrt(variance)


def _split_batch(waveforms: AudioSource | Sequence[AudioSource]) -> list[AudioSource]:
    """The clips of a batch; a single clip becomes a list of one."""
    if isinstance(waveforms, str | Path | Mapping) or _is_decoder(waveforms):
        return [waveforms]
    if isinstance(waveforms, np.ndarray | Tensor):
        shape = tuple(waveforms.shape)
        is_channels_last = len(shape) == 2 and shape[1] < shape[0] and shape[1] <= MAX_CHANNELS
        clips = [waveforms] if len(shape) == 1 or is_channels_last else list(waveforms) if shape else None
    elif isinstance(waveforms, Sequence):
        is_one_clip = len(waveforms) > 0 and isinstance(waveforms[0], Number)
        clips = [np.asarray(waveforms, dtype=np.float32)] if is_one_clip else list(waveforms)
    else:
        clips = None
    if clips is None:
        raise TypeError(
            f"`waveforms` must be audio or a list of audio, got {type(waveforms).__name__}. Pass arrays, tensors, "
            "dicts with 'array' and 'sampling_rate', decoders or paths."
        )
    if not clips:
        raise ValueError("`waveforms` must hold at least one clip, got none. Leave empty batches out.")
    return clips


def _carries_rate(clip: AudioSource) -> bool:
    if isinstance(clip, Mapping):
        return "sampling_rate" in clip or not ("array" in clip or "raw" in clip)
    return isinstance(clip, str | Path) or _is_decoder(clip)


def _is_decoder(clip: AudioSource) -> bool:
    return hasattr(clip, "get_all_samples")


def _name_of(clip: AudioSource, index: int) -> str:
    """How messages call a clip: by its file, otherwise by its index."""
    path = clip.get("path") if isinstance(clip, Mapping) else clip
    return f"Audio file '{path}'" if isinstance(path, str | Path) else f"`waveforms[{index}]`"


def _to_mono(samples: np.ndarray | Tensor | Sequence[float], name: str) -> Tensor:
    """(S,) tensor of one clip, float32 or int16 (mono only); the copy is saved where the samples allow it."""
    if not isinstance(samples, Tensor):
        array = samples if isinstance(samples, np.ndarray) else np.asarray(samples, dtype=np.float32)
        if array.dtype.kind == "f":
            array = array.astype(np.float32, copy=False)
        samples = torch.from_numpy(np.require(array, requirements=["C", "W"])) if array.dtype.kind in "fiub" else array
    if samples.dtype not in (torch.int16, torch.int32) and not getattr(samples, "is_floating_point", bool)():
        raise TypeError(
            f"{name} must hold float, int16 or int32 samples, got {samples.dtype}. Convert it to float32 in [-1, 1]."
        )
    if samples.dtype != torch.int16:
        full_scale = 2.0**31 if samples.dtype == torch.int32 else 1.0
        samples = samples.detach().float() if full_scale == 1.0 else samples.float() / full_scale
    if samples.ndim == 1 or not samples.numel():
        return samples.flatten()
    channel_axis = 0 if samples.shape[0] <= samples.shape[-1] else 1
    if samples.ndim != 2 or samples.shape[channel_axis] > MAX_CHANNELS:
        raise ValueError(
            f"{name} must be a mono clip (S,) or have at most {MAX_CHANNELS} channels as its shorter axis, got shape "
            f"{tuple(samples.shape)}. Pass several clips as a list."
        )
    full_scale = 32768.0 if samples.dtype == torch.int16 else 1.0
    return samples.float().mean(channel_axis) / full_scale


def _read_file(source: str | Path | Mapping, name: str, seconds: float | None) -> tuple[Tensor, int]:
    """Mono float32 samples (S,) of a sound file and its rate, no more than `seconds` and what the resampler needs."""
    content = source.get("bytes") if isinstance(source, Mapping) else None
    path = source.get("path") if isinstance(source, Mapping) else source
    if content is None and path is None:
        raise ValueError(
            f"{name} must be a dict with 'array' and 'sampling_rate', 'bytes' or 'path', got the keys "
            f"{sorted(source)}. Rename its keys."
        )
    if content is None and not Path(path).is_file():
        raise FileNotFoundError(f"{name} does not exist. Check the path; URLs are not fetched.")
    if soundfile is None:
        raise ImportError(f"{name} needs soundfile to be read. Run `pip install soundfile`, or pass samples.")
    try:
        with soundfile.SoundFile(str(path) if content is None else BytesIO(content)) as file:
            rate = file.samplerate
            num_samples = -1 if seconds is None else math.ceil((seconds + 0.1) * rate)
            samples = file.read(num_samples, dtype="float32", always_2d=True)  # (S, C)
            num_stated = file.frames if num_samples < 0 else min(num_samples, file.frames)
            if is_cut_off(file, num_stated - len(samples)):
                raise ValueError(
                    f"{name} is truncated: it ends before its header says, got {len(samples)} samples. Copy it again "
                    "from its source, or leave it out."
                )
    except soundfile.SoundFileError as error:
        raise ValueError(
            f"{name} cannot be decoded: {error}. Convert it to WAV or FLAC, or pass a decoder."
        ) from error
    return torch.from_numpy(samples).mean(1), rate


def is_cut_off(file: "soundfile.SoundFile", num_missing: int = 0) -> bool:
    """True if a sound file ends before its header says; a recording that was streamed states no size and is whole.

    Args:
        file: open file. libsndfile's log of it tells of a data chunk bigger than the file, or of an Ogg stream
            without its end.
        num_missing: samples that are in the file by its header, were asked for, and could not be decoded.
    """
    log = file.extra_info
    sizes = re.findall(r"^\s*(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if any(words in log for words in OGG_WITHOUT_END) or any(
        int(real) < int(stated) < STREAM_SIZE for stated, real in sizes
    ):
        return True
    return num_missing > (max(MP3_SLACK, file.frames // 100) if file.format in ("MP3", "MPEG") else 0)


def _fill(waveform: Tensor, min_samples: int, how: str) -> Tensor:
    """The waveform, lengthened to `min_samples` with zeros or by repeating it."""
    missing = min_samples - len(waveform)
    if missing <= 0:
        return waveform
    if how == "repeat":
        return waveform.repeat(math.ceil(min_samples / len(waveform)))[:min_samples]
    return torch.nn.functional.pad(waveform, (0, missing))


def _padding_strategy(padding: bool | str | PaddingStrategy | None) -> PaddingStrategy:
    if padding is None or isinstance(padding, bool):
        return PaddingStrategy.DO_NOT_PAD if padding is False else PaddingStrategy.LONGEST
    return PaddingStrategy(padding)


def _not_finite(waveforms: list[Tensor], names: list[str], checksums: Tensor) -> ValueError:
    """The error for the first clip whose features are not finite."""
    index = int((~torch.isfinite(checksums)).nonzero()[0])
    waveform, name = waveforms[index].float(), names[index]
    num_bad = int((~torch.isfinite(waveform)).sum())
    if num_bad:
        return ValueError(
            f"{name} holds {num_bad} NaN or infinite samples of {len(waveform)}. Leave the clip out, or repair it."
        )
    return ValueError(
        f"{name} is too loud for float32: its largest sample is {float(waveform.abs().max()):.3g}. Scale it to "
        "[-1, 1]."
    )


__all__ = ["PRESETS", "LogMelFeatureExtractor", "is_cut_off", "measure_statistics"]

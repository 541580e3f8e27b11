# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The numbers of a log-mel front end and the batched computation that follows them.

waveform (S,) -> signal with its own edges -> frames (T, n_fft) x window -> real FFT -> power
              -> mel bands (T, F) -> log -> affine normalisation

Three ideas make it fast without changing the result:
* the complex spectrum is squared in place as interleaved real and imaginary parts, and the sum re^2 + im^2 is left to
  the matrix product with the mel filters, whose rows are doubled for it;
* mel filters are banded, so the product runs in groups of 16 filters over the few bins that each group touches;
* Kaldi's pre-emphasis is applied once to the signal: `window * preemphasis(frame - mean)` equals
  `window * (frame of y - (1 - c) * mean)` with `y[t] = x[t] - c * x[t - 1]`, except at the frame's first sample.
On a CPU each clip is computed alone, in tiles that stay in cache; on other devices the whole batch at once.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

EDGES = ("snip", "mirror", "reflect", "zeros")
LOGS = {"ln": 1.0, "log10": 1.0 / math.log(10.0), "db": 10.0 / math.log(10.0)}  # factors on the natural logarithm
LOG_RULES = ("clamp", "add")
WINDOWS = ("hann", "hann_symmetric", "hamming", "hamming_symmetric", "povey")
FILTERS_PER_GROUP = 16  # width of one matrix product: narrower saves multiplications, 16 is what vector units like
TILE_VALUES = 350_000  # largest frames * n_fft computed together on a CPU: fits the cache and malloc's kept heap
MAX_BATCH_VALUES = 2**28  # frame values computed together on other devices: 1 GiB of float32


@dataclass(frozen=True)
class LogMelNumbers:
    """All numbers that fix an unnormalised log-mel spectrogram.

    Attributes:
        sampling_rate: samples per second.
        n_fft: points of the Fourier transform.
        win_length: samples of the analysis window, at most `n_fft`.
        hop_length: samples between frames.
        window_type: one of `WINDOWS`; plain names are periodic, `povey` is the symmetric Hann to the power 0.85.
        num_mel_bins: F.
        f_min: lower edge of the first filter in Hz.
        f_max: upper edge of the last filter in Hz.
        mel_scale: `"slaney"`, `"htk"` or `"kaldi"` (HTK formula with triangles drawn on the mel axis).
        mel_norm: `"slaney"` (unit area) or None (unit height).
        log: one of `LOGS`.
        log_floor: power added to or clamped at before the logarithm.
        log_rule: `"clamp"` or `"add"`.
        preemphasis: 0.97 in Kaldi, 0 for none.
        remove_dc: subtract each frame's mean before everything else.
        edges: `"snip"` (whole windows only), `"mirror"` (Kaldi without snip_edges: half a hop of frames more, the edge
            sample repeated), `"reflect"` or `"zeros"` (frames centred on multiples of the hop).
    """

    sampling_rate: int
    n_fft: int
    win_length: int
    hop_length: int
    window_type: str
    num_mel_bins: int
    f_min: float
    f_max: float
    mel_scale: str
    mel_norm: str | None
    log: str
    log_floor: float
    log_rule: str
    preemphasis: float
    remove_dc: bool
    edges: str

    @property
    def is_centered(self) -> bool:
        """Whether frame k is centred on sample k * hop."""
        return self.edges in ("reflect", "zeros")

    @property
    def left_edge(self) -> int:
        """Samples put before the first one."""
        if self.is_centered:
            return self.n_fft // 2
        return (self.win_length - self.hop_length) // 2 if self.edges == "mirror" else 0

    @property
    def min_samples(self) -> int:
        """Samples of the shortest waveform that has a frame and whose edges can be filled from itself."""
        shortest = {
            "snip": self.win_length,
            "mirror": self.win_length // 2,
            "reflect": self.n_fft // 2 + 1,
            "zeros": 1,
        }
        return shortest[self.edges]

    def num_frames(self, num_samples: int) -> int:
        """T of a waveform of at least `min_samples` samples."""
        if self.is_centered:
            return 1 + num_samples // self.hop_length
        if self.edges == "mirror":
            return (num_samples + self.hop_length // 2) // self.hop_length
        return 1 + (num_samples - self.win_length) // self.hop_length

    def signal_samples(self, num_frames: int) -> int:
        """Samples that `num_frames` frames of n_fft points span."""
        return (num_frames - 1) * self.hop_length + self.n_fft


@dataclass(frozen=True, eq=False)
class LogMelConstants:
    """Tensors that follow from `LogMelNumbers` on one device.

    Attributes:
        window: (n_fft,) analysis window, zero outside its `win_length` samples.
        window_start: first sample of the window inside the n_fft points.
        first_weight: the window's first value, which decides whether pre-emphasis needs a term of its own there.
        filter_groups: (first filter, end, first column, end, (columns, filters) weights) of each matrix product;
            columns index the interleaved real and imaginary parts.
    """

    window: Tensor
    window_start: int
    first_weight: float
    filter_groups: tuple[tuple[int, int, int, int, Tensor], ...]


@lru_cache(maxsize=32)
def log_mel_constants(numbers: LogMelNumbers, device: torch.device) -> LogMelConstants:
    """Window and mel filters of `numbers` on `device`, built once per process."""
    samples = analysis_window(numbers.window_type, numbers.win_length)
    start = (numbers.n_fft - numbers.win_length) // 2 if numbers.is_centered else 0
    window = torch.zeros(numbers.n_fft, dtype=torch.float64)
    window[start : start + numbers.win_length] = samples
    filters = torch.from_numpy(
        mel_filter_bank(
            num_frequency_bins=numbers.n_fft // 2 + 1,
            num_mel_filters=numbers.num_mel_bins,
            min_frequency=numbers.f_min,
            max_frequency=numbers.f_max,
            sampling_rate=numbers.sampling_rate,
            norm=numbers.mel_norm,
            mel_scale=numbers.mel_scale,
            triangularize_in_mel_space=numbers.mel_scale == "kaldi",
        )
    )  # (n_fft // 2 + 1, F) float64
    return LogMelConstants(
        window=window.to(device, torch.float32),
        window_start=start,
        first_weight=float(samples[0]),
        filter_groups=tuple(_group_filters(filters, device)),
    )


def analysis_window(window_type: str, win_length: int) -> Tensor:
    """(win_length,) float64 window, one of `WINDOWS`."""
    is_symmetric = window_type == "povey" or window_type.endswith("_symmetric")
    phase = 2 * math.pi * torch.arange(win_length, dtype=torch.float64) / (win_length - int(is_symmetric))
    if window_type.startswith("hamming"):
        return 0.54 - 0.46 * torch.cos(phase)
    hann = (0.5 - 0.5 * torch.cos(phase)).clamp_min(0.0)
    return hann.pow(0.85) if window_type == "povey" else hann


def _group_filters(filters: Tensor, device: torch.device) -> Iterator[tuple[int, int, int, int, Tensor]]:
    for first in range(0, filters.shape[1], FILTERS_PER_GROUP):
        end = min(first + FILTERS_PER_GROUP, filters.shape[1])
        used = filters[:, first:end].any(dim=1).nonzero().flatten()
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)  # filters narrower than a bin are empty
        weights = filters[low:high, first:end].repeat_interleave(2, dim=0)  # one row for re^2, one for im^2
        yield first, end, 2 * low, 2 * high, weights.to(device, torch.float32)


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No gradients, no autocast and no reduced-precision float32 products inside: logarithms magnify their errors."""
    products = torch.backends.cuda.matmul if device.type == "cuda" else torch.backends.mkldnn.matmul
    precision = products.fp32_precision
    is_reduced = precision not in ("none", "ieee")
    if is_reduced:
        products.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        if is_reduced:
            products.fp32_precision = precision


def log_mel_batch(
    waveforms: Sequence[Tensor],
    numbers: LogMelNumbers,
    out: Tensor,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    padding_value: float = 0.0,
) -> Tensor:
    """Writes `scale * ln(mel power) + offset` of each waveform into `out` and returns one checksum per clip.

    Args:
        waveforms: B tensors (S_i,), float32 or int16 (full scale 32768), of at least `numbers.min_samples` samples.
        numbers: the numbers of the spectrogram.
        out: (B, T, F) float32, contiguous; its device is where the work is done.
        scale: factor on the natural logarithm.
        offset: added after it.
        padding_value: written into the frames after a clip's own.

    Returns:
        (B,) float32 on `out`'s device: finite exactly when the clip's samples are, and small enough to be squared.
    """
    compute = _each_clip if out.device.type == "cpu" else _whole_batch
    with exact_float32(out.device):
        constants = log_mel_constants(numbers, out.device)
        return compute(waveforms, numbers, constants, (scale, offset), padding_value, out)


def _each_clip(
    waveforms: Sequence[Tensor],
    numbers: LogMelNumbers,
    constants: LogMelConstants,
    affine: tuple[float, float],
    padding_value: float,
    out: Tensor,
) -> Tensor:
    """Clip by clip: a clip's numbers do not depend on its batch mates, to the bit."""
    checksums = torch.empty(len(waveforms))
    longest = max(len(waveform) for waveform in waveforms)
    room = numbers.signal_samples(numbers.num_frames(longest))
    buffers = torch.empty(2, room)
    largest_tile = min(numbers.num_frames(longest), math.ceil(TILE_VALUES / numbers.n_fft))
    frames_buffer = torch.empty(largest_tile, numbers.n_fft)
    for row, waveform in enumerate(waveforms):
        waveform = waveform.cpu()
        num_frames = numbers.num_frames(len(waveform))
        signal = buffers[0, : numbers.signal_samples(num_frames)]
        write_signal(signal, waveform, numbers)
        filtered = _preemphasise(signal, numbers, buffers[1, : len(signal)])
        tile = _tile_frames(num_frames, numbers.n_fft)
        for first in range(0, num_frames, tile):
            size = min(tile, num_frames - first)
            position = first * numbers.hop_length
            power = _power(
                signal[position:], filtered[position:], (size,), numbers, constants, frames_buffer[:size]
            )  # (size, n_fft + 2)
            _log_mel(power, numbers, constants, affine, out[row, first : first + size])
        checksums[row] = out[row, :num_frames].sum() + _unused_tail(waveform, numbers).sum()
        out[row, num_frames:] = padding_value
    return checksums


def _tile_frames(num_frames: int, n_fft: int) -> int:
    """Frames per tile: as few tiles as `TILE_VALUES` allows, of nearly equal size."""
    num_tiles = math.ceil(num_frames * n_fft / TILE_VALUES)
    return math.ceil(num_frames / num_tiles)


def _whole_batch(
    waveforms: Sequence[Tensor],
    numbers: LogMelNumbers,
    constants: LogMelConstants,
    affine: tuple[float, float],
    padding_value: float,
    out: Tensor,
) -> Tensor:
    """All clips at once, in as many groups of clips as memory asks for."""
    num_clips, num_frames, num_bins = out.shape
    source = waveforms[0].device  # the batch is joined where the waveforms are and moved in one copy
    signals = torch.zeros(num_clips, numbers.signal_samples(num_frames), device=source)
    tails = torch.zeros(num_clips, device=source)
    for row, waveform in enumerate(waveforms):
        samples = numbers.signal_samples(numbers.num_frames(len(waveform)))
        write_signal(signals[row, :samples], waveform, numbers)
        tail = _unused_tail(waveform, numbers)
        if len(tail):
            tails[row] = tail.sum()
    signals = signals.to(out.device)
    clips_per_step = max(1, MAX_BATCH_VALUES // (num_frames * numbers.n_fft))
    for first in range(0, num_clips, clips_per_step):
        signal = signals[first : first + clips_per_step]
        filtered = _preemphasise(signal, numbers, None)
        power = _power(signal, filtered, (len(signal), num_frames), numbers, constants, None)
        rows = out[first : first + clips_per_step].view(-1, num_bins)
        _log_mel(power, numbers, constants, affine, rows)
    own_frames = [numbers.num_frames(len(waveform)) for waveform in waveforms]
    out.masked_fill_(~frame_mask(own_frames, num_frames, out.device).unsqueeze(-1), padding_value)
    return out.sum((1, 2)) + tails.to(out.device)


def frame_mask(num_frames: Sequence[int], max_frames: int, device: torch.device | str = "cpu") -> Tensor:
    """(B, max_frames) bool, True at each clip's first `num_frames[i]` frames."""
    ends = torch.tensor(num_frames, device=device).unsqueeze(1)
    return torch.arange(max_frames, device=device) < ends


def write_signal(signal: Tensor, waveform: Tensor, numbers: LogMelNumbers) -> None:
    """Fills `signal` (samples of all frames) with the waveform in float32 and the edges made from its own ends."""
    left, num_samples = numbers.left_edge, len(waveform)
    inside = min(num_samples, len(signal) - left)
    center = signal[left : left + inside]
    if waveform.dtype == torch.int16:
        torch.mul(waveform[:inside], 1.0 / 32768.0, out=center)
    else:
        center.copy_(waveform[:inside])
    shift = center.mean() if numbers.remove_dc else 0.0
    if numbers.remove_dc:
        center.sub_(shift)  # frames lose their mean anyway; without the common part float32 loses no digits to it
    end = left + inside
    if numbers.edges in ("snip", "zeros"):
        signal[:left] = -shift
        signal[end:] = -shift
        return
    step = 0 if numbers.edges == "mirror" else 1  # mirror repeats the sample at the edge, reflect does not
    signal[:left] = center[step : step + left].flip(0)
    window_end = len(signal) if numbers.is_centered else len(signal) - (numbers.n_fft - numbers.win_length)
    right = max(0, window_end - end)
    signal[end : end + right] = center[inside - step - right : inside - step].flip(0)
    signal[end + right :] = 0.0


def _unused_tail(waveform: Tensor, numbers: LogMelNumbers) -> Tensor:
    """Samples after the last frame: they do not reach the spectrogram but must be finite all the same."""
    num_frames = numbers.num_frames(len(waveform))
    return waveform[numbers.signal_samples(num_frames) - numbers.left_edge :]


def _preemphasise(signal: Tensor, numbers: LogMelNumbers, out: Tensor | None) -> Tensor:
    """x[t] - c * x[t - 1] along the last axis; the first sample is its own predecessor."""
    if not numbers.preemphasis:
        return signal
    out = torch.empty_like(signal) if out is None else out
    torch.sub(signal[..., 1:], signal[..., :-1], alpha=numbers.preemphasis, out=out[..., 1:])
    torch.mul(signal[..., 0], 1.0 - numbers.preemphasis, out=out[..., 0])
    return out


def _power(
    signal: Tensor,
    filtered: Tensor,
    shape: tuple[int, ...],
    numbers: LogMelNumbers,
    constants: LogMelConstants,
    out: Tensor | None,
) -> Tensor:
    """Squares of the interleaved real and imaginary parts of the windowed frames' spectra: (frames, n_fft + 2)."""
    frames = _frames(filtered, shape, numbers.n_fft, numbers.hop_length)  # (..., T, n_fft) view
    if numbers.remove_dc:
        start, num_samples = constants.window_start, numbers.win_length
        mean = _frames(signal[..., start:], shape, num_samples, numbers.hop_length).mean(-1, keepdim=True)
        windowed = torch.sub(frames, mean, alpha=1.0 - numbers.preemphasis, out=out).mul_(constants.window)
    else:
        mean = None
        windowed = torch.mul(frames, constants.window, out=out)
    if numbers.preemphasis and constants.first_weight:
        _set_first_sample(windowed, signal, mean, shape, numbers, constants)
    spectrum = torch.fft.rfft(windowed)  # (..., T, n_fft // 2 + 1) complex
    return torch.view_as_real(spectrum).view(-1, numbers.n_fft + 2).square_()


def _frames(signal: Tensor, shape: tuple[int, ...], num_samples: int, hop_length: int) -> Tensor:
    """(*shape, num_samples) overlapping view of a signal (..., S) whose last axis is contiguous."""
    strides = (*signal.stride()[:-1], hop_length, 1)
    return signal.as_strided((*shape, num_samples), strides)


def _set_first_sample(
    windowed: Tensor,
    signal: Tensor,
    mean: Tensor | None,
    shape: tuple[int, ...],
    numbers: LogMelNumbers,
    constants: LogMelConstants,
) -> None:
    """Kaldi takes a frame's first sample as its own predecessor: seen where the window does not start at zero."""
    start = constants.window_start
    first = _frames(signal[..., start:], shape, 1, numbers.hop_length)  # (..., T, 1)
    first = first if mean is None else first - mean
    windowed[..., start : start + 1] = first * (constants.first_weight * (1.0 - numbers.preemphasis))


def _log_mel(
    power: Tensor, numbers: LogMelNumbers, constants: LogMelConstants, affine: tuple[float, float], out: Tensor
) -> None:
    """Writes the affine log of the mel energies of (frames, n_fft + 2) squares into `out` (frames, F)."""
    for first, end, low, high, weights in constants.filter_groups:
        torch.mm(power[:, low:high], weights, out=out[:, first:end])
    floored = out.add_(numbers.log_floor) if numbers.log_rule == "add" else out.clamp_min_(numbers.log_floor)
    scale, offset = affine
    floored.log_()
    if scale != 1.0:
        floored.mul_(scale)
    if offset != 0.0:
        floored.add_(offset)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """(S,) float32 -> (ceil(S * to_rate / from_rate),) by windowed-sinc interpolation.

    The low-pass filter is a sinc with 32 zero crossings on each side under a squared cosine window, cut off at 0.99 of
    the lower Nyquist frequency; exact for the reduced ratio of the two rates. It is torchaudio's with a sharper edge,
    which the folder of the models may not import.
    """
    divisor = math.gcd(from_rate, to_rate)
    from_step, to_step = from_rate // divisor, to_rate // divisor
    if from_step == to_step:
        return waveform
    kernels, width = _resampling_kernels(from_step, to_step)
    padded = F.pad(waveform.cpu().unsqueeze(0), (width, width + from_step))
    phases = F.conv1d(padded.unsqueeze(0), kernels, stride=from_step)  # (1, to_step, n)
    num_samples = math.ceil(len(waveform) * to_step / from_step)
    return phases[0].T.reshape(-1)[:num_samples]


@lru_cache(maxsize=16)
def _resampling_kernels(from_step: int, to_step: int) -> tuple[Tensor, int]:
    """(to_step, 1, 2 * width + from_step) filters, one for each output phase, and their half width in samples."""
    zeros, cutoff = 32, 0.99 * min(from_step, to_step)
    width = math.ceil(zeros * from_step / cutoff)
    inputs = torch.arange(-width, width + from_step, dtype=torch.float64) / from_step
    outputs = torch.arange(0, -to_step, -1, dtype=torch.float64).unsqueeze(1) / to_step
    times = ((outputs + inputs) * cutoff).clamp(-zeros, zeros)
    kernels = torch.sinc(times) * torch.cos(times * math.pi / zeros / 2).square() * (cutoff / from_step)
    return kernels.float().unsqueeze(1), width


__all__ = [
    "EDGES",
    "LOGS",
    "LOG_RULES",
    "WINDOWS",
    "LogMelConstants",
    "LogMelNumbers",
    "analysis_window",
    "exact_float32",
    "frame_mask",
    "log_mel_batch",
    "log_mel_constants",
    "resample",
    "write_signal",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Signal building blocks of the synthetic sounds: noise, oscillators, damped tones, grains, levels.

Everything is numpy, at 16 kHz, and linear in the number of samples: filters are gains on the real FFT (magnitude of a
second-order Butterworth filter), decaying tones are outer products of powers, plucked strings one batched FFT.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

SYNTHESIS_RATE = 16_000  # Hz; other rates are band-limited interpolations of it
SAMPLES_PER_MS = SYNTHESIS_RATE // 1000
LEVEL_FRAME = 20 * SAMPLES_PER_MS  # samples; the 20 ms frame in which levels are measured
ACTIVE_RANGE_DB = 30.0  # frames this far below the loudest frame count as silence

# Lengths whose only prime factors are 2, 3 and 5: the FFT is several times faster on them.
_FAST_LENGTHS = sorted(
    2**a * 3**b * 5**c for a in range(24) for b in range(4) for c in range(3) if 32 <= 2**a * 3**b * 5**c <= 2**23
)


def fast_length(num_samples: int) -> int:
    """Smallest length >= `num_samples` for which the FFT is fast."""
    return _FAST_LENGTHS[bisect_left(_FAST_LENGTHS, num_samples)]


def band_gains(fft_length: int, above_hz: float | None = None, below_hz: float | None = None) -> np.ndarray:
    """(fft_length // 2 + 1,) gains of second-order Butterworth high- and low-pass filters."""
    frequencies = np.arange(fft_length // 2 + 1, dtype=np.float32) * (SYNTHESIS_RATE / fft_length)
    gains = np.ones_like(frequencies)
    if below_hz is not None:
        gains /= np.sqrt(1 + np.square(np.square(frequencies / below_hz)))
    if above_hz is not None:
        ratio = np.square(np.square(frequencies / above_hz))
        gains *= np.sqrt(ratio / (1 + ratio))
    return gains


def filter_band(signal: np.ndarray, above_hz: float | None = None, below_hz: float | None = None) -> np.ndarray:
    """(S,) signal after high-pass at `above_hz` and low-pass at `below_hz` (zero phase)."""
    fft_length = fast_length(len(signal) + LEVEL_FRAME)
    spectrum = np.fft.rfft(signal.astype(np.float32), fft_length)
    spectrum *= band_gains(fft_length, above_hz, below_hz)
    return np.fft.irfft(spectrum, fft_length)[: len(signal)].astype(np.float32)


def shape_noise(rng: np.random.Generator, num_samples: int, gains_of_length) -> np.ndarray:
    """(S,) unit-RMS Gaussian noise whose spectrum is `gains_of_length(fft_length)`, drawn directly in frequency."""
    fft_length = fast_length(num_samples)
    bins = rng.standard_normal((fft_length // 2 + 1, 2), dtype=np.float32).view(np.complex64)[:, 0]
    noise = np.fft.irfft(bins * gains_of_length(fft_length), fft_length)[:num_samples].astype(np.float32)
    return noise / max(float(np.sqrt(np.mean(np.square(noise)))), 1e-9)


def band_noise(
    rng: np.random.Generator, num_samples: int, above_hz: float | None = None, below_hz: float | None = None
) -> np.ndarray:
    """(S,) unit-RMS noise between two cut-off frequencies."""
    return shape_noise(rng, num_samples, lambda length: band_gains(length, above_hz, below_hz))


def seconds_axis(num_samples: int) -> np.ndarray:
    """(S,) time of each sample in seconds, float64."""
    return np.arange(num_samples) / SYNTHESIS_RATE


def cycles(frequency_hz: float | np.ndarray, num_samples: int) -> np.ndarray:
    """(S,) phase in cycles, modulo 1, of an oscillator with constant or varying frequency."""
    if np.ndim(frequency_hz) == 0:
        phase = np.arange(num_samples) * (frequency_hz / SYNTHESIS_RATE)
    else:
        phase = np.cumsum(np.asarray(frequency_hz, dtype=np.float64)) / SYNTHESIS_RATE
    return (phase % 1.0).astype(np.float32)


def sine(frequency_hz: float | np.ndarray, num_samples: int) -> np.ndarray:
    """(S,) sine of amplitude 1 that starts at phase 0."""
    return np.sin(np.float32(2 * np.pi) * cycles(frequency_hz, num_samples))


def harmonic_wave(frequency_hz: float | np.ndarray, num_samples: int, amplitudes: Sequence[float]) -> np.ndarray:
    """(S,) periodic wave with the given amplitudes of harmonics 1, 2, ..., read from a table of one period."""
    table_length = 4096
    turns = np.arange(table_length) / table_length
    table = sum(a * np.sin(2 * np.pi * (k + 1) * turns) for k, a in enumerate(amplitudes))
    positions = (cycles(frequency_hz, num_samples) * table_length).astype(np.int32)
    return np.asarray(table, dtype=np.float32)[np.minimum(positions, table_length - 1)]


def sawtooth(frequency_hz: float | np.ndarray, num_samples: int, highest_hz: float = 7000.0) -> np.ndarray:
    """(S,) sawtooth without harmonics above `highest_hz`, so that nothing folds back."""
    count = max(1, int(highest_hz / float(np.max(frequency_hz))))
    return harmonic_wave(frequency_hz, num_samples, [0.6 / k for k in range(1, count + 1)])


def square(frequency_hz: float | np.ndarray, num_samples: int, highest_hz: float = 7000.0) -> np.ndarray:
    """(S,) square wave without harmonics above `highest_hz`."""
    count = max(1, int(highest_hz / float(np.max(frequency_hz))))
    return harmonic_wave(frequency_hz, num_samples, [(1.2 / k) * (k % 2) for k in range(1, count + 1)])


def damped_sine(frequency_hz: float, decay_seconds: float, num_samples: int) -> np.ndarray:
    """(S,) sine whose amplitude falls to 1/e in `decay_seconds`, as powers of one complex number."""
    block = 256
    step = (-1.0 / decay_seconds + 2j * np.pi * frequency_hz) / SYNTHESIS_RATE
    inner = np.exp(step * np.arange(block))
    outer = np.exp(step * block * np.arange(-(-num_samples // block)))
    return np.outer(outer, inner).imag.ravel()[:num_samples].astype(np.float32)


def decay(decay_seconds: float, num_samples: int) -> np.ndarray:
    """(S,) exponential envelope from 1, falling to 1/e in `decay_seconds`."""
    return np.exp(np.arange(num_samples, dtype=np.float32) * np.float32(-1.0 / (decay_seconds * SYNTHESIS_RATE)))


def plucked_note(rng: np.random.Generator, frequency_hz: float, num_samples: int) -> np.ndarray:
    """(S,) Karplus-Strong string: a noise period, averaged with its one-sample shift once per period.

    With the shift taken around the period the average is a multiplication of the period's spectrum, so all periods
    come from one batched inverse FFT.
    """
    period = max(2, round(SYNTHESIS_RATE / frequency_hz))
    periods = -(-num_samples // period)
    start = np.fft.rfft(rng.uniform(-1, 1, period))
    start[0] = 0.0
    loss = 0.998 * 0.5 * (1 + np.exp(-2j * np.pi * np.arange(len(start)) / period))
    spectra = start * np.cumprod(np.vstack([np.ones_like(loss), np.tile(loss, (periods - 1, 1))]), axis=0)
    return np.fft.irfft(spectra, period, axis=1).ravel()[:num_samples].astype(np.float32)


def fade(signal: np.ndarray, in_ms: float = 10.0, out_ms: float = 10.0) -> np.ndarray:
    """(S,) the signal with raised-cosine ends, changed in place; each end takes at most half of it."""
    for milliseconds, part in ((in_ms, signal), (out_ms, signal[::-1])):
        length = min(int(milliseconds * SAMPLES_PER_MS), len(signal) // 2)
        part[:length] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(length, dtype=np.float32) / max(length, 1))
    return signal


def add_grain(signal: np.ndarray, start: int, grain: np.ndarray) -> None:
    """Adds `grain` to `signal` in place at sample `start`; what lies beyond the end is cut."""
    end = min(len(signal), start + len(grain))
    if end > start:
        signal[start:end] += grain[: end - start]


def scatter_grains(num_samples: int, starts: np.ndarray, grains: np.ndarray) -> np.ndarray:
    """(S,) sum of many short grains: row g of `grains` (G, L) begins at sample `starts[g]`."""
    grain_length = grains.shape[1]
    positions = starts[:, None] + np.arange(grain_length)
    total = np.bincount(positions.ravel(), grains.ravel(), minlength=num_samples + grain_length)
    return total[:num_samples].astype(np.float32)


def frame_levels_db(signal: np.ndarray) -> np.ndarray:
    """(S // 320,) RMS level in dB of each 20 ms frame; a shorter rest at the end is padded with silence."""
    num_frames = max(1, -(-len(signal) // LEVEL_FRAME))
    padded = np.zeros(num_frames * LEVEL_FRAME, dtype=np.float64)
    padded[: len(signal)] = signal
    power = np.mean(np.square(padded.reshape(num_frames, LEVEL_FRAME)), axis=1)
    return 10 * np.log10(power + 1e-20)


def active_level_db(signal: np.ndarray) -> float:
    """RMS level in dB over the active frames, those within 30 dB of the loudest 20 ms frame.

    Sparse sounds (a tick per second) are thereby as loud as steady ones with the same level; an RMS over the whole
    event would make their single ticks 10 dB hotter.
    """
    levels = frame_levels_db(signal)
    active = levels[levels > levels.max() - ACTIVE_RANGE_DB]
    return float(10 * np.log10(np.mean(10 ** (active / 10))))


def set_active_level(signal: np.ndarray, level_db: float) -> np.ndarray:
    """(S,) the signal scaled to an active level of `level_db` dBFS."""
    return (signal * 10 ** ((level_db - active_level_db(signal)) / 20)).astype(np.float32)


def limit(signal: np.ndarray) -> np.ndarray:
    """(S,) the signal, with a tanh knee above 0.95 so that no sample reaches 1."""
    excess = np.abs(signal) - 0.95
    if not np.any(excess > 0):
        return signal
    squeezed = np.sign(signal) * (0.95 + 0.049 * np.tanh(excess / 0.049))
    return np.where(excess > 0, squeezed, signal).astype(np.float32)


def resample(signal: np.ndarray, sampling_rate: int, num_samples: int) -> np.ndarray:
    """(num_samples,) the 16 kHz signal at another rate, by padding its spectrum with zeros (content stays < 8 kHz)."""
    if sampling_rate == SYNTHESIS_RATE:
        return signal
    # One second of silence behind the clip: the FFT joins both ends, and lengths that divide evenly keep time exact.
    seconds = -(-len(signal) // SYNTHESIS_RATE) + 1
    spectrum = np.fft.rfft(signal, seconds * SYNTHESIS_RATE)
    scale = sampling_rate / SYNTHESIS_RATE
    return (np.fft.irfft(spectrum, seconds * sampling_rate)[:num_samples] * scale).astype(np.float32)


__all__ = [
    "ACTIVE_RANGE_DB",
    "LEVEL_FRAME",
    "SAMPLES_PER_MS",
    "SYNTHESIS_RATE",
    "active_level_db",
    "add_grain",
    "band_gains",
    "band_noise",
    "cycles",
    "damped_sine",
    "decay",
    "fade",
    "fast_length",
    "filter_band",
    "frame_levels_db",
    "harmonic_wave",
    "limit",
    "plucked_note",
    "resample",
    "sawtooth",
    "scatter_grains",
    "seconds_axis",
    "set_active_level",
    "shape_noise",
    "sine",
    "square",
]

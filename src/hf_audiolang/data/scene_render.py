# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""From a scene to a waveform: events at their levels + background noise -> effects -> limiter -> sampling rate."""

from dataclasses import dataclass

import numpy as np

from .scene_layout import Scene
from .sound_events import synthesize
from .sound_signals import (
    SAMPLES_PER_MS,
    SYNTHESIS_RATE,
    add_grain,
    decay,
    fast_length,
    filter_band,
    limit,
    resample,
    shape_noise,
)

CODECS = ("mulaw",)


@dataclass(frozen=True)
class Effects:
    """What happens to a scene on its way to the listener; the default is nothing. For robustness tests.

    Attributes:
        reverb: adds an exponential noise tail whose decay to -60 dB is drawn from 0.1 to 0.6 s per clip.
        codec: "mulaw": 8 bits per sample on a logarithmic scale, as in telephony; None for no codec.
        lowpass_hz: cut-off of a low-pass filter (second order), None for none.
    """

    reverb: bool = False
    codec: str | None = None
    lowpass_hz: float | None = None

    def __post_init__(self) -> None:
        if self.codec is not None and self.codec not in CODECS:
            raise ValueError(f"Unknown `codec` {self.codec!r}. Choose one of {list(CODECS)}, or None.")
        if self.lowpass_hz is not None and not 50 <= self.lowpass_hz <= SYNTHESIS_RATE / 2:
            raise ValueError(f"`lowpass` must be between 50 and {SYNTHESIS_RATE // 2} Hz, got {self.lowpass_hz}.")

    def apply(self, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(S,) the 16 kHz signal after the effects."""
        if self.reverb:
            signal = _add_reverb(signal, rng)
        if self.lowpass_hz is not None:
            signal = filter_band(signal, below_hz=self.lowpass_hz)
        if self.codec == "mulaw":
            compressed = np.sign(signal) * np.log1p(255 * np.minimum(np.abs(signal), 1)) / np.log(256)
            steps = np.round(compressed * 127) / 127
            signal = (np.sign(steps) * np.expm1(np.abs(steps) * np.log(256)) / 255).astype(np.float32)
        return signal


def _add_reverb(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    seconds = float(rng.uniform(0.1, 0.6))
    tail = rng.standard_normal(int(seconds * SYNTHESIS_RATE), dtype=np.float32)
    tail *= decay(seconds / np.log(1000), len(tail))
    tail *= 0.5 / np.sqrt(np.sum(np.square(tail)))  # direct sound 6 dB above the tail
    tail[0] = 1.0
    fft_length = fast_length(len(signal) + len(tail))
    wet = np.fft.irfft(np.fft.rfft(signal, fft_length) * np.fft.rfft(tail, fft_length), fft_length)
    return wet[: len(signal)].astype(np.float32)


def render_background(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """(S,) coloured noise: low-passed at 1.5-7 kHz, tilted by 0 to -3 dB per octave, at the background's level."""
    corner_hz, slope = rng.uniform(1500, 7000), rng.uniform(0, 0.5)

    def gains(fft_length: int) -> np.ndarray:
        frequencies = np.arange(fft_length // 2 + 1, dtype=np.float32) * (SYNTHESIS_RATE / fft_length)
        tilt = np.exp(-slope * np.log(np.maximum(frequencies, 50) / 1000))
        return (tilt / np.sqrt(1 + (frequencies / corner_hz) ** 4)).astype(np.float32)

    noise = shape_noise(rng, scene.duration_ms * SAMPLES_PER_MS, gains)
    return noise * np.float32(10 ** (scene.background_tenths_db / 200))


def render_stems(scene: Scene, rng: np.random.Generator) -> list[np.ndarray]:
    """[background, event 0, event 1, ...], each (S,) float32 at 16 kHz over the whole clip, without effects."""
    stems = [render_background(scene, rng)]
    for event in scene.events:
        stem = np.zeros(scene.duration_ms * SAMPLES_PER_MS, dtype=np.float32)
        sound = synthesize(event.plan, rng) * np.float32(10 ** (event.level_tenths_db / 200))
        add_grain(stem, event.onset_ms * SAMPLES_PER_MS, sound)
        stems.append(stem)
    return stems


def render_scene(scene: Scene, rng: np.random.Generator, sampling_rate: int, effects: Effects) -> np.ndarray:
    """(S,) float32 waveform with |x| < 1, S = round(duration * sampling_rate).

    Levels are absolute: there is no peak normalisation, because it would erase loud and soft.
    """
    mix = sum(render_stems(scene, rng))
    waveform = limit(effects.apply(mix, rng))
    waveform = resample(waveform, sampling_rate, round(scene.duration_ms * sampling_rate / 1000))
    return np.clip(waveform, -0.9999, 0.9999)  # interpolation may overshoot the limiter by a hair


__all__ = ["CODECS", "Effects", "render_background", "render_scene", "render_stems"]

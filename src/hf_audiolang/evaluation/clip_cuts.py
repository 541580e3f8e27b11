# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""How protocols cut a clip before it is encoded: to one length (EVAR), or into windows (MARBLE)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Cut(Protocol):
    """How a clip is cut before the rule of `AudioOptions.long_audio` cuts its pieces to the model's limit."""

    def pieces(self, waveform: np.ndarray, index: int, sampling_rate: int) -> list[np.ndarray]:
        """The pieces (S_i,) of the clip at position `index` of its data set."""
        ...


@dataclass(frozen=True)
class UnitLength:
    """Every clip as long as the others, as EVAR has it: a part of a long one, a short one followed by silence.

    Attributes:
        seconds: the length.
        crop_seed: a random part, drawn from this seed and the clip's position; None takes the first part.
    """

    seconds: float
    crop_seed: int | None = None

    def pieces(self, waveform: np.ndarray, index: int, sampling_rate: int) -> list[np.ndarray]:
        """One piece of `seconds`."""
        num_samples = max(1, round(self.seconds * sampling_rate))
        spare = len(waveform) - num_samples
        if spare <= 0:
            return [np.pad(waveform, (0, -spare))]
        start = 0 if self.crop_seed is None else np.random.default_rng((self.crop_seed, index)).integers(spare + 1)
        return [waveform[start : start + num_samples]]


@dataclass(frozen=True)
class Windows:
    """The beginning of a clip in windows, as MARBLE has it.

    Attributes:
        window_seconds: of each window; a rest that fills none is left out, and a shorter clip is one window.
        max_seconds: how much of a clip is taken.
    """

    window_seconds: float = 5.0
    max_seconds: float = 30.0

    def pieces(self, waveform: np.ndarray, index: int, sampling_rate: int) -> list[np.ndarray]:
        """The windows, at least one."""
        num_samples = max(1, round(self.window_seconds * sampling_rate))
        waveform = waveform[: round(self.max_seconds * sampling_rate)]
        if len(waveform) < num_samples:
            return [waveform]
        num_windows = len(waveform) // num_samples
        return [waveform[n * num_samples : (n + 1) * num_samples] for n in range(num_windows)]


__all__ = ["Cut", "UnitLength", "Windows"]

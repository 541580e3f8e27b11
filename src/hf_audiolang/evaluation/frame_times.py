# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""When the output frames of an encoder are: their rate, where the first one begins, how many a clip has."""

import math

import numpy as np
from torch import nn

TIME_TOLERANCE = 1e-6  # frames: 2.0000001 frames are two


def frame_rate_of(model: nn.Module, num_input_frames: int) -> float:
    """Frames per second of the encoder's output; it depends on the input where the encoder stretches it."""
    config = model.config.audio_config
    return float(config.frame_rate_of(num_input_frames) if stretches_input(model) else config.frame_rate_hz)


def stretches_input(model: nn.Module) -> bool:
    """Whether the number of output frames is fixed, so that their rate depends on the length of the input."""
    return hasattr(model.config.audio_config, "frame_rate_of")


def frame_offset_of(model: nn.Module) -> float:
    """Seconds at which the encoder's frame 0 begins: 0 unless its configuration says otherwise."""
    return float(getattr(model.config.audio_config, "frame_offset_seconds", 0.0))


def num_frames_in(seconds: float, frame_rate_hz: float, offset_seconds: float = 0.0) -> int:
    """Frames that begin before the end of a clip, at least 1; frame 0 begins at `offset_seconds`."""
    return max(1, math.ceil((seconds - offset_seconds) * frame_rate_hz - TIME_TOLERANCE))


def edges_of_frames(num_frames: int, frame_rate_hz: float, offset_seconds: float, seconds: float) -> np.ndarray:
    """Edges (T + 1,) of frames in seconds: the first begins with the clip, whatever its offset is."""
    edges = np.arange(num_frames + 1) / frame_rate_hz + offset_seconds
    edges[0] = 0.0
    return np.minimum(edges, seconds)


__all__ = ["TIME_TOLERANCE", "edges_of_frames", "frame_offset_of", "frame_rate_of", "num_frames_in", "stretches_input"]

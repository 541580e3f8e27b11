# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SpecAugment on batches of log-mels, on the model's device."""

from __future__ import annotations

import torch
from torch import Tensor


def spec_augment(
    input_features: Tensor,
    num_frames: Tensor,
    *,
    time_stripes: int,
    time_width: int,
    time_share: float,
    mel_stripes: int,
    mel_width: int,
) -> Tensor:
    """Log-mels with stripes of time and of mel bins set to 0.0, the mean after normalisation (SpecAugment, 2.2).

    Each stripe of each clip has its own width, uniform in [0, max), and its own place inside the clip.

    Args:
        input_features: (B, T, F).
        num_frames: (B,) real frames of each clip.
        time_stripes: stripes over time per clip.
        time_width: exclusive upper end of their width, in frames.
        time_share: no stripe over time is wider than this share of its clip.
        mel_stripes: stripes over mel bins per clip.
        mel_width: exclusive upper end of their width, in mel bins.
    """
    batch, max_frames, num_mel_bins = input_features.shape
    frames = num_frames.to(input_features.device, torch.float32)
    time_limit = torch.minimum(frames.new_full((batch,), float(time_width)), frames * time_share)
    mel_limit = frames.new_full((batch,), float(mel_width))
    hide_time = _stripes(time_stripes, time_limit, frames, max_frames)  # (B, T)
    hide_mel = _stripes(mel_stripes, mel_limit, torch.full_like(frames, num_mel_bins), num_mel_bins)  # (B, F)
    return input_features.masked_fill(hide_time.unsqueeze(2) | hide_mel.unsqueeze(1), 0.0)


def _stripes(number: int, limit: Tensor, extent: Tensor, size: int) -> Tensor:
    """Union of `number` random stripes narrower than `limit` (B,) inside `extent` (B,): (B, size) bool."""
    width = (torch.rand(number, len(limit), device=limit.device) * limit).floor()
    start = (torch.rand(number, len(limit), device=limit.device) * (extent - width + 1)).floor()
    at = torch.arange(size, device=limit.device)
    inside = (at >= start.unsqueeze(-1)) & (at < (start + width).unsqueeze(-1))
    return inside.any(0)


__all__ = ["spec_augment"]

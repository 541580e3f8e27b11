# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SpecAugment on batches of log-mels, on the model's device."""

from __future__ import annotations

import torch
from torch import Tensor


def augment_features(
    input_features: Tensor, input_features_mask: Tensor | None, config, *, fills_mean: bool = False
) -> Tensor:
    """SpecAugment with the numbers of a system's configuration, its fields `spec_augment_...`.

    Args:
        input_features: (B, T, F).
        input_features_mask: (B, T) True at real frames, or None when all are.
        config: has the fields.
        fills_mean: stripes get the mean of their clip's real frames, for log-mels that are not normalised, not 0.
    """
    if input_features_mask is None:
        num_frames = input_features.new_full((len(input_features),), input_features.shape[1])
    else:
        num_frames = input_features_mask.sum(1)
    return spec_augment(
        input_features,
        num_frames,
        time_stripes=config.spec_augment_time_stripes,
        time_width=config.spec_augment_time_width,
        time_share=config.spec_augment_time_share,
        mel_stripes=config.spec_augment_mel_stripes,
        mel_width=config.spec_augment_mel_width,
        fill=_clip_means(input_features, input_features_mask) if fills_mean else 0.0,
    )


def spec_augment(
    input_features: Tensor,
    num_frames: Tensor,
    *,
    time_stripes: int,
    time_width: int,
    time_share: float,
    mel_stripes: int,
    mel_width: int,
    fill: Tensor | float = 0.0,
) -> Tensor:
    """Log-mels with stripes of time and of mel bins set to `fill` (SpecAugment, 2.2).

    Each stripe of each clip has its own width, uniform in [0, max), and its own place inside the clip.

    Args:
        input_features: (B, T, F).
        num_frames: (B,) real frames of each clip.
        time_stripes: stripes over time per clip.
        time_width: exclusive upper end of their width, in frames.
        time_share: no stripe over time is wider than this share of its clip.
        mel_stripes: stripes over mel bins per clip.
        mel_width: exclusive upper end of their width, in mel bins.
        fill: what is put there; 0.0, the mean after normalisation, or (B,) a value for each clip.
    """
    batch, max_frames, num_mel_bins = input_features.shape
    frames = num_frames.to(input_features.device, torch.float32)
    time_limit = torch.minimum(frames.new_full((batch,), float(time_width)), frames * time_share)
    mel_limit = frames.new_full((batch,), float(mel_width))
    hide_time = _stripes(time_stripes, time_limit, frames, max_frames)  # (B, T)
    hide_mel = _stripes(mel_stripes, mel_limit, torch.full_like(frames, num_mel_bins), num_mel_bins)  # (B, F)
    is_hidden = hide_time.unsqueeze(2) | hide_mel.unsqueeze(1)  # (B, T, F)
    if isinstance(fill, Tensor):
        return torch.where(is_hidden, fill.to(input_features.dtype).view(-1, 1, 1), input_features)
    return input_features.masked_fill(is_hidden, fill)


def _clip_means(input_features: Tensor, input_features_mask: Tensor | None) -> Tensor:
    """Mean of each clip's real frames: (B,), in float32."""
    per_frame = input_features.float().mean(2)  # (B, T)
    if input_features_mask is None:
        return per_frame.mean(1)
    is_real = input_features_mask.bool()
    return per_frame.masked_fill(~is_real, 0.0).sum(1) / is_real.sum(1).clamp(min=1)


def _stripes(number: int, limit: Tensor, extent: Tensor, size: int) -> Tensor:
    """Union of `number` random stripes narrower than `limit` (B,) inside `extent` (B,): (B, size) bool."""
    width = (torch.rand(number, len(limit), device=limit.device) * limit).floor()
    start = (torch.rand(number, len(limit), device=limit.device) * (extent - width + 1)).floor()
    at = torch.arange(size, device=limit.device)
    inside = (at >= start.unsqueeze(-1)) & (at < (start + width).unsqueeze(-1))
    return inside.any(0)


__all__ = ["augment_features", "spec_augment"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Patches: spectrogram tiles in time order, so that the padding of a clip is one contiguous tail."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def patchify(
    input_features: Tensor, input_features_mask: Tensor | None, patch_frames: int, patch_mel_bins: int
) -> tuple[Tensor, Tensor]:
    """Cuts log-mels into flattened patches; token = time step x frequency patches + frequency patch (SLAP 2.1.2).

    Whatever stands in padded frames, NaN included, is replaced by zeros first: the partly filled last patch of a clip
    must not depend on what the batch was padded with. A clip has ceil(frames / patch_frames) time steps.

    Args:
        input_features: (B, T, F) normalised log-mel.
        input_features_mask: (B, T) True at real frames, or None when all are.
        patch_frames: frames per patch.
        patch_mel_bins: mel bins per patch; divides F.

    Returns:
        (B, N, patch_frames * patch_mel_bins) patches, frames as rows, and (B, N) bool, True at real tokens.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if input_features.ndim != 3 or input_features.shape[-1] % patch_mel_bins != 0:
        raise ValueError(
            f"`input_features` must be (batch, frames, mel bins) with mel bins a multiple of {patch_mel_bins}, got "
            f"{tuple(input_features.shape)}. Use the model's own feature extractor."
        )
    batch, num_frames, num_mel_bins = input_features.shape
    if input_features_mask is None:
        input_features_mask = torch.ones(batch, num_frames, dtype=torch.bool, device=input_features.device)
    elif input_features_mask.shape != (batch, num_frames):
        raise ValueError(
            f"`input_features_mask` must be {(batch, num_frames)} as the frames of `input_features`, got "
            f"{tuple(input_features_mask.shape)}. Pass the mask that the feature extractor returned."
        )
    frame_mask = input_features_mask.to(torch.bool)
    features = torch.where(frame_mask.unsqueeze(-1), input_features, 0.0)
    features = F.pad(features, (0, 0, 0, -num_frames % patch_frames))
    bands = num_mel_bins // patch_mel_bins
    tiles = features.view(batch, -1, patch_frames, bands, patch_mel_bins).transpose(2, 3)  # (B, steps, bands, 16, 16)
    return tiles.flatten(3).flatten(1, 2), patch_mask(frame_mask, patch_frames, bands)


def patch_mask(frame_mask: Tensor, patch_frames: int, num_bands: int) -> Tensor:
    """Mask of the patches that hold a real frame: bool (B, T) -> (B, N), in the order of `patchify`."""
    padded = F.pad(frame_mask.to(torch.bool), (0, -frame_mask.shape[1] % patch_frames))
    step_mask = padded.view(len(padded), -1, patch_frames).any(-1)  # (B, steps)
    return step_mask.repeat_interleave(num_bands, dim=1)


def time_steps_of(tokens: Tensor, num_bands: int) -> Tensor:
    """Groups padded tokens by time step: (B, N, ...) -> (B, N / num_bands, num_bands, ...)."""
    return tokens.unflatten(1, (-1, num_bands))


__all__ = ["patch_mask", "patchify", "time_steps_of"]

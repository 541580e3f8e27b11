# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Augmentation of normalised log-mels in the recipes for fine-tuning: SpecAugment's bands and random resize crop.

Everything is drawn from the generator that is passed. Pre-training has its own SpecAugment, in the models.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CANVAS_TIME = 1.5  # length of the canvas around a clip of length 1; M2D-CLAP Table IV, EVAR
CROP_SCALES = (0.6, 1.5)  # of height and width of a crop, relative to the clip; EVAR


def spec_augment_bands(
    input_features: Tensor,
    mel_width: int,
    time_width: int,
    generator: torch.Generator,
    *,
    per_clip: bool = False,
) -> Tensor:
    """Log-mels with one band of mel bins and then one stretch of frames set to 0, the mean after normalisation.

    Width and place are those of torchaudio's masking: of a width u * `mel_width`, u uniform in [0, 1), the whole part
    is hidden, from a uniform place that leaves room for the unrounded width. EVAR has one draw for the whole batch.

    Args:
        input_features: (B, T, F) normalised log-mel.
        mel_width: exclusive upper end of the band's width; 0: none. No wider than F (our choice).
        time_width: the same of the stretch, in frames of the padded batch.
        generator: of the CPU.
        per_clip: draws for each clip, as AudioMAE does. (It hides with 0 before normalising, which is not the mean.)
    """
    batch, num_frames, num_bins = input_features.shape
    rows = batch if per_clip else 1
    hide_mel = _band(num_bins, mel_width, rows, generator).unsqueeze(1)  # (rows, 1, F)
    hide_time = _band(num_frames, time_width, rows, generator).unsqueeze(2)  # (rows, T, 1)
    return input_features.masked_fill((hide_mel | hide_time).to(input_features.device), 0.0)


def random_resize_crop(
    input_features: Tensor, generator: torch.Generator, input_features_mask: Tensor | None = None
) -> Tensor:
    """A random part of each clip, shorter or longer than it, stretched to its size (BYOL-A; M2D-CLAP Table IV).

    The clip lies in the middle of a canvas of zeros, as high and 1.5 times as long. A rectangle of uniform size, from
    0.6 to 1.5 times the clip's and no larger than the canvas, is cut out at a uniform place and resized.

    Args:
        input_features: (B, T, F) normalised log-mel.
        generator: of the CPU.
        input_features_mask: (B, T) True at the real frames, which come first; padding is left as it is. None: all are.

    Returns:
        (B, T, F).
    """
    batch, num_frames, _ = input_features.shape
    lengths = [num_frames] * batch if input_features_mask is None else input_features_mask.sum(1).tolist()
    output = input_features.clone()
    for row, length in enumerate(lengths):
        if length > 0:
            output[row, :length] = _cropped(input_features[row, :length], generator)
    return output


def _band(size: int, width: int, rows: int, generator: torch.Generator) -> Tensor:
    """Where one random band narrower than `width` lies: (rows, size) bool."""
    if width == 0:
        return torch.zeros(rows, size, dtype=torch.bool)
    extent = torch.rand(rows, 1, generator=generator) * min(width, size)
    start = (torch.rand(rows, 1, generator=generator) * (size - extent)).long()
    at = torch.arange(size)
    return (at >= start) & (at < start + extent.long())


def _cropped(clip: Tensor, generator: torch.Generator) -> Tensor:
    """A random rectangle of the canvas of one clip, at the clip's size: (T, F) -> (T, F)."""
    num_frames, num_bins = clip.shape
    canvas_frames = int(num_frames * CANVAS_TIME)
    before = (canvas_frames - num_frames) // 2
    canvas = F.pad(clip, (0, 0, before, canvas_frames - num_frames - before))
    bins = _crop_size(num_bins, num_bins, generator)
    frames = _crop_size(num_frames, canvas_frames, generator)
    low = int(torch.randint(num_bins - bins + 1, (), generator=generator))
    first = int(torch.randint(canvas_frames - frames + 1, (), generator=generator))
    crop = canvas[first : first + frames, low : low + bins]
    return F.interpolate(crop[None, None].float(), clip.shape, mode="bicubic", align_corners=True)[0, 0]


def _crop_size(size: int, largest: int, generator: torch.Generator) -> int:
    low, high = CROP_SCALES
    scale = low + (high - low) * float(torch.rand((), generator=generator))
    return min(max(int(scale * size), 1), largest)


__all__ = ["random_resize_crop", "spec_augment_bands"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Positions: rotary embeddings over time and frequency or over text; sine tables of text and of patch grids."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _inverse_frequencies(num_pairs: int, theta: float, device: torch.device) -> Tensor:
    exponents = torch.arange(num_pairs, dtype=torch.float32, device=device) / num_pairs
    return theta**-exponents  # (num_pairs,)


def rotary_angles_2d(time_steps: Tensor, bands: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2-D rotary positions: half of the pairs turn with time, half with frequency.

    The layout is that of Qwen2.5-VL's vision tower: `head_dim / 4` frequencies per axis, both axes concatenated, used
    with the rotate-half convention. Integer positions keep the angle between neighbours independent of the duration.

    Args:
        time_steps: (...) patch column of each token.
        bands: (...) frequency patch of each token.
        head_dim: multiple of 4.
        theta: base of the frequencies.

    Returns:
        Two float32 tensors (..., head_dim / 2).
    """
    inverse = _inverse_frequencies(head_dim // 4, theta, time_steps.device)
    angles = torch.cat([time_steps.unsqueeze(-1) * inverse, bands.unsqueeze(-1) * inverse], dim=-1)
    return angles.cos(), angles.sin()


def rotary_angles_1d(num_tokens: int, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of positions 0..num_tokens-1: two float32 tensors (num_tokens, head_dim / 2)."""
    positions = torch.arange(num_tokens, dtype=torch.float32, device=device)
    angles = positions.unsqueeze(-1) * _inverse_frequencies(head_dim // 2, theta, device)
    return angles.cos(), angles.sin()


def apply_rotary(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (i, i + head_dim / 2) of queries or keys, in float32.

    Args:
        heads: (..., tokens, H, head_dim).
        cos: (tokens, head_dim / 2), or with the leading axes of `heads`.
        sin: as `cos`.
    """
    first, second = heads.float().chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # (tokens, 1, head_dim / 2)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(heads.dtype)


def sinusoidal_positions(num_tokens: int, hidden_size: int, device: torch.device) -> Tensor:
    """Sine table of "Attention is all you need" (3.5), sine and cosine in turn: (num_tokens, hidden_size)."""
    cos, sin = rotary_angles_1d(num_tokens, hidden_size, 10000.0, device)
    return torch.stack([sin, cos], dim=-1).flatten(1)


def sincos_table_2d(num_bands: int, num_columns: int, hidden_size: int) -> Tensor:
    """Fixed table of MAE for a patch grid, row 0 for the class token: (1 + num_bands * num_columns, hidden_size).

    Row 1 + f * num_columns + t holds sines and cosines of t in its first half and of f in its second, with
    frequencies 10000 ** (-i / (hidden_size / 4)); row 0 is zero. Computed in float64, returned in float32.
    """
    quarter = hidden_size // 4
    inverse = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    time = torch.arange(num_columns, dtype=torch.float64).repeat(num_bands).unsqueeze(-1) * inverse
    band = torch.arange(num_bands, dtype=torch.float64).repeat_interleave(num_columns).unsqueeze(-1) * inverse
    table = torch.cat([time.sin(), time.cos(), band.sin(), band.cos()], dim=-1)
    return torch.cat([torch.zeros_like(table[:1]), table]).float()


def resize_table_2d(table: Tensor, num_bands: int, num_columns: int) -> Tensor:
    """The table of a grid with another number of columns: (1 + bands * T, D) -> (1 + bands * num_columns, D).

    A longer table is interpolated bicubically (corners not aligned, no antialiasing), a shorter one is cut off at the
    end, as M2D does for longer training input. The class token's row stays.
    """
    grid = table[1:].unflatten(0, (num_bands, -1))  # (bands, T, D)
    if num_columns <= grid.shape[1]:
        resized = grid[:, :num_columns]
    else:
        image = grid.permute(2, 0, 1).unsqueeze(0).float()
        image = F.interpolate(image, (num_bands, num_columns), mode="bicubic", align_corners=False)
        resized = image[0].permute(1, 2, 0).to(table.dtype)
    return torch.cat([table[:1], resized.flatten(0, 1)])


__all__ = [
    "apply_rotary",
    "resize_table_2d",
    "rotary_angles_1d",
    "rotary_angles_2d",
    "sincos_table_2d",
    "sinusoidal_positions",
]

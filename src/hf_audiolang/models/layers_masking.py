# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Masking: which tokens of each clip the student does not see."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_BLOCK_TOKENS = 4  # smallest drawn block, DINOv2
MIN_ASPECT = 0.3  # block aspect ratios lie between this and its inverse, DINOv2


def random_masked_positions(token_mask: Tensor, masking_ratio: float) -> Tensor:
    """Hides round(ratio * n) of the n real tokens of each clip, uniformly and without replacement (SLAP 2.2.2).

    Args:
        token_mask: (B, N) bool, True at real tokens; at least two in each row.
        masking_ratio: share of tokens hidden, 0..1.

    Returns:
        (B, N) bool, True = hidden; at least one token of each clip is hidden and one visible.
    """
    draws = torch.rand(token_mask.shape, device=token_mask.device).masked_fill(~token_mask, 2.0)
    return _lowest(draws, token_mask, masking_ratio)


def block_masked_positions(token_mask: Tensor, masking_ratio: float, num_bands: int) -> Tensor:
    """Hides rectangles of the (time step, band) grid until the count of `random_masked_positions` is reached.

    Rectangles are drawn as in DINOv2 (area uniform, aspect log-uniform); the count is then made exact with single
    tokens, so that both styles hide the same number.

    Args:
        token_mask: (B, N) bool, True at real tokens; N = steps * num_bands.
        masking_ratio: share of tokens hidden, 0..1.
        num_bands: frequency patches per time step.

    Returns:
        (B, N) bool, True = hidden.
    """
    draws = torch.rand(token_mask.shape, device=token_mask.device)
    steps = (token_mask.sum(1) // num_bands).tolist()
    for row, num_steps in enumerate(steps):
        grid = draws[row].view(-1, num_bands)
        wanted = round(masking_ratio * num_steps * num_bands)
        for _ in range(10 * max(wanted, 1)):
            if int((grid < 0).sum()) >= wanted:
                break
            _hide_block(grid, num_steps, wanted)
    return _lowest(draws.masked_fill(~token_mask, 2.0), token_mask, masking_ratio)


def _hide_block(grid: Tensor, num_steps: int, wanted: int) -> None:
    """Makes one rectangle of `grid` (steps, bands) negative, which sorts it before all other tokens."""
    area = MIN_BLOCK_TOKENS + float(torch.rand(())) * max(wanted - MIN_BLOCK_TOKENS, 0)
    aspect = math.exp((2 * float(torch.rand(())) - 1) * math.log(1 / MIN_ASPECT))
    height = min(max(round(math.sqrt(area * aspect)), 1), grid.shape[1])
    width = min(max(round(area / height), 1), num_steps)
    start = int(torch.randint(num_steps - width + 1, ()))
    band = int(torch.randint(grid.shape[1] - height + 1, ()))
    block = grid[start : start + width, band : band + height]
    block.copy_(-block.abs())


def _lowest(draws: Tensor, token_mask: Tensor, masking_ratio: float) -> Tensor:
    num_tokens = token_mask.sum(1)
    num_hidden = (masking_ratio * num_tokens).round().long()
    num_hidden = torch.minimum(num_hidden.clamp(min=1), num_tokens - 1)
    ranks = draws.argsort(dim=1).argsort(dim=1)
    return ranks < num_hidden.unsqueeze(1)


__all__ = ["block_masked_positions", "random_masked_positions"]

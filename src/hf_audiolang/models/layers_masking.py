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


def uniform_positions(token_mask: Tensor, masking_ratio: float) -> Tensor:
    """Hides n - int(n * (1 - ratio)) of the n real tokens of each clip, uniformly (M2D).

    Args:
        token_mask: (B, N) bool, True at real tokens.
        masking_ratio: share of tokens hidden, 0..1.

    Returns:
        (B, N) bool, True = hidden; 190 tokens at a ratio of 0.7 leave 57 visible.
    """
    draws = torch.rand(token_mask.shape, device=token_mask.device).masked_fill(~token_mask, 2.0)
    num_tokens = token_mask.sum(1)
    num_visible = (num_tokens.double() * (1 - masking_ratio)).floor().long()
    return _lowest_count(draws, num_tokens - num_visible)


def span_positions(token_mask: Tensor, masking_ratio: float, num_bands: int, span_columns: int) -> Tensor:
    """Hides exactly int(T * ratio) of the T patch columns of each clip, in runs of `span_columns` (M2D).

    Runs start anywhere and may overlap or leave the clip; what exceeds the count is shown again from the end.

    Args:
        token_mask: (B, N) bool, frequency-major, N = num_bands * columns.
        masking_ratio: share of columns hidden, 0..1.
        num_bands: frequency patches per column.
        span_columns: columns of one run.

    Returns:
        (B, N) bool, True = hidden.
    """
    columns = token_mask.unflatten(1, (num_bands, -1))[:, 0]  # (B, T)
    hidden = torch.zeros(columns.shape, dtype=torch.bool)
    for row, num_columns in enumerate(columns.sum(1).tolist()):
        wanted = int(num_columns * masking_ratio)
        clip = hidden[row, :num_columns]
        while int(clip.sum()) < wanted:
            start = int(torch.randint(num_columns, ()))
            clip[start : start + span_columns] = True
        clip[clip.nonzero().flatten()[wanted:]] = False
    return hidden.to(token_mask.device).repeat(1, num_bands) & token_mask


def structured_positions(token_mask: Tensor, masking_ratio: float, num_bands: int, keep: str) -> Tensor:
    """Marks whole frequency rows and time columns at random and hides as many tokens as are marked (M2D).

    How many rows and columns are marked is drawn once per batch, which of them for each clip. The published code sorts
    its marks in descending order and so KEEPS the marked tokens first, filling up with the first unmarked ones of the
    grid: that is `keep="marked"`. `keep="unmarked"` hides exactly the marked rows and columns.

    Args:
        token_mask: (B, N) bool, frequency-major, N = num_bands * columns.
        masking_ratio: aimed share of hidden tokens, 0..1.
        num_bands: frequency patches per column.
        keep: "marked" or "unmarked".

    Returns:
        (B, N) bool, True = hidden; clips of equal length have equally many.
    """
    real = token_mask.unflatten(1, (num_bands, -1)).cpu()  # (B, F, T)
    num_rows = min(num_bands - 1, int(num_bands * (masking_ratio + 1 / num_bands) * float(torch.rand(()))))
    marked = torch.zeros(real.shape, dtype=torch.bool)
    for clip, num_columns in zip(marked, real[:, 0].sum(1).tolist(), strict=True):
        share = max(masking_ratio + 0.5 / num_columns - num_rows / num_bands, 0.0)
        clip[torch.randperm(num_bands)[:num_rows]] = True
        clip[:, torch.randperm(num_columns)[: int(num_columns * share)]] = True
    marked &= real
    num_marked = marked.flatten(1).sum(1)
    # kept first: marked, then unmarked, each in grid order; padding last
    order = torch.where(real, (marked if keep == "unmarked" else ~marked).float(), 2.0).flatten(1)
    ranks = order.argsort(dim=1, stable=True).argsort(dim=1)
    num_kept = real.flatten(1).sum(1) - num_marked
    hidden = (ranks >= num_kept.unsqueeze(1)) & real.flatten(1)
    return hidden.to(token_mask.device)


def show_one_each(masked_positions: Tensor, token_mask: Tensor) -> Tensor:
    """Shows the first token of clips that are hidden altogether, as very short ones may be: (B, N) -> (B, N)."""
    is_first = token_mask & (token_mask.cumsum(1) == 1)
    all_hidden = (masked_positions | ~token_mask).all(1, keepdim=True)
    return masked_positions & ~(is_first & all_hidden)


def hide_one_each(masked_positions: Tensor, token_mask: Tensor) -> Tensor:
    """Hides the last token of clips of several tokens that are shown altogether: (B, N) -> (B, N)."""
    num_tokens = token_mask.sum(1, keepdim=True)
    is_last = token_mask & (token_mask.cumsum(1) == num_tokens) & (num_tokens > 1)
    none_hidden = ~(masked_positions & token_mask).any(1, keepdim=True)
    return masked_positions | (is_last & none_hidden)


def _lowest(draws: Tensor, token_mask: Tensor, masking_ratio: float) -> Tensor:
    num_tokens = token_mask.sum(1)
    num_hidden = (masking_ratio * num_tokens).round().long()
    return _lowest_count(draws, torch.minimum(num_hidden.clamp(min=1), num_tokens - 1))


def _lowest_count(draws: Tensor, num_hidden: Tensor) -> Tensor:
    ranks = draws.argsort(dim=1).argsort(dim=1)
    return ranks < num_hidden.unsqueeze(1)


__all__ = [
    "block_masked_positions",
    "hide_one_each",
    "random_masked_positions",
    "show_one_each",
    "span_positions",
    "structured_positions",
    "uniform_positions",
]

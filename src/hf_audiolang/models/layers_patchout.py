# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Patchout: whole rows and columns of patches that are left out of a clip while a classifier is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from .layers_masking import show_one_each, structured_positions, uniform_positions


def structured_patchout_positions(token_mask: Tensor, ratio: float, num_bands: int, keep: str = "marked") -> Tensor:
    """Positions left out by M2D's structured patchout, of the shape that `masked_positions` of its encoder has.

    Random rows and columns of the grid of F x T patches are marked: NF = min(F - 1, int(F * (r + 1 / F) * u)) rows, u
    uniform and one for the batch, and NT = int(T * max(r + 0.5 / T - NF / F, 0)) columns of each clip. As many tokens
    as are marked are left out. The published code sorts the marks in descending order, keeping the first, and
    so keeps marked tokens before unmarked ones: at r = 0.5 on 5 x 62 patches 51 % of the tokens stay and 90 % of them
    are marked. That is `keep="marked"`, the recipe of Table IV; `keep="unmarked"` leaves out what is marked.

    Args:
        token_mask: (B, N) bool, True at real tokens, frequency-major, N = num_bands * columns; of clips in several
            pieces, the mask of the pieces: a row is a grid.
        ratio: aimed share of tokens left out, 0..1.
        num_bands: F, frequency patches per column.
        keep: "marked" or "unmarked".

    Returns:
        (B, N) bool, True = left out; clips of equal length have equally many, and none is left out altogether.
    """
    hidden = torch.zeros_like(token_mask)
    is_used = token_mask.any(1)  # pieces beyond the end of a shorter clip are empty
    hidden[is_used] = structured_positions(token_mask[is_used], ratio, num_bands, keep)
    return show_one_each(hidden, token_mask)


def masked_positions_2d(
    token_mask: Tensor, time_ratio: float, frequency_ratio: float, num_bands: int, *, is_time_major: bool
) -> Tensor:
    """Positions left out by AudioMAE's 2-D masking in fine-tuning: random columns and rows, drawn for each clip.

    int(T * (1 - time_ratio)) of a clip's T columns and int(F * (1 - frequency_ratio)) of the F rows stay, at least one
    of each; a token stays where both do. AudioMAE has 0.2 and 0.2 on 64 x 8 patches, of which 51 x 6 stay.

    Args:
        token_mask: (B, N) bool, True at real tokens; N = num_bands * columns.
        time_ratio: share of the columns left out, 0..1.
        frequency_ratio: share of the rows left out, 0..1.
        num_bands: F, frequency patches per column.
        is_time_major: True if the tokens of a column follow each other, as in SLAP; False if those of a row do, as in
            M2D.

    Returns:
        (B, N) bool, True = left out.
    """
    shape = (-1, num_bands) if is_time_major else (num_bands, -1)
    real = token_mask.unflatten(1, shape)
    real = real if is_time_major else real.transpose(1, 2)  # (B, T, F)
    columns, rows = real[:, :, 0], torch.ones_like(real[:, 0])
    hidden_columns = show_one_each(uniform_positions(columns, time_ratio), columns)
    hidden_rows = show_one_each(uniform_positions(rows, frequency_ratio), rows)
    hidden = (hidden_columns.unsqueeze(2) | hidden_rows.unsqueeze(1)) & real  # (B, T, F)
    return (hidden if is_time_major else hidden.transpose(1, 2)).flatten(1)


__all__ = ["masked_positions_2d", "structured_patchout_positions"]

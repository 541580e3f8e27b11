# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Contrastive loss whose negatives count the more the harder they are (MGA-CLAP 3.4, Eq. 7 and 8).

One direction, on logits s (B, N) shifted so that each row's maximum is 0, with e_ij = exp(gamma s_ij):

    official   W_ij = (N - 1) e_ij / (sum_k e_jk - e_ij)   row sums of row j, as the authors' code broadcasts them
    row        W_ij = (N - 1) e_ij / (sum_k e_ik - e_ij)   what that line seems to mean
    paper      W_ij =  N      e_ij /  sum_k e_ik           Eq. 8

    loss_i = - sum_j target_ij (s_ij - log(1e-7 + sum_k W_ik exp(s_ik))),   W = 1 at pairs

The weights carry gradient, as in the authors' code. gamma = 0 is the plain symmetric cross-entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .losses_distributed import gather_rows

DENOMINATORS = ("official", "row", "paper")
EPS = 1e-7  # in the logarithm; authors' code


def hard_negative_contrastive_loss(
    logits_per_audio: Tensor,
    logits_per_text: Tensor,
    is_pair: Tensor,
    *,
    gamma: float = 0.15,
    denominator: str = "official",
    gathers: bool = True,
) -> Tensor:
    """Symmetric hard-negative guided loss over the pairs of all processes (Eq. 7).

    Each process passes its own rows against the columns of all, so that with gradients averaged over processes, as
    DDP does, the result is that of one process holding the joined batch.

    Args:
        logits_per_audio: (B, N) similarities of own clips to all captions, already divided by the temperature.
        logits_per_text: (B, N) of own captions to all clips.
        is_pair: (B, N) bool, True where row and column are of the same clip; every row has at least one.
        gamma: sharpness of the weights, 0 for none; the paper's 0.10 to 0.15.
        denominator: one of "official", "row", "paper".
        gathers: columns are those of all processes; False: those of this process alone.

    Returns:
        () mean over rows and directions, in nats.

    Raises:
        ValueError: for an unknown denominator.
    """
    if denominator not in DENOMINATORS:
        raise ValueError(f"Unknown `denominator` {denominator!r}. Choose one of {list(DENOMINATORS)}.")
    targets = is_pair / is_pair.sum(1, keepdim=True)

    def one_direction(logits: Tensor) -> Tensor:
        if gamma == 0:
            return -(targets * logits.log_softmax(1)).sum(1).mean()
        logits = logits - logits.amax(1, keepdim=True).detach()
        weights = _negative_weights(gamma * logits, is_pair, denominator, gathers)
        normalizer = (EPS + (weights * logits.exp()).sum(1, keepdim=True)).log()
        return -(targets * (logits - normalizer)).sum(1).mean()

    return (one_direction(logits_per_audio) + one_direction(logits_per_text)) / 2


def embedding_regularizer(embeds: Tensor) -> Tensor:
    """Mean absolute value over the norm of the whole matrix, an extra term of the authors' code: (N, E) -> ().

    For unit rows it lies between 1 / (E sqrt(N)), one entry per row, and 1 / sqrt(E N), all entries alike.
    """
    return embeds.abs().mean() / embeds.square().sum().sqrt()


def _negative_weights(scaled: Tensor, is_pair: Tensor, denominator: str, gathers: bool) -> Tensor:
    """Weights (B, N) of all columns, 1 at pairs, from gamma times the shifted logits."""
    hardness, num_columns = scaled.exp(), scaled.shape[1]
    row_sums = hardness.sum(1)  # (B,)
    if denominator == "paper":
        factor, divisor = num_columns, row_sums.unsqueeze(1).expand_as(hardness)
    else:
        factor = num_columns - 1
        of_columns = gather_rows(row_sums) if gathers else row_sums  # (N,)
        divisor = (of_columns if denominator == "official" else row_sums.unsqueeze(1)) - hardness
    # 0 / 0 at the only pair of a batch would make the gradient NaN even where the quotient is not taken. Elsewhere 0
    # comes of logits hundreds apart, where the authors' code gives infinity.
    quotient = factor * hardness / divisor.masked_fill(is_pair, 1.0).clamp(min=EPS)
    return torch.where(is_pair, 1.0, quotient)


__all__ = ["DENOMINATORS", "embedding_regularizer", "hard_negative_contrastive_loss"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Contrastive losses between clips and captions, over the batches of all processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses_distributed import gather_rows, gather_unequal_rows, process_rank, world_size


def contrastive_loss(audio_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the in-batch pairs of all processes (SLAP Eq. 3 with the minus sign it lacks; CLAP).

    Each process scores its own rows against the columns of all; with gradients averaged over processes, as DDP does,
    the result is that of one process holding the joined batch.

    Args:
        audio_embeds: (B, E) unit-norm clip embeddings; row i is paired with row i of `text_embeds`.
        text_embeds: (B, E) unit-norm caption embeddings.
        logit_scale: () positive multiplier 1/temperature, already exponentiated.

    Returns:
        () mean over the 2B softmax cross-entropies, in nats; log of the global batch when all pairs look alike.

    Raises:
        ValueError: if the two batches differ in shape.
    """
    targets = _own_columns(audio_embeds, text_embeds)
    loss_per_audio = F.cross_entropy(logit_scale * audio_embeds @ gather_rows(text_embeds).T, targets)
    loss_per_text = F.cross_entropy(logit_scale * text_embeds @ gather_rows(audio_embeds).T, targets)
    return (loss_per_audio + loss_per_text) / 2


def ungathered_contrastive_loss(audio_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor) -> Tensor:
    """The value of `contrastive_loss` with the gradient of published code that gathers without gradient.

    Every process scores all pairs, but only its own rows carry gradient. After DDP's averaging over W processes the
    encoders receive 1 / W of the true gradient, `logit_scale` all of it (M2D-CLAP's code; W = 4 in its training).
    Arguments and result as `contrastive_loss`; the two are one and the same with one process.
    """
    targets = _own_columns(audio_embeds, text_embeds)
    all_audio, all_text = gather_rows(audio_embeds.detach()), gather_rows(text_embeds.detach())
    all_audio = all_audio.index_copy(0, targets, audio_embeds)
    all_text = all_text.index_copy(0, targets, text_embeds)
    logits = logit_scale * all_audio @ all_text.T
    targets = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def sigmoid_contrastive_loss(
    audio_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, logit_bias: Tensor
) -> Tensor:
    """Pairwise sigmoid loss (SigLIP Eq. 1) over the pairs of all processes.

    Args:
        audio_embeds: (B, E) unit-norm clip embeddings; row i is paired with row i of `text_embeds`.
        text_embeds: (B, E) unit-norm caption embeddings.
        logit_scale: () positive multiplier, already exponentiated.
        logit_bias: () added to every logit.

    Returns:
        () sum over captions, mean over clips, in nats.

    Raises:
        ValueError: if the two batches differ in shape.
    """
    targets, all_text = _own_columns(audio_embeds, text_embeds), gather_rows(text_embeds)
    logits = logit_scale * audio_embeds @ all_text.T + logit_bias
    signs = 2.0 * F.one_hot(targets, len(all_text)) - 1.0  # +1 for the pair, -1 for all others
    return -F.logsigmoid(signs * logits).sum(1).mean()


def summed_contrastive_loss(
    audio_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: float,
    *,
    kind: str = "infonce",
    reduction: str = "sum",
) -> Tensor:
    """InfoNCE or pairwise sigmoid loss, both directions, summed over the pairs of all processes (CaptionStew's code).

    Processes may hold different numbers of pairs. Each scores its own rows against the columns of all; averaged over
    processes, as DDP averages gradients, value and gradient are those of one process holding the joined batch.

    Args:
        audio_embeds: (B, E) unit-norm clip embeddings; row i is paired with row i of `text_embeds`.
        text_embeds: (B, E) unit-norm caption embeddings.
        logit_scale: positive multiplier 1/temperature.
        kind: "infonce" for softmax cross-entropies, "sigmoid" for binary ones of every pair, without a bias.
        reduction: "sum", or "mean" over the clips of all processes and both directions.

    Returns:
        () in nats; 2 N log N with "infonce" and "sum" when all N pairs look alike.

    Raises:
        ValueError: if the two batches differ in shape.
    """
    all_text, offset = gather_unequal_rows(text_embeds)
    targets = _own_columns(audio_embeds, text_embeds, offset)
    logits_per_audio = logit_scale * audio_embeds @ all_text.T  # (B, N)
    if kind == "sigmoid":
        is_pair = F.one_hot(targets, len(all_text)).to(logits_per_audio.dtype)
        # the other direction has the same pairs
        total = 2 * F.binary_cross_entropy_with_logits(logits_per_audio, is_pair, reduction="sum")
    else:
        logits_per_text = logit_scale * text_embeds @ gather_unequal_rows(audio_embeds)[0].T
        total = F.cross_entropy(logits_per_audio, targets, reduction="sum")
        total = total + F.cross_entropy(logits_per_text, targets, reduction="sum")
    total = total * world_size()
    return total if reduction == "sum" else total / (2 * len(all_text))


def _own_columns(audio_embeds: Tensor, text_embeds: Tensor, offset: int | None = None) -> Tensor:
    """Where the pairs of this process stand among the rows of all, `offset` on if numbers differ: (B,)."""
    if audio_embeds.shape != text_embeds.shape:
        raise ValueError(
            f"`audio_embeds` and `text_embeds` must have the same shape, got {tuple(audio_embeds.shape)} and "
            f"{tuple(text_embeds.shape)}. Pass one caption per clip."
        )
    offset = process_rank() * len(audio_embeds) if offset is None else offset
    return torch.arange(len(audio_embeds), device=audio_embeds.device) + offset


__all__ = [
    "contrastive_loss",
    "sigmoid_contrastive_loss",
    "summed_contrastive_loss",
    "ungathered_contrastive_loss",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Captioning loss: cross-entropy of the next token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses_distributed import global_mean

IGNORED = -100  # target of padding, transformers' convention


def caption_loss(hidden_states: Tensor, output_embedding: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the real target tokens of all processes (SLAP Eq. 6), in nats.

    The vocabulary is scored at real targets only.

    Args:
        hidden_states: (B, L, D) decoder states.
        output_embedding: (V, D).
        targets: (B, L) token ids, -100 at padding.
    """
    is_real = targets != IGNORED
    logits = hidden_states[is_real] @ output_embedding.T.to(hidden_states.dtype)  # (real tokens, V)
    total = F.cross_entropy(logits.float(), targets[is_real], reduction="sum")
    return global_mean(total, torch.count_nonzero(is_real))


__all__ = ["IGNORED", "caption_loss"]

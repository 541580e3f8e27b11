# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Poolers: many vectors to one."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers_mlp import GeluMlp
from .layers_packing import PackedLayout


def masked_mean(hidden_states: Tensor, mask: Tensor) -> Tensor:
    """Mean over real positions: (B, T, D) with bool mask (B, T) -> (B, D); padding may hold anything."""
    kept = torch.where(mask.unsqueeze(-1), hidden_states, 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def unit_rows(embeds: Tensor) -> Tensor:
    """Rows of length 1, computed in float32: (B, E) -> (B, E)."""
    return F.normalize(embeds.float(), dim=-1).to(embeds.dtype)


def embed_steps(steps: Tensor, frame_mask: Tensor, embed: Callable[[Tensor, PackedLayout], Tensor]) -> Tensor:
    """Embeds each time step by itself, as if it were a clip: (B, T', E), zeros at padding.

    Args:
        steps: (B, T', bands, D) tokens of every time step.
        frame_mask: (B, T') bool, True at real steps.
        embed: packed tokens (N, D) and their layout -> (number of sequences, E).
    """
    real_steps = steps[frame_mask]  # (real steps, bands, D)
    every_band = torch.ones(real_steps.shape[:2], dtype=torch.bool, device=steps.device)
    frames = embed(real_steps.flatten(0, 1), PackedLayout.from_mask(every_band))
    frame_features = frames.new_zeros(*frame_mask.shape, frames.shape[-1])
    frame_features[frame_mask] = frames
    return frame_features


class AttentionPooling(nn.Module):
    """Multi-head attention pooling (MAP): a learned query attends to all tokens of a sequence.

    The structure is SigLIP's pooling head, without biases and with RMSNorm as in the rest of SLAP:
    `y = attention(query, tokens); y + MLP(norm(y))`.
    """

    def __init__(self, hidden_size: int, num_heads: int, rms_norm_eps: float = 1e-6):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.empty(1, hidden_size))
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.k_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.v_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.norm = nn.RMSNorm(hidden_size, eps=rms_norm_eps)
        self.mlp = GeluMlp(hidden_size, 4 * hidden_size)

    def forward(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Pools every sequence of a packed tensor: (N, D) -> (B, D) in batch order.

        Scores and sums are float32. On CUDA the sums run in no fixed order, so the last bits may vary.
        """
        split = (-1, self.num_heads, tokens.shape[-1] // self.num_heads)
        query = self.q_proj(self.query).view(split)
        key, value = self.k_proj(tokens).view(split), self.v_proj(tokens).view(split)
        scores = (key.float() * query.float()).sum(-1) * split[-1] ** -0.5  # (N, H)
        pooled = _softmax_sum(scores, value.float(), layout)  # (B, H, head_dim)
        pooled = self.o_proj(pooled.flatten(1).to(tokens.dtype)).to(self.norm.weight.dtype)
        return pooled + self.mlp(self.norm(pooled))


def _softmax_sum(scores: Tensor, value: Tensor, layout: PackedLayout) -> Tensor:
    """Sum of `value` (N, H, d) weighted by the softmax of `scores` (N, H) within each sequence: (B, H, d)."""
    batch = layout.num_sequences
    seq_ids = layout.seq_ids
    with torch.no_grad():
        highest = torch.full((batch, scores.shape[1]), float("-inf"), device=scores.device)
        highest.scatter_reduce_(0, seq_ids.unsqueeze(-1).expand_as(scores), scores.detach(), "amax")
    weights = (scores - highest[seq_ids]).exp()  # (N, H)
    total = weights.new_zeros(batch, weights.shape[1]).index_add(0, seq_ids, weights)
    summed = value.new_zeros(batch, *value.shape[1:]).index_add(0, seq_ids, weights.unsqueeze(-1) * value)
    return summed / total.unsqueeze(-1)


__all__ = ["AttentionPooling", "embed_steps", "masked_mean", "unit_rows"]

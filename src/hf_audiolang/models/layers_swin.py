# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Parts of a Swin transformer (Liu et al., 2021) on tokens that are kept in the order of their windows.

In that order the tokens of a window lie side by side, so that attention needs no partition and no reversal; every
other part works on single tokens and does not care. Only where windows are shifted or patches merged are tokens moved,
once. Parameter names are those of transformers' Swin and CLAP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def window_order(side: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Row-major grid index of every token in window order: (side * side,).

    Args:
        side: tokens on a side of the grid.
        window: tokens on a side of a window.
        shift: windows begin this many tokens further down and right; those at the border wrap around.
        device: where to make it.
    """
    grid = torch.arange(side * side, device=device).view(side, side).roll((-shift, -shift), (0, 1))
    return grid.view(side // window, window, side // window, window).transpose(1, 2).flatten()


def wrapped_window_mask(side: int, window: int, shift: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 between tokens of a shifted window that are neighbours, -100 across the border of the grid: (windows, L, L).

    -100 and not minus infinity, as in the code that published weights were trained with.
    """
    at = torch.arange(side, device=device)
    part = (at >= side - window).long() + (at >= side - shift).long()  # 0 before the wrapped window, then 1 | 2
    region = (3 * part.unsqueeze(1) + part).flatten()[window_order(side, window, 0, device)].view(-1, window * window)
    return torch.where(region.unsqueeze(1) == region.unsqueeze(2), 0.0, -100.0).to(dtype)


def inverse_of(index: Tensor) -> Tensor:
    """The inverse of a permutation (N,): the place of each entry."""
    return torch.empty_like(index).scatter_(0, index, torch.arange(len(index), device=index.device))


class _Reorder(torch.autograd.Function):
    """Rows picked by a permutation; the gradient is picked by the inverse, where plain indexing would add it up."""

    @staticmethod
    def forward(ctx, tokens: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return tokens.index_select(1, index)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return reorder(grad, inverse_of(index)), None


def reorder(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens (B, N, C) in another order; `index` (N,) is a permutation."""
    return _Reorder.apply(tokens, index)


def drop_path(update: Tensor, rate: float, training: bool) -> Tensor:
    """Update (B, N, C) of a residual, left out for a random part of the clips and scaled up for the others."""
    if not training or rate == 0:
        return update
    kept = torch.rand(len(update), 1, 1, device=update.device) >= rate
    return update * (kept.to(update.dtype) / (1 - rate))


class Dense(nn.Module):
    """A linear layer one name deeper, where transformers' checkpoints have it."""

    def __init__(self, in_size: int, out_size: int):
        super().__init__()
        self.dense = nn.Linear(in_size, out_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns the projection (..., out size)."""
        return self.dense(hidden_states)


class WindowSelfAttention(nn.Module):
    """Attention inside each window with a learned bias per head and relative position."""

    def __init__(self, config, width: int, num_heads: int):
        """`config` gives window, dropout, biases and how attention is computed."""
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=config.qkv_bias)
        self.key = nn.Linear(width, width, bias=config.qkv_bias)
        self.value = nn.Linear(width, width, bias=config.qkv_bias)
        num_offsets = 2 * config.window_size - 1
        length = config.window_size**2
        self.relative_position_bias_table = nn.Parameter(torch.empty(num_offsets**2, num_heads))
        self.register_buffer("relative_position_index", torch.empty(length, length, dtype=torch.long))

    def offset_index(self) -> Tensor:
        """Row of the bias table for each pair of tokens of a window: (L, L)."""
        window = self.config.window_size
        at = torch.arange(window)
        down, right = at.repeat_interleave(window), at.repeat(window)  # (L,)
        down = down.unsqueeze(1) - down + window - 1
        right = right.unsqueeze(1) - right + window - 1
        return down * (2 * window - 1) + right

    def forward(self, windows: Tensor, wrapped_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Attends within windows.

        Args:
            windows: (B, W, L, C) tokens of each window.
            wrapped_mask: (W, L, L) of `wrapped_window_mask` for shifted windows, or None.

        Returns:
            (B, W, L, C), and the attention weights (B, W, H, L, L) with eager attention, else None.
        """
        query, key, value = self.heads(windows)
        bias = self.bias(wrapped_mask).to(query.dtype)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        is_eager = self.config._attn_implementation == "eager"
        attend = attend_by_products if is_eager or windows.device.type == "cpu" else attend_fused
        context, weights = attend(query, key, value, bias, dropout)
        shape = (*windows.shape[:2], self.num_heads, windows.shape[2])
        context = context.view(*shape, -1).transpose(2, 3).flatten(3)
        return context, weights.view(*shape, -1) if is_eager else None

    def heads(self, windows: Tensor) -> list[Tensor]:
        """Queries, keys and values of each window and head: (B, W, L, C) -> 3 x (B * W * H, L, head_dim)."""
        # three products: one of the joined weights is no faster, and would pass by an adapter on one of them
        parts = (layer(windows) for layer in (self.query, self.key, self.value))
        return [part.unflatten(-1, (self.num_heads, -1)).transpose(2, 3).flatten(0, 2) for part in parts]

    def bias(self, wrapped_mask: Tensor | None) -> Tensor:
        """What is added to the scores: (H, L, L) for all windows alike, or (W * H, L, L)."""
        # not by indexing, whose gradient is summed in no fixed order when there are several threads
        bias = F.embedding(self.relative_position_index, self.relative_position_bias_table)
        bias = bias.permute(2, 0, 1).contiguous()
        return bias if wrapped_mask is None else (bias + wrapped_mask.unsqueeze(1)).flatten(0, 1)

    def similarities(self, windows: Tensor, wrapped_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where tokens look, and where they would look if values were compared (MGA-CLAP Fig. 3).

        Args:
            windows: see `forward`; `wrapped_mask` too.
            wrapped_mask: see `forward`.

        Returns:
            Attention weights from queries and keys, and the softmax of the values' scaled dot products: (B, W, L, L)
            each, means over heads.
        """
        query, key, value = self.heads(windows)
        bias = self.bias(wrapped_mask)
        no_bias = torch.zeros_like(bias) if wrapped_mask is None else wrapped_mask.repeat_interleave(self.num_heads, 0)
        maps = (_weights(query, key, bias), _weights(value, value, no_bias))
        shape = (*windows.shape[:2], self.num_heads, windows.shape[2], windows.shape[2])
        return tuple(weights.view(shape).mean(2) for weights in maps)


def attend_by_products(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float
) -> tuple[Tensor, Tensor]:
    """Attention as two batched products, which for short windows is faster on a CPU than the fused kernel.

    Args:
        query: (B * W * H, L, head_dim), windows and heads one after the other; `key` and `value` alike.
        key: see `query`.
        value: see `query`.
        bias: (H, L, L) or (W * H, L, L), added to the scores.
        dropout: share of weights set to 0.

    Returns:
        (B * W * H, L, head_dim), and the weights (B * W * H, L, L) before dropout.
    """
    weights = _weights(query, key, bias)
    return (F.dropout(weights, dropout) if dropout > 0 else weights) @ value, weights


def attend_fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float) -> tuple[Tensor, None]:
    """The same as `attend_by_products` by torch's fused kernels, which keep no weights."""
    query, key, value = (part.unflatten(0, (-1, len(bias))) for part in (query, key, value))
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.unsqueeze(0), dropout_p=dropout)
    return context.flatten(0, 1), None


def _weights(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    scores = bias.repeat(len(query) // len(bias), 1, 1)
    return scores.baddbmm_(query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5).softmax(-1)


class WindowAttention(nn.Module):
    """Attention in windows and its output projection."""

    def __init__(self, config, width: int, num_heads: int):
        super().__init__()
        self.self = WindowSelfAttention(config, width, num_heads)
        self.output = Dense(width, width)


class PatchMerging(nn.Module):
    """Four neighbours to one token of twice the width."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, hidden_states: Tensor, order: Tensor, coarse_order: Tensor) -> Tensor:
        """Returns (B, N / 4, 2 C) from (B, N, C).

        Args:
            hidden_states: tokens in the order `order`.
            order: (N,) row-major grid index of each token.
            coarse_order: (N / 4,) the same for the new tokens, on the grid of half the side.
        """
        side = round(len(order) ** 0.5)
        row, column = coarse_order // (side // 2), coarse_order % (side // 2)
        corner = (2 * row * side + 2 * column).unsqueeze(1)
        neighbours = torch.cat([corner, corner + side, corner + 1, corner + side + 1], 1)  # left before right
        neighbours = reorder(hidden_states, inverse_of(order)[neighbours.flatten()])
        return self.reduction(self.norm(neighbours.unflatten(1, (-1, 4)).flatten(2)))


__all__ = [
    "Dense",
    "PatchMerging",
    "WindowAttention",
    "WindowSelfAttention",
    "attend_by_products",
    "attend_fused",
    "drop_path",
    "inverse_of",
    "reorder",
    "window_order",
    "wrapped_window_mask",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Attention over packed sequences, with or without a sliding window, and the padded forms that must equal it.

Back ends of `packed_attention`, all equal within rounding:

    loop    CPU, and float32 on CUDA: sequences of equal length run as one batch, sliding windows as blocks
    varlen  CUDA in half precision: one call of torch's variable-length kernel
    flash   CUDA in half precision: transformers' flash-attention interface
    mask    the padded batch in plain operations: the reference, and the only one that returns weights
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .layers_packing import PackedLayout, pack, unpack
from .layers_position import apply_rotary

PastKeys = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
BLOCK_TOKENS = 96  # queries per block of the sliding loop back end; 32 to 96 are equally fast, larger is slower


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: PackedLayout,
    *,
    window: int | None = None,
    backend: str = "loop",
    module: nn.Module | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Bidirectional attention inside each sequence of a packed tensor.

    Args:
        query: (N, H, head_dim) in packed order; `key` and `value` alike.
        key: see `query`.
        value: see `query`.
        layout: which token belongs to which sequence.
        window: a token sees the tokens at most this far away, on both sides and inclusive; None sees all.
        backend: one of "loop", "varlen", "flash", "mask".
        module: the calling layer, which transformers' flash interface wants to see.

    Returns:
        (N, H, head_dim), and the attention weights (B, H, L, L) with the "mask" back end, else None.

    Raises:
        ValueError: for an unknown back end.
    """
    if window is not None and layout.max_length <= window + 1:
        window = None
    if backend == "loop":
        return _by_groups(query, key, value, layout, window), None
    if backend == "varlen":
        return _varlen(query, key, value, layout, window), None
    if backend == "flash":
        return _flash(query, key, value, layout, window, module), None
    if backend == "mask":
        return _masked(query, key, value, layout, window)
    raise ValueError(f"Unknown `backend` {backend!r}. Choose one of 'flash', 'loop', 'mask', 'varlen'.")


def choose_backend(attn_implementation: str, query: Tensor) -> str:
    """Back end for transformers' attention name, the device and the dtype of the queries.

    Raises:
        ValueError: for an attention that packed sequences cannot run with.
    """
    if attn_implementation == "eager":
        return "mask"
    if "flash" in attn_implementation:
        return "flash"
    if attn_implementation != "sdpa":
        raise ValueError(
            f"`attn_implementation` {attn_implementation!r} knows no packed sequences. Choose 'sdpa', 'eager' or one "
            "of the flash attentions."
        )
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return "varlen" if query.is_cuda and is_half else "loop"


def masked_attention(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Attention in plain operations, softmax in float32.

    Args:
        query: (..., queries, H, head_dim).
        key: (..., keys, H, head_dim); `value` alike.
        value: see `key`.
        keep: bool, broadcastable to (..., H, queries, keys), True where attention is allowed.
        dropout: share of the weights that is dropped.

    Returns:
        (..., queries, H, head_dim) and the weights (..., H, queries, keys).
    """
    scores = query.transpose(-3, -2) @ key.transpose(-3, -2).transpose(-2, -1) * query.shape[-1] ** -0.5
    weights = scores.float().masked_fill(~keep, float("-inf")).softmax(-1).to(query.dtype)
    return (F.dropout(weights, dropout, dropout > 0) @ value.transpose(-3, -2)).transpose(-3, -2), weights


def _by_groups(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, window: int | None) -> Tensor:
    """One call per group of equally long sequences, which never see each other, not even as masked keys."""
    sizes = [count * length for count, length in layout.groups]
    masks = _window_masks(layout, window)
    outputs = []
    parts = zip(query.split(sizes), key.split(sizes), value.split(sizes), layout.groups, strict=True)
    for q, k, v, (count, length) in parts:
        batched = [part.unflatten(0, (count, length)) for part in (q, k, v)]  # (count, length, H, head_dim)
        mask = masks.get(length)
        attend = _whole if mask is None or mask.ndim == 2 else _by_blocks
        outputs.append(attend(*batched, mask).flatten(0, 1))
    return torch.cat(outputs)


def _whole(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Every query against every key of its sequence: (count, length, H, head_dim), `mask` (length, length) or None."""
    heads_first = (part.transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=mask).transpose(1, 2)


def _by_blocks(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Blocks of queries against the keys within reach.

    Args:
        query: (count, length, H, head_dim); `key` and `value` alike.
        key: see `query`.
        value: see `query`.
        mask: (blocks, 1, block, span), see `_window_masks`.
    """
    count, length = query.shape[:2]
    num_blocks, _, block, span = mask.shape
    window, tail = (span - block) // 2, num_blocks * block - length
    queries = F.pad(query, (0, 0, 0, 0, 0, tail)).unflatten(1, (num_blocks, block)).flatten(0, 1).transpose(1, 2)
    around = [
        F.pad(part, (0, 0, 0, 0, window, tail + window)).unfold(1, span, block).flatten(0, 1).transpose(2, 3)
        for part in (key, value)
    ]  # (count * blocks, H, span, head_dim)
    output = F.scaled_dot_product_attention(queries, *around, attn_mask=mask.repeat(count, 1, 1, 1))
    return output.transpose(1, 2).reshape(count, num_blocks * block, *query.shape[2:])[:, :length]


def _window_masks(layout: PackedLayout, window: int | None) -> dict[int, Tensor]:
    """Mask of each length that exceeds the window, built once per layout.

    Short sequences have a band (length, length); long ones, where blocks visit fewer keys, (blocks, 1, block, span).
    """
    if window is None:
        return {}
    if ("loop", window) not in layout.cached_masks:
        device = layout.seq_ids.device
        lengths = [length for _, length in layout.groups if length > window + 1]
        make = {length: _band_mask if length <= BLOCK_TOKENS + 2 * window else _block_mask for length in lengths}
        layout.cached_masks["loop", window] = {length: make[length](length, window, device) for length in lengths}
    return layout.cached_masks["loop", window]


def _band_mask(length: int, window: int, device: torch.device) -> Tensor:
    at = torch.arange(length, device=device)
    return (at.unsqueeze(0) - at.unsqueeze(1)).abs() <= window


def _block_mask(length: int, window: int, device: torch.device) -> Tensor:
    num_blocks = -(-length // BLOCK_TOKENS)
    starts = torch.arange(num_blocks, device=device).view(-1, 1, 1, 1) * BLOCK_TOKENS
    query_at = starts + torch.arange(BLOCK_TOKENS, device=device).unsqueeze(-1)
    key_at = starts + torch.arange(BLOCK_TOKENS + 2 * window, device=device) - window
    is_real = (key_at >= 0) & (key_at < length)
    # rows after the end attend anywhere near: a row without keys would give NaN
    return ((query_at - key_at).abs() <= window) & (is_real | (query_at >= length))


def _masked(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, window: int | None
) -> tuple[Tensor, Tensor]:
    """The padded form in plain operations."""
    if ("padded", window) not in layout.cached_masks:
        layout.cached_masks["padded", window] = padding_mask(layout.token_mask, window)
    padded = (unpack(part, layout) for part in (query, key, value))
    output, weights = masked_attention(*padded, layout.cached_masks["padded", window])
    return pack(output, layout), weights


def padding_mask(token_mask: Tensor, window: int | None = None) -> Tensor:
    """Attention mask of a padded batch: bool (B, L) -> (B, 1, 1 or L, L), within the window if there is one."""
    keep = token_mask[:, None, None, :]
    if window is None:
        return keep
    at = torch.arange(token_mask.shape[1], device=token_mask.device)
    distance = (at.unsqueeze(0) - at.unsqueeze(1)).abs()
    # a row of padding far from all real tokens sees itself: a row without keys would give NaN
    return (keep & (distance <= window)) | (distance == 0)


def _varlen(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    bounds, longest = layout.cu_seqlens, layout.max_length
    window_size = (-1, -1) if window is None else (window, window)
    return varlen_attn(query, key, value, bounds, bounds, longest, longest, window_size=window_size)


def _flash(
    query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, window: int | None, module: nn.Module
) -> Tensor:
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, None)
    output, _ = attend(
        module,
        *(part.transpose(0, 1).unsqueeze(0) for part in (query, key, value)),  # (1, H, N, head_dim)
        None,
        # the interface counts the token itself: window + 1 reaches `window` tokens to either side
        sliding_window=None if window is None else window + 1,
        is_causal=False,
        cu_seq_lens_q=layout.cu_seqlens,
        cu_seq_lens_k=layout.cu_seqlens,
        max_length_q=layout.max_length,
        max_length_k=layout.max_length,
    )
    return output.squeeze(0)


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions: packed, padded, or causal."""

    is_causal = False

    def __init__(
        self,
        config,
        use_bias: bool = False,
        window: int | None = None,
        hidden_size: int | None = None,
        num_heads: int | None = None,
    ):
        """Sizes default to those of `config`, which also says how attention is computed."""
        super().__init__()
        self.config = config
        width = hidden_size or config.hidden_size
        self.num_heads = num_heads or config.num_attention_heads
        self.head_dim = width // self.num_heads
        self.window = window
        self.q_proj = nn.Linear(width, width, bias=use_bias)
        self.k_proj = nn.Linear(width, width, bias=use_bias)
        self.v_proj = nn.Linear(width, width, bias=use_bias)
        self.o_proj = nn.Linear(width, width, bias=use_bias)

    def forward(
        self,
        hidden_states: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        layout: PackedLayout | None,
        keep: Tensor,
        past: PastKeys | None = None,
        dropout: float = 0.0,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends within each sequence.

        Args:
            hidden_states: (N, D) packed with `layout`, or (B, L, D) without.
            rotary: cosine and sine per token, or None for no rotary positions.
            layout: the packing, or None.
            keep: without `layout`, bool broadcastable to (B, H, L, L), True where attention is allowed.
            past: without `layout`, keys and values (B, L, H, head_dim) of these tokens -> those of the tokens before
                and of these, which `keep` then covers.
            dropout: without `layout`, share of the attention weights that is dropped.

        Returns:
            The shape of `hidden_states`, and the weights with eager attention.
        """
        split = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).view(split)
        key = self.k_proj(hidden_states).view(split)
        value = self.v_proj(hidden_states).view(split)
        if rotary is not None:
            query, key = apply_rotary(query, *rotary), apply_rotary(key, *rotary)
        if layout is not None:
            backend = choose_backend(self.config._attn_implementation, query)
            output, weights = packed_attention(
                query, key, value, layout, window=self.window, backend=backend, module=self
            )
        else:
            key, value = (key, value) if past is None else past(key, value)
            implementation = self.config._attn_implementation
            output, weights = padded_attention(query, key, value, keep, implementation, dropout)
        return self.o_proj(output.flatten(-2)), weights

    def pool(self, hidden_states: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor]:
        """Attention of each sequence's first token over the whole sequence, all that a pooling block needs.

        Args:
            hidden_states: (N, D) packed with `layout`.

        Returns:
            (S, D) one row per sequence in packed order, and the weights (N, H), which sum to 1 over a sequence.
        """
        heads = (self.num_heads, self.head_dim)
        first = hidden_states.index_select(0, layout.cu_seqlens[:-1])
        query = self.q_proj(first).unflatten(-1, heads)  # (S, H, head_dim)
        key = self.k_proj(hidden_states).unflatten(-1, heads)
        value = self.v_proj(hidden_states).unflatten(-1, heads)
        sizes = [count * length for count, length in layout.groups]
        counts = [count for count, _ in layout.groups]
        outputs, weights = [], []
        groups = zip(query.split(counts), key.split(sizes), value.split(sizes), layout.groups, strict=True)
        for q, k, v, (count, length) in groups:
            k, v = k.unflatten(0, (count, length)), v.unflatten(0, (count, length))  # (count, length, H, head_dim)
            scores = torch.einsum("chd,clhd->clh", q, k) * self.head_dim**-0.5
            share = scores.float().softmax(1).to(v.dtype)  # (count, length, H)
            outputs.append(torch.einsum("clh,clhd->chd", share, v).flatten(1))
            weights.append(share.flatten(0, 1))
        return self.o_proj(torch.cat(outputs)), torch.cat(weights)


def padded_attention(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor, attn_implementation: str, dropout: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """Attention of a padded batch with a mask; arguments as `masked_attention`, weights only with "eager"."""
    if attn_implementation == "eager":
        return masked_attention(query, key, value, keep, dropout)
    heads_first = (part.transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=keep, dropout_p=dropout).transpose(1, 2), None


def step_similarities(left: Tensor, right: Tensor, num_heads: int) -> Tensor:
    """Softmax of products between the tokens of time steps (MGA-CLAP Figure 3): rows of sum 1, (B, T', T').

    Args:
        left: (B, T', rows, D) queries, or values.
        right: (B, T', rows, D) keys, or values.
        num_heads: heads that D is split into.

    Returns:
        The mean over heads and over the rows of the step that asks, the sum over the rows of the other.
    """
    steps, rows, width = left.shape[1:]
    left, right = (part.flatten(1, 2).unflatten(2, (num_heads, -1)).transpose(1, 2) for part in (left, right))
    scores = left @ right.transpose(2, 3) * (width // num_heads) ** -0.5
    weights = scores.softmax(-1, dtype=torch.float32).mean(1)  # (B, T' * rows, T' * rows)
    return weights.unflatten(2, (steps, rows)).sum(3).unflatten(1, (steps, rows)).mean(2)


class CrossAttention(nn.Module):
    """Text queries attend to audio tokens; keys and values are computed on real audio tokens only."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.k_proj = nn.Linear(config.encoder_hidden_size, config.hidden_size, bias=config.use_bias)
        self.v_proj = nn.Linear(config.encoder_hidden_size, config.hidden_size, bias=config.use_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)

    def forward(
        self,
        hidden_states: Tensor,
        audio_tokens: Tensor,
        audio_layout: PackedLayout,
        dropout: float = 0.0,
    ) -> Tensor:
        """Returns (B, L, D) from text states (B, L, D) and packed audio tokens (N, D_audio)."""
        key, value = (unpack(part, audio_layout) for part in self.keys_and_values(audio_tokens))
        return self.attend(hidden_states, key, value, audio_layout.token_mask, dropout)

    def keys_and_values(self, audio_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (..., H, head_dim) of audio tokens (..., D_audio)."""
        split = (self.num_heads, self.head_dim)
        return self.k_proj(audio_tokens).unflatten(-1, split), self.v_proj(audio_tokens).unflatten(-1, split)

    def attend(
        self, hidden_states: Tensor, key: Tensor, value: Tensor, token_mask: Tensor, dropout: float = 0.0
    ) -> Tensor:
        """Returns (B, L, D) from text states and keys and values (B, N, H, head_dim), `token_mask` (B, N)."""
        query = self.q_proj(hidden_states).unflatten(-1, (self.num_heads, self.head_dim))
        keep = token_mask[:, None, None, :]
        output, _ = padded_attention(query, key, value, keep, self.config._attn_implementation, dropout)
        return self.o_proj(output.flatten(-2))


__all__ = [
    "CrossAttention",
    "PastKeys",
    "SelfAttention",
    "choose_backend",
    "masked_attention",
    "packed_attention",
    "padded_attention",
    "padding_mask",
    "step_similarities",
]

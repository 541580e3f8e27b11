# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Attention over packed sequences, with or without a sliding window, and the padded forms that must equal it.

Back ends of `packed_attention`, all equal within rounding:

    loop    CPU, and float32 on CUDA: sequences of equal length run as one batch, sliding windows as blocks
    varlen  CUDA in half precision: one call of torch's variable-length kernel
    flash   CUDA in half precision: transformers' flash-attention interface
    mask    dense mask over the whole packed row: the reference, and the only one that returns weights
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .layers_packing import PackedLayout, unpack
from .layers_position import apply_rotary

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
        (N, H, head_dim), and the attention weights (H, N, N) with the "mask" back end, else None.

    Raises:
        ValueError: for an unknown back end.
    """
    if window is not None and layout.max_length <= window + 1:
        window = None
    if backend == "loop":
        attend = _full_by_groups if window is None else _sliding
        return attend(query, key, value, layout, window), None
    if backend == "varlen":
        return _varlen(query, key, value, layout, window), None
    if backend == "flash":
        return _flash(query, key, value, layout, window, module), None
    if backend == "mask":
        return masked_attention(query, key, value, _dense_mask(layout, window))
    raise ValueError(f"Unknown `backend` {backend!r}. Choose one of 'flash', 'loop', 'mask', 'varlen'.")


def choose_backend(attn_implementation: str, query: Tensor) -> str:
    """Back end for transformers' attention name, the device and the dtype of the queries."""
    if attn_implementation == "eager":
        return "mask"
    if "flash" in attn_implementation:
        return "flash"
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return "varlen" if query.is_cuda and is_half else "loop"


def masked_attention(query: Tensor, key: Tensor, value: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Attention in plain operations, softmax in float32.

    Args:
        query: (..., queries, H, head_dim).
        key: (..., keys, H, head_dim); `value` alike.
        value: see `key`.
        keep: bool, broadcastable to (..., H, queries, keys), True where attention is allowed.

    Returns:
        (..., queries, H, head_dim) and the weights (..., H, queries, keys).
    """
    scores = query.transpose(-3, -2) @ key.transpose(-3, -2).transpose(-2, -1) * query.shape[-1] ** -0.5
    weights = scores.float().masked_fill(~keep, float("-inf")).softmax(-1).to(query.dtype)
    return (weights @ value.transpose(-3, -2)).transpose(-3, -2), weights


def _full_by_groups(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, window: None) -> Tensor:
    return torch.cat(_by_groups(query, key, value, layout.groups, {}))


def _sliding(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, window: int) -> Tensor:
    """Short clips as batches with a band mask, longer ones as blocks: each where it visits fewer keys."""
    is_short = [length <= BLOCK_TOKENS + 2 * window for _, length in layout.groups]
    short_groups = layout.groups[: sum(is_short)]  # lengths ascend
    short = sum(count * length for count, length in short_groups)
    outputs = []
    if short:
        masks = _band_masks(layout, short_groups, window)
        outputs += _by_groups(query[:short], key[:short], value[:short], short_groups, masks)
    if short < len(query):
        mask = _block_mask(layout, short, window)
        outputs.append(_by_blocks(query[short:], key[short:], value[short:], mask, window))
    return torch.cat(outputs)


def _by_groups(
    query: Tensor, key: Tensor, value: Tensor, groups: list[tuple[int, int]], masks: dict[int, Tensor]
) -> list[Tensor]:
    """One call per group of equally long sequences; `masks` holds a mask per length where one is needed."""
    heads_and_size = query.shape[1:]
    sizes = [count * length for count, length in groups]
    outputs = []
    for q, k, v, (count, length) in zip(query.split(sizes), key.split(sizes), value.split(sizes), groups, strict=True):
        batched = [part.view(count, length, *heads_and_size).transpose(1, 2) for part in (q, k, v)]
        output = F.scaled_dot_product_attention(*batched, attn_mask=masks.get(length))
        outputs.append(output.transpose(1, 2).reshape(-1, *heads_and_size))
    return outputs


def _by_blocks(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, window: int) -> Tensor:
    """Blocks of queries against the keys within reach, all sequences in one call."""
    num_tokens, num_heads, head_dim = query.shape
    num_blocks = -(-num_tokens // BLOCK_TOKENS)
    tail = num_blocks * BLOCK_TOKENS - num_tokens
    blocks = F.pad(query, (0, 0, 0, 0, 0, tail)).view(num_blocks, BLOCK_TOKENS, num_heads, head_dim).transpose(1, 2)
    span = BLOCK_TOKENS + 2 * window
    around = [
        F.pad(part, (0, 0, 0, 0, window, tail + window)).unfold(0, span, BLOCK_TOKENS).transpose(2, 3)
        for part in (key, value)
    ]  # (blocks, H, span, head_dim)
    output = F.scaled_dot_product_attention(blocks, *around, attn_mask=mask)
    return output.transpose(1, 2).reshape(-1, num_heads, head_dim)[:num_tokens]


def _band_masks(layout: PackedLayout, groups: list[tuple[int, int]], window: int) -> dict[int, Tensor]:
    """Masks (L, L) of the lengths that exceed the window, built once per layout."""
    if ("band", window) not in layout.cached_masks:
        at = torch.arange(groups[-1][1], device=layout.seq_ids.device)
        band = (at.unsqueeze(0) - at.unsqueeze(1)).abs() <= window
        masks = {length: band[:length, :length].contiguous() for _, length in groups if length > window + 1}
        layout.cached_masks["band", window] = masks
    return layout.cached_masks["band", window]


def _block_mask(layout: PackedLayout, start: int, window: int) -> Tensor:
    """Mask (blocks, 1, block, block + 2 windows) of the packed tokens from `start` on, built once per layout."""
    if ("block", window) not in layout.cached_masks:
        seq_ids = layout.seq_ids[start:]
        num_blocks = -(-len(seq_ids) // BLOCK_TOKENS)
        tail = num_blocks * BLOCK_TOKENS - len(seq_ids)
        query_ids = F.pad(seq_ids, (0, tail), value=-2).view(num_blocks, BLOCK_TOKENS, 1)
        key_ids = F.pad(seq_ids, (window, tail + window), value=-1)
        key_ids = key_ids.unfold(0, BLOCK_TOKENS + 2 * window, BLOCK_TOKENS).unsqueeze(1)
        query_at = torch.arange(BLOCK_TOKENS, device=seq_ids.device).unsqueeze(-1) + window
        key_at = torch.arange(BLOCK_TOKENS + 2 * window, device=seq_ids.device)
        near = (query_at - key_at).abs() <= window
        # rows that stand for no token attend anywhere in their window: a row without keys would give NaN
        keep = near & ((query_ids == key_ids) | (query_ids == -2))
        layout.cached_masks["block", window] = keep.unsqueeze(1)
    return layout.cached_masks["block", window]


def _dense_mask(layout: PackedLayout, window: int | None) -> Tensor:
    if ("dense", window) not in layout.cached_masks:
        keep = layout.seq_ids.unsqueeze(0) == layout.seq_ids.unsqueeze(1)
        if window is not None:
            position = torch.arange(len(layout.seq_ids), device=keep.device)
            keep = keep & ((position.unsqueeze(0) - position.unsqueeze(1)).abs() <= window)
        layout.cached_masks["dense", window] = keep
    return layout.cached_masks["dense", window]


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

    def __init__(self, config, use_bias: bool = False, window: int | None = None):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.window = window
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=use_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=use_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=use_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=use_bias)

    def forward(
        self, hidden_states: Tensor, rotary: tuple[Tensor, Tensor] | None, layout: PackedLayout | None, keep: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Attends within each sequence.

        Args:
            hidden_states: (N, D) packed with `layout`, or (B, L, D) without.
            rotary: cosine and sine per token, or None for no rotary positions.
            layout: the packing, or None.
            keep: without `layout`, bool broadcastable to (B, H, L, L), True where attention is allowed.

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
            output, weights = padded_attention(query, key, value, keep, self.config._attn_implementation)
        return self.o_proj(output.flatten(-2)), weights


def padded_attention(
    query: Tensor, key: Tensor, value: Tensor, keep: Tensor, attn_implementation: str
) -> tuple[Tensor, Tensor | None]:
    """Attention of a padded batch with a mask; arguments as `masked_attention`, weights only with "eager"."""
    if attn_implementation == "eager":
        return masked_attention(query, key, value, keep)
    heads_first = (part.transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=keep).transpose(1, 2), None


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

    def forward(self, hidden_states: Tensor, audio_tokens: Tensor, audio_layout: PackedLayout) -> Tensor:
        """Returns (B, L, D) from text states (B, L, D) and packed audio tokens (N, D_audio)."""
        split = (-1, self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).unflatten(-1, split[1:])
        key = unpack(self.k_proj(audio_tokens).view(split), audio_layout)
        value = unpack(self.v_proj(audio_tokens).view(split), audio_layout)
        keep = audio_layout.token_mask[:, None, None, :]
        output, _ = padded_attention(query, key, value, keep, self.config._attn_implementation)
        return self.o_proj(output.flatten(-2))


__all__ = [
    "CrossAttention",
    "SelfAttention",
    "choose_backend",
    "masked_attention",
    "packed_attention",
    "padded_attention",
]

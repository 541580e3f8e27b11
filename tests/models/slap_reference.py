# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SLAP's audio encoder written a second time, clip by clip with plain loops, from the paper's text alone.

It shares nothing with the package but the names of the weights. Gradients flow to the tensors of `weights`.
"""

import math

import torch
from torch import Tensor


def reference_tokens(config, weights: dict[str, Tensor], clip: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
    """Input of every layer and the final output of one clip: `num_hidden_layers + 1` tensors (N, D).

    Args:
        clip: (frames, mel bins) real frames only.
        hidden: (N,) True where the mask token stands in.
    """
    bands = config.num_mel_bins // config.patch_mel_bins
    num_steps = math.ceil(len(clip) / config.patch_frames)
    tokens, places = [], []
    for step in range(num_steps):
        for band in range(bands):
            tile = torch.zeros(config.patch_frames, config.patch_mel_bins)
            for row in range(config.patch_frames):
                frame = step * config.patch_frames + row
                if frame < len(clip):
                    tile[row] = clip[frame, band * config.patch_mel_bins : (band + 1) * config.patch_mel_bins]
            if hidden is not None and hidden[len(tokens)]:
                tokens.append(weights["embeddings.mask_token"])
            else:
                tokens.append(weights["embeddings.patch_proj.weight"] @ tile.reshape(-1))
            places.append((step, band))
    states = [torch.stack(tokens)]
    for layer in range(config.num_hidden_layers):
        part = {n.split(".", 2)[2]: w for n, w in weights.items() if n.startswith(f"layers.{layer}.")}
        window = config.sliding_window_frames * bands // 2 if config.layer_types[layer].startswith("sliding") else None
        states.append(_layer(config, part, states[-1], places, window))
    return [*states[:-1], _rms_norm(states[-1], weights["norm.weight"], config.rms_norm_eps)]


def _layer(config, weights, tokens, places, window):
    normed = _rms_norm(tokens, weights["attn_norm.weight"], config.rms_norm_eps)
    tokens = tokens + _attention(config, weights, normed, places, window)
    normed = _rms_norm(tokens, weights["mlp_norm.weight"], config.rms_norm_eps)
    gate, up = normed @ weights["mlp.gate_proj.weight"].T, normed @ weights["mlp.up_proj.weight"].T
    return tokens + (gate * torch.sigmoid(gate) * up) @ weights["mlp.down_proj.weight"].T


def _attention(config, weights, tokens, places, window):
    heads = config.num_attention_heads
    size = config.hidden_size // heads
    query, key, value = (
        torch.einsum("nd,hsd->hns", tokens, weights[f"attn.{name}_proj.weight"].view(heads, size, -1))
        for name in "qkv"
    )
    turns = torch.stack([rotation(place, size, config.rope_theta) for place in places])  # (N, size, size)
    query, key = torch.einsum("nij,hnj->hni", turns, query), torch.einsum("nij,hnj->hni", turns, key)
    rows = []
    for i in range(len(tokens)):
        near = [j for j in range(len(tokens)) if window is None or abs(i - j) <= window]
        scores = torch.einsum("hs,hns->hn", query[:, i], key[:, near]) / math.sqrt(size)
        rows.append(torch.einsum("hn,hns->hs", scores.softmax(-1), value[:, near]).reshape(-1))
    return torch.stack(rows) @ weights["attn.o_proj.weight"].T


def rotation(place: tuple[int, int], size: int, theta: float) -> Tensor:
    """Rotation matrix (size, size) of a 2-D position: pairs (i, i + size / 2), first quarter by time, then band."""
    matrix = torch.zeros(size, size)
    quarter = size // 4
    for pair in range(size // 2):
        axis, number = divmod(pair, quarter)
        angle = place[axis] * theta ** (-number / quarter)
        matrix[pair, pair] = matrix[pair + size // 2, pair + size // 2] = math.cos(angle)
        matrix[pair, pair + size // 2] = -math.sin(angle)
        matrix[pair + size // 2, pair] = math.sin(angle)
    return matrix


def _rms_norm(tokens, weight, eps):
    return tokens / torch.sqrt((tokens**2).mean(-1, keepdim=True) + eps) * weight


def reference_pooling(weights: dict[str, Tensor], tokens: Tensor, num_heads: int, eps: float) -> Tensor:
    """Attention pooling of one clip, written from SigLIP's description: (N, D) -> (D,)."""
    size = tokens.shape[-1] // num_heads
    query = (weights["q_proj.weight"] @ weights["query"][0]).view(num_heads, size)
    key = (tokens @ weights["k_proj.weight"].T).view(-1, num_heads, size)
    value = (tokens @ weights["v_proj.weight"].T).view(-1, num_heads, size)
    share = (torch.einsum("hs,nhs->nh", query, key) / math.sqrt(size)).softmax(0)
    pooled = weights["o_proj.weight"] @ torch.einsum("nh,nhs->hs", share, value).reshape(-1)
    inner = weights["mlp.fc1.weight"] @ _rms_norm(pooled, weights["norm.weight"], eps)
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return pooled + weights["mlp.fc2.weight"] @ inner

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Exact nearest neighbours by dot product: the gallery in chunks, a running top k, nothing approximated."""

import numpy as np
import torch

CHUNK_ROWS = 8192  # gallery rows of one matrix product: fits the caches of a CPU


def nearest(
    query_embeds: np.ndarray, gallery_embeds: np.ndarray, k: int, *, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """The k gallery rows most similar to each query, best first.

    Args:
        query_embeds: (Q, E) unit-norm embeddings.
        gallery_embeds: (G, E) unit-norm embeddings.
        k: number of neighbours; at most G are returned.
        device: where the products are computed; the gallery is moved there chunk by chunk.

    Returns:
        similarities (Q, min(k, G)) float32 and gallery positions (Q, min(k, G)).

    Raises:
        ValueError: if `k` is below 1 or the widths differ.
    """
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}. Choose how many neighbours to return.")
    if query_embeds.shape[1] != gallery_embeds.shape[1]:
        raise ValueError(
            f"`query_embeds` and `gallery_embeds` must have the same width, got {query_embeds.shape[1]} and "
            f"{gallery_embeds.shape[1]}. Embed both with the same model."
        )
    queries = torch.as_tensor(query_embeds, device=device)  # (Q, E)
    best = torch.empty(len(queries), 0, device=device)
    positions = torch.empty(len(queries), 0, dtype=torch.long, device=device)
    for start in range(0, len(gallery_embeds), CHUNK_ROWS):
        chunk = torch.as_tensor(gallery_embeds[start : start + CHUNK_ROWS], device=device)
        similarities = queries @ chunk.T  # (Q, chunk)
        chunk_best, chunk_positions = similarities.topk(min(k, len(chunk)), dim=1)
        best = torch.cat([best, chunk_best], dim=1)
        positions = torch.cat([positions, chunk_positions + start], dim=1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1)
        positions = positions.gather(1, kept)
    return best.cpu().numpy(), positions.cpu().numpy()


__all__ = ["nearest"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Ranks of the relevant items of each query, and recall@k, mAP@k, median and mean rank from them, in numpy.

    query embeddings, gallery embeddings, relevance sets -> relevant_ranks -> sorted 0-based ranks per query -> metrics

Works for both directions, for any number of captions per clip, and for general relevance judgements (several clips
that fit a caption). Ties count against the model: an irrelevant item with the same similarity stands before a
relevant one, so a model whose outputs are all alike scores at chance or below, whatever the order of the items.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

DIVISORS = ("n_relevant", "min(n_relevant,k)")


@dataclass(frozen=True)
class RelevantRanks:
    """Where the relevant items of each query stand in the ranking.

    Attributes:
        ranks: one ascending integer array per query: the 0-based positions of its relevant items.
        n_tied: number of relevant items with the same similarity as an irrelevant one.
        gallery_size: number of items that were ranked.
    """

    ranks: list[np.ndarray]
    n_tied: int
    gallery_size: int


def relevant_ranks(
    query_embeds: np.ndarray,
    gallery_embeds: np.ndarray,
    relevance: Sequence[Iterable[int]],
    chunk_size: int = 1024,
) -> RelevantRanks:
    """Ranks of every query's relevant gallery items by dot product, ties counted against the model.

    The rank of an item with similarity s is #(others > s) + #(irrelevant == s) + its position among the relevant
    items of the same s. Equal gallery rows are compared once, so that they tie exactly.

    Args:
        query_embeds: (Q, E) unit-norm embeddings.
        gallery_embeds: (G, E) unit-norm embeddings.
        relevance: for each query the indices of its relevant gallery items, at least one.
        chunk_size: queries compared at a time; no more than `chunk_size` x G similarities are held.

    Raises:
        ValueError: if a similarity is NaN, the lengths differ, or a query has no relevant item.
    """
    if len(relevance) != len(query_embeds):
        raise ValueError(
            f"`relevance` must have one entry per query, got {len(relevance)} for {len(query_embeds)} queries. "
            "Give the relevant gallery indices of each query."
        )
    relevant_items = [_as_indices(items, query, len(gallery_embeds)) for query, items in enumerate(relevance)]
    distinct_embeds, distinct_index = np.unique(gallery_embeds, axis=0, return_inverse=True)
    ranks, n_tied = [], 0
    for start in range(0, len(query_embeds), chunk_size):
        queries = np.asarray(query_embeds[start : start + chunk_size])
        similarities = (queries @ distinct_embeds.T)[:, distinct_index]  # (chunk, G)
        if np.isnan(similarities).any():
            raise ValueError(
                f"Similarities of the queries {start} to {start + len(queries) - 1} hold "
                f"{int(np.isnan(similarities).sum())} NaN. Look for NaN in `query_embeds` and `gallery_embeds`: "
                "a ranking with NaN has no meaning."
            )
        for row, items in zip(similarities, relevant_items[start : start + len(queries)], strict=True):
            item_ranks, item_ties = _ranks_of_items(row, items)
            ranks.append(item_ranks)
            n_tied += item_ties
    return RelevantRanks(ranks, n_tied, len(gallery_embeds))


def _as_indices(items: Iterable[int], query: int, gallery_size: int) -> np.ndarray:
    indices = np.fromiter(set(items), dtype=np.int64)
    if len(indices) == 0:
        raise ValueError(f"Query {query} has no relevant item in `relevance`. Leave such queries out.")
    if indices.min() < 0 or indices.max() >= gallery_size:
        raise ValueError(
            f"`relevance` of query {query} names item {int(indices.max())} but the gallery has {gallery_size} items. "
            "Indices are positions in `gallery_embeds`, from 0."
        )
    return indices


def _ranks_of_items(similarities: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, int]:
    """Ascending ranks of `items` in the ranking of all (G,) similarities, and how many tie with an irrelevant one."""
    everything, relevant = np.sort(similarities), np.sort(similarities[items])
    values = relevant[::-1]  # descending: best item first
    num_greater = len(everything) - np.searchsorted(everything, values, side="right")
    num_greater_relevant = len(relevant) - np.searchsorted(relevant, values, side="right")
    num_equal = len(everything) - num_greater - np.searchsorted(everything, values, side="left")
    num_equal_relevant = len(relevant) - num_greater_relevant - np.searchsorted(relevant, values, side="left")
    num_equal_irrelevant = num_equal - num_equal_relevant
    position_in_tie = np.arange(len(values)) - num_greater_relevant
    return num_greater + num_equal_irrelevant + position_in_tie, int((num_equal_irrelevant > 0).sum())


def recall_at_k(ranks: Sequence[np.ndarray], k: int) -> float:
    """Share of the queries with at least one relevant item in the top k (a hit rate).

    Args:
        ranks: ascending 0-based ranks of the relevant items of each query.
        k: cut-off, >= 1.
    """
    return float((_first_ranks(ranks) < k).mean())


def mean_average_precision_at_k(ranks: Sequence[np.ndarray], k: int, divisor: str = "n_relevant") -> float:
    """Mean over queries of AP@k = 1/divisor * sum over relevant items with rank < k of (m-th hit) m / (rank + 1).

    Args:
        ranks: ascending 0-based ranks of all relevant items of each query.
        k: cut-off, >= 1.
        divisor: "n_relevant" (trec's `map_cut_k` and the code of the papers) or "min(n_relevant,k)".

    Raises:
        ValueError: if `divisor` is unknown.
    """
    if divisor not in DIVISORS:
        raise ValueError(f"Unknown `divisor` {divisor!r}. Choose one of {list(DIVISORS)}.")
    values = []
    for item_ranks in ranks:
        found = item_ranks[item_ranks < k]
        num_relevant = len(item_ranks) if divisor == "n_relevant" else min(len(item_ranks), k)
        values.append(np.sum(np.arange(1, len(found) + 1) / (found + 1)) / num_relevant)
    return float(np.mean(values))


def median_rank(ranks: Sequence[np.ndarray]) -> float:
    """1-based median rank of the best relevant item: floor of the median 0-based rank, plus 1."""
    return float(np.floor(np.median(_first_ranks(ranks))) + 1)


def mean_rank(ranks: Sequence[np.ndarray]) -> float:
    """1-based mean rank of the best relevant item."""
    return float(_first_ranks(ranks).mean() + 1)


def retrieval_metrics(
    ranks: Sequence[np.ndarray], ks: Sequence[int] = (1, 5, 10), map_k: int = 10, divisor: str = "n_relevant"
) -> dict[str, float]:
    """`R@k` for each k, `mAP@map_k`, `MedR` and `MeanR` of one direction.

    Args:
        ranks: ascending 0-based ranks of all relevant items of each query.
        ks: cut-offs of the recall.
        map_k: cut-off of the mean average precision.
        divisor: see `mean_average_precision_at_k`.

    Raises:
        ValueError: if there is no query or a query without relevant item.
    """
    values = {f"R@{k}": recall_at_k(ranks, k) for k in ks}
    values[f"mAP@{map_k}"] = mean_average_precision_at_k(ranks, map_k, divisor)
    return {**values, "MedR": median_rank(ranks), "MeanR": mean_rank(ranks)}


def chance_recall_at_k(num_relevant: Sequence[int], gallery_size: int, k: int) -> float:
    """Expected recall@k of a random ranking: mean over queries of 1 - C(G - K_i, k) / C(G, k).

    Args:
        num_relevant: number of relevant items K_i of each query.
        gallery_size: number of items G.
        k: cut-off.
    """
    top_positions = np.arange(min(k, gallery_size))
    misses = [
        np.prod(np.clip(gallery_size - n - top_positions, 0, None) / (gallery_size - top_positions))
        for n in num_relevant
    ]
    return float(1 - np.mean(misses))


def _first_ranks(ranks: Sequence[np.ndarray]) -> np.ndarray:
    """(Q,) rank of the best relevant item of each query."""
    if len(ranks) == 0 or any(len(item_ranks) == 0 for item_ranks in ranks):
        raise ValueError(
            f"`ranks` needs at least one query and one relevant item per query, got {len(ranks)} queries. "
            "Leave queries without a relevant item out."
        )
    return np.array([np.min(item_ranks) for item_ranks in ranks])


__all__ = [
    "DIVISORS",
    "RelevantRanks",
    "chance_recall_at_k",
    "mean_average_precision_at_k",
    "mean_rank",
    "median_rank",
    "recall_at_k",
    "relevant_ranks",
    "retrieval_metrics",
]

"""Ranks, recall@k and mAP@k against hand-computed cases and a naive ranking written as the papers' code does it."""

import numpy as np
import pytest

from hf_audiolang.evaluation.metrics import (
    chance_recall_at_k,
    mean_average_precision_at_k,
    mean_rank,
    median_rank,
    recall_at_k,
    relevant_ranks,
    retrieval_metrics,
)


def unit(count, width, seed):
    values = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def naive_metrics(similarities, relevance, k):
    """Hit rate at k and AP@k / K_i, by sorting each query's similarities (no ties here)."""
    hits, precisions = [], []
    for row, relevant in zip(similarities, relevance, strict=True):
        order = list(np.argsort(-row))
        ranks = sorted(order.index(item) for item in relevant)
        hits.append(ranks[0] < k)
        precisions.append(sum((m + 1) / (r + 1) for m, r in enumerate(ranks) if r < k) / len(relevant))
    return np.mean(hits), np.mean(precisions)


@pytest.mark.parametrize("chunk_size", [1, 4, 1000])
def test_both_directions_with_unequal_caption_counts_equal_a_naive_ranking(chunk_size):
    audio, counts = unit(13, 7, seed=0), [1, 5, 2, 3, 1, 1, 4, 2, 2, 5, 1, 3, 2]
    clip_of_caption = np.repeat(np.arange(13), counts)
    text = 0.6 * audio[clip_of_caption] + unit(sum(counts), 7, seed=1)
    for queries, gallery, relevance in (
        (text, audio, [[clip] for clip in clip_of_caption]),
        (audio, text, [np.flatnonzero(clip_of_caption == clip) for clip in range(13)]),
    ):
        found = relevant_ranks(queries, gallery, relevance, chunk_size)
        values = retrieval_metrics(found.ranks, ks=(1, 3, 10), map_k=10)
        for k in (1, 3, 10):
            hit_rate, precision = naive_metrics(queries @ gallery.T, relevance, k)
            assert values[f"R@{k}"] == pytest.approx(hit_rate)
            assert mean_average_precision_at_k(found.ranks, k) == pytest.approx(precision)
        assert found.n_tied == 0
        assert found.gallery_size == len(gallery)


def test_ranks_hand_case_with_ties_counted_against_the_model():
    query = np.array([[1.0, 0.0]])
    gallery = np.array([[0.5, 0], [0.9, 0], [0.5, 0], [0.5, 0], [0.1, 0]])
    # items 0 and 3 are relevant: 0.9 is better, item 2 ties and goes first; then 0 and 3 in turn
    found = relevant_ranks(query, gallery, [[3, 0]])
    assert [list(r) for r in found.ranks] == [[2, 3]]
    assert found.n_tied == 2
    assert mean_average_precision_at_k(found.ranks, 10) == pytest.approx((1 / 3 + 2 / 4) / 2)
    # without an irrelevant item among the equals nothing is tied
    alone = relevant_ranks(query, gallery, [[0, 2, 3]])
    assert [list(r) for r in alone.ranks] == [[1, 2, 3]]
    assert alone.n_tied == 0


def test_a_constant_output_scores_below_chance_in_every_item_order():
    constant = np.repeat(unit(1, 9, seed=3), 20, axis=0)
    found = relevant_ranks(unit(20, 9, seed=4), constant, [[i] for i in range(20)])
    assert recall_at_k(found.ranks, 19) == 0.0
    assert found.n_tied == 20
    assert median_rank(found.ranks) == 20
    control = relevant_ranks(unit(20, 9, seed=4), unit(20, 9, seed=4), [[i] for i in range(20)])
    assert recall_at_k(control.ranks, 1) == 1.0


def test_equal_rows_tie_exactly_wherever_they_stand_in_a_large_gallery():
    gallery = unit(4099, 61, seed=5)  # odd sizes: matrix kernels treat the last rows differently
    gallery[[1, 2000, 4098]] = gallery[7]
    found = relevant_ranks(gallery[7:8], gallery, [[4098]])
    assert list(found.ranks[0]) == [3]
    assert found.n_tied == 1


def test_a_caption_given_twice_to_one_clip_keeps_average_precision_at_one():
    audio = unit(3, 5, seed=0)
    found = relevant_ranks(audio, audio[[0, 0, 1, 2]], [[0, 1], [2], [3]])
    assert mean_average_precision_at_k(found.ranks, 10) == 1.0


def test_map_divisor_is_the_number_of_relevant_items_or_the_cut_off():
    ranks = [np.array([0, 2, 3, 9, 11])]
    found_within_3 = 1 / 1 + 2 / 3
    assert mean_average_precision_at_k(ranks, 3) == pytest.approx(found_within_3 / 5)
    assert mean_average_precision_at_k(ranks, 3, "min(n_relevant,k)") == pytest.approx(found_within_3 / 3)
    with pytest.raises(ValueError, match=r"`divisor` 'found'\. Choose one of"):
        mean_average_precision_at_k(ranks, 3, "found")


def test_median_and_mean_rank_are_one_based_with_floored_median():
    ranks = [np.array([0, 8]), np.array([3]), np.array([4]), np.array([10])]
    assert median_rank(ranks) == 4  # median of 0, 3, 4, 10 is 3.5
    assert mean_rank(ranks) == pytest.approx(17 / 4 + 1)


def test_several_relevant_clips_per_query_count_once_for_recall():
    similarities = np.array([[0.1, 0.9, 0.5, 0.3]])
    found = relevant_ranks(np.eye(1), similarities.T, [{0, 2}])
    assert recall_at_k(found.ranks, 1) == 0.0
    assert recall_at_k(found.ranks, 2) == 1.0
    assert mean_average_precision_at_k(found.ranks, 16) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_chance_recall_equals_a_simulation_and_the_single_item_closed_form():
    assert chance_recall_at_k([1, 1, 1], 300, 10) == pytest.approx(10 / 300)
    generator = np.random.default_rng(0)
    simulated = np.mean([(generator.permutation(30)[:4] < 5).any() for _ in range(20000)])
    assert chance_recall_at_k([4], 30, 5) == pytest.approx(simulated, abs=0.015)
    assert chance_recall_at_k([3], 4, 10) == 1.0


def test_nan_empty_relevance_and_wrong_indices_are_refused():
    audio = unit(3, 5, seed=0)
    broken = audio.copy()
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="Look for NaN"):
        relevant_ranks(audio, broken, [[0], [1], [2]])
    with pytest.raises(ValueError, match="Query 1 has no relevant item"):
        relevant_ranks(audio, audio, [[0], [], [2]])
    with pytest.raises(ValueError, match="names item 3 but the gallery has 3"):
        relevant_ranks(audio, audio, [[0], [3], [2]])
    with pytest.raises(ValueError, match="one entry per query, got 2 for 3"):
        relevant_ranks(audio, audio, [[0], [1]])
    with pytest.raises(ValueError, match="at least one query"):
        recall_at_k([], 1)

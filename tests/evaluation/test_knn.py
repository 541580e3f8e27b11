# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Nearest neighbours: votes by hand, scale and order of the clips, and the values of an encoder."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import unit
from probe_fakes import FrameExtractor, LayerEncoder, clip, labelled
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors

from hf_audiolang.evaluation import knn
from hf_audiolang.evaluation.knn import neighbour_votes
from hf_audiolang.evaluation.probe_protocol import ProbeSettings

TABLE = np.repeat(5 * np.eye(4, 7), 10, axis=0).astype(np.float32) + unit(40, 7, seed=0)


def test_votes_by_hand():
    train = np.array([[2.0, 0.0], [0.0, 0.5], [3.0, 4.0], [-1.0, 0.0]])  # cosines with (1, 0): 1, 0, 0.6, -1
    targets = np.array([[1, 0], [0, 1], [0, 1], [1, 1]])
    votes = neighbour_votes(train, targets, np.array([[7.0, 0.0]]), num_neighbours=3, temperature=0.5)
    weights = np.exp(np.array([1.0, 0.6, 0.0]) / 0.5)
    weights /= weights.sum()
    np.testing.assert_allclose(votes, [[weights[0], weights[1] + weights[2]]], atol=1e-12)
    every = neighbour_votes(train, targets, np.array([[7.0, 0.0]]), num_neighbours=10, temperature=0.5)  # only 4 clips
    weights = np.exp(np.array([1.0, 0.6, 0.0, -1.0]) / 0.5)
    weights /= weights.sum()
    np.testing.assert_allclose(every, [[weights[0] + weights[3], 1 - weights[0]]], atol=1e-12)


def test_the_usual_votes_are_those_of_the_ten_nearest_by_cosine():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((90, 6)).astype(np.float32), rng.standard_normal((700, 6)).astype(np.float32)
    targets = (rng.random((90, 4)) < 0.4).astype(np.float32)
    distances, places = NearestNeighbors(n_neighbors=10, metric="cosine").fit(train).kneighbors(test)
    weights = np.exp((1 - distances) / 0.07)
    weights /= weights.sum(1, keepdims=True)
    expected = (weights[..., None] * targets[places]).sum(1)
    np.testing.assert_allclose(neighbour_votes(train, targets, test), expected, atol=1e-5)
    scaled = neighbour_votes(train * rng.uniform(0.1, 10, (90, 1)), targets, 3 * test)
    np.testing.assert_allclose(scaled, expected, atol=1e-5)  # lengths do not matter


def test_of_equally_near_clips_the_first_vote():
    train, targets = np.ones((300, 3)), np.eye(300)
    votes = neighbour_votes(train, targets, np.ones((1, 3)), num_neighbours=2)
    np.testing.assert_allclose(votes, [[0.5, 0.5, *[0] * 298]])


def test_a_feature_without_direction_is_refused():
    train = np.array([[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"`train` has 1 of 2 features that are zero, the first is row 1\. Check the"):
        neighbour_votes(train, np.eye(2), train[:1])


def classes(count, seed):
    rng = np.random.default_rng(seed)
    return [
        clip(10 * (n % 3) + rng.integers(1, 4, 3), id=f"{seed}-{n}", labels=(f"class {n % 3}",)) for n in range(count)
    ]


def test_one_label_gives_accuracy_and_several_give_the_map_of_the_votes(tmp_path):
    test = [*classes(9, 1), clip([11, 12], id="wrong", labels=("class 0",))]
    data = labelled(classes(60, 0), test, classes=["class 2", "class 0", "class 1"])
    encoder = LayerEncoder([TABLE, TABLE])
    found = knn.score_fold(encoder, FrameExtractor(), data, ProbeSettings(cache_dir=tmp_path))
    assert found.values == {"knn/accuracy": [0.9]}
    assert found.chance == {"knn/accuracy": 1 / 3}
    assert found.num_clips == 10
    before = encoder.num_clips
    knn.score_fold(encoder, FrameExtractor(), replace(data, validation=data.test), ProbeSettings())
    assert encoder.num_clips == before + 70  # validation clips are not encoded

    rng = np.random.default_rng(3)
    rows = [rng.permutation(3)[: rng.integers(0, 3)] for _ in range(80)]
    mixed = [
        clip([*(10 * k + rng.integers(1, 10) for k in of_clip), *rng.integers(31, 40, 2)], id=f"{n}",
             labels=tuple(f"class {k}" for k in of_clip))
        for n, of_clip in enumerate(rows)
    ]  # fmt: skip
    data = labelled(mixed[:60], mixed[60:], is_multi_label=True)
    found = knn.score_fold(encoder, FrameExtractor(), data, ProbeSettings())
    known, asked = (
        np.array([TABLE[np.round(record.audio.reshape(-1, 10).mean(1) * 100).astype(int)].mean(0) for record in part])
        for part in (mixed[:60], mixed[60:])
    )
    hot = np.array([[f"class {k}" in record.labels for k in range(3)] for record in mixed], dtype=float)
    expected = average_precision_score(hot[60:], neighbour_votes(known, hot[:60], asked), average="macro")
    assert found.values == {"knn/mAP": [pytest.approx(expected, abs=1e-6)]}
    assert expected > hot[60:].mean() + 0.2

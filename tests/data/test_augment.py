# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Mixup and rolling of waveforms, by hand and by their distribution."""

import numpy as np
import pytest

from hf_audiolang.data.augment import cyclic_roll, mixup_waveforms


class Draws:
    """A generator whose draws are given."""

    def __init__(self, weights=(), order=(), uniform=None, offset=0, beta=0.5):
        self.weights, self.order, self.offset, self.gain = weights, order, offset, beta
        self.uniform = np.zeros(len(weights)) if uniform is None else np.array(uniform)
        self.asked = []

    def beta(self, a, b, size=None):
        self.asked.append((a, b))
        return self.gain if size is None else np.array(self.weights)

    def permutation(self, number):
        assert number == len(self.order)
        return np.array(self.order)

    def random(self, number):
        assert number == len(self.uniform)
        return self.uniform

    def integers(self, number):
        self.asked.append(number)
        return self.offset


def clips(count, seed=0):
    """Waveforms of different length, and targets that tell whose they are."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(50 + 7 * row).astype(np.float32) for row in range(count)], np.eye(count)


def test_mixup_by_hand_with_shorter_and_longer_partners():
    waveforms = [np.array(wave, dtype=np.float32) for wave in ([1, 2, 3], [10, 20, 30, 40, 50], [100])]
    targets = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]])
    rng = Draws(weights=[0.75, 0.5, 0.25], order=[1, 2, 0])
    mixed, labels = mixup_waveforms(waveforms, targets, 0.3, rng)
    assert mixed[0].tolist() == [3.25, 6.5, 9.75]  # 0.75 * [1, 2, 3] + 0.25 * [10, 20, 30]
    assert mixed[1].tolist() == [55, 10, 15, 20, 25]  # a partner of one sample, then silence
    assert mixed[2].tolist() == [25.75]
    assert labels.tolist() == [[0.75, 0.25, 0.25, 0], [0, 0.5, 0.5, 0.5], [0.75, 0, 0, 0.25]]
    assert rng.asked == [(0.3, 0.3)]
    assert labels.dtype == np.float32
    assert all(wave.dtype == np.float32 for wave in mixed)


def test_only_a_share_is_mixed():
    waveforms, targets = clips(3)
    rng = Draws(weights=[0.5, 0.5, 0.5], order=[1, 2, 0], uniform=[0.49, 0.5, 0.1])
    mixed, labels = mixup_waveforms(waveforms, targets, 10.0, rng, share=0.5)
    assert np.array_equal(mixed[1], waveforms[1])
    assert labels.tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0.5, 0, 0.5]]
    assert not np.array_equal(mixed[0], waveforms[0])


def test_alpha_zero_mixes_nothing_and_draws_nothing():
    waveforms, targets = clips(4)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    mixed, labels = mixup_waveforms(waveforms, targets, 0.0, rng)
    assert all(one is other for one, other in zip(mixed, waveforms, strict=True))
    assert np.array_equal(labels, targets)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(("alpha", "share"), [(0.3, 1.0), (10.0, 0.5)])
def test_shares_have_the_beta_distribution_and_partners_are_a_permutation(alpha, share):
    waveforms, targets = clips(6)
    rng, weights, num_mixed = np.random.default_rng(0), [], 0
    for _ in range(700):
        _, labels = mixup_waveforms(waveforms, targets, alpha, rng, share=share)
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
        own = np.diag(labels)
        given = (labels - np.diag(own)) > 0  # who lends to whom
        assert (given.sum(0) <= 1).all()
        assert (given.sum(1) <= 1).all()
        weights += own[given.any(1)].tolist()
        num_mixed += given.any(1).sum()
    weights = np.array(weights)
    assert weights.mean() == pytest.approx(0.5, abs=0.025)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)  # of Beta(alpha, alpha)
    assert num_mixed / (700 * 6) == pytest.approx(share * 5 / 6, abs=0.03)  # one of six is its own partner


def test_mixup_follows_its_generator_and_leaves_the_input_alone():
    waveforms, targets = clips(5)
    copies = [wave.copy() for wave in waveforms]
    runs = [mixup_waveforms(waveforms, targets, 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(np.array_equal(one, two) for one, two in zip(runs[0][0], runs[1][0], strict=True))
    assert np.array_equal(runs[0][1], runs[1][1])
    assert not np.array_equal(runs[0][1], runs[2][1])
    assert all(np.array_equal(one, two) for one, two in zip(waveforms, copies, strict=True))
    assert [len(wave) for wave in runs[0][0]] == [len(wave) for wave in waveforms]


def test_rolling_by_hand():
    rng = Draws(offset=2, beta=0.75)
    rolled = cyclic_roll(np.array([1, 2, 3, 6], dtype=np.float32), rng)
    assert rolled.tolist() == [0.0, 3.75, -2.5, -1.25]  # mean 3 taken off, two on, times 1.25
    assert rng.asked == [4, (10, 10)]
    assert rolled.dtype == np.float32


def test_offsets_reach_every_sample_and_gains_lie_around_one():
    waveform = np.array([8.0, 0, 0, 0, 0, 0, 0, 0], dtype=np.float32)  # 7 and seven times -1 without its mean
    rng, places, gains = np.random.default_rng(0), [], []
    for _ in range(2000):
        rolled = cyclic_roll(waveform, rng)
        places.append(int(rolled.argmax()))
        gains.append(rolled.max() / 7)
    assert np.bincount(places, minlength=8).min() > 190  # 250, four standard deviations of 15
    assert np.mean(gains) == pytest.approx(1.0, abs=0.01)
    assert np.std(gains) == pytest.approx((1 / 84) ** 0.5, rel=0.1)  # of Beta(10, 10)
    assert min(gains) > 0.5
    assert max(gains) < 1.5

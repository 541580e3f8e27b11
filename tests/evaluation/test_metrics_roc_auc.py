# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""ROC-AUC and R2 against scikit-learn, by hand, and what they refuse."""

import numpy as np
import pytest
from sklearn import metrics as sk

from hf_audiolang.evaluation.metrics import mean_roc_auc, r2_score, roc_auc


@pytest.mark.parametrize("levels", [3, 10_000])  # many ties, hardly any
@pytest.mark.parametrize("seed", range(4))
def test_roc_auc_is_scikit_learns(levels, seed):
    rng = np.random.default_rng(seed)
    positives = rng.random(57) < 0.3
    scores = (rng.standard_normal(57) + positives).clip(-3, 3)
    scores = np.round(scores * levels) / levels if levels > 3 else rng.integers(0, levels, 57) + 0.5
    assert roc_auc(scores, positives) == pytest.approx(sk.roc_auc_score(positives, scores), abs=1e-12)


def test_roc_auc_by_hand():
    # pairs (positive, negative): 3>1, 3>2, 2>1, 2=2 -> (1 + 1 + 1 + 1/2) / 4
    assert roc_auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0, 0, 1, 1])) == 3.5 / 4
    assert roc_auc(np.ones(5), np.array([0, 1, 0, 0, 1])) == 0.5
    assert roc_auc(np.array([3.0, 2.0, 1.0]), np.array([0, 0, 1])) == 0.0


def test_classes_without_both_labels_are_left_out_and_counted():
    rng = np.random.default_rng(0)
    positives = rng.random((40, 5)) < 0.4
    positives[:, 1], positives[:, 3] = True, False
    scores = rng.standard_normal((40, 5))
    found = mean_roc_auc(scores, positives)
    kept = [0, 2, 4]
    assert found == {
        "ROC_AUC": pytest.approx(sk.roc_auc_score(positives[:, kept], scores[:, kept], average="macro")),
        "n_classes_scored": 3,
        "n_classes_skipped": 2,
    }


def test_what_roc_auc_refuses():
    with pytest.raises(ValueError, match=r"2 positive and 0 negative examples\. Leave this class out"):
        roc_auc(np.array([1.0, 2.0]), np.array([1, 1]))
    with pytest.raises(ValueError, match=r"`scores` has 1 NaN\. Find the model output"):
        roc_auc(np.array([np.nan, 2.0]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"got \(2, 1\) and \(2, 1\)\. For several classes use `mean_roc_auc`"):
        roc_auc(np.ones((2, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"no class with both labels, of 2\. Test more clips"):
        mean_roc_auc(np.ones((3, 2)), np.array([[1, 0]] * 3))
    with pytest.raises(ValueError, match=r"both be \(N, C\), got \(3, 2\) and \(3, 1\)\. Pass one column"):
        mean_roc_auc(np.ones((3, 2)), np.ones((3, 1)))


def test_r2_is_scikit_learns_and_the_mean_reaches_0():
    rng = np.random.default_rng(0)
    targets = rng.standard_normal(31) * 3 + 7
    predictions = targets + rng.standard_normal(31)
    assert r2_score(predictions, targets) == pytest.approx(sk.r2_score(targets, predictions), abs=1e-12)
    assert r2_score(predictions, targets) != pytest.approx(r2_score(targets, predictions), abs=1e-3)  # not symmetric
    assert r2_score(np.full(31, targets.mean()), targets) == pytest.approx(0, abs=1e-12)
    assert r2_score(-predictions, targets) < -1
    with pytest.raises(ValueError, match=r"3 numbers, all equal: R2 is not defined\. Test on other clips"):
        r2_score(np.arange(3), np.ones(3))
    with pytest.raises(ValueError, match=r"`predictions` has 1 numbers that are not finite\. Correct"):
        r2_score(np.array([np.inf, 1]), np.arange(2))
    with pytest.raises(ValueError, match=r"both be \(N,\), got \(2, 1\) and \(2,\)\. Pass one number"):
        r2_score(np.ones((2, 1)), np.arange(2))

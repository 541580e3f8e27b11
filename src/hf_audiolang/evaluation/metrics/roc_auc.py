# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Area under the ROC curve and its macro mean, for music tagging (MARBLE), in numpy.

It is the share of the pairs of a positive and a negative example in which the positive one has the higher score; a tie
counts half (Mann and Whitney). Equal to scikit-learn's `roc_auc_score`.
"""

import numpy as np


def roc_auc(scores: np.ndarray, positives: np.ndarray) -> float:
    """Area under the ROC curve of one class, in [0, 1]; all scores equal give 0.5.

    Args:
        scores: (N,) scores, any monotone scale.
        positives: (N,) bool or 0/1, with at least one positive and one negative.

    Raises:
        ValueError: if the shapes differ, a score is NaN, or all examples are positive or all negative.
    """
    scores, positives = np.asarray(scores), np.asarray(positives).astype(bool)
    if scores.ndim != 1 or scores.shape != positives.shape:
        raise ValueError(
            f"`scores` and `positives` must both be (N,), got {scores.shape} and {positives.shape}. "
            "For several classes use `mean_roc_auc`."
        )
    if np.isnan(scores).any():
        raise ValueError(f"`scores` has {int(np.isnan(scores).sum())} NaN. Find the model output that is not finite.")
    num_positive = int(positives.sum())
    num_negative = len(positives) - num_positive
    if num_positive == 0 or num_negative == 0:
        raise ValueError(
            f"`positives` has {num_positive} positive and {num_negative} negative examples. Leave this class out: its "
            "ROC-AUC is not defined."
        )
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2  # from 1; equal scores share the mean of their ranks
    rank_sum = rank[place][positives].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def mean_roc_auc(scores: np.ndarray, positives: np.ndarray) -> dict[str, float | int]:
    """Macro mean over the classes with both a positive and a negative example.

    Args:
        scores: (N, C) scores, one column per class.
        positives: (N, C) bool or 0/1 labels.

    Returns:
        `ROC_AUC` in [0, 1], `n_classes_scored`, and `n_classes_skipped`: those without both labels.

    Raises:
        ValueError: if the shapes differ, a score is NaN, or no class has both labels.
    """
    scores, positives = np.asarray(scores), np.asarray(positives).astype(bool)
    if scores.ndim != 2 or scores.shape != positives.shape:
        raise ValueError(
            f"`scores` and `positives` must both be (N, C), got {scores.shape} and {positives.shape}. "
            "Pass one column per class, in the same order."
        )
    has_both = positives.any(axis=0) & ~positives.all(axis=0)  # (C,)
    if not has_both.any():
        raise ValueError(
            f"`positives` has no class with both labels, of {positives.shape[1]}. Test more clips, or check that the "
            "label names of the data set and the class list are spelt alike."
        )
    values = [roc_auc(scores[:, c], positives[:, c]) for c in np.flatnonzero(has_both)]
    num_scored = len(values)
    return {
        "ROC_AUC": float(np.mean(values)),
        "n_classes_scored": num_scored,
        "n_classes_skipped": len(has_both) - num_scored,
    }


__all__ = ["mean_roc_auc", "roc_auc"]

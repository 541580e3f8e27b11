# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Accuracy, top-k accuracy and balanced accuracy of single-label classification, in numpy.

A prediction is the class of the highest score; of equal scores the lowest class index wins (numpy's argmax).
"""

import numpy as np


def accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Share of the examples whose predicted class is the target class.

    Args:
        predictions: (N,) class indices.
        targets: (N,) class indices.

    Raises:
        ValueError: if the two differ in shape or are empty.
    """
    predictions, targets = _check_classes(predictions, targets)
    return float((predictions == targets).mean())


def balanced_accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the classes that occur in `targets` of the share of their examples that are predicted right.

    Args:
        predictions: (N,) class indices.
        targets: (N,) class indices.

    Raises:
        ValueError: if the two differ in shape or are empty.
    """
    predictions, targets = _check_classes(predictions, targets)
    return float(np.mean([(predictions[targets == c] == c).mean() for c in np.unique(targets)]))


def top_k_accuracy(scores: np.ndarray, targets: np.ndarray, k: int = 5) -> float:
    """Share of the examples whose target class is among the k highest scores; with k >= C this is 1.

    Args:
        scores: (N, C) class scores, any monotone scale.
        targets: (N,) class indices.
        k: number of guesses, >= 1; of equal scores the lower class index goes first.

    Raises:
        ValueError: if the shapes do not fit, `k` is below 1, or a score is NaN.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1] or len(targets) == 0:
        raise ValueError(
            f"`scores` must be (N, C) and `targets` (N,) with N > 0, got {scores.shape} and {targets.shape}. "
            "Pass one row of class scores and one class index per example."
        )
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}. Choose the number of guesses per example.")
    if np.isnan(scores).any():
        raise ValueError(f"`scores` has {int(np.isnan(scores).sum())} NaN. Find the model output that is not finite.")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (N, k)
    return float((best == targets[:, None]).any(axis=1).mean())


def _check_classes(predictions: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.ndim != 1 or predictions.shape != targets.shape or len(targets) == 0:
        raise ValueError(
            f"`predictions` and `targets` must both be (N,) with N > 0, got {predictions.shape} and {targets.shape}. "
            "Pass one class index per example; for scores use `top_k_accuracy`."
        )
    return predictions, targets


__all__ = ["accuracy", "balanced_accuracy", "top_k_accuracy"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Average precision and its macro mean (mAP) for multi-label tagging and frame scores, in numpy.

AP = sum over the distinct scores, from high to low, of (R_n - R_{n-1}) P_n: no interpolation, equal scores form one
threshold. Equal to scikit-learn's `average_precision_score`, but for classes without a positive example: those have
no AP and are left out of the mean (scikit-learn counts them as 0.0 and drags the mean down).
"""

import warnings

import numpy as np


def average_precision(scores: np.ndarray, positives: np.ndarray) -> float:
    """Average precision of one class, in [0, 1]; all scores equal give the share of positives.

    Args:
        scores: (N,) scores, any monotone scale.
        positives: (N,) bool or 0/1, with at least one positive.

    Raises:
        ValueError: if the shapes differ, a score is NaN, or nothing is positive.
    """
    scores, positives = np.asarray(scores), np.asarray(positives).astype(bool)
    if scores.ndim != 1 or scores.shape != positives.shape:
        raise ValueError(
            f"`scores` and `positives` must both be (N,), got {scores.shape} and {positives.shape}. "
            "For several classes use `mean_average_precision`."
        )
    if np.isnan(scores).any():
        raise ValueError(f"`scores` has {int(np.isnan(scores).sum())} NaN. Find the model output that is not finite.")
    if not positives.any():
        raise ValueError("`positives` has no positive example, got 0. Leave this class out: its AP is not defined.")
    order = np.argsort(-scores, kind="stable")
    ranked_scores, ranked_positives = scores[order], positives[order]
    last_of_tie = np.append(np.diff(ranked_scores) != 0, True)  # one threshold per distinct score
    hits = np.cumsum(ranked_positives)[last_of_tie]
    precision = hits / (np.flatnonzero(last_of_tie) + 1)
    recall_gain = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(recall_gain * precision))


def mean_average_precision(
    scores: np.ndarray, positives: np.ndarray, include_empty: bool = False
) -> dict[str, float | int]:
    """Macro mean over classes of average precision.

    Args:
        scores: (N, C) scores, one column per class.
        positives: (N, C) bool or 0/1 labels.
        include_empty: count classes without a positive as AP 0.0, as scikit-learn's macro average does; by default
            they are left out and a warning says how many.

    Returns:
        `mAP` in [0, 1], `n_classes_scored`, and `chance`: the mean share of positives over the scored classes, which
        a constant score reaches.

    Raises:
        ValueError: if the shapes differ, a score is NaN, or no class has a positive.
    """
    scores, positives = np.asarray(scores), np.asarray(positives).astype(bool)
    if scores.ndim != 2 or scores.shape != positives.shape:
        raise ValueError(
            f"`scores` and `positives` must both be (N, C), got {scores.shape} and {positives.shape}. "
            "Pass one column per class, in the same order."
        )
    is_scored = positives.any(axis=0)  # (C,)
    if not is_scored.any():
        raise ValueError(
            f"`positives` has no positive in any of its {positives.shape[1]} classes. "
            "Check that the label names of the data set and the class list are spelt alike."
        )
    num_empty = int((~is_scored).sum())
    if num_empty and not include_empty:
        warnings.warn(
            f"{num_empty} of {len(is_scored)} classes have no positive example and are left out of the mAP.",
            stacklevel=2,
        )
    values = [average_precision(scores[:, c], positives[:, c]) for c in np.flatnonzero(is_scored)]
    num_scored = len(is_scored) if include_empty else len(values)
    chance = float(positives[:, is_scored].mean(axis=0).sum()) / num_scored
    return {"mAP": float(np.sum(values)) / num_scored, "n_classes_scored": num_scored, "chance": chance}


__all__ = ["average_precision", "mean_average_precision"]

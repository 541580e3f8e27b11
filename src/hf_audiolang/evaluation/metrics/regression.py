# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""R2 of predicted numbers, such as arousal and valence of music (MARBLE), in numpy."""

import numpy as np


def r2_score(predictions: np.ndarray, targets: np.ndarray) -> float:
    """1 - (sum of squared errors) / (sum of squared deviations from the mean target).

    1 is perfect, 0 is what the mean of the targets reaches, and there is no lower bound.

    Args:
        predictions: (N,) numbers.
        targets: (N,) numbers that are not all equal.

    Raises:
        ValueError: if the shapes differ, a number is not finite, or all targets are equal.
    """
    predictions, targets = (np.asarray(values, dtype=np.float64) for values in (predictions, targets))
    if predictions.ndim != 1 or predictions.shape != targets.shape:
        raise ValueError(
            f"`predictions` and `targets` must both be (N,), got {predictions.shape} and {targets.shape}. Pass one "
            "number per example, and one dimension at a time."
        )
    for name, values in (("predictions", predictions), ("targets", targets)):
        if not np.isfinite(values).all():
            num_bad = int((~np.isfinite(values)).sum())
            raise ValueError(f"`{name}` has {num_bad} numbers that are not finite. Correct or remove them.")
    deviation = np.square(targets - targets.mean()).sum() if len(targets) else 0.0
    if deviation == 0:
        raise ValueError(f"`targets` has {len(targets)} numbers, all equal: R2 is not defined. Test on other clips.")
    return float(1 - np.square(predictions - targets).sum() / deviation)


__all__ = ["r2_score"]

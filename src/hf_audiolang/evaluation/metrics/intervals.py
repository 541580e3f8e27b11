# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""How far a mean over a few seeds can be trusted: the 95 % interval by Student's t, in numpy."""

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95


def half_width_95(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean: t(0.975, n - 1) * s / sqrt(n), s with divisor n - 1.

    Raises:
        ValueError: if there are fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"`values` must hold two numbers or more, got {len(values)}. Run another seed.")
    return student_t(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def student_t(degrees: int) -> float:
    """The bound that |t| stays below with probability 0.95: 12.706, 4.303, 3.182, ... for 1, 2, 3, ... degrees.

    Raises:
        ValueError: if `degrees` is no positive number.
    """
    if degrees < 1:
        raise ValueError(f"`degrees` must be at least 1, got {degrees}. Give the number of values less one.")
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halves the angle's interval to float64 precision
        middle = (low + high) / 2
        low, high = (middle, high) if _central_share(middle, degrees) < CONFIDENCE else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _central_share(angle: float, degrees: int) -> float:
    """Probability that |t| < sqrt(degrees) * tan(angle) (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    is_odd = degrees % 2
    term = math.cos(angle) if is_odd else 1.0
    series = 0.0
    for power in range(1 + is_odd, degrees, 2):  # of the cosine, plus one
        series += term
        term *= power / (power + 1) * math.cos(angle) ** 2
    share = math.sin(angle) * series
    return (angle + share) * 2 / math.pi if is_odd else share


__all__ = ["half_width_95", "student_t"]

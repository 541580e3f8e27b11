# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Inputs and settings for which icefall's training-time functions were recorded, see record_zipformer_training.py.

Every number comes from `numpy.random.default_rng(seed).normal`, in float64.
"""

import numpy as np
import torch
from torch import Tensor

# share of positive values, mean absolute value, factor on the gradient; icefall's settings but for the last one's
BALANCERS = {
    "embed": {"positive": (0.05, 0.95), "absolute": (0.2, 1.0), "grad_scale": 0.04},
    "layer": {"positive": (0.45, 0.55), "absolute": (0.2, 4.0), "grad_scale": 0.04},
    "feed_forward": {"positive": (0.3, 1.0), "absolute": (0.75, 5.0), "grad_scale": 0.04},
    "keys": {"positive": (0.4, 0.6), "absolute": (0.0, 100.0), "grad_scale": 0.04},
    "strong": {"positive": (0.45, 0.55), "absolute": (0.1, 4.0), "grad_scale": 0.3},
}
# groups, limit of the metric (which is between 2 and 5 for these inputs), factor on the gradient
WHITENS = {
    "one group": {"num_groups": 1, "limit": 1.5, "grad_scale": 0.01},
    "two groups": {"num_groups": 2, "limit": 1.5, "grad_scale": 0.025},
    "three groups": {"num_groups": 3, "limit": 1.1, "grad_scale": 0.5},
    "white enough": {"num_groups": 1, "limit": 100.0, "grad_scale": 0.5},
}
LIMITS = {"bypass": (0.9, 1.0), "later bypass": (0.2, 1.0), "log_scale": (-1.5, 1.5)}
SCORE_LIMIT, SCORE_PENALTY = 25.0, 1e-4
BATCH_COUNTS = (0.0, 1000.0, 2300.0, 4000.0, 20000.0)
SCHEDULE_COUNTS = (-1.0, 0.0, 700.0, 2000.0, 4000.0, 9000.0, 16000.0, 50000.0, 1e6)
SCHEDULES = {
    "dropout": ((0.0, 0.3), (20000.0, 0.1)),
    "attention_skip_rate": ((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0)),
    "ff2_skip_rate": ((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0)),
    "one point": ((3000.0, 0.25),),
}
POSITIONS = {"few": (4, 10, 0), "usual width": (5, 48, 0), "left context": (3, 14, 2)}  # frames, width, frames before
FAR = (1, 9, 100, 1998)  # offsets, both signs, of the official table's 2000 frames
# Whole steps of training: batch count, and a limit for every whitening instead of icefall's, which few exceed here
STEPS = {"start": (0, None), "middle": (5000, None), "nothing white": (5000, 1.0)}


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def channels() -> tuple[Tensor, Tensor]:
    """(B, T, C) values, whose channels are fine, small, large, positive, negative, silent, off by a little; gradients.

    A balancer sees some outside its limits and others inside.
    """
    sizes = torch.tensor([1.0, 0.02, 30.0, 1.0, 1.0, 0.0, 0.6], dtype=torch.float64)
    offsets = torch.tensor([0.0, 0.0, 0.0, 3.0, -3.0, 0.0, 0.15], dtype=torch.float64)
    return normal(1, 3, 11, 7) * sizes + offsets, normal(2, 3, 11, 7)


def correlated() -> tuple[Tensor, Tensor]:
    """(B, T, C) values with correlated channels of different sizes and means; gradients."""
    mixing = normal(3, 6, 6) + 2 * torch.diag(torch.arange(6, dtype=torch.float64))
    return normal(4, 3, 11, 6) @ mixing + normal(5, 6), normal(6, 3, 11, 6)


def parameters(name: str) -> tuple[Tensor, Tensor]:
    """(23,) values around the limits, the first two exactly at them; gradients, the last of which are zero."""
    low, high = LIMITS[name]
    values = (low + high) / 2 + (high - low) * normal(7, 23)
    values[0], values[1] = low, high
    gradients = normal(8, 23)
    gradients[-3:] = 0.0
    return values, gradients


def scores() -> tuple[Tensor, Tensor]:
    """(H, B, T, T) attention scores, some greater than the limit; gradients of the size of the penalty."""
    return 20 * normal(9, 2, 3, 5, 5), 1e-4 * normal(10, 2, 3, 5, 5)


def activation_points() -> Tensor:
    return torch.cat([torch.linspace(-30, 30, 13, dtype=torch.float64), 3 * normal(11, 12)])


def norm_case() -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, C) values, (C,) bias, gradients."""
    return 2 * normal(12, 2, 5, 7) + 0.3, 0.7 * normal(13, 7), normal(14, 2, 5, 7)

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Regression of teacher features at hidden tokens (M2D; M2D-CLAP Eq. 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses_distributed import global_mean

TARGET_EPS = 1e-6  # added to the variance of a target token; M2D


def standardise(tokens: Tensor) -> Tensor:
    """Each token with mean 0 and unbiased variance 1 over its features: (M, D) -> (M, D)."""
    variance, mean = torch.var_mean(tokens, dim=-1, keepdim=True)
    return (tokens - mean) * (variance + TARGET_EPS).rsqrt()


def feature_regression_loss(predicted: Tensor, target: Tensor, kind: str) -> Tensor:
    """Distance of predictions from standardised teacher features, mean over the tokens of all processes.

    Args:
        predicted: (M, D) predictions at hidden tokens.
        target: (M, D) teacher features there, without gradient.
        kind: "cosine" is 2 - 2 cos (M2D-CLAP Eq. 1), between 0 and 4; "mse" the mean squared difference.

    Raises:
        ValueError: for another `kind`.
    """
    predicted, target = predicted.float(), standardise(target.float()).detach()
    if kind == "cosine":
        per_token = 2 - 2 * (F.normalize(predicted, dim=-1) * F.normalize(target, dim=-1)).sum(-1)
    elif kind == "mse":
        per_token = (predicted - target).square().mean(-1)
    else:
        raise ValueError(f"Unknown `kind` {kind!r}. Choose one of ['cosine', 'mse'].")
    return global_mean(per_token.sum(), torch.tensor(len(per_token), device=per_token.device))


__all__ = ["feature_regression_loss", "standardise"]

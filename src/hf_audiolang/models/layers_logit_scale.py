# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The learned multiplier of similarities, in two parametrisations."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LogitScale(nn.Module):
    """Learned multiplier of the similarities, kept as its logarithm, with the bias of the sigmoid loss if used."""

    def __init__(self, has_bias: bool):
        super().__init__()
        self.log_scale = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(())) if has_bias else None

    def forward(self) -> Tensor:
        """Returns () the multiplier 1 / temperature."""
        return self.log_scale.float().exp()


class TemperatureScale(nn.Module):
    """The same multiplier kept as its reciprocal, the temperature, without exponential (MGA-CLAP's code).

    Args:
        lowest: a smaller temperature counts as this in training (our choice: a divisor must not cross 0).
    """

    def __init__(self, lowest: float):
        super().__init__()
        self.lowest = lowest
        self.temperature = nn.Parameter(torch.empty(()))

    def forward(self) -> Tensor:
        """Returns () the multiplier 1 / temperature."""
        temperature = self.temperature.float()
        return 1 / (temperature.clamp(min=self.lowest) if self.training else temperature)


__all__ = ["LogitScale", "TemperatureScale"]

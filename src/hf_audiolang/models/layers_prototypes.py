# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Prototype head of the masked self-distillation loss."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PrototypeHead(nn.Module):
    """MLP to a unit-norm bottleneck that is compared with K prototypes (the head of DINO and DINOv2).

    The prototypes are used with unit norm, which is DINO's weight-normalised last layer with its gain fixed at 1.
    """

    def __init__(self, in_size: int, hidden_size: int, bottleneck_size: int, num_prototypes: int, num_layers: int):
        super().__init__()
        sizes = [in_size] + [hidden_size] * (num_layers - 1) + [bottleneck_size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, bottleneck_size))

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns unit-norm features: (M, in_size) -> (M, bottleneck_size) float32."""
        for layer in self.layers[:-1]:
            tokens = F.gelu(layer(tokens))
        return F.normalize(self.layers[-1](tokens).float(), dim=-1)

    def unit_prototypes(self) -> Tensor:
        """Returns (K, bottleneck_size) unit-norm prototypes."""
        return F.normalize(self.prototypes.float(), dim=-1)


__all__ = ["PrototypeHead"]

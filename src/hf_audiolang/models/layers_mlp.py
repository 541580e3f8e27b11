# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Feed-forward blocks: SwiGLU with three matrices, GELU with two."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SwiGluMlp(nn.Module):
    """`down(silu(gate(x)) * up(x))`, (..., D) -> (..., D)."""

    def __init__(self, hidden_size: int, intermediate_size: int, use_bias: bool = False, dropout: float = 0.0):
        """`dropout` is that of the inner activations."""
        super().__init__()
        self.dropout = dropout
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=use_bias)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=use_bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=use_bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns (..., D)."""
        inner = F.silu(self.gate_proj(hidden_states)) * self.up_proj(hidden_states)
        return self.down_proj(F.dropout(inner, self.dropout, self.training))


class GeluMlp(nn.Module):
    """`fc2(gelu(fc1(x)))`, (..., D) -> (..., D)."""

    def __init__(self, hidden_size: int, intermediate_size: int, use_bias: bool = False, dropout: float = 0.0):
        """`dropout` is that of the inner activations."""
        super().__init__()
        self.dropout = dropout
        self.fc1 = nn.Linear(hidden_size, intermediate_size, bias=use_bias)
        self.fc2 = nn.Linear(intermediate_size, hidden_size, bias=use_bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns (..., D)."""
        return self.fc2(F.dropout(F.gelu(self.fc1(hidden_states)), self.dropout, self.training))


MLPS = {"swiglu": SwiGluMlp, "gelu": GeluMlp}

__all__ = ["MLPS", "GeluMlp", "SwiGluMlp"]

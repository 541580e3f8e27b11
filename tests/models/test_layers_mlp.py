# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Feed-forward blocks against their formulas."""

import math

import pytest
import torch

from hf_audiolang.models.layers_mlp import MLPS, GeluMlp, SwiGluMlp


def make(block, use_bias):
    torch.manual_seed(0)
    return block(5, 7, use_bias), torch.randn(3, 2, 5)


def linear(layer, row):
    """One output vector, number by number."""
    bias = layer.bias.tolist() if layer.bias is not None else [0.0] * layer.out_features
    lines = zip(layer.weight.tolist(), bias, strict=True)
    return [sum(w * x for w, x in zip(line, row, strict=True)) + b for line, b in lines]


@pytest.mark.parametrize("use_bias", [False, True])
def test_swiglu_multiplies_a_gate(use_bias):
    mlp, states = make(SwiGluMlp, use_bias)
    row = states[1, 1].tolist()
    gate, up = linear(mlp.gate_proj, row), linear(mlp.up_proj, row)
    inner = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up, strict=True)]
    assert mlp(states)[1, 1].tolist() == pytest.approx(linear(mlp.down_proj, inner), abs=1e-6)
    assert len(list(mlp.parameters())) == (6 if use_bias else 3)


@pytest.mark.parametrize("use_bias", [False, True])
def test_gelu_is_the_exact_one(use_bias):
    mlp, states = make(GeluMlp, use_bias)
    hidden = linear(mlp.fc1, (3 * states[2, 0]).tolist())
    inner = [h * 0.5 * (1 + math.erf(h / math.sqrt(2))) for h in hidden]
    assert mlp(3 * states)[2, 0].tolist() == pytest.approx(linear(mlp.fc2, inner), abs=1e-6)
    assert len(list(mlp.parameters())) == (4 if use_bias else 2)


def test_names_of_the_configuration_choose_the_block():
    assert MLPS["swiglu"] is SwiGluMlp
    assert MLPS["gelu"] is GeluMlp

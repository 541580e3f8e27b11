# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Prototype head against a second writing of it."""

import pytest
import torch

from hf_audiolang.models.layers_prototypes import PrototypeHead


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_head_is_an_mlp_to_unit_features(num_layers):
    torch.manual_seed(0)
    head = PrototypeHead(5, 9, 4, 7, num_layers)
    torch.nn.init.normal_(head.prototypes)
    tokens = torch.randn(6, 5)
    hidden = tokens
    for number in range(num_layers):
        weight, bias = head.state_dict()[f"layers.{number}.weight"], head.state_dict()[f"layers.{number}.bias"]
        hidden = hidden @ weight.T + bias
        if number < num_layers - 1:
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(head(tokens), hidden / hidden.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-6)
    assert f"layers.{num_layers}.weight" not in head.state_dict()
    assert hidden.shape == (6, 4)


def test_prototypes_count_by_direction_only():
    torch.manual_seed(0)
    head = PrototypeHead(5, 9, 4, 7, 2)
    torch.nn.init.normal_(head.prototypes)
    unit = head.unit_prototypes().detach()
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(7))
    with torch.no_grad():
        head.prototypes.mul_(torch.linspace(0.5, 30, 7).unsqueeze(1))
    torch.testing.assert_close(head.unit_prototypes(), unit)
    head.unit_prototypes()[2, 1].backward()
    along = (head.prototypes.grad[2] * unit[2]).sum()
    assert along.abs() < 1e-6  # no gradient along the length


def test_features_are_float32_under_autocast():
    head = PrototypeHead(5, 9, 4, 7, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(torch.randn(3, 5)).dtype == torch.float32

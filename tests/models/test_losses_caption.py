# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Captioning loss against torch's cross-entropy on the whole padded batch."""

import math

import pytest
import torch

from hf_audiolang.models.losses_caption import caption_loss


def make_inputs():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(3, 5, 4, generator=generator)
    embedding = torch.randn(11, 4, generator=generator)
    targets = torch.randint(0, 11, (3, 5), generator=generator)
    lengths = torch.tensor([[5], [2], [3]])
    return states, embedding, targets.masked_fill(torch.arange(5) >= lengths, -100)


def test_value_and_gradient_equal_torch():
    states, embedding, targets = make_inputs()
    results = []
    for is_ours in (True, False):
        leaves = [states.clone().requires_grad_(), embedding.clone().requires_grad_()]
        if is_ours:
            loss = caption_loss(*leaves, targets)
        else:
            logits = leaves[0] @ leaves[1].T
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets)  # ignores -100
        loss.backward()
        results.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_each_token_counts_the_same_not_each_caption():
    states, embedding, targets = make_inputs()
    states[0] = 0.0  # these five targets cost log(11) each
    rest = caption_loss(states[1:], embedding, targets[1:])
    torch.testing.assert_close(caption_loss(states, embedding, targets), (5 * math.log(11) + 5 * rest) / 10)


def test_padding_may_hold_anything():
    states, embedding, targets = make_inputs()
    poisoned = torch.where((targets == -100).unsqueeze(-1), float("nan"), states).requires_grad_()
    loss = caption_loss(poisoned, embedding, targets)
    torch.testing.assert_close(loss, caption_loss(states, embedding, targets))
    loss.backward()
    assert torch.count_nonzero(poisoned.grad[targets == -100]) == 0


def test_batch_without_targets_costs_nothing():
    states, embedding, targets = make_inputs()
    loss = caption_loss(states.requires_grad_(), embedding, torch.full_like(targets, -100))
    assert loss.item() == pytest.approx(0.0)
    loss.backward()

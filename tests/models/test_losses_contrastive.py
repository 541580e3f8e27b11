# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Contrastive losses against naive writings and closed forms, on one process."""

import math

import pytest
import torch

from hf_audiolang.models.losses_contrastive import (
    contrastive_loss,
    sigmoid_contrastive_loss,
    summed_contrastive_loss,
)


def unit(rows, columns, seed):
    embeds = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(embeds, dim=-1)


def naive_contrastive(audio, text, scale):
    """The paper's Eq. 3, term by term, with the minus sign."""
    size, total = len(audio), 0.0
    for i in range(size):
        pair = torch.exp(scale * audio[i] @ text[i])
        total = total - torch.log(pair / sum(torch.exp(scale * audio[i] @ text[j]) for j in range(size)))
        total = total - torch.log(pair / sum(torch.exp(scale * text[i] @ audio[j]) for j in range(size)))
    return total / (2 * size)


def naive_sigmoid(audio, text, scale, bias):
    total = 0.0
    for i in range(len(audio)):
        for j in range(len(text)):
            sign = 1.0 if i == j else -1.0
            total = total + torch.log(1 + torch.exp(-sign * (scale * audio[i] @ text[j] + bias)))
    return total / len(audio)


def values_and_gradients(loss, *inputs):
    leaves = [value.clone().requires_grad_() for value in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


@pytest.mark.parametrize(
    ("loss", "naive", "numbers"),
    [
        (contrastive_loss, naive_contrastive, (7.3,)),
        (sigmoid_contrastive_loss, naive_sigmoid, (7.3, -2.1)),
    ],
)
def test_value_and_gradient_equal_the_naive_loss(loss, naive, numbers):
    inputs = (unit(5, 7, seed=0), unit(5, 7, seed=1), *(torch.tensor(number) for number in numbers))
    got, wanted = values_and_gradients(loss, *inputs), values_and_gradients(naive, *inputs)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "reduction"), [("infonce", "sum"), ("infonce", "mean"), ("sigmoid", "sum")])
def test_summed_loss_and_gradient_equal_the_naive_loss(kind, reduction):
    inputs = (unit(5, 7, seed=0), unit(5, 7, seed=1))

    def naive(audio, text):
        # the naive ones are means: over 2 x 5 rows, and over 5 clips of one of two equal directions
        mean = naive_contrastive(audio, text, 7.3) if kind == "infonce" else naive_sigmoid(audio, text, 7.3, 0.0)
        return mean * 10 if reduction == "sum" else mean

    def loss(audio, text):
        return summed_contrastive_loss(audio, text, 7.3, kind=kind, reduction=reduction)

    for one, other in zip(values_and_gradients(loss, *inputs), values_and_gradients(naive, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_summed_loss_of_equal_pairs_is_known():
    same = unit(1, 7, seed=0).expand(5, 7)
    assert summed_contrastive_loss(same, same, 3.0).item() == pytest.approx(2 * 5 * math.log(5), rel=1e-5)
    scores = 2 * (5 * math.log(1 + math.exp(-3.0)) + 20 * math.log(1 + math.exp(3.0)))
    assert summed_contrastive_loss(same, same, 3.0, kind="sigmoid").item() == pytest.approx(scores, rel=1e-5)


def test_loss_is_symmetric_in_the_modalities():
    audio, text, scale = unit(5, 7, seed=0), unit(5, 7, seed=1), torch.tensor(10.0)
    torch.testing.assert_close(contrastive_loss(audio, text, scale), contrastive_loss(text, audio, scale))
    bias = torch.tensor(-1.0)
    torch.testing.assert_close(
        sigmoid_contrastive_loss(audio, text, scale, bias), sigmoid_contrastive_loss(text, audio, scale, bias)
    )


def test_both_directions_count():
    """Two captions alike: audio to text cannot tell, text to audio partly can; one direction alone differs."""
    audio, text = torch.eye(3), torch.eye(3)[[0, 0, 2]]
    logits = 4.0 * audio @ text.T
    per_audio = torch.nn.functional.cross_entropy(logits, torch.arange(3))
    per_text = torch.nn.functional.cross_entropy(logits.T, torch.arange(3))
    got = contrastive_loss(audio, text, torch.tensor(4.0))
    torch.testing.assert_close(got, (per_audio + per_text) / 2)
    assert abs(per_audio - per_text) > 0.1


def test_closed_forms():
    alike = unit(1, 7, seed=0).expand(5, 7)
    assert contrastive_loss(alike, alike, torch.tensor(20.0)).item() == pytest.approx(math.log(5), abs=1e-6)
    # perfectly aligned and orthogonal: log(1 + (B - 1) exp(-scale)), which falls to 0
    for scale in (1.0, 5.0, 30.0):
        wanted = math.log(1 + 4 * math.exp(-scale))
        got = contrastive_loss(torch.eye(5), torch.eye(5), torch.tensor(scale)).item()
        assert got == pytest.approx(wanted, abs=1e-6)
    wanted = math.log(1 + math.exp(-2.0)) + 4 * math.log(1 + math.exp(-1.0))
    got = sigmoid_contrastive_loss(torch.eye(5), torch.eye(5), torch.tensor(3.0), torch.tensor(-1.0)).item()
    assert got == pytest.approx(wanted, abs=1e-6)


def test_negatives_matter_in_the_sigmoid_loss():
    """Some published code gives negatives the label 0, so that they add a constant."""
    audio = torch.eye(4)
    near = torch.full((4, 4), 0.4).fill_diagonal_(0.6)
    scale, bias = torch.tensor(1.0), torch.tensor(0.0)
    base = sigmoid_contrastive_loss(audio, near, scale, bias)
    raised = near + 100.0 * (1 - torch.eye(4))
    assert sigmoid_contrastive_loss(audio, raised, scale, bias) > base + 250  # three negatives of about 100 each
    lowered = near - 100.0 * (1 - torch.eye(4))
    assert sigmoid_contrastive_loss(audio, lowered, scale, bias) < base - 1


@pytest.mark.parametrize("loss", [contrastive_loss, sigmoid_contrastive_loss])
def test_batches_of_different_shape_are_refused(loss):
    numbers = (torch.tensor(1.0),) * (1 if loss is contrastive_loss else 2)
    with pytest.raises(ValueError, match=r"got \(5, 7\) and \(4, 7\). Pass one caption per clip"):
        loss(unit(5, 7, seed=0), unit(4, 7, seed=1), *numbers)

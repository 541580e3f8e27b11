# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The hard-negative loss against loops in Python, its three denominators, and what carries gradient."""

import math

import pytest
import torch
import torch.nn.functional as F

from hf_audiolang.models.losses_contrastive import contrastive_loss
from hf_audiolang.models.losses_hard_negative import embedding_regularizer, hard_negative_contrastive_loss

DISTINCT = [0, 1, 2, 3, 4]
REPEATED = [7, 3, 7, 5, 3]


def unit(rows, width, seed):
    values = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(values, dim=1)


def loss_of(audio, text, temperature, ids, **options):
    ids = torch.tensor(ids)
    logits = audio @ text.T / temperature
    is_pair = ids.unsqueeze(0) == ids.unsqueeze(1)
    return hard_negative_contrastive_loss(logits, logits.T, is_pair, **options)


def restated(logits, ids, gamma, denominator):
    """One direction for a list of rows, element by element."""
    size, losses = len(logits), []
    shifted = [[value - max(row) for value in row] for row in logits]
    hardness = [[math.exp(gamma * value) for value in row] for row in shifted]
    for i in range(size):
        weights = []
        for k in range(size):
            if ids[i] == ids[k]:
                weights.append(1.0)
            elif denominator == "official":
                weights.append((size - 1) * hardness[i][k] / (sum(hardness[k]) - hardness[i][k]))
            elif denominator == "row":
                weights.append((size - 1) * hardness[i][k] / (sum(hardness[i]) - hardness[i][k]))
            else:
                weights.append(size * hardness[i][k] / sum(hardness[i]))
        total = 1e-7 + sum(w * math.exp(s) for w, s in zip(weights, shifted[i], strict=True))
        own = [s - math.log(total) for s, other in zip(shifted[i], ids, strict=True) if other == ids[i]]
        losses.append(-sum(own) / len(own))
    return sum(losses) / size


@pytest.mark.parametrize("ids", [DISTINCT, REPEATED], ids=["distinct", "repeated"])
@pytest.mark.parametrize("denominator", ["official", "row", "paper"])
def test_loss_is_the_formula_of_its_denominator(denominator, ids):
    audio, text = unit(5, 7, seed=0), unit(5, 7, seed=1)
    logits = audio @ text.T / 0.3
    wanted = (
        restated(logits.tolist(), ids, 0.4, denominator) + restated(logits.T.tolist(), ids, 0.4, denominator)
    ) / 2
    got = loss_of(audio, text, 0.3, ids, gamma=0.4, denominator=denominator)
    assert got.item() == pytest.approx(wanted, rel=1e-12)
    others = [restated(logits.tolist(), ids, 0.4, name) for name in ("official", "row", "paper")]
    assert len({round(value, 6) for value in others}) == 3  # control: the three differ on this case


def test_gamma_zero_is_the_plain_contrastive_loss():
    audio, text = unit(5, 7, seed=2), unit(5, 7, seed=3)
    got = loss_of(audio, text, 0.2, DISTINCT, gamma=0.0)
    wanted = contrastive_loss(audio, text, torch.tensor(5.0))
    torch.testing.assert_close(got, wanted)
    nearly = loss_of(audio, text, 0.2, DISTINCT, gamma=1e-9)
    torch.testing.assert_close(nearly, wanted, rtol=1e-6, atol=1e-6)


def test_captions_of_one_clip_share_the_target():
    audio, text = unit(5, 7, seed=4), unit(5, 7, seed=5)
    got = loss_of(audio, text, 0.2, REPEATED, gamma=0.0)
    ids = torch.tensor(REPEATED)
    targets = (ids.unsqueeze(0) == ids.unsqueeze(1)).double()
    targets /= targets.sum(1, keepdim=True)
    logits = audio @ text.T / 0.2
    wanted = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("denominator", ["row", "paper"])
def test_gradient_flows_through_the_weights(denominator):
    audio, text = unit(4, 5, seed=6).requires_grad_(), unit(4, 5, seed=7)
    temperature = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def loss(audio, temperature):
        return loss_of(audio, text, temperature, [0, 1, 1, 2], gamma=0.5, denominator=denominator)

    assert torch.autograd.gradcheck(loss, (audio, temperature))


def test_official_gradient_takes_the_row_maximum_as_a_constant():
    """The official weights, unlike the other two, depend on the shift of each row, which carries no gradient."""
    logits = (unit(4, 5, seed=8) @ unit(4, 5, seed=9).T / 0.4).requires_grad_()
    is_pair = torch.eye(4, dtype=torch.bool)
    maxima = [direction.detach().amax(1) for direction in (logits, logits.T)]

    def loss(logits):
        total = 0.0
        for direction, maximum in zip((logits, logits.T), maxima, strict=True):
            shifted = direction - maximum.unsqueeze(1)
            hardness = (0.5 * shifted).exp()
            weights = 3 * hardness / (hardness.sum(1).unsqueeze(0).expand(4, 4) - hardness)
            weights = weights * ~is_pair + is_pair.double()
            total = total - (shifted - (1e-7 + (weights * shifted.exp()).sum(1, keepdim=True)).log()).diagonal().mean()
        return total / 2

    got = hard_negative_contrastive_loss(logits, logits.T, is_pair, gamma=0.5)
    torch.testing.assert_close(got, loss(logits))
    (gradient,) = torch.autograd.grad(got, logits)
    (wanted,) = torch.autograd.grad(loss(logits), logits)
    torch.testing.assert_close(gradient, wanted)
    frozen = hard_negative_contrastive_loss(logits, logits.T, is_pair, gamma=0.0)
    assert not torch.allclose(torch.autograd.grad(frozen, logits)[0], wanted, rtol=0.05)  # control: weights matter


def test_one_pair_alone_costs_nothing_and_has_a_finite_gradient():
    logits = torch.tensor([[3.0]], requires_grad=True)
    loss = hard_negative_contrastive_loss(logits, logits.T, torch.tensor([[True]]))
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert logits.grad.isfinite().all()


def test_logits_far_apart_stay_finite():
    logits = torch.tensor([[0.0, 900.0], [0.0, 900.0]], requires_grad=True)
    loss = hard_negative_contrastive_loss(logits, logits.T, torch.eye(2, dtype=torch.bool), gamma=0.5)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_unknown_denominator_is_refused():
    with pytest.raises(ValueError, match=r"Unknown `denominator` 'column'. Choose one of \['official', 'row'"):
        hard_negative_contrastive_loss(torch.zeros(2, 2), torch.zeros(2, 2), torch.eye(2).bool(), denominator="column")


def test_regularizer_is_smallest_for_one_entry_per_row():
    one_hot = torch.eye(3, 8)
    spread = torch.full((3, 8), 8**-0.5)
    assert embedding_regularizer(one_hot).item() == pytest.approx(1 / (8 * 3**0.5))
    assert embedding_regularizer(spread).item() == pytest.approx(1 / (8 * 3) ** 0.5)

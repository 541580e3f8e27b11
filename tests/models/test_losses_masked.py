# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Masked self-distillation against naive writings: targets, loss, centre, chunks."""

import math

import numpy as np
import pytest
import torch

from hf_audiolang.models.losses_masked import (
    TargetRule,
    clip_token_weights,
    prototype_loss,
    sinkhorn_targets,
    update_center,
)

TOKENS, SIZE, PROTOTYPES = 11, 5, 7


def unit(rows, columns, seed):
    embeds = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(embeds, dim=-1)


def random_center(seed=7):
    return 0.3 * torch.randn(1, PROTOTYPES, generator=torch.Generator().manual_seed(seed))


def make_sides():
    return (unit(TOKENS, SIZE, 0), unit(PROTOTYPES, SIZE, 1)), (unit(TOKENS, SIZE, 2), unit(PROTOTYPES, SIZE, 3))


WEIGHTS = torch.rand(TOKENS, generator=torch.Generator().manual_seed(4))


def naive_loss(student, teacher, weights, student_temperature, teacher_temperature, center):
    """The paper's Eq. 4, token by token and prototype by prototype."""
    total = 0.0
    for token in range(len(weights)):
        taught = [
            ((teacher[0][token] @ teacher[1][k]).item() - center[k].item()) / teacher_temperature
            for k in range(PROTOTYPES)
        ]
        norm = sum(math.exp(score) for score in taught)
        scores = [student[0][token] @ student[1][k] / student_temperature for k in range(PROTOTYPES)]
        log_norm = torch.log(sum(torch.exp(score) for score in scores))
        for k in range(PROTOTYPES):
            total = total - weights[token] * math.exp(taught[k]) / norm * (scores[k] - log_norm)
    return total


@pytest.mark.parametrize("centering", ["centering", "none"])
@pytest.mark.parametrize("chunk_size", [0, 4, 100])
def test_value_and_gradient_equal_the_naive_loss(centering, chunk_size):
    student, teacher = make_sides()
    center = random_center()
    results = []
    for is_naive in (False, True):
        leaves = [part.clone().requires_grad_() for part in (*student, *teacher)]
        if is_naive:
            used = center[0] if centering == "centering" else torch.zeros(PROTOTYPES)
            loss = naive_loss(leaves[:2], leaves[2:], WEIGHTS, 0.1, 0.05, used)
        else:
            loss = prototype_loss(
                tuple(leaves[:2]),
                tuple(leaves[2:]),
                WEIGHTS,
                student_temperature=0.1,
                target_rule=TargetRule(centering, 0.05, center),
                chunk_size=chunk_size,
            ).loss
        loss.backward()
        assert all(leaf.grad is None for leaf in leaves[2:])  # nothing for the teacher
        results.append((loss.detach(), leaves[0].grad, leaves[1].grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("centering", ["centering", "none"])
def test_chunks_change_neither_value_nor_gradient_nor_metrics(centering):
    student, teacher = make_sides()
    outputs = []
    for chunk_size in (0, 3, 1):
        leaves = [part.clone().requires_grad_() for part in student]
        result = prototype_loss(
            tuple(leaves),
            teacher,
            WEIGHTS,
            student_temperature=0.1,
            target_rule=TargetRule(centering, 0.05, random_center()),
            chunk_size=chunk_size,
        )
        result.loss.backward()
        outputs.append([result.loss.detach(), *(p.grad for p in leaves), result.score_sum, *result.metrics.values()])
    for other in outputs[1:]:
        for one, two in zip(outputs[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_every_number_matters():
    student, teacher = make_sides()

    def loss(temperature=0.1, rule=("centering", 0.05), weights=WEIGHTS):
        target_rule = TargetRule(*rule, random_center())
        return prototype_loss(
            student, teacher, weights, student_temperature=temperature, target_rule=target_rule
        ).loss.item()

    base = loss()
    for other in (
        loss(temperature=0.2),
        loss(rule=("none", 0.05)),
        loss(rule=("sinkhorn", 0.05)),
        loss(rule=("centering", 0.07)),
        loss(weights=WEIGHTS.flip(0)),
    ):
        assert abs(other - base) > 1e-3


def test_metrics_by_hand():
    """Two tokens; the teacher is sure of prototype 0 and of 1, the student of 0 and of 2."""
    axes = torch.eye(4)
    result = prototype_loss(
        (axes[[0, 2]], axes),
        (axes[[0, 1]], axes),
        torch.tensor([0.5, 0.5]),
        student_temperature=0.01,
        target_rule=TargetRule("none", 0.01, torch.zeros(1, 4)),
    )
    assert result.metrics["agreement"].item() == 0.5
    assert result.metrics["teacher_entropy"].item() == pytest.approx(0.0, abs=1e-6)
    assert result.metrics["effective_prototypes"].item() == pytest.approx(2.0, abs=1e-4)
    assert result.loss.item() == pytest.approx(50.0, abs=1e-3)  # half of 100 nats for the token that is wrong
    assert result.score_sum.tolist() == [1.0, 1.0, 0.0, 0.0]
    alike = prototype_loss(
        (axes[[0, 2]], axes),
        (axes[[0, 1]], axes),
        torch.tensor([0.5, 0.5]),
        student_temperature=0.1,
        target_rule=TargetRule("none", 1e6, torch.zeros(1, 4)),
    )
    assert alike.metrics["teacher_entropy"].item() == pytest.approx(math.log(4), abs=1e-5)
    assert alike.metrics["effective_prototypes"].item() == pytest.approx(4.0, abs=1e-4)


def naive_sinkhorn(scores, temperature, num_iterations=3):
    """DINOv2's loop as published: prototypes are rows."""
    plan = np.exp(scores / temperature).T
    num_prototypes, num_tokens = plan.shape
    plan = plan / plan.sum()
    for _ in range(num_iterations):
        for k in range(num_prototypes):
            plan[k] = plan[k] / plan[k].sum() / num_prototypes
        for token in range(num_tokens):
            plan[:, token] = plan[:, token] / plan[:, token].sum() / num_tokens
    return (plan * num_tokens).T


@pytest.mark.parametrize("num_iterations", [1, 3])
def test_sinkhorn_equals_the_published_loop(num_iterations):
    scores = unit(TOKENS, PROTOTYPES, 5)
    got = sinkhorn_targets(scores, 0.07, num_iterations)
    wanted = naive_sinkhorn(scores.double().numpy(), 0.07, num_iterations)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got.sum(1), torch.ones(TOKENS))


def test_sinkhorn_balances_the_prototypes_and_does_not_overflow():
    scores = unit(50, PROTOTYPES, 5)
    got = sinkhorn_targets(scores, 0.2, 200)
    torch.testing.assert_close(got.sum(0), torch.full((PROTOTYPES,), 50 / PROTOTYPES), rtol=1e-3, atol=1e-3)
    high = sinkhorn_targets(scores + 8, 0.04)  # exp(200) has no float32, and a shift of all scores changes nothing
    torch.testing.assert_close(high, sinkhorn_targets(scores, 0.04), rtol=1e-3, atol=1e-5)
    softmax = (scores / 0.2).softmax(-1).sum(0)
    assert (softmax - 50 / PROTOTYPES).abs().max() > 1  # control: a softmax does not balance


def test_center_moves_towards_the_mean_score():
    center = torch.tensor([[1.0, -2.0, 0.0]])
    kept = center
    update_center(center, torch.tensor([8.0, 4.0, -4.0]), 4, 0.9)
    torch.testing.assert_close(center, torch.tensor([[0.9 + 0.2, -1.8 + 0.1, -0.1]]))
    assert kept is center  # in place, it is a buffer
    for _ in range(200):
        update_center(center, torch.tensor([8.0, 4.0, -4.0]), 4, 0.9)
    torch.testing.assert_close(center, torch.tensor([[2.0, 1.0, -1.0]]))


def test_every_clip_counts_the_same():
    seq_ids = torch.tensor([2, 2, 2, 0, 1, 1])
    weights = clip_token_weights(seq_ids, 3)
    torch.testing.assert_close(weights, torch.tensor([1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6]))
    assert weights.sum().item() == pytest.approx(1.0)

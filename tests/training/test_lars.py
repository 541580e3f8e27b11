# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""LARS by hand, against values that timm's gave, and resumed."""

import json

import pytest
import torch
from record_timm import FORMS, OUTPUT, RATES, put_gradients, start_values

from hf_audiolang.training.lars import Lars


def steps_of(start, gradient, number=2, **options):
    """The parameter after each of some steps with a gradient that stays the same."""
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = Lars([parameter], **options)
    parameter.grad = torch.tensor(gradient, dtype=torch.float64)
    found = []
    for _ in range(number):
        optimizer.step()
        found.append(parameter.tolist())
    return found


def test_two_steps_with_weight_decay_by_hand():
    # |p| = 5, |g| = 1: r = 0.001 * 5 / (1 + 0.1 * 5) = 1/300; g + 0.1 p = [0.9, 1.2]; r times it = [0.003, 0.004]
    # |p| = 4.99: r = 0.00499 / 1.499; g + 0.1 p = 1.499 [0.6, 0.8]; r times it = [0.002994, 0.003992]
    # v = 0.9 [0.003, 0.004] + [0.002994, 0.003992] = [0.005694, 0.007592]
    first, second = steps_of([3.0, 4.0], [0.6, 0.8], lr=2.0, weight_decay=0.1, eps=0.0)
    assert first == pytest.approx([2.994, 3.992], abs=1e-12)
    assert second == pytest.approx([2.982612, 3.976816], abs=1e-12)


def test_without_weight_decay_it_is_sgd():
    first, second = steps_of([3.0, 4.0], [0.6, 0.8], lr=2.0)
    assert first == pytest.approx([1.8, 2.4], abs=1e-12)
    assert second == pytest.approx([-0.48, -0.64], abs=1e-12)  # v = 1.9 g
    (adapted,) = steps_of([3.0, 4.0], [0.6, 0.8], 1, lr=2.0, always_adapt=True)
    assert adapted == pytest.approx([2.994, 3.992], abs=1e-9)  # r = 0.005, eps aside


def test_a_zero_tensor_and_a_zero_gradient_are_not_adapted():
    (moved,) = steps_of([0.0, 0.0], [0.6, 0.8], 1, lr=2.0, weight_decay=0.1)
    assert moved == pytest.approx([-1.2, -1.6], abs=1e-12)
    (decayed,) = steps_of([3.0, 4.0], [0.0, 0.0], 1, lr=2.0, weight_decay=0.1)
    assert decayed == pytest.approx([2.4, 3.2], abs=1e-12)  # p - 2 * 0.1 p


@pytest.mark.parametrize("form", FORMS)
def test_steps_are_those_of_timm(form):
    decay, always = FORMS[form]
    recorded = json.loads(OUTPUT.read_text(encoding="utf-8"))["lars"][form]
    parameters = start_values()
    optimizer = Lars(parameters, lr=RATES[form], weight_decay=decay, always_adapt=always)
    for step in range(max(map(int, recorded))):
        put_gradients(parameters, step)
        kept = [parameter.grad.clone() for parameter in parameters]
        optimizer.step()
        assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(parameters, kept, strict=True))
        if str(step + 1) in recorded:
            found = [value for parameter in parameters for value in parameter.detach().flatten().tolist()]
            assert found == pytest.approx(recorded[str(step + 1)], rel=1e-9, abs=1e-12)  # order of float64 sums


def test_groups_have_their_own_decay_and_what_has_no_gradient_stays():
    adapted, plain, frozen = (torch.nn.Parameter(torch.tensor([3.0, 4.0])) for _ in range(3))
    optimizer = Lars([{"params": [adapted, frozen], "weight_decay": 0.1}, {"params": [plain], "lr": 1.0}], lr=2.0)
    for parameter in (adapted, plain):
        parameter.grad = torch.tensor([0.6, 0.8])
    optimizer.step()
    assert adapted.tolist() == pytest.approx([2.994, 3.992])
    assert plain.tolist() == pytest.approx([2.4, 3.2])
    assert frozen.tolist() == [3.0, 4.0]


def test_a_resumed_run_goes_on_to_the_bit(tmp_path):
    straight, parameters = start_values(), start_values()
    optimizers = [Lars(values, lr=2.0, weight_decay=0.05) for values in (straight, parameters)]
    for step in range(5):
        for values, optimizer in zip((straight, parameters), optimizers, strict=True):
            put_gradients(values, step)
            optimizer.step()
    torch.save(optimizers[1].state_dict(), tmp_path / "optimizer.pt")
    resumed = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    other = Lars(resumed, lr=7.0)
    other.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for step in range(5, 9):
        for values, optimizer in zip((straight, resumed), (optimizers[0], other), strict=True):
            put_gradients(values, step)
            optimizer.step()
    assert all(torch.equal(one, two) for one, two in zip(straight, resumed, strict=True))
    assert not torch.equal(straight[0], parameters[0])


def test_the_loss_of_a_closure_is_returned():
    parameter = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = Lars([parameter], lr=0.5, momentum=0.0)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum() / 2
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 12.5
    assert parameter.tolist() == [1.5, 2.0]
    optimizer.step(closure)
    assert parameter.tolist() == [0.75, 1.0]  # no momentum


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match=r"`Lars` must be at least 0, got \{'momentum': -0.1\}"):
        Lars([torch.zeros(1)], lr=1.0, momentum=-0.1)

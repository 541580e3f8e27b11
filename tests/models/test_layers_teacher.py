# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""EMA teacher: its closed form, and what it never does."""

import torch
from torch import nn

from hf_audiolang.models.layers_teacher import freeze_teacher, update_teacher


def make_module(value):
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_(torch.full_like(tensor, value))
    return module


def test_constant_decay_has_a_closed_form():
    teacher, student = freeze_teacher(make_module(2.0)), make_module(5.0)
    for _ in range(7):
        update_teacher([(teacher, student)], 0.9)
    wanted = 5.0 + (2.0 - 5.0) * 0.9**7
    for name, tensor in teacher.state_dict().items():
        if tensor.is_floating_point():  # running statistics follow too
            torch.testing.assert_close(tensor, torch.full_like(tensor, wanted))
        else:
            assert tensor == 2, name  # counters do not average


def test_moving_student_is_a_weighted_sum():
    teacher, student = make_module(0.0), make_module(0.0)
    wanted = 0.0
    for step, decay in enumerate((0.5, 0.75, 0.9, 1.0)):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.fill_(step + 1.0)
        update_teacher([(teacher, student)], decay)
        wanted = decay * wanted + (1 - decay) * (step + 1)
    for parameter in teacher.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, wanted))
    assert all(torch.equal(p, torch.full_like(p, 4.0)) for p in student.parameters())  # the student stays


def test_several_pairs_are_all_moved():
    pairs = [(make_module(0.0), make_module(1.0)), (make_module(0.0), make_module(3.0))]
    update_teacher(pairs, 0.75)
    assert [pair[0][0].weight[0, 0].item() for pair in pairs] == [0.25, 0.75]


def test_half_precision_student_moves_a_float32_teacher():
    teacher, student = make_module(1.0), make_module(1.0).bfloat16()
    with torch.no_grad():
        student[0].weight.fill_(2.0)
    update_teacher([(teacher, student)], 0.9999)
    assert teacher[0].weight.dtype == torch.float32
    torch.testing.assert_close(teacher[0].weight, torch.full((2, 3), 1.0001))  # bf16 would stay at 1


def test_update_leaves_no_graph_and_frozen_teachers_take_no_gradient():
    teacher, student = freeze_teacher(make_module(1.0)), make_module(2.0)
    update_teacher([(teacher, student)], 0.5)
    assert not teacher.training
    for parameter in teacher.parameters():
        assert not parameter.requires_grad
        assert parameter.grad_fn is None

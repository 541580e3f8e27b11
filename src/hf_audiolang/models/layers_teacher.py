# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""EMA teacher: a copy that follows the student and never receives gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def freeze_teacher(teacher: nn.Module) -> nn.Module:
    """The module in eval mode, all its parameters without gradient."""
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def update_teacher(pairs: Iterable[tuple[nn.Module, nn.Module]], decay: float) -> None:
    """Moves each teacher to `decay * teacher + (1 - decay) * student`, parameters and floating-point buffers.

    Args:
        pairs: (teacher, student) modules with the same state.
        decay: weight kept from the old teacher; call after each optimizer step, not each micro-batch.
    """
    teachers, students = [], []
    for teacher, student in pairs:
        new_state = student.state_dict()
        for name, value in teacher.state_dict().items():
            if value.is_floating_point():
                teachers.append(value)
                students.append(new_state[name].to(value.dtype))
    torch._foreach_lerp_(teachers, students, 1 - decay)


__all__ = ["freeze_teacher", "update_teacher"]

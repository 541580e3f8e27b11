# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""EMA teacher: a copy that follows the student and never receives gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def freeze_teacher(teacher: nn.Module) -> nn.Module:
    """The module in eval mode, all its parameters without gradient."""
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def update_teacher(pairs: Iterable[tuple[nn.Module, nn.Module]], decay: float) -> None:
    """Moves each teacher to `decay * teacher + (1 - decay) * student`, parameters and floating-point buffers.

    Args:
        pairs: (teacher, student) modules with the same state; low-rank adapters of the student count as merged.
        decay: weight kept from the old teacher; call after each optimizer step, not each micro-batch.
    """
    teachers, students = [], []
    for teacher, student in pairs:
        new_state = merged_state(student)
        for name, value in teacher.state_dict().items():
            if value.is_floating_point():
                teachers.append(value)
                students.append(new_state[name].to(value.dtype))
    torch._foreach_lerp_(teachers, students, 1 - decay)


@torch.no_grad()
def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state that a module would have without low-rank adapters if theirs were merged into the weights.

    Raises:
        ValueError: for adapters that do more than add to the weights.
    """
    state = {name.replace(".base_layer.", "."): value for name, value in module.state_dict().items()}
    for name, layer in module.named_modules():
        if not hasattr(layer, "get_delta_weight"):  # peft's name for what an adapter adds
            continue
        if any(layer.use_dora.values()):
            raise ValueError(
                f"A teacher cannot follow {name!r}, got an adapter with `use_dora`, which rescales the weights. Use "
                "plain or rank-stabilised LoRA, or train without the masked loss."
            )
        added = sum(layer.get_delta_weight(adapter) for adapter in layer.active_adapters)
        state[f"{name}.weight"] = state[f"{name}.weight"] + added
    return state


__all__ = ["freeze_teacher", "merged_state", "update_teacher"]

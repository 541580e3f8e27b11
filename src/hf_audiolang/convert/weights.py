# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What every converter needs to fill a model: key tables, shapes of tensors, and the checked state dict.

official key -> names in our model -> tensors re-arranged, shapes and values checked -> state dict
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

PARTS = ("weight", "bias")

KeyTable = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Plan:
    """A model without weights, and what fills its parameters.

    Attributes:
        model: on the meta device.
        table: official key without wrapper -> names in the model.
        given: name in the model -> tensor that does not come from the file.
    """

    model: PreTrainedModel
    table: KeyTable
    given: Mapping[str, Tensor] = field(default_factory=dict)


def same_parts(source: str, target: str, parts: Sequence[str] = PARTS) -> KeyTable:
    """Keys of a layer that is called `source` in the file and `target` in the model."""
    return {f"{source}.{part}": (f"{target}.{part}".removeprefix("."),) for part in parts}


def under(prefix: str, table: Mapping[str, tuple[str, ...]]) -> KeyTable:
    """A table whose targets stand below `prefix`."""
    return {key: tuple(f"{prefix}.{name}" for name in names) for key, names in table.items()}


def num_blocks(keys: Sequence[str], prefix: str) -> int:
    """One more than the highest block number among keys `prefix.NUMBER.`; 0 without any."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return 1 + max((int(match[1]) for match in map(pattern.match, keys) if match), default=-1)


def matrix_shape(tensors: Mapping[str, Tensor], key: str) -> tuple[int, int]:
    """Rows and columns of a tensor.

    Raises:
        ValueError: if it is missing or no matrix.
    """
    shape = tuple(tensors[key].shape) if key in tensors else None
    if shape is None or len(shape) != 2:
        raise ValueError(f"`{key}` must be a matrix, found {shape or 'none'}. Is the file complete?")
    return shape


def head_count(width: int, head_width: int, option: str, given: int | None) -> int:
    """Number of attention heads, which no tensor tells: `given`, else as wide as the official ones.

    Args:
        width: of the layer.
        head_width: of an official head.
        option: name of the converter's option that `given` comes from.
        given: the number that the user says, or None.

    Raises:
        ValueError: if `given` does not divide `width`, or without one the official width of a head does not.
    """
    if given is None and width % head_width != 0:
        raise ValueError(
            f"Nothing says the number of heads: a width of {width} is no multiple of {head_width}, the official width "
            f"of a head. Pass `{option}`."
        )
    if given is not None and width % given != 0:
        raise ValueError(f"`{option}` must divide the width {width}, got {given}. Correct the override.")
    return width // head_width if given is None else given


def converted_weights(
    tensors: Mapping[str, Tensor], plan: Plan, rearranged: Callable[[str, Tensor], tuple[Tensor, ...]]
) -> dict[str, Tensor]:
    """The model's state dict, numbers in float32, every tensor in memory of its own.

    Args:
        tensors: official key -> tensor; all keys of the plan's table are there.
        plan: what they become.
        rearranged: official key and tensor -> tensors in our form, one for each name in the table.

    Raises:
        ValueError: for a tensor of another shape, with values that are not finite, or for parameters left without.
    """
    expected = {name: tuple(value.shape) for name, value in plan.model.state_dict().items()}
    weights = {name: _number(tensor) for name, tensor in plan.given.items()}
    for key, names in plan.table.items():
        if not torch.isfinite(tensors[key]).all():
            raise ValueError(f"`{key}` holds values that are not finite: the file is damaged. Download it again.")
        for name, tensor in zip(names, rearranged(key, tensors[key]), strict=True):
            if expected.get(name) != tuple(tensor.shape):
                raise ValueError(
                    f"`{key}` has shape {tuple(tensors[key].shape)}, that is {tuple(tensor.shape)} for `{name}`, "
                    f"where the model has {expected.get(name, 'nothing')}. Is it a file of another architecture?"
                )
            weights[name] = _number(tensor).clone(memory_format=torch.contiguous_format)
    without = sorted(set(expected) - set(weights))
    if without:
        raise ValueError(f"No tensor of the file fills {len(without)} parameters, for instance {without[:3]}.")
    return weights


def _number(tensor: Tensor) -> Tensor:
    return tensor.detach().float() if tensor.is_floating_point() else tensor.detach()


__all__ = [
    "PARTS",
    "KeyTable",
    "Plan",
    "converted_weights",
    "head_count",
    "matrix_shape",
    "num_blocks",
    "same_parts",
    "under",
]

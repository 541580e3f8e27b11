# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Between a run and a model's own objective: run keys into the model's config, loss terms out of its output."""

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput

from .config import ModelArguments

# Run keys that are fields of the family's config: whatever the objective is, it is the model's own.
OBJECTIVE_KEYS = ("contrastive_weight", "masked_weight", "caption_weight", "masking_ratio")


def override_objective(model_config: PreTrainedConfig, arguments: ModelArguments) -> None:
    """Writes the objective's run keys that are set into the model's config, in place.

    Raises:
        ValueError: if the model's config has no field of that name.
    """
    for name in OBJECTIVE_KEYS:
        value = getattr(arguments, name)
        if value is None:
            continue
        if not hasattr(model_config, name):
            raise ValueError(
                f"`{name}` is {value}, but a {type(model_config).__name__} has no such field. Remove the key from the "
                "run: this model's objective has no such part."
            )
        setattr(model_config, name, value)


def read_terms(outputs: ModelOutput) -> dict[str, Tensor]:
    """The detached loss, loss terms and metrics of a model's output, in float32, by name."""
    values = {"loss": outputs.loss, **outputs.loss_terms, **(getattr(outputs, "metrics", None) or {})}
    return {name: value.detach().float() for name, value in values.items()}


__all__ = ["OBJECTIVE_KEYS", "override_objective", "read_terms"]

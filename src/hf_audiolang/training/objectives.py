# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Between a run and a model's own objective: run keys into the model's config, frozen parameters, loss terms out."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .config import ModelArguments

# Run keys that are fields of the family's config: whatever the objective is, it is the model's own.
OBJECTIVE_KEYS = (
    "contrastive_weight", "masked_weight", "caption_weight", "masking_ratio", "mask_style", "aggregation",
    "affinity_divisor", "hard_negative_gamma", "regularizer_weight", "parallel_share", "label_smoothing",
)  # fmt: skip
TOWER_KEYS = ("locality_blocks",)  # those that are fields of the audio tower's config


def override_objective(model_config: PreTrainedConfig, arguments: ModelArguments) -> None:
    """Writes the objective's run keys that are set into the model's config, in place.

    Raises:
        ValueError: if the model's config has no field of that name, or does not allow the values.
    """
    keys = (*OBJECTIVE_KEYS, *TOWER_KEYS)
    given = {name: getattr(arguments, name) for name in keys if getattr(arguments, name) is not None}
    tower = getattr(model_config, "audio_config", model_config)
    owners = {name: tower if name in TOWER_KEYS else model_config for name in given}
    for name, value in given.items():
        if not hasattr(owners[name], name):
            raise ValueError(
                f"`{name}` is {value}, but a {type(owners[name]).__name__} has no such field. Remove the key from the "
                "run: this model's objective has no such part."
            )
    try:
        for name, value in given.items():
            setattr(owners[name], name, value)
        tower.validate()
        model_config.validate()
    except StrictDataclassError as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise ValueError(f"The model's config does not allow {given}: {reason}. Change these keys.") from error
    if given.get("masking_ratio") == 0 and getattr(model_config, "masked_weight", 0) > 0:
        raise ValueError(
            f"`masking_ratio` is 0 with `masked_weight` {model_config.masked_weight}: nothing would be predicted. "
            "Raise the ratio, or set the weight to 0."
        )


def check_freeze(model: PreTrainedModel, patterns: Sequence[str]) -> None:
    """Makes sure that every pattern of `freeze` names something in a model, which needs no weights for that.

    Raises:
        ValueError: for a pattern without a parameter; names the nearest that has some.
    """
    names = {name for full_name, _ in model.named_parameters() for name in _names_of(model, full_name)}
    for pattern in patterns:
        if any(fnmatchcase(name, pattern) for name in names):
            continue
        nearest = difflib.get_close_matches(pattern, sorted(_patterns_of(names)), n=1, cutoff=0.0)[0]
        raise ValueError(
            f"`freeze` {pattern!r} matches no parameter of {type(model).__name__}. The nearest pattern that does is "
            f"{nearest!r}."
        )


def freeze_parameters(model: PreTrainedModel, patterns: Sequence[str]) -> float:
    """Takes the gradient from all parameters whose name in the model, or in its base model, matches a pattern.

    Their values stay equal to the bit, and an optimizer made afterwards has no state for them. Dropout inside a frozen
    part stays as it is in training.

    Returns:
        The share of the model's parameters that were matched.
    """
    frozen, total = 0, 0
    for full_name, parameter in model.named_parameters():
        total += parameter.numel()
        if any(fnmatchcase(name, pattern) for name in _names_of(model, full_name) for pattern in patterns):
            parameter.requires_grad_(False)
            frozen += parameter.numel()
    return frozen / total


def loss_weights(model_config: PreTrainedConfig) -> dict[str, float]:
    """The fields of a model's config that weigh its loss terms, by name."""
    return {name: value for name, value in model_config.to_dict().items() if name.endswith("_weight")}


def has_unused_parameters(model: PreTrainedModel) -> bool:
    """Whether a loss term of weight 0 may leave parameters that are to be trained without a gradient.

    A model that says what it exports has no parts for terms of weight 0 outside its base model, and trains all of what
    it exports: only the rest of the base model is without gradient. Of other models nothing is known. The mask token
    of SLAP's encoder is for masked training alone.
    """
    audio = getattr(model.config, "audio_config", model.config)
    trains_masked = getattr(model.config, "masked_weight", 0) and not hasattr(model, "classifier")
    if getattr(audio, "model_type", None) == "slap_audio_model" and not trains_masked:
        return True
    if 0 not in loss_weights(model.config).values():
        return False
    if not hasattr(model, "exported_model"):
        return True
    used = {id(parameter) for parameter in model.exported_model.parameters()}
    return any(value.requires_grad and id(value) not in used for value in model.base_model.parameters())


def read_terms(outputs: ModelOutput) -> dict[str, Tensor]:
    """The detached loss, loss terms and metrics of a model's output, in float32, by name."""
    terms, metrics = (getattr(outputs, name, None) or {} for name in ("loss_terms", "metrics"))  # a head has neither
    values = {"loss": outputs.loss, **terms, **metrics}
    return {name: value.detach().float() for name, value in values.items()}


def _names_of(model: PreTrainedModel, full_name: str) -> list[str]:
    """The name of a parameter in the model and, if it is there, in the base model."""
    prefix = f"{model.base_model_prefix}."
    return [full_name, full_name.removeprefix(prefix)] if full_name.startswith(prefix) else [full_name]


def _patterns_of(names: Iterable[str]) -> set[str]:
    """Every name, and `part.*` for every module of it."""
    patterns = set(names)
    for name in names:
        parts = name.split(".")
        patterns |= {".".join(parts[:depth]) + ".*" for depth in range(1, len(parts))}
    return patterns


__all__ = [
    "OBJECTIVE_KEYS",
    "TOWER_KEYS",
    "check_freeze",
    "freeze_parameters",
    "has_unused_parameters",
    "loss_weights",
    "override_objective",
    "read_terms",
]

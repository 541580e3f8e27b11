# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The optimizer of a run and its parameter groups: what decays, learning rates of layers and of the text tower."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from .config import OptimizationArguments
from .lars import Lars
from .layer_decay import layer_decay_groups
from .scaled_adam import ScaledAdam


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups for an optimizer: decayed and not decayed; parameters without gradient are left out.

    Decayed are the weights of linear and convolution layers. Norms, biases, embeddings, learned probes, mask tokens
    and scales are not: shrinking them has no regularising meaning (SLAP has no statement; slap.md section 8).
    A weight that a linear layer shares with an embedding counts as embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and id(module.weight) not in embeddings
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if id(parameter) in matrices], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if id(parameter) not in matrices], "weight_decay": 0.0},
    ]


def split_text_tower(groups: list[dict], model: nn.Module, learning_rate: float, *, scale: float) -> list[dict]:
    """The groups without the parameters of the text tower, then the same with these alone, at `scale` times the rate.

    Raises:
        ValueError: if the model has no text tower.
    """
    tower = getattr(getattr(model, "base_model", model), "text_model", None)
    if tower is None:
        raise ValueError(
            f"`text_learning_rate_scale` is {scale}, but this {type(model).__name__} has no text tower. Remove the "
            "key from the run."
        )
    text = {id(parameter) for parameter in tower.parameters()}
    others = [{**group, "params": [value for value in group["params"] if id(value) not in text]} for group in groups]
    own = [{**group, "params": [value for value in group["params"] if id(value) in text]} for group in groups]
    return [*others, *({**group, "lr": learning_rate * scale} for group in own)]


def build_optimizer(model: nn.Module, settings: OptimizationArguments) -> Optimizer:
    """The optimizer that `optimizer` names, over `parameter_groups`; `ScaledAdam` decays nothing and has one group.

    AdamW is fused on a GPU and a per-tensor loop elsewhere. With `text_learning_rate_scale` the text tower's
    parameters are in groups of their own, behind the others; with `layer_decay` those of each block of the encoder.

    Raises:
        ValueError: if no parameter requires a gradient, or if the text tower's rate is scaled and there is no tower.
    """
    groups, rate = parameter_groups(model, settings.weight_decay), settings.learning_rate
    if not any(group["params"] for group in groups):
        raise ValueError("`model` has 0 parameters that require a gradient. Unfreeze what should be trained.")
    if settings.optimizer == "scaled_adam":
        groups = [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    text_scale = getattr(settings, "text_learning_rate_scale", 1.0)  # of pre-training alone
    if text_scale != 1:
        groups = split_text_tower(groups, model, rate, scale=text_scale)
    if settings.layer_decay != 1:
        groups = layer_decay_groups(model, groups, settings.layer_decay, rate)
    betas = tuple(settings.adam_betas)
    if settings.optimizer == "scaled_adam":
        return ScaledAdam(groups, lr=rate, betas=betas, clipping_scale=settings.clipping_scale)
    if settings.optimizer in ("sgd", "lars"):
        return (SGD if settings.optimizer == "sgd" else Lars)(groups, lr=rate, momentum=settings.momentum)
    is_cuda = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return AdamW(groups, lr=rate, betas=betas, eps=1e-8, amsgrad=settings.amsgrad, fused=is_cuda)


__all__ = ["build_optimizer", "parameter_groups", "split_text_tower"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Layer-wise learning-rate decay: the nearer to the input, the smaller the steps (ELECTRA, BEiT, AudioMAE)."""

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def layer_decay_groups(model: nn.Module, groups: list[dict], decay: float, learning_rate: float) -> list[dict]:
    """The groups of an optimizer, each split by layer of the audio encoder, with a learning rate of their own.

    Layer id k of an encoder of n blocks has `decay ** (n + 1 - k)` times the rate of the group; see `layer_ids`. What
    is not in the encoder (head, text tower, decoder) keeps the whole rate.

    Args:
        model: a model with an audio encoder under the name `audio_model`.
        groups: their own `lr`, where given, is the rate that is scaled.
        decay: factor from one block to the one below it; AudioMAE has 0.75.
        learning_rate: the rate of groups without `lr`.

    Raises:
        ValueError: if the model has no audio encoder, or an encoder without blocks.
    """
    num_blocks, ids = layer_ids(_audio_encoder(model))
    split = []
    for group in groups:
        by_layer: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_layer.setdefault(ids.get(id(parameter), num_blocks + 1), []).append(parameter)
        rate = group.get("lr", learning_rate)
        for layer, parameters in sorted(by_layer.items(), reverse=True):  # the log shows the rate of the first group
            split.append({**group, "params": parameters, "lr": rate * decay ** (num_blocks + 1 - layer)})
    return split


def layer_ids(encoder: nn.Module) -> tuple[int, dict[int, int]]:
    """(number n of blocks, `id` of each parameter -> its layer id, 0..n + 1).

    The blocks are the modules that gradient checkpointing takes as units, in the order in which the encoder holds
    them: over all stages of HTS-AT and stacks of a Zipformer. Parameters before the first block (patch embedding,
    class token, positions) have id 0, those of block i, counted from 1, have id i, those between two blocks (patch
    merging, resampling) the id of the block before them, and those after the last one (final norm) n + 1, as the head.

    Raises:
        ValueError: if there are no blocks.
    """
    blocks = [module for module in encoder.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise ValueError(
            f"`layer_decay` needs an encoder with blocks, but {type(encoder).__name__} has none that gradient "
            "checkpointing knows. Set it to 1."
        )
    in_last = {id(parameter) for parameter in blocks[-1].parameters()}
    ids, layer = {}, 0
    for module in encoder.modules():  # a block comes right before its own parts
        layer += isinstance(module, GradientCheckpointingLayer)
        for parameter in module.parameters(recurse=False):
            is_after_last = layer == len(blocks) and id(parameter) not in in_last
            ids.setdefault(id(parameter), layer + is_after_last)
    return len(blocks), ids


def _audio_encoder(model: nn.Module) -> nn.Module:
    for name, module in model.named_modules():
        if name.rsplit(".", 1)[-1] == "audio_model":
            return module
    raise ValueError(
        f"`layer_decay` is for models with an audio encoder, but this {type(model).__name__} has no `audio_model`. "
        "Set it to 1."
    )


__all__ = ["layer_decay_groups", "layer_ids"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Text towers: any transformers text encoder, and how its states become one vector per caption."""

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from .layers_pooling import masked_mean


def build_text_model(text_config) -> PreTrainedModel:
    """Any transformers text encoder; without the pooling layer that BERT's family would add and nobody reads."""
    model = AutoModel.from_config(text_config)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def load_text_encoder(name: str, **options) -> PreTrainedModel:
    """A text encoder with all weights from its checkpoint; a pooling layer, which nobody reads, may lack its own.

    Args:
        name: folder or Hub id.
        **options: of `AutoModel.from_pretrained`.

    Raises:
        OSError: if it cannot be loaded.
        ValueError: if the checkpoint lacks weights: they would be random.
    """
    try:
        model, info = AutoModel.from_pretrained(name, output_loading_info=True, **options)
    except ValueError as error:
        raise OSError(str(error).strip()) from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ValueError(
            f"The text encoder {name!r} lacks {len(missing)} weights of {type(model).__name__}, for instance "
            f"{missing[0]!r}: they would be random. Give a complete checkpoint."
        )
    return model


def takes_token_types(text_config) -> bool:
    """Whether the encoder of this configuration has an input `token_type_ids`."""
    return hasattr(text_config, "type_vocab_size")


def pool_text(last_hidden_state: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """One vector per caption: (B, L, D) and (B, L), nonzero at real tokens -> (B, D).

    Args:
        last_hidden_state: states of all tokens.
        attention_mask: real tokens, padded on either side.
        pooling: "cls" takes the first real token, "last" the last one, "mean" the mean of all.

    Raises:
        ValueError: for another `pooling`.
    """
    is_real = attention_mask.to(torch.bool)
    if pooling == "mean":
        return masked_mean(last_hidden_state, is_real)
    if pooling not in ("cls", "last"):
        raise ValueError(f"Unknown `pooling` {pooling!r}. Choose one of ['cls', 'last', 'mean'].")
    at = torch.arange(is_real.shape[1], device=is_real.device)
    if pooling == "cls":
        position = torch.where(is_real, at, is_real.shape[1] - 1).amin(1)
    else:
        position = torch.where(is_real, at, 0).amax(1)
    return last_hidden_state[torch.arange(len(is_real), device=is_real.device), position]


__all__ = ["build_text_model", "load_text_encoder", "pool_text", "takes_token_types"]

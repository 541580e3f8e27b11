# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Weights that a new model starts from: published or trained ones, part by part.

text_model, audio_model, audio_projection (folders or Hub ids) -> weights of that part -> the new model's part
"""

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from hf_audiolang.data.text_embedders import find_model

from .config import ModelArguments

_UNREAD = "pooler."  # of BERT's family: a layer that no text tower of ours reads
# part -> what it is called, what to do when weights do not fit it
_PARTS = {
    "text_model": ("text tower", "Use a `model_config` whose text_config is that model's, with its own `tokenizer`."),
    "audio_model": ("audio tower", "Use a `model_config` with that model's audio_config; `max_frames` may differ."),
    "audio_projection": ("audio projector", "Use a `model_config` with that projector's config, or begin a new one."),
}


def load_start_weights(model: PreTrainedModel, arguments: ModelArguments) -> None:
    """Copies the weights that the run's keys name into the parts of a new model.

    A teacher, if there is one, then begins as a copy of the network it follows.

    Raises:
        ImportError: for a text model in a Python package that is not installed.
        OSError: if there is no such model.
        ValueError: if its weights do not fit; names one.
    """
    system = model.base_model
    if arguments.text_model is not None:
        source = _load_whole("text_model", find_model(arguments.text_model), AutoModel)
        _copy_part("text_model", arguments.text_model, source, system.text_model)
    if arguments.audio_model is not None:
        _load_audio_model(system.audio_model, arguments.audio_model)
    if arguments.audio_projection is not None:
        source = _load_whole("audio_projection", arguments.audio_projection, AutoModel)
        _copy_part("audio_projection", arguments.audio_projection, source, system.audio_projection)
    if arguments.audio_model is not None and hasattr(model, "update_teacher"):
        model.update_teacher(0.0)


def load_pretrained(key: str, name: str, family: type, **options: object) -> PreTrainedModel:
    """`family.from_pretrained`, whose failure names the run's key in one line.

    Raises:
        OSError: if there is no such model.
    """
    try:
        return family.from_pretrained(name, **options)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"`{key}` {name!r} cannot be loaded: {reason} Give a folder with config.json and model.safetensors, or a "
            "Hub id that has both, and check the network."
        ) from error


def _load_whole(key: str, name: str, family: type) -> PreTrainedModel:
    """A model of which no weight that counts is missing: missing ones would be random."""
    model, info = load_pretrained(key, name, family, dtype=torch.float32, output_loading_info=True)
    missing = sorted(tensor for tensor in info["missing_keys"] if not tensor.startswith(_UNREAD))
    if missing:
        raise ValueError(
            f"`{key}` {name!r} lacks {len(missing)} weights of {type(model).__name__}, for instance {missing[0]!r}. "
            "Give a complete model."
        )
    return model


def _load_audio_model(target: PreTrainedModel, name: str) -> None:
    """Copies an encoder, by itself or out of a system, of any length that its positions allow."""
    source = _load_whole("audio_model", name, type(target))
    max_frames = getattr(target.config, "max_frames", None)
    if hasattr(source, "resize_positions") and source.config.max_frames != max_frames:
        source.resize_positions(max_frames)
    _copy_part("audio_model", name, source, target)


def _copy_part(key: str, name: str, source: PreTrainedModel, target: nn.Module) -> None:
    """Copies the state of `source`, or of its part called `key` where it is a system, into `target`."""
    expected, found = target.state_dict(), source.state_dict()
    if not expected.keys() <= found.keys():
        inside = {full.removeprefix(f"{key}."): value for full, value in found.items() if full.startswith(f"{key}.")}
        found = inside or found
    misfits = _misfits(expected, found)
    if misfits:
        part, advice = _PARTS[key]
        raise ValueError(
            f"`{key}` {name!r} does not fit the {part} with its {len(expected)} tensors: {len(misfits)} are missing, "
            f"too many or of another shape, for instance {misfits[0]!r}. {advice}"
        )
    target.load_state_dict({tensor: found[tensor] for tensor in expected})


def _misfits(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """Names of tensors that one side lacks or has in another shape."""
    wrong = [key for key, value in expected.items() if key not in found or found[key].shape != value.shape]
    return wrong + [key for key in found if key not in expected and not key.startswith(_UNREAD)]


__all__ = ["load_pretrained", "load_start_weights"]

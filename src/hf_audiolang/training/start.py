# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Weights that a new model starts from: published or trained ones, part by part.

text_model, audio_model, audio_projection (folders or Hub ids) -> weights of that part -> the new model's part
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from hf_audiolang.data.text_embedders import find_model
from hf_audiolang.models.modeling_loading import StrictTowersMixin

from .config import ModelArguments

_UNREAD = "pooler."  # of BERT's family: a layer that no text tower of ours reads
_TRAINING_STATE = ".is_white"  # what a Zipformer's regularizers remember; an encoder without them has none
# What a forward pass depends on although no tensor's shape shows it, wherever a config of the family has the field.
_FORWARD_FIELDS = (
    "model_type",
    "num_attention_heads",
    "layer_norm_eps",
    "rms_norm_eps",
    "norm_eps",
    "hidden_act",
    "hidden_activation",
    "num_mel_bins",
    "patch_mel_bins",
    "patch_frames",
    "feature_frame_rate_hz",
    "projector_type",
    "layer_types",
    "sliding_window_frames",
    "local_attention",
    "rope_theta",
    "rope_parameters",
    "decoder_type",
    "norm_position",
    "norm_type",
    "position_type",
    "mlp_type",
    "pooling",
)
# part -> the field of a system's config that describes it
_CONFIGS = {"text_model": "text_config", "audio_model": "audio_config", "audio_projection": "projector_config"}
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
        family = AutoModelForAudioClassification if _is_classifier(arguments.audio_model) else AutoModel
        source = _load_whole("audio_model", arguments.audio_model, family)
        _copy_part("audio_model", arguments.audio_model, source, system.audio_model)
    if arguments.audio_projection is not None:
        source = _load_whole("audio_projection", arguments.audio_projection, AutoModel)
        _copy_part("audio_projection", arguments.audio_projection, source, system.audio_projection)
    if arguments.audio_model is not None and hasattr(model, "update_teacher"):
        model.update_teacher(0.0)


def check_exists(key: str, name: str) -> None:
    """Makes sure that a name which can only be a folder's is that of a folder, and none of an adapter alone.

    Raises:
        FileNotFoundError: if there is none, or no model in it.
    """
    is_path = name.startswith((".", "/", "~", "runs/")) or name.count("/") > 1  # a Hub id has one separator at most
    if is_path and not Path(name).is_dir():
        raise FileNotFoundError(
            f"`{key}` {name!r} does not exist. The run before this one writes such a folder, as `model` in its "
            "`output_dir`: run that one first, or give another folder or a Hub id with weights."
        )
    if (Path(name) / "adapter_config.json").is_file() and not (Path(name) / "config.json").is_file():
        raise FileNotFoundError(
            f"`{key}` {name!r} is an adapter, no model of its own. Give the merged model, which a run writes beside "
            "it as `model`."
        )


def check_architecture(
    key: str, name: str, there: PreTrainedConfig, here: PreTrainedConfig, advice: str, prefix: str = ""
) -> None:
    """Makes sure that weights mean in this run's model what they meant where they were trained.

    Args:
        there: the config that the weights were trained with.
        here: the config of this run's model; fields that only one of the two has are not compared.
        advice: what to do about a difference.
        prefix: what the fields are called before their name.

    Raises:
        ValueError: for a field, of a config or of both sides' parts, that changes the forward pass; with both values.
    """
    for field in _FORWARD_FIELDS:
        if not hasattr(there, field) or not hasattr(here, field):
            continue
        old, new = getattr(there, field), getattr(here, field)
        if old != new:
            raise ValueError(
                f"`{key}` {name!r} was trained with `{prefix}{field}` {old!r}, but this run's model has {new!r}: the "
                f"weights would load and compute something else. {advice}"
            )
    for part in here.sub_configs:
        parts = (getattr(there, part, None), getattr(here, part))
        if None not in parts:
            check_architecture(key, name, *parts, advice, f"{prefix}{part}.")


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


def _is_classifier(name: str) -> bool:
    """Whether a model is an encoder that was fine-tuned on labels: it comes with its head, which stays behind."""
    architectures = load_pretrained("audio_model", name, AutoConfig).architectures
    return (architectures or [""])[0].endswith("ForAudioClassification")


def _load_whole(key: str, name: str, family: type) -> PreTrainedModel:
    """A model of which no weight that counts is missing: missing ones would be random."""
    kind = MODEL_MAPPING.get(type(load_pretrained(key, name, AutoConfig)), None)
    is_strict = isinstance(kind, type) and issubclass(kind, StrictTowersMixin)
    options = {"allow_random_encoder": True} if is_strict else {}  # what is missing is said below, in the run's words
    model, info = load_pretrained(key, name, family, dtype=torch.float32, output_loading_info=True, **options)
    missing = sorted(tensor for tensor in info["missing_keys"] if not tensor.startswith(_UNREAD))
    if missing:
        raise ValueError(
            f"`{key}` {name!r} lacks {len(missing)} weights of {type(model).__name__}, for instance {missing[0]!r}. "
            "Give a complete model."
        )
    return model


def _copy_part(key: str, name: str, source: PreTrainedModel, target: PreTrainedModel) -> None:
    """Copies the state of `source`, or of its part called `key` where it is a system, into `target`.

    Positions of an encoder are resized to the target's length, where the encoder can do that.
    """
    part, advice = _PARTS[key]
    config = source.config
    if isinstance(getattr(source, key, None), nn.Module):
        source, config = getattr(source, key), getattr(config, _CONFIGS[key], config)
    max_frames = getattr(target.config, "max_frames", None)
    differs = max_frames is not None and max_frames != getattr(config, "max_frames", max_frames)
    if differs and hasattr(source, "resize_positions"):
        source.resize_positions(max_frames)
    expected, found = _weights(target), _weights(source)
    misfits = _misfits(expected, found)
    if misfits:
        raise ValueError(
            f"`{key}` {name!r} does not fit the {part} with its {len(expected)} tensors: {len(misfits)} are missing, "
            f"too many or of another shape, for instance {misfits[0]!r}. {advice}"
        )
    check_architecture(key, name, config, target.config, advice)
    target.load_state_dict({tensor: found[tensor] for tensor in expected}, strict=False)  # training state stays


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.endswith(_TRAINING_STATE)}


def _misfits(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """Names of tensors that one side lacks or has in another shape."""
    wrong = [key for key, value in expected.items() if key not in found or found[key].shape != value.shape]
    return wrong + [key for key in found if key not in expected and not key.startswith(_UNREAD)]


__all__ = ["check_architecture", "check_exists", "load_pretrained", "load_start_weights"]

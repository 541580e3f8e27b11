# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The run's model without weights: what it reads and what can be done to it, known before any data are made.

run keys -> model config -> model on the meta device -> checks -> ModelOutline
"""

import inspect
from dataclasses import dataclass

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModelForPreTraining, PreTrainedConfig, PreTrainedModel

from hf_audiolang.evaluation.capabilities import has_text_encoder

from .adapters import adapter_settings
from .config import RunConfig
from .objectives import check_freeze, freeze_parameters, loss_weights, override_objective
from .start import check_exists

# Sizes of the smoke run's model, wherever a config of the family has a field of the name.
SMOKE_SIZES = {
    "hidden_size": 24,
    "encoder_hidden_size": 24,
    "text_embedding_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "num_prototypes": 32,
    "prototype_hidden_size": 32,
    "prototype_bottleneck_size": 16,
    "predictor_hidden_size": 24,
    "predictor_num_layers": 2,
    "predictor_num_heads": 3,
    "predictor_intermediate_size": 32,
    "projection_dim": 24,
    "num_codewords": 32,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 32,
}
# Of encoders whose sizes are lists: eight channels in four stages of one block, and two stacks of one layer.
SMOKE_LISTS = {
    "htsat": {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 64,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 2],
    },
    "zipformer": {
        "embed_channels": [2, 4, 4],
        "downsampling_factor": [1, 2],
        "num_encoder_layers": [1, 1],
        "encoder_dim": [16, 24],
        "encoder_unmasked_dim": [12, 16],
        "feedforward_dim": [24, 32],
        "num_heads": [2, 2],
        "cnn_module_kernel": [5, 3],
    },
}
STARTED_PARTS = ("text_model", "audio_model", "audio_projection")  # run keys named like the base model's parts


@dataclass(frozen=True)
class ModelOutline:
    """What a run must know of its model before it has one.

    Attributes:
        needs_captions: training reads captions, as tokens or as embeddings.
        needs_tokenizer: captions become tokens, for a text tower, a caption decoder or both.
        embeds_text: the exported model has a text tower, so texts can be embedded and searched with it.
        text_embedding_size: width of the caption embeddings that the model takes; None if it takes none.
        text_embedding_model: name of the model whose embeddings it takes; None for those of any model.
        cleans_captions: captions lose their punctuation before they become tokens.
    """

    needs_captions: bool
    needs_tokenizer: bool
    embeds_text: bool = True
    text_embedding_size: int | None = None
    text_embedding_model: str | None = None
    cleans_captions: bool = False


def outline_model(config: RunConfig) -> ModelOutline:
    """The outline of a run's model, after all that can be checked of its keys without data and weights.

    Raises:
        OSError: if there is no such config, or no folder to start from.
        ValueError: for a key of the objective or of the captions that the model has no use for, an objective without a
            loss, a `freeze` pattern without parameters, adapters that find no layer or cannot be loaded again, weights
            for a part it does not have, crops that are longer than its positions, or validation of a model that reads
            no text.
    """
    model_config = build_model_config(config)
    _check_objective(model_config)
    _check_length(config, model_config)
    with torch.device("meta"):
        model = AutoModelForPreTraining.from_config(model_config)
    check_freeze(model, config.model.freeze)
    if config.lora.lora:
        _check_lora(config, model)
    _check_starts(config, model)
    needs_captions = getattr(model, "has_text_input", True)
    embeds_text = needs_captions and has_text_encoder(exported_model(model))
    needs_tokenizer = embeds_text or (needs_captions and writes_captions(model))
    _check_captions(config, model, needs_captions, needs_tokenizer)
    _check_decoder(config, model)
    if not embeds_text and config.eval.eval_steps > 0:
        raise ValueError(
            f"`eval_steps` is {config.eval.eval_steps}, but the {type(exported_model(model)).__name__} of this run "
            "embeds no text, and validation is retrieval by text. Set `eval_steps` to 0 and `export` to 'last'."
        )
    if config.data.text_embeddings is None:
        cleans = getattr(model_config, "clean_captions", False)
        return ModelOutline(needs_captions, needs_tokenizer, embeds_text, cleans_captions=cleans)
    known = (model_config.text_embedding_size, model_config.text_embedding_model)
    return ModelOutline(needs_captions, needs_tokenizer, embeds_text, *known)


def build_model_config(config: RunConfig) -> PreTrainedConfig:
    """The model's config with the run's keys of the objective in it.

    Raises:
        OSError: if there is no such config.
        ValueError: if a run key of the objective is no field of the model's config, or not allowed there.
    """
    arguments = config.model
    model_config = AutoConfig.from_pretrained(arguments.model_config or arguments.model)
    override_objective(model_config, arguments)
    return model_config


def shrink(model_config: PreTrainedConfig) -> PreTrainedConfig:
    """The config with the smoke run's sizes, in all its parts."""
    return type(model_config).from_dict(_shrunk(model_config.to_dict()))


def exported_model(model: nn.Module) -> PreTrainedModel:
    """What a run leaves behind of its pre-training model: what the model says, else its base model."""
    return getattr(model, "exported_model", model.base_model)


def writes_captions(model: nn.Module) -> bool:
    """Whether the pre-training model trains a caption decoder, which is exported as a captioner."""
    return getattr(model, "caption_decoder", None) is not None


def _check_objective(model_config: PreTrainedConfig) -> None:
    """There is something to train for."""
    weights = loss_weights(model_config)
    if weights and not any(weights.values()):
        raise ValueError(
            f"All loss weights are 0, got {weights}: there would be no loss to train for. Raise one of them."
        )


def _check_lora(config: RunConfig, model: PreTrainedModel) -> None:
    """Adapters find their layers, can be loaded on the model they were trained on, and followed by a teacher."""
    system = exported_model(model)
    if MODEL_MAPPING[type(model.config)] is not type(system):
        raise ValueError(
            f"`lora` with an objective that leaves a {type(system).__name__} behind: `model` {config.model.model!r} "
            f"is a {MODEL_MAPPING[type(model.config)].__name__}, which its adapter would not fit. Train all weights."
        )
    if config.lora.lora_dora and getattr(model, "has_teacher", False):
        raise ValueError(
            f"`lora_dora` is true with `masked_weight` {model.config.masked_weight}: the teacher of the masked loss "
            "can follow adapters that add to the weights, not those that rescale them. Leave `lora_dora` out, or set "
            "the weight to 0."
        )
    freeze_parameters(model, config.model.freeze)
    adapter_settings(system, config.lora)


def _check_length(config: RunConfig, model_config: PreTrainedConfig) -> None:
    """The longest crops, of scenes as of one's own clips, fit into a table of positions if the encoder has one."""
    audio = getattr(model_config, "audio_config", model_config)
    if getattr(audio, "max_frames", None) is None:
        return
    seconds, rate = config.data.max_seconds, audio.feature_frame_rate_hz
    num_frames = int(round(seconds * rate, 6)) + 1  # both ends have a frame
    spare = getattr(audio, "patch_frames", 1)  # our ViT leaves out what does not fill a patch
    if num_frames >= audio.max_frames + spare and not hasattr(audio, "patch_frames"):
        raise ValueError(
            f"`max_seconds` is {seconds}, which is {num_frames} frames of features, but the audio encoder takes at "
            f"most {audio.max_frames}. Train on shorter crops (`max_seconds` below {audio.max_frames / rate:g})."
        )
    if num_frames >= audio.max_frames + spare:
        raise ValueError(
            f"`max_seconds` is {seconds}, which is {num_frames} frames of features, but the position table covers "
            f"{audio.max_frames}, {audio.max_frames / rate:g} seconds. Train on shorter crops (`max_seconds`), or "
            "raise `max_frames` in the config of a new model, to which an `audio_model` is resized."
        )


def _check_decoder(config: RunConfig, model: PreTrainedModel) -> None:
    """The longest caption fits into the decoder, if there is one."""
    if not writes_captions(model):
        return
    limit, wanted = model.config.decoder_config.max_position_embeddings, config.model.max_text_tokens
    if wanted > limit:
        raise ValueError(
            f"`max_text_tokens` is {wanted}, but the caption decoder has {limit} positions "
            "(`decoder_config.max_position_embeddings`). Lower the one, or raise the other in a new model's config."
        )


def _check_starts(config: RunConfig, model: PreTrainedModel) -> None:
    """Weights are only for parts that there are, and come from folders that there are."""
    for part in STARTED_PARTS:
        name, module = getattr(config.model, part), getattr(model.base_model, part, None)
        if name is not None and (module is None or not [*module.parameters()]):
            raise ValueError(
                f"`{part}` is {name!r}, but that part of a {type(model.base_model).__name__} of this config has no "
                "weights. Remove the key, or choose a `model_config` with that part."
            )
        if name is not None and part != "text_model":
            check_exists(part, name)


def _check_captions(config: RunConfig, model: PreTrainedModel, needs_captions: bool, needs_tokenizer: bool) -> None:
    """The captions come in a form that the model takes."""
    store, name = config.data.text_embeddings, type(model).__name__
    if store is None:
        if needs_captions and not needs_tokenizer:
            raise ValueError(
                f"`text_embeddings` is needed: this {name} has no text tower. Embed the training captions with "
                f"{getattr(model.config, 'text_embedding_model', None) or 'its text model'} first, see "
                "training_scripts/precompute_text.py, and give the folder."
            )
        return
    if not needs_captions or "text_embeddings" not in inspect.signature(model.forward).parameters:
        why = "takes captions as tokens" if needs_captions else "reads no captions with these weights of its losses"
        raise ValueError(f"`text_embeddings` is {store!r}, but this {name} {why}. Remove the key.")
    tower = model.base_model.text_model
    trained = needs_tokenizer and _count_trained(model, tower, config.model.freeze)
    if trained:
        raise ValueError(
            f"With `text_embeddings` {store!r} the text tower reads nothing, so its {trained} tensors cannot be "
            "trained. Add 'text_model.*' to `freeze`, or remove `text_embeddings` to train it."
        )


def _count_trained(model: PreTrainedModel, part: nn.Module, patterns: list[str]) -> int:
    """Tensors of a part of the model that `freeze` leaves trainable."""
    freeze_parameters(model, patterns)
    return sum(parameter.requires_grad for parameter in part.parameters())


def _shrunk(numbers: dict) -> dict:
    """A config's dictionary with the smoke run's sizes, in all sub-configs."""
    if numbers.get("model_type") in SMOKE_LISTS:
        return numbers | SMOKE_LISTS[numbers["model_type"]]
    small = {}
    for name, value in numbers.items():
        if isinstance(value, dict):
            small[name] = _shrunk(value)
        elif name == "layer_types" and value is not None:
            small[name] = value[-SMOKE_SIZES["num_hidden_layers"] :]
        else:
            small[name] = SMOKE_SIZES.get(name, value)
    return small


__all__ = [
    "SMOKE_LISTS",
    "SMOKE_SIZES",
    "STARTED_PARTS",
    "ModelOutline",
    "build_model_config",
    "exported_model",
    "outline_model",
    "shrink",
    "writes_captions",
]

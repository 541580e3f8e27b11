# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Which of our models an official file fills, and with what: a model without memory, a key table, checked weights.

layouts -> configuration -> model on the meta device, key table -> every key, shape and value checked -> state dict
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_audiolang.models.configuration_audio_projector import AudioProjectorConfig
from hf_audiolang.models.configuration_m2d_clap import M2dClapConfig
from hf_audiolang.models.modeling_audio_classification import M2dClapAudioForAudioClassification
from hf_audiolang.models.modeling_m2d_clap import M2dClapModel
from hf_audiolang.models.modeling_m2d_clap_audio import M2dClapAudioModel
from hf_audiolang.models.modeling_m2d_clap_pretraining import M2dClapForPreTraining

from . import m2d_clap_keys as keys
from .heads import head_plan
from .m2d_clap_layout import AudioLayout, TextLayout
from .m2d_clap_options import M2dClapOptions
from .m2d_clap_text import TextTower
from .weights import Plan, head_count, matrix_shape, num_blocks, under

PREDICTOR_HEAD_WIDTH = 32  # 512 / 16
LOGIT_SCALE = "logit_scale.log_scale"


def make_plan(
    tensors: Mapping[str, Tensor],
    audio: AudioLayout,
    text: TextLayout | None,
    tower: TextTower,
    options: M2dClapOptions,
) -> Plan:
    """The model of a file: encoder alone or with a head, system, or these with predictor and teacher.

    Raises:
        ValueError: if predictor and teacher are wanted and not there, if numbers contradict each other, or for a head
            that is damaged or stands beside more than the encoder.
    """
    table = keys.encoder_table(audio.config.num_hidden_layers)
    head = _check_head(tensors, audio)
    if head and (text is not None or options.pretraining):
        raise ValueError(
            f"The file has a classification head beside a text side or a predictor, got {sorted(head)}. No official "
            "file has: pass the encoder with its head alone."
        )
    if head:
        num_labels, width = tensors[keys.HEAD_WEIGHT].shape
        audio.config.classifier_input = "frames" if width == audio.config.frame_feature_size else "tokens"
        return head_plan(
            M2dClapAudioForAudioClassification, audio.config, table, head, num_labels, order=keys.HEAD_ORDER
        )
    if text is None and not options.pretraining:
        with torch.device("meta"):
            return Plan(M2dClapAudioModel(audio.config), table, {})
    config = _system_config(tensors, audio, text, tower, options)
    projector = config.projector_config
    table = under("audio_model", table)
    table |= under("audio_projection", keys.projector_table(projector.projector_type, projector.num_hidden_layers))
    table |= under("text_projection", keys.text_projector_table(config.text_projector))
    table |= under("text_model", tower.table)
    given = {f"text_model.{name}": tensor for name, tensor in tower.tensors.items()}
    if "logit_scale" in tensors:
        table["logit_scale"] = (LOGIT_SCALE,)
    else:
        given[LOGIT_SCALE] = torch.tensor(config.logit_scale_init_value)
    with torch.device("meta"):
        if not options.pretraining:
            return Plan(M2dClapModel(config), table, given)
        model = M2dClapForPreTraining(config)
    table = under("m2d_clap", table)
    table |= under("predictor", keys.predictor_table(config.predictor_num_layers))
    table |= keys.teacher_table(audio.config.num_hidden_layers)
    return Plan(model, table, {f"m2d_clap.{name}": tensor for name, tensor in given.items()})


def check_keys(tensors: Mapping[str, Tensor], plan: Plan, *, ignore_unknown: bool) -> dict[str, str]:
    """Why each key is not in the table that is not: key without wrapper -> reason.

    Raises:
        ValueError: for keys that are missing, and for keys that no official layout has.
    """
    missing = [key for key in plan.table if key not in tensors]
    if missing:
        raise ValueError(
            f"The file lacks {len(missing)} of the {len(plan.table)} tensors of a {type(plan.model).__name__} with "
            f"{_depth(plan)} blocks, for instance {missing[:3]}. Download it again, or pass the complete file."
        )
    ignored, unknown = {}, []
    for key in tensors:
        if key in plan.table or key == keys.NORM_STATS:
            continue
        reason = keys.reason_to_ignore(key)
        unknown += [key] if reason is None else []
        ignored[key] = reason or keys.UNKNOWN
    if unknown and not ignore_unknown:
        raise ValueError(
            f"{len(unknown)} keys belong to no official layout, for instance {unknown[:3]}. Pass "
            "`ignore_unknown=True` to leave them out, if you know what they are."
        )
    return ignored


def _check_head(tensors: Mapping[str, Tensor], audio: AudioLayout) -> dict[str, str]:
    """Classification head of a fine-tuned file: key without wrapper -> name in our head; empty without one.

    Raises:
        ValueError: for a head that lacks tensors, takes features of another width than the encoder's tokens or
            frames, or holds values that cannot be: not finite, or variances below zero.
    """
    found = [key for key in keys.HEAD if key in tensors]
    if not found:
        return {}
    missing = [key for key in keys.HEAD if key not in tensors]
    if missing:
        raise ValueError(f"The classification head lacks {missing}, found {found}. Download the file again.")
    mean, variance, weight, bias = (tensors[key] for key in keys.HEAD)
    shapes = {key: tuple(tensors[key].shape) for key in keys.HEAD}
    widths = sorted({audio.config.hidden_size, audio.config.frame_feature_size})
    fits = weight.ndim == 2 and weight.shape[1] in widths and bias.shape == weight.shape[:1]
    if not fits or mean.shape != weight.shape[1:] or variance.shape != weight.shape[1:]:
        raise ValueError(
            f"The classification head has shapes {shapes}. Expected a weight (classes, D), a bias (classes,) and "
            f"statistics (D,), with D one of {widths}. Is it a head of another encoder?"
        )
    for key in keys.HEAD:
        if not torch.isfinite(tensors[key]).all() or (tensors[key] is variance and (variance < 0).any()):
            raise ValueError(
                f"`{key}` holds values that are not finite, or negative variances: the file is damaged. Download it "
                "again."
            )
    return {key: keys.HEAD[key] for key in found}


def _system_config(
    tensors: Mapping[str, Tensor],
    audio: AudioLayout,
    text: TextLayout | None,
    tower: TextTower,
    options: M2dClapOptions,
) -> M2dClapConfig:
    width = audio.config.hidden_size
    # What can be trained further: stage 1, M2D alone, or without predictor and teacher the alignment alone.
    training = {"masked_weight": 0.0, "contrastive_weight": 1.0}
    if options.pretraining:
        training = _predictor_numbers(tensors, width, options)
    if text is None:
        return M2dClapConfig(
            audio_config=audio.config,
            projector_config=AudioProjectorConfig(projector_type="mean", hidden_size=width, intermediate_size=width),
            text_embedding_size=width,
            text_projector="none",
            **(training | {"contrastive_weight": 0.0}),
        )
    pooling = {} if tower.pooling is None else {"text_pooling": tower.pooling}
    return M2dClapConfig(
        audio_config=audio.config,
        projector_config=text.projector_config,
        text_config=tower.config,
        text_embedding_size=text.embedding_size,
        text_embedding_model=text.embedding_model,
        text_projector=text.text_projector,
        **pooling,
        **training,
    )


def _predictor_numbers(tensors: Mapping[str, Tensor], width: int, options: M2dClapOptions) -> dict[str, int]:
    found = {name: num_blocks(list(tensors), name) for name in ("decoder_blocks", "target_blocks")}
    if 0 in found.values() or "decoder_embed.weight" not in tensors:
        raise ValueError(
            f"`pretraining=True` needs predictor and teacher, the file holds {found['decoder_blocks']} predictor and "
            f"{found['target_blocks']} teacher blocks. Pass the full M2D checkpoint, or leave it out."
        )
    size = matrix_shape(tensors, "decoder_embed.weight")[0]
    return {
        "predictor_hidden_size": size,
        "predictor_num_layers": found["decoder_blocks"],
        "predictor_num_heads": head_count(
            size, PREDICTOR_HEAD_WIDTH, "predictor_num_heads", options.predictor_num_heads
        ),
        "predictor_intermediate_size": matrix_shape(tensors, "decoder_blocks.0.mlp.fc1.weight")[0],
    }


def _depth(plan: Plan) -> int:
    return getattr(plan.model.config, "audio_config", plan.model.config).num_hidden_layers


__all__ = ["LOGIT_SCALE", "check_keys", "make_plan"]

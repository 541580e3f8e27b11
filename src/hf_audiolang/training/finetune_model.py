# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The model of a fine-tuning run: the encoder of a trained model, or a random one, with a head for its classes."""

from collections.abc import Sequence

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_audiolang.models.layers_audio_head import MULTI_LABEL, SINGLE_LABEL

from .build import build_feature_extractor
from .config import ModelArguments
from .finetune_config import HeadArguments
from .objectives import check_freeze, freeze_parameters
from .start import load_pretrained

logger = logging.get_logger(__name__)

HEAD_KEYS = (
    "classifier_pooling", "classifier_input", "classifier_dropout", "structured_patchout", "time_patchout",
    "frequency_patchout",
)  # fmt: skip


def build_extractor(arguments: HeadArguments) -> FeatureExtractionMixin:
    """The feature extractor of the model that is fine-tuned, whose weights must be there unless it is from scratch.

    Raises:
        OSError: if the folder does not exist, or has no feature extractor, no config or no weights.
    """
    start = {"model_config" if arguments.from_scratch else "model": arguments.model}
    return build_feature_extractor(ModelArguments(**start))


def build_classifier(
    arguments: HeadArguments, classes: Sequence[str], tested_fold: int | None = None
) -> PreTrainedModel:
    """The model that a run trains, `freeze` applied.

    A head that the model brings is kept if it is for the same classes in the same order and of the same form;
    otherwise a new one begins.

    Args:
        arguments: model, head, `freeze`.
        classes: names in the order of the logits.
        tested_fold: the fold that is kept from training; None without folds.

    Raises:
        OSError: if there is no such model.
        ValueError: if its config does not allow the head, or `freeze` names nothing, or positions cannot be stretched.
    """
    of_frames = arguments.task == "frames"
    auto_class = AutoModelForAudioFrameClassification if of_frames else AutoModelForAudioClassification
    before = load_pretrained("model", arguments.model, AutoConfig)
    config = head_config(arguments, before, classes, tested_fold)
    if arguments.from_scratch:
        model = auto_class.from_config(config)
    else:
        model, info = load_pretrained(
            "model", arguments.model, auto_class, config=config, ignore_mismatched_sizes=True, output_loading_info=True
        )
        _check_encoder(arguments.model, info)
        _renew_head(model, before, info)
    if arguments.max_frames is not None:
        _stretch(model, arguments.max_frames)
    check_freeze(model, arguments.freeze)
    if arguments.freeze:
        share = freeze_parameters(model, arguments.freeze)
        logger.info(f"`freeze` {arguments.freeze} keeps {share:.1%} of the parameters as they are.")
    return model


def head_config(
    arguments: HeadArguments, before: PreTrainedConfig, classes: Sequence[str], tested_fold: int | None = None
) -> PreTrainedConfig:
    """The model's config with the run's classes and head; arguments as in `build_classifier`.

    Raises:
        ValueError: if a number of the head is out of range.
    """
    fields = {name: getattr(arguments, name) for name in HEAD_KEYS if getattr(arguments, name) is not None}
    try:
        config = type(before).from_dict({**before.to_dict(), **fields})
    except StrictDataclassError as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise ValueError(f"The model's config does not allow {fields}: {reason}. Change these keys.") from error
    if arguments.drop_path_rate is not None:
        encoder = getattr(config, "audio_config", config)
        if not hasattr(encoder, "drop_path_rate"):
            raise ValueError(
                f"`drop_path_rate` is {arguments.drop_path_rate}, but the encoder {encoder.model_type!r} skips no "
                "blocks. Remove the key."
            )
        encoder.drop_path_rate = arguments.drop_path_rate
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: index for index, name in enumerate(classes)}
    config.problem_type = SINGLE_LABEL if arguments.task == "classification" else MULTI_LABEL
    config.tested_fold = tested_fold
    config.is_encoder_decoder = False  # as a captioner's folder says
    return config


def _check_encoder(name: str, info: dict) -> None:
    misfits = sorted(str(key) for key in info["mismatched_keys"] if "audio_model." in str(key))
    if misfits:
        raise ValueError(
            f"`model` {name!r} has {len(misfits)} weights of another shape than its config says, for instance "
            f"{misfits[0]}. Give a complete model."
        )


def _renew_head(model: PreTrainedModel, before: PreTrainedConfig, info: dict) -> None:
    """Makes the head new where the checkpoint's is of other classes or form: loading keeps what fits in size."""
    if "classifier.linear.weight" in info["missing_keys"]:
        logger.info("A new head begins.")
        return
    is_whole = not info["mismatched_keys"] and not any(key.startswith("classifier.") for key in info["missing_keys"])
    if is_whole and before.id2label == model.config.id2label:
        logger.info("The head of the model goes on: it has the same classes.")
        return
    model.reset_head()
    logger.info("A new head begins: that of the model is for other classes, or of another form.")


def _stretch(model: PreTrainedModel, max_frames: int) -> None:
    encoder = model.audio_model
    if not hasattr(encoder, "resize_positions"):
        raise ValueError(
            f"`max_frames` is {max_frames}, but the encoder {encoder.config.model_type!r} has no positions to "
            "stretch. Remove the key."
        )
    encoder.resize_positions(max_frames)


__all__ = ["build_classifier", "build_extractor", "head_config"]

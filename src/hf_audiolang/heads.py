# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Trained classification heads from Python: load one, measure it on labelled sounds.

folder or Hub id -> load_head -> model, feature extractor -> evaluate_head: accuracy, mAP, or values of frames
"""

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    PreTrainedModel,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_audiolang.data.label_plans import place_and_plan
from hf_audiolang.data.labels import LabelledData, load_labelled
from hf_audiolang.evaluation import heads
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.report import collect
from hf_audiolang.models.modeling_adapters import find_adapter
from hf_audiolang.models.modeling_audio_classification import AudioFrameClassificationModel

logger = logging.get_logger(__name__)

FRAMES = "ForAudioFrameClassification"
CLIPS = "ForAudioClassification"


def has_head(name: str | Path) -> bool:
    """Whether a folder or Hub id is that of a classifier, or of an adapter for one; False if there is no model."""
    try:
        return _class_name(name).endswith((CLIPS, FRAMES))
    except (OSError, ValueError):  # what is wrong with it is said where it is loaded
        return False


def load_head(
    name: str | Path, device: str | torch.device | None = None
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """A classifier and its feature extractor, in float32 and evaluation mode; on CUDA if there is one, else the CPU.

    Raises:
        OSError: if there is no such model.
        ValueError: if it is no classifier.
    """
    class_name = _class_name(name)
    if not class_name.endswith((CLIPS, FRAMES)):
        raise ValueError(
            f"`{name}` is a {class_name or 'model'} without classification head. Train one with "
            "training_scripts/finetune.py."
        )
    is_frames = class_name.endswith(FRAMES)
    auto_class = AutoModelForAudioFrameClassification if is_frames else AutoModelForAudioClassification
    model = auto_class.from_pretrained(name, dtype=torch.float32)
    extractor = AutoFeatureExtractor.from_pretrained(name)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), extractor


def evaluate_head(
    model: PreTrainedModel,
    extractor: FeatureExtractionMixin,
    data: str | Path | LabelledData,
    *,
    part: str = "test",
    options: AudioOptions | None = None,
    **label_options: object,
) -> dict[str, object]:
    """The report of a classifier on a part of labelled sounds.

    Args:
        model: an `...ForAudioClassification` or `...ForAudioFrameClassification`.
        extractor: its feature extractor.
        data: labelled data, or where they are: see `load_labelled`; or a plan's YAML file, whose sounds may lie in a
            folder given as the option `data_folder`.
        part: train, validation or test.
        options: reading and batching of the clips.
        **label_options: of `load_labelled`; without `fold`, data in folds are tested on the fold that the model was
            not trained on, if its config knows it.

    Raises:
        ValueError: if there is no such part, or labels do not fit the model.
    """
    if not isinstance(data, LabelledData):
        data = _load(model, data, label_options)
    clips = getattr(data, part, None)
    if clips is None:
        raise ValueError(f"{data.name} has no `{part}` part. Choose one of train, validation and test that it has.")
    found = heads.evaluate(model, extractor, clips, options=options)
    return collect([found.labelled(data.name, **data.fold_record())])


def _load(model: PreTrainedModel, data: str | Path, label_options: dict[str, object]) -> LabelledData:
    is_multi_label = model.config.problem_type == "multi_label_classification"
    task = "tagging" if is_multi_label else "classification"
    task = "frames" if isinstance(model, AudioFrameClassificationModel) else task
    place, plan = place_and_plan(data, label_options.pop("data_folder", None))
    found = load_labelled(place, plan=plan, task=task, **label_options)
    kept = getattr(model.config, "tested_fold", None)  # None also of a head of transformers
    if label_options.get("fold") is None and found.fold not in (None, kept) and kept in found.folds:
        found = load_labelled(place, plan=plan, task=task, **{**label_options, "fold": kept})
        logger.warning(f"Fold {kept} of {list(found.folds)} is tested, which the model was not trained on.")
    for note in found.notes:  # which fold is tested, for instance
        logger.warning(note)
    return found


def _class_name(name: str | Path) -> str:
    """The class that a folder's weights belong to; of an adapter, that of its base with head."""
    adapter = find_adapter(name, {})
    if adapter is not None:
        return adapter.base_class or ""
    architectures = AutoConfig.from_pretrained(name).architectures
    return (architectures or [""])[0]


__all__ = ["evaluate_head", "has_head", "load_head"]

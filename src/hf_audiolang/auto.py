# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The one place that registers the package with transformers and peft, and the export of models with their code."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.pipelines import PIPELINE_REGISTRY

from hf_audiolang.lora_targets import register_lora_targets
from hf_audiolang.models import modeling_audio_classification as heads
from hf_audiolang.models.configuration_audio_projector import AudioProjectorConfig
from hf_audiolang.models.configuration_captionstew import CaptionStewConfig
from hf_audiolang.models.configuration_htsat import HtsatConfig
from hf_audiolang.models.configuration_m2d_clap import M2dClapConfig
from hf_audiolang.models.configuration_m2d_clap_audio import M2dClapAudioConfig
from hf_audiolang.models.configuration_mga_clap import MgaClapConfig
from hf_audiolang.models.configuration_native_audio import NativeAudioConfig
from hf_audiolang.models.configuration_slap import SlapConfig
from hf_audiolang.models.configuration_slap_audio import SlapAudioConfig
from hf_audiolang.models.configuration_zipformer import ZipformerConfig
from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor
from hf_audiolang.models.modeling_audio_projector import AudioProjector
from hf_audiolang.models.modeling_captionstew import CaptionStewModel
from hf_audiolang.models.modeling_captionstew_captioning import (
    CaptionStewForConditionalGeneration,
    CaptionStewForPreTraining,
)
from hf_audiolang.models.modeling_htsat import HtsatModel
from hf_audiolang.models.modeling_m2d_clap import M2dClapModel
from hf_audiolang.models.modeling_m2d_clap_audio import M2dClapAudioModel
from hf_audiolang.models.modeling_m2d_clap_pretraining import M2dClapForPreTraining
from hf_audiolang.models.modeling_mga_clap import MgaClapModel
from hf_audiolang.models.modeling_native_audio import NativeAudioModel
from hf_audiolang.models.modeling_slap import SlapForConditionalGeneration, SlapForPreTraining, SlapModel
from hf_audiolang.models.modeling_slap_audio import SlapAudioModel
from hf_audiolang.models.modeling_zipformer import ZipformerModel
from hf_audiolang.models.processing_audiolang import AudioLangProcessor
from hf_audiolang.pipelines import TASKS

CONFIGS = (  # those with a processor of ours
    CaptionStewConfig,
    HtsatConfig,
    M2dClapAudioConfig,
    M2dClapConfig,
    MgaClapConfig,
    NativeAudioConfig,
    SlapAudioConfig,
    SlapConfig,
    ZipformerConfig,
)
MODELS = {
    AutoModel: (
        (AudioProjectorConfig, AudioProjector),
        (CaptionStewConfig, CaptionStewModel),
        (HtsatConfig, HtsatModel),
        (M2dClapAudioConfig, M2dClapAudioModel),
        (M2dClapConfig, M2dClapModel),
        (MgaClapConfig, MgaClapModel),
        (NativeAudioConfig, NativeAudioModel),
        (SlapAudioConfig, SlapAudioModel),
        (SlapConfig, SlapModel),
        (ZipformerConfig, ZipformerModel),
    ),
    AutoModelForAudioClassification: (
        (CaptionStewConfig, heads.CaptionStewForAudioClassification),
        (HtsatConfig, heads.HtsatForAudioClassification),
        (M2dClapAudioConfig, heads.M2dClapAudioForAudioClassification),
        (M2dClapConfig, heads.M2dClapForAudioClassification),
        (MgaClapConfig, heads.MgaClapForAudioClassification),
        (NativeAudioConfig, heads.NativeAudioForAudioClassification),
        (SlapAudioConfig, heads.SlapAudioForAudioClassification),
        (SlapConfig, heads.SlapForAudioClassification),
        (ZipformerConfig, heads.ZipformerForAudioClassification),
    ),
    AutoModelForAudioFrameClassification: (
        (CaptionStewConfig, heads.CaptionStewForAudioFrameClassification),
        (HtsatConfig, heads.HtsatForAudioFrameClassification),
        (M2dClapAudioConfig, heads.M2dClapAudioForAudioFrameClassification),
        (M2dClapConfig, heads.M2dClapForAudioFrameClassification),
        (MgaClapConfig, heads.MgaClapForAudioFrameClassification),
        (NativeAudioConfig, heads.NativeAudioForAudioFrameClassification),
        (SlapAudioConfig, heads.SlapAudioForAudioFrameClassification),
        (SlapConfig, heads.SlapForAudioFrameClassification),
        (ZipformerConfig, heads.ZipformerForAudioFrameClassification),
    ),
    AutoModelForPreTraining: (
        (CaptionStewConfig, CaptionStewForPreTraining),
        (M2dClapConfig, M2dClapForPreTraining),
        (MgaClapConfig, MgaClapModel),  # its objective is the forward pass itself
        (SlapConfig, SlapForPreTraining),
    ),
    AutoModelForSpeechSeq2Seq: (
        (CaptionStewConfig, CaptionStewForConditionalGeneration),
        (SlapConfig, SlapForConditionalGeneration),
    ),
}


def register_all() -> None:
    """Makes the Auto classes know every class of the package, `pipeline` its tasks, and peft what LoRA adapts.

    Safe to call again.
    """
    AutoConfig.register(AudioProjectorConfig.model_type, AudioProjectorConfig, exist_ok=True)
    for config in CONFIGS:
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoFeatureExtractor.register(config, LogMelFeatureExtractor, exist_ok=True)
        AutoProcessor.register(config, AudioLangProcessor, exist_ok=True)
    for auto_class, pairs in MODELS.items():
        for config, model in pairs:
            auto_class.register(config, model, exist_ok=True)
    for task, (pipeline_class, auto_class) in TASKS.items():
        if task not in PIPELINE_REGISTRY.get_supported_tasks():  # it would warn
            PIPELINE_REGISTRY.register_pipeline(task, pipeline_class, pt_model=auto_class, type="multimodal")
    register_lora_targets()


def export_with_code(
    model: PreTrainedModel, processor: ProcessorMixin | None, folder: str | Path, **save_options: object
) -> None:
    """Writes a folder that loads with `trust_remote_code=True` where this package is not installed.

    Args:
        model: any public model of the package.
        processor: its processor or feature extractor, or None.
        folder: where configuration, weights, processor and the source files they need are written.
        **save_options: of `save_pretrained`, such as `max_shard_size`.

    Raises:
        ValueError: if the model's class is not one that an auto class loads.
    """
    auto_class = _auto_class_of(type(model))
    marked: list[type] = []
    try:
        _mark(type(model), auto_class.__name__, marked)
        _mark(type(model.config), "AutoConfig", marked)
        if processor is not None:
            extractor = getattr(processor, "feature_extractor", processor)
            _mark(type(extractor), "AutoFeatureExtractor", marked)
            if extractor is not processor:
                _mark(type(processor), "AutoProcessor", marked)
        model.save_pretrained(folder, **save_options)
        if processor is not None:
            processor.save_pretrained(folder)
    finally:
        for cls in marked:
            cls._auto_class = None  # or every later save_pretrained would copy code


def auto_class_name(architecture: str) -> str:
    """Name of the auto class that loads a class of this package; AutoModel for others."""
    for auto_class, pairs in MODELS.items():
        if any(model.__name__ == architecture for _, model in pairs):
            return auto_class.__name__
    return AutoModel.__name__


def _auto_class_of(model_class: type) -> type:
    for auto_class, pairs in MODELS.items():
        if any(model_class is model for _, model in pairs):
            return auto_class
    known = sorted(model.__name__ for pairs in MODELS.values() for _, model in pairs)
    raise ValueError(f"`model` is a {model_class.__name__}, which no auto class loads. Pass one of {known}.")


def _mark(cls: type, auto_class: str, marked: list[type]) -> None:
    cls.register_for_auto_class(auto_class)
    marked.append(cls)


__all__ = ["auto_class_name", "export_with_code", "register_all"]

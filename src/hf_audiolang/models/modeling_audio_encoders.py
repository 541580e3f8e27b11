# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""All audio encoders by name: what a system's `audio_model` may be."""

from transformers import PreTrainedConfig, PreTrainedModel

from .modeling_htsat import HtsatModel
from .modeling_m2d_clap_audio import M2dClapAudioModel
from .modeling_native_audio import NativeAudioModel
from .modeling_slap_audio import SlapAudioModel
from .modeling_zipformer import ZipformerModel

# By name, not by class: loaded without the package, a configuration's class is not the one imported here.
AUDIO_MODELS: dict[str, type[PreTrainedModel]] = {
    "htsat": HtsatModel,
    "m2d_clap_audio_model": M2dClapAudioModel,
    "native_audio": NativeAudioModel,
    "slap_audio_model": SlapAudioModel,
    "zipformer": ZipformerModel,
}


def build_audio_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """A new encoder with the configuration that `resolve_audio_config` gave.

    Raises:
        ValueError: if there is no encoder of that `model_type`.
    """
    if config.model_type not in AUDIO_MODELS:
        raise ValueError(
            f"There is no audio encoder with the `model_type` {config.model_type!r}. Choose one of "
            f"{sorted(AUDIO_MODELS)}."
        )
    return AUDIO_MODELS[config.model_type](config)


__all__ = ["AUDIO_MODELS", "build_audio_encoder"]

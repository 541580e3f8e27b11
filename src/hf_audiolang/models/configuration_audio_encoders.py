# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configurations of all audio encoders by name: what a system's `audio_config` may be."""

from transformers import PreTrainedConfig

from .configuration_htsat import HtsatConfig
from .configuration_m2d_clap_audio import M2dClapAudioConfig
from .configuration_native_audio import NATIVE_MODEL_TYPES, NativeAudioConfig
from .configuration_slap_audio import SlapAudioConfig
from .configuration_zipformer import ZipformerConfig

AUDIO_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    HtsatConfig.model_type: HtsatConfig,
    M2dClapAudioConfig.model_type: M2dClapAudioConfig,
    NativeAudioConfig.model_type: NativeAudioConfig,
    SlapAudioConfig.model_type: SlapAudioConfig,
    ZipformerConfig.model_type: ZipformerConfig,
}


def resolve_audio_config(value: dict | PreTrainedConfig | None, default: type[PreTrainedConfig]) -> PreTrainedConfig:
    """The configuration of a system's audio tower, from whatever the system was given for it.

    To be called in `__post_init__` of the system's configuration, before that of its base class: without the package
    `AutoConfig` does not know our encoders.

    Args:
        value: None; fields, with the encoder's `model_type` unless it is the default one; or a configuration. Those of
            transformers' own audio encoders are wrapped in a `NativeAudioConfig`.
        default: class of the system's own encoder.

    Raises:
        ValueError: if there is no encoder of that `model_type`.
    """
    if value is None:
        return default()
    is_dict = isinstance(value, dict)
    model_type = value.get("model_type", default.model_type) if is_dict else value.model_type
    if model_type in NATIVE_MODEL_TYPES:
        return NativeAudioConfig(encoder_config=value)
    if model_type not in AUDIO_CONFIGS:
        raise ValueError(
            f"`audio_config` has the unknown `model_type` {model_type!r}. Choose one of {sorted(AUDIO_CONFIGS)}, or a "
            f"native encoder of transformers, one of {sorted(NATIVE_MODEL_TYPES)}."
        )
    return AUDIO_CONFIGS[model_type](**value) if is_dict else value


__all__ = ["AUDIO_CONFIGS", "resolve_audio_config"]

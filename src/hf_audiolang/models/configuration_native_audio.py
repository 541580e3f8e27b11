# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of an audio encoder of transformers (AST, Whisper's encoder) as an audio tower."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_audio_head import AudioHeadConfig

AST, WHISPER = "audio-spectrogram-transformer", "whisper"
NATIVE_MODEL_TYPES = (AST, WHISPER)


@strict
class NativeAudioConfig(AudioHeadConfig):
    """A native encoder and how it is fed; the default encoder is AST-Base, the default form the unchanged one.

    Sections and equations are those of MGA-CLAP, whose second backbone is an AST with a locality-aware last block.
    """

    model_type = "native_audio"
    base_config_key = "audio_config"
    sub_configs_defaults = {"encoder_config": SubConfigSpec(AutoConfig, model_type=AST)}

    encoder_config: dict | PreTrainedConfig | None = None  # of AST or of Whisper; of Whisper only the encoder is used
    locality_blocks: int = 0  # last AST blocks whose attention output is its values, 3.3; MGA-CLAP: 1
    locality_mlp: Literal["mlp", "skip"] = "mlp"  # such a block's MLP: the paper's text, or left out as in its code
    feature_frame_rate_hz: float | int = 100.0  # input frames per second; hop 10 ms of both native extractors
    padding_value: float | int = 0.0  # fills short clips up to the fixed length; 0 is AST's, the mean of its data

    spec_augment_time_stripes: int = 0  # SpecAugment in training, 0 is off; MGA-CLAP's code: 2
    spec_augment_time_width: int = 64  # frames, exclusive upper end of the uniform draw; MGA-CLAP's code
    spec_augment_time_share: float = 0.2  # our choice: no stripe wider than this share of the clip
    spec_augment_mel_stripes: int = 0  # 0 is off; MGA-CLAP's code: 2
    spec_augment_mel_width: int = 8  # mel bins, exclusive upper end of the uniform draw; MGA-CLAP's code

    def validate_encoder(self):
        """Raises for an encoder that the wrapper does not know."""
        if self.encoder_config.model_type not in NATIVE_MODEL_TYPES:
            raise ValueError(
                f"`encoder_config` has the `model_type` {self.encoder_config.model_type!r}. Choose one of "
                f"{sorted(NATIVE_MODEL_TYPES)}."
            )

    def validate_locality(self):
        """Raises if there are no such blocks to make locality-aware."""
        most = self.num_hidden_layers if self.encoder_config.model_type == AST else 0
        if not 0 <= self.locality_blocks <= most:
            raise ValueError(
                f"`locality_blocks` must lie between 0 and {most} for the encoder {self.encoder_config.model_type!r}, "
                f"got {self.locality_blocks}. Only the blocks of AST have a locality-aware form."
            )

    @property
    def hidden_size(self) -> int:
        """Width of the tokens."""
        return self.encoder_config.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Blocks of the encoder."""
        return self.encoder_config.num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        """Heads of each block."""
        return self.encoder_config.num_attention_heads

    @property
    def num_mel_bins(self) -> int:
        """Mel bins of the input."""
        return self.encoder_config.num_mel_bins

    @property
    def max_frames(self) -> int:
        """Input frames of the encoder's fixed length; shorter clips are filled up, longer ones refused."""
        config = self.encoder_config
        return config.max_length if config.model_type == AST else 2 * config.max_source_positions

    @property
    def frame_stride(self) -> int:
        """Input frames from one output frame to the next."""
        return self.encoder_config.time_stride if self.encoder_config.model_type == AST else 2

    @property
    def num_frequency_patches(self) -> int:
        """Tokens per output frame: the patch rows of AST, 1 for Whisper."""
        config = self.encoder_config
        if config.model_type != AST:
            return 1
        return (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1

    @property
    def num_time_patches(self) -> int:
        """Output frames of the fixed length."""
        config = self.encoder_config
        if config.model_type != AST:
            return config.max_source_positions
        return (config.max_length - config.patch_size) // config.time_stride + 1

    @property
    def frame_feature_size(self) -> int:
        """Width of `frame_features`, the mean over the tokens of an output frame."""
        return self.hidden_size

    @property
    def frame_rate_hz(self) -> float:
        """Output frames per second."""
        return self.feature_frame_rate_hz / self.frame_stride


__all__ = ["AST", "NATIVE_MODEL_TYPES", "WHISPER", "NativeAudioConfig"]

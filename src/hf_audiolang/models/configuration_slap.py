# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of SLAP: its towers and its training numbers."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_audio_encoders import resolve_audio_config
from .configuration_audio_head import AudioHeadConfig
from .configuration_caption_decoder import CaptionDecoderConfig
from .configuration_slap_audio import SlapAudioConfig


@strict
class SlapConfig(AudioHeadConfig):
    """Towers of SLAP and the numbers of its three losses (2.2), the defaults are the paper's where it gives them.

    Section numbers are the paper's. DINOv2 stands for the published recipe of its masked-patch loss, which the paper
    follows without repeating the numbers.
    """

    model_type = "slap"
    sub_configs_defaults = {
        "audio_config": SlapAudioConfig,
        "text_config": SubConfigSpec(AutoConfig, model_type="modernbert"),
        "decoder_config": CaptionDecoderConfig,
    }

    audio_config: dict | PreTrainedConfig | None = None  # SLAP's encoder, or another one by its `model_type`
    text_config: dict | PreTrainedConfig | None = None
    decoder_config: dict | PreTrainedConfig | None = None
    projection_dim: int | None = None  # width of the shared space; None: the towers' common width, no projection
    initializer_range: float = 0.02  # attention pooling and projections
    rms_norm_eps: float = 1e-6  # attention pooling

    contrastive_weight: float | int = 1.0  # alpha, 3.2; 0 leaves the term out
    masked_weight: float | int = 1.0  # beta, 3.2; 0 leaves teacher and prototype heads out
    caption_weight: float | int = 0.5  # gamma, 3.2; 0 leaves the decoder out

    contrastive_loss: Literal["infonce", "sigmoid"] = "infonce"  # Eq. 3, or the pairwise sigmoid loss
    logit_scale_init_value: float = 2.6592  # log(1 / 0.07), CLIP's
    logit_bias_init_value: float = -10.0  # only for the sigmoid loss
    logit_scale_max: float = 4.6052  # log(100), CLIP's

    masking_ratio: float = 0.5  # share of tokens hidden from the student, 3.2
    mask_style: Literal["random", "block"] = "random"  # "randomly replaced", 2.2.2
    share_masked_pass: bool = False  # True feeds all three losses from the one masked pass, cheaper
    num_prototypes: int = 8192  # iBOT's; DINOv2 uses 65,536
    prototype_layers: int = 3  # DINOv2
    prototype_hidden_size: int = 2048  # DINOv2
    prototype_bottleneck_size: int = 256  # DINOv2
    student_temperature: float = 0.1  # DINOv2
    teacher_temperature_start: float = 0.04  # DINOv2
    teacher_temperature_end: float = 0.07  # DINOv2
    teacher_temperature_warmup: float = 0.3  # share of the steps; DINOv2 warms up over 30 of 100 epochs
    target_centering: Literal["centering", "sinkhorn", "none"] = "centering"  # 2.2.2 speaks of softmax scores
    center_momentum: float = 0.9  # DINOv2
    freeze_prototypes_warmup: float = 0.01  # share of the steps without gradient for the prototypes; DINOv2: 1 epoch
    masked_loss_weighting: Literal["clip", "token"] = "clip"  # each clip counts the same (DINOv2), or each token
    masked_loss_chunk_size: int = 0  # tokens per checkpointed block of prototype scores; 0 computes all at once

    spec_augment_time_stripes: int = 2  # SpecAugment is used (3.2); these numbers are of 64-mel systems
    spec_augment_time_width: int = 64  # frames, exclusive upper end of the uniform draw
    spec_augment_time_share: float = 0.2  # our choice: no stripe wider than this share of the clip
    spec_augment_mel_stripes: int = 2
    spec_augment_mel_width: int = 8  # mel bins, exclusive upper end of the uniform draw

    def __post_init__(self, **kwargs):
        self.audio_config = resolve_audio_config(self.audio_config, SlapAudioConfig)
        super().__post_init__(**kwargs)
        if self.projection_dim is None and self.audio_config.hidden_size != self.text_config.hidden_size:
            raise ValueError(
                "`projection_dim` is needed when the towers differ in width, got audio "
                f"{self.audio_config.hidden_size} and text {self.text_config.hidden_size}. Set it, for instance to "
                f"{min(self.audio_config.hidden_size, self.text_config.hidden_size)}."
            )

    def validate_training_numbers(self):
        """Raises for shares outside 0..1."""
        for name in ("masking_ratio", "teacher_temperature_warmup", "freeze_prototypes_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(self, name)}.")
        if self.target_centering == "sinkhorn" and self.masked_loss_chunk_size > 0:
            raise ValueError(
                "`target_centering` 'sinkhorn' balances the tokens of the whole batch, got `masked_loss_chunk_size` "
                f"{self.masked_loss_chunk_size}. Set it to 0, or choose 'centering'."
            )

    def validate_audio_tower(self):
        """Raises for a masked loss with an encoder that has no mask token."""
        if self.masked_weight > 0 and self.audio_config.model_type != SlapAudioConfig.model_type:
            raise ValueError(
                f"The encoder {self.audio_config.model_type!r} cannot replace patches by a mask token, got "
                f"`masked_weight` {self.masked_weight}. Set it to 0, or choose the encoder "
                f"{SlapAudioConfig.model_type!r}."
            )

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The decoder's configuration where captions are written, otherwise that of the text tower."""
        is_decoder = self.is_encoder_decoder if decoder is None else decoder
        return self.decoder_config if is_decoder and not encoder else self.text_config

    @property
    def embedding_size(self) -> int:
        """Width E of the shared space."""
        return self.projection_dim or self.audio_config.hidden_size

    @property
    def audio_pooling_heads(self) -> int:
        """Heads of the attention pooling of clips: as many as the encoder has, HTS-AT in its last stage."""
        heads = self.audio_config.num_attention_heads
        return heads if isinstance(heads, int) else heads[-1]


__all__ = ["SlapConfig"]

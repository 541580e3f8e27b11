# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of CaptionStew's two objectives: contrast of clips and captions, and captioning."""

from dataclasses import field
from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_audio_encoders import resolve_audio_config
from .configuration_audio_head import AudioHeadConfig
from .configuration_caption_decoder import CaptionDecoderConfig
from .configuration_zipformer import ZipformerConfig

# The decoder of the authors' toolkit, Auden: of the size of BART base except for its heads, and with BART's tokens.
CAPTIONSTEW_DECODER = {
    "vocab_size": 50265,
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,  # BART base has 12
    "intermediate_size": 3072,
    "encoder_hidden_size": 768,
    "norm_position": "post",
    "norm_type": "layernorm",
    "position_type": "sinusoidal",
    "mlp_type": "gelu",
    "use_bias": False,
    "tie_word_embeddings": False,
    "dropout": 0.1,
    "embedding_dropout": 0.0,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "embedding_std": 1.0,  # torch's own: positions of size 1 are added to it
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "mask_token_id": 50264,
}


@strict
class CaptionStewConfig(AudioHeadConfig):
    """Towers of CaptionStew and the numbers of its objectives; the defaults are those of the authors' toolkit, Auden.

    The study trains two models. The contrastive one is `caption_weight` 0. The captioning one is `contrastive_weight`
    0 and `text_config` None: captions are then read by the decoder alone. Both weights above 0 train one encoder for
    both. One tokenizer serves text tower and decoder.
    """

    model_type = "captionstew"
    sub_configs_defaults = {
        "audio_config": ZipformerConfig,
        "text_config": SubConfigSpec(AutoConfig, model_type="bert", optional=True),
        "decoder_config": CaptionDecoderConfig,
    }

    audio_config: dict | PreTrainedConfig | None = None  # any audio encoder; None: Zipformer
    text_config: dict | PreTrainedConfig | None = field(default_factory=dict)  # BERT base; None: no text tower
    decoder_config: dict | PreTrainedConfig | None = None  # fields that differ from `CAPTIONSTEW_DECODER`
    projection_dim: int = 1024  # width of the shared space; of no use without a text tower
    pooling: Literal["mean", "attention"] = "mean"  # of projected frames to a clip; attention: our choice
    pooling_heads: int = 8  # of attention pooling; our choice
    clean_captions: bool = True  # lower case, no punctuation. The code keeps a "*" where only the decoder reads

    contrastive_weight: float | int = 1.0  # 0 leaves the term out, with the regulariser
    caption_weight: float | int = 1.0  # 0 leaves the decoder out; a mean per token, little beside a sum over pairs
    regularizer_weight: float | int = 1.0  # extra term of the code on the embeddings, tiny beside a sum over pairs
    contrastive_loss: Literal["infonce", "sigmoid"] = "infonce"  # sigmoid: each pair by itself, without a bias
    contrastive_temperature: float | int = 0.07  # divides cosines; fixed
    loss_reduction: Literal["sum", "mean"] = "sum"  # over clips of all processes and both directions

    parallel_share: float | int = 0.0  # clips of a batch whose caption is decoded in parallel; CapPa: 0.75
    label_smoothing: float | int = 0.1

    # SpecAugment with the clip's mean, as lhotse's with Auden's numbers for clips of 10 s, without its time warping
    # and applied to all clips instead of nine of ten
    spec_augment_time_stripes: int = 2
    spec_augment_time_width: int = 100  # frames, exclusive upper end of the uniform draw
    spec_augment_time_share: float | int = 0.075  # no stripe wider than this share of the clip; lhotse: 0.15 for two
    spec_augment_mel_stripes: int = 2
    spec_augment_mel_width: int = 27  # mel bins, exclusive upper end of the uniform draw

    def __post_init__(self, **kwargs):
        self.audio_config = resolve_audio_config(self.audio_config, ZipformerConfig)
        if not isinstance(self.decoder_config, PreTrainedConfig):
            self.decoder_config = {**CAPTIONSTEW_DECODER, **(self.decoder_config or {})}
        super().__post_init__(**kwargs)

    def validate_numbers(self):
        """Raises for numbers that no model can work with."""
        for name in ("contrastive_weight", "caption_weight", "regularizer_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}. 0 leaves the term out.")
        if not 0 <= self.parallel_share <= 1:
            raise ValueError(
                f"`parallel_share` must lie between 0 and 1, got {self.parallel_share}. CapPa decodes 0.75 of the "
                "clips in parallel."
            )
        decoder = self.decoder_config
        if self.parallel_share > 0 and decoder.decoder_type == "native" and decoder.position_type == "rope":
            raise ValueError(
                f"`parallel_share` is {self.parallel_share} with `position_type` 'rope': among equal mask tokens "
                "rotary positions tell no place from another. Use 'sinusoidal', or set the share to 0."
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must be at least 0 and below 1, got {self.label_smoothing}.")
        if not self.contrastive_temperature > 0:
            raise ValueError(
                f"`contrastive_temperature` must be positive, got {self.contrastive_temperature}. The code has 0.07."
            )
        if self.projection_dim < 1:
            raise ValueError(f"`projection_dim` must be at least 1, got {self.projection_dim}.")
        if self.pooling == "attention" and (self.pooling_heads < 1 or self.projection_dim % self.pooling_heads):
            raise ValueError(
                f"`pooling_heads` must divide `projection_dim`, got {self.pooling_heads} and {self.projection_dim}. "
                "Change one of them."
            )

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The decoder's configuration where captions are written or there is no text tower, otherwise the tower's."""
        is_decoder = self.is_encoder_decoder if decoder is None else decoder
        if (is_decoder and not encoder) or self.text_config is None:
            return self.decoder_config
        return self.text_config

    @property
    def embedding_size(self) -> int:
        """Width E of the shared space; without a text tower that of the encoder's frames."""
        return self.audio_config.frame_feature_size if self.text_config is None else self.projection_dim


__all__ = ["CAPTIONSTEW_DECODER", "CaptionStewConfig"]

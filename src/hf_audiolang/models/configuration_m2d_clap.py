# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of M2D-CLAP: its towers and its training numbers."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_audio_encoders import resolve_audio_config
from .configuration_audio_head import AudioHeadConfig
from .configuration_audio_projector import AudioProjectorConfig
from .configuration_m2d_clap_audio import M2dClapAudioConfig


@strict
class M2dClapConfig(AudioHeadConfig):
    """Towers of M2D-CLAP and the numbers of its training; the defaults are those of stage 1.

    Sections, equations and tables are the paper's. Where its authors' code differs or adds a number the comment says
    so. The ablations are values of these fields: an MLP or two-block projector (Fig. 5) in `projector_config`, other
    text encoders (Tables X, XI) in `text_config` or `text_embedding_size`, a text projector only (projector type
    "mean" and `text_projector` "mlp") or in addition (`text_projector` "mlp"), Tables XII and XIII; whether stage 2
    trains the encoder is a matter of what the run freezes.
    """

    model_type = "m2d_clap"
    sub_configs_defaults = {
        "audio_config": M2dClapAudioConfig,
        "projector_config": AudioProjectorConfig,
        "text_config": SubConfigSpec(AutoConfig, model_type="bert", optional=True),
    }

    audio_config: dict | PreTrainedConfig | None = None  # M2D's encoder, or another one by its `model_type`
    projector_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None  # None: no text encoder, captions come as embeddings
    text_pooling: Literal["cls", "mean", "last"] = "cls"  # BERT of stage 2: the first token; GTE: the mean
    text_embedding_size: int = 4096  # width of caption embeddings, NV-Embed-v2 (IV-A2a); a text encoder's own width
    text_embedding_model: str | None = None  # whose embeddings these are, to refuse those of another model
    text_projector: Literal["none", "linear", "mlp"] = "linear"  # stage 1 IV-A2a: linear; stage 2 IV-A2b: none

    contrastive_weight: float | int = 0.01  # lambda_clap, Eq. 5 and Fig. 4; 0 is M2D alone
    masked_weight: float | int = 1.0  # lambda_m2d, Eq. 5; 0 (stages 2, 2.1) leaves predictor and teacher out
    logit_scale_init_value: float = 2.6593  # log(1 / 0.07), Eq. 3; the code begins stages 2 and 2.1 with 4.6052
    logit_scale_max: float = 4.6052  # log(100), authors' code
    reference_gather: bool = False  # True: the authors' gather without gradient, 1 / processes of the true one

    masking_ratio: float | int = 0.7  # IV-A2a; 0.3 in stage 2, 0 in stage 2.1 (IV-A2b)
    mask_style: Literal["random", "span", "structured"] = "random"  # the code's stage 2: "structured"
    mask_span_columns: int = 10  # columns of one run with "span"; authors' code
    structured_keep: Literal["marked", "unmarked"] = "marked"  # "marked" is what the authors' code does
    masked_loss: Literal["cosine", "mse"] = "cosine"  # Eq. 1
    teacher_init: Literal["random", "copy"] = "random"  # the code's; a loaded encoder is copied in any case
    predictor_hidden_size: int = 512  # authors' code
    predictor_num_layers: int = 8  # authors' code
    predictor_num_heads: int = 16  # authors' code
    predictor_intermediate_size: int = 2048  # authors' code

    def __post_init__(self, **kwargs):
        fits_projector = self.projector_config is None
        self.audio_config = resolve_audio_config(self.audio_config, M2dClapAudioConfig)
        super().__post_init__(**kwargs)
        width = self.audio_config.hidden_size
        if fits_projector:
            self.projector_config.hidden_size = self.projector_config.intermediate_size = width
        if self.projector_config.hidden_size != width:
            raise ValueError(
                f"`projector_config.hidden_size` must be the width of the audio encoder, {width}, got "
                f"{self.projector_config.hidden_size}. Set it to {width}."
            )
        if self.text_config is not None:
            self.text_embedding_size = self.text_config.hidden_size
        if self.text_projector == "none" and self.text_embedding_size != width:
            raise ValueError(
                f"`text_projector` 'none' needs caption embeddings as wide as the audio encoder, {width}, got "
                f"{self.text_embedding_size}. Choose 'linear', or widths that agree."
            )

    def validate_training_numbers(self):
        """Raises for numbers that no training can work with."""
        if not 0 <= self.masking_ratio < 1:
            raise ValueError(f"`masking_ratio` must be at least 0 and below 1, got {self.masking_ratio}.")
        for name in ("contrastive_weight", "masked_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}. 0 leaves the term out.")
        if self.mask_span_columns < 1:
            raise ValueError(f"`mask_span_columns` must be at least 1, got {self.mask_span_columns}.")
        if not 0 <= self.logit_scale_init_value <= self.logit_scale_max:
            raise ValueError(
                f"`logit_scale_init_value` must lie between 0 and `logit_scale_max` = {self.logit_scale_max}, got "
                f"{self.logit_scale_init_value}. It is the logarithm of 1 / temperature."
            )
        if self.masked_weight > 0 and self.masking_ratio == 0:
            raise ValueError(
                f"`masking_ratio` is 0 with `masked_weight` {self.masked_weight}: nothing would be predicted. Raise "
                "the ratio, or set the weight to 0."
            )
        if self.predictor_hidden_size % self.predictor_num_heads != 0 or self.predictor_hidden_size % 4 != 0:
            raise ValueError(
                "`predictor_hidden_size` must be a multiple of `predictor_num_heads` and of 4, got "
                f"{self.predictor_hidden_size} and {self.predictor_num_heads} heads. Change one of them."
            )

    def validate_audio_tower(self):
        """Raises for numbers that need an encoder which can hide patches."""
        if not self.hides_patches and (self.masked_weight > 0 or self.masking_ratio > 0):
            raise ValueError(
                f"The encoder {self.audio_config.model_type!r} cannot hide patches as M2D's can, got `masked_weight` "
                f"{self.masked_weight} and `masking_ratio` {self.masking_ratio}. Set both to 0, or choose the encoder "
                f"{M2dClapAudioConfig.model_type!r}."
            )

    @property
    def hides_patches(self) -> bool:
        """Whether the encoder computes visible patches only, as masked modelling needs."""
        return self.audio_config.model_type == M2dClapAudioConfig.model_type

    @property
    def embedding_size(self) -> int:
        """Width E of the shared space."""
        return self.audio_config.hidden_size


__all__ = ["M2dClapConfig"]

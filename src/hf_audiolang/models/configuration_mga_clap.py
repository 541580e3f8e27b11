# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of MGA-CLAP: towers, shared codebook and the numbers of its training."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_audio_encoders import resolve_audio_config
from .configuration_audio_head import AudioHeadConfig
from .configuration_htsat import HtsatConfig

PAIR_AGGREGATIONS = ("uaca", "wstag", "attention")


@strict
class MgaClapConfig(AudioHeadConfig):
    """Towers of MGA-CLAP and how frames and words become one similarity; the defaults are the authors' code.

    Sections, equations and tables are the paper's. Where it and the code differ the comment gives the paper's value.
    Plain CLAP is `aggregation` "mean", `hard_negative_gamma` 0, `regularizer_weight` 0 and an audio tower without
    locality-aware blocks.
    """

    model_type = "mga_clap"
    sub_configs_defaults = {
        "audio_config": HtsatConfig,
        "text_config": SubConfigSpec(AutoConfig, model_type="bert"),
    }

    audio_config: dict | PreTrainedConfig | None = None  # any audio encoder; None: HTS-AT, last block locality-aware
    text_config: dict | PreTrainedConfig | None = None  # 4.1: BERT base
    special_token_ids: list[int] | tuple[int, ...] = (0, 101, 102)  # no words: [PAD], [CLS], [SEP] of BERT uncased
    clean_captions: bool = True  # captions lose punctuation in training and retrieval; class names never do; code
    projection_dim: int = 1024  # D, the width of the shared space; 4.1

    # codebook: MGA-CLAP; mean: CLAP; uaca, wstag, attention (PACL): the baselines of Table 4; max: frames and words
    # pooled by their maximum, the codebook's pooling without a codebook (our control)
    aggregation: Literal["codebook", "mean", "max", "uaca", "wstag", "attention"] = "codebook"
    num_codewords: int = 4096  # M; 4.1
    # divides inner products of features and codewords (Eq. 2); None: sqrt(D) * 1000, the code's for M = 4096. For
    # fewer codewords scale it down with M: of sqrt(D) * M / 8 to 2 M on 512, M was best; much less collapses
    affinity_divisor: float | int | None = None
    normalize_affinity: bool = False  # True: cosines, as the paper's introduction words it
    text_mask_mode: Literal["zero", "neg_inf"] = "zero"  # score of what is no word before the maximum; paper: silent
    codebook_pooling: Literal["max", "mean"] = "max"  # Table 6
    codebook_activation: Literal["sparsemax", "softmax"] = "sparsemax"  # Eq. 3 and Table 6
    frame_mode: Literal["direct", "codebook"] = "direct"  # what frames are compared by; code's scripts: direct

    contrastive_weight: float | int = 1.0  # Eq. 7 alone
    hard_negative_gamma: float | int = 0.15  # gamma of Eq. 8; 0: plain contrastive loss
    hard_negative_denominator: Literal["official", "row", "paper"] = "official"  # paper: Eq. 8
    regularizer_weight: float | int = 1.0  # extra term of the code on the embeddings; the paper has none: 0
    gather_embeddings: bool = True  # False: every process contrasts its own pairs only, as the code does
    temperature_init_value: float = 0.07  # tau; 4.1. It is trained itself, not its logarithm
    temperature_min: float = 0.001  # our choice

    def __post_init__(self, **kwargs):
        if self.audio_config is None:
            self.audio_config = HtsatConfig(locality_blocks=1)  # 5.2.3: one block
        self.audio_config = resolve_audio_config(self.audio_config, HtsatConfig)
        super().__post_init__(**kwargs)

    def validate_numbers(self):
        """Raises for numbers that no model can work with."""
        for name in ("projection_dim", "num_codewords"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.affinity_divisor is not None and not self.affinity_divisor > 0:
            raise ValueError(
                f"`affinity_divisor` must be positive, got {self.affinity_divisor}. Leave it out for sqrt(D) * 1000."
            )
        for name in ("contrastive_weight", "hard_negative_gamma", "regularizer_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}. 0 leaves it out.")
        if not 0 < self.temperature_min <= self.temperature_init_value:
            raise ValueError(
                "`temperature_init_value` must be at least `temperature_min` > 0, got "
                f"{self.temperature_init_value} and {self.temperature_min}. The paper begins with 0.07."
            )
        if not self.special_token_ids:
            raise ValueError(
                "`special_token_ids` is empty, got 0 ids. Name those of padding and of the tokens around a caption."
            )

    @property
    def embedding_size(self) -> int:
        """Width E of the shared space."""
        return self.projection_dim

    @property
    def scores_pairs(self) -> bool:
        """Whether similarity is a matter of a clip and a caption together, not of one vector for each."""
        return self.aggregation in PAIR_AGGREGATIONS


__all__ = ["PAIR_AGGREGATIONS", "MgaClapConfig"]

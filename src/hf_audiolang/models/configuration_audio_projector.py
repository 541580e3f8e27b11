# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of the audio projector: from the tokens of a clip to one vector in the shared space."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class AudioProjectorConfig(PreTrainedConfig):
    """Numbers of the projector; the defaults are M2D-CLAP's of 2025 (IV-A1 and its authors' code)."""

    model_type = "audio_projector"
    base_config_key = "projector_config"

    # transformer: a semantic token attends to all tokens; mlp: on their mean (M2D-CLAP 2024); mean: nothing is learned
    projector_type: Literal["transformer", "mlp", "mean"] = "transformer"
    hidden_size: int = 768  # width of the tokens and of the result
    num_hidden_layers: int = 1  # blocks of the transformer; M2D-CLAP IV-A1, two in its Fig. 5
    num_attention_heads: int = 1  # authors' code
    intermediate_size: int = 768  # authors' code
    layer_norm_eps: float = 1e-5  # authors' code, unlike the encoder's

    def validate_sizes(self):
        """Raises without a layer, or if the heads do not divide the width."""
        if self.num_hidden_layers < 1:
            raise ValueError(
                f"`num_hidden_layers` must be at least 1, got {self.num_hidden_layers}. `projector_type` 'mean' has "
                "nothing to learn."
            )
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                "`hidden_size` must be a multiple of `num_attention_heads`, got "
                f"{self.hidden_size} and {self.num_attention_heads}. Change the width or the number of heads."
            )


__all__ = ["AudioProjectorConfig"]

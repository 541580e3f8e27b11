# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of the caption decoder."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class CaptionDecoderConfig(PreTrainedConfig):
    """Numbers of a text decoder with cross-attention to audio tokens; the defaults are SLAP's (2.2.3).

    The paper gives layers, heads and width. Norm, MLP width, positions, biases and dropout are our choice: those of
    the audio encoder, with the dropout usual for decoders trained from scratch.
    """

    model_type = "caption_decoder"
    base_config_key = "decoder_config"

    vocab_size: int = 50368  # ModernBERT's
    hidden_size: int = 512  # SLAP 2.2.3
    num_hidden_layers: int = 8  # SLAP 2.2.3
    num_attention_heads: int = 8  # SLAP 2.2.3
    intermediate_size: int = 2048  # inner width of the MLP; our choice: 4 x width
    encoder_hidden_size: int = 768  # width of the audio tokens
    norm_position: Literal["pre", "post"] = "pre"  # RMSNorm before each block, or after each residual sum
    position_type: Literal["rope", "sinusoidal"] = "rope"
    mlp_type: Literal["swiglu", "gelu"] = "swiglu"
    use_bias: bool = False  # in all linear layers
    dropout: float | int = 0.1  # after the embedding and after each block
    rope_theta: float | int = 10000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02  # 0.55-0.85 / sqrt(hidden_size) trains best from scratch
    pad_token_id: int | None = 50283
    bos_token_id: int | None = 50281  # [CLS] starts a caption
    eos_token_id: int | None = 50282  # [SEP] ends it

    def validate_heads(self):
        """Raises if the width cannot be split evenly over the heads."""
        if self.hidden_size % (2 * self.num_attention_heads) != 0:
            raise ValueError(
                f"`hidden_size` must be an even multiple of `num_attention_heads`, got {self.hidden_size} and "
                f"{self.num_attention_heads}. Choose a width that gives every head an even size."
            )


__all__ = ["CaptionDecoderConfig"]

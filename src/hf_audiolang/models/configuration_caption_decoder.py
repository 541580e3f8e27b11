# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Configuration of the caption decoder."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

_TOKENS = {"pad": "padding", "bos": "start (bos or cls)", "eos": "end (eos or sep)", "mask": "mask"}


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
    decoder_type: Literal["native", "bart"] = (
        "native"  # "bart": transformers' BartDecoder, of these sizes, in its own form
    )
    norm_position: Literal["pre", "post"] = "pre"  # norms before each block, or after each residual sum
    norm_type: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    position_type: Literal["rope", "sinusoidal"] = "rope"
    mlp_type: Literal["swiglu", "gelu"] = "swiglu"
    use_bias: bool = False  # in all linear layers and layer norms
    dropout: float | int = 0.1  # after each block
    embedding_dropout: float | int | None = None  # after the embedding; None: `dropout`
    attention_dropout: float | int = 0.0  # on attention weights
    activation_dropout: float | int = 0.0  # inside the MLP
    tie_word_embeddings: bool = True  # the output matrix is the token embedding
    max_position_embeddings: int = 1024  # tokens of the longest caption; our choice
    rope_theta: float | int = 10000.0
    rms_norm_eps: float = 1e-6
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02  # 0.55-0.85 / sqrt(hidden_size) trains best from scratch
    embedding_std: float | int | None = None  # of new token embeddings; None: `initializer_range`
    pad_token_id: int | None = 50283
    bos_token_id: int | None = 50281  # [CLS] starts a caption
    eos_token_id: int | None = 50282  # [SEP] ends it
    mask_token_id: int | None = None  # stands for every token in parallel decoding, which SLAP has not

    def validate_heads(self):
        """Raises if the width cannot be split evenly over the heads."""
        if self.hidden_size % (2 * self.num_attention_heads) != 0:
            raise ValueError(
                f"`hidden_size` must be an even multiple of `num_attention_heads`, got {self.hidden_size} and "
                f"{self.num_attention_heads}. Choose a width that gives every head an even size."
            )

    def check_tokens(self, *names: str) -> None:
        """Makes sure that the tokenizer gave the special tokens that are needed.

        Args:
            *names: of "pad", "bos", "eos", "mask".

        Raises:
            ValueError: if the id of one is None, or no row of the embedding.
        """
        for name in names:
            value = getattr(self, f"{name}_token_id")
            written = " and writes it around captions" if name in ("bos", "eos") else ""
            if value is None or not 0 <= value < self.vocab_size:
                raise ValueError(
                    f"Captions need the token `{name}_token_id`, got {value} for {self.vocab_size} tokens. Use a "
                    f"tokenizer that has a {_TOKENS[name]} token{written}, or add one to it."
                )


__all__ = ["CaptionDecoderConfig"]

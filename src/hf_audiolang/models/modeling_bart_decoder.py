# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""BART's decoder of transformers as a caption decoder, and the choice between it and ours."""

import torch
from torch import Tensor, nn
from transformers import BartConfig, Cache, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.bart.modeling_bart import BartDecoder

from .configuration_caption_decoder import CaptionDecoderConfig
from .layers_packing import PackedLayout, unpack
from .modeling_caption_decoder import (
    CaptionDecoder,
    check_caption_length,
    check_no_parallel_rows,
    decoding_mask,
    token_positions,
)

# transformers 5.24 renamed the argument and the output field
CACHE_NAME = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"


class BartCaptionDecoder(PreTrainedModel):
    """BART's decoder between audio tokens and captions; the methods are those of `CaptionDecoder`.

    Audio tokens of another width are projected to BART's first. `load_bart` takes published weights.

    Example:
        >>> config = CaptionDecoderConfig(
        ...     decoder_type="bart", vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        ...     intermediate_size=32, encoder_hidden_size=24, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        ...     mask_token_id=3)
        >>> BartCaptionDecoder(config).eval()(torch.tensor([[1, 7, 9]]), torch.randn(1, 5, 24)).shape
        torch.Size([1, 3, 16])
    """

    config: CaptionDecoderConfig
    base_model_prefix = "caption_decoder"
    main_input_name = "decoder_input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["BartDecoderLayer"]
    _supports_sdpa = True

    def __init__(self, config: CaptionDecoderConfig):
        super().__init__(config)
        self.decoder = BartDecoder(_bart_config(config))
        width = config.encoder_hidden_size
        self.encoder_projection = None
        if width != config.hidden_size:
            self.encoder_projection = nn.Linear(width, config.hidden_size, bias=False)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.initializer_range)

    @property
    def embed_tokens(self) -> nn.Embedding:
        """The token embedding."""
        return self.decoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding."""
        self.decoder.embed_tokens = value

    @property
    def output_embedding(self) -> Tensor:
        """(V, D) what states are multiplied with to score tokens."""
        return self.decoder.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def load_bart(self, bart: PreTrainedModel) -> None:
        """Copies the decoder of a `BartModel`, or of a model with one, such as `facebook/bart-base`.

        BART scores tokens with its token embedding: without tied embeddings that becomes the output, too.

        Raises:
            ValueError: if its sizes, heads or activation are others.
        """
        for name in ("decoder_attention_heads", "activation_function", "scale_embedding"):
            there, here = getattr(bart.config, name), getattr(self.decoder.config, name)
            if there != here:
                raise ValueError(
                    f"The decoder of this {type(bart).__name__} has `{name}` {there!r}, this one {here!r}: the "
                    "weights would load and compute something else. Use a `decoder_config` that agrees with it."
                )
        source = getattr(bart, "model", bart).decoder.state_dict()
        expected = self.decoder.state_dict()
        wrong = [name for name, value in expected.items() if name not in source or source[name].shape != value.shape]
        if wrong:
            raise ValueError(
                f"The decoder of this {type(bart).__name__} does not fit: {len(wrong)} tensors are missing or of "
                f"another shape, for instance {wrong[0]!r}. Use a `decoder_config` with its sizes."
            )
        self.decoder.load_state_dict({name: source[name] for name in expected})
        if not self.config.tie_word_embeddings:
            with torch.no_grad():
                self.lm_head.weight.copy_(self.decoder.embed_tokens.weight)

    def forward(
        self,
        decoder_input_ids: Tensor,
        encoder_hidden_states: Tensor | None,
        encoder_attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        is_parallel: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Decoder states (B, L, D); arguments as those of `CaptionDecoder.forward`."""
        past = 0 if cache is None else int(cache.get_seq_length())
        check_caption_length(past + decoder_input_ids.shape[1], self.config)
        if cache is not None:
            check_no_parallel_rows(is_parallel)
        if is_parallel is not None and decoder_attention_mask is None:
            decoder_attention_mask = decoder_input_ids != self.config.pad_token_id
        if encoder_hidden_states is None:  # the cache has heard it; the decoder wants to see that there is one
            shape = (len(decoder_input_ids), cache.cross_attention_cache.get_seq_length(), self.config.hidden_size)
            encoder_hidden_states = torch.empty(shape, device=decoder_input_ids.device, dtype=self.dtype)
        else:
            if encoder_attention_mask is not None:  # no weight of 0 hides what is not finite
                is_padding = encoder_attention_mask.unsqueeze(-1) == 0
                encoder_hidden_states = encoder_hidden_states.masked_fill(is_padding, 0.0)
            if self.encoder_projection is not None:
                encoder_hidden_states = self.encoder_projection(encoder_hidden_states)
        if encoder_attention_mask is not None:
            encoder_attention_mask = encoder_attention_mask.long()
        output = self.decoder(
            inputs_embeds=self._embedded(decoder_input_ids, decoder_attention_mask, past),
            attention_mask=self._mask(decoder_input_ids, decoder_attention_mask, is_parallel),
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            use_cache=cache is not None,
            **{CACHE_NAME: cache},
        )
        return output.last_hidden_state

    def decode(
        self,
        decoder_input_ids: Tensor,
        audio_tokens: Tensor,
        audio_layout: PackedLayout,
        decoder_attention_mask: Tensor | None = None,
        is_parallel: Tensor | None = None,
    ) -> Tensor:
        """The same as `forward` from packed audio tokens (N, D_audio), without a cache."""
        tokens, token_mask = unpack(audio_tokens, audio_layout), audio_layout.token_mask
        return self(decoder_input_ids, tokens, token_mask, decoder_attention_mask, is_parallel)

    def _embedded(self, decoder_input_ids: Tensor, attention_mask: Tensor | None, past: int) -> Tensor:
        """Embedded tokens (B, L, D), with what BART's decoder lacks: it gives padding on the left a position, too."""
        embedded, num_tokens = self.decoder.embed_tokens(decoder_input_ids), decoder_input_ids.shape[1]
        positions = token_positions(attention_mask, num_tokens, past)
        if attention_mask is None:
            return embedded
        table = self.decoder.embed_positions
        counted = torch.arange(past, past + num_tokens, device=positions.device)
        # 0 without padding on the left, so that nothing is rounded there
        return embedded + (table.weight[positions + table.offset] - table.weight[counted + table.offset])

    def _mask(
        self, decoder_input_ids: Tensor, attention_mask: Tensor | None, is_parallel: Tensor | None
    ) -> Tensor | None:
        """The mask of parallel rows as numbers to add: eager attention would add a bool one as 0 and 1."""
        if is_parallel is None:
            return attention_mask
        keep = decoding_mask(decoder_input_ids.shape[1], attention_mask, is_parallel, device=decoder_input_ids.device)
        lowest = torch.finfo(self.dtype).min
        return torch.zeros(keep.shape, dtype=self.dtype, device=keep.device).masked_fill(~keep, lowest)


def build_caption_decoder(config: CaptionDecoderConfig) -> CaptionDecoder | BartCaptionDecoder:
    """A new decoder of the kind that `config.decoder_type` says."""
    return BartCaptionDecoder(config) if config.decoder_type == "bart" else CaptionDecoder(config)


def _bart_config(config: CaptionDecoderConfig) -> BartConfig:
    return BartConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        d_model=config.hidden_size,
        decoder_layers=config.num_hidden_layers,
        decoder_attention_heads=config.num_attention_heads,
        decoder_ffn_dim=config.intermediate_size,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        init_std=config.initializer_range,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        is_encoder_decoder=True,
        attn_implementation=config._attn_implementation,
    )


__all__ = ["CACHE_NAME", "BartCaptionDecoder", "build_caption_decoder"]

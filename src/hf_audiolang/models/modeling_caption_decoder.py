# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Caption decoder: a text decoder with cross-attention to audio tokens (SLAP 2.2.3, CaptionStew).

tokens -> embedding -> [ self-attention -> cross-attention -> MLP ] x layers -> norm -> states -> token logits

Self-attention is causal, except for rows that are decoded in parallel (CapPa): their inputs are all mask tokens, and
every position sees every other.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_caption_decoder import CaptionDecoderConfig
from .layers_attention import CrossAttention, SelfAttention
from .layers_mlp import MLPS
from .layers_packing import PackedLayout, pack
from .layers_position import rotary_angles_1d, sinusoidal_positions


class LayerCache:
    """One layer's part of transformers' cache of keys and values, in the order of axes that the layers have."""

    def __init__(self, cache: Cache, layer: int):
        self.cache, self.layer = cache, layer

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values (B, L, H, head_dim) of new text tokens; returns those of all tokens so far."""
        heads_first = key.transpose(1, 2), value.transpose(1, 2)
        key, value = self.cache.self_attention_cache.update(*heads_first, self.layer)
        return key.transpose(1, 2), value.transpose(1, 2)

    def of_audio(self, attention: CrossAttention, audio_tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """Keys and values (B, N, H, head_dim) of the audio tokens, computed at the first call."""
        stored = self.cache.cross_attention_cache
        if self.cache.is_updated.get(self.layer):
            key, value = stored.layers[self.layer].keys, stored.layers[self.layer].values
        else:
            heads_first = (part.transpose(1, 2) for part in attention.keys_and_values(audio_tokens))
            key, value = stored.update(*heads_first, self.layer)
            self.cache.is_updated[self.layer] = True
        return key.transpose(1, 2), value.transpose(1, 2)


class CaptionDecoderLayer(GradientCheckpointingLayer):
    """Self-attention, cross-attention and MLP, each with its residual and norm."""

    def __init__(self, config: CaptionDecoderConfig):
        super().__init__()
        self.is_pre_norm = config.norm_position == "pre"
        self.self_attn = SelfAttention(config, use_bias=config.use_bias)
        self.cross_attn = CrossAttention(config)
        sizes = (config.hidden_size, config.intermediate_size)
        self.mlp = MLPS[config.mlp_type](*sizes, config.use_bias, config.activation_dropout)
        self.self_attn_norm = _norm(config)
        self.cross_attn_norm = _norm(config)
        self.mlp_norm = _norm(config)
        self.dropout, self.attention_dropout = config.dropout, config.attention_dropout
        # noted on the linear layers: transformers initialises only modules that own weights
        last = self.mlp.down_proj if config.mlp_type == "swiglu" else self.mlp.fc2
        for linear in (self.self_attn.o_proj, self.cross_attn.o_proj, last) if self.is_pre_norm else ():
            linear.init_scale = 1 / math.sqrt(3 * config.num_hidden_layers)

    def forward(
        self,
        hidden_states: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        keep: Tensor,
        audio_tokens: Tensor | None,
        audio: PackedLayout | Tensor,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Returns (B, L, D).

        Args:
            hidden_states: (B, L, D).
            rotary: cosine and sine of the tokens' positions, or None.
            keep: bool, broadcastable to (B, 1, L, keys), True where self-attention is allowed.
            audio_tokens: packed (N, D_audio), or padded (B, N, D_audio) with `cache`.
            audio: their layout, or with `cache` their mask (B, N).
            cache: keys and values of earlier tokens and of the audio.
        """
        dropout = self.attention_dropout if self.training else 0.0
        past = None if cache is None else cache.append
        hidden_states = self._residual(
            hidden_states, self.self_attn_norm, lambda x: self.self_attn(x, rotary, None, keep, past, dropout)[0]
        )
        hidden_states = self._residual(
            hidden_states, self.cross_attn_norm, lambda x: self._hear(x, audio_tokens, audio, cache, dropout)
        )
        return self._residual(hidden_states, self.mlp_norm, self.mlp)

    def _hear(
        self,
        hidden_states: Tensor,
        audio_tokens: Tensor | None,
        audio: PackedLayout | Tensor,
        cache: LayerCache | None,
        dropout: float,
    ) -> Tensor:
        if cache is None:
            return self.cross_attn(hidden_states, audio_tokens, audio, dropout)
        key, value = cache.of_audio(self.cross_attn, audio_tokens)
        return self.cross_attn.attend(hidden_states, key, value, audio, dropout)

    def _residual(self, hidden_states: Tensor, norm: nn.Module, block) -> Tensor:
        update = block(norm(hidden_states) if self.is_pre_norm else hidden_states)
        summed = hidden_states + F.dropout(update, self.dropout, self.training)
        return summed if self.is_pre_norm else norm(summed)


class CaptionDecoder(PreTrainedModel):
    """Decoder whose config chooses norms, positions, MLP and output matrix.

    Example:
        >>> config = CaptionDecoderConfig(
        ...     vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        ...     encoder_hidden_size=24, pad_token_id=0, bos_token_id=1, eos_token_id=2, mask_token_id=3)
        >>> CaptionDecoder(config).eval()(torch.tensor([[1, 7, 9]]), torch.randn(1, 5, 24)).shape
        torch.Size([1, 3, 16])
    """

    config: CaptionDecoderConfig
    base_model_prefix = "caption_decoder"
    main_input_name = "decoder_input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CaptionDecoderLayer"]
    _supports_sdpa = True

    def __init__(self, config: CaptionDecoderConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.layers = nn.ModuleList(CaptionDecoderLayer(config) for _ in range(config.num_hidden_layers))
        # with norms after each residual sum the last state is normed already
        self.norm = _norm(config) if config.norm_position == "pre" else nn.Identity()
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            std = self.config.initializer_range
            init.trunc_normal_(module.weight, std=std * getattr(module, "init_scale", 1.0))
        elif isinstance(module, nn.Embedding) and self.config.embedding_std is not None:
            init.normal_(module.weight, std=self.config.embedding_std)
            if module.padding_idx is not None:
                init.zeros_(module.weight[module.padding_idx])

    @property
    def output_embedding(self) -> Tensor:
        """(V, D) what states are multiplied with to score tokens."""
        return self.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def forward(
        self,
        decoder_input_ids: Tensor,
        encoder_hidden_states: Tensor | None,
        encoder_attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        is_parallel: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Decoder states; state i has seen tokens 0..i, or all of them in parallel rows, and all audio of its clip.

        Args:
            decoder_input_ids: (B, L) token ids; with `cache` those that are not in it yet.
            encoder_hidden_states: (B, N, D_audio) padded audio tokens; may be None with a `cache` that has heard them.
            encoder_attention_mask: (B, N) True at real audio tokens, or None when all are.
            decoder_attention_mask: (B, L) True at real tokens, those in the cache included; None: padding, if any,
                lies on the right.
            is_parallel: (B,) bool, True at rows without causal mask; None: none.
            cache: transformers' `EncoderDecoderCache`, which is filled in place.

        Returns:
            (B, L, D); states at padding mean nothing.

        Raises:
            ValueError: if there are more tokens than `config.max_position_embeddings`, or parallel rows with a cache.
        """
        if cache is None:
            if encoder_attention_mask is None:
                encoder_attention_mask = torch.ones(
                    encoder_hidden_states.shape[:2], dtype=torch.bool, device=encoder_hidden_states.device
                )
            layout = PackedLayout.from_mask(encoder_attention_mask)
            audio_tokens = pack(encoder_hidden_states, layout)
            return self.decode(decoder_input_ids, audio_tokens, layout, decoder_attention_mask, is_parallel)
        check_no_parallel_rows(is_parallel)
        return self._decode_on(
            decoder_input_ids, encoder_hidden_states, encoder_attention_mask, decoder_attention_mask, cache
        )

    def decode(
        self,
        decoder_input_ids: Tensor,
        audio_tokens: Tensor,
        audio_layout: PackedLayout,
        decoder_attention_mask: Tensor | None = None,
        is_parallel: Tensor | None = None,
    ) -> Tensor:
        """The same as `forward` from packed audio tokens (N, D_audio), without a cache."""
        num_tokens = decoder_input_ids.shape[1]
        if is_parallel is not None and decoder_attention_mask is None:
            decoder_attention_mask = decoder_input_ids != self.config.pad_token_id
        positions = token_positions(decoder_attention_mask, num_tokens, 0)
        hidden_states, rotary = self._embedded(decoder_input_ids, positions, num_tokens)
        keep = decoding_mask(num_tokens, decoder_attention_mask, is_parallel, device=hidden_states.device)
        for layer in self.layers:
            hidden_states = layer(hidden_states, rotary, keep, audio_tokens, audio_layout)
        return self.norm(hidden_states)

    def _decode_on(
        self,
        decoder_input_ids: Tensor,
        encoder_hidden_states: Tensor | None,
        encoder_attention_mask: Tensor | None,
        decoder_attention_mask: Tensor | None,
        cache: Cache,
    ) -> Tensor:
        """States of the tokens that follow those of the cache."""
        past, num_tokens = int(cache.get_seq_length()), decoder_input_ids.shape[1]
        device = decoder_input_ids.device
        num_keys, _ = cache.self_attention_cache.get_mask_sizes(num_tokens, 0)  # a static cache has more than tokens
        positions = token_positions(decoder_attention_mask, num_tokens, past)
        hidden_states, rotary = self._embedded(decoder_input_ids, positions, past + num_tokens)
        keep = decoding_mask(num_tokens, decoder_attention_mask, None, device=device, past=past, num_keys=num_keys)
        if encoder_attention_mask is None:
            stored = cache.cross_attention_cache
            length = stored.get_seq_length() if encoder_hidden_states is None else encoder_hidden_states.shape[1]
            encoder_attention_mask = torch.ones(len(decoder_input_ids), length, dtype=torch.bool, device=device)
        encoder_attention_mask = encoder_attention_mask.to(torch.bool)
        if encoder_hidden_states is not None:  # no weight of 0 hides what is not finite
            encoder_hidden_states = encoder_hidden_states.masked_fill(~encoder_attention_mask.unsqueeze(-1), 0.0)
        for number, layer in enumerate(self.layers):
            part = LayerCache(cache, number)
            hidden_states = layer(hidden_states, rotary, keep, encoder_hidden_states, encoder_attention_mask, part)
        return self.norm(hidden_states)

    def _embedded(
        self, decoder_input_ids: Tensor, positions: Tensor | None, end: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Embedded tokens with dropout, and the rotary angles of their positions if there are such.

        Args:
            decoder_input_ids: (B, L).
            positions: (B, L), or (L,); None: 0..L-1.
            end: tokens up to and with these ones.
        """
        config = self.config
        check_caption_length(end, config)
        hidden_states, rotary = self.embed_tokens(decoder_input_ids), None
        if config.position_type == "rope":
            head_dim = config.hidden_size // config.num_attention_heads
            rotary = rotary_angles_1d(end, head_dim, config.rope_theta, hidden_states.device)
            rotary = rotary if positions is None else tuple(part[positions] for part in rotary)
        else:
            table = sinusoidal_positions(end, config.hidden_size, hidden_states.device)
            table = table if positions is None else table[positions]
            hidden_states = hidden_states + table.to(hidden_states.dtype)
        dropout = config.dropout if config.embedding_dropout is None else config.embedding_dropout
        return F.dropout(hidden_states, dropout, self.training), rotary


def check_caption_length(num_tokens: int, config: CaptionDecoderConfig) -> None:
    """Raises ValueError if a caption has more tokens than the decoder has positions."""
    if num_tokens > config.max_position_embeddings:
        raise ValueError(
            f"A caption of {num_tokens} tokens is longer than the decoder's {config.max_position_embeddings} "
            "positions (`max_position_embeddings`). Cut it when it is tokenized (`truncation=True`), or ask for fewer "
            "`max_new_tokens`."
        )


def check_no_parallel_rows(is_parallel: Tensor | None) -> None:
    """Raises ValueError if rows are to be decoded in parallel on a cache."""
    if is_parallel is not None:
        raise ValueError(
            f"`is_parallel` marks {int(is_parallel.sum())} rows together with a `cache`, but parallel rows are "
            "decoded in one pass. Leave one of the two out."
        )


def decoding_mask(
    num_tokens: int,
    attention_mask: Tensor | None,
    is_parallel: Tensor | None,
    *,
    device: torch.device,
    past: int = 0,
    num_keys: int | None = None,
) -> Tensor:
    """Which tokens a token sees: bool, broadcastable to (B, 1, L, keys).

    Args:
        num_tokens: L, tokens that look.
        attention_mask: (B, past + L) True at real tokens; None: padding lies on the right, where the causal mask
            alone keeps it from real tokens.
        is_parallel: (B,) bool, True at rows whose tokens see all real tokens; needs `attention_mask`.
        device: of the result.
        past: tokens before these.
        num_keys: tokens that may be looked at, more than `past` + L in a static cache.
    """
    num_keys = past + num_tokens if num_keys is None else num_keys
    own = torch.arange(past, past + num_tokens, device=device).unsqueeze(1)
    at = torch.arange(num_keys, device=device)
    keep = at <= own  # (L, keys)
    if attention_mask is None:
        return keep
    is_real = F.pad(attention_mask.to(torch.bool), (0, num_keys - attention_mask.shape[1]))  # (B, keys)
    if is_parallel is not None:
        keep = keep | is_parallel[:, None, None]
    # padding sees itself: a row without keys would give NaN
    return ((keep & is_real.unsqueeze(1)) | (at == own)).unsqueeze(1)


def token_positions(attention_mask: Tensor | None, num_tokens: int, past: int) -> Tensor | None:
    """(B, L) places of the last L tokens among the real ones of their row; None for 0..L-1.

    Raises:
        ValueError: if the mask is not as wide as the tokens before and these ones.
    """
    if attention_mask is not None:
        if attention_mask.ndim != 2 or attention_mask.shape[1] != past + num_tokens:
            raise ValueError(
                f"`decoder_attention_mask` must be (batch, {past + num_tokens}), got {tuple(attention_mask.shape)}: "
                f"give it for the {past} tokens of the cache and the {num_tokens} new ones."
            )
        return (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -num_tokens:]
    return None if past == 0 else torch.arange(past, past + num_tokens)


def _norm(config: CaptionDecoderConfig) -> nn.Module:
    if config.norm_type == "rmsnorm":
        return nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.use_bias)


__all__ = ["CaptionDecoder", "check_caption_length", "check_no_parallel_rows", "decoding_mask", "token_positions"]

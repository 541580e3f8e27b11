# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Caption decoder: a causal text decoder with cross-attention to audio tokens (SLAP 2.2.3).

tokens -> embedding -> [ self-attention -> cross-attention -> MLP ] x layers -> norm -> states -> token logits
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_caption_decoder import CaptionDecoderConfig
from .layers_attention import CrossAttention, SelfAttention
from .layers_mlp import MLPS
from .layers_packing import PackedLayout, pack
from .layers_position import rotary_angles_1d, sinusoidal_positions


class CaptionDecoderLayer(GradientCheckpointingLayer):
    """Causal self-attention, cross-attention and MLP, each with its residual and norm."""

    def __init__(self, config: CaptionDecoderConfig):
        super().__init__()
        self.is_pre_norm = config.norm_position == "pre"
        self.self_attn = SelfAttention(config, use_bias=config.use_bias)
        self.cross_attn = CrossAttention(config)
        self.mlp = MLPS[config.mlp_type](config.hidden_size, config.intermediate_size, config.use_bias)
        self.self_attn_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.cross_attn_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.dropout = config.dropout
        # noted on the linear layers: transformers initialises only modules that own weights
        last = self.mlp.down_proj if config.mlp_type == "swiglu" else self.mlp.fc2
        for linear in (self.self_attn.o_proj, self.cross_attn.o_proj, last):
            linear.init_scale = 1 / math.sqrt(3 * config.num_hidden_layers)

    def forward(
        self, hidden_states: Tensor, rotary, keep: Tensor, audio_tokens: Tensor, audio_layout: PackedLayout
    ) -> Tensor:
        """Returns (B, L, D)."""
        hidden_states = self._residual(
            hidden_states, self.self_attn_norm, lambda x: self.self_attn(x, rotary, None, keep)[0]
        )
        hidden_states = self._residual(
            hidden_states, self.cross_attn_norm, lambda x: self.cross_attn(x, audio_tokens, audio_layout)
        )
        return self._residual(hidden_states, self.mlp_norm, self.mlp)

    def _residual(self, hidden_states: Tensor, norm: nn.Module, block) -> Tensor:
        update = block(norm(hidden_states) if self.is_pre_norm else hidden_states)
        summed = hidden_states + F.dropout(update, self.dropout, self.training)
        return summed if self.is_pre_norm else norm(summed)


class CaptionDecoder(PreTrainedModel):
    """Decoder whose config chooses norm, positions and MLP; the output matrix is the token embedding.

    Example:
        >>> config = CaptionDecoderConfig(
        ...     vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        ...     encoder_hidden_size=24, pad_token_id=0, bos_token_id=1, eos_token_id=2)
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
        is_pre_norm = config.norm_position == "pre"
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps) if is_pre_norm else nn.Identity()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            std = self.config.initializer_range
            init.trunc_normal_(module.weight, std=std * getattr(module, "init_scale", 1.0))

    def forward(
        self, decoder_input_ids: Tensor, encoder_hidden_states: Tensor, encoder_attention_mask: Tensor | None = None
    ) -> Tensor:
        """Decoder states for teacher forcing; state i has seen tokens 0..i and all audio tokens of its clip.

        Args:
            decoder_input_ids: (B, L) right-padded token ids.
            encoder_hidden_states: (B, N, D_audio) padded audio tokens.
            encoder_attention_mask: (B, N) True at real audio tokens, or None when all are.

        Returns:
            (B, L, D); states at padding mean nothing.
        """
        if encoder_attention_mask is None:
            encoder_attention_mask = torch.ones(
                encoder_hidden_states.shape[:2], dtype=torch.bool, device=encoder_hidden_states.device
            )
        layout = PackedLayout.from_mask(encoder_attention_mask)
        return self.decode(decoder_input_ids, pack(encoder_hidden_states, layout), layout)

    def decode(self, decoder_input_ids: Tensor, audio_tokens: Tensor, audio_layout: PackedLayout) -> Tensor:
        """The same as `forward` from packed audio tokens (N, D_audio)."""
        config, num_tokens = self.config, decoder_input_ids.shape[1]
        hidden_states = self.embed_tokens(decoder_input_ids)
        rotary = None
        if config.position_type == "rope":
            head_dim = config.hidden_size // config.num_attention_heads
            rotary = rotary_angles_1d(num_tokens, head_dim, config.rope_theta, hidden_states.device)
        else:
            positions = sinusoidal_positions(num_tokens, config.hidden_size, hidden_states.device)
            hidden_states = hidden_states + positions.to(hidden_states.dtype)
        hidden_states = F.dropout(hidden_states, config.dropout, self.training)
        # padding lies on the right, so the causal mask alone keeps it from real tokens
        keep = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=hidden_states.device).tril()
        for layer in self.layers:
            hidden_states = layer(hidden_states, rotary, keep, audio_tokens, audio_layout)
        return self.norm(hidden_states)


__all__ = ["CaptionDecoder"]

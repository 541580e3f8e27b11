# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The plain ViT block: LayerNorm, attention with biases, GELU MLP; on packed tokens."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .layers_attention import SelfAttention
from .layers_mlp import GeluMlp
from .layers_packing import PackedLayout


class VitLayer(GradientCheckpointingLayer):
    """Pre-norm block `x + attention(norm(x))`, then `x + mlp(norm(x))`.

    With `is_local` the attention output is the values themselves, each token's own: MGA-CLAP's locality-aware block
    (3.3). Queries and keys then stay without gradient.
    """

    def __init__(
        self,
        config,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        layer_norm_eps: float,
        is_local: bool = False,
    ):
        """`config` only says how attention is computed."""
        super().__init__()
        self.is_local = is_local
        self.attn_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.attn = SelfAttention(config, use_bias=True, hidden_size=hidden_size, num_heads=num_heads)
        self.mlp_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.mlp = GeluMlp(hidden_size, intermediate_size, use_bias=True)

    def forward(self, hidden_states: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor | None]:
        """Returns (N, D) from packed (N, D), and the attention weights, if the back end gives them."""
        if self.is_local:
            update, weights = self.attn.o_proj(self.attn.v_proj(self.attn_norm(hidden_states))), None
        else:
            update, weights = self.attn(self.attn_norm(hidden_states), None, layout, None)
        hidden_states = hidden_states + update
        return hidden_states + self.mlp(self.mlp_norm(hidden_states)), weights

    def unused_parameters(self) -> list[nn.Parameter]:
        """Parameters that `forward` never reads."""
        return [*self.attn.q_proj.parameters(), *self.attn.k_proj.parameters()] if self.is_local else []

    def pool(self, hidden_states: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor]:
        """What `forward` gives at the first token of each sequence, without computing the others.

        Returns:
            (S, D) in packed order of the sequences, and the attention weights (N, H) of those tokens.
        """
        update, weights = self.attn.pool(self.attn_norm(hidden_states), layout)
        pooled = hidden_states.index_select(0, layout.cu_seqlens[:-1]) + update
        return pooled + self.mlp(self.mlp_norm(pooled)), weights


def init_vit_weights(module: nn.Module) -> None:
    """Linear layers Xavier-uniform without bias, norms the identity: MAE's and M2D's initialisation."""
    if isinstance(module, nn.Linear):
        init.xavier_uniform_(module.weight)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)


__all__ = ["VitLayer", "init_vit_weights"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Audio projector: the tokens of a clip to one vector in the shared space (M2D-CLAP III-A2, IV-A1).

transformer   [semantic token, tokens] -> blocks -> LayerNorm of the semantic token
mlp           mean of the tokens -> linear, ReLU, linear
mean          mean of the tokens
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from .configuration_audio_projector import AudioProjectorConfig
from .layers_packing import PackedLayout, pack, prepend_token, unpack
from .layers_vit import VitLayer, init_vit_weights
from .modeling_loading import StrictTowersMixin


class SemanticTokenProjector(nn.Module):
    """A learned token that attends to all tokens of a clip; the last block is computed for that token alone."""

    def __init__(self, config: AudioProjectorConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        sizes = (width, config.num_attention_heads, config.intermediate_size, eps)
        self.semantic_token = nn.Parameter(torch.empty(1, width))
        self.layers = nn.ModuleList(VitLayer(config, *sizes) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, tokens: Tensor, layout: PackedLayout) -> tuple[Tensor, Tensor | None]:
        """Returns (B, D) in batch order, and the attention (B, H, 1 + L) of the semantic token in the last block."""
        tokens = prepend_token(tokens, self.semantic_token[0], layout)
        layout = layout.with_leading_token()
        for layer in self.layers[:-1]:
            tokens, _ = layer(tokens, layout)
        pooled, weights = self.layers[-1].pool(tokens, layout)
        rows = layout.seq_ids.index_select(0, layout.cu_seqlens[:-1])  # packed order -> batch order
        pooled = torch.empty_like(pooled).index_copy(0, rows, pooled)
        return self.norm(pooled), unpack(weights, layout).transpose(1, 2)


class MlpProjector(nn.Module):
    """Mean of the tokens through one hidden layer with ReLU."""

    def __init__(self, config: AudioProjectorConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, tokens: Tensor, layout: PackedLayout) -> tuple[Tensor, None]:
        """Returns (B, D), and no attention."""
        return self.fc2(F.relu(self.fc1(packed_mean(tokens, layout)))), None


class MeanProjector(nn.Module):
    """Mean of the tokens."""

    def __init__(self, config: AudioProjectorConfig):
        super().__init__()

    def forward(self, tokens: Tensor, layout: PackedLayout) -> tuple[Tensor, None]:
        """Returns (B, D), and no attention."""
        return packed_mean(tokens, layout), None


PROJECTORS = {"transformer": SemanticTokenProjector, "mlp": MlpProjector, "mean": MeanProjector}


class AudioProjector(StrictTowersMixin, PreTrainedModel):
    """Projector of any type, a model of its own so that it can be saved and moved without its encoder.

    Example:
        >>> config = AudioProjectorConfig(hidden_size=24, intermediate_size=24)
        >>> AudioProjector(config).eval()(torch.randn(2, 30, 24)).pooler_output.shape
        torch.Size([2, 24])
    """

    config: AudioProjectorConfig
    base_model_prefix = "audio_projection"
    main_input_name = "hidden_states"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["VitLayer"]
    _keys_to_ignore_on_load_unexpected = [r"^(audio_model|text_|logit_scale)"]  # the rest of a system's checkpoint
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: AudioProjectorConfig):
        super().__init__(config)
        self.projector = PROJECTORS[config.projector_type](config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init_vit_weights(module)
        if isinstance(module, SemanticTokenProjector):
            init.zeros_(module.semantic_token)

    @can_return_tuple
    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """Projects padded token sequences.

        Args:
            hidden_states: (B, N, D) tokens of an audio encoder.
            attention_mask: (B, N) True at real tokens, or None when all are.
            output_attentions: also return what the semantic token attends to.
            **kwargs: ignored.

        Returns:
            `pooler_output` (B, D), not normalised; `attentions` of one tensor (B, H, 1 + N), the semantic token's
            weights in the last block, itself first; None for types without attention.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(hidden_states[..., 0], dtype=torch.bool)
        layout = PackedLayout.from_mask(attention_mask)
        pooled, weights = self.projector(pack(hidden_states.to(self.dtype), layout), layout)
        attentions = (weights,) if output_attentions and weights is not None else None
        return BaseModelOutputWithPooling(pooler_output=pooled, attentions=attentions)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights; float32 for the type that has none."""
        return next((weight.dtype for weight in self.parameters()), torch.float32)


def packed_mean(tokens: Tensor, layout: PackedLayout) -> Tensor:
    """Mean of each sequence, in float32 sums: packed (N, D) -> (B, D) in batch order."""
    means = []
    sizes = [count * length for count, length in layout.groups]
    for part, (count, length) in zip(tokens.split(sizes), layout.groups, strict=True):
        means.append(part.unflatten(0, (count, length)).mean(1, dtype=torch.float32))
    packed = torch.cat(means).to(tokens.dtype)
    rows = layout.seq_ids.index_select(0, layout.cu_seqlens[:-1])
    return torch.empty_like(packed).index_copy(0, rows, packed)


__all__ = ["PROJECTORS", "AudioProjector"]

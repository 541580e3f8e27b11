# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SLAP audio encoder: a modern ViT over packed log-mel patches (SLAP 2.1.1, 2.1.2).

input_features (B, T, F) -> patches -> pack -> patch projection -> [ RMSNorm, attention with 2-D RoPE, sliding or
full; RMSNorm, SwiGLU ] x layers -> RMSNorm -> packed tokens (N, D) -> unpack -> last_hidden_state (B, N', D)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import can_return_tuple, logging

from .configuration_slap_audio import SlapAudioConfig
from .layers_attention import SelfAttention, padding_mask
from .layers_mlp import SwiGluMlp
from .layers_packing import PackedLayout, pack, unpack
from .layers_patch import patch_mask, patchify, time_steps_of
from .layers_pooling import masked_mean
from .layers_position import rotary_angles_2d
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput

logger = logging.get_logger(__name__)


class SlapAudioEmbeddings(nn.Module):
    """Patches to tokens: bias-free projection, mask token at hidden positions, optional frequency embedding."""

    def __init__(self, config: SlapAudioConfig):
        super().__init__()
        self.num_bands = config.num_frequency_patches
        patch_size = config.patch_frames * config.patch_mel_bins
        self.patch_proj = nn.Linear(patch_size, config.hidden_size, bias=False)
        self.mask_token = nn.Parameter(torch.empty(config.hidden_size))
        self.frequency_embedding = (
            nn.Parameter(torch.empty(self.num_bands, config.hidden_size)) if config.use_frequency_embedding else None
        )

    def forward(self, patches: Tensor, token_position: Tensor, is_masked: Tensor | None) -> Tensor:
        """Returns (..., D).

        Args:
            patches: (..., patch size) flattened tiles.
            token_position: (...) index of each token in its clip.
            is_masked: (...) bool, True where the mask token stands in, or None.
        """
        tokens = self.patch_proj(patches)
        if is_masked is not None:
            tokens = torch.where(is_masked.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        if self.frequency_embedding is not None:
            # not by indexing, whose gradient is summed in no fixed order when there are several threads
            tokens = tokens + F.embedding(token_position % self.num_bands, self.frequency_embedding)
        return tokens


class SlapAudioLayer(GradientCheckpointingLayer):
    """Pre-norm block: attention within a window or the whole clip, then SwiGLU."""

    def __init__(self, config: SlapAudioConfig, layer: int):
        super().__init__()
        is_sliding = config.layer_types[layer] == "sliding_attention"
        self.attn_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attn = SelfAttention(config, window=config.sliding_window if is_sliding else None)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SwiGluMlp(config.hidden_size, config.intermediate_size)
        self.drop_path_rate = config.drop_path_rate * layer / max(config.num_hidden_layers - 1, 1)
        # noted on the linear layers: transformers initialises only modules that own weights
        for linear in (self.attn.o_proj, self.mlp.down_proj):
            linear.init_scale = 1 / math.sqrt(2 * config.num_hidden_layers)

    def forward(
        self, hidden_states: Tensor, rotary, layout: PackedLayout | None, keep: dict[int | None, Tensor] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the shape of `hidden_states` and the attention weights, if the back end gives them.

        Args:
            hidden_states: (N, D) packed with `layout`, or (B, L, D) with `keep`.
            rotary: cosine and sine of each token.
            layout: which token belongs to which clip, or None for a padded batch.
            keep: window -> attention mask of a padded batch, or None for a packed one.
        """
        window_keep = None if keep is None else keep[self.attn.window]
        update, weights = self.attn(self.attn_norm(hidden_states), rotary, layout, window_keep)
        hidden_states = hidden_states + self._drop_path(update, layout)
        update = self.mlp(self.mlp_norm(hidden_states))
        return hidden_states + self._drop_path(update, layout), weights

    def _drop_path(self, update: Tensor, layout: PackedLayout | None) -> Tensor:
        """Leaves the block out for a random part of the clips (stochastic depth), scaling up the others."""
        if not self.training or self.drop_path_rate == 0:
            return update
        num_clips = len(update) if layout is None else layout.num_sequences
        kept = torch.rand(num_clips, device=update.device) >= self.drop_path_rate
        factor = kept.to(update.dtype) / (1 - self.drop_path_rate)
        return update * (factor[:, None, None] if layout is None else factor[layout.seq_ids].unsqueeze(-1))


class SlapAudioModel(StrictTowersMixin, PreTrainedModel):
    """Encoder of clips of any duration; clips of a batch never see each other or their padding.

    Example:
        >>> config = SlapAudioConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32)
        >>> model = SlapAudioModel(config).eval()
        >>> output = model(torch.randn(2, 98, 64))
        >>> output.last_hidden_state.shape, output.frame_features.shape
        (torch.Size([2, 28, 24]), torch.Size([2, 7, 24]))
    """

    config: SlapAudioConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["SlapAudioLayer"]
    _keys_to_ignore_on_load_unexpected = [r"^(text_|audio_p|logit_scale)"]  # the rest of a SlapModel checkpoint
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: SlapAudioConfig):
        super().__init__(config)
        self.embeddings = SlapAudioEmbeddings(config)
        self.layers = nn.ModuleList(SlapAudioLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std * getattr(module, "init_scale", 1.0))
        elif isinstance(module, SlapAudioEmbeddings):
            init.zeros_(module.mask_token)
            if module.frequency_embedding is not None:
                init.trunc_normal_(module.frequency_embedding, std=std)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the patch projection."""
        return self.embeddings.patch_proj

    @can_return_tuple
    def forward(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> AudioEncoderOutput:
        """Encodes a batch of log-mels.

        Args:
            input_features: (B, T, F) normalised log-mel; padding may hold anything.
            input_features_mask: (B, T) True at real frames, or None when all are.
            masked_positions: (B, N) True where the mask token replaces a patch, or None.
            output_hidden_states: also return the input of every layer.
            output_attentions: also return attention weights; needs `attn_implementation="eager"`.
            **kwargs: ignored.
        """
        config = self.config
        wants_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        wants_weights = config.output_attentions if output_attentions is None else output_attentions
        if wants_weights and config._attn_implementation != "eager":
            logger.warning_once("`output_attentions` gives None: load the model with `attn_implementation='eager'`.")
        states = [] if wants_states else None
        weights = [] if wants_weights else None
        if config.use_packing:
            tokens, layout = self.encode(
                input_features, input_features_mask, masked_positions, layer_inputs=states, layer_weights=weights
            )
            last_hidden_state, token_mask = unpack(tokens, layout), layout.token_mask
            states = states and [unpack(state, layout) for state in states]
        else:
            patches, token_mask = self._patches(input_features, input_features_mask, masked_positions)
            hidden_states = self._encode_padded(patches, token_mask, masked_positions, states, weights)
            is_real = token_mask.unsqueeze(-1)
            last_hidden_state = hidden_states * is_real
            states = states and [state * is_real for state in states]
        num_frames = input_features.shape[1]
        output = AudioEncoderOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=masked_mean(last_hidden_state, token_mask),
            token_mask=token_mask,
            frame_features=self.time_steps(last_hidden_state, num_frames).mean(2),
            frame_mask=self.time_steps(token_mask, num_frames)[..., 0],
        )
        if states is not None:
            output.hidden_states = (*states, last_hidden_state)
        if weights is not None and all(weight is not None for weight in weights):
            output.attentions = tuple(weights)
        return output

    def encode(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        *,
        layout: PackedLayout | None = None,
        layer_inputs: list[Tensor] | None = None,
        layer_weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, PackedLayout]:
        """Encodes a batch of log-mels and keeps the result packed.

        Args:
            input_features: see `forward`; `input_features_mask` and `masked_positions` too.
            input_features_mask: see `forward`.
            masked_positions: see `forward`.
            layout: `layout_of` the same batch, to share it between several passes; None makes it.
            layer_inputs: a list that receives the packed input of every layer.
            layer_weights: a list that receives the attention weights of every layer.

        Returns:
            (N, D) tokens after the final norm in packed order, and their layout.

        Raises:
            ValueError: if mel bins, mask or masked positions do not fit.
        """
        patches, token_mask = self._patches(input_features, input_features_mask, masked_positions)
        layout = PackedLayout.from_mask(token_mask) if layout is None else layout
        if not self.config.use_packing:
            return pack(self._encode_padded(patches, token_mask, masked_positions, None, None), layout), layout
        position = layout.token_index % token_mask.shape[1]  # (N,)
        is_masked = None if masked_positions is None else pack(masked_positions, layout)
        tokens = self._run_layers(
            pack(patches, layout), position, is_masked, layout=layout, inputs=layer_inputs, weights=layer_weights
        )
        return tokens, layout

    def layout_of(self, input_features: Tensor, input_features_mask: Tensor | None = None) -> PackedLayout:
        """Which token of a batch belongs to which clip, without encoding it."""
        if input_features_mask is None:
            input_features_mask = torch.ones_like(input_features[..., 0], dtype=torch.bool)
        config = self.config
        return PackedLayout.from_mask(
            patch_mask(input_features_mask, config.patch_frames, config.num_frequency_patches)
        )

    def time_steps(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Tokens of each output frame: (B, N, ...) -> (B, T', bands, ...), whatever the number of input frames is."""
        return time_steps_of(tokens, self.config.num_frequency_patches)

    def _patches(
        self, input_features: Tensor, input_features_mask: Tensor | None, masked_positions: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Padded patches (B, L, patch size) and their mask, after checking that all shapes fit."""
        config = self.config
        if input_features.shape[-1] != config.num_mel_bins:
            raise ValueError(
                f"`input_features` must have {config.num_mel_bins} mel bins on the last axis, got "
                f"{tuple(input_features.shape)}. Use the model's own feature extractor."
            )
        patches, token_mask = patchify(
            input_features.to(self.dtype), input_features_mask, config.patch_frames, config.patch_mel_bins
        )
        if masked_positions is not None and masked_positions.shape != token_mask.shape:
            raise ValueError(
                f"`masked_positions` must be {tuple(token_mask.shape)}, one per token, got "
                f"{tuple(masked_positions.shape)}. Draw them on the token mask of the same batch."
            )
        return patches, token_mask

    def _encode_padded(
        self,
        patches: Tensor,
        token_mask: Tensor,
        masked_positions: Tensor | None,
        inputs: list[Tensor] | None,
        weights: list[Tensor] | None,
    ) -> Tensor:
        """Tokens (B, L, D) of a padded batch, computed with masks: static shapes, for export."""
        position = torch.arange(token_mask.shape[1], device=patches.device)  # (L,)
        keep = {window: padding_mask(token_mask, window) for window in (None, self.config.sliding_window)}
        return self._run_layers(patches, position, masked_positions, keep=keep, inputs=inputs, weights=weights)

    def _run_layers(
        self,
        patches: Tensor,
        position: Tensor,
        is_masked: Tensor | None,
        *,
        layout: PackedLayout | None = None,
        keep: dict[int | None, Tensor] | None = None,
        inputs: list[Tensor] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Embeds patches (..., patch size), packed with `layout` or padded with `keep`, and runs all layers."""
        config = self.config
        # under autocast the residual stream stays in the parameters' precision
        hidden_states = self.embeddings(patches, position, is_masked).to(self.dtype)
        bands = config.num_frequency_patches
        head_dim = config.hidden_size // config.num_attention_heads
        rotary = rotary_angles_2d(position // bands, position % bands, head_dim, config.rope_theta)
        for layer in self.layers:
            if inputs is not None:
                inputs.append(hidden_states)
            hidden_states, layer_weights = layer(hidden_states, rotary, layout, keep)
            if weights is not None:
                weights.append(layer_weights)
        return self.norm(hidden_states)


__all__ = ["SlapAudioModel"]

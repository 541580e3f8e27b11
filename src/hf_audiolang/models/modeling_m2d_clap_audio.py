# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""M2D audio encoder: a ViT over log-mel patches with fixed 2-D positions (M2D-CLAP III-A, IV-A1).

input_features (B, T, F) -> pieces of max_frames -> patches, frequency-major -> pack the visible ones -> projection
+ position, class token -> [ LayerNorm, attention; LayerNorm, MLP ] x layers -> LayerNorm -> without the class token:
last_hidden_state (B, N, D), and frame_features (B, T', bands * D) of Eq. 2
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import can_return_tuple, logging

from .configuration_m2d_clap_audio import M2dClapAudioConfig
from .layers_attention import step_similarities
from .layers_packing import PackedLayout, drop_leading_token, pack, prepend_token, unpack
from .layers_pooling import masked_mean
from .layers_position import resize_table_2d, sincos_table_2d
from .layers_vit import VitLayer, init_vit_weights
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput

logger = logging.get_logger(__name__)


@dataclass
class PatchGrid:
    """The patches of a batch. A piece of a clip is a row; token f * num_columns + t of a row is band f, column t.

    Attributes:
        patches: (B * pieces, bands * columns, patch size) flattened tiles, frames as rows; zeros at padding.
        token_mask: (B * pieces, bands * columns) bool, True at real tokens.
        num_clips: B.
        num_columns: columns of a row.
    """

    patches: Tensor
    token_mask: Tensor
    num_clips: int
    num_columns: int

    @property
    def num_pieces(self) -> int:
        """Rows per clip."""
        return len(self.patches) // self.num_clips

    def of_clips(self, rows: Tensor) -> Tensor:
        """Joins the pieces of each clip: (B * pieces, L, ...) -> (B, pieces * L, ...)."""
        return rows.unflatten(0, (self.num_clips, -1)).flatten(1, 2)

    def of_pieces(self, clips: Tensor) -> Tensor:
        """Undoes `of_clips`: (B, pieces * L, ...) -> (B * pieces, L, ...)."""
        return clips.unflatten(1, (self.num_pieces, -1)).flatten(0, 1)


class M2dClapAudioEmbeddings(nn.Module):
    """Patches to tokens: projection plus position, and the class token.

    The position table is a buffer that checkpoints carry and loading restores: published files hold tables that were
    stretched, which no formula gives back.
    """

    def __init__(self, config: M2dClapAudioConfig):
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.patch_proj = nn.Linear(config.patch_frames * config.patch_mel_bins, width)
        self.class_token = nn.Parameter(torch.empty(width))
        num_tokens = 1 + config.num_frequency_patches * config.num_time_patches
        self.register_buffer("position_embeddings", torch.empty(num_tokens, width))

    def forward(self, patches: Tensor, position: Tensor, num_columns: int) -> Tensor:
        """Tokens (N, D) of packed patches (N, patch size) at grid positions (N,) of rows of `num_columns` columns.

        A row shorter than the table uses the table's first columns.
        """
        band = torch.div(position, num_columns, rounding_mode="floor")
        row = 1 + band * self.config.num_time_patches + position % num_columns
        return self.patch_proj(patches) + self.position_embeddings.index_select(0, row)

    def placed_class_token(self) -> Tensor:
        """The class token (D,) with its position."""
        return self.class_token + self.position_embeddings[0]


class M2dClapAudioModel(StrictTowersMixin, PreTrainedModel):
    """Encoder of clips of any duration; clips of a batch never see each other or their padding.

    A clip longer than `config.max_frames` is encoded in pieces of that length, one after the other, and the results
    are joined, as the authors' runtime does. If `max_frames` is no multiple of `patch_frames` the last frames of a
    full piece are left out (9 of 1001). The class token takes part in attention and is in no output except
    `attentions`, where it comes first.

    Example:
        >>> config = M2dClapAudioConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        ...                             intermediate_size=32)
        >>> output = M2dClapAudioModel(config).eval()(torch.randn(2, 98, 80))
        >>> output.last_hidden_state.shape, output.frame_features.shape
        (torch.Size([2, 35, 24]), torch.Size([2, 7, 120]))
    """

    config: M2dClapAudioConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["VitLayer"]
    _keys_to_ignore_on_load_unexpected = [r"^(text_|audio_projection|logit_scale)"]  # the rest of a M2dClapModel
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: M2dClapAudioConfig):
        super().__init__(config)
        self.embeddings = M2dClapAudioEmbeddings(config)
        sizes = (config.hidden_size, config.num_attention_heads, config.intermediate_size, config.layer_norm_eps)
        num_plain = config.num_hidden_layers - config.locality_blocks
        self.layers = nn.ModuleList(
            VitLayer(config, *sizes, is_local=layer >= num_plain) for layer in range(config.num_hidden_layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()
        self._freeze_unused()

    def train(self, mode: bool = True) -> "M2dClapAudioModel":
        """Switches the mode; what the locality-aware blocks do not use stays without gradient."""
        super().train(mode)
        self._freeze_unused()  # from_pretrained makes every parameter trainable, and ends with eval()
        return self

    def _freeze_unused(self) -> None:
        for layer in self.layers:
            for parameter in layer.unused_parameters():
                parameter.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init_vit_weights(module)
        if isinstance(module, M2dClapAudioEmbeddings):
            init.normal_(module.class_token, std=0.02)
            config = self.config
            table = sincos_table_2d(config.num_frequency_patches, config.num_time_patches, config.hidden_size)
            init.copy_(module.position_embeddings, table)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the patch projection."""
        return self.embeddings.patch_proj

    def resize_positions(self, max_frames: int) -> None:
        """Changes the longest input encoded in one piece; to be followed by training.

        Args:
            max_frames: new length in frames. A longer position table is interpolated, a shorter one cut off.
        """
        old = self.config.max_frames
        self.config.max_frames = max_frames
        try:
            self.config.validate_patches()
        except ValueError:
            self.config.max_frames = old
            raise
        table, bands = self.embeddings.position_embeddings, self.config.num_frequency_patches
        self.embeddings.position_embeddings = resize_table_2d(table, bands, self.config.num_time_patches)

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
            masked_positions: (B, N) True at tokens left out of the encoder and of the outputs' masks, or None.
            output_hidden_states: also return the input of every layer.
            output_attentions: also return attention weights; needs `attn_implementation="eager"`.
            **kwargs: ignored.

        Returns:
            Tokens frequency-major, piece after piece; `frame_features` are the tokens of a column, lowest band first,
            concatenated (Eq. 2); `pooler_output` is their mean over time. `attentions` are per piece, class token
            first: (B * pieces, H, 1 + L, 1 + L).
        """
        config = self.config
        wants_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        wants_weights = config.output_attentions if output_attentions is None else output_attentions
        if wants_weights and config._attn_implementation != "eager":
            logger.warning_once("`output_attentions` gives None: load the model with `attn_implementation='eager'`.")
        states = [] if wants_states else None
        weights = [] if wants_weights else None
        tokens, layout = self.encode(
            input_features, input_features_mask, masked_positions, layer_inputs=states, layer_weights=weights
        )
        num_frames, last_hidden_state = input_features.shape[1], unpack(tokens, layout)
        frame_features = self.time_steps(last_hidden_state, num_frames).flatten(2)  # (B, T', bands * D)
        frame_mask = self.time_steps(layout.token_mask, num_frames).any(2)
        output = AudioEncoderOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=masked_mean(frame_features, frame_mask),
            token_mask=layout.token_mask,
            frame_features=frame_features,
            frame_mask=frame_mask,
        )
        if states is not None:
            output.hidden_states = (*(unpack(state, layout) for state in states), output.last_hidden_state)
        if weights is not None and all(weight is not None for weight in weights):
            output.attentions = tuple(weights)
        return output

    def encode(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        *,
        layer_inputs: list[Tensor] | None = None,
        layer_weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, PackedLayout]:
        """Encodes a batch of log-mels and keeps the result packed.

        Args:
            input_features: see `forward`; `input_features_mask` and `masked_positions` too.
            input_features_mask: see `forward`.
            masked_positions: see `forward`.
            layer_inputs: a list that receives the packed input of every layer.
            layer_weights: a list that receives the attention weights of every layer.

        Returns:
            (N, D) tokens after the final norm, and their layout on the clips.

        Raises:
            ValueError: if mel bins, mask or masked positions do not fit.
        """
        grid = self.patch_grid(input_features, input_features_mask)
        visible = grid.token_mask
        if masked_positions is not None:
            visible = visible & ~self.hidden_tokens(grid, masked_positions)
        rows, visible = self._used_rows(grid, visible)
        layout = PackedLayout.from_mask(visible)
        tokens = self.run_layers(self.embed(grid, layout, rows), layout, inputs=layer_inputs, weights=layer_weights)
        tokens = drop_leading_token(tokens, layout)
        if layer_inputs is not None:
            layer_inputs[:] = [drop_leading_token(state, layout) for state in layer_inputs]
        if grid.num_pieces == 1:
            return tokens, layout
        clips = PackedLayout.from_mask(grid.of_clips(_scattered(visible, rows, grid)))
        if layer_inputs is not None:
            layer_inputs[:] = [self._join_pieces(state, layout, clips, rows, grid) for state in layer_inputs]
        return self._join_pieces(tokens, layout, clips, rows, grid), clips

    def last_block_similarities(self, input_features: Tensor) -> tuple[Tensor, Tensor]:
        """How alike output frames are in the last block, by queries and keys and by values (MGA-CLAP Figure 3).

        Args:
            input_features: (B, T, F) normalised log-mel, clips of one length of at most `config.max_frames`.

        Returns:
            Softmax of query-key and of value-value products of the patches, without the class token, both
            (B, T', T') with rows of sum 1; see `step_similarities`.

        Raises:
            ValueError: for clips longer than the position table.
        """
        if input_features.shape[1] > self.config.max_frames:
            raise ValueError(
                f"`input_features` must have at most `max_frames` = {self.config.max_frames} frames, got "
                f"{input_features.shape[1]}: pieces of a longer clip do not see each other. Pass a shorter clip."
            )
        states: list[Tensor] = []
        _, layout = self.encode(input_features, layer_inputs=states)
        layer, heads = self.layers[-1], self.config.num_attention_heads
        tokens = layer.attn_norm(self.time_steps(unpack(states[-1], layout), input_features.shape[1]))
        query, key, value = (project(tokens) for project in (layer.attn.q_proj, layer.attn.k_proj, layer.attn.v_proj))
        return step_similarities(query, key, heads), step_similarities(value, value, heads)

    def time_steps(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Tokens of each output frame: (B, N, ...) -> (B, T', bands, ...) for a batch of `num_frames` input frames."""
        config, columns = self.config, self._num_columns(num_frames)
        pieces = tokens.unflatten(1, (-1, config.num_frequency_patches, columns)).transpose(2, 3)
        full, rest = divmod(num_frames, config.max_frames)
        return pieces.flatten(1, 2)[:, : full * columns + self._num_columns(rest)]

    def patch_grid(self, input_features: Tensor, input_features_mask: Tensor | None) -> PatchGrid:
        """Cuts a batch into pieces and patches; frames beyond a clip's end are zeros, the mean of the training data.

        Raises:
            ValueError: if mel bins or mask do not fit.
        """
        config = self.config
        has_frames = input_features.ndim == 3 and input_features.shape[1] > 0
        if not has_frames or input_features.shape[-1] != config.num_mel_bins:
            raise ValueError(
                f"`input_features` must be (batch, frames, {config.num_mel_bins} mel bins) with a frame, got "
                f"{tuple(input_features.shape)}. Use the model's own feature extractor."
            )
        batch, num_frames, num_mel_bins = input_features.shape
        if input_features_mask is None:
            frame_mask = torch.ones(batch, num_frames, dtype=torch.bool, device=input_features.device)
        elif input_features_mask.shape == (batch, num_frames):
            frame_mask = input_features_mask.to(torch.bool)
        else:
            raise ValueError(
                f"`input_features_mask` must be {(batch, num_frames)} as the frames of `input_features`, got "
                f"{tuple(input_features_mask.shape)}. Pass the mask that the feature extractor returned."
            )
        features = torch.where(frame_mask.unsqueeze(-1), input_features.to(self.dtype), 0.0)
        columns, frames = self._num_columns(num_frames), config.patch_frames
        if num_frames > config.max_frames:
            tail = -num_frames % config.max_frames
            features = F.pad(features, (0, 0, 0, tail)).reshape(-1, config.max_frames, num_mel_bins)
            frame_mask = F.pad(frame_mask, (0, tail)).reshape(-1, config.max_frames)
        tail = columns * frames - features.shape[1]  # negative where a full piece has frames left over
        features, frame_mask = F.pad(features, (0, 0, 0, tail)), F.pad(frame_mask, (0, tail))
        bands = config.num_frequency_patches
        tiles = features.view(-1, columns, frames, bands, config.patch_mel_bins).permute(0, 3, 1, 2, 4)
        return PatchGrid(
            patches=tiles.flatten(3).flatten(1, 2),
            token_mask=frame_mask.view(-1, columns, frames).any(-1).repeat(1, bands),
            num_clips=batch,
            num_columns=columns,
        )

    def embed(self, grid: PatchGrid, layout: PackedLayout, rows: Tensor | None = None) -> Tensor:
        """Packed tokens (N + rows, D) of the patches in `layout`, a class token before each row.

        Args:
            grid: the patches of the batch.
            layout: which tokens of the rows are wanted.
            rows: the rows of the grid that `layout` speaks of, or None for all.
        """
        patches = grid.patches if rows is None else grid.patches.index_select(0, rows)
        position = layout.token_index % grid.token_mask.shape[1]
        tokens = self.embeddings(pack(patches, layout), position, grid.num_columns)
        return prepend_token(tokens, self.embeddings.placed_class_token(), layout)

    def run_layers(
        self,
        tokens: Tensor,
        layout: PackedLayout,
        *,
        inputs: list[Tensor] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """All layers and the final norm on `embed`'s result: (N + rows, D) -> (N + rows, D)."""
        layout = layout.with_leading_token()
        hidden_states = tokens.to(self.dtype)  # under autocast the residual stream stays in the weights' precision
        for layer in self.layers:
            if inputs is not None:
                inputs.append(hidden_states)
            hidden_states, layer_weights = layer(hidden_states, layout)
            if weights is not None:
                weights.append(layer_weights)
        return self.norm(hidden_states)

    def _num_columns(self, num_frames: int) -> int:
        """Columns of the widest piece of a batch padded to `num_frames`."""
        return min(-(-num_frames // self.config.patch_frames), self.config.num_time_patches)

    def hidden_tokens(self, grid: PatchGrid, masked_positions: Tensor) -> Tensor:
        """Masked positions of the clips as bool on the rows of the grid: (B, N) -> (B * pieces, L).

        Raises:
            ValueError: if their shape is not that of the tokens.
        """
        expected = (grid.num_clips, grid.token_mask.numel() // grid.num_clips)
        if masked_positions.shape != expected:
            raise ValueError(
                f"`masked_positions` must be {expected}, one per token, got {tuple(masked_positions.shape)}. Draw "
                "them on the token mask of the same batch."
            )
        return grid.of_pieces(masked_positions.to(torch.bool))

    def _used_rows(self, grid: PatchGrid, visible: Tensor) -> tuple[Tensor | None, Tensor]:
        """Leaves out the pieces that lie beyond a shorter clip's end: (their rows or None for all, their mask)."""
        if grid.num_pieces == 1:
            return None, visible
        rows = visible.any(1).nonzero().squeeze(1)
        return rows, visible.index_select(0, rows)

    def _join_pieces(
        self, tokens: Tensor, layout: PackedLayout, clips: PackedLayout, rows: Tensor, grid: PatchGrid
    ) -> Tensor:
        return pack(grid.of_clips(_scattered(unpack(tokens, layout), rows, grid)), clips)


def _scattered(values: Tensor, rows: Tensor, grid: PatchGrid) -> Tensor:
    """Values of some rows in a grid of all, zeros elsewhere: (R, L, ...) -> (B * pieces, L, ...)."""
    return values.new_zeros(len(grid.patches), *values.shape[1:]).index_copy(0, rows, values)


__all__ = ["M2dClapAudioModel", "PatchGrid"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""HTS-AT, a Swin transformer over a folded log-mel (Chen et al., 2022), with MGA-CLAP's locality-aware blocks (3.3).

input_features (B, T, F) -> batch norm -> stretch to 1024 frames -> fold: 4 segments of time, one above the other ->
patches -> [ blocks with plain and shifted windows -> merge 2 x 2 tokens ] x stages -> LayerNorm -> unfold:
last_hidden_state (B, 2 * 32, D), frequency-major -> mean over the 2 frequency rows: frame_features (B, 32, D)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import can_return_tuple, logging

from .configuration_htsat import HtsatConfig
from .layers_packing import PackedLayout, pack
from .layers_pooling import masked_mean
from .layers_spec_augment import spec_augment
from .layers_swin import (
    Dense,
    PatchMerging,
    WindowAttention,
    WindowSelfAttention,
    drop_path,
    inverse_of,
    reorder,
    window_order,
    wrapped_window_mask,
)
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput

logger = logging.get_logger(__name__)


class HtsatPatchEmbed(nn.Module):
    """Patches of the folded spectrogram to tokens of the first stage."""

    def __init__(self, config: HtsatConfig):
        super().__init__()
        side, width = config.patch_side, config.patch_embeds_hidden_size
        self.num_segments = config.num_segments
        self.proj = nn.Conv2d(1, width, kernel_size=side, stride=side)
        self.norm = nn.LayerNorm(width)

    def forward(self, spectrogram: Tensor, order: Tensor) -> Tensor:
        """Returns tokens (B, N, C) from (B, max frames, F); `order` (N,) is the row-major place of each in the image.

        The image has (segment, mel bin) as rows and time within the segment as columns.
        """
        side = self.proj.stride[0]
        tiles = spectrogram.unflatten(1, (self.num_segments, -1, side)).unflatten(-1, (-1, side))
        tiles = tiles.permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(1, 3)  # (B, N, mel bins * frames of a patch)
        return self.norm(F.linear(tiles[:, order], self.proj.weight.flatten(1), self.proj.bias))


class HtsatBlock(GradientCheckpointingLayer):
    """Pre-norm block on tokens in window order: attention in windows, then MLP.

    With `is_local` the attention output is the values themselves, each token's own (MGA-CLAP 3.3), and the MLP is
    left out as in the authors' code (`config.locality_mlp` "skip") or kept ("mlp").
    """

    def __init__(self, config: HtsatConfig, width: int, num_heads: int, drop_path_rate: float, is_local: bool):
        super().__init__()
        self.config = config
        self.drop_path_rate = drop_path_rate
        self.is_local = is_local
        self.layernorm_before = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = WindowAttention(config, width, num_heads)
        self.layernorm_after = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate = Dense(width, int(config.mlp_ratio * width))
        self.output = Dense(int(config.mlp_ratio * width), width)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor, wrapped_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns (B, N, C), and the attention weights (B, W, H, L, L), if the back end gives them."""
        config, attention = self.config, self.attention
        hidden = self.layernorm_before(hidden_states)
        if self.is_local:
            update, weights = attention.self.value(hidden), None
        else:
            windows = hidden.unflatten(1, (-1, config.window_size**2))
            update, weights = attention.self(windows, wrapped_mask)
            update = update.flatten(1, 2)
        update = self._dropout(attention.output(update), config.attention_probs_dropout_prob)
        hidden_states = hidden_states + drop_path(update, self.drop_path_rate, self.training)
        update = self.layernorm_after(hidden_states)
        if not self.is_local or config.locality_mlp == "mlp":
            update = self.output(self.activation(self.intermediate(update)))
            update = self._dropout(update, config.hidden_dropout_prob)
        return hidden_states + drop_path(update, self.drop_path_rate, self.training), weights

    def unused_parameters(self) -> list[nn.Parameter]:
        """Parameters that `forward` never reads."""
        if not self.is_local:
            return []
        attention = self.attention.self
        unused = [attention.relative_position_bias_table, *attention.query.parameters(), *attention.key.parameters()]
        if self.config.locality_mlp == "skip":
            unused += [*self.intermediate.parameters(), *self.output.parameters()]
        return unused

    def _dropout(self, update: Tensor, probability: float) -> Tensor:
        return F.dropout(update, probability) if self.training and probability > 0 else update


class HtsatStage(nn.Module):
    """Blocks at one resolution, then merging of patches, except in the last stage."""

    def __init__(self, config: HtsatConfig, stage: int):
        super().__init__()
        self.side = config.stage_sides[stage]
        self.window = config.window_size
        width, heads = config.stage_widths[stage], config.num_attention_heads[stage]
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu").tolist()
        first, is_last = sum(config.depths[:stage]), stage == len(config.depths) - 1
        num_plain = config.depths[stage] - (config.locality_blocks if is_last else 0)
        self.blocks = nn.ModuleList(
            HtsatBlock(config, width, heads, rates[first + block], is_local=block >= num_plain)
            for block in range(config.depths[stage])
        )
        self.downsample = None if is_last else PatchMerging(width)

    def forward(
        self,
        hidden_states: Tensor,
        order: Tensor,
        inputs: list[tuple[Tensor, Tensor]] | None = None,
        weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Runs the blocks and merges the patches.

        Args:
            hidden_states: (B, N, C) in the order of plain windows.
            order: (N,) row-major place of each token in the image.
            inputs: a list that receives the input of every block, with its order.
            weights: a list that receives the attention weights (B, W, H, L, L) of every block.

        Returns:
            (B, N / 4, 2 C), in the last stage (B, N, C), and their order.
        """
        for number, block in enumerate(self.blocks):
            if self.shift_of(number) != self.shift_of(number - 1):
                wanted = window_order(self.side, self.window, self.shift_of(number), order.device)
                hidden_states, order = reorder(hidden_states, inverse_of(order)[wanted]), wanted
            if inputs is not None:
                inputs.append((hidden_states, order))
            hidden_states, block_weights = block(hidden_states, self.wrapped_mask(number, hidden_states))
            if weights is not None:
                weights.append(block_weights)
        if self.downsample is None:
            return hidden_states, order
        coarse_order = window_order(self.side // 2, self.window, 0, order.device)
        return self.downsample(hidden_states, order, coarse_order), coarse_order

    def shift_of(self, number: int) -> int:
        """Tokens that the windows of a block are shifted by: half a window in every other block."""
        return self.window // 2 if number > 0 and number % 2 == 1 and self.window < self.side else 0

    def wrapped_mask(self, number: int, like: Tensor) -> Tensor | None:
        """What keeps apart the two sides of the image in the windows of a block, or None if they are not shifted."""
        shift = self.shift_of(number)
        return wrapped_window_mask(self.side, self.window, shift, like.dtype, like.device) if shift > 0 else None


class HtsatEncoder(nn.Module):
    """Batch norm, patch embedding, stages and final norm."""

    def __init__(self, config: HtsatConfig):
        super().__init__()
        self.config = config
        self.batch_norm = nn.BatchNorm2d(config.num_mel_bins)
        self.patch_embed = HtsatPatchEmbed(config)
        self.layers = nn.ModuleList(HtsatStage(config, stage) for stage in range(len(config.depths)))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        input_features: Tensor,
        inputs: list[tuple[Tensor, Tensor]] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Returns the tokens of the last stage (B, N, D), frequency-major; see `HtsatStage.forward` for the lists."""
        order = window_order(self.layers[0].side, self.config.window_size, 0, input_features.device)
        hidden_states = self.patch_embed(self.stretched(input_features), order)
        # under autocast the residual stream stays in the weights' precision
        hidden_states = hidden_states.to(self.norm.weight.dtype)
        for stage in self.layers:
            hidden_states, order = stage(hidden_states, order, inputs, weights)
        return self.unfolded(self.norm(hidden_states), order)

    def stretched(self, input_features: Tensor) -> Tensor:
        """Normalised by batch norm, augmented in training, stretched over time: (B, T, F) -> (B, max frames, F)."""
        config = self.config
        features = self.batch_norm(input_features.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2)
        batch, num_frames, num_mel_bins = features.shape
        if self.training and config.spec_augment_time_stripes + config.spec_augment_mel_stripes > 0:
            features = spec_augment(
                features,
                torch.full((batch,), num_frames),  # padding included, as in the authors' code
                time_stripes=config.spec_augment_time_stripes,
                time_width=config.spec_augment_time_width,
                time_share=1.0,
                mel_stripes=config.spec_augment_mel_stripes,
                mel_width=config.spec_augment_mel_width,
            )
        if num_frames == config.max_frames:
            return features
        size = (config.max_frames, num_mel_bins)
        return F.interpolate(features.unsqueeze(1), size, mode="bicubic", align_corners=True).squeeze(1)

    def unfolded(self, tokens: Tensor, order: Tensor) -> Tensor:
        """Tokens (B, N, C) in the order `order` (N,) to frequency-major order, time running through all segments."""
        return reorder(tokens, self.unfolding_index(order))

    def unfolding_index(self, order: Tensor) -> Tensor:
        """Place in the order `order` (N,) of every token of the frequency-major order: (N,)."""
        side = round(len(order) ** 0.5)
        image = torch.arange(len(order), device=order.device).view(self.config.num_segments, -1, side)
        return inverse_of(order)[image.transpose(0, 1).flatten()]


class HtsatModel(StrictTowersMixin, PreTrainedModel):
    """Encoder of clips of up to 10.23 s, which are all stretched to the same length: 32 output frames per clip.

    HTS-AT knows no padding: silence at the end of a clip takes part like any sound, as in the authors' code. Clips
    that should not depend on their batch are filled up to one length by the feature extractor. The mask of the input
    only decides `token_mask`, `frame_mask` and the mean of `pooler_output`; `last_hidden_state` and `frame_features`
    are not zeroed at padding.

    Weights load from this class, from `ClapAudioModel` and from `ClapModel` without feature fusion.

    Example:
        >>> config = HtsatConfig(patch_embeds_hidden_size=8, depths=[1, 1, 1, 1], num_attention_heads=[2, 2, 4, 4],
        ...                      hidden_size=64)
        >>> output = HtsatModel(config).eval()(torch.randn(2, 1001, 64))
        >>> output.last_hidden_state.shape, output.frame_features.shape
        (torch.Size([2, 64, 64]), torch.Size([2, 32, 64]))
    """

    config: HtsatConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HtsatBlock"]
    # the rest of a ClapModel or MgaClapModel checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^(text_|audio_projection|logit_scale|codebook)"]
    _supports_sdpa = True

    def __init__(self, config: HtsatConfig):
        super().__init__(config)
        self.audio_encoder = HtsatEncoder(config)
        self.post_init()
        self._freeze_unused()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.trunc_normal_(module.weight, std=std)
        elif isinstance(module, WindowSelfAttention):
            init.trunc_normal_(module.relative_position_bias_table, std=std)
            init.copy_(module.relative_position_index, module.offset_index())

    def get_input_embeddings(self) -> nn.Module:
        """Returns the patch embedding, whose projection is not called as a module: transformers hooks what this is."""
        return self.audio_encoder.patch_embed

    def train(self, mode: bool = True) -> "HtsatModel":
        """Switches the mode; what the locality-aware blocks do not use stays without gradient.

        A batch norm whose weights are frozen keeps its statistics: a frozen encoder must not change. In training they
        are those of this process's batch, as in the authors' code.
        """
        super().train(mode)
        self._freeze_unused()  # from_pretrained makes every parameter trainable, and ends with eval()
        if not self.audio_encoder.batch_norm.weight.requires_grad:
            self.audio_encoder.batch_norm.eval()
        return self

    def _freeze_unused(self) -> None:
        for stage in self.audio_encoder.layers:
            for block in stage.blocks:
                for parameter in block.unused_parameters():
                    parameter.requires_grad_(False)

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
            input_features: (B, T, F) log-mel, not normalised, T at most `config.max_frames`.
            input_features_mask: (B, T) True at real frames, or None when all are. It changes no feature.
            masked_positions: must be None, HTS-AT cannot hide tokens.
            output_hidden_states: also return the input of every block, and `last_hidden_state`.
            output_attentions: also return attention weights, locality-aware blocks left out; needs
                `attn_implementation="eager"`.
            **kwargs: ignored.

        Returns:
            `last_hidden_state` (B, 2 * 32, D) frequency-major: token f * 32 + t is frequency row f of output frame t.
            `hidden_states` in the same layout: (B, rows * columns, C) with 16 rows, 256 columns and 96 channels in
            the first stage; each stage halves rows and columns and doubles the channels. `attentions` are per block
            (B * windows, H, 64, 64), windows row-major on the folded image, shifted in every other block.

        Raises:
            ValueError: if frames, mel bins or mask do not fit, or positions are to be masked.
        """
        config = self.config
        self._check(input_features, input_features_mask)
        if masked_positions is not None:
            raise ValueError(
                f"`masked_positions` is {tuple(masked_positions.shape)}, but HTS-AT cannot hide tokens. Leave it out, "
                "or choose another encoder."
            )
        wants_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        wants_weights = config.output_attentions if output_attentions is None else output_attentions
        if wants_weights and config._attn_implementation != "eager":
            logger.warning_once("`output_attentions` gives None: load the model with `attn_implementation='eager'`.")
        states = [] if wants_states else None
        weights = [] if wants_weights else None
        last_hidden_state = self.audio_encoder(input_features.to(self.dtype), states, weights)
        frame_features = self.time_steps(last_hidden_state, input_features.shape[1]).mean(2)  # (B, T', D)
        frame_mask = self._frame_mask(input_features, input_features_mask)
        output = AudioEncoderOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=masked_mean(frame_features, frame_mask),
            token_mask=frame_mask.repeat(1, config.num_frequency_rows),
            frame_features=frame_features,
            frame_mask=frame_mask,
        )
        if states is not None:
            states = [self.audio_encoder.unfolded(tokens, order) for tokens, order in states]
            output.hidden_states = (*states, last_hidden_state)
        weights = [weight.flatten(0, 1) for weight in weights or () if weight is not None]
        output.attentions = tuple(weights) or None
        return output

    def encode(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
    ) -> tuple[Tensor, PackedLayout]:
        """Encodes a batch of log-mels and packs the real tokens.

        Args:
            input_features: see `forward`; the others too.
            input_features_mask: see `forward`.
            masked_positions: see `forward`.

        Returns:
            (N, D) tokens in packed order, and their layout.
        """
        output = self(input_features, input_features_mask, masked_positions, return_dict=True)
        layout = PackedLayout.from_mask(output.token_mask)
        return pack(output.last_hidden_state, layout), layout

    def time_steps(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Tokens of each output frame: (B, N, ...) -> (B, T', rows, ...); T' is fixed, whatever `num_frames` is."""
        return tokens.unflatten(1, (-1, self.config.num_frames)).transpose(1, 2)

    @torch.no_grad()
    def last_block_similarities(self, input_features: Tensor) -> tuple[Tensor, Tensor]:
        """How alike the output frames are for the last block, by queries and keys and by values (MGA-CLAP Fig. 3).

        The block may be locality-aware or not: both maps are computed from its input and its weights. Means over
        heads and frequency rows; to be called in eval mode.

        Args:
            input_features: see `forward`.

        Returns:
            The block's attention map, and the softmax of its values' scaled dot products: (B, T', T') each, every row
            a distribution over frames.
        """
        self._check(input_features, None)
        inputs, stage = [], self.audio_encoder.layers[-1]
        self.audio_encoder(input_features.to(self.dtype), inputs)
        tokens, order = inputs[-1]
        block, number = stage.blocks[-1], len(stage.blocks) - 1
        windows = block.layernorm_before(tokens).unflatten(1, (-1, self.config.window_size**2))  # (B, W, L, C)
        maps = block.attention.self.similarities(windows, stage.wrapped_mask(number, tokens))
        return tuple(self._between_frames(inside, order) for inside in maps)

    def _between_frames(self, inside: Tensor, order: Tensor) -> Tensor:
        """Maps inside windows (B, W, L, L) to maps between output frames (B, T', T') with rows that sum to 1."""
        between = torch.diag_embed(inside.permute(0, 2, 3, 1), dim1=1, dim2=3)  # (B, W, L, W, L), 0 across windows
        between = between.flatten(3, 4).flatten(1, 2)  # (B, N, N)
        index, num_frames = self.audio_encoder.unfolding_index(order), self.config.num_frames
        between = between[:, index][:, :, index].unflatten(2, (-1, num_frames)).unflatten(1, (-1, num_frames))
        between = between.mean((1, 3))
        return between / between.sum(-1, keepdim=True)

    def _check(self, input_features: Tensor, input_features_mask: Tensor | None) -> None:
        config = self.config
        if input_features.ndim != 3 or input_features.shape[-1] != config.num_mel_bins or input_features.shape[1] == 0:
            raise ValueError(
                f"`input_features` must be (batch, frames, {config.num_mel_bins} mel bins) with a frame, got "
                f"{tuple(input_features.shape)}. Use the model's own feature extractor."
            )
        if input_features.shape[1] > config.max_frames:
            raise ValueError(
                f"`input_features` must have at most {config.max_frames} frames, got {input_features.shape[1]}. Cut "
                f"clips to {config.clip_seconds} s, or encode longer ones in pieces."
            )
        if input_features_mask is not None and input_features_mask.shape != input_features.shape[:2]:
            raise ValueError(
                f"`input_features_mask` must be {tuple(input_features.shape[:2])} as the frames of `input_features`, "
                f"got {tuple(input_features_mask.shape)}. Pass the mask that the feature extractor returned."
            )

    def _frame_mask(self, input_features: Tensor, input_features_mask: Tensor | None) -> Tensor:
        """(B, T') True where an output frame covers a real input frame.

        Output frame t covers the input frames nearest to the stretched frames from which it is computed.
        """
        (batch, num_frames, _), config = input_features.shape, self.config
        if input_features_mask is None:
            return torch.ones(batch, config.num_frames, dtype=torch.bool, device=input_features.device)
        last = config.max_frames - 1
        stretched = torch.arange(config.max_frames, device=input_features.device)
        # in integers: halves are rounded alike everywhere
        nearest = (2 * stretched * (num_frames - 1) + last) // (2 * last)
        return input_features_mask.to(torch.bool)[:, nearest].unflatten(1, (config.num_frames, -1)).any(-1)


__all__ = ["HtsatModel"]

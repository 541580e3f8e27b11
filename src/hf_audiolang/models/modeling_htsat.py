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
    merging_index,
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

    def shift_of(self, block: int) -> int:
        """Tokens that the windows of a block are shifted by: half a window in every other block."""
        return self.window // 2 if block % 2 == 1 and self.window < self.side else 0


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
        self, input_features: Tensor, inputs: list[Tensor] | None = None, weights: list[Tensor] | None = None
    ) -> Tensor:
        """Returns the tokens of the last stage (B, N, D), row-major on the unfolded map.

        Args:
            input_features: (B, T, F) log-mel, not normalised.
            inputs: a list that receives the input of every block, laid out in the same way.
            weights: a list that receives the attention weights (B, W, H, L, L) of every block.
        """
        order = window_order(self.layers[0].side, self.config.window_size, 0, input_features.device)
        hidden_states = self.patch_embed(self.stretched(input_features), order)
        # under autocast the residual stream stays in the weights' precision
        hidden_states = hidden_states.to(self.norm.weight.dtype)
        for stage in self.layers:
            hidden_states, order = self.run_blocks(stage, hidden_states, order, inputs, weights)
            if stage.downsample is not None:
                coarse_order = window_order(stage.side // 2, stage.window, 0, order.device)
                index = merging_index(coarse_order, order.argsort(), stage.side)
                hidden_states, order = stage.downsample(hidden_states, index), coarse_order
        return self.unfolded(self.norm(hidden_states), order)

    def run_blocks(
        self,
        stage: HtsatStage,
        hidden_states: Tensor,
        order: Tensor,
        inputs: list[Tensor] | None,
        weights: list[Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """The blocks of a stage on tokens (B, N, C) in the window order `order` (N,): tokens, and their new order."""
        shift = 0
        for number, block in enumerate(stage.blocks):
            wanted = stage.shift_of(number)
            if wanted != shift:
                shift, previous = wanted, order
                order = window_order(stage.side, stage.window, shift, order.device)
                hidden_states = reorder(hidden_states, previous.argsort()[order])
            mask = (
                wrapped_window_mask(stage.side, stage.window, shift, hidden_states.dtype, order.device)
                if shift
                else None
            )
            if inputs is not None:
                inputs.append(self.unfolded(hidden_states, order))
            hidden_states, block_weights = block(hidden_states, mask)
            if weights is not None:
                weights.append(block_weights)
        return hidden_states, order

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
        side = round(len(order) ** 0.5)
        place = torch.arange(len(order), device=order.device).view(self.config.num_segments, -1, side)
        return reorder(tokens, order.argsort()[place.transpose(0, 1).flatten()])


class HtsatModel(StrictTowersMixin, PreTrainedModel):
    """Encoder of clips of up to 10.24 s, which are all stretched to the same length: 32 output frames per clip.

    HTS-AT knows no padding: silence at the end of a clip takes part like any sound, as in the authors' code. Clips
    that should not depend on their batch are filled up to one length by the feature extractor. The mask of the input
    only decides `token_mask`, `frame_mask` and the mean of `pooler_output`; `last_hidden_state` and `frame_features`
    are not zeroed at padding.

    Weights load from this class, from `ClapAudioModel` and from `ClapModel` without feature fusion.

    Example:
        >>> config = HtsatConfig(patch_embeds_hidden_size=8, depths=[2, 2], num_attention_heads=[2, 2], hidden_size=16)
        >>> output = HtsatModel(config).eval()(torch.randn(2, 1001, 64))
        >>> output.last_hidden_state.shape, output.frame_features.shape
        (torch.Size([2, 1024, 16]), torch.Size([2, 128, 16]))
    """

    config: HtsatConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HtsatBlock"]
    # the rest of a ClapModel or MgaClapModel checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^(text_|audio_projection|logit_scale|codebook|temperature)"]
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
        """Returns the patch projection."""
        return self.audio_encoder.patch_embed.proj

    def train(self, mode: bool = True) -> "HtsatModel":
        """Switches the mode; what the locality-aware blocks do not use stays without gradient."""
        super().train(mode)
        self._freeze_unused()  # from_pretrained makes every parameter trainable, and ends with eval()
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
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> AudioEncoderOutput:
        """Encodes a batch of log-mels.

        Args:
            input_features: (B, T, F) log-mel, not normalised, T at most `config.max_frames`.
            input_features_mask: (B, T) True at real frames, or None when all are. It changes no feature.
            output_hidden_states: also return the input of every block, and `last_hidden_state`.
            output_attentions: also return attention weights; needs `attn_implementation="eager"`.
            **kwargs: ignored.

        Returns:
            `last_hidden_state` (B, 2 * 32, D) frequency-major: token f * 32 + t is frequency row f of output frame t.
            `hidden_states` in the same layout: (B, rows * columns, C) with 16 rows, 256 columns and 96 channels in
            the first stage; each stage halves rows and columns and doubles the channels. `attentions` are per block
            (B * windows, H, 64, 64), windows row-major on the folded image, shifted in every other block.

        Raises:
            ValueError: if frames, mel bins or mask do not fit.
        """
        config = self.config
        self._check(input_features, input_features_mask)
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
            output.hidden_states = (*states, last_hidden_state)
        if weights is not None and all(weight is not None for weight in weights):
            output.attentions = tuple(weight.flatten(0, 1) for weight in weights)
        return output

    def encode(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
    ) -> tuple[Tensor, PackedLayout]:
        """Encodes a batch of log-mels and packs the real tokens.

        Args:
            input_features: see `forward`; the mask too.
            input_features_mask: see `forward`.
            masked_positions: must be None, HTS-AT cannot hide tokens.

        Returns:
            (N, D) tokens in packed order, and their layout.

        Raises:
            ValueError: if `forward` refuses the input, or positions are to be masked.
        """
        if masked_positions is not None:
            raise ValueError(
                f"`masked_positions` is {tuple(masked_positions.shape)}, but HTS-AT cannot hide tokens. Leave it out, "
                "or choose another encoder."
            )
        output = self(input_features, input_features_mask, return_dict=True)
        layout = PackedLayout.from_mask(output.token_mask)
        return pack(output.last_hidden_state, layout), layout

    def time_steps(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Tokens of each output frame: (B, N, ...) -> (B, T', rows, ...); T' is fixed, whatever `num_frames` is."""
        return tokens.unflatten(1, (-1, self.config.num_frames)).transpose(1, 2)

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
        nearest = (2 * stretched * (num_frames - 1) + last) // (
            2 * last
        )  # in integers: halves round the same anywhere
        return input_features_mask.to(torch.bool)[:, nearest].unflatten(1, (config.num_frames, -1)).any(-1)


__all__ = ["HtsatModel"]

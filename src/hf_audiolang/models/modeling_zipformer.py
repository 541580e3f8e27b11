# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Zipformer: stacks of layers at different frame rates, each upsampled again and joined (icefall's recipe).

input_features (B, T, 80) at 100 Hz
    -> convolutions, ConvNeXt block, linear, norm: (B, (T - 7) // 2, D0) at 50 Hz
    -> stacks at 50, 25, 12.5, 6.25, 12.5, 25 Hz: downsample, layers, upsample, bypass
    -> of each channel the last stack that has it: (B, T1, D)
    -> downsample: last_hidden_state = frame_features (B, T', D) at 25 Hz
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import can_return_tuple

from .configuration_zipformer import ZipformerConfig
from .layers_packing import PackedLayout, pack
from .layers_pooling import masked_mean
from .layers_zipformer import (
    BiasNorm,
    Bypass,
    ChunkCausalConv,
    Downsample,
    ZipformerLayer,
    balancer,
    fit_channels,
    layer_skip_rates,
    relative_positions,
    scaled,
    shared_over_time,
    swoosh_l,
    swoosh_r,
    whiten,
)
from .layers_zipformer_regularizers import StepSchedule, TrainingClock, Whiten, drop_clips
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput

MIN_FRAMES = 9  # input frames that give one frame of 20 ms
CONV_NEXT_SKIP_RATE = StepSchedule(((0.0, 0.2), (20000.0, 0.015)))


class ConvNeXt(nn.Module):
    """x + pointwise(SwooshL(pointwise(depthwise 7 x 7))) over time and mel bins."""

    def __init__(self, config: ZipformerConfig, clock: TrainingClock):
        super().__init__()
        channels, self.clock = config.embed_channels[-1], clock
        self.depthwise_conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise_conv1 = nn.Conv2d(channels, 3 * channels, 1)
        self.pointwise_conv2 = scaled(nn.Conv2d(3 * channels, channels, 1), 0.01)
        self.hidden_balancer = balancer(config, clock, positive=(0.3, 1.0), absolute=(0.75, 5.0))
        self.out_balancer = balancer(config, clock, positive=(0.4, 0.6), absolute=(1.0, 6.0))
        self.out_whiten = whiten(config, clock, limit=5.0, ratio=1.0)

    def forward(self, image: Tensor) -> Tensor:
        """Returns (B, C, T, F)."""
        inner = self.pointwise_conv1(self.depthwise_conv(image))
        update = self.pointwise_conv2(swoosh_l(_last(self.hidden_balancer, inner)))
        if self.training:
            update = drop_clips(update, self.clock.value(CONV_NEXT_SKIP_RATE))
        image = _last(self.out_balancer, image + update)
        return _last(self.out_whiten, image)


class ZipformerEmbeddings(nn.Module):
    """Input frames to frames of 20 ms: three convolutions, a ConvNeXt block, a linear layer over all bins, a norm."""

    def __init__(self, config: ZipformerConfig, clock: TrainingClock):
        super().__init__()
        first, second, third = config.embed_channels
        self.clock, self.exact_padding = clock, config.exact_padding
        self.conv1 = nn.Conv2d(1, first, 3, padding=(0, 1))
        self.conv2 = nn.Conv2d(first, second, 3, stride=2)
        self.conv3 = nn.Conv2d(second, third, 3, stride=(1, 2))
        limits = (1.0, 4.0, 4.0)
        self.balancers = nn.ModuleList(balancer(config, clock, absolute=(0.2, limit)) for limit in limits)
        self.convnext = ConvNeXt(config, clock)
        num_bins = ((config.num_mel_bins - 1) // 2 - 1) // 2
        self.out = nn.Linear(third * num_bins, config.encoder_dim[0])
        self.out_whiten = whiten(config, clock, limit=4.0, ratio=2.0, grad_scale=0.02)
        self.out_norm = BiasNorm(config.encoder_dim[0])
        self.dropout = StepSchedule(((0.0, config.dropout_start), (20000.0, config.dropout)))

    def forward(self, input_features: Tensor, frame_mask: Tensor | None) -> Tensor:
        """Returns (B, T1, D0) with T1 = (T - 7) // 2.

        Args:
            input_features: (B, T, F).
            frame_mask: (B, T1) bool, True at real frames; None when all are.
        """
        image = input_features.unsqueeze(1)  # (B, 1, T, F)
        image = image.contiguous(memory_format=torch.channels_last)  # 1.3 to 1.8 times as fast on a CPU
        for convolution, balance in zip((self.conv1, self.conv2, self.conv3), self.balancers, strict=True):
            image = swoosh_r(_last(balance, convolution(image)))
        if frame_mask is not None and self.exact_padding:
            image = image * frame_mask[:, None, :, None]  # the next convolution looks three frames ahead
        image = self.convnext(image)
        frames = self.out(image.transpose(1, 2).flatten(2))  # channel after channel, all bins of each
        frames = self.out_norm(self.out_whiten(frames))
        return shared_over_time(frames, self.clock.value(self.dropout)) if self.training else frames


class ZipformerStack(nn.Module):
    """Layers at one frame rate; below 50 Hz the input is downsampled, the output upsampled and combined with it."""

    def __init__(self, config: ZipformerConfig, stack: int, clock: TrainingClock):
        super().__init__()
        self.factor, self.pos_dim = config.downsampling_factor[stack], config.pos_dim
        self.position_dropout = 0.15  # icefall
        rates = layer_skip_rates(config, stack)
        self.layers = nn.ModuleList(ZipformerLayer(config, stack, clock, rate) for rate in rates)
        if self.factor > 1:
            self.downsample = Downsample(self.factor)
            self.out_combiner = Bypass(config.encoder_dim[stack], clock)

    def forward(
        self,
        hidden_states: Tensor,
        frame_mask: Tensor | None,
        chunk_mask: Tensor | None,
        chunk_size: int,
        num_frames: Tensor | None,
        channel_mask: Tensor | None,
    ) -> Tensor:
        """Returns (B, T1, D).

        Args:
            hidden_states: (B, T1, D) at 50 Hz.
            frame_mask: (B, T1) bool, True at real frames; None when all are.
            chunk_mask: (T1, T1) bool, True at keys that a query may see; None: all.
            chunk_size: frames of 20 ms per chunk; -1: one chunk.
            num_frames: (B,) real frames of 20 ms, by which clips are padded exactly; None for icefall's padding.
            channel_mask: (B, 1, D) of 0 and 1, channels that a clip has in training; None: all.
        """
        states, factor = hidden_states, self.factor
        if factor > 1:
            states = self.downsample(states, num_frames)
            num_frames = None if num_frames is None else -(-num_frames // factor)
            frame_mask = None if frame_mask is None else frame_mask[:, ::factor]
            chunk_mask = None if chunk_mask is None else chunk_mask[::factor, ::factor]
            chunk_size = chunk_size if chunk_size < 0 else chunk_size // factor
        keep = None if frame_mask is None else frame_mask[:, None, None, :]
        if chunk_mask is not None:
            keep = chunk_mask if keep is None else keep & chunk_mask
        positions = relative_positions(states.shape[1], self.pos_dim, states.device)
        positions = F.dropout(positions, self.position_dropout, self.training)
        states = states if channel_mask is None else states * channel_mask
        for layer in self.layers:
            states = layer(states, positions, keep, frame_mask, chunk_size, num_frames)
            states = states if channel_mask is None else states * channel_mask
        if factor == 1:
            return states
        states = states.repeat_interleave(factor, dim=1)[:, : hidden_states.shape[1]]
        return self.out_combiner(hidden_states, states)


class ZipformerModel(StrictTowersMixin, PreTrainedModel):
    """Zipformer encoder; tokens are frames, 25 a second.

    Frame k is centred `config.frame_offset_seconds` plus (k + 0.5) / `config.frame_rate_hz` seconds into the clip. A
    clip under nine input frames is encoded as if silence followed. `set_progress` tells the encoder how far training
    is; without it all that follows the progress is at its end.

    Example:
        >>> config = ZipformerConfig(
        ...     num_encoder_layers=[1], encoder_dim=[16, 24], encoder_unmasked_dim=[16], feedforward_dim=[32],
        ...     num_heads=[2], cnn_module_kernel=[5], downsampling_factor=[1, 2], embed_channels=[2, 4, 8])
        >>> output = ZipformerModel(config).eval()(torch.randn(3, 100, 80))
        >>> output.last_hidden_state.shape, output.pooler_output.shape
        (torch.Size([3, 23, 24]), torch.Size([3, 24]))
    """

    config: ZipformerConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ZipformerLayer", "ConvNeXt"]
    # the rest of a system; what whitening saw, which matters to a training run alone
    _keys_to_ignore_on_load_unexpected = [r"^(text_|audio_p|caption_decoder|encoder_projection)", r"\.is_white$"]
    _keys_to_ignore_on_load_missing = [r"\.is_white$"]
    _required_weights = r"(?!.*\.is_white$)"

    def __init__(self, config: ZipformerConfig):
        super().__init__(config)
        self.clock = TrainingClock()
        self.encoder_embed = ZipformerEmbeddings(config, self.clock)
        self.encoders = nn.ModuleList(ZipformerStack(config, stack, self.clock) for stack in range(config.num_stacks))
        self.downsample_output = Downsample(config.output_downsampling_factor)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            _init_affine(module)
        elif isinstance(module, BiasNorm):
            init.constant_(module.log_scale, 1.0)
            init.normal_(module.bias, std=1e-4)
        elif isinstance(module, Bypass):
            init.constant_(module.bypass_scale, 0.5)
        elif isinstance(module, Downsample):
            init.zeros_(module.bias)
        elif isinstance(module, ChunkCausalConv):
            init.zeros_(module.chunkwise_conv_scale)
        elif isinstance(module, Whiten):
            init.zeros_(module.is_white)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the convolutions that read the log-mel."""
        return self.encoder_embed

    def set_progress(self, step: int, num_steps: int) -> None:
        """Takes where training is: `step` optimizer steps are done; `num_steps` does not matter to the schedules."""
        self.clock.batch_count = step * self.config.reference_batches_per_step

    @can_return_tuple
    def forward(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        chunk_size: int | None = None,
        left_context_frames: int = -1,
        **kwargs,
    ) -> AudioEncoderOutput:
        """Encodes a batch of log-mels.

        Args:
            input_features: (B, T, F) log-mel of the model's own feature extractor.
            input_features_mask: (B, T) True at real frames, or None when all are.
            masked_positions: must be None, this encoder cannot hide tokens.
            output_hidden_states: also return the input and the output of every stack, at the output's frame rate and
                width: (B, T', D), channels that a stack does not have are 0.
            chunk_size: of a causal model, frames of 20 ms that are seen at once; None: drawn from the config in
                training, otherwise -1, the whole clip.
            left_context_frames: frames of 20 ms before its chunk that a frame sees; -1: all.
            **kwargs: ignored.

        Returns:
            Frames as tokens and as `frame_features`, zeros at padding; `pooler_output` is their mean.

        Raises:
            ValueError: for another shape, masked positions, or chunks that the model cannot work in.
        """
        if input_features_mask is not None:
            input_features_mask = input_features_mask.to(torch.bool)
        self._check(input_features, input_features_mask, masked_positions)
        chunk_size, left_context_frames = self._chunks(chunk_size, left_context_frames)
        features, lengths = self._long_enough(input_features.to(self.dtype), input_features_mask)
        frame_mask, num_frames = None, None
        if lengths is not None:
            lengths = ((lengths - 7) // 2).clamp(min=1)  # frames of 20 ms
            frame_mask = torch.arange((features.shape[1] - 7) // 2, device=lengths.device) < lengths.unsqueeze(1)
            num_frames = lengths if self.config.exact_padding else None
        states = self.encoder_embed(features, frame_mask)
        outputs = self._run_stacks(states, frame_mask, num_frames, chunk_size, left_context_frames)
        return self._output(states, outputs, num_frames, input_features_mask, lengths, output_hidden_states)

    def encode(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
    ) -> tuple[Tensor, PackedLayout]:
        """Encodes a batch of log-mels and packs the real frames.

        Args:
            input_features: see `forward`; the others too.
            input_features_mask: see `forward`.
            masked_positions: see `forward`.

        Returns:
            (N, D) frames in packed order, and their layout.
        """
        output = self(input_features, input_features_mask, masked_positions, return_dict=True)
        layout = PackedLayout.from_mask(output.token_mask)
        return pack(output.last_hidden_state, layout), layout

    def time_steps(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Tokens of each output frame: (B, T', ...) -> (B, T', 1, ...), a frame is a token; `num_frames` is unused."""
        return tokens.unsqueeze(2)

    def _run_stacks(
        self,
        states: Tensor,
        frame_mask: Tensor | None,
        num_frames: Tensor | None,
        chunk_size: int,
        left_context_frames: int,
    ) -> list[Tensor]:
        """The output of every stack, (B, T1, its width)."""
        chunk_mask = _chunk_mask(states.shape[1], chunk_size, left_context_frames, states.device)
        outputs = []
        for width, stack, channel_mask in zip(
            self.config.encoder_dim, self.encoders, self._channel_masks(states), strict=True
        ):
            states = fit_channels(states, width)
            states = stack(states, frame_mask, chunk_mask, chunk_size, num_frames, channel_mask)
            outputs.append(states)
        return outputs

    def _output(
        self,
        embedded: Tensor,
        outputs: list[Tensor],
        num_frames: Tensor | None,
        input_features_mask: Tensor | None,
        lengths: Tensor | None,
        output_hidden_states: bool | None,
    ) -> AudioEncoderOutput:
        config, factor = self.config, self.config.output_downsampling_factor
        frames = self.downsample_output(_latest_channels(outputs), num_frames)  # (B, T', D)
        if lengths is None:
            frame_mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        else:
            at = torch.arange(frames.shape[1], device=frames.device)
            frame_mask = at < -(-lengths // factor).unsqueeze(1)
            frame_mask = frame_mask & input_features_mask.any(1, keepdim=True)  # no frame of nothing
        frames = frames * frame_mask.unsqueeze(-1)
        hidden_states = None
        if config.output_hidden_states if output_hidden_states is None else output_hidden_states:
            every = [fit_channels(states, config.hidden_size) for states in (embedded, *outputs)]
            hidden_states = tuple(self.downsample_output(states, num_frames) for states in every)
        return AudioEncoderOutput(
            last_hidden_state=frames,
            pooler_output=masked_mean(frames, frame_mask),
            hidden_states=hidden_states,
            token_mask=frame_mask,
            frame_features=frames,
            frame_mask=frame_mask,
        )

    def _long_enough(self, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """At least nine input frames, silence at padding, and the real frames of each clip (B,), None without mask."""
        config, lengths = self.config, None
        if mask is not None:
            lengths = mask.sum(1)
            if config.exact_padding:
                features = features.masked_fill(~mask.unsqueeze(-1), config.padding_value)
        missing = MIN_FRAMES - features.shape[1]
        if missing > 0:
            features = F.pad(features, (0, 0, 0, missing), value=config.padding_value)
        return features, lengths

    def _chunks(self, chunk_size: int | None, left_context_frames: int) -> tuple[int, int]:
        """Chunk size and context of this call, drawn where the config says so."""
        config = self.config
        if not config.causal:
            if chunk_size not in (None, -1):
                raise ValueError(
                    f"`chunk_size` is {chunk_size}, but this encoder sees the whole clip (`causal` is False). Leave "
                    "it out, or load a causal model."
                )
            return -1, -1
        if chunk_size is None and self.training:
            chunk_size, left_context_frames = _choice(config.chunk_size), _choice(config.left_context_frames)
        chunk_size = -1 if chunk_size is None else chunk_size
        config.check_chunk(chunk_size, left_context_frames)
        return chunk_size, left_context_frames

    def _channel_masks(self, states: Tensor) -> list[Tensor | None]:
        """What each stack's channels are multiplied with in training: (B, 1, D) of 0 and 1.

        One draw per clip for all stacks: the upper half of the channels that may be dropped is dropped with the lower
        half, or alone.
        """
        config = self.config
        if not self.training or config.feature_mask_rate == 0:
            return [None] * config.num_stacks
        kept = torch.rand(2, states.shape[0], 1, 1, device=states.device) > config.feature_mask_rate
        lower, upper = kept[0].to(states.dtype), kept.all(0).to(states.dtype)  # (B, 1, 1)
        masks = []
        for width, unmasked in zip(config.encoder_dim, config.encoder_unmasked_dim, strict=True):
            middle = unmasked + (width - unmasked) // 2
            parts = (torch.ones_like(lower), unmasked), (lower, middle - unmasked), (upper, width - middle)
            masks.append(torch.cat([mask.expand(-1, -1, size) for mask, size in parts], dim=-1))
        return masks

    def _check(
        self, input_features: Tensor, input_features_mask: Tensor | None, masked_positions: Tensor | None
    ) -> None:
        config = self.config
        if input_features.ndim != 3 or input_features.shape[-1] != config.num_mel_bins or input_features.shape[1] == 0:
            raise ValueError(
                f"`input_features` must be (batch, frames, {config.num_mel_bins} mel bins) with a frame, got "
                f"{tuple(input_features.shape)}. Use the model's own feature extractor."
            )
        if input_features_mask is not None and input_features_mask.shape != input_features.shape[:2]:
            raise ValueError(
                f"`input_features_mask` must be {tuple(input_features.shape[:2])} as the frames of `input_features`, "
                f"got {tuple(input_features_mask.shape)}. Pass the mask that the feature extractor returned."
            )
        # on an accelerator the look would wait for it
        looks = input_features_mask is not None and input_features_mask.device.type == "cpu"
        if looks and not torch.compiler.is_compiling():
            begins_late = (input_features_mask[:, 1:] & ~input_features_mask[:, :-1]).any(1)
            if begins_late.any():
                raise ValueError(
                    f"`input_features_mask` has padding before real frames in {int(begins_late.sum())} clips. Pad on "
                    "the right, as the feature extractor does."
                )
        if masked_positions is not None:
            raise ValueError(
                "`masked_positions` must be None: this encoder has no mask token, got "
                f"{tuple(masked_positions.shape)}. Choose 'm2d_clap_audio_model' or 'slap_audio_model' to hide tokens."
            )


def _latest_channels(outputs: list[Tensor]) -> Tensor:
    """Each channel of the last stack that has it, the last stack's own channels first: (B, T1, D)."""
    parts, width = [outputs[-1]], outputs[-1].shape[-1]
    for states in reversed(outputs[:-1]):
        if states.shape[-1] > width:
            parts.append(states[..., width:])
            width = states.shape[-1]
    return torch.cat(parts, dim=-1)


def _chunk_mask(num_frames: int, chunk_size: int, left_context_frames: int, device: torch.device) -> Tensor | None:
    """Bool (T1, T1), True at the keys of a query's own chunk and of the chunks before it within its context."""
    if chunk_size < 0:
        return None
    chunk = torch.arange(num_frames, device=device) // chunk_size
    behind = chunk.unsqueeze(1) - chunk  # chunks that the key is behind the query
    if left_context_frames < 0:
        return behind >= 0
    return (behind >= 0) & (behind <= max(1, left_context_frames // chunk_size))


def _last(module: nn.Module, image: Tensor) -> Tensor:
    """A regularizer of channels that are the second axis: (B, C, T, F)."""
    return image if isinstance(module, nn.Identity) else module(image.movedim(1, -1)).movedim(-1, 1)


def _choice(values: list[int] | tuple[int, ...]) -> int:
    return values[int(torch.randint(len(values), ()).item())]


def _init_affine(module: nn.Linear | nn.Conv1d | nn.Conv2d) -> None:
    """Torch's own initialisation, or icefall's scaled one: weights times s, biases within 0.1 s."""
    fan_in = module.weight[0].numel()
    scale = getattr(module, "init_scale", None)
    bound = (1.0 if scale is None else scale) / math.sqrt(fan_in)
    init.uniform_(module.weight, -bound, bound)
    if module.bias is not None:
        limit = bound if scale is None else 0.1 * scale
        limit = getattr(module, "init_bias", limit)
        init.uniform_(module.bias, -limit, limit)


__all__ = ["ZipformerModel"]

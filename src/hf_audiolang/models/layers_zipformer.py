# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Layers of the Zipformer: its norm, activations, bypass, resampling, positions, and the layer made of them.

    w = attention weights of x, used three times
    x' = x + ff1, + nonlin attention(w), + attention 1(w), + convolution 1, + ff2
    x' = bypass_mid(x, x')
    x' = x' + attention 2(w), + convolution 2, + ff3
    bypass(x, norm(x'))

Equations and numbers are those of icefall's recipe `zipformer`. All tensors are (B, T, D).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .layers_zipformer_regularizers import (
    Balancer,
    StepSchedule,
    TrainingClock,
    Value,
    Whiten,
    drop_clips,
    happens,
    keep_clips,
    limit_range,
    penalize_scores,
)

MASKED_SCORE = -1000.0  # of forbidden keys; a row without keys then attends evenly
SKIP_RATE = StepSchedule(((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0)))  # of attention and convolution, per clip
FEED_FORWARD_SKIP_RATE = StepSchedule(((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0)))  # of the 2nd and 3rd
EVEN_ATTENTION_RATE = StepSchedule(((0.0, 0.25), (4000.0, 0.025)))  # batches with even weights in nonlin attention
POSITION_SKIP_RATE = StepSchedule(((0.0, 0.5), (4000.0, 0.0)))  # batches without the positional term
BYPASS_MINIMUM = StepSchedule(((0.0, 0.9), (20000.0, 0.2)))
POSITION_DROPOUT = 0.15
PENALTY_RATE = 0.1  # batches with the score penalty


class BiasNorm(nn.Module):
    """x * exp(log_scale) / rms(x - bias): the bias is in the denominator alone, which has no epsilon."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(hidden_size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns the shape of `hidden_states` (..., D); computed in float32."""
        log_scale = limit_range(self.log_scale, -1.5, 1.5) if self.training else self.log_scale
        wide = hidden_states if hidden_states.dtype == torch.float64 else hidden_states.float()
        rms = (wide - self.bias).square().mean(-1, keepdim=True).sqrt()
        return (wide * (log_scale.exp() / rms)).to(hidden_states.dtype)


def swoosh_l(values: Tensor) -> Tensor:
    """log(1 + exp(x - 4)) - 0.08 x - 0.035, computed in float32."""
    return _swoosh(values, 4.0, 0.035)


def swoosh_r(values: Tensor) -> Tensor:
    """log(1 + exp(x - 1)) - 0.08 x - 0.313261687, which is 0 at 0; computed in float32."""
    return _swoosh(values, 1.0, 0.313261687)


def _swoosh(values: Tensor, shift: float, offset: float) -> Tensor:
    wide = values if values.dtype == torch.float64 else values.float()
    # softplus switches to the identity above its threshold, where it equals it in float32
    return (F.softplus(wide - shift) - 0.08 * wide - offset).to(values.dtype)


class Bypass(nn.Module):
    """before + (after - before) * scale, one scale per channel; in training some clips take `before` alone."""

    def __init__(self, hidden_size: int, clock: TrainingClock, skip_rate: Value = 0.0):
        super().__init__()
        self.clock, self.skip_rate = clock, skip_rate
        self.bypass_scale = nn.Parameter(torch.empty(hidden_size))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Returns (B, T, D)."""
        scale = self.bypass_scale
        if self.training:
            scale = limit_range(scale, self.clock.value(BYPASS_MINIMUM), 1.0)
            kept = keep_clips(after, self.clock.value(self.skip_rate))
            scale = scale if kept is None else scale * kept
        return before + (after - before) * scale


class Downsample(nn.Module):
    """Weighted mean of groups of `factor` frames; the last group is filled with the last frame."""

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor
        self.bias = nn.Parameter(torch.empty(factor))

    def forward(self, hidden_states: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Returns (B, ceil(T / factor), D).

        Args:
            hidden_states: (B, T, D).
            num_frames: (B,) real frames of each clip: a clip's own last one fills its last group. None: frame T does.
        """
        length = hidden_states.shape[1]
        at = torch.arange(-(-length // self.factor) * self.factor, device=hidden_states.device).clamp(max=length - 1)
        if num_frames is None:
            filled = hidden_states[:, at] if len(at) != length else hidden_states
        else:
            at = torch.minimum(at, (num_frames - 1).clamp(min=0).unsqueeze(1))  # (B, T)
            filled = hidden_states.gather(1, at.unsqueeze(-1).expand(-1, -1, hidden_states.shape[-1]))
        weights = self.bias.softmax(0).to(hidden_states.dtype).unsqueeze(-1)  # (factor, 1)
        return (filled.unflatten(1, (-1, self.factor)) * weights).sum(2)


def fit_channels(hidden_states: Tensor, width: int) -> Tensor:
    """The first `width` channels of (B, T, D), or all of them and zeros behind."""
    missing = width - hidden_states.shape[-1]
    return F.pad(hidden_states, (0, missing)) if missing > 0 else hidden_states[..., :width]


def relative_positions(num_frames: int, width: int, device: torch.device) -> Tensor:
    """Table of the offsets -(T-1) .. T-1 between frames: (2 T - 1, `width`) float32.

    Offsets are compressed logarithmically beyond sqrt(width) frames and bent to a half circle, of which the columns
    are Fourier terms; the last column is 1.
    """
    offsets = torch.arange(1 - num_frames, num_frames, device=device, dtype=torch.float32)
    scale = math.sqrt(width)
    compressed = scale * offsets.sign() * ((offsets.abs() + scale).log() - math.log(scale))
    angles = (compressed * (2.0 * math.pi / width)).atan().unsqueeze(-1)
    angles = angles * torch.arange(1, width // 2 + 1, device=device)  # (2 T - 1, width / 2)
    table = torch.stack((angles.cos(), angles.sin()), dim=-1).flatten(1)
    return torch.cat((table[:, :-1], torch.ones_like(table[:, :1])), dim=1)


def shared_over_time(hidden_states: Tensor, dropout: float) -> Tensor:
    """Dropout of whole channels of a clip: the same for all frames of (B, T, D)."""
    if dropout == 0:
        return hidden_states
    return hidden_states * F.dropout(torch.ones_like(hidden_states[:, :1]), dropout)


class AttentionWeights(nn.Module):
    """Softmax of content and position scores: query i, key j, content q_i k_j plus position p_i r(j - i)."""

    def __init__(self, config, stack: int, clock: TrainingClock):
        super().__init__()
        width, self.num_heads = config.encoder_dim[stack], config.num_heads[stack]
        self.query_head_dim, self.pos_head_dim, self.clock = config.query_head_dim, config.pos_head_dim, clock
        size = self.num_heads * (2 * self.query_head_dim + self.pos_head_dim)
        self.in_proj = scaled(nn.Linear(width, size), self.query_head_dim**-0.25)  # no 1 / sqrt(d) in the scores
        self.linear_pos = scaled(nn.Linear(config.pos_dim, self.num_heads * self.pos_head_dim, bias=False), 0.05)
        self.penalizes_scores = config.activation_regularizers
        self.balance_keys = balancer(config, clock, positive=(0.4, 0.6), absolute=(0.0, 100.0), probability=0.025)
        self.whiten_keys = whiten(config, clock, limit=3.0, ratio=2.0, grad_scale=0.025, num_groups=self.num_heads)

    def forward(self, hidden_states: Tensor, positions: Tensor, keep: Tensor | None) -> Tensor:
        """Returns (B, H, T, T), rows of sum 1.

        Args:
            hidden_states: (B, T, D).
            positions: (2 T - 1, pos_dim) of `relative_positions`.
            keep: bool, broadcastable to (B, 1, T, T), True where attention is allowed; None: everywhere.
        """
        content = self.num_heads * self.query_head_dim
        sizes = (content, content, self.num_heads * self.pos_head_dim)
        query, key, position_query = self.in_proj(hidden_states).split(sizes, dim=-1)
        key = self.whiten_keys(self.balance_keys(key))
        query, key, position_query = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, position_query)
        )  # (B, H, T, head_dim)
        scores = query @ key.transpose(2, 3)
        if self.training and happens(self.clock.value(POSITION_SKIP_RATE)):
            scores = scores + 0.0 * self.linear_pos.weight.sum()  # a zero gradient keeps every process in step
        else:
            offsets = self.linear_pos(positions.to(hidden_states.dtype)).unflatten(-1, (self.num_heads, -1))
            scores = scores + _by_distance(position_query @ offsets.permute(1, 2, 0))
        if self.training and self.penalizes_scores and happens(PENALTY_RATE):
            scores = penalize_scores(scores)
        if keep is not None:
            scores = scores.masked_fill(~keep, MASKED_SCORE)
        return scores.softmax(-1, dtype=torch.float32 if scores.dtype != torch.float64 else None).to(scores.dtype)


def _by_distance(scores: Tensor) -> Tensor:
    """Scores of offsets to scores of keys: (..., T, 2 T - 1) -> (..., T, T), [i, j] = [i, j - i + T - 1]."""
    length = scores.shape[-2]
    if length == 1:
        return scores
    # one column less per row moves each row by one place against the row before
    return scores.flatten(-2)[..., length - 1 : -1].unflatten(-1, (length, 2 * length - 2))[..., :length]


class WeightedValues(nn.Module):
    """Attention with weights that are given: projected values, one sum per head, projected back."""

    def __init__(self, config, stack: int, clock: TrainingClock):
        super().__init__()
        width, self.num_heads = config.encoder_dim[stack], config.num_heads[stack]
        self.in_proj = nn.Linear(width, self.num_heads * config.value_head_dim)
        self.out_proj = scaled(nn.Linear(self.num_heads * config.value_head_dim, width), 0.05)
        self.whiten = whiten(config, clock, limit=7.5, ratio=3.0)

    def forward(self, hidden_states: Tensor, weights: Tensor) -> Tensor:
        """Returns (B, T, D)."""
        values = self.in_proj(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.whiten(self.out_proj((weights @ values).transpose(1, 2).flatten(2)))


class NonlinAttention(nn.Module):
    """Gated channels mixed over time with the weights of the first head, and gated again."""

    def __init__(self, config, stack: int, clock: TrainingClock):
        super().__init__()
        width = config.encoder_dim[stack]
        hidden = 3 * width // 4
        self.in_proj = nn.Linear(width, 3 * hidden)
        self.out_proj = scaled(nn.Linear(hidden, width), 0.05)
        low, high = StepSchedule(((0.0, 0.25), (20000.0, 0.05))), StepSchedule(((0.0, 0.75), (20000.0, 0.95)))
        self.balancer = balancer(config, clock, positive=(low, high), absolute=(0.5, 5.0))
        self.whiten1 = whiten(config, clock, limit=5.0, ratio=2.0)
        self.whiten2 = whiten(config, clock, limit=5.0, ratio=3.0)

    def forward(self, hidden_states: Tensor, weights: Tensor) -> Tensor:
        """Returns (B, T, D); `weights` (B, T, T) are those of one head."""
        gate, values, second_gate = self.in_proj(hidden_states).chunk(3, dim=-1)
        values = self.whiten1(values) * self.balancer(gate).tanh()
        return self.whiten2(self.out_proj((weights @ values) * second_gate))


class FeedForward(nn.Module):
    """Linear, SwooshL, linear."""

    def __init__(self, config, stack: int, size: int, clock: TrainingClock):
        super().__init__()
        width = config.encoder_dim[stack]
        self.clock = clock
        self.dropout = StepSchedule(((0.0, config.dropout_start), (20000.0, config.dropout)))
        self.in_proj = nn.Linear(width, size)
        self.out_proj = scaled(nn.Linear(size, width), 0.1)
        self.hidden_balancer = balancer(config, clock, positive=(0.3, 1.0), absolute=(0.75, 5.0))
        self.out_whiten = whiten(config, clock, limit=7.5, ratio=2.0)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns (B, T, D)."""
        inner = swoosh_l(self.hidden_balancer(self.in_proj(hidden_states)))
        if self.training:
            inner = shared_over_time(inner, self.clock.value(self.dropout))
        return self.out_whiten(self.out_proj(inner))


class ConvolutionModule(nn.Module):
    """Gate, depthwise convolution over time, SwooshR, linear; there is no norm inside."""

    def __init__(self, config, stack: int, clock: TrainingClock):
        super().__init__()
        width, kernel = config.encoder_dim[stack], config.cnn_module_kernel[stack]
        self.is_causal = config.causal
        self.in_proj = nn.Linear(width, 2 * width)
        if self.is_causal:
            self.depthwise_conv = ChunkCausalConv(width, kernel)
        else:
            self.depthwise_conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.out_proj = scaled(nn.Linear(width, width), 0.05)
        low, high = StepSchedule(((0.0, 0.05), (8000.0, 0.025))), StepSchedule(((0.0, 5.0), (8000.0, 10.0)))
        self.balancer1 = balancer(config, clock, positive=(low, 1.0), absolute=(1.5, high))
        low, size = StepSchedule(((0.0, 0.1), (8000.0, 0.05))), StepSchedule(((0.0, 0.2), (20000.0, 0.5)))
        self.balancer2 = balancer(config, clock, positive=(low, 1.0), absolute=(size, 10.0))
        self.whiten = whiten(config, clock, limit=7.5, ratio=2.0)

    def forward(
        self, hidden_states: Tensor, frame_mask: Tensor | None, chunk_size: int, num_frames: Tensor | None
    ) -> Tensor:
        """Returns (B, T, D).

        Args:
            hidden_states: (B, T, D).
            frame_mask: (B, T) bool, True at real frames; None when all are.
            chunk_size: frames per chunk of a causal convolution; -1: all frames are one chunk.
            num_frames: (B,) frames that a clip's last chunk ends at; None: all end with the batch.
        """
        values, gate = self.in_proj(hidden_states).chunk(2, dim=-1)
        values = values * self.balancer1(gate).sigmoid()
        if frame_mask is not None:
            values = values * frame_mask.unsqueeze(-1)
        values = values.transpose(1, 2)  # (B, D, T)
        convolved = (
            self.depthwise_conv(values, chunk_size, num_frames) if self.is_causal else self.depthwise_conv(values)
        )
        return self.out_proj(swoosh_r(self.whiten(self.balancer2(convolved.transpose(1, 2)))))


class ChunkCausalConv(nn.Module):
    """Depthwise convolution that sees the past, and inside its chunk the future: a causal one plus one per chunk.

    The second is scaled by 1 plus corrections for the frames near the chunk's edges.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.kernel = kernel
        self.causal_conv = nn.Conv1d(channels, channels, (kernel + 1) // 2, groups=channels)
        self.causal_conv.init_bias = 0.1
        self.chunkwise_conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.chunkwise_conv_scale = nn.Parameter(torch.empty(2, channels, kernel))

    def forward(self, values: Tensor, chunk_size: int, num_frames: Tensor | None = None) -> Tensor:
        """Returns (B, D, T); arguments as `ConvolutionModule`, `values` (B, D, T)."""
        length = values.shape[-1]
        chunk = length if chunk_size < 0 or chunk_size > length else chunk_size
        past = self.causal_conv(F.pad(values, (self.kernel // 2, 0)))
        chunks = F.pad(values, (0, -length % chunk)).unflatten(-1, (-1, chunk))  # (B, D, chunks, c)
        inside = self.chunkwise_conv(chunks.transpose(1, 2).flatten(0, 1))
        inside = inside.unflatten(0, (len(values), -1)).transpose(1, 2).flatten(2)[..., :length]
        return past + inside * self._edge_scale(length, chunk_size, num_frames, values.device)

    def _edge_scale(self, length: int, chunk_size: int, num_frames: Tensor | None, device: torch.device) -> Tensor:
        """(1 or B, D, T): a clip that is shorter than a chunk, or is one chunk as a whole, has its own right edge."""
        if num_frames is None:
            num_frames = torch.full((1,), length, device=device)
        chunk = num_frames.clamp(min=1)
        chunk = torch.where(chunk < chunk_size, chunk, chunk_size) if chunk_size > 0 else chunk
        from_left = torch.arange(length, device=device) % chunk.unsqueeze(1)  # (B, T)
        from_right = chunk.unsqueeze(1) - 1 - from_left
        left, right = F.pad(self.chunkwise_conv_scale, (0, 1))  # (D, kernel + 1), 0 in the last column
        beyond = self.kernel
        scale = left[:, from_left.clamp(max=beyond)]
        scale = scale + right[:, torch.where(from_right < self.kernel, self.kernel - 1 - from_right, beyond)]
        return 1.0 + scale.transpose(0, 1)


class ZipformerLayer(GradientCheckpointingLayer):
    """One layer; see the top of the file."""

    def __init__(self, config, stack: int, clock: TrainingClock, skip_rate: Value):
        """`skip_rate`: share of the clips that skip the layer in training."""
        super().__init__()
        width, size = config.encoder_dim[stack], config.feedforward_dim[stack]
        self.clock = clock
        self.self_attn_weights = AttentionWeights(config, stack, clock)
        self.self_attn1 = WeightedValues(config, stack, clock)
        self.self_attn2 = WeightedValues(config, stack, clock)
        self.feed_forward1 = FeedForward(config, stack, size * 3 // 4, clock)
        self.feed_forward2 = FeedForward(config, stack, size, clock)
        self.feed_forward3 = FeedForward(config, stack, size * 5 // 4, clock)
        self.nonlin_attention = NonlinAttention(config, stack, clock)
        self.conv_module1 = ConvolutionModule(config, stack, clock)
        self.conv_module2 = ConvolutionModule(config, stack, clock)
        self.norm = BiasNorm(width)
        self.bypass = Bypass(width, clock, skip_rate)
        self.bypass_mid = Bypass(width, clock)
        self._add_regularizers(config)

    def forward(
        self,
        hidden_states: Tensor,
        positions: Tensor,
        keep: Tensor | None,
        frame_mask: Tensor | None,
        chunk_size: int = -1,
        num_frames: Tensor | None = None,
    ) -> Tensor:
        """Returns (B, T, D).

        Args:
            hidden_states: (B, T, D).
            positions: (2 T - 1, pos_dim).
            keep: which keys a query may see, see `AttentionWeights`.
            frame_mask: see `ConvolutionModule`; the others too.
            chunk_size: see there.
            num_frames: see there.
        """
        before, conv = hidden_states, (frame_mask, chunk_size, num_frames)
        attention_kept = keep_clips(hidden_states, self._rate(SKIP_RATE))
        conv_rate, ff_rate = self._rate(SKIP_RATE), self._rate(FEED_FORWARD_SKIP_RATE)
        weights = self.self_attn_weights(hidden_states, positions, keep)  # (B, H, T, T)

        states = before + self.feed_forward1(before)
        mixed = self.balancer_na(self.nonlin_attention(states, self._first_head(weights)))
        states = states + _kept(mixed, attention_kept)
        states = states + _kept(self.self_attn1(states, weights), attention_kept)
        states = states + drop_clips(self.conv_module1(states, *conv), conv_rate)
        states = states + drop_clips(self.balancer_ff2(self.feed_forward2(states)), ff_rate)
        states = self.bypass_mid(before, states)
        states = states + _kept(self.self_attn2(states, weights), attention_kept)
        states = states + drop_clips(self.conv_module2(states, *conv), conv_rate)
        states = states + drop_clips(self.balancer_ff3(self.feed_forward3(states)), ff_rate)
        states = self.bypass(before, self.norm(self.balancer1(states)))
        return self.whiten(self.balancer2(states))

    def _rate(self, schedule: StepSchedule) -> float:
        return self.clock.value(schedule) if self.training else 0.0

    def _first_head(self, weights: Tensor) -> Tensor:
        """(B, T, T); in training sometimes even over all keys that a query sees."""
        first = weights[:, 0]
        if not self.training or not happens(self.clock.value(EVEN_ATTENTION_RATE)):
            return first
        seen = (first > 0).to(first.dtype)
        return seen / seen.sum(-1, keepdim=True)

    def _add_regularizers(self, config) -> None:
        clock, growing = self.clock, lambda end: StepSchedule(((0.0, 0.0), (4000.0, end)))
        self.balancer_na = balancer(
            config, clock, positive=(0.3, 0.7), absolute=(StepSchedule(((0.0, 0.004), (4000.0, 0.02))), 100.0),
            probability=0.05,
        )  # fmt: skip
        self.balancer_ff2 = balancer(
            config, clock, positive=(0.3, 0.7), absolute=(growing(0.1), 2.0), probability=0.05
        )
        self.balancer_ff3 = balancer(
            config, clock, positive=(0.3, 0.7), absolute=(growing(0.2), 4.0), probability=0.05
        )
        self.balancer1 = balancer(config, clock, positive=(0.45, 0.55), absolute=(0.2, 4.0))
        self.balancer2 = balancer(config, clock, positive=(0.45, 0.55), absolute=(0.1, 4.0))
        self.whiten = whiten(config, clock, limit=4.0, ratio=3.0)


def layer_skip_rates(config, stack: int) -> list[StepSchedule]:
    """Share of the clips that skip each layer of a stack: the stacks are warmed up one after the other."""
    warmup, number = 4000.0, config.num_encoder_layers[stack]
    begin, end = (warmup * (stack + place) / (config.num_stacks + 1) for place in (1, 2))
    window = (end - begin) / number
    final = config.layer_drop * config.downsampling_factor[stack] ** 0.5
    starts = [begin + window * layer for layer in range(number)]
    return [StepSchedule(((start, 0.5), (start + window, final))) for start in starts]


def scaled(layer: nn.Module, scale: float) -> nn.Module:
    """The layer, with a note of how it is initialised: weights times `scale`, biases within 0.1 `scale`."""
    layer.init_scale = scale
    return layer


def balancer(config, clock: TrainingClock, **numbers) -> nn.Module:
    """A `Balancer`, or nothing in a model without regularizers."""
    return Balancer(clock, **numbers) if config.activation_regularizers else nn.Identity()


def whiten(
    config, clock: TrainingClock, *, limit: float, ratio: float, grad_scale: float = 0.01, num_groups: int = 1
) -> nn.Module:
    """A `Whiten` whose limit grows by `ratio`, or nothing in a model without regularizers."""
    if not config.activation_regularizers:
        return nn.Identity()
    schedule = StepSchedule(((0.0, limit), (20000.0, ratio * limit)))
    return Whiten(clock, limit=schedule, grad_scale=grad_scale, num_groups=num_groups)


def _kept(update: Tensor, kept: Tensor | None) -> Tensor:
    return update if kept is None else update * kept


__all__ = [
    "AttentionWeights",
    "BiasNorm",
    "Bypass",
    "ChunkCausalConv",
    "ConvolutionModule",
    "Downsample",
    "FeedForward",
    "NonlinAttention",
    "WeightedValues",
    "ZipformerLayer",
    "balancer",
    "fit_channels",
    "layer_skip_rates",
    "relative_positions",
    "scaled",
    "shared_over_time",
    "swoosh_l",
    "swoosh_r",
    "whiten",
]

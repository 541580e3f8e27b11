# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a Zipformer has for training alone: values that follow the progress, and penalties on gradients.

    StepSchedule     a number that is piecewise linear in the reference batch count
    Balancer         pushes each channel's mean and size into a range
    Whiten           pushes the channels' covariance towards a multiple of the identity
    limit_range      turns gradients that would push a parameter further out of a range
    penalize_scores  adds a gradient to attention scores of great size

All are the identity in the forward pass. They are switched and scaled as in icefall; random choices are drawn from
torch's CPU generator, whether or not there will be a gradient, so that seeds, resuming and gradient checkpointing
work for them as for dropout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MEAN_TO_RMS = math.sqrt(math.pi / 2)  # of a normal variable: its root mean square over its mean absolute value
NORMAL_QUANTILE = 0.8139535143  # icefall's rough inverse of the error function: this times atanh
TINY = 1e-20


@dataclass(frozen=True)
class StepSchedule:
    """A number that follows the reference batch count: linear between `points`, constant before and after them.

    Attributes:
        points: (batch count, value), in the order of the counts.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, batch_count: float | None) -> float:
        """The value at a batch count; None is the end of the schedule."""
        if batch_count is None or batch_count >= self.points[-1][0]:
            return self.points[-1][1]
        if batch_count <= self.points[0][0]:
            return self.points[0][1]
        right = next(number for number, (count, _) in enumerate(self.points) if count >= batch_count)
        (start, first), (end, last) = self.points[right - 1 : right + 1]
        return first + (last - first) * (batch_count - start) / (end - start)


@dataclass
class TrainingClock:
    """The reference batch count, shared by all layers of an encoder.

    Attributes:
        batch_count: batches of 600 s of audio done so far; None, where nobody tells it, is the end of all schedules.
    """

    batch_count: float | None = None

    def value(self, schedule: StepSchedule | float) -> float:
        """A scheduled or constant number, now."""
        return schedule.at(self.batch_count) if isinstance(schedule, StepSchedule) else schedule


Value = StepSchedule | float


def happens(probability: float) -> bool:
    """True with a probability; draws from torch's CPU generator."""
    return probability > 0 and torch.rand(()).item() < probability


def keep_clips(hidden_states: Tensor, drop_rate: float) -> Tensor | None:
    """(B, 1, ...) of 0 and 1, 0 for the share `drop_rate` of the clips; None when none is dropped."""
    if drop_rate == 0:
        return None
    shape = (hidden_states.shape[0], *(1,) * (hidden_states.ndim - 1))
    return (torch.rand(shape, device=hidden_states.device) > drop_rate).to(hidden_states.dtype)


def drop_clips(hidden_states: Tensor, drop_rate: float) -> Tensor:
    """The states with 0 for the share `drop_rate` of the clips; what is kept is not scaled up."""
    kept = keep_clips(hidden_states, drop_rate)
    return hidden_states if kept is None else hidden_states * kept


class _Balance(torch.autograd.Function):
    """Identity; the backward pass adds |gradient| times the normalised gradient of the range loss."""

    @staticmethod
    def forward(ctx, hidden_states: Tensor, limits: tuple[float, float, float, float], grad_scale: float) -> Tensor:
        ctx.save_for_backward(hidden_states)
        ctx.limits, ctx.grad_scale = limits, grad_scale
        return hidden_states.view_as(hidden_states)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (hidden_states,) = ctx.saved_tensors
        low_mean, high_mean, low_rms, high_rms = ctx.limits
        with torch.enable_grad(), torch.autocast(hidden_states.device.type, enabled=False):
            values = _at_least_float32(hidden_states).detach().requires_grad_()
            others = tuple(range(values.ndim - 1))
            mean_square, mean = (values**2).mean(others), values.mean(others)  # (C,)
            ratio = mean / (mean_square - mean**2).clamp(min=TINY).sqrt()
            rms = mean_square.clamp(min=TINY).sqrt()
            loss = (ratio - ratio.clamp(low_mean, high_mean)).abs() + (rms.clamp(low_rms, high_rms) / rms).log().abs()
            (push,) = torch.autograd.grad(loss.sum(), values)
        push = push * (ctx.grad_scale / (push**2).mean(others).sqrt().clamp(min=TINY))
        wide = _at_least_float32(grad)
        return (wide + wide.abs() * push).to(grad.dtype), None, None


class Balancer(nn.Module):
    """Pushes each channel towards a share of positive values and a mean absolute value within bounds.

    With the channel's mean m, deviation s and root mean square r the loss is the distance of m / s and of ln r from
    their bounds; its gradient, scaled to a size per channel, changes the gradient by at most a share of itself.
    """

    def __init__(
        self,
        clock: TrainingClock,
        *,
        positive: tuple[Value, Value] = (0.05, 0.95),
        absolute: tuple[Value, Value] = (0.2, 100.0),
        probability: Value = StepSchedule(((0.0, 0.5), (8000.0, 0.125))),
        grad_scale: float = 0.04,
    ):
        """Bounds may be scheduled.

        Args:
            clock: of the encoder.
            positive: lowest and highest share of positive values.
            absolute: lowest and highest mean absolute value.
            probability: share of the calls that do anything.
            grad_scale: size of the change, relative to the gradient.
        """
        super().__init__()
        self.clock, self.positive, self.absolute = clock, positive, absolute
        self.probability, self.grad_scale = probability, grad_scale

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns `hidden_states` (..., C) itself."""
        # in training alone, as Whiten: a model in evaluation has its own gradients; upstream's acts on any gradient
        if not self.training or not happens(self.clock.value(self.probability)):
            return hidden_states
        means = (_mean_over_deviation(self.clock.value(share)) for share in self.positive)
        sizes = (MEAN_TO_RMS * self.clock.value(size) for size in self.absolute)
        return _Balance.apply(hidden_states, (*means, *sizes), self.grad_scale)


class _Whitening(torch.autograd.Function):
    """Identity; the backward pass adds the gradient of the whitening metric where that exceeds its limit."""

    @staticmethod
    def forward(ctx, hidden_states: Tensor, module: Whiten) -> Tensor:
        ctx.save_for_backward(hidden_states)
        ctx.module = module
        return hidden_states.view_as(hidden_states)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (hidden_states,), module = ctx.saved_tensors, ctx.module
        with torch.enable_grad(), torch.autocast(hidden_states.device.type, enabled=False):
            values = _at_least_float32(hidden_states).detach().requires_grad_()
            metric = whitening_metric(values, module.num_groups)
            is_white = metric.detach() < module.clock.value(module.limit)
            module.is_white.copy_(is_white)
            if is_white:
                return grad, None
            (push,) = torch.autograd.grad(metric, values)
        push = push * (module.grad_scale * _at_least_float32(grad).norm() / (push.norm() + TINY))
        return grad + push.to(grad.dtype), None


class Whiten(nn.Module):
    """Pushes the covariance of the channels, in groups, towards a multiple of the identity.

    It looks often while the last look found a metric above the limit, and seldom otherwise. What it found is a buffer,
    because a continued run must look as often as an uninterrupted one.
    """

    SELDOM, OFTEN = 0.025, 0.25  # share of the calls; icefall

    def __init__(self, clock: TrainingClock, *, limit: Value, grad_scale: float, num_groups: int = 1):
        super().__init__()
        self.clock, self.limit, self.grad_scale, self.num_groups = clock, limit, grad_scale, num_groups
        self.register_buffer("is_white", torch.zeros((), dtype=torch.bool))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns `hidden_states` (..., C) itself."""
        if not self.training or not happens(self.SELDOM if self.is_white else self.OFTEN):
            return hidden_states
        return _Whitening.apply(hidden_states, self)


def whitening_metric(hidden_states: Tensor, num_groups: int) -> Tensor:
    """How far the covariance of (..., C) is from a multiple of the identity: () 1 if it is one, else more.

    The mean squared eigenvalue over the squared mean eigenvalue, over all groups of C / `num_groups` channels.
    """
    rows = hidden_states.flatten(0, -2).unflatten(-1, (num_groups, -1)).transpose(0, 1)  # (groups, frames, C')
    rows = rows - rows.mean(1, keepdim=True)
    covariance = rows.transpose(1, 2) @ rows  # (groups, C', C')
    mean_eigenvalue = covariance.diagonal(dim1=1, dim2=2).mean()
    return (covariance**2).sum() / hidden_states.shape[-1] / (mean_eigenvalue**2 + TINY)


class _LimitRange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, parameter: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(parameter)
        ctx.low, ctx.high = low, high
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (parameter,) = ctx.saved_tensors
        is_wrong = ((grad > 0) & (parameter < ctx.low)) | ((grad < 0) & (parameter > ctx.high))
        return torch.where(is_wrong, -grad, grad), None, None


def limit_range(parameter: Tensor, low: float, high: float, probability: float = 0.6) -> Tensor:
    """The parameter; gradients that would move an element outside [low, high] further out change their sign."""
    if not happens(probability):
        return parameter
    return _LimitRange.apply(parameter, low, high)


class _PenalizeScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores: Tensor, limit: float, penalty: float) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.limit, ctx.penalty = limit, penalty
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (scores,) = ctx.saved_tensors
        return grad + ctx.penalty * scores.sign() * (scores.abs() > ctx.limit), None, None


def penalize_scores(scores: Tensor, limit: float = 25.0, penalty: float = 1e-4) -> Tensor:
    """The scores; the gradient of `penalty` times their absolute value is added where that exceeds `limit`."""
    return _PenalizeScores.apply(scores, limit, penalty)


def _mean_over_deviation(positive_share: float) -> float:
    """Mean over deviation of a normal variable with that share of positive values, in icefall's approximation."""
    balance = 2 * positive_share - 1
    return NORMAL_QUANTILE * (math.log(1 + balance + 1e-10) - math.log(1 - balance + 1e-10)) / 2


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


__all__ = [
    "Balancer",
    "StepSchedule",
    "TrainingClock",
    "Value",
    "Whiten",
    "drop_clips",
    "happens",
    "keep_clips",
    "limit_range",
    "penalize_scores",
    "whitening_metric",
]

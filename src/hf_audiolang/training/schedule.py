# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What changes with the step: learning rate (cosines or Eden) and the teacher's EMA decay (cosine or line)."""

import math
from collections.abc import Mapping
from fractions import Fraction

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers.optimization import get_cosine_with_min_lr_schedule_with_warmup_lr_rate

from .config import OptimizationArguments
from .eden import build_eden, build_eden2, build_eden3

_STATE = ("base_lrs", "last_epoch", "_step_count", "_last_lr")


def build_lr_schedule(
    optimizer: Optimizer, settings: OptimizationArguments, *, num_steps: int, batches_per_epoch: int | None = None
) -> LRScheduler:
    """The schedule that `lr_schedule` names, over the optimizer steps of a run.

    Args:
        batches_per_epoch: forward passes per epoch, for those schedules that count epochs.

    Raises:
        ValueError: if the schedule counts epochs and their length is not known.
    """
    warmup_steps = warmup_length(settings.warmup_steps, num_steps)
    if settings.lr_schedule == "cosine":
        return build_cosine(optimizer, warmup_steps=warmup_steps, num_steps=num_steps, end_ratio=settings.lr_end_ratio)
    if settings.lr_schedule == "cosine_from_start":
        return build_cosine_from_start(
            optimizer, warmup_steps=warmup_steps, num_steps=num_steps, end_ratio=settings.lr_end_ratio
        )
    if settings.lr_schedule == "eden2":
        return build_eden2(optimizer, lr_batches=settings.lr_batches, warmup_steps=warmup_steps)
    steps_per_epoch = settings.lr_steps_per_epoch
    if steps_per_epoch is None and batches_per_epoch is not None:
        steps_per_epoch = Fraction(batches_per_epoch, settings.gradient_accumulation_steps)
    if steps_per_epoch is None:
        raise ValueError(
            f"`lr_schedule` is {settings.lr_schedule!r}, but the length of an epoch is not known. Set "
            "`lr_steps_per_epoch`, pass `batches_per_epoch`, or use `lr_schedule: eden2`."
        )
    return (build_eden if settings.lr_schedule == "eden" else build_eden3)(
        optimizer,
        lr_batches=settings.lr_batches,
        lr_epochs=settings.lr_epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=warmup_steps,
    )


def build_cosine(optimizer: Optimizer, *, warmup_steps: int, num_steps: int, end_ratio: float) -> LRScheduler:
    """Linear warm-up over `warmup_steps`, then a cosine that ends at `end_ratio` times the peak.

    Step k (from 0) of the warm-up has (k + 1) / `warmup_steps` of the peak, so no step is spent at rate 0; the last of
    `num_steps` has exactly `end_ratio`. SLAP 3.2 states the warm-up; the cosine is our choice, and `end_ratio=1` keeps
    the peak (the paper read literally). AudioMAE's schedule for fine-tuning is the same, one step later: its first
    step is spent at rate 0, its second is our first.
    """
    return get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
        optimizer, warmup_steps, num_steps, min_lr_rate=end_ratio
    )


def build_cosine_from_start(
    optimizer: Optimizer, *, warmup_steps: int, num_steps: int, end_ratio: float
) -> LRScheduler:
    """The schedule of M2D-CLAP's fine-tuning: a cosine over all of the run, whose beginning the warm-up replaces.

    Step k (from 0) of the warm-up has k / `warmup_steps` of the peak. From then on the cosine counts from step 0 and
    not from the end of the warm-up, so that the rate drops a little below the peak there: to 0.4992 of 0.5 after 5 of
    200 epochs. EVAR, whose code names epochs, uses timm's scheduler with them and with an end of 1e-7, so `end_ratio`
    is 1e-7 / learning rate; it sets the rate behind each step, and so is one step late.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        return end_ratio + (1 - end_ratio) * (1 + math.cos(math.pi * min(step / num_steps, 1.0))) / 2

    return LambdaLR(optimizer, factor)


def schedule_state(schedule: LRScheduler) -> dict[str, object]:
    """The position of a schedule as plain numbers, which JSON keeps to the bit; `restore_schedule` takes them."""
    state = schedule.state_dict()
    return {name: state[name] for name in _STATE}


def restore_schedule(schedule: LRScheduler, state: Mapping[str, object]) -> None:
    """Puts `schedule` where it was when `schedule_state` was called.

    Raises:
        ValueError: if numbers are missing.
    """
    missing = [name for name in _STATE if name not in state]
    if missing:
        raise ValueError(
            f"`schedule` of the checkpoint lacks {missing}, got {sorted(state)}. It is of another "
            "version: start again with --overwrite, or with --model set to what it exported."
        )
    schedule.load_state_dict(schedule.state_dict() | {name: state[name] for name in _STATE})


def warmup_length(warmup_steps: float, num_steps: int) -> int:
    """Steps of warm-up in a run of `num_steps`: below 1 `warmup_steps` is a share of them, rounded up."""
    return int(warmup_steps) if warmup_steps >= 1 else math.ceil(warmup_steps * num_steps)


def ema_decay(step: int, num_steps: int, start: float, end: float, schedule: str = "cosine") -> float:
    """Weight the teacher keeps of itself in the update after step `step` (from 0) of `num_steps`.

    Args:
        step: steps done before this one.
        num_steps: steps of the run.
        start: weight at step 0.
        end: weight at the end.
        schedule: "cosine" (SLAP 3.2, 0.994 to 1) or "linear" (M2D's code, 0.99995 to 0.99999).

    Returns:
        cosine: `end - (end - start) * (1 + cos(pi * step / num_steps)) / 2`, which is `end` at `num_steps`;
        linear: `start + (end - start) * step / (num_steps - 1)`, which is `end` at the last step.

    Raises:
        ValueError: for another `schedule`.
    """
    if schedule == "linear":
        return start + (end - start) * step / max(num_steps - 1, 1)
    if schedule == "cosine":
        return end - (end - start) * (1 + math.cos(math.pi * step / num_steps)) / 2
    raise ValueError(f"Unknown `schedule` {schedule!r}. Choose one of ['cosine', 'linear'].")


__all__ = [
    "build_cosine",
    "build_cosine_from_start",
    "build_lr_schedule",
    "ema_decay",
    "restore_schedule",
    "schedule_state",
    "warmup_length",
]

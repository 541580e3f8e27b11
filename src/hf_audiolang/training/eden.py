# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Eden: learning rates that fall with the square root of steps and epochs, and need not know a run's end (icefall)."""

from fractions import Fraction

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_WARMUP_START = 0.5  # share of the rate at batch 0 (icefall's and Auden's default)


def eden_factor(batch: float, epoch: float, *, lr_batches: float, lr_epochs: float, warmup_steps: int) -> float:
    """Learning rate / base rate of icefall's Eden: warm-up times one fall over batches and one over epochs.

    Args:
        batch: batches so far, the present one included.
        epoch: epochs completed.
        lr_batches: batches after which the rate begins to fall with their square root.
        lr_epochs: the same in epochs.
        warmup_steps: batches from 0.5 to 1 times the rate; 0: none.
    """
    return _warmup(batch, warmup_steps) * _fall(batch / lr_batches) * _fall(epoch / lr_epochs)


def eden2_factor(batch: float, *, lr_batches: float, warmup_steps: int) -> float:
    """Learning rate / base rate of Eden2, which knows no epochs: it falls with the batches, twice as fast as Eden."""
    return _warmup(batch, warmup_steps) * _fall(batch / lr_batches) ** 2


def build_eden(
    optimizer: Optimizer, *, lr_batches: float, lr_epochs: float, steps_per_epoch: float | Fraction, warmup_steps: int
) -> LambdaLR:
    """Eden over optimizer steps. Step k (from 0) is batch k + 1 of epoch floor(k / `steps_per_epoch`), as upstream."""

    def factor(step: int) -> float:
        epoch = int(step // steps_per_epoch)
        return eden_factor(step + 1, epoch, lr_batches=lr_batches, lr_epochs=lr_epochs, warmup_steps=warmup_steps)

    return LambdaLR(optimizer, factor)


def build_eden2(optimizer: Optimizer, *, lr_batches: float, warmup_steps: int) -> LambdaLR:
    """Eden2 over optimizer steps; step k (from 0) is batch k + 1."""
    return LambdaLR(optimizer, lambda step: eden2_factor(step + 1, lr_batches=lr_batches, warmup_steps=warmup_steps))


def build_eden3(
    optimizer: Optimizer, *, lr_batches: float, lr_epochs: float, steps_per_epoch: float | Fraction, warmup_steps: int
) -> LambdaLR:
    """Eden3, which is Eden with epochs that grow by a part with each step; step k (from 0) is batch k + 1."""

    def factor(step: int) -> float:
        epoch = float((step + 1) / steps_per_epoch)
        return eden_factor(step + 1, epoch, lr_batches=lr_batches, lr_epochs=lr_epochs, warmup_steps=warmup_steps)

    return LambdaLR(optimizer, factor)


def _warmup(batch: float, warmup_steps: int) -> float:
    if batch >= warmup_steps:
        return 1.0
    return _WARMUP_START + (1 - _WARMUP_START) * batch / warmup_steps


def _fall(ratio: float) -> float:
    """1 at the start, about ratio ** -0.5 far behind 1."""
    return (1 + ratio**2) ** -0.25


__all__ = ["build_eden", "build_eden2", "build_eden3", "eden2_factor", "eden_factor"]

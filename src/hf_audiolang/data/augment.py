# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Augmentation of waveforms before they become features: mixup, and rolling with a random gain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mixup_waveforms(
    waveforms: Sequence[np.ndarray],
    targets: np.ndarray,
    alpha: float,
    rng: np.random.Generator,
    *,
    share: float = 1.0,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Each clip plus another one of the batch, w * clip + (1 - w) * other, and their labels in the same way.

    The shares w are drawn per clip from Beta(alpha, alpha), the others are one random permutation of the batch (EVAR).
    AudioMAE mixes half of the clips with alpha 10: `share` 0.5; its partners are uniform over the data set, here
    over the batch, which costs no second file per clip. Another clip that is shorter is followed by silence, a longer
    one is cut to the clip's length (AudioMAE; EVAR's clips are equally long).

    Args:
        waveforms: B waveforms (S,) of any lengths.
        targets: (B, C) shares of classes.
        alpha: 0: nothing is mixed.
        rng: the only source of randomness.
        share: probability of each clip to be mixed.

    Returns:
        B waveforms (S,) of the same lengths, and (B, C) float32.
    """
    targets = np.asarray(targets, dtype=np.float32)
    if alpha == 0:
        return list(waveforms), targets
    weights = rng.beta(alpha, alpha, size=len(waveforms)).astype(np.float32)
    others = rng.permutation(len(waveforms))
    weights[rng.random(len(waveforms)) >= share] = 1
    mixed = [
        weight * waveform + (1 - weight) * _fitted(waveforms[other], len(waveform))
        for weight, waveform, other in zip(weights, waveforms, others, strict=True)
    ]
    weights = weights[:, None]
    return mixed, weights * targets + (1 - weights) * targets[others]


def cyclic_roll(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The waveform without its mean, rolled by a random number of samples, times Beta(10, 10) + 0.5 (AudioMAE).

    The paper rolls. In its code the number of samples is drawn below the number of channels of a mono file, and so
    is always 0.

    Args:
        waveform: (S,) of a clip alone, without silence that it was filled up with.
        rng: the only source of randomness.

    Returns:
        (S,) float32.
    """
    rolled = np.roll(waveform - waveform.mean(), rng.integers(len(waveform)))
    return (rolled * (rng.beta(10, 10) + 0.5)).astype(np.float32)


def _fitted(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """The first `num_samples` of a waveform, silence where it has ended."""
    return np.pad(waveform[:num_samples], (0, max(num_samples - len(waveform), 0)))


__all__ = ["cyclic_roll", "mixup_waveforms"]

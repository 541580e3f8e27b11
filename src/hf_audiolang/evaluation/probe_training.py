# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Probes of frozen clips, many at once: R learning rates times Z seeds cost one pass.

    clips (Z, B, T', D') -> mean or attention pooling -> (R, Z, B, D') -> Linear -> logits (R, Z, B, C)

Every weight has the leading axes (R, Z). The runs share frames and nothing else, so each is what it would be alone,
to rounding: a seed draws its first weights, the order of its clips and its dropout from a generator of its own, the
same for all learning rates.

Attention pooling is multi-head attention with one learned query (captionstew.md 4.2). Softmax weights sum to 1 and the
query is no function of the clip, so neither keys nor values of frames are ever computed: a head's query meets its
key matrix first, frames are averaged as they are, and the value matrix is applied to the average. That is the same
function as `nn.MultiheadAttention`, D' / H times cheaper. A projection of the learned query would be redundant, and a
key bias moves all scores of a head alike: neither exists.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .metrics import accuracy, mean_average_precision

Weights = dict[str, Tensor]  # name -> values, with or without the leading axes (R, Z)


@dataclass(frozen=True)
class ProbeRecipe:
    """How probes are trained: Adam, learning rate on a cosine over all epochs.

    The weights of the best epoch on the dev clips are kept, for each run by itself (early stop).

    Attributes:
        learning_rates: those tried (CaptionStew 4.2).
        num_epochs: of each run (CaptionStew 4.2).
        batch_clips: clips of a step; our choice, for sets of hundreds to thousands of clips.
        dropout: of the pooled vector, before the linear layer; attention pooling alone has it.
        max_heads: of attention pooling; the largest divisor of the width up to this many is taken.
        lr_end_ratio: learning rate after the last step / that of the first; 1 keeps it constant.
        weight_decay: of Adam, added to the gradient.
        patience: a run ends after so many epochs in a row that were not better; None: after all epochs.
        takes_last_equal: of epochs with equal dev scores the last one is the best, else the one with the smallest
            loss.
    """

    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    num_epochs: int = 50
    batch_clips: int = 64
    dropout: float = 0.1
    max_heads: int = 8
    lr_end_ratio: float = 0.0
    weight_decay: float = 0.0
    patience: int | None = None
    takes_last_equal: bool = False

    def num_heads(self, width: int) -> int:
        """Heads of attention pooling: the largest divisor of `width` that is not above `max_heads`."""
        return max(heads for heads in range(1, self.max_heads + 1) if width % heads == 0)


@dataclass(frozen=True)
class ProbeClips:
    """Clips to train and test probes on, in one place of one device.

    Attributes:
        frames: (M, D') input of the pooling, clip after clip.
        starts: (N,) row of `frames` at which each clip begins.
        lengths: (N,) number of its frames.
        targets: (N,) class index of each clip, or (N, C) 0 and 1 where a clip has any number of labels.
    """

    frames: Tensor
    starts: Tensor
    lengths: Tensor
    targets: Tensor

    @classmethod
    def of_rows(
        cls, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], device: torch.device | str
    ) -> "ProbeClips":
        """Clips of one frame each, those of several sets after each other: inputs (N, D'), targets as above."""
        frames = torch.from_numpy(np.concatenate(inputs)).to(device)
        numbers = torch.arange(len(frames), device=device)
        return cls(frames, numbers, torch.ones_like(numbers), torch.from_numpy(np.concatenate(targets)).to(device))

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (Z, B) of given numbers as frames (Z, B, T', D') and frame_mask (Z, B, T')."""
        lengths = self.lengths[rows]
        steps = torch.arange(int(lengths.max()), device=rows.device)
        places = self.starts[rows].unsqueeze(-1) + steps  # (Z, B, T'); past its end a clip shows the next one's frames
        frames = self.frames[places.clamp(max=len(self.frames) - 1)]
        is_half = self.frames.dtype == torch.float16
        return frames.float() if is_half else frames, steps < lengths.unsqueeze(-1)


@dataclass
class Sweep:
    """What a sweep found, for each of its R x Z runs; filled in while it trains.

    Attributes:
        weights: of the best epoch.
        dev_scores: (R, Z) accuracy or mAP on the dev clips then.
        dev_losses: (R, Z) mean loss on them then; the smaller one is better among equal scores.
        epochs: (R, Z) the best epoch, from 1.
    """

    weights: Weights
    dev_scores: np.ndarray
    dev_losses: np.ndarray
    epochs: np.ndarray

    def goes_on(self, epoch: int, recipe: ProbeRecipe) -> np.ndarray:
        """(R, Z) whether each run still had patience when `epoch` ended."""
        return np.full(self.epochs.shape, True) if recipe.patience is None else epoch - self.epochs < recipe.patience

    def best_rates(self) -> list[int]:
        """For each seed the position of the learning rate with the best dev score; the first among equals.

        Raises:
            ValueError: if a seed has none with finite values.
        """
        if (self.epochs.max(axis=0) == 0).any():
            raise ValueError(
                f"The probes gave NaN or infinite values at each of {len(self.epochs)} learning rates. Give lower "
                "`learning_rates`."
            )
        num_rates, num_seeds = self.dev_scores.shape
        return [
            max(range(num_rates), key=lambda r: (self.dev_scores[r, z], -self.dev_losses[r, z]))
            for z in range(num_seeds)
        ]

    def best_weights(self) -> Weights:
        """The weights of each seed's best learning rate, (1, Z, ...)."""
        rates, seeds = self.best_rates(), list(range(self.dev_scores.shape[1]))
        return {name: values[rates, seeds].unsqueeze(0) for name, values in self.weights.items()}


def first_weights(
    pooling: str, width: int, num_classes: int, recipe: ProbeRecipe, generator: torch.Generator
) -> Weights:
    """First weights of one run: matrices as torch's `Linear` draws them, biases 0, the query near 0.

    A query near 0 pools almost as the mean does; H heads have D' / H dimensions each.

    Args:
        pooling: "mean" or "attention".
        width: D'.
        num_classes: C.
        recipe: says how many heads there are.
        generator: of the seed, on the CPU.
    """

    def matrix(*shape: int) -> Tensor:
        return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(shape[-1])

    weights = {"classifier.weight": matrix(num_classes, width), "classifier.bias": torch.zeros(num_classes)}
    if pooling == "mean":
        return weights
    num_heads = recipe.num_heads(width)
    heads = (num_heads, width // num_heads)
    return weights | {
        "query": 0.02 * torch.randn(heads, generator=generator),
        "key.weight": matrix(*heads, width),
        "value.weight": matrix(*heads, width),
        "value.bias": torch.zeros(heads),
        "output.weight": matrix(width, width),
        "output.bias": torch.zeros(width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }


def mean_pooling(weights: Weights, frames: Tensor, frame_mask: Tensor) -> Tensor:
    """Mean over the real frames: (Z, B, T', D') with mask (Z, B, T') -> (R, Z, B, D'), the same for every rate."""
    real = frame_mask.unsqueeze(-1)
    mean = (frames * real).sum(2) / real.sum(2)
    return mean.expand(len(weights["classifier.weight"]), *mean.shape)


def attention_pooling(weights: Weights, frames: Tensor, frame_mask: Tensor) -> Tensor:
    """Multi-head attention with one learned query, then LayerNorm: (Z, B, T', D') -> (R, Z, B, D')."""
    query = weights["query"] * weights["query"].shape[-1] ** -0.5  # (R, Z, H, D'/H)
    asked = torch.einsum("rzhe,rzhed->zrhd", query, weights["key.weight"])
    scores = torch.einsum("zqd,zbtd->zbqt", asked.flatten(1, 2), frames)  # (Z, B, R * H, T')
    shares = scores.masked_fill(~frame_mask.unsqueeze(2), -math.inf).softmax(-1)
    heard = torch.einsum("zbqt,zbtd->zbqd", shares, frames).unflatten(2, asked.shape[1:3])  # (Z, B, R, H, D')
    values = torch.einsum("zbrhd,rzhed->rzbhe", heard, weights["value.weight"]) + weights["value.bias"].unsqueeze(2)
    joined = torch.einsum("rzbf,rzdf->rzbd", values.flatten(3), weights["output.weight"])
    normed = F.layer_norm(joined + weights["output.bias"].unsqueeze(2), joined.shape[-1:])
    return normed * weights["norm.weight"].unsqueeze(2) + weights["norm.bias"].unsqueeze(2)


POOLINGS = {"mean": mean_pooling, "attention": attention_pooling}


def probe_logits(
    pooling: str, weights: Weights, frames: Tensor, frame_mask: Tensor, dropped: Tensor | None = None
) -> Tensor:
    """Logits (R, Z, B, C) of clips.

    Args:
        pooling: name in `POOLINGS`.
        weights: name -> (R, Z, ...).
        frames: (Z, B, T', D').
        frame_mask: (Z, B, T') True at real frames; each clip has one.
        dropped: (Z, B, D') factors of the pooled vector, in training.
    """
    pooled = POOLINGS[pooling](weights, frames, frame_mask)
    pooled = pooled if dropped is None else pooled * dropped
    logits = torch.einsum("rzbd,rzcd->rzbc", pooled, weights["classifier.weight"])
    return logits + weights["classifier.bias"].unsqueeze(2)


def train_sweep(
    pooling: str,
    clips: ProbeClips,
    train_rows: Tensor,
    dev_rows: Tensor,
    *,
    num_classes: int,
    seeds: Sequence[int],
    recipe: ProbeRecipe,
) -> Sweep:
    """Trains one probe per learning rate and seed.

    Args:
        pooling: name in `POOLINGS`.
        clips: all of them, training and dev.
        train_rows: (Z, N) numbers of the clips that each seed trains on.
        dev_rows: (Z, N') numbers of those that choose its epoch.
        num_classes: C.
        seeds: Z of them.
        recipe: learning rates, epochs, batches, dropout.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    weights = _stacked_first_weights(pooling, clips, num_classes, recipe, generators)
    optimizer = _optimizer(weights, recipe)
    num_steps = recipe.num_epochs * math.ceil(train_rows.shape[1] / recipe.batch_clips)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(recipe, step / num_steps))
    shape = (len(recipe.learning_rates), len(seeds))
    kept = {name: values.detach().clone() for name, values in weights.items()}
    best = Sweep(kept, np.full(shape, -np.inf), np.full(shape, np.inf), np.zeros(shape, dtype=int))
    for epoch in range(recipe.num_epochs):
        orders = [torch.randperm(train_rows.shape[1], generator=generator) for generator in generators]
        epoch_rows = train_rows.gather(1, torch.stack(orders).to(train_rows.device))
        for rows in epoch_rows.split(recipe.batch_clips, dim=1):
            frames, frame_mask = clips.batch(rows)
            dropped = _dropout_factors(pooling, frames, recipe.dropout, generators)
            logits = probe_logits(pooling, weights, frames, frame_mask, dropped)
            optimizer.zero_grad(set_to_none=False)  # the gradients' storage is shared, see `_optimizer`
            clip_losses(logits, clips.targets[rows]).mean(-1).sum().backward()
            optimizer.step()
            schedule.step()
        _keep_better(best, weights, epoch + 1, *_dev_values(pooling, weights, clips, dev_rows, recipe), recipe)
        if not best.goes_on(epoch + 1, recipe).any():
            break
    return best


def predict(pooling: str, weights: Weights, clips: ProbeClips, rows: Tensor, batch_clips: int) -> Tensor:
    """Logits (R, Z, N, C) of the clips of given numbers (Z, N), without dropout."""
    with torch.no_grad():
        parts = [probe_logits(pooling, weights, *clips.batch(part)) for part in rows.split(batch_clips, dim=1)]
    return torch.cat(parts, dim=2)


def clip_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of each clip of each run (R, Z, B): cross-entropy, or the mean over the classes of the binary one.

    Args:
        logits: (R, Z, B, C).
        targets: (Z, B) class indices, or (Z, B, C) 0 and 1.
    """
    if targets.is_floating_point():
        wanted = targets.expand_as(logits).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(-1)
    wanted = targets.expand(logits.shape[:-1])
    return F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none").view(wanted.shape)


def probe_score(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """`score` and its `chance`: accuracy, or mAP over the classes with a positive, and `n_classes_scored`.

    Args:
        logits: (N, C).
        targets: (N,) class indices, or (N, C) 0 and 1.

    Raises:
        ValueError: if no class has a positive.
    """
    if targets.ndim == 1:
        num_classes = logits.shape[1]
        score = accuracy(logits.argmax(axis=1), targets)
        return {"score": score, "chance": 1 / num_classes, "n_classes_scored": num_classes}
    has_positive = targets.any(axis=0) if targets.any() else np.ones(logits.shape[1], dtype=bool)
    found = mean_average_precision(logits[:, has_positive], targets[:, has_positive])
    return {"score": found["mAP"], "chance": found["chance"], "n_classes_scored": found["n_classes_scored"]}


def _stacked_first_weights(
    pooling: str, clips: ProbeClips, num_classes: int, recipe: ProbeRecipe, generators: Sequence[torch.Generator]
) -> Weights:
    """First weights of all runs, (R, Z, ...), with room for their gradients."""
    width, num_rates = clips.frames.shape[1], len(recipe.learning_rates)
    of_seeds = [first_weights(pooling, width, num_classes, recipe, generator) for generator in generators]
    dtype = torch.promote_types(clips.frames.dtype, torch.float32)
    weights: Weights = {}
    for name in of_seeds[0]:
        values = torch.stack([weights_of_seed[name] for weights_of_seed in of_seeds])  # (Z, ...)
        values = values.to(clips.frames.device, dtype).repeat(num_rates, *[1] * values.ndim)
        weights[name] = values.requires_grad_()
        weights[name].grad = torch.zeros_like(values)
    return weights


def _lr_factor(recipe: ProbeRecipe, share: float) -> float:
    """Factor on the learning rate after that share of all steps."""
    return recipe.lr_end_ratio + (1 - recipe.lr_end_ratio) * (1 + math.cos(math.pi * share)) / 2


def _optimizer(weights: Weights, recipe: ProbeRecipe) -> torch.optim.Adam:
    """Adam with one parameter group per learning rate, whose parameters are views of the stacked weights.

    Adam works number by number, so the runs of a group do not meet.
    """
    groups = []
    for place, learning_rate in enumerate(recipe.learning_rates):
        views = [values.detach()[place] for values in weights.values()]
        for view, values in zip(views, weights.values(), strict=True):
            view.grad = values.grad[place]
        groups.append({"params": views, "lr": learning_rate})
    return torch.optim.Adam(groups, weight_decay=recipe.weight_decay, fused=True)


def _dropout_factors(
    pooling: str, frames: Tensor, dropout: float, generators: Sequence[torch.Generator]
) -> Tensor | None:
    """(Z, B, D') zeros with probability `dropout`, else 1 / (1 - dropout); None where nothing is dropped."""
    if pooling == "mean" or dropout == 0:
        return None
    shape = (frames.shape[1], frames.shape[3])
    drawn = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
    return ((drawn >= dropout) / (1 - dropout)).to(frames)


def _dev_values(
    pooling: str, weights: Weights, clips: ProbeClips, dev_rows: Tensor, recipe: ProbeRecipe
) -> tuple[np.ndarray, np.ndarray]:
    """(scores, mean losses) of all runs on their dev clips, each (R, Z)."""
    logits = predict(pooling, weights, clips, dev_rows, recipe.batch_clips)  # (R, Z, N', C)
    targets = clips.targets[dev_rows]
    losses = clip_losses(logits, targets).mean(-1)
    wanted = targets.cpu().numpy()
    scores = [
        [probe_score(logits_of_seed, wanted[z])["score"] for z, logits_of_seed in enumerate(logits_of_rate)]
        for logits_of_rate in logits.cpu().numpy()
    ]
    return np.array(scores), losses.cpu().numpy()


def _keep_better(
    best: Sweep, weights: Weights, epoch: int, scores: np.ndarray, losses: np.ndarray, recipe: ProbeRecipe
) -> None:
    """Takes over what is finite and better than before, run by run; a run out of patience stays as it is."""
    wins_equal = (losses < best.dev_losses) | recipe.takes_last_equal
    is_better = (scores > best.dev_scores) | ((scores == best.dev_scores) & wins_equal)  # (R, Z)
    is_better &= best.goes_on(epoch - 1, recipe) & np.isfinite(losses)
    best.dev_scores[is_better] = scores[is_better]
    best.dev_losses[is_better] = losses[is_better]
    best.epochs[is_better] = epoch
    taken = torch.from_numpy(is_better)
    for name, values in weights.items():
        best.weights[name][taken] = values.detach()[taken]


__all__ = [
    "POOLINGS",
    "ProbeClips",
    "ProbeRecipe",
    "Sweep",
    "attention_pooling",
    "clip_losses",
    "first_weights",
    "mean_pooling",
    "predict",
    "probe_logits",
    "probe_score",
    "train_sweep",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""MARBLE's probe: layers of a frozen encoder -> softmax-weighted sum -> MLP -> outputs of each piece of a clip.

    rows (M, L, D') -> (M, D') -> Linear -> ReLU -> dropout -> Linear -> (M, C) -> mean over the pieces -> (N, C)

A run is one learning rate and one seed. Its learning rate is halved when the dev score stands still, it ends when that
has stood still for longer, and the weights of its best epoch are kept; of equal scores the smaller loss is better.
"""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .metrics import r2_score
from .probe_training import probe_score

TargetKind = Literal["single", "multi", "numbers"]
EVALUATION_ROWS = 4096  # pieces of a forward pass without gradients


@dataclass(frozen=True)
class LayerRecipe:
    """How probes of layers are trained: MARBLE's numbers; where it has a range, the ends that train least.

    Attributes:
        learning_rates: those tried.
        hidden_size: of the one hidden layer.
        dropout: after it.
        batch_rows: pieces of a step.
        num_epochs: at most.
        plateau_patience: epochs without a better dev score before the learning rate is halved.
        patience: epochs without a better dev score or loss before a run ends.
    """

    learning_rates: tuple[float, ...] = (1e-2, 5e-3, 1e-3, 5e-4, 1e-4)
    hidden_size: int = 512
    dropout: float = 0.2
    batch_rows: int = 64
    num_epochs: int = 100
    plateau_patience: int = 3
    patience: int = 10


@dataclass(frozen=True)
class LayerClips:
    """Clips of layer features, in one place of one device.

    Attributes:
        rows: (M, L, D') pieces, clip after clip.
        lengths: (N,) pieces of each clip.
        targets: (N,) class index of each clip ("single"), (N, C) 0 and 1 ("multi"), or (N, C) numbers ("numbers").
        kind: which of the three.
    """

    rows: Tensor
    lengths: Tensor
    targets: Tensor
    kind: TargetKind

    @cached_property
    def clip_of_row(self) -> Tensor:
        """(M,) number of the clip that each piece belongs to."""
        return torch.repeat_interleave(self.lengths)

    def take(self, clips: Tensor) -> "LayerClips":
        """Some of the clips, in the order of their rows."""
        is_taken = torch.zeros(len(self.lengths), dtype=torch.bool, device=self.lengths.device)
        is_taken[clips] = True
        return LayerClips(
            self.rows[is_taken[self.clip_of_row]], self.lengths[is_taken], self.targets[is_taken], self.kind
        )

    def layer(self, number: int) -> "LayerClips":
        """The clips with one layer alone."""
        return LayerClips(self.rows[:, number : number + 1], self.lengths, self.targets, self.kind)


class LayerMlp(nn.Module):
    """An MLP with one hidden layer on the softmax-weighted sum of the layers, at first their mean."""

    def __init__(self, num_layers: int, width: int, num_outputs: int, recipe: LayerRecipe):
        super().__init__()
        self.layer_logits = nn.Parameter(torch.zeros(num_layers))
        self.mlp = nn.Sequential(
            nn.Linear(width, recipe.hidden_size),
            nn.ReLU(),
            nn.Dropout(recipe.dropout),
            nn.Linear(recipe.hidden_size, num_outputs),
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Outputs (M, C) of pieces (M, L, D')."""
        return self.mlp(torch.einsum("l,mld->md", self.layer_logits.softmax(0), rows))


@dataclass(frozen=True)
class LayerRun:
    """A trained probe.

    Attributes:
        probe: with the weights of its best epoch.
        learning_rate: at the beginning.
        epoch: the best one, from 1.
        dev_score: accuracy, mAP or mean R2 on the dev clips then.
        dev_loss: on them then.
    """

    probe: LayerMlp
    learning_rate: float
    epoch: int
    dev_score: float
    dev_loss: float

    @property
    def merit(self) -> tuple[float, float]:
        """What runs are chosen by; higher is better."""
        return self.dev_score, -self.dev_loss

    @property
    def layer_weights(self) -> list[float]:
        """Share of each layer in the sum."""
        return self.probe.layer_logits.detach().softmax(0).tolist()


def train_best(train: LayerClips, dev: LayerClips, num_outputs: int, seed: int, recipe: LayerRecipe) -> LayerRun:
    """The run of the learning rate that is best on the dev clips; the first among equals.

    Args:
        train: clips that are trained on.
        dev: clips that choose learning rate and epoch.
        num_outputs: C.
        seed: draws first weights, order and dropout.
        recipe: how probes are trained.

    Raises:
        ValueError: if no learning rate gives finite values.
    """
    runs = [_train(train, dev, num_outputs, seed, rate, recipe) for rate in recipe.learning_rates]
    best = max(runs, key=lambda run: run.merit)
    if best.epoch == 0:
        raise ValueError(
            f"The probes gave NaN or infinite values at each learning rate of {recipe.learning_rates}. Give lower "
            "`learning_rates`."
        )
    return best


def clip_outputs(probe: LayerMlp, clips: LayerClips) -> Tensor:
    """Outputs (N, C) of clips, the mean over their pieces, without dropout."""
    probe.eval()
    with torch.no_grad():
        of_rows = torch.cat([probe(rows) for rows in clips.rows.split(EVALUATION_ROWS)])  # (M, C)
    sums = of_rows.new_zeros(len(clips.lengths), of_rows.shape[1]).index_add_(0, clips.clip_of_row, of_rows)
    return sums / clips.lengths.unsqueeze(1)


def output_loss(outputs: Tensor, targets: Tensor, kind: TargetKind) -> Tensor:
    """() mean cross-entropy, binary cross-entropy or squared error of outputs (N, C)."""
    if kind == "single":
        return F.cross_entropy(outputs, targets)
    return (F.mse_loss if kind == "numbers" else F.binary_cross_entropy_with_logits)(outputs, targets)


def output_score(outputs: np.ndarray, targets: np.ndarray, kind: TargetKind) -> float:
    """Accuracy, mAP over the classes with a positive, or the mean over the columns of R2."""
    if kind != "numbers":
        return probe_score(outputs, targets)["score"]
    return float(np.mean([r2_score(outputs[:, c], targets[:, c]) for c in range(targets.shape[1])]))


def _train(
    train: LayerClips, dev: LayerClips, num_outputs: int, seed: int, learning_rate: float, recipe: LayerRecipe
) -> LayerRun:
    num_layers, width = train.rows.shape[1:]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        probe = LayerMlp(num_layers, width, num_outputs, recipe).to(train.rows.device)
        optimizer = torch.optim.Adam(probe.parameters(), lr=learning_rate)
        schedule = ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=recipe.plateau_patience)
        best, weights = LayerRun(probe, learning_rate, 0, -np.inf, np.inf), probe.state_dict()
        for epoch in range(1, recipe.num_epochs + 1):
            _train_epoch(probe, optimizer, train, recipe.batch_rows)
            outputs = clip_outputs(probe, dev)
            if not outputs.isfinite().all():
                break
            score = output_score(outputs.cpu().numpy(), dev.targets.cpu().numpy(), dev.kind)
            found = LayerRun(probe, learning_rate, epoch, score, output_loss(outputs, dev.targets, dev.kind).item())
            schedule.step(score)
            if found.merit > best.merit:
                best, weights = found, deepcopy(probe.state_dict())
            elif epoch - best.epoch >= recipe.patience:
                break
    probe.load_state_dict(weights)
    return best


def _train_epoch(probe: LayerMlp, optimizer: torch.optim.Optimizer, train: LayerClips, batch_rows: int) -> None:
    probe.train()
    order = torch.randperm(len(train.rows)).to(train.rows.device)
    for rows in order.split(batch_rows):
        optimizer.zero_grad()
        output_loss(probe(train.rows[rows]), train.targets[train.clip_of_row[rows]], train.kind).backward()
        optimizer.step()


__all__ = [
    "LayerClips",
    "LayerMlp",
    "LayerRecipe",
    "LayerRun",
    "TargetKind",
    "clip_outputs",
    "output_loss",
    "output_score",
    "train_best",
]

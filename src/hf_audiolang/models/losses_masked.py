# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Masked self-distillation: the student's prototype scores at hidden tokens follow the teacher's (SLAP Eq. 4-5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .losses_distributed import max_over_processes, sum_over_processes


@dataclass
class PrototypeLossOutput:
    """Result of `prototype_loss`.

    Attributes:
        loss: () weighted cross-entropy in nats.
        score_sum: (K,) sum of the teacher's raw scores over the tokens, for the centre.
        metrics: name -> () detached: `agreement` (share of tokens where both name the same prototype),
            `teacher_entropy` in nats, `effective_prototypes` (exp of the entropy of the mean teacher distribution:
            K when all are used alike, 1 at collapse).
    """

    loss: Tensor
    score_sum: Tensor
    metrics: dict[str, Tensor]


@dataclass(frozen=True)
class TargetRule:
    """How teacher scores become targets.

    Attributes:
        centering: "centering" subtracts `center` before the softmax, "none" does not, "sinkhorn" balances the use of
            the prototypes over the batch with three Sinkhorn-Knopp iterations (SwAV, DINOv2).
        temperature: teacher temperature.
        center: (1, K) running mean of teacher scores.
    """

    centering: str
    temperature: float
    center: Tensor

    def __call__(self, scores: Tensor) -> Tensor:
        """Target distribution: (M, K) raw scores -> (M, K) rows that sum to 1."""
        if self.centering == "sinkhorn":
            return sinkhorn_targets(scores, self.temperature)
        center = self.center if self.centering == "centering" else 0.0
        return ((scores - center) / self.temperature).softmax(-1)


def prototype_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    token_weights: Tensor,
    *,
    student_temperature: float,
    target_rule: TargetRule,
    chunk_size: int = 0,
) -> PrototypeLossOutput:
    """Cross-entropy between teacher targets and student scores (SLAP Eq. 4-5, with the logarithm Eq. 5 lacks).

    Args:
        student: (M, b) unit-norm features at hidden tokens, and (K, b) unit-norm prototypes.
        teacher: the same from the teacher, without gradient.
        token_weights: (M,) weight of each token; they sum to 1 over a batch.
        student_temperature: temperature of the student's softmax.
        target_rule: turns teacher scores into targets.
        chunk_size: tokens per block whose scores are recomputed in the backward pass; 0 keeps all scores, which
            "sinkhorn" needs.
    """
    features, prototypes = student
    teacher_features, teacher_prototypes = (part.detach() for part in teacher)

    def block(features: Tensor, prototypes: Tensor, teacher_features: Tensor, weights: Tensor):
        with torch.no_grad():
            scores = teacher_features @ teacher_prototypes.T
            targets = target_rule(scores)
        log_probs = (features @ prototypes.T / student_temperature).log_softmax(-1)
        loss = -((targets * log_probs).sum(-1) * weights).sum()
        with torch.no_grad():
            agreed = (targets.argmax(-1) == log_probs.argmax(-1)).float().sum()
            entropy = torch.special.entr(targets).sum()
        return loss, scores.sum(0), targets.sum(0), agreed, entropy

    sizes = chunk_size or max(len(features), 1)
    blocks = zip(features.split(sizes), teacher_features.split(sizes), token_weights.split(sizes), strict=True)
    parts = []
    for chunk, teacher_chunk, weights in blocks:
        inputs = (chunk, prototypes, teacher_chunk, weights)
        parts.append(checkpoint(block, *inputs, use_reentrant=False) if chunk_size else block(*inputs))
    loss, score_sum, target_sum, agreed, entropy = (torch.stack(values).sum(0) for values in zip(*parts, strict=True))
    num_tokens = max(len(features), 1)
    mean_target = target_sum / num_tokens
    metrics = {
        "agreement": agreed / num_tokens,
        "teacher_entropy": entropy / num_tokens,
        "effective_prototypes": torch.special.entr(mean_target).sum().exp(),
    }
    return PrototypeLossOutput(loss, score_sum, metrics)


@torch.no_grad()
def sinkhorn_targets(scores: Tensor, temperature: float, num_iterations: int = 3) -> Tensor:
    """Targets that use all prototypes alike over the tokens of all processes: (M, K) -> (M, K), rows sum to 1."""
    shifted = scores / temperature
    plan = (shifted - max_over_processes(shifted.max())).exp()  # one shift for all processes cancels out
    num_tokens = sum_over_processes(torch.tensor(float(len(scores)), device=scores.device))
    plan = plan / sum_over_processes(plan.sum())
    for _ in range(num_iterations):
        plan = plan / sum_over_processes(plan.sum(0, keepdim=True)) / scores.shape[1]
        plan = plan / plan.sum(1, keepdim=True) / num_tokens
    return plan * num_tokens


@torch.no_grad()
def update_center(center: Tensor, score_sum: Tensor, num_tokens: int, momentum: float) -> None:
    """Moves `center` (1, K) in place to the mean teacher score of the tokens of all processes."""
    count = sum_over_processes(torch.tensor(float(num_tokens), device=center.device))
    mean = sum_over_processes(score_sum) / count.clamp(min=1)
    center.mul_(momentum).add_(mean.unsqueeze(0), alpha=1 - momentum)


def clip_token_weights(seq_ids: Tensor, num_clips: int) -> Tensor:
    """Weights under which every clip counts 1 / num_clips, whatever its number of hidden tokens: (M,) -> (M,)."""
    counts = torch.bincount(seq_ids, minlength=num_clips)
    return 1.0 / (counts[seq_ids] * num_clips)


__all__ = [
    "PrototypeLossOutput",
    "TargetRule",
    "clip_token_weights",
    "prototype_loss",
    "sinkhorn_targets",
    "update_center",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Codebook shared by audio and text, and the sparsemax that weighs its codewords (MGA-CLAP, section 3.2).

frame or word features (B, L, D)
  -> affinity to each codeword (B, L, M) -> pooled over L (B, M)
  -> sparsemax: non-negative weights of sum 1, most of them 0 (B, M)
  -> weighted sum of codewords (B, D), not normalised
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers_pooling import masked_mean

MANY_DEAD = 0.1  # share of codewords without use above which a codebook is called too wide; our choice
MASK_MODES = ("zero", "neg_inf")
POOLINGS = ("max", "mean")
ACTIVATIONS = ("sparsemax", "softmax")


def sparsemax(scores: Tensor) -> Tensor:
    """Euclidean projection of every row onto the probability simplex (Martins & Astudillo 2016, Eq. 2 and Alg. 1).

    Args:
        scores: (..., M) in any floating dtype; -inf gets weight 0, but one score per row must be finite.

    Returns:
        (..., M) in the dtype of `scores`: non-negative rows of sum 1, `max(scores - threshold, 0)`. The computation is
        float32, also under autocast (float64 stays float64), because float16 does not resolve scores of 1e-3.
    """
    return _Sparsemax.apply(scores.to(_compute_dtype(scores))).to(scores.dtype)


class SharedCodebook(nn.Module):
    """Aggregates frames of audio, or words of text, through M codewords that both share (MGA-CLAP Eq. 2 and 3).

    Everything is computed and returned in float32, also under autocast (float64 stays float64). The affinity of a
    position to a codeword is their inner product over `affinity_divisor`. Codewords start as standard normals.

    Args:
        affinity_divisor: positive; None is the released code's sqrt(D) * 1000, which fits M = 4096. The paper's
            temperature (Eq. 2) is passed here as it is. A smaller divisor makes fewer codewords active.
        mask_mode: what masked positions score before the maximum: "zero" (released code) or "neg_inf" (they are left
            out). With "zero" a row that has a masked position gets `relu(max over real positions)`, for any number of
            masked positions. A row without one, or a call without a mask, gets the plain maximum.
        normalize_affinity: cosine in place of the inner product (the paper's introduction); codewords keep their
            length in the weighted sum.
        pooling: over positions, "max" or "mean" (paper Table 6); the mean is over real positions (our choice: the
            length of the padding must not matter).
        activation: "sparsemax" or "softmax" (paper Table 6).

    Raises:
        ValueError: for an unknown mode or a divisor that is not positive.
    """

    def __init__(
        self,
        num_codewords: int,
        hidden_size: int,
        *,
        affinity_divisor: float | None = None,
        mask_mode: str = "zero",
        normalize_affinity: bool = False,
        pooling: str = "max",
        activation: str = "sparsemax",
    ):
        super().__init__()
        _check_choice("mask_mode", mask_mode, MASK_MODES)
        _check_choice("pooling", pooling, POOLINGS)
        _check_choice("activation", activation, ACTIVATIONS)
        if affinity_divisor is not None and not affinity_divisor > 0:
            raise ValueError(
                f"`affinity_divisor` must be positive, got {affinity_divisor}. Pass None for the default."
            )
        self.affinity_divisor = hidden_size**0.5 * 1000 if affinity_divisor is None else affinity_divisor
        self.mask_mode = mask_mode
        self.normalize_affinity = normalize_affinity
        self.pooling = pooling
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(num_codewords, hidden_size))
        # what this process has used in training, for a warning; not part of a checkpoint
        self.register_buffer("is_used", torch.zeros(num_codewords, dtype=torch.bool), persistent=False)

    def forward(
        self, features: Tensor, mask: Tensor | None = None, mask_mode: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D), not normalised, and the codeword weights (B, M) they are sums of.

        Args:
            features: (B, L, D) frame or word features; masked positions may hold anything.
            mask: (B, L) boolean or 0/1, True = real position. None when all are real, as for audio in the paper. A row
                without a real position gets equal weights.
            mask_mode: instead of the codebook's own.
        """
        dtype = _compute_dtype(features, self.weight)
        with torch.autocast(features.device.type, enabled=False):
            features, codewords = features.to(dtype), self.weight.to(dtype)
            is_real = None if mask is None else mask.bool()
            scores = self._scores(features, codewords, is_real, mask_mode or self.mask_mode)  # (B, M)
            weights = self._activate(scores)
        if self.training:
            self.is_used |= (weights.detach() > 0).any(0)
        with torch.autocast(features.device.type, enabled=False):
            return weights @ codewords, weights

    def frame_weights(self, features: Tensor) -> Tensor:
        """Codeword weights of each position alone: (B, L, D) -> (B, L, M).

        They are those of `forward` on (B * L, 1, D); `frame_weights(features) @ weight` are the vectors (B, L, D).
        """
        dtype = _compute_dtype(features, self.weight)
        with torch.autocast(features.device.type, enabled=False):
            return self._activate(self._affinity(features.to(dtype), self.weight.to(dtype)))

    def _scores(self, features: Tensor, codewords: Tensor, mask: Tensor | None, mask_mode: str) -> Tensor:
        """Affinities pooled over positions: (B, L, D) -> (B, M)."""
        if mask is not None:
            # a feature of zeros has affinity 0, so zeros need not be written into the larger (B, L, M)
            features = features.masked_fill(~mask.unsqueeze(-1), 0.0)
        if self.pooling == "mean":
            return self._mean_affinity(features, codewords, mask)
        affinity = self._affinity(features, codewords)  # (B, L, M)
        if mask is not None and mask_mode == "neg_inf":
            # the lowest number and not -inf: a row that is all masked stays finite
            affinity = affinity.masked_fill(~mask.unsqueeze(-1), torch.finfo(affinity.dtype).min)
        # `max`, not `amax`: its backward keeps the positions (B, M) and lets (B, L, M) go
        return affinity.max(dim=1).values

    def _mean_affinity(self, features: Tensor, codewords: Tensor, mask: Tensor | None) -> Tensor:
        """Affinity of the mean feature, which is the mean affinity because affinities are linear: (B, M)."""
        if self.normalize_affinity:
            features, codewords = F.normalize(features, dim=-1), F.normalize(codewords, dim=-1)
        mean = features.mean(1) if mask is None else masked_mean(features, mask)  # (B, D)
        return mean @ codewords.T / self.affinity_divisor

    def _affinity(self, features: Tensor, codewords: Tensor) -> Tensor:
        """Affinity of every position to every codeword: (B, L, D) -> (B, L, M)."""
        if self.normalize_affinity:
            features, codewords = F.normalize(features, dim=-1), F.normalize(codewords, dim=-1)
        return (features / self.affinity_divisor) @ codewords.T

    def _activate(self, scores: Tensor) -> Tensor:
        return sparsemax(scores) if self.activation == "sparsemax" else scores.softmax(-1)


class _Sparsemax(torch.autograd.Function):
    """Sparsemax that keeps its output only; the support is where the output is positive."""

    @staticmethod
    def forward(ctx, scores: Tensor) -> Tensor:
        weights = _project(scores)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (weights,) = ctx.saved_tensors
        support = weights > 0
        kept = torch.where(support, grad, 0.0)
        mean = kept.sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
        return torch.where(support, kept - mean, 0.0)


@torch.compiler.disable
def _project(scores: Tensor) -> Tensor:
    """Rows of `scores` (..., M) projected onto the simplex, without a sort.

    The threshold solves `sum(max(scores - threshold, 0)) = 1`. The left side is convex, decreasing and piecewise
    linear, so Newton steps from below never overshoot and are exact once the support stands still: after M steps at
    the latest, in practice after 3 to 10. A sort of rows of 4096 takes longer than that.
    """
    scores = scores - scores.amax(-1, keepdim=True)
    threshold = torch.full_like(scores[..., :1], -1.0)  # of a one-hot result, the lowest there is
    num_kept = torch.full_like(threshold, scores.shape[-1] + 1, dtype=torch.long)
    excess = torch.empty_like(scores)
    while True:
        torch.sub(scores, threshold, out=excess).clamp_(min=0)
        num_positive = torch.count_nonzero(excess, dim=-1).unsqueeze(-1)
        if not (num_positive < num_kept).any():
            return excess
        num_kept = torch.minimum(num_kept, num_positive)
        threshold += (excess.sum(-1, keepdim=True) - 1) / num_positive


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if a tensor is, else float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"Unknown `{name}` {value!r}. Choose one of {sorted(allowed)}.")


__all__ = ["MANY_DEAD", "SharedCodebook", "sparsemax"]

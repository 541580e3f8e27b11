# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Similarity of a clip and a caption out of their frames and words, without one vector for each (MGA-CLAP Table 4).

frames (A, T, E) and words (B, L, E), unit-norm, with masks -> similarities (A, B) in [-1, 1]

uaca       mean over frames, mean over words (UACA)
wstag      highest frame of each word, mean over words (WSTAG)
attention  frames weighted by a softmax over their similarity to the caption's mean word (PACL)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .layers_pooling import masked_mean, unit_rows


def mean_mean_scores(frames: Tensor, frame_mask: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
    """Mean over all pairs of a frame and a word, which is the product of the two means: (A, B).

    Args:
        frames: (A, T, E) unit-norm; `words` (B, L, E) alike.
        frame_mask: (A, T) bool, True at real frames; `word_mask` (B, L) alike.
        words: see `frames`.
        word_mask: see `frame_mask`.
    """
    return masked_mean(frames, frame_mask) @ masked_mean(words, word_mask).T


def max_mean_scores(frames: Tensor, frame_mask: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
    """Mean over the words of the highest similarity to a frame: (A, B); arguments as `mean_mean_scores`."""
    scores = torch.einsum("ate,ble->atbl", frames, words)
    scores = scores.masked_fill(~frame_mask[:, :, None, None], torch.finfo(scores.dtype).min)
    best = scores.max(dim=1).values  # (A, B, L)
    return (best * word_mask).sum(-1) / word_mask.sum(-1).clamp(min=1)


def attention_scores(frames: Tensor, frame_mask: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
    """Similarity of the caption to the frames it attends to: (A, B); arguments as `mean_mean_scores`.

    The caption is the normalised mean of its words (our choice: the words of all systems here are pooled by their
    mean). The weighted frames are not normalised again, so the similarity is the weighted mean of the frames' own.
    """
    scores = torch.einsum("ate,be->abt", frames, unit_rows(masked_mean(words, word_mask)))
    shares = scores.masked_fill(~frame_mask.unsqueeze(1), float("-inf")).softmax(-1)
    return (shares * scores).sum(-1)


PAIR_SCORES = {"uaca": mean_mean_scores, "wstag": max_mean_scores, "attention": attention_scores}

__all__ = ["PAIR_SCORES", "attention_scores", "max_mean_scores", "mean_mean_scores"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Pair scores against loops over clips, captions, frames and words."""

import math

import pytest
import torch
import torch.nn.functional as F

from hf_audiolang.models.layers_pair_scores import PAIR_SCORES

FRAMES, WORDS = torch.tensor([[5], [2], [4]]), torch.tensor([[3], [1]])


def inputs():
    generator = torch.Generator().manual_seed(0)
    frames = F.normalize(torch.randn(3, 5, 7, generator=generator), dim=-1)
    words = F.normalize(torch.randn(2, 3, 7, generator=generator), dim=-1)
    return frames, torch.arange(5) < FRAMES, words, torch.arange(3) < WORDS


def restated(name, frames, words):
    """The score of one clip's real frames (T, E) and one caption's real words (L, E)."""
    table = [[float(f @ w) for w in words] for f in frames]
    if name == "uaca":
        return sum(map(sum, table)) / (len(frames) * len(words))
    if name == "wstag":
        return sum(max(row[k] for row in table) for k in range(len(words))) / len(words)
    caption = F.normalize(words.mean(0), dim=0)
    scores = [float(f @ caption) for f in frames]
    shares = [math.exp(score) for score in scores]
    return sum(share * score for share, score in zip(shares, scores, strict=True)) / sum(shares)


@pytest.mark.parametrize("name", PAIR_SCORES)
def test_scores_are_the_formula_on_real_frames_and_words(name):
    frames, frame_mask, words, word_mask = inputs()
    got = PAIR_SCORES[name](frames, frame_mask, words, word_mask)
    for a in range(3):
        for b in range(2):
            wanted = restated(name, frames[a][frame_mask[a]], words[b][word_mask[b]])
            assert got[a, b].item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("name", PAIR_SCORES)
def test_padding_may_hold_anything(name):
    frames, frame_mask, words, word_mask = inputs()
    clean = PAIR_SCORES[name](frames, frame_mask, words, word_mask)
    frames = frames.masked_fill(~frame_mask.unsqueeze(-1), 9.0)
    words = words.masked_fill(~word_mask.unsqueeze(-1), -9.0)
    torch.testing.assert_close(PAIR_SCORES[name](frames, frame_mask, words, word_mask), clean)

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Masked positions: how many, where, and how they lie."""

import pytest
import torch

from hf_audiolang.models.layers_masking import block_masked_positions, random_masked_positions

BANDS = 4
STEPS = (7, 1, 4, 188, 2)
TOKEN_MASK = torch.arange(BANDS * max(STEPS)) < BANDS * torch.tensor(STEPS).unsqueeze(1)


def draw(style, ratio, seed=0):
    torch.manual_seed(seed)
    if style == "random":
        return random_masked_positions(TOKEN_MASK, ratio)
    return block_masked_positions(TOKEN_MASK, ratio, BANDS)


@pytest.mark.parametrize("style", ["random", "block"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_every_clip_hides_its_share_of_real_tokens(style, ratio):
    for seed in range(3):
        hidden = draw(style, ratio, seed)
        assert hidden.dtype == torch.bool
        assert not (hidden & ~TOKEN_MASK).any()
        for row, steps in zip(hidden, STEPS, strict=True):
            number = BANDS * steps
            assert int(row.sum()) == min(max(round(ratio * number), 1), number - 1)


@pytest.mark.parametrize("style", ["random", "block"])
def test_draws_follow_the_seed(style):
    assert torch.equal(draw(style, 0.5, seed=1), draw(style, 0.5, seed=1))
    assert not torch.equal(draw(style, 0.5, seed=1), draw(style, 0.5, seed=2))


def test_random_positions_are_uniform():
    torch.manual_seed(0)
    mask = TOKEN_MASK[:1].expand(4000, -1)
    share = random_masked_positions(mask, 0.25)[:, : BANDS * 7].float().mean(0)
    assert share.sub(0.25).abs().max() < 0.03  # four standard deviations of 4000 draws


def test_clips_of_a_batch_are_drawn_apart():
    torch.manual_seed(0)
    hidden = random_masked_positions(torch.ones(2, 40, dtype=torch.bool), 0.5)
    assert not torch.equal(hidden[0], hidden[1])


def neighbours_alike(hidden):
    """Share of time-neighbours in the longest clip that are both hidden or both seen."""
    grid = hidden[3].view(-1, BANDS)
    return (grid[1:] == grid[:-1]).float().mean().item()


def test_blocks_are_contiguous_and_single_tokens_are_not():
    block = sum(neighbours_alike(draw("block", 0.5, seed)) for seed in range(10)) / 10
    single = sum(neighbours_alike(draw("random", 0.5, seed)) for seed in range(10)) / 10
    assert abs(single - 0.5) < 0.05
    assert block > 0.75


def test_block_rectangles_reach_all_places():
    torch.manual_seed(0)
    mask = torch.ones(1, BANDS * 12, dtype=torch.bool)
    share = torch.stack([block_masked_positions(mask, 0.4, BANDS)[0] for _ in range(300)]).float().mean(0)
    assert share.min() > 0.1
    assert share.max() < 0.8

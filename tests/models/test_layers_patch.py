# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Patches: their order, what fills them, and what they never see."""

import math

import pytest
import torch

from hf_audiolang.models.layers_patch import patchify, time_steps_of

FRAMES = (11, 4, 1, 8)


def make_batch(num_mel_bins=6):
    features = torch.randn(len(FRAMES), max(FRAMES), num_mel_bins, generator=torch.Generator().manual_seed(0))
    return features, torch.arange(max(FRAMES)) < torch.tensor(FRAMES).unsqueeze(1)


def test_patches_equal_plain_loops():
    features, mask = make_batch()
    patches, token_mask = patchify(features, mask, 4, 2)
    assert patches.shape == (4, 9, 8)  # 3 steps of 3 bands
    for clip, frames in enumerate(FRAMES):
        for token in range(9):
            step, band = token // 3, token % 3  # time is the slow axis
            assert bool(token_mask[clip, token]) == (step < math.ceil(frames / 4))
            tile = [
                features[clip, frame, 2 * band + bin].item() if frame < frames else 0.0
                for frame in range(4 * step, 4 * step + 4)
                for bin in range(2)
            ]
            assert patches[clip, token].tolist() == tile


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 99.0])
def test_padding_never_reaches_a_patch(poison):
    features, mask = make_batch()
    clean = patchify(features, mask, 4, 2)[0]
    assert torch.equal(patchify(features.masked_fill(~mask.unsqueeze(-1), poison), mask, 4, 2)[0], clean)
    longer = torch.nn.functional.pad(features, (0, 0, 0, 9), value=poison)
    patches, token_mask = patchify(longer, torch.nn.functional.pad(mask, (0, 9)), 4, 2)
    assert torch.equal(patches[:, :9], clean)
    assert not token_mask[:, 9:].any()


def test_gradient_reaches_real_frames_only():
    features, mask = make_batch()
    features.requires_grad_()
    patchify(features, mask, 4, 2)[0].sum().backward()
    assert torch.equal(features.grad, mask.unsqueeze(-1).expand_as(features).float())


def test_no_mask_means_all_frames():
    features, _ = make_batch()
    patches, token_mask = patchify(features, None, 4, 2)
    assert torch.equal(patches, patchify(features, torch.ones(4, 11), 4, 2)[0])
    assert token_mask.all()


@pytest.mark.parametrize(
    ("shape", "mask_shape", "message"),
    [
        ((2, 9, 7), None, r"multiple of 2, got \(2, 9, 7\)"),
        ((9, 6), None, r"got \(9, 6\)"),
        ((2, 9, 6), (2, 8), r"must be \(2, 9\).*got \(2, 8\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape, mask_shape, message):
    mask = None if mask_shape is None else torch.ones(mask_shape)
    with pytest.raises(ValueError, match=message):
        patchify(torch.zeros(shape), mask, 4, 2)


def test_tokens_of_one_time_step_are_grouped():
    tokens = torch.arange(24).view(2, 6, 2)
    assert time_steps_of(tokens, 3)[1, 1].tolist() == [[18, 19], [20, 21], [22, 23]]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Clips of one patch column beside longer ones: training goes on whatever mask is drawn."""

import pytest
import torch
from tiny import tiny_m2d_clap_config

from hf_audiolang import M2dClapForPreTraining
from hf_audiolang.models.layers_masking import hide_one_each, show_one_each

FRAMES = torch.tensor([9, 98])


@pytest.mark.parametrize("masked_weight", [0.0, 1.0])
@pytest.mark.parametrize(
    "numbers",
    [
        {"mask_style": "span", "masking_ratio": 0.7},
        {"mask_style": "structured", "masking_ratio": 0.3},
        {"mask_style": "structured", "masking_ratio": 0.5},
        {"masking_ratio": 0.9},
        {"masking_ratio": 0.01},
    ],
    ids=str,
)
def test_one_column_trains_under_every_draw(numbers, masked_weight):
    model = M2dClapForPreTraining(tiny_m2d_clap_config(text_config=None, masked_weight=masked_weight, **numbers))
    mask = torch.arange(98) < FRAMES.unsqueeze(1)
    for seed in range(20):
        torch.manual_seed(seed)
        outputs = model(torch.randn(2, 98, 80), mask, text_embeddings=torch.randn(2, 10))
        assert torch.isfinite(outputs.loss)


def test_a_clip_without_a_second_token_cannot_be_predicted():
    audio = {"patch_mel_bins": 80, "patch_frames": 2, "max_frames": 20}
    model = M2dClapForPreTraining(tiny_m2d_clap_config(text_config=None, audio_config=audio))
    with pytest.raises(ValueError, match="one patch"):
        model(torch.randn(1, 2, 80), text_embeddings=torch.randn(1, 10))


def test_only_clips_that_are_all_hidden_or_all_shown_change():
    real = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 1, 0]]).bool()
    hidden = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]).bool()
    shown = show_one_each(hidden, real)
    assert shown.int().tolist() == [[0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert hide_one_each(shown, real).int().tolist() == [[0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The hard-negative loss and its gradients against numbers that the authors' own code gave, in float64.

The numbers and how they were made: tests/convert/mga_official_outputs.json and record_mga_official.py. Whole models
are compared in tests/convert/test_convert_mga_recorded.py.
"""

import json
from pathlib import Path

import mga_official
import pytest
import torch
from mga_official import some_embeddings
from tiny import tiny_mga_clap_config

from hf_audiolang import MgaClapModel

CLIP_IDS = {"distinct": [3, 1, 4, 0, 5], "repeated": [3, 1, 3, 0, 1]}
RECORDED = json.loads(Path(mga_official.__file__).with_name("mga_official_outputs.json").read_text("utf-8"))["loss"]


def loss_and_gradients(name, dtype=torch.float64, clip_ids=None, **overrides):
    """Loss, and the gradients of clips, captions and temperature."""
    model = MgaClapModel(tiny_mga_clap_config(**overrides)).to(dtype)
    with torch.no_grad():
        model.logit_scale.temperature.fill_(0.09)
    audio, text = (some_embeddings(side).to(dtype).requires_grad_() for side in ("audio", "text"))
    ids = torch.tensor(CLIP_IDS[name] if clip_ids is None else clip_ids)
    loss = model.contrastive_loss(audio, text, ids)
    loss.backward()
    return loss.detach(), audio.grad, text.grad, model.logit_scale.temperature.grad


@pytest.mark.parametrize("name", CLIP_IDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-6)])
def test_loss_and_gradients_are_the_authors(name, dtype, tolerance):
    recorded = RECORDED[name]
    loss, *gradients = loss_and_gradients(name, dtype)
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-6)
    for found, key in zip(gradients, ("audio_gradient", "text_gradient", "temperature_gradient"), strict=True):
        wanted = torch.tensor(recorded[key], dtype=torch.float64).view(found.shape)
        torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)


def test_distinct_ids_may_be_left_out():
    found = loss_and_gradients("distinct", clip_ids=list(range(5)))[0]
    assert found.item() == pytest.approx(RECORDED["distinct"]["loss"], rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"hard_negative_denominator": "row"}, {"hard_negative_denominator": "paper"}, {"hard_negative_gamma": 0.0}],
)
def test_other_weights_give_other_numbers(change):
    """Control: what the paper says, and what the code seems to mean."""
    loss, audio_gradient, _, _ = loss_and_gradients("repeated", **change)
    assert abs(loss.item() - RECORDED["repeated"]["loss"]) > 1e-3
    wanted = torch.tensor(RECORDED["repeated"]["audio_gradient"], dtype=torch.float64).view(5, 7)
    assert (audio_gradient - wanted).abs().max() > 1e-3

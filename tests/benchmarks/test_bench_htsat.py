# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The HTS-AT suite: the peer really runs our weights, and unequal outputs or gradients are not timed."""

import pytest
import torch

from hf_audiolang.benchmarks import run_suite
from hf_audiolang.benchmarks.htsat import htsat
from hf_audiolang.models.modeling_htsat import HtsatModel


def test_suite_agrees_with_clap_and_counts_audio():
    report = run_suite("htsat", rounds=1, is_tiny=True)
    names = ["transformers ClapAudioModel, forward", "transformers ClapAudioModel, fwd + bwd"]
    assert [case["name"] for case in report["cases"]] == names
    assert [case["goal"] for case in report["cases"]] == [None, 1.3]
    for case in report["cases"]:
        assert case["error"] < 1e-5
        assert case["ratio"]["median"] > 0
        assert case["work"] == pytest.approx(2 * 1.0)  # seconds: 101 frames are 100 hops of 10 ms


def test_a_peer_with_other_weights_is_not_timed(monkeypatch):
    load = torch.nn.Module.load_state_dict

    def wrong(model, state):
        state = dict(state)
        name = "audio_encoder.layers.1.blocks.1.output.dense.bias"
        return load(model, state | {name: state[name] + 0.001 * (torch.arange(24) == 5)})  # of one channel

    monkeypatch.setattr("transformers.ClapAudioModel.load_state_dict", wrong)
    with pytest.raises(RuntimeError, match="`transformers ClapAudioModel, forward` must agree to 1e-05"):
        run_suite("htsat", rounds=1, is_tiny=True)


def test_equal_outputs_with_other_gradients_are_noticed(monkeypatch):
    forward = HtsatModel.forward

    def cut(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        state = output.last_hidden_state
        output.last_hidden_state = (state.detach() + state) / 2  # equal values, half the gradient
        return output

    step = htsat(is_tiny=True)[1]
    assert step.error(step.ours(), step.peer()) < 1e-5
    monkeypatch.setattr(HtsatModel, "forward", cut)
    assert step.error(step.ours(), step.peer()) > 1e-2

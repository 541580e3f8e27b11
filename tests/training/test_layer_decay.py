# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Layer-wise learning-rate decay: which parameter of which encoder has which rate."""

import re

import pytest
import torch
from tiny import (
    tiny_ast_config,
    tiny_htsat_config,
    tiny_m2d_clap_audio_config,
    tiny_mga_clap_config,
    tiny_slap_audio_config,
    tiny_slap_config,
    tiny_whisper_config,
    tiny_zipformer_config,
)
from torch import nn
from transformers import AutoModelForAudioClassification
from transformers.modeling_layers import GradientCheckpointingLayer

import hf_audiolang  # noqa: F401 - registers the classes
from hf_audiolang import SlapForPreTraining
from hf_audiolang.training.layer_decay import layer_decay_groups
from hf_audiolang.training.optim import parameter_groups, split_text_tower

HEAD = r"classifier\."
# encoder -> (configuration, patterns of layer 0, of each block with what follows it, of what has the whole rate)
ENCODERS = {
    "slap": (tiny_slap_audio_config, r"embeddings", [r"layers\.0", r"layers\.1", r"layers\.2"], r"norm"),
    "m2d": (tiny_m2d_clap_audio_config, r"embeddings", [r"layers\.0", r"layers\.1", r"layers\.2"], r"norm"),
    "htsat": (
        tiny_htsat_config,
        r"audio_encoder\.(batch_norm|patch_embed)",
        [
            r"audio_encoder\.layers\.0\.blocks\.0",
            r"audio_encoder\.layers\.0\.(blocks\.1|downsample)",
            r"audio_encoder\.layers\.1\.blocks\.0",
            r"audio_encoder\.layers\.1\.blocks\.1",
        ],
        r"audio_encoder\.norm",
    ),
    "zipformer": (
        tiny_zipformer_config,
        r"encoder_embed",
        [
            r"encoders\.0\.layers\.0",
            r"encoders\.0\.layers\.1",
            r"encoders\.1\.(layers\.0|downsample|out_combiner)",
            r"encoders\.2\.layers\.0",
        ],
        r"(encoders\.2\.(downsample|out_combiner)|downsample_output)",
    ),
    "ast": (
        tiny_ast_config,
        r"encoder\.embeddings",
        [r"encoder\.layers\.0", r"encoder\.layers\.1", r"encoder\.layers\.2"],
        r"encoder\.layernorm",
    ),
    "whisper": (
        tiny_whisper_config,
        r"encoder\.(conv1|conv2|embed_positions)",
        [r"encoder\.layers\.0", r"encoder\.layers\.1"],
        r"encoder\.layer_norm",
    ),
}


class Block(GradientCheckpointingLayer):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)


class Encoder(nn.Module):
    def __init__(self, num_blocks):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(2))
        self.patch_proj = nn.Linear(3, 2)
        self.layers = nn.ModuleList(Block() for _ in range(num_blocks))
        self.norm = nn.LayerNorm(2)


class Classifier(nn.Module):
    def __init__(self, num_blocks=2):
        super().__init__()
        self.audio_model = Encoder(num_blocks)
        self.classifier = nn.Linear(2, 5)


def rates_of(model: nn.Module, groups: list[dict]) -> dict[str, float]:
    """Name of each parameter that is in a group -> its rate; each must be in one alone."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(parameter)], group["lr"]) for group in groups for parameter in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


def test_rates_of_a_model_of_two_layers_by_hand():
    model = Classifier()
    groups = layer_decay_groups(model, parameter_groups(model, 0.05), 0.75, 2e-4)
    rates = rates_of(model, groups)
    wanted = {
        "audio_model.class_token": 8.4375e-5,  # 0.75 ** 3
        "audio_model.patch_proj.weight": 8.4375e-5,
        "audio_model.patch_proj.bias": 8.4375e-5,
        "audio_model.norm.weight": 2e-4,
        "audio_model.norm.bias": 2e-4,
        "classifier.weight": 2e-4,
        "classifier.bias": 2e-4,
    }
    for layer, rate in enumerate((1.125e-4, 1.5e-4)):  # 0.75 ** 2, 0.75
        for name in ("linear.weight", "linear.bias", "norm.weight", "norm.bias"):
            wanted[f"audio_model.layers.{layer}.{name}"] = rate
    assert rates == pytest.approx(wanted)
    assert all(group["params"] for group in groups)
    decays = {group["weight_decay"] for group in groups}
    assert decays == {0.05, 0.0}
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for name, p in model.named_parameters() if p.ndim == 2}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_of_every_encoder_has_one_rate(encoder):
    build, first, blocks, last = ENCODERS[encoder]
    config = build()
    config.num_labels = 5
    model = AutoModelForAudioClassification.from_config(config)
    groups = layer_decay_groups(model, parameter_groups(model, 0.05), 0.5, 1.0)
    rates = rates_of(model, groups)
    assert set(rates) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    patterns = [*(rf"audio_model\.({part})\b" for part in (first, *blocks)), rf"({HEAD}|audio_model\.({last})\b)"]
    for name, rate in rates.items():
        (layer,) = [number for number, pattern in enumerate(patterns) if re.match(pattern, name)]
        assert rate == 0.5 ** (len(blocks) + 1 - layer), name
    assert len(set(rates.values())) == len(blocks) + 2


def test_the_encoder_of_a_system_decays_and_the_rest_keeps_its_rates():
    model = SlapForPreTraining(tiny_slap_config())
    groups = split_text_tower(parameter_groups(model, 0.05), model, 1.0, scale=0.1)
    rates = rates_of(model, layer_decay_groups(model, groups, 0.5, 1.0))
    of_text = {rate for name, rate in rates.items() if ".text_model." in name}
    of_audio = {rate for name, rate in rates.items() if ".audio_model." in name}
    of_rest = {rate for name, rate in rates.items() if ".audio_model." not in name and ".text_model." not in name}
    assert (of_text, of_rest) == ({0.1}, {1.0})
    assert of_audio == {1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0}


def test_a_locality_aware_block_counts_and_what_it_does_not_train_is_left_out():
    model = AutoModelForAudioClassification.from_config(tiny_mga_clap_config(num_labels=5))
    rates = rates_of(model, layer_decay_groups(model, parameter_groups(model, 0.0), 0.5, 1.0))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert not frozen & set(rates)
    assert min(rates.values()) == 0.5**5


def test_the_rates_reach_the_steps():
    model = Classifier()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(layer_decay_groups(model, [{"params": list(model.parameters())}], 0.5, 1.0), lr=1.0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = {name: (before[name] - value).mean().item() for name, value in model.named_parameters()}
    assert moved["audio_model.class_token"] == pytest.approx(0.125)
    assert moved["audio_model.layers.1.linear.weight"] == pytest.approx(0.5)
    assert moved["classifier.weight"] == pytest.approx(1.0)


def test_models_without_encoder_or_blocks_are_refused():
    with pytest.raises(ValueError, match=r"this Linear has no `audio_model`\. Set it to 1"):
        layer_decay_groups(nn.Linear(2, 2), [], 0.75, 1.0)
    with pytest.raises(ValueError, match="Encoder has none that gradient checkpointing knows"):
        layer_decay_groups(Classifier(num_blocks=0), [], 0.75, 1.0)

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What adapters must not change in training: checkpointed gradients, frozen parts, teachers; peft's variants."""

import copy

import pytest
import torch
from adapter_cases import CASES, Case
from peft.tuners.lora import LoraLayer
from tiny import tiny_batch, tiny_m2d_clap_config, tiny_mga_clap_config, tiny_slap_audio_config, tiny_slap_config

from hf_audiolang import (
    AudioProjector,
    M2dClapForPreTraining,
    M2dClapModel,
    MgaClapModel,
    SlapAudioModel,
    SlapForPreTraining,
    SlapModel,
)
from hf_audiolang.training.adapters import add_adapter, add_lora, lora_config, merge
from hf_audiolang.training.lora_arguments import LoraArguments
from hf_audiolang.training.objectives import freeze_parameters

CHECKPOINTED = {name: case for name, case in CASES.items() if not name.endswith("Classification")}


def adapted(model, **options):
    """The model with adapters that change its output."""
    torch.manual_seed(7)
    add_adapter(model, lora_config(model, **{"rank": 3, **options}))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_B." in name:
                value.normal_(std=0.1)
    return model


def gradients(case: Case, model) -> dict[str, torch.Tensor]:
    model.zero_grad()
    case.run(model)[0].backward()
    return {name: value.grad for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_checkpointing_changes_no_gradient(name):
    case = CHECKPOINTED[name]
    model = adapted(case.make_model()).train()
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    state = copy.deepcopy(model.state_dict())
    plain = copy.deepcopy(gradients(case, model))
    for use_reentrant in (False, True):
        if use_reentrant and case.model_class is AudioProjector:
            continue  # its input is the caller's
        model.load_state_dict(state)  # buffers may move in training
        model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
        again = gradients(case, model)
        assert again.keys() == plain.keys()
        for parameter, gradient in again.items():
            torch.testing.assert_close(gradient, plain[parameter], rtol=1e-5, atol=1e-6, msg=parameter)


def test_adapters_scale_by_alpha_over_rank_or_its_root():
    """y = W x + alpha / r B A x, and with the rank-stabilised form alpha / sqrt(r)."""
    vector = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    for options, factor in (({}, 6 / 4), ({"use_rslora": True}, 6 / 2)):
        model = adapted(SlapAudioModel(tiny_slap_audio_config()).eval(), rank=4, alpha=6, **options)
        layer = model.layers[1].attn.k_proj
        added = vector @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
        wanted = vector @ layer.base_layer.weight.T + factor * added
        torch.testing.assert_close(layer(vector), wanted, rtol=1e-5, atol=1e-5)


def test_dora_adapts_magnitude_and_direction_and_merges():
    case = Case(SlapModel, tiny_slap_config, 16)
    model = adapted(case.make_model(), use_dora=True)
    layer = model.audio_model.layers[1].attn.k_proj
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "magnitude" in name:
                value.mul_(1.3)
    direction = layer.base_layer.weight + 16 / 3 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    magnitude = layer.lora_magnitude_vector["default"].weight
    weight = magnitude.unsqueeze(1) * direction / direction.norm(dim=1, keepdim=True)
    vector = torch.randn(2, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(vector), vector @ weight.T, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        wanted = case.run(model)[1]
        torch.testing.assert_close(case.run(merge(model))[1], wanted, rtol=1e-5, atol=1e-5)


def test_named_targets_and_heads_replace_the_defaults():
    model = SlapModel(tiny_slap_config())
    config = lora_config(model, targets=["audio_model.layers.2.attn.q_proj", "down_proj"], modules_to_save=[])
    add_adapter(model, config)
    layers = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    expected = {"audio_model.layers.2.attn.q_proj"} | {f"audio_model.layers.{i}.mlp.down_proj" for i in range(3)}
    assert layers == expected
    assert all(".lora_" in name for name, value in model.named_parameters() if value.requires_grad)


def test_all_linear_adapts_every_layer_outside_the_heads():
    model = add_lora(MgaClapModel(tiny_mga_clap_config()), LoraArguments(lora=True, lora_targets=["all-linear"]))
    layers = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    assert "audio_model.audio_encoder.layers.0.blocks.0.intermediate.dense" in layers
    assert "audio_model.audio_encoder.layers.1.blocks.1.attention.self.query" not in layers  # never read
    assert not [name for name in layers if "_projection" in name]


def test_new_adapters_take_the_mode_of_the_model():
    case = CASES["0-HtsatModel"]
    model = adapted(case.make_model().eval(), dropout=0.5)
    with torch.no_grad():
        assert torch.equal(case.run(model)[1], model(**case.inputs(model)).last_hidden_state)  # other seeds
    model = adapted(case.make_model().train())
    assert not model.audio_encoder.batch_norm.training, "a frozen batch norm keeps its statistics"


def test_frozen_parts_get_no_adapter_and_stay():
    model = M2dClapModel(tiny_m2d_clap_config())
    freeze_parameters(model, ["audio_model.*", "audio_projection.*"])
    adapted(model)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"text_model", "text_projection", "logit_scale"}
    assert not [name for name, _ in model.audio_model.named_modules() if "lora" in name]


def test_a_model_that_is_frozen_altogether_is_adapted_like_any_other():
    model, free = SlapModel(tiny_slap_config()).requires_grad_(False), SlapModel(tiny_slap_config())
    assert lora_config(model).target_modules == lora_config(free).target_modules
    assert lora_config(model).modules_to_save == lora_config(free).modules_to_save


def pretraining_models():
    slap = tiny_slap_config(masked_weight=1.0)
    return {"slap": (SlapForPreTraining, slap), "m2d_clap": (M2dClapForPreTraining, tiny_m2d_clap_config())}


@pytest.mark.parametrize("name", ["slap", "m2d_clap"])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_the_teacher_follows_the_adapted_student(name, use_rslora):
    """It ends where a teacher of the merged student does: EMA of W + s B A, by hand on a copy that is merged."""
    model_class, config = pretraining_models()[name]
    torch.manual_seed(3)
    model = model_class(config).train()
    student = adapted(getattr(model, name), use_rslora=use_rslora)
    teachers = [copy.deepcopy(teacher) for teacher, _ in model.teacher_pairs()]
    merged = copy.deepcopy(model)
    merge(getattr(merged, name))
    model.update_teacher(0.75)
    distance = 0.0
    for before, (after, _), (_, online) in zip(teachers, model.teacher_pairs(), merged.teacher_pairs(), strict=True):
        states = (module.state_dict() for module in (before, after, online))
        for old, new, source in zip(*(state.values() for state in states), strict=True):
            if old.is_floating_point():
                torch.testing.assert_close(new, 0.75 * old + 0.25 * source, rtol=1e-5, atol=1e-6)
                distance += (new - old).abs().sum().item()
    assert distance > 0.1
    assert [module for module in student.modules() if isinstance(module, LoraLayer)]  # the student keeps its adapters


def test_a_teacher_refuses_dora():
    model = SlapForPreTraining(tiny_slap_config(masked_weight=1.0))
    adapted(model.slap, use_dora=True)
    with pytest.raises(ValueError, match="plain or rank-stabilised LoRA"):
        model.update_teacher(0.9)


@pytest.mark.parametrize("name", ["slap", "m2d_clap"])
def test_pretraining_trains_adapters_of_the_system_and_all_of_its_own_heads(name):
    model_class, config = pretraining_models()[name]
    torch.manual_seed(3)
    model = model_class(config)
    adapted(getattr(model, name))
    model.train()
    before = copy.deepcopy(model.state_dict())
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    own = ("prototype_head.", "caption_decoder.", "predictor.")
    assert all(".lora_" in key or ".modules_to_save." in key or key.startswith(own) for key in trained)
    optimizer = torch.optim.Adam(trained.values(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(**tiny_batch(config, seed=1), return_loss=True).loss.backward()
        optimizer.step()
        model.after_optimizer_step()
        model.update_teacher(0.9)
    assert [key for key, value in trained.items() if value.grad is None] == []
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved >= {key for key in trained if "lora_B" in key}
    assert any(key.startswith("teacher_") for key in moved)
    assert not [key for key in moved if ".base_layer." in key or ".original_module." in key]

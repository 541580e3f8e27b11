# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What the Zipformer has for training alone, against numbers that icefall's own code gave.

The numbers and how they were made: zipformer_training_outputs.json, record_zipformer_training.py and
zipformer_training_cases.py. Gradients of Balancer and Whiten are float32 there.
"""

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
import zipformer_training_cases as cases
from zipformer_official import (
    FULL_M,
    TINY,
    geometry,
    gradient_fingerprint,
    official_state,
    reference_input,
    seeded_loss,
)

from hf_audiolang import ZipformerConfig
from hf_audiolang.convert.zipformer_keys import encoder_table
from hf_audiolang.models.layers_zipformer import BiasNorm, layer_skip_rates, relative_positions, swoosh_l, swoosh_r
from hf_audiolang.models.layers_zipformer_regularizers import (
    Balancer,
    StepSchedule,
    TrainingClock,
    Whiten,
    limit_range,
    penalize_scores,
    whitening_metric,
)
from hf_audiolang.models.modeling_zipformer import CONV_NEXT_SKIP_RATE, ZipformerModel

RECORDED = json.loads(Path(__file__).with_name("zipformer_training_outputs.json").read_text(encoding="utf-8"))
SAME = 1e-8  # nine recorded digits
FLOAT32 = 2e-5  # the same mathematics in another order
SCALE_GRAD = 0.2  # icefall scales what reaches its first convolution, for half precision; gradients here are unscaled


@pytest.fixture(autouse=True)
def everything_happens():
    """Single draws give 0, so that all that has a probability happens; those of clips and channels drop nothing."""

    def drawn(*shape, **options):
        return torch.zeros(()) if shape == ((),) else torch.full(shape[0] if len(shape) == 1 else shape, 1 - 2**-24)

    with mock.patch.object(torch, "rand", drawn):
        yield


def gradient_of(function, values, gradient):
    values = values.clone().requires_grad_()
    output = function(values)
    assert torch.equal(output, values)
    output.backward(gradient)
    return values.grad


def assert_same(found, recorded, tolerance=SAME):
    recorded = torch.tensor(recorded, dtype=torch.float64)
    torch.testing.assert_close(found.detach().double().flatten(), recorded, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", cases.BALANCERS)
def test_balancer(name):
    values, gradient = cases.channels()
    found = gradient_of(Balancer(TrainingClock(), **cases.BALANCERS[name], probability=1.0), values, gradient)
    assert_same(found, RECORDED["balancer"][name], FLOAT32)
    is_changed = ((found - gradient).abs() > 1e-4).any(dim=(0, 1)).tolist()  # by channel
    limited = {"feed_forward": 5, "keys": 2}.get(name, 4)
    assert sum(is_changed) >= limited
    assert not is_changed[5]  # the silent channel


def test_balancer_of_the_second_axis_is_that_of_the_last():
    values, gradient = cases.channels()
    balancer = Balancer(TrainingClock(), **cases.BALANCERS["layer"], probability=1.0)
    found = gradient_of(balancer, values, gradient).transpose(1, 2)
    assert_same(found, RECORDED["balancer of second axis"], FLOAT32)


@pytest.mark.parametrize("name", cases.WHITENS)
def test_whiten(name):
    settings, recorded, (values, gradient) = cases.WHITENS[name], RECORDED["whiten"][name], cases.correlated()
    whiten = Whiten(TrainingClock(), **settings)
    assert_same(gradient_of(whiten, values, gradient), recorded["gradient"], FLOAT32)
    assert_same(whitening_metric(values, settings["num_groups"]).view(1), [recorded["metric"]])
    assert recorded["probability"] == (whiten.SELDOM if whiten.is_white else whiten.OFTEN)
    assert bool(whiten.is_white) == (name == "white enough")


@pytest.mark.parametrize("name", cases.LIMITS)
def test_range_of_parameters(name):
    values, gradient = cases.parameters(name)
    found = gradient_of(lambda given: limit_range(given, *cases.LIMITS[name]), values, gradient)
    assert_same(found, RECORDED["limit"][name])
    assert 1 < (found != gradient).sum() < 20


def test_penalty_on_scores():
    values, gradient = cases.scores()
    found = gradient_of(penalize_scores, values, gradient)
    assert_same(found / cases.SCORE_PENALTY, [value / cases.SCORE_PENALTY for value in RECORDED["penalty"]])
    assert 1 < (found != gradient).sum() < 60


@pytest.mark.parametrize(("function", "kind"), [(swoosh_l, "L"), (swoosh_r, "R")])
def test_activations(function, kind):
    points = cases.activation_points().requires_grad_()
    values = function(points)
    values.sum().backward()
    assert_same(values, RECORDED["swoosh"][kind]["values"])
    assert_same(points.grad, RECORDED["swoosh"][kind]["derivatives"])


@pytest.mark.parametrize("log_scale", RECORDED["norm"])
def test_norm_and_the_range_of_its_scale(log_scale):
    values, bias, gradient = cases.norm_case()
    norm = BiasNorm(len(bias)).double().train()
    with torch.no_grad():
        norm.log_scale.fill_(float(log_scale))
        norm.bias.copy_(bias)
    values.requires_grad_()
    output = norm(values)
    output.backward(gradient)
    found = {"values": output, "input": values.grad, "bias": norm.bias.grad, "log_scale": norm.log_scale.grad}
    for name, recorded in RECORDED["norm"][log_scale].items():
        assert_same(found[name], recorded)


def test_schedules():
    for name, points in cases.SCHEDULES.items():
        found = [StepSchedule(points).at(count) for count in cases.SCHEDULE_COUNTS]
        assert found == pytest.approx(RECORDED["schedules"][name], abs=SAME)


def test_positions():
    for name, (frames, width, before) in cases.POSITIONS.items():
        table = relative_positions(frames + before, width, torch.device("cpu"))
        assert_same(table[: 2 * frames - 1 + before], RECORDED["positions"][name], 1e-6)
    table = relative_positions(2000, 48, torch.device("cpu"))
    offsets = [sign * offset for offset in cases.FAR for sign in (-1, 1)]
    for offset, recorded in zip(offsets, RECORDED["positions"]["far"], strict=True):
        assert_same(table[1999 + offset], recorded, 1e-5)  # the 24th multiple of an angle


def test_skip_rates_of_all_layers():
    sizes = {key: geometry(FULL_M)[key] for key in ("num_encoder_layers", "downsampling_factor")}
    config = ZipformerConfig(**sizes)
    for stack, recorded in enumerate(RECORDED["skip_rates"]):
        rates = layer_skip_rates(config, stack)
        found = [[rate.at(count) for count in cases.BATCH_COUNTS] for rate in rates]
        torch.testing.assert_close(found, recorded, rtol=0, atol=SAME)


def tiny_model(**overrides) -> ZipformerModel:
    """The official small model, ready for training in the official padding, without dropout."""
    sizes = {key: value for key, value in geometry(TINY).items() if key != "num_encoder_layers"}
    sizes |= {key: sizes[key][0] for key in ("query_head_dim", "value_head_dim", "pos_head_dim")}
    options = {"dropout": 0.0, "dropout_start": 0.0, "activation_regularizers": True, "exact_padding": False}
    config = ZipformerConfig(num_encoder_layers=geometry(TINY)["num_encoder_layers"], **sizes, **(options | overrides))
    model, state = ZipformerModel(config), official_state(TINY)
    weights = {ours: state[key] for key, (ours,) in encoder_table(config).items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith(".is_white") for name in missing)
    for stack in model.encoders:
        stack.position_dropout = 0.0
    return model.double().train()


def test_settings_of_every_regularizer():
    model = tiny_model()
    places = {"conv.2": "balancers.0", "conv.5": "balancers.1", "conv.8": "balancers.2"}
    roots = {"encoder_embed": model.encoder_embed, "layer": model.encoders[0].layers[0]}
    kept = {name: value for name, value in RECORDED["settings"].items() if isinstance(value[0], list)}
    for place, (low, high, least, most, probability) in kept.items():
        root, name = place.split(".", 1)
        balancer = roots[root].get_submodule(places.get(name, name))
        values = (*balancer.positive, *balancer.absolute, balancer.probability)
        for value, recorded in zip(values, (low, high, least, most, probability), strict=True):
            assert at_counts(value) == pytest.approx(recorded, abs=SAME), place
    whitens = {name: value for name, value in RECORDED["settings"].items() if len(value) == 3}
    for place, (num_groups, limits, grad_scale) in whitens.items():
        root, name = place.split(".", 1)
        whiten = roots[root].get_submodule(name)
        assert (whiten.num_groups, whiten.grad_scale) == (num_groups, grad_scale), place
        assert at_counts(whiten.limit) == pytest.approx(limits, abs=SAME), place
    assert len(kept) + len(whitens) == sum(
        isinstance(module, Balancer | Whiten) for root in roots.values() for module in root.modules()
    )
    assert at_counts(CONV_NEXT_SKIP_RATE) == pytest.approx(
        RECORDED["settings"]["encoder_embed.convnext.layerdrop_rate"]
    )


def at_counts(value) -> list[float]:
    return [value.at(count) if isinstance(value, StepSchedule) else value for count in cases.BATCH_COUNTS]


@pytest.mark.parametrize("name", cases.STEPS)
def test_whole_steps_with_all_regularizers(name):
    """Every place, order and setting of what changes gradients."""
    recorded, model = RECORDED["steps"][name], tiny_model()
    batch_count, whitening_limit = cases.STEPS[name]
    model.set_progress(batch_count, 10_000)
    for module in model.modules():
        if isinstance(module, Whiten) and whitening_limit is not None:
            module.limit = whitening_limit
    loss, found = gradients_of(model)
    assert loss == pytest.approx(recorded["loss"], rel=1e-7)
    table = encoder_table(model.config)
    assert not [key for key, (ours,) in table.items() if key not in recorded["gradients"] and found[ours].any()]
    for key, (norm, product) in recorded["gradients"].items():
        scale = SCALE_GRAD if key.startswith(("encoder_embed.conv.0.", "input")) else 1.0
        values = scale * found["input" if key == "input" else table[key][0]]
        other_norm, other_product = gradient_fingerprint(values, key)
        assert abs(other_norm - norm) + abs(other_product - product) < 1e-4 * norm, key


def test_steps_without_regularizers_have_other_gradients():
    """Control."""
    recorded, model = RECORDED["steps"]["middle"]["gradients"], tiny_model(activation_regularizers=False)
    model.set_progress(5000, 10_000)
    _, found = gradients_of(model)
    table = encoder_table(model.config)
    norms = {key: gradient_fingerprint(found[ours], key)[0] for key, (ours,) in table.items()}
    differing = [key for key in table if abs(norms[key] / recorded[key][0] - 1) > 1e-3]
    assert len(differing) > 0.8 * len(table)


def gradients_of(model: ZipformerModel) -> tuple[float, dict[str, torch.Tensor]]:
    features, lengths = reference_input(TINY)
    features = features.double().requires_grad_()
    output = model(features, torch.arange(features.shape[1]) < lengths.unsqueeze(1))
    loss = seeded_loss(output.frame_features, output.frame_mask.sum(1))
    loss.backward()
    return loss.item(), {"input": features.grad} | {name: value.grad for name, value in model.named_parameters()}


def test_feature_masks():
    draws = torch.tensor([[0.9, 0.9, 0.1, 0.1, 0.125], [0.9, 0.1, 0.9, 0.1, 0.9]]).view(2, 5, 1, 1)
    with mock.patch.object(torch, "rand", return_value=draws):
        masks = tiny_model()._channel_masks(torch.zeros(5, 1, 14))
    assert [mask[:, 0].int().tolist() for mask in masks] == RECORDED["feature_masks"]

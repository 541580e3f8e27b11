# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Training of M2D and M2D-CLAP against a second implementation: losses, every gradient, teacher, stages, ablations."""

import copy

import pytest
import torch
from m2d_clap_reference import follow, part, pretraining_terms, project_text, stir, unit, weights_of
from tiny import CLIP_FRAMES, tiny_batch, tiny_m2d_clap_config

from hf_audiolang import AudioProjectorConfig, M2dClapForPreTraining
from hf_audiolang.models.layers_masking import uniform_positions

BANDS = 5
NO_TOWER = {"text_config": None, "text_embedding_size": 10}
FORMS = {
    "stage 1": {**NO_TOWER},
    "stage 1 of 2024": {"text_config": None, "text_embedding_size": 24, "text_projector": "none", "projector": "mlp"},
    "M2D alone": {"contrastive_weight": 0.0, **NO_TOWER},
    "mse": {"masked_loss": "mse", **NO_TOWER},
    "two blocks": {"projector": "two blocks", **NO_TOWER},
    "text projector only": {"projector": "mean", "text_projector": "mlp", **NO_TOWER},
    "with tower": {},
    "stage 2": {
        "masked_weight": 0.0,
        "masking_ratio": 0.3,
        "text_config": {"hidden_size": 24},
        "text_projector": "none",
    },
    "16x4": {"audio_config": {"patch_frames": 4, "max_frames": 103}, **NO_TOWER},
    "80x2": {"audio_config": {"patch_mel_bins": 80, "patch_frames": 2, "max_frames": 98}, **NO_TOWER},
}
PROJECTORS = {
    "one block": {},
    "two blocks": {"num_hidden_layers": 2},
    "mlp": {"projector_type": "mlp"},
    "mean": {"projector_type": "mean"},
}


def make_model(projector="one block", is_stirred=True, **overrides) -> M2dClapForPreTraining:
    """A model in training mode, in float64, in which every weight matters and the teacher is not its student."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 30} | PROJECTORS[projector]
    numbers = {"projector_config": AudioProjectorConfig(**sizes), "contrastive_weight": 0.3, **overrides}
    model = M2dClapForPreTraining(tiny_m2d_clap_config(**numbers))
    if is_stirred:
        stir(model)
        with torch.no_grad():
            model.m2d_clap.logit_scale.log_scale.fill_(1.3)
    return model.double().train()


def columns_of(config):
    return [-(-frames // config.audio_config.patch_frames) for frames in CLIP_FRAMES]


def make_batch(config, seed=1, ratio=None):
    """Ragged clips, captions in the form that the configuration takes, and masks of a number of its own per clip."""
    batch = tiny_batch(config if config.text_config else config.audio_config, seed)
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    batch.pop("labels", None)
    generator = torch.Generator().manual_seed(seed + 50)
    if config.contrastive_weight == 0:
        batch = {name: value for name, value in batch.items() if name.startswith("input_features")}
    elif config.text_config is None:
        batch["text_embeddings"] = 3 * torch.randn(4, config.text_embedding_size, generator=generator).double()
    columns = columns_of(config)
    real = torch.arange(max(columns)) < torch.tensor(columns).unsqueeze(1)
    torch.manual_seed(seed)
    bands = config.audio_config.num_frequency_patches
    batch["masked_positions"] = uniform_positions(real.repeat(1, bands), ratio or config.masking_ratio)
    return batch


def reference_terms(model, batch, weights):
    """The second implementation on the clips of the batch, one by one."""
    config, columns = model.config, columns_of(model.config)
    clips = [clip[:frames] for clip, frames in zip(batch["input_features"], CLIP_FRAMES, strict=True)]
    bands = config.audio_config.num_frequency_patches
    grids = batch["masked_positions"].view(4, bands, -1)
    masked = [grid[:, :number].flatten() for grid, number in zip(grids, columns, strict=True)]
    text = batch.get("text_embeddings")
    if "input_ids" in batch:  # the tower is transformers' own: run on one caption at a time, without padding
        tower = copy.deepcopy(model.m2d_clap.text_model)
        mine = part(weights, "m2d_clap.text_model")
        states = []
        for ids, keep in zip(batch["input_ids"], batch["attention_mask"].bool(), strict=True):
            inputs = {"input_ids": ids[keep].unsqueeze(0)}
            states.append(torch.func.functional_call(tower, mine, kwargs=inputs).last_hidden_state[0, 0])
        text = torch.stack(states)
    return pretraining_terms(config, weights, clips, masked, text)


def gradients_of(model, batch, seed=3):
    model.zero_grad()
    torch.manual_seed(seed)
    output = model(**batch)
    output.loss.backward()
    return output, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got, wanted, tolerance=1e-5):
    """Equal within `tolerance` of each norm; key biases add one constant to all scores and get rounding only."""
    assert got.keys() == wanted.keys()
    for name, grad in wanted.items():
        limit = 1e-6 if name.endswith(("k_proj.bias", "key.bias")) else tolerance * grad.norm()
        assert (got[name] - grad).norm() <= limit, name


# one step


@pytest.mark.parametrize("form", FORMS)
def test_losses_and_every_gradient_equal_the_reference(form):
    model = make_model(**FORMS[form])
    batch, weights = make_batch(model.config), weights_of(model, trains=True)
    output, gradients = gradients_of(model, batch)
    wanted = reference_terms(model, batch, weights)
    wanted["loss"].backward()
    terms = {name for name in ("masked", "contrastive") if getattr(model.config, f"{name}_weight")}
    assert output.loss_terms.keys() == terms
    for name in terms:
        torch.testing.assert_close(output.loss_terms[name].double(), wanted[name], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(output.loss.double(), wanted["loss"], rtol=1e-6, atol=1e-6)
    if "contrastive" in terms:
        torch.testing.assert_close(output.audio_embeds, wanted["audio"], rtol=0, atol=1e-6)
        torch.testing.assert_close(output.text_embeds, wanted["text"], rtol=0, atol=1e-6)
    expected = {name: value.grad for name, value in weights.items() if value.grad is not None}
    assert len(expected) > 50
    assert_same_gradients(gradients, expected)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    model = make_model(masked_weight=1.7, contrastive_weight=0.02, **NO_TOWER)
    output = model(**make_batch(model.config))
    terms = output.loss_terms
    torch.testing.assert_close(output.loss, 1.7 * terms["masked"] + 0.02 * terms["contrastive"])


def test_masked_loss_is_a_mean_over_tokens_not_over_clips():
    model = make_model(contrastive_weight=0.0, **NO_TOWER)
    batch = make_batch(model.config)
    batch["masked_positions"][0] = torch.arange(35) < 32
    batch["masked_positions"][2] = torch.arange(35) % 7 == 3
    numbers, alone = batch["masked_positions"].sum(1).tolist(), []
    assert len(set(numbers)) == 4
    for row in range(4):
        clip = {name: value[row : row + 1] for name, value in batch.items()}
        alone.append(model(**clip).loss.item())
    wanted = sum(loss * number for loss, number in zip(alone, numbers, strict=True)) / sum(numbers)
    assert model(**batch).loss.item() == pytest.approx(wanted, rel=1e-6)
    assert abs(sum(alone) / 4 - wanted) > 1e-4


def test_what_gets_gradient_and_what_does_not():
    model = make_model()
    _, gradients = gradients_of(model, make_batch(model.config))
    names = {name for name, _ in model.named_parameters()}
    teacher = {name for name in names if name.startswith("teacher_")}
    assert len(teacher) == 3 * 16 + 2
    assert gradients.keys() == names - teacher
    idle = [name for name, grad in gradients.items() if grad.norm() < 1e-9]
    assert all(name.endswith(("k_proj.bias", "key.bias")) for name in idle), idle


def test_encoder_learns_from_both_terms():
    gradients = {}
    for name, weights in {"masked": (1.0, 0.0), "contrastive": (0.0, 1.0), "both": (1.0, 1.0)}.items():
        model = make_model(masked_weight=weights[0], contrastive_weight=weights[1], **NO_TOWER)
        full = make_model(**NO_TOWER)
        model.load_state_dict(full.state_dict(), strict=False)
        _, found = gradients_of(model, make_batch(full.config) if weights[1] else make_batch(model.config))
        gradients[name] = {key: grad for key, grad in found.items() if "audio_model" in key}
    for name, grad in gradients["both"].items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(grad, gradients["masked"][name] + gradients["contrastive"][name])
            assert gradients["masked"][name].norm() > 1e-4
            assert gradients["contrastive"][name].norm() > 1e-6


# teacher and scale


@pytest.mark.parametrize("decay", [0.99995, 0.9, 0.0, 1.0])
def test_teacher_follows_exactly_and_nothing_else_moves(decay):
    model = make_model(**NO_TOWER)
    before = weights_of(model)
    model.update_teacher(decay)
    for name, value in model.state_dict().items():
        if name.startswith("teacher_"):
            online = before["m2d_clap.audio_model." + name.removeprefix("teacher_")]
            torch.testing.assert_close(value, follow(before[name], online, decay), rtol=1e-12, atol=1e-15)
        else:
            assert torch.equal(value, before[name]), name
    assert {name for name in before if name.startswith("teacher_")} == {
        name.replace("m2d_clap.audio_model.", "teacher_")
        for name in before
        if name.startswith(("m2d_clap.audio_model.layers", "m2d_clap.audio_model.norm"))
    }


def test_teacher_in_float32_moves_at_the_published_decay():
    """Steps of 1 - 0.99999 are seven bits above the rounding of float32 weights: they must not be lost."""
    model = make_model(**NO_TOWER).float()
    start, online = weights_of(model), weights_of(model.m2d_clap.audio_model)
    for _ in range(100):
        model.update_teacher(0.99999)
    moved = wanted = 0.0
    for name, value in model.state_dict().items():
        if name.startswith("teacher_"):
            distance = (online[name.removeprefix("teacher_")] - start[name]).double()
            moved += ((value - start[name]).double() * distance).sum()
            wanted += (1 - 0.99999**100) * distance.square().sum()
    assert moved / wanted == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("start", "end"), [(9.0, 4.6052), (4.7, 4.6052), (-1.0, 0.0), (2.6593, 2.6593)])
def test_scale_is_clamped_after_the_step(start, end):
    model = make_model(**NO_TOWER)
    with torch.no_grad():
        model.m2d_clap.logit_scale.log_scale.fill_(start)
    model.after_optimizer_step()
    assert model.m2d_clap.logit_scale.log_scale.item() == pytest.approx(end, abs=1e-12)


def test_teacher_is_never_trained_nor_in_training_mode():
    model = make_model(**NO_TOWER)
    for candidate in (model, copy.deepcopy(model)):
        for mode in (True, False, True):
            candidate.train(mode)
            assert candidate.m2d_clap.training is mode
            for teacher, _ in candidate.teacher_pairs():
                assert not any(module.training for module in teacher.modules())
                assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("start", ["random", "copy"])
def test_teacher_starts_as_told(start):
    model = make_model(is_stirred=False, teacher_init=start, **NO_TOWER)
    online, teacher = (part(weights_of(model), name) for name in ("m2d_clap.audio_model", "teacher_layers"))
    matrices = {name: value for name, value in teacher.items() if value.ndim == 2}
    assert len(matrices) == 18
    for name, value in matrices.items():
        assert torch.equal(value, online[f"layers.{name}"]) == (start == "copy"), name
        assert value.std().item() == pytest.approx((2 / sum(value.shape)) ** 0.5, rel=0.1)


def test_initial_weights_follow_the_published_code():
    model = make_model(is_stirred=False, projector="two blocks", **NO_TOWER)
    assert model.m2d_clap.logit_scale.log_scale.item() == pytest.approx(2.6593, abs=1e-4)
    assert torch.count_nonzero(model.m2d_clap.audio_projection.projector.semantic_token) == 0
    assert model.predictor.mask_token.std().item() == pytest.approx(0.02, rel=0.6)  # 20 draws
    for name, value in model.named_parameters():
        if name.endswith("token") or "logit_scale" in name:
            continue
        if value.ndim == 2:
            assert value.abs().max() <= (6 / sum(value.shape)) ** 0.5
            assert value.std().item() == pytest.approx((2 / sum(value.shape)) ** 0.5, rel=0.15), name
        else:
            assert torch.equal(value, torch.full_like(value, float(name.endswith("norm.weight")))), name


def test_names_of_the_training_weights_are_those_of_the_specification():
    names = {name for name in weights_of(make_model(**NO_TOWER)) if not name.startswith("m2d_clap.")}
    modules = [f"attn.{letter}_proj" for letter in "qkvo"] + ["mlp.fc1", "mlp.fc2", "attn_norm", "mlp_norm"]
    wanted = {"predictor.mask_token", "predictor.position_embeddings"}
    for kind in ("weight", "bias"):
        wanted |= {f"predictor.{name}.{kind}" for name in ("in_proj", "norm", "out_proj")} | {f"teacher_norm.{kind}"}
        wanted |= {f"predictor.layers.{i}.{name}.{kind}" for i in range(2) for name in modules}
        wanted |= {f"teacher_layers.{i}.{name}.{kind}" for i in range(3) for name in modules}
    assert names == wanted


# stages 2 and 2.1, and training the audio encoder there


def make_second_stage(**overrides):
    """BERT of the audio's width without text projection, contrastive loss only."""
    numbers = {"masked_weight": 0.0, "masking_ratio": 0.3, "mask_style": "structured", "contrastive_weight": 1.0}
    return make_model(**{**numbers, "text_config": {"hidden_size": 24}, "text_projector": "none", **overrides})


@pytest.mark.parametrize("style", ["structured", "random", "span"])
def test_frozen_encoder_gets_no_gradient_and_the_rest_does(style):
    model = make_second_stage(mask_style=style)
    assert not hasattr(model, "predictor")
    assert model.teacher_pairs() == []
    assert not [name for name in model.state_dict() if not name.startswith("m2d_clap.")]
    model.m2d_clap.audio_model.requires_grad_(False)
    batch = make_batch(model.config)
    del batch["masked_positions"]
    output, gradients = gradients_of(model, batch)
    assert output.loss_terms.keys() == {"contrastive"}
    expected = {name for name, p in model.named_parameters() if p.requires_grad}
    assert gradients.keys() == expected
    assert {name.split(".")[1] for name in gradients} == {"text_model", "audio_projection", "logit_scale"}
    assert all(g.norm() > 1e-9 for name, g in gradients.items() if not name.endswith(("k_proj.bias", "key.bias")))
    model.update_teacher(0.5)  # nothing to do
    model.after_optimizer_step()


def test_training_the_audio_encoder_changes_no_other_gradient():
    frozen, trained = make_second_stage(), make_second_stage()
    frozen.m2d_clap.audio_model.requires_grad_(False)
    batch = make_batch(frozen.config)
    _, few = gradients_of(frozen, batch)
    _, many = gradients_of(trained, batch)
    assert_same_gradients({name: many[name] for name in few}, few, tolerance=1e-9)
    assert {name for name in many if name not in few} == {
        f"m2d_clap.audio_model.{name}" for name, _ in trained.m2d_clap.audio_model.named_parameters()
    }


def test_without_masking_training_sees_what_inference_sees():
    model = make_second_stage(masking_ratio=0.0)
    batch = make_batch(model.config, ratio=0.3)
    del batch["masked_positions"]
    with torch.no_grad():
        output = model(**batch)
        audio = model.m2d_clap.get_audio_features(batch["input_features"], batch["input_features_mask"])
        text = model.m2d_clap.get_text_features(batch["input_ids"], batch["attention_mask"])
        whole = model.m2d_clap(**batch, return_loss=True)
    torch.testing.assert_close(output.audio_embeds, audio.pooler_output)
    torch.testing.assert_close(output.text_embeds, text.pooler_output)
    torch.testing.assert_close(output.loss, whole.loss)


# ablations

ABLATIONS = {
    "Table X, NV-Embed-v2": {"text_config": None, "text_embedding_size": 4096},
    "Table X, GTE-Qwen2": {"text_config": None, "text_embedding_size": 3584},
    "Table X, GTE-base": {"text_config": None, "text_embedding_size": 768},
    "Table XI, GTE-base in stage 2": {
        "masked_weight": 0.0,
        "masking_ratio": 0.3,
        "text_pooling": "mean",
        "text_config": {"hidden_size": 24},
        "text_projector": "none",
    },
    "Fig. 5, two blocks": {"projector": "two blocks", **NO_TOWER},
    "Fig. 5, MLP": {"projector": "mlp", **NO_TOWER},
    "Table XII, text projector only": {"projector": "mean", "text_projector": "mlp", **NO_TOWER},
    "Table XII, adding a text projector": {"text_projector": "mlp", **NO_TOWER},
    "Table XIII, text projector only": {"projector": "mean", "text_projector": "mlp", "masked_weight": 0.0},
    "Table XIII, adding a text projector": {"text_projector": "mlp", "masked_weight": 0.0, "masking_ratio": 0.3},
    "Fig. 4, M2D": {"contrastive_weight": 0.0, **NO_TOWER},
    "Fig. 4, 0.1": {"contrastive_weight": 0.1, **NO_TOWER},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_trains(name):
    """A small step against the gradient lowers the loss by as much as it promises; all that should learn has one."""
    model = make_model(is_stirred=False, **ABLATIONS[name])
    batch = make_batch(model.config)
    del batch["masked_positions"]
    output, gradients = gradients_of(model, batch)
    steepness = sum(grad.square().sum().item() for grad in gradients.values())
    promised = 1e-3 * output.loss.item()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key in gradients:
                parameter.sub_(promised / steepness * gradients[key])
    after, gradients = gradients_of(model, batch)  # before, the semantic token was zero and its query without gradient
    assert (output.loss - after.loss).item() == pytest.approx(promised, rel=0.1)
    model.after_optimizer_step()
    model.update_teacher(0.9999)
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    unused = set()
    if model.config.contrastive_weight == 0:
        parts = ("audio_projection", "text_projection", "logit_scale")
        unused = {key for key in trained if key.split(".")[1] in parts}
    assert trained - gradients.keys() == unused
    assert not [key for key, grad in gradients.items() if not grad.any()]


def test_text_projector_only_learns_on_the_text_side():
    model = make_model(projector="mean", text_projector="mlp", **NO_TOWER)
    assert not list(model.m2d_clap.audio_projection.parameters())
    batch = make_batch(model.config)
    with torch.no_grad():
        output = model(**batch)
    wanted = project_text("mlp", part(weights_of(model), "m2d_clap.text_projection"), batch["text_embeddings"])
    torch.testing.assert_close(output.text_embeds, unit(wanted), rtol=0, atol=1e-6)


# inputs


def test_masks_given_as_numbers_mean_the_same():
    model = make_model(**NO_TOWER)
    batch = make_batch(model.config)
    wanted = model(**batch).loss
    assert torch.equal(model(**{**batch, "masked_positions": batch["masked_positions"].long()}).loss, wanted)


def test_masked_padding_means_nothing():
    model = make_model(**NO_TOWER)
    batch = make_batch(model.config)
    columns = torch.tensor(columns_of(model.config))
    padding = (torch.arange(7) >= columns.unsqueeze(1)).repeat(1, BANDS)
    other = {**batch, "masked_positions": batch["masked_positions"] | padding}
    torch.testing.assert_close(model(**other).loss, model(**batch).loss)


@pytest.mark.parametrize("shape", [(4, 34), (1, 35), (4, 1), (4, 5, 7)])
def test_masked_positions_of_another_shape_are_refused(shape):
    model = make_model(**NO_TOWER)
    batch = make_batch(model.config)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"`masked_positions` must be \(4, 35\)"):
        model(**{**batch, "masked_positions": torch.rand(shape, generator=generator) < 0.5})


@pytest.mark.parametrize("is_hidden", [True, False])
def test_clips_with_nothing_to_see_or_to_predict_are_refused(is_hidden):
    model = make_model(**NO_TOWER)
    batch = make_batch(model.config)
    batch["masked_positions"][1] = is_hidden
    with pytest.raises(ValueError, match=r"in rows \[1\]"):
        model(**batch)


def test_clips_longer_than_the_table_are_refused():
    model = make_model(**NO_TOWER)
    batch = {"input_features": torch.randn(2, 128, 80), "text_embeddings": torch.randn(2, 10)}
    with pytest.raises(ValueError, match=r"128 frames, but the position table covers 112.*resize_positions"):
        model(**batch)
    model.resize_positions(128)
    assert torch.isfinite(model(**batch).loss)


def test_frames_of_less_than_a_patch_beyond_the_table_are_left_out():
    model = make_model(**NO_TOWER)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 121, 80, generator=generator, dtype=torch.float64)
    batch = {"text_embeddings": torch.randn(2, 10, generator=generator, dtype=torch.float64)}
    batch["masked_positions"] = uniform_positions(torch.ones(2, 35, dtype=torch.bool), 0.7)
    long, short = (model(input_features=given, **batch).loss for given in (features, features[:, :112]))
    torch.testing.assert_close(long, short)


def test_missing_captions_are_refused_only_where_they_are_needed():
    model = make_model(**NO_TOWER)
    batch = make_batch(model.config)
    del batch["text_embeddings"]
    with pytest.raises(ValueError, match="no text encoder"):
        model(**batch)
    alone = make_model(contrastive_weight=0.0, **NO_TOWER)
    output = alone(**batch)
    assert output.audio_embeds is output.text_embeds is None


def test_bf16_autocast_is_close_to_float32():
    model = make_model(**NO_TOWER).float()
    batch = {n: v.float() if v.is_floating_point() else v for n, v in make_batch(model.config).items()}
    exact, _ = gradients_of(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough, gradients = gradients_of(model, batch)
    for name, term in exact.loss_terms.items():
        assert rough.loss_terms[name].dtype == torch.float32
        assert 0 < abs(rough.loss_terms[name] - term) < 0.05 * abs(term)
    assert all(torch.isfinite(grad).all() for grad in gradients.values())


# training


def train(model, batches, num_steps, learning_rate=3e-3, decay=0.99):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    for step in range(num_steps):
        model(**batches[step % len(batches)]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.after_optimizer_step()
        model.update_teacher(decay)


def test_saved_model_continues_to_the_bit(tmp_path):
    model = make_model(**NO_TOWER).float()
    batches = []
    for seed in range(3):
        batch = make_batch(model.config, seed)
        batches.append({n: v.float() if v.is_floating_point() else v for n, v in batch.items()})
    train(model, batches, 2)
    model.save_pretrained(tmp_path)
    # copied out of the mapped file: products of unaligned memory may differ in the last bit
    loaded = copy.deepcopy(M2dClapForPreTraining.from_pretrained(tmp_path)).train()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    (one, first), (other, second) = gradients_of(model, batches[2]), gradients_of(loaded, batches[2])
    assert torch.equal(one.loss, other.loss)
    assert first.keys() == second.keys()
    assert all(torch.equal(grad, second[name]) for name, grad in first.items())


def test_eight_pairs_are_learnt():
    """Both losses fall, and every clip finds its caption, in a fixed number of steps with drawn masks."""
    torch.manual_seed(0)
    model = M2dClapForPreTraining(tiny_m2d_clap_config(contrastive_weight=1.0, masking_ratio=0.4)).train()
    halves = [tiny_batch(model.config, seed) for seed in (11, 12)]
    batch = {name: torch.cat([half[name] for half in halves]) for name in halves[0] if name != "labels"}
    assert len(torch.unique(batch["input_ids"], dim=0)) == 8

    def evaluate():
        torch.manual_seed(1)
        with torch.no_grad():
            return {name: term.item() for name, term in model(**batch).loss_terms.items()}

    before = evaluate()
    train(model, [batch], 150)
    after = evaluate()
    with torch.no_grad():
        scores = model.m2d_clap.eval()(**batch).logits_per_audio
    assert torch.equal(scores.argmax(1), torch.arange(8))
    assert torch.equal(scores.argmax(0), torch.arange(8))
    assert after["contrastive"] < 0.1 * before["contrastive"]
    assert after["masked"] < 0.5 * before["masked"]

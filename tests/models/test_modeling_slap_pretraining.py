# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SLAP's training class: its three terms, its teacher, and that it learns."""

import copy

import pytest
import torch
from slap_reference import reference_tokens
from tiny import CLIP_FRAMES, tiny_batch, tiny_slap_config

from hf_audiolang import SlapForPreTraining, SlapModel
from hf_audiolang.models import modeling_slap
from hf_audiolang.models.layers_masking import random_masked_positions


def make_model(**overrides) -> SlapForPreTraining:
    """A model in training mode whose teacher is not its student and whose dropout is off."""
    torch.manual_seed(0)
    decoder = {"dropout": 0.0} | overrides.pop("decoder_config", {})
    model = SlapForPreTraining(tiny_slap_config(decoder_config=decoder, **overrides)).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if model.has_teacher:
            model.teacher_center.normal_(std=0.1)
    return model


def make_batch(seed=1, with_positions=True):
    batch = tiny_batch(tiny_slap_config(), seed)
    if with_positions:
        tokens = torch.arange(28) < torch.tensor([[28], [4], [16], [12]])
        torch.manual_seed(seed)
        batch["masked_positions"] = random_masked_positions(tokens, 0.4)
    return batch


def gradients_of(model, batch, seed=3):
    """Gradients of the whole loss from the same draws and the same centre."""
    if model.has_teacher:
        center = model.teacher_center.clone()
    model.zero_grad()
    torch.manual_seed(seed)
    output = model(**batch)
    output.loss.backward()
    if model.has_teacher:
        model.teacher_center.copy_(center)
    return output, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got, wanted, rtol=1e-5):
    assert got.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert (got[name] - grad).norm() <= rtol * grad.norm(), name


# the three terms


def reference_masked_loss(model, batch):
    """Eq. 4 from the second implementation of both encoders, clip by clip and token by token."""
    config, total = model.config, 0.0
    student = {name: p.detach() for name, p in model.slap.audio_model.named_parameters()}
    teacher = dict(model.teacher_audio_model.named_parameters())
    for row, frames in enumerate(CLIP_FRAMES):
        clip = batch["input_features"][row, :frames]
        num_tokens = 4 * -(-frames // 16)
        hidden = batch["masked_positions"][row, :num_tokens]
        seen = reference_tokens(config.audio_config, student, clip, hidden)[-1]
        whole = reference_tokens(config.audio_config, teacher, clip)[-1]
        per_clip = 0.0
        for token in hidden.nonzero().flatten():
            scores = [
                head(tokens[token]) @ torch.nn.functional.normalize(head.prototypes, dim=-1).T
                for head, tokens in ((model.prototype_head, seen), (model.teacher_prototype_head, whole))
            ]
            target = ((scores[1] - model.teacher_center[0]) / model.teacher_temperature).softmax(-1)
            per_clip = per_clip - (target * (scores[0] / config.student_temperature).log_softmax(-1)).sum()
        total = total + per_clip / hidden.sum() / len(CLIP_FRAMES)
    return total


def test_terms_equal_their_references():
    model, batch = make_model().eval(), make_batch()
    model.set_progress(2, 10)
    with torch.no_grad():
        output = model(**batch)
        torch.testing.assert_close(
            output.loss_terms["masked"], reference_masked_loss(model, batch), rtol=1e-4, atol=1e-4
        )
        embeds = model.slap(**{n: v for n, v in batch.items() if n not in ("labels", "masked_positions")})
        torch.testing.assert_close(output.audio_embeds, embeds.audio_embeds)  # from the unmasked pass
        torch.testing.assert_close(output.text_embeds, embeds.text_embeds)
        pairs, scores = torch.arange(4), embeds.logits_per_audio
        cross = torch.nn.functional.cross_entropy
        wanted = (cross(scores, pairs) + cross(scores.T, pairs)) / 2
        torch.testing.assert_close(output.loss_terms["contrastive"], wanted, rtol=1e-5, atol=1e-5)
        audio = embeds.audio_model_output
        states = model.caption_decoder(batch["input_ids"][:, :-1], audio.last_hidden_state, audio.token_mask)
        words = states @ model.caption_decoder.embed_tokens.weight.T
        wanted = cross(words.transpose(1, 2), batch["labels"][:, 1:])  # each word from those before it
        torch.testing.assert_close(output.loss_terms["caption"], wanted, rtol=1e-5, atol=1e-5)
    terms = output.loss_terms
    torch.testing.assert_close(output.loss, terms["contrastive"] + terms["masked"] + 0.5 * terms["caption"])


def test_weights_of_the_terms_are_those_of_the_configuration():
    weights = {"contrastive": 0.3, "masked": 1.7, "caption": 2.2}
    model = make_model(**{f"{name}_weight": value for name, value in weights.items()}).eval()
    output = model(**make_batch())
    wanted = sum(weights[name] * term for name, term in output.loss_terms.items())
    torch.testing.assert_close(output.loss, wanted)


def test_labels_default_to_the_captions_and_may_differ():
    model, batch = make_model().eval(), make_batch()
    with torch.no_grad():
        base = model(**batch).loss_terms["caption"]
        without = model(**{**batch, "labels": None}).loss_terms["caption"]
        labels = batch["labels"].clone()
        labels[0, 2] = 9 if labels[0, 2] != 9 else 10
        other = model(**{**batch, "labels": labels}).loss_terms["caption"]
    assert torch.equal(base, without)
    assert abs(other - base) > 1e-3


@pytest.mark.parametrize("name", ["masked", "caption"])
def test_a_term_without_weight_takes_its_modules_along(name):
    full, batch = make_model(), make_batch()
    model = make_model(**{f"{name}_weight": 0.0})
    only = {"masked": ("teacher", "prototype_head"), "caption": ("caption_decoder",)}[name]
    dropped = {key for key in full.state_dict() if key.startswith(only)}
    assert dropped
    assert set(model.state_dict()) == set(full.state_dict()) - dropped
    output, gradients = gradients_of(model, batch)
    assert name not in output.loss_terms
    assert len(output.loss_terms) == 2
    unused = {n for n, p in model.named_parameters() if p.requires_grad} - gradients.keys()
    assert unused == ({"slap.audio_model.embeddings.mask_token"} if name == "masked" else set())
    model.update_teacher(0.5)
    model.after_optimizer_step()


def test_no_contrastive_weight_leaves_the_term_out():
    output = make_model(contrastive_weight=0.0)(**make_batch())
    assert sorted(output.loss_terms) == ["caption", "masked"]


def test_shared_pass_feeds_all_terms_from_the_masked_clips():
    batch = make_batch()
    shared, apart = make_model(share_masked_pass=True).eval(), make_model().eval()
    with torch.no_grad():
        one, other = shared(**batch), apart(**batch)
        tokens, layout = apart.slap.audio_model.encode(
            batch["input_features"], batch["input_features_mask"], batch["masked_positions"]
        )
        torch.testing.assert_close(one.audio_embeds, apart.slap.embed_clips(tokens, layout))
    assert torch.equal(one.loss_terms["masked"], other.loss_terms["masked"])
    assert (one.audio_embeds - other.audio_embeds).abs().max() > 1e-3
    assert abs(one.loss_terms["caption"] - other.loss_terms["caption"]) > 1e-4


@pytest.mark.parametrize("style", ["random", "block"])
def test_masks_are_drawn_when_none_are_given(style, monkeypatch):
    model, batch = make_model(mask_style=style, masking_ratio=0.75), make_batch(with_positions=False)
    seen = []
    encode = model.slap.audio_model.encode
    monkeypatch.setattr(model.slap.audio_model, "encode", lambda *a, **k: seen.append(a[2:]) or encode(*a, **k))
    model(**batch)
    (masked,), () = seen  # the masked pass first, then the whole clips
    assert masked.sum(1).tolist() == [21, 3, 12, 9]  # three quarters of 28, 4, 16 and 12


def test_decoder_for_another_width_is_refused_unless_unused():
    sections = {"decoder_config": {"encoder_hidden_size": 28}}
    with pytest.raises(ValueError, match=r"`decoder_config.encoder_hidden_size` must be .*24, got 28"):
        SlapForPreTraining(tiny_slap_config(**sections))
    assert not hasattr(SlapForPreTraining(tiny_slap_config(**sections, caption_weight=0)), "caption_decoder")


def test_masked_positions_of_another_shape_are_refused():
    batch = make_batch()
    batch["masked_positions"] = batch["masked_positions"][:, :27]
    with pytest.raises(ValueError, match="`masked_positions` must be"):
        make_model()(**batch)


@pytest.mark.parametrize(
    ("numbers", "is_equal"),
    [
        ({"masked_loss_chunk_size": 5}, True),
        ({"masked_loss_weighting": "token"}, False),
        ({"target_centering": "sinkhorn"}, False),
        ({"target_centering": "none"}, False),
    ],
)
def test_forms_of_the_masked_loss(numbers, is_equal):
    batch = make_batch()
    base, wanted = gradients_of(make_model(), batch)
    other, got = gradients_of(make_model(**numbers), batch)
    if is_equal:
        torch.testing.assert_close(other.loss, base.loss)
        assert_same_gradients(got, wanted)
    else:
        assert abs(other.loss_terms["masked"] - base.loss_terms["masked"]) > 1e-3


def test_the_clip_counts_or_the_token():
    """One clip with one hidden token, three with many: the two weightings by hand."""
    batch = make_batch()
    batch["masked_positions"][1] = torch.arange(28) == 2
    alone = {}
    for row in range(4):
        clip = {name: value[row : row + 1] for name, value in batch.items()}
        alone[row] = make_model().eval()(**clip).loss_terms["masked"].item()
    numbers = batch["masked_positions"].sum(1).tolist()
    by_clip = make_model().eval()(**batch).loss_terms["masked"].item()
    by_token = make_model(masked_loss_weighting="token").eval()(**batch).loss_terms["masked"].item()
    assert by_clip == pytest.approx(sum(alone.values()) / 4, rel=1e-5)
    assert by_token == pytest.approx(sum(alone[row] * numbers[row] for row in range(4)) / sum(numbers), rel=1e-5)
    assert abs(by_clip - by_token) > 1e-3


# gradients


def test_every_trainable_weight_gets_gradient_and_no_other():
    model = make_model()
    model.set_progress(1, 2)  # past the steps with frozen prototypes
    _, gradients = gradients_of(model, make_batch())
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert gradients.keys() == trainable
    assert {name for name, _ in model.named_parameters()} - trainable == {
        name for name, _ in model.named_parameters() if name.startswith("teacher_")
    }
    idle = [name for name, grad in gradients.items() if torch.count_nonzero(grad) == 0]
    assert not idle


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(use_reentrant):
    """With SpecAugment, drop path and drawn masks on: the recomputed pass must see the same draws."""
    model = make_model(audio_config={"drop_path_rate": 0.3}, decoder_config={"dropout": 0.2})
    batch = make_batch(with_positions=False)
    _, plain = gradients_of(model, batch)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    _, saved = gradients_of(model, batch)
    assert_same_gradients(saved, plain, rtol=1e-6)
    _, other = gradients_of(model, batch, seed=4)
    assert (other["slap.audio_model.norm.weight"] - plain["slap.audio_model.norm.weight"]).abs().max() > 1e-3


def test_packed_and_padded_towers_train_alike():
    batch = make_batch(with_positions=False)
    results = [
        gradients_of(make_model(audio_config={"use_packing": use_packing, "drop_path_rate": 0.3}), batch)
        for use_packing in (True, False)
    ]
    torch.testing.assert_close(results[0][0].loss, results[1][0].loss, rtol=1e-5, atol=1e-5)
    assert_same_gradients(results[0][1], results[1][1], rtol=2e-5)


def test_draws_follow_the_seed():
    model, batch = make_model(decoder_config={"dropout": 0.2}), make_batch(with_positions=False)
    first, gradients = gradients_of(model, batch)
    again, same = gradients_of(model, batch)
    assert torch.equal(first.loss, again.loss)
    assert all(torch.equal(grad, same[name]) for name, grad in gradients.items())
    other, _ = gradients_of(model, batch, seed=4)
    assert not torch.equal(first.loss, other.loss)


def test_bf16_autocast_is_close_to_float32():
    model, batch = make_model(), make_batch()
    exact, _ = gradients_of(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough, gradients = gradients_of(model, batch)
    for name, term in exact.loss_terms.items():
        assert rough.loss_terms[name].dtype == torch.float32
        assert abs(rough.loss_terms[name] - term) < 0.05 * abs(term)
    assert all(torch.isfinite(grad).all() for grad in gradients.values())


# SpecAugment


def test_student_sees_stripes_and_teacher_does_not(monkeypatch):
    model, batch = make_model(), make_batch(with_positions=False)
    batch["input_features"] += 5.0  # no zeros but stripes and padding
    seen = {}
    for name, tower in (("student", model.slap.audio_model), ("teacher", model.teacher_audio_model)):
        encode = tower.encode
        monkeypatch.setattr(
            tower,
            "encode",
            lambda *a, name=name, encode=encode, **k: seen.setdefault(name, []).append(a[0]) or encode(*a, **k),
        )
    torch.manual_seed(0)
    model(**batch)
    (whole,), (masked, unmasked) = seen["teacher"], seen["student"]
    assert torch.equal(whole, batch["input_features"])
    assert torch.equal(masked, unmasked)
    hidden = (masked == 0) & batch["input_features_mask"].unsqueeze(-1)
    assert hidden.any()
    kept = (masked != 0) & batch["input_features_mask"].unsqueeze(-1)
    assert torch.equal(masked[kept], whole[kept])
    seen.clear()
    model.eval()(**batch)
    assert torch.equal(seen["student"][0], batch["input_features"])


# teacher


def pairs_equal(model):
    return all(
        torch.equal(value, student.state_dict()[name])
        for teacher, student in model.teacher_pairs()
        for name, value in teacher.state_dict().items()
    )


def test_teacher_starts_as_its_student(tmp_path):
    torch.manual_seed(0)
    model = SlapForPreTraining(tiny_slap_config())
    assert pairs_equal(model)
    assert len(model.teacher_pairs()) == 2
    # a model exported earlier: its encoder goes to both
    model.slap.save_pretrained(tmp_path)
    torch.manual_seed(1)
    started = SlapForPreTraining.from_pretrained(tmp_path)
    assert pairs_equal(started)
    for name, value in SlapModel.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(started.slap.state_dict()[name], value), name
    assert torch.count_nonzero(started.teacher_center) == 0


def test_teacher_follows_in_closed_form():
    model = make_model()
    start = copy.deepcopy(model.teacher_audio_model.state_dict())
    center = model.teacher_center.clone()
    for _ in range(5):
        model.update_teacher(0.8)
    student = model.slap.audio_model.state_dict()
    for name, value in model.teacher_audio_model.state_dict().items():
        torch.testing.assert_close(value, student[name] + 0.8**5 * (start[name] - student[name]))
    head = "layers.0.bias"
    assert not torch.equal(model.teacher_prototype_head.state_dict()[head], start.get(head, torch.zeros(26)))
    assert torch.equal(model.teacher_center, center)


def test_teacher_stays_in_eval_mode_and_without_gradient(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    for candidate in (model, SlapForPreTraining.from_pretrained(tmp_path), copy.deepcopy(model)):
        for mode in (True, False, True):
            candidate.train(mode)
            assert candidate.slap.audio_model.training is mode
            for teacher, _ in candidate.teacher_pairs():
                assert not any(module.training for module in teacher.modules())
                assert not any(p.requires_grad for p in teacher.parameters())
        assert all(p.requires_grad for p in candidate.slap.parameters())
        assert all(p.requires_grad for p in candidate.prototype_head.parameters())


def test_centre_follows_the_teacher_in_training_only():
    model, batch = make_model(), make_batch()
    before = model.teacher_center.clone()
    model.eval()(**batch)
    assert torch.equal(model.teacher_center, before)
    model.train()(**batch)
    with torch.no_grad():
        tokens = model.teacher_audio_model(batch["input_features"], batch["input_features_mask"]).last_hidden_state
        features = model.teacher_prototype_head(tokens[batch["masked_positions"]])
        mean = (features @ model.teacher_prototype_head.unit_prototypes().T).mean(0)
    torch.testing.assert_close(model.teacher_center, 0.9 * before + 0.1 * mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("step", "temperature", "is_frozen"),
    [(0, 0.04, True), (1, 0.041, False), (15, 0.055, False), (30, 0.07, False), (99, 0.07, False)],
)
def test_progress_sets_temperature_and_frozen_prototypes(step, temperature, is_frozen):
    model = make_model()
    model.set_progress(step, 100)
    assert model.teacher_temperature == pytest.approx(temperature)
    assert model.freezes_prototypes is is_frozen
    _, gradients = gradients_of(model, make_batch())
    assert (torch.count_nonzero(gradients["prototype_head.prototypes"]) == 0) == is_frozen
    assert torch.count_nonzero(gradients["prototype_head.layers.0.weight"]) > 0


def test_no_warm_up_means_final_values_from_the_start():
    model = make_model(teacher_temperature_warmup=0.0, freeze_prototypes_warmup=0.0)
    assert model.teacher_temperature == 0.07
    assert not model.freezes_prototypes


def test_teacher_temperature_matters():
    model, batch = make_model().eval(), make_batch()
    late = model(**batch).loss_terms["masked"]
    model.set_progress(0, 1)
    assert abs(model(**batch).loss_terms["masked"] - late) > 1e-4


def test_without_a_loop_the_prototypes_train_at_the_last_temperature():
    model, batch = make_model(), make_batch()
    assert model.teacher_temperature == model.config.teacher_temperature_end
    model(**batch).loss_terms["masked"].backward()
    assert model.prototype_head.prototypes.grad.abs().max() > 0


def test_scale_is_clamped_after_the_step():
    model = make_model()
    with torch.no_grad():
        model.slap.logit_scale.log_scale.fill_(9.0)
    model.after_optimizer_step()
    assert model.slap.logit_scale().item() == pytest.approx(100.0, rel=1e-3)
    with torch.no_grad():
        model.slap.logit_scale.log_scale.fill_(-1.0)
    model.after_optimizer_step()
    assert model.slap.logit_scale.log_scale.item() == -1.0


# training


def train(model, batches, learning_rate=3e-3, decay=0.9, num_steps=None):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    num_steps = num_steps or len(batches)
    for step in range(num_steps):
        model.set_progress(step, num_steps)
        model(**batches[step % len(batches)]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.after_optimizer_step()
        model.update_teacher(decay)


def test_saved_model_continues_to_the_bit(tmp_path):
    model = make_model()
    batches = [make_batch(seed, with_positions=False) for seed in range(3)]
    torch.manual_seed(0)
    train(model, batches[:2])
    model.save_pretrained(tmp_path)
    # copied out of the mapped file: products of unaligned memory may differ in the last bit
    loaded = copy.deepcopy(SlapForPreTraining.from_pretrained(tmp_path)).train()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    results = []
    for candidate in (model, loaded):
        candidate.set_progress(2, 9)
        torch.manual_seed(5)
        output = candidate(**batches[2])
        output.loss.backward()
        grads = {name: p.grad for name, p in candidate.named_parameters() if p.grad is not None}
        results.append({"loss": output.loss, "center": candidate.teacher_center, **grads})
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_eight_pairs_are_learnt():
    """All three losses fall, and every clip finds its caption, in a fixed number of steps."""
    torch.manual_seed(0)
    model = SlapForPreTraining(tiny_slap_config(decoder_config={"dropout": 0.0})).train()
    halves = [tiny_batch(tiny_slap_config(), seed) for seed in (11, 12)]
    batch = {name: torch.cat([half[name] for half in halves]) for name in halves[0]}
    assert len(torch.unique(batch["input_ids"], dim=0)) == 8

    def evaluate():
        model.eval()
        torch.manual_seed(1)
        with torch.no_grad():
            output = model(**batch)
        model.train()
        return {name: term.item() for name, term in output.loss_terms.items()}, output

    model.set_progress(1, 1)
    before, _ = evaluate()
    train(model, [batch], learning_rate=5e-3, num_steps=60)
    model.set_progress(1, 1)
    after, output = evaluate()
    scores = output.audio_embeds @ output.text_embeds.T
    assert torch.equal(scores.argmax(1), torch.arange(8))
    assert torch.equal(scores.argmax(0), torch.arange(8))
    assert after["contrastive"] < 0.1 * before["contrastive"]
    assert after["caption"] < 0.5 * before["caption"]
    assert after["masked"] < 0.7 * before["masked"]


def test_every_clip_and_caption_gets_gradient_from_the_contrastive_term(monkeypatch):
    seen = {}

    def spy(audio, text, scale):
        for embeds, name in ((audio, "audio"), (text, "text")):
            embeds.register_hook(lambda grad, name=name: seen.__setitem__(name, grad))
        return original(audio, text, scale)

    original = modeling_slap.contrastive_loss
    monkeypatch.setattr(modeling_slap, "contrastive_loss", spy)
    model = make_model(masked_weight=0.0, caption_weight=0.0)
    model(**make_batch()).loss.backward()
    for grad in seen.values():
        assert (grad.abs().amax(1) > 0).all()

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""MGA-CLAP's aggregation, words, frames and objective against restatements of the paper's equations."""

import logging

import pytest
import torch
import torch.nn.functional as F
from tiny import CLS, PAD, SEP, tiny_batch, tiny_mga_clap_config

from hf_audiolang import MgaClapConfig, MgaClapModel
from hf_audiolang.models import modeling_mga_clap
from hf_audiolang.models.layers_pair_scores import PAIR_SCORES
from hf_audiolang.models.losses_hard_negative import hard_negative_contrastive_loss

PAIRS = ("uaca", "wstag", "attention")


def make_model(**overrides):
    torch.manual_seed(1)
    model = MgaClapModel(tiny_mga_clap_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def make_inputs(model, seed=2):
    return {name: value for name, value in tiny_batch(model.config, seed=seed).items() if name != "labels"}


def text_of(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def audio_of(inputs):
    return {name: inputs[name] for name in ("input_features", "input_features_mask")}


def sorted_sparsemax(scores):
    ordered = scores.sort(descending=True).values
    ranks = torch.arange(1, len(scores) + 1)
    kept = int((1 + ranks * ordered > ordered.cumsum(0)).sum())
    return (scores - (ordered[:kept].sum() - 1) / kept).clamp(min=0)


def projected(projection, features):
    hidden = F.layer_norm(features, features.shape[-1:], projection.input_norm.weight, projection.input_norm.bias)
    hidden = F.gelu(hidden @ projection.fc1.weight.T + projection.fc1.bias)
    norm = projection.hidden_norm
    hidden = F.layer_norm(hidden, hidden.shape[-1:], norm.weight, norm.bias)
    return hidden @ projection.fc2.weight.T + projection.fc2.bias


def test_clips_and_captions_are_sums_of_shared_codewords():
    """Equations 2 and 3 for one row at a time, as the authors' code computes them."""
    model = make_model(affinity_divisor=2.5)
    inputs = make_inputs(model)
    with torch.no_grad():
        outputs = model(**inputs)
        frames = projected(model.audio_projection, outputs.audio_model_output.frame_features)
        words = projected(model.text_projection, outputs.text_model_output.last_hidden_state)
        codewords = model.codebook.weight
        for row in range(4):
            real = frames[row][outputs.audio_model_output.frame_mask[row]]
            weights = sorted_sparsemax((real @ codewords.T / 2.5).max(0).values)
            wanted = F.normalize(weights @ codewords, dim=0)
            torch.testing.assert_close(outputs.audio_embeds[row], wanted, rtol=1e-5, atol=1e-6)

            is_word = (inputs["input_ids"][row] != CLS) & (inputs["input_ids"][row] != SEP)
            is_word &= inputs["input_ids"][row] != PAD
            affinity = (words[row] @ codewords.T) * is_word.unsqueeze(1) / 2.5  # what is no word scores 0
            weights = sorted_sparsemax(affinity.max(0).values)
            wanted = F.normalize(weights @ codewords, dim=0)
            torch.testing.assert_close(outputs.text_embeds[row], wanted, rtol=1e-5, atol=1e-6)
    scores = model.logit_scale.temperature.item()
    torch.testing.assert_close(outputs.logits_per_audio, outputs.audio_embeds @ outputs.text_embeds.T / scores)


def test_divisor_left_out_is_the_authors():
    assert make_model(affinity_divisor=None).codebook.affinity_divisor == pytest.approx(20**0.5 * 1000)


def test_word_masks_of_zero_and_minus_infinity_differ():
    inputs = make_inputs(make_model())
    zero = make_model(affinity_divisor=50.0).get_text_features(**text_of(inputs)).pooler_output
    left_out = make_model(affinity_divisor=50.0, text_mask_mode="neg_inf").get_text_features(**text_of(inputs))
    assert (zero - left_out.pooler_output).abs().max() > 1e-3


def test_padding_on_either_side_changes_no_caption():
    model = make_model(affinity_divisor=2.0)
    ids = torch.tensor([[CLS, 9, 12, 7, SEP]])
    with torch.no_grad():
        alone = model.get_text_features(ids, torch.ones_like(ids)).pooler_output
        longer = torch.cat([ids, torch.full((1, 3), PAD)], 1)
        padded = model.get_text_features(longer, (longer != PAD).long()).pooler_output
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)


def test_a_clip_is_the_same_in_any_batch():
    model = make_model(affinity_divisor=2.0)
    inputs = audio_of(make_inputs(model))
    with torch.no_grad():
        whole = model.get_audio_features(**inputs).pooler_output
        for row in range(4):
            one = {name: value[row : row + 1] for name, value in inputs.items()}
            torch.testing.assert_close(model.get_audio_features(**one).pooler_output[0], whole[row])


def test_words_are_what_is_no_special_token():
    model = make_model()
    ids = torch.tensor([[CLS, 9, 12, SEP, PAD], [CLS, 7, SEP, PAD, PAD], [9, 9, CLS, 1, SEP]])
    assert model.word_mask(ids).tolist() == [
        [False, True, True, False, False],
        [False, True, False, False, False],
        [True, True, False, True, False],  # an unknown word is a word
    ]
    attention_mask = torch.tensor([[1, 1, 0, 1, 0]] * 3)
    assert model.word_mask(ids, attention_mask)[0].tolist() == [False, True, False, False, False]
    with torch.no_grad():
        words = model.get_word_features(ids)
    norms = words.word_features.norm(dim=-1)
    torch.testing.assert_close(norms, words.word_mask.float())


def test_frames_are_projected_directly_or_through_the_codebook():
    direct, through = make_model(affinity_divisor=2.0), make_model(affinity_divisor=2.0, frame_mode="codebook")
    inputs = audio_of(make_inputs(direct))
    with torch.no_grad():
        frames, mask = direct.frame_embeddings(**inputs)
        found = direct.get_audio_frame_features(**inputs)
        torch.testing.assert_close(found.frame_features[mask], F.normalize(frames[mask], dim=-1))
        assert torch.equal(found.frame_mask, mask)
        assert not found.frame_features[~mask].any()
        assert (~mask).any()
        by_codebook = through.get_audio_frame_features(**inputs).frame_features
        row = frames[0, 3]
        weights = sorted_sparsemax(row @ direct.codebook.weight.T / 2.0)
        torch.testing.assert_close(
            by_codebook[0, 3], F.normalize(weights @ direct.codebook.weight, dim=0), rtol=1e-5, atol=1e-6
        )


def test_codeword_weights_of_clips_and_captions():
    model = make_model(affinity_divisor=2.0)
    inputs = make_inputs(model)
    with torch.no_grad():
        outputs = model(**inputs)
        for weights, embeds in (
            (model.get_codeword_weights(**audio_of(inputs)), outputs.audio_embeds),
            (model.get_codeword_weights(**text_of(inputs)), outputs.text_embeds),
        ):
            torch.testing.assert_close(weights.sum(1), torch.ones(4))
            assert (weights == 0).any()
            torch.testing.assert_close(F.normalize(weights @ model.codebook.weight, dim=1), embeds)
    with pytest.raises(ValueError, match="Exactly one of `input_ids` and `input_features` is needed, got both"):
        model.get_codeword_weights(**inputs)
    with pytest.raises(ValueError, match="no codebook, got `aggregation` 'mean'"):
        make_model(aggregation="mean").get_codeword_weights(**audio_of(inputs))


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_clap_pools_frames_and_words(aggregation):
    model = make_model(aggregation=aggregation)
    inputs = make_inputs(model)
    with torch.no_grad():
        outputs = model(**inputs)
        (frames, frame_mask), (words, word_mask) = (
            model.frame_embeddings(**audio_of(inputs)),
            model.word_embeddings(**text_of(inputs)),
        )
        for row in range(4):
            for features, mask, embeds in (
                (frames, frame_mask, outputs.audio_embeds),
                (words, word_mask, outputs.text_embeds),
            ):
                real = features[row][mask[row]]
                pooled = real.mean(0) if aggregation == "mean" else real.max(0).values
                torch.testing.assert_close(embeds[row], F.normalize(pooled, dim=0), rtol=1e-5, atol=1e-6)
    assert not [name for name, _ in model.named_parameters() if name.startswith("codebook")]


@pytest.mark.parametrize("aggregation", PAIRS)
def test_pair_scores_are_the_logits(aggregation):
    model = make_model(aggregation=aggregation)
    inputs = make_inputs(model)
    with torch.no_grad():
        outputs = model(**inputs)
        frames, words = model.get_audio_frame_features(**audio_of(inputs)), model.get_word_features(**text_of(inputs))
        scores = PAIR_SCORES[aggregation](
            frames.frame_features, frames.frame_mask, words.word_features, words.word_mask
        )
    torch.testing.assert_close(outputs.logits_per_audio, scores / model.logit_scale.temperature)
    by_embeddings = outputs.audio_embeds @ outputs.text_embeds.T
    assert (by_embeddings - scores).abs().max() > 1e-3  # control: the embeddings are another similarity


@pytest.mark.parametrize("aggregation", ["codebook", "mean", "wstag"])
@pytest.mark.parametrize("clip_ids", [None, [3, 8, 3, 1]])
def test_objective_is_the_loss_of_the_logits_and_the_regularizer(aggregation, clip_ids):
    model = make_model(aggregation=aggregation, affinity_divisor=2.0, regularizer_weight=0.5, hard_negative_gamma=0.3)
    inputs = make_inputs(model)
    ids = None if clip_ids is None else torch.tensor(clip_ids)
    outputs = model(**inputs, clip_ids=ids, return_loss=True)
    is_pair = torch.eye(4, dtype=torch.bool) if ids is None else ids.unsqueeze(0) == ids.unsqueeze(1)
    logits = outputs.logits_per_audio
    wanted = hard_negative_contrastive_loss(logits, logits.T, is_pair, gamma=0.3)
    torch.testing.assert_close(outputs.loss_terms["contrastive"], wanted)
    sums = [e.abs().sum() / e.numel() / 2 for e in (outputs.audio_embeds, outputs.text_embeds)]  # norm sqrt(4)
    torch.testing.assert_close(outputs.loss_terms["regularizer"], sum(sums))
    torch.testing.assert_close(outputs.loss, wanted + 0.5 * sum(sums))
    assert ("active_codewords_audio" in outputs.metrics) == (aggregation == "codebook")


def test_terms_that_are_switched_off_are_left_out():
    model = make_model(regularizer_weight=0.0, hard_negative_gamma=0.0)
    outputs = model(**make_inputs(model), return_loss=True)
    assert list(outputs.loss_terms) == ["contrastive"]
    targets = torch.arange(4)
    logits = outputs.logits_per_audio
    plain = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    torch.testing.assert_close(outputs.loss, plain)


def test_temperature_is_held_above_its_minimum_in_training_only():
    model = make_model()
    with torch.no_grad():
        model.logit_scale.temperature.fill_(1e-5)
    assert model.logit_scale().item() == pytest.approx(1e5)
    assert model.train().logit_scale().item() == pytest.approx(1e3)


def test_training_learns_four_pairs():
    model = make_model(affinity_divisor=2.0).train()
    inputs = make_inputs(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model(**inputs, return_loss=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_unused_codewords_are_reported_with_their_share(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_audiolang"), "propagate", True)
    monkeypatch.setattr(modeling_mga_clap, "GUARD_STEPS", 3)
    for divisor, is_warned in ((0.01, True), (100.0, False)):
        caplog.clear()
        model = make_model(affinity_divisor=divisor).train()
        for step in range(4):
            model.set_progress(step, 4)
            model(**make_inputs(model), return_loss=True)
            model.after_optimizer_step()
        warned = [line for line in caplog.messages if "codewords were in no clip and no caption" in line]
        assert len(warned) == is_warned
        if is_warned:
            used = model.codebook.weight.shape[0]
            assert "% of the " in warned[0]
            assert f"{used} codewords" in warned[0]


def test_one_modality_alone_and_unpaired_rows_are_refused():
    model = make_model()
    inputs = make_inputs(model)
    with pytest.raises(ValueError, match="got no clips"):
        model(**text_of(inputs))
    with pytest.raises(ValueError, match="as many clips as captions, got 4 and 2"):
        model(**audio_of(inputs), input_ids=inputs["input_ids"][:2], return_loss=True)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"affinity_divisor": 0.0}, "`affinity_divisor` must be positive"),
        ({"hard_negative_gamma": -1.0}, "`hard_negative_gamma` must be 0 or more"),
        ({"special_token_ids": []}, "`special_token_ids` is empty"),
        ({"temperature_init_value": 1e-4}, "`temperature_init_value` must be at least"),
        ({"aggregation": "sum"}, "aggregation"),
    ],
)
def test_numbers_that_cannot_work_are_refused(numbers, message):
    with pytest.raises(Exception, match=message):
        tiny_mga_clap_config(**numbers)


def test_default_is_the_released_model():
    config = MgaClapConfig()
    assert config.audio_config.model_type == "htsat"
    assert config.audio_config.locality_blocks == 1
    assert config.text_config.model_type == "bert"
    assert (config.num_codewords, config.projection_dim, config.embedding_size) == (4096, 1024, 1024)

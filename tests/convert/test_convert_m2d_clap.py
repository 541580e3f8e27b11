# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Converted models compute what the official layouts mean, by a restatement in plain torch written from the papers."""

import argparse

import pytest
import torch
import torch.nn.functional as F
from m2d_official import (
    Official,
    bert_state,
    bert_states,
    encode_piece,
    encoder_state,
    fine_tuned_state,
    flat_tokens,
    hashed,
    head_logits,
    linear,
    logit_scale_state,
    masked_predictions,
    mlp_state,
    pretraining_state,
    project_audio,
    project_text,
    stacked_frames,
    stage_2_state,
    statistics_state,
    transformer_projector_state,
)
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

from hf_audiolang import M2dClapAudioForAudioClassification, M2dClapAudioModel
from hf_audiolang.convert import convert_checkpoint

SMALL = Official()  # 5 x 6 patches, tables of 100 frames of which 4 are left over
FINE = Official(frames=40, patch_frames=4)
SPEECH = Official(patch_mels=80, patch_frames=2)
LENGTHS = (7, 64, 100, 101, 203)  # frames: part of a patch, whole patches, a table, one more, three pieces
EXACT = {"rtol": 0, "atol": 1e-5}  # the same mathematics in another order


def training_file(state):
    """What the official training scripts save around a state dict."""
    return {"model": state, "optimizer": {"state": {}}, "epoch": 300, "args": argparse.Namespace(blr=3e-4)}


@pytest.fixture
def convert(tmp_path):
    """Saves content as a checkpoint in a folder of that name and converts it: (report, loaded model)."""

    def run(folder, content, **overrides):
        file = tmp_path / folder / "checkpoint-300.pth"
        file.parent.mkdir()
        torch.save(content, file)
        report = convert_checkpoint("m2d_clap", file, tmp_path / "out", **overrides)
        auto_class = AutoModelForPreTraining if overrides.get("pretraining") else AutoModel
        auto_class = AutoModelForAudioClassification if any("module.head." in key for key in content) else auto_class
        return report, auto_class.from_pretrained(tmp_path / "out").eval()

    return run


def log_mel(num_frames, key="log-mel"):
    return 1.5 * hashed(key, num_frames, 80)


def unit(values):
    return F.normalize(values, dim=-1)


@pytest.mark.parametrize(
    ("folder", "sizes"),
    [
        ("m2d_vit_base-80x100p16x16-221006-mr7_enconly", SMALL),
        ("m2d_vit_base-80x40p16x4-230529", FINE),
        ("m2d_s_vit_base-80x100p80x2-230220", SPEECH),
    ],
)
@torch.no_grad()
def test_encoder_gives_the_tokens_frames_and_scene_of_the_official_layout(convert, folder, sizes):
    state = encoder_state(sizes)
    _, model = convert(folder, state)
    assert type(model).__name__ == "M2dClapAudioModel"
    for num_frames in LENGTHS:
        features = log_mel(num_frames)
        output = model(features.unsqueeze(0))
        tokens, frames = flat_tokens(state, sizes, features), stacked_frames(state, sizes, features)
        torch.testing.assert_close(output.last_hidden_state[0][output.token_mask[0]], tokens, **EXACT)
        torch.testing.assert_close(output.frame_features[0][output.frame_mask[0]], frames, **EXACT)
        torch.testing.assert_close(output.pooler_output[0], frames.mean(0), **EXACT)


@torch.no_grad()
def test_hidden_states_are_the_outputs_of_the_official_blocks(convert):
    state = encoder_state(SMALL)
    _, model = convert("m2d_vit_base-80x100p16x16-221006", state)
    features = log_mel(100)
    hidden = model(features.unsqueeze(0), output_hidden_states=True).hidden_states
    for ours, official in zip(hidden[1:], encode_piece(state, SMALL, features), strict=True):
        torch.testing.assert_close(ours[0], official[1:], **EXACT)


@torch.no_grad()
def test_a_stretched_position_table_is_kept_as_it_is(convert):
    state = encoder_state(SMALL)
    state["pos_embed"] = state["pos_embed"] + 0.5 * hashed("stretched", *state["pos_embed"].shape)
    _, model = convert("m2d_vit_base-80x100p16x16-221006-mr7_as", state)
    assert torch.equal(model.embeddings.position_embeddings, state["pos_embed"][0])
    features = log_mel(64)
    torch.testing.assert_close(
        model(features.unsqueeze(0)).last_hidden_state[0], flat_tokens(state, SMALL, features), **EXACT
    )


PROJECTORS = {
    "semantic token": transformer_projector_state(128, 40),
    "two blocks": transformer_projector_state(128, 256, depth=2),
    "mlp": mlp_state("audio_proj", 128, 72, 128),
    "mean": {},
}
TEXT_PROJECTORS = {"linear": linear("text_proj", 128, 4096), "mlp": mlp_state("text_proj", 4096, 4096, 128)}


@pytest.mark.parametrize("projector", PROJECTORS)
@torch.no_grad()
def test_clip_embeddings_are_those_of_every_official_projector(convert, projector):
    state = encoder_state(SMALL) | PROJECTORS[projector] | TEXT_PROJECTORS["linear"] | logit_scale_state()
    _, model = convert("m2d_clap_vit_base-80x100p16x16p16kpN-2025", training_file(state))
    for num_frames in LENGTHS:
        features = log_mel(num_frames)
        expected = unit(project_audio(state, flat_tokens(state, SMALL, features)))
        found = model.get_audio_features(features.unsqueeze(0)).pooler_output[0]
        torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(model.logit_scale(), torch.tensor(3.25).exp())


@pytest.mark.parametrize("projector", TEXT_PROJECTORS)
@torch.no_grad()
def test_caption_embeddings_pass_through_every_official_text_projector(convert, projector):
    state = encoder_state(SMALL) | PROJECTORS["mlp"] | TEXT_PROJECTORS[projector] | logit_scale_state()
    report, model = convert("m2d_clap_vit_base-80x100p16x16p16kpN-2025", state)
    assert model.config.text_embedding_model == "nvidia/NV-Embed-v2"
    assert "no text encoder" in report.summary()
    captions = hashed("captions", 3, 4096)
    found = model.get_text_features(text_embeddings=captions).pooler_output
    torch.testing.assert_close(found, unit(project_text(state, captions)), **EXACT)


@torch.no_grad()
def test_text_encoder_of_the_file_gives_its_first_state(convert):
    bert = bert_state()
    state = stage_2_state(encoder_state(SMALL) | statistics_state() | PROJECTORS["semantic token"], bert)
    report, model = convert("m2d_clap_vit_base-80x100p16x16p16kpBpTI-2025", training_file(state), tokenizer="none")
    captions = [[2, 17, 9, 41, 30, 3], [2, 25, 3]]
    padded = torch.tensor([captions[0], captions[1] + [0, 0, 0]])
    found = model.get_text_features(padded, (padded > 0).long()).pooler_output
    for row, caption in zip(found, captions, strict=True):
        torch.testing.assert_close(row, unit(bert_states(bert, torch.tensor(caption))[0]), **EXACT)
    last = unit(bert_states(bert, torch.tensor(captions[0]))[-1])
    assert (found[0] - last).abs().max() > 1e-2  # control: another state is not the same
    assert len(report.used) == 31 + 15 + (len(bert) - 3) + 1  # encoder, projector, BERT without pooler, scale
    assert sum("pooling layer" in reason for reason in report.ignored.values()) == 2


def test_text_encoder_has_the_sizes_of_its_tensors(convert):
    bert = bert_state(width=64, depth=3, mlp=80, vocab=60, positions=48, types=3)
    state = encoder_state(SMALL) | linear("text_proj", 128, 64)
    report, _ = convert("m2d_clap_vit_base-80x100p16x16p16kpBpTI-2025", stage_2_state(state, bert), tokenizer="none")
    config = report.config.text_config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 3, 1)
    assert (config.intermediate_size, config.vocab_size, config.max_position_embeddings) == (80, 60, 48)
    assert (config.type_vocab_size, report.config.text_embedding_size) == (3, 64)


def test_what_a_file_does_not_hold_is_said_and_not_trained(convert):
    state = encoder_state(SMALL) | PROJECTORS["semantic token"] | TEXT_PROJECTORS["linear"]
    report, model = convert("m2d_clap_vit_base-80x100p16x16p16kpN-2025", state)
    assert "no `logit_scale`: it starts from its initial value" in report.summary()
    torch.testing.assert_close(model.logit_scale(), torch.tensor(1 / 0.07), rtol=1e-4, atol=0)
    assert (report.config.masked_weight, report.config.contrastive_weight) == (0, 1)  # no predictor: alignment alone


@pytest.mark.parametrize("num_features", [128, 640])
@torch.no_grad()
def test_a_fine_tuned_file_becomes_a_classifier(convert, num_features):
    encoder = encoder_state(SMALL) | statistics_state(-6.5, 4.0)
    state = fine_tuned_state(encoder, num_features)
    report, model = convert("m2d_vit_base-80x100p16x16-221006-mr7_as_46ab246d", state)
    assert type(model) is M2dClapAudioForAudioClassification
    features = log_mel(90)
    official = flat_tokens if num_features == 128 else stacked_frames
    expected = head_logits(state, official(encoder, SMALL, features).mean(0))
    torch.testing.assert_close(model(features.unsqueeze(0)).logits[0], expected, **EXACT)
    assert model.config.problem_type == "multi_label_classification"
    assert not any("head" in key for key in report.ignored if "num_batches_tracked" not in key)
    assert "does not name its 7 classes" in report.summary()


def test_the_classes_of_audioset_are_in_the_order_of_their_ids(convert):
    state = fine_tuned_state(encoder_state(SMALL), 128, 527)
    report, model = convert("m2d_vit_base-80x100p16x16-221006-mr7_as_46ab246d", state)
    # /g/122z_qxw and /t/dd00136, the first and last of the ids; the table of AudioSet begins with Speech
    assert (model.config.id2label[0], model.config.id2label[526]) == ("Firecracker", "Whimper (dog)")
    assert "ids sorted as strings" in report.summary()


def test_the_encoder_of_a_fine_tuned_file_loads_alone(convert, tmp_path):
    state = fine_tuned_state(encoder_state(SMALL), 128)
    _, model = convert("m2d_vit_base-80x100p16x16-221006-mr7_as_46ab246d", state)
    encoder = AutoModel.from_pretrained(tmp_path / "out")
    assert type(encoder) is M2dClapAudioModel
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, model.audio_model.state_dict()[name])


HEAD = "module.head."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp.mlp.0.weight": None}, r"head lacks \['module.head.mlp.mlp.0.weight'\]"),
        ({"norm.running_mean": None, "norm.running_var": None}, r"head lacks \['module.head.norm.running_mean', "),
        ({"mlp.mlp.0.weight": torch.zeros(7, 64)}, r"with D one of \[128, 640\]"),
        ({"mlp.mlp.0.weight": torch.zeros(7, 640)}, r"shapes .*\(7, 640\).*\(7,\)"),
        ({"mlp.mlp.0.bias": torch.zeros(6)}, r"shapes .*\(6,\)"),
        ({"norm.running_var": torch.zeros(1)}, r"shapes .*\(1,\)"),
        ({"mlp.mlp.0.weight": torch.full((7, 128), torch.nan)}, "0.weight` holds values that are not finite"),
        ({"mlp.mlp.0.bias": torch.full((7,), torch.inf)}, "0.bias` holds values that are not finite"),
        ({"norm.running_var": -torch.ones(128)}, "running_var` holds values that are not finite, or negative"),
    ],
)
def test_damaged_heads_are_refused(convert, tmp_path, change, message):
    state = fine_tuned_state(encoder_state(SMALL), 128)
    for key, value in change.items():
        del state[HEAD + key]
        if value is not None:
            state[HEAD + key] = value
    with pytest.raises(ValueError, match=message):
        convert("m2d_vit_base-80x100p16x16-221006-mr7_as_46ab246d", state)
    assert not (tmp_path / "out").exists()


@torch.no_grad()
def test_predictor_and_teacher_are_converted_when_asked_for(convert):
    state = encoder_state(SMALL) | pretraining_state(SMALL)
    report, model = convert("m2d_vit_base-80x100p16x16-221006-mr7", training_file(state), pretraining=True)
    assert not report.ignored
    assert model.config.contrastive_weight == 0
    features = log_mel(96)
    is_hidden = hashed("hidden", 30) > -0.4
    predicted, target = masked_predictions(state, SMALL, features, is_hidden, heads=2)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    expected = (2 - 2 * F.cosine_similarity(predicted, target, dim=-1)).mean()
    found = model(features.unsqueeze(0), masked_positions=is_hidden.unsqueeze(0)).loss_terms["masked"]
    torch.testing.assert_close(found, expected, **EXACT)


def test_predictor_of_a_system_comes_with_its_projectors(convert, tmp_path):
    state = encoder_state(SMALL) | pretraining_state(SMALL) | PROJECTORS["semantic token"]
    state |= TEXT_PROJECTORS["linear"] | logit_scale_state()
    report, model = convert("m2d_clap_vit_base-80x100p16x16p16kpN-2025", training_file(state), pretraining=True)
    assert len(report.used) == len(state)
    assert {"masked", "contrastive"} == set(
        model(torch.stack([log_mel(96), log_mel(96, "b")]), text_embeddings=hashed("c", 2, 4096)).loss_terms
    )
    system = AutoModel.from_pretrained(tmp_path / "out")
    assert torch.equal(system.text_projection.weight, state["text_proj.weight"])
    assert torch.equal(model.teacher_norm.weight, state["target_norm.weight"])


def test_predictor_and_teacher_are_ignored_with_a_reason_otherwise(convert):
    state = encoder_state(SMALL) | pretraining_state(SMALL) | linear("offline_predictor", 7, 640)
    report, model = convert("m2d_as_vit_base-80x100p16x16-240213", training_file(state))
    assert type(model).__name__ == "M2dClapAudioModel"
    assert "predictor of masked patches" in report.ignored["mask_token"]
    assert "teacher" in report.ignored["target_blocks.1.attn.qkv.bias"]
    assert "M2D-X" in report.ignored["offline_predictor.weight"]
    assert set(report.used) | set(report.ignored) == set(state)
    assert "optimizer, epoch, args" in report.summary()


def test_msm_mae_encoder_is_converted_without_its_decoder(convert):
    state = encoder_state(SMALL) | pretraining_state(SMALL, has_teacher=False)
    report, model = convert("msm_mae_vit_base-80x100p16x16-220924-mr75", state)
    assert "MSM-MAE" in report.layout
    assert torch.equal(model.norm.weight, state["norm.weight"])


def test_files_without_any_head_count_need_it(convert):
    narrow = Official(width=40)
    with pytest.raises(ValueError, match=r"width of 40 is no multiple of 64.*Pass `num_attention_heads`"):
        convert("m2d_vit_base-80x100p16x16-221006", encoder_state(narrow))


@torch.no_grad()
def test_another_number_of_heads_changes_the_result(convert):
    state = encoder_state(SMALL)
    _, model = convert("m2d_vit_base-80x100p16x16-221006", state, num_attention_heads="4")
    features = log_mel(64)
    assert model.config.num_attention_heads == 4
    found = model(features.unsqueeze(0)).last_hidden_state[0]
    assert (found - flat_tokens(state, SMALL, features)).abs().max() > 1e-2


def test_half_precision_files_become_float32(convert):
    state = {key: value.half() if value.ndim > 1 else value for key, value in encoder_state(SMALL).items()}
    _, model = convert("m2d_vit_base-80x100p16x16-221006", state)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.layers[1].mlp.fc2.weight, state["blocks.1.mlp.fc2.weight"].float())

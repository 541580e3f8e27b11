# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Folder names and overrides as configuration; contradictions, gaps, damaged and foreign files are refused."""

import math

import pytest
import torch
from m2d_official import (
    Official,
    bert_state,
    encoder_state,
    fine_tuned_state,
    front_end_state,
    hashed,
    linear,
    logit_scale_state,
    mlp_state,
    pretraining_state,
    stage_2_state,
    statistics_state,
    transformer_projector_state,
)
from transformers import AutoFeatureExtractor

from hf_audiolang.convert import convert_checkpoint
from hf_audiolang.convert.m2d_clap_options import FolderName, M2dClapOptions, parse_folder_name

SMALL = Official()
NAME = "m2d_vit_base-80x100p16x16-221006-mr7"
CLAP_NAME = "m2d_clap_vit_base-80x100p16x16p16kpN-2025"


def clap_state():
    state = encoder_state(SMALL) | transformer_projector_state(128, 40) | linear("text_proj", 128, 4096)
    return state | logit_scale_state()


@pytest.fixture
def convert(tmp_path):
    def run(folder, content, **overrides):
        file = tmp_path / folder / "checkpoint-300.pth"
        file.parent.mkdir(exist_ok=True)
        torch.save(content, file)
        return convert_checkpoint("m2d-clap", file, tmp_path / "out", **overrides)

    return run


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m2d_vit_base-80x608p16x16-221006-mr7_enconly", ("m2d_vit_base", 80, 608, 16, 16, 16000, "A", False)),
        ("m2d_vit_base-80x200p16x4-230529", ("m2d_vit_base", 80, 200, 16, 4, 16000, "A", False)),
        ("m2d_s_vit_base-80x512p80x2-230301", ("m2d_s_vit_base", 80, 512, 80, 2, 16000, "A", False)),
        ("m2d_as_vit_base-80x608p16x16p32k-240413", ("m2d_as_vit_base", 80, 608, 16, 16, 32000, "A", False)),
        (
            "m2d_clap_vit_base-80x1001p16x16p16kpBpTI-2025",
            ("m2d_clap_vit_base", 80, 1001, 16, 16, 16000, "B", True),
        ),
        ("m2d_clap_vit_base-80x608p16x16p16kpN", ("m2d_clap_vit_base", 80, 608, 16, 16, 16000, "N", False)),
    ],
)
def test_official_folder_names_are_configurations(name, expected):
    assert parse_folder_name(name) == FolderName(*expected)


@pytest.mark.parametrize("name", ["weights", "m2d", "m2d_vit_base-final", "80x608p16x16", "m2d-80x608-p16x16", ""])
def test_other_folder_names_say_nothing(name):
    assert parse_folder_name(name) is None


@pytest.mark.parametrize("ending", ["p44k", "p16kpZ", "p16kpBpXX", "p16kpBpTIpTI"])
def test_unknown_parts_of_an_official_name_are_refused(ending):
    with pytest.raises(ValueError, match=rf"ends its sizes with '{ending}'. Known are a rate \(16k, 32k\)"):
        parse_folder_name(f"m2d_clap_vit_base-80x608p16x16{ending}-2025")


@pytest.mark.parametrize("kind", ["text", "typed"])
def test_overrides_may_be_texts_of_a_command_line(kind):
    typed = {"sampling_rate": 32000, "pretraining": True, "ignore_unknown": False, "name": "a-b", "tokenizer": None}
    given = {key: str(value) for key, value in typed.items() if value is not None} if kind == "text" else typed
    assert M2dClapOptions.from_overrides(given) == M2dClapOptions(**typed)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"rate": 3}, "Unknown override 'rate'. Choose one of .*'sampling_rate'"),
        ({"max_frames": "many"}, "`max_frames` must be a positive whole number, got 'many'"),
        ({"max_frames": True}, "`max_frames` must be a positive whole number"),
        ({"max_frames": -3}, "`max_frames` must be a positive whole number"),
        ({"pretraining": "perhaps"}, "`pretraining` must be true or false, got 'perhaps'"),
        ({"text_pooling": "max"}, "Unknown `text_pooling` 'max'"),
    ],
)
def test_wrong_overrides_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        M2dClapOptions.from_overrides(overrides)


def test_name_override_stands_for_a_renamed_folder(convert):
    with pytest.raises(ValueError, match=r"`name` must be an official folder name such as .*, got 'weights'"):
        convert("weights", encoder_state(SMALL), name="weights")
    report = convert("weights", encoder_state(SMALL), name="m2d_vit_base-80x100p16x16p32k-221006")
    assert report.config.max_frames == 100
    assert report.numbers["sampling_rate"] == (32000, "folder name")


def test_nothing_is_assumed_where_neither_name_nor_tensors_say_it(convert):
    state = encoder_state(SMALL)
    with pytest.raises(
        ValueError, match=r"\['sampling_rate', 'num_mel_bins', 'max_frames'\].* 30 patches of 16 mel bins x 16 frames"
    ):
        convert("weights", state)
    with pytest.raises(ValueError, match=r"Nothing says \['max_frames'\]"):
        convert("weights", state, sampling_rate=16000, num_mel_bins=80)
    report = convert("weights", state, sampling_rate=16000, num_mel_bins=80, max_frames=97)
    assert report.numbers["max_frames"] == (97, "override")
    assert report.config.max_frames == 97


def test_front_end_of_a_fine_tuned_file_says_rate_and_mel_bins(convert):
    report = convert("weights", fine_tuned_state(encoder_state(SMALL), 128), max_frames=100)
    assert report.numbers["sampling_rate"] == (16000, "file")
    assert report.numbers["num_mel_bins"] == (80, "file")


def test_rates_other_than_the_published_are_refused(convert):
    with pytest.raises(ValueError, match=r"Unknown `sampling_rate` 8000. Choose one of \[16000, 32000\]"):
        convert(NAME, encoder_state(SMALL), sampling_rate=8000)


@pytest.mark.parametrize(
    ("folder", "state", "message"),
    [
        ("m2d_vit_base-80x100p16x8-1", encoder_state(SMALL), "says patches 16x8, the tensors of the file say 16x16"),
        ("m2d_vit_base-80x608p16x16-1", encoder_state(SMALL), "80x608, that is 190 patches, .* table of 30 patches"),
        (
            "m2d_vit_base-80x100p16x16p32k-1",
            fine_tuned_state(encoder_state(SMALL), 128),
            r"says `sampling_rate` 32000, .* 16000 \(its front end\)",
        ),
        (
            "m2d_vit_base-64x160p16x16-1",
            encoder_state(Official(mels=64, frames=160)) | front_end_state(80),
            r"says `num_mel_bins` 64, .* 80 \(its front end\)",
        ),
        (
            "m2d_clap_vit_base-80x100p16x16p16kpA-1",
            clap_state(),
            "caption embeddings are of thenlper/gte-base, 768 wide, .* 4096 wide",
        ),
        (
            CLAP_NAME,
            encoder_state(SMALL) | mlp_state("audio_proj", 128, 128, 128),
            "nvidia/NV-Embed-v2, 4096 wide, .* 128 wide",
        ),
        ("m2d_clap_vit_base-80x100p16x16p16kpBpTI-1", clap_state(), "holds a text encoder, .* no text encoder"),
        (
            "m2d_clap_vit_base-80x100p16x16p16kpB-1",
            stage_2_state(encoder_state(SMALL), bert_state()),
            "holds no text encoder, .* say a text encoder",
        ),
        (
            "m2d_clap_vit_base-80x100p16x16p16kpNpTI-1",
            stage_2_state(encoder_state(SMALL), bert_state()),
            "text encoder is nvidia/NV-Embed-v2, .* say BERT",
        ),
    ],
)
def test_names_that_contradict_the_tensors_are_refused_with_both_values(convert, tmp_path, folder, state, message):
    with pytest.raises(ValueError, match=message):
        convert(folder, state)
    assert not (tmp_path / "out").exists()


def test_overrides_that_contradict_the_tensors_are_refused(convert):
    with pytest.raises(
        ValueError, match=r"The folder name and override says the input 80x200, that is 60 patches, .* of 30 patches"
    ):
        convert(NAME, encoder_state(SMALL), max_frames=200)


def test_caption_embeddings_must_be_named(convert):
    numbers = {"sampling_rate": 16000, "num_mel_bins": 80, "max_frames": 100}
    with pytest.raises(ValueError, match=r"width 4096 .* Pass `text_embedding_model`"):
        convert("weights", clap_state(), **numbers)
    report = convert("weights", clap_state(), text_embedding_model="nvidia/NV-Embed-v2", **numbers)
    assert report.config.text_embedding_model == "nvidia/NV-Embed-v2"


@pytest.mark.parametrize("statistics", ["file", "default"])
def test_statistics_come_from_the_file_or_the_report_says_so(convert, tmp_path, statistics):
    extra = statistics_state(-6.25, 4.5) if statistics == "file" else {}
    report = convert(NAME, encoder_state(SMALL) | extra)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (extractor.mean, extractor.std) == ((-6.25, 4.5) if statistics == "file" else (-7.1, 4.2))
    assert ("no `norm_stats`" in report.summary()) == (statistics == "default")


@pytest.mark.parametrize(
    "values", [[-7.0, 0.0], [-7.0, math.nan], [math.nan, 4.0], [-math.inf, 4.0], [-7.0, math.inf], [-7.0]]
)
def test_impossible_statistics_are_refused(convert, values):
    with pytest.raises(ValueError, match="`norm_stats` must be a mean and a positive standard deviation"):
        convert(NAME, encoder_state(SMALL) | {"norm_stats": torch.tensor(values)})


def test_files_of_other_families_are_refused_with_what_was_found(convert):
    state = {"audio_encoder.base.conv1.weight": torch.zeros(2), "text_encoder.base.weight": torch.zeros(2)}
    with pytest.raises(ValueError, match=r"no checkpoint of M2D: .*'pos_embed'.*found 2 keys .*conv1"):
        convert(NAME, state)


def test_missing_blocks_are_named(convert):
    gap = {key: value for key, value in encoder_state(Official(depth=3)).items() if not key.startswith("blocks.1.")}
    with pytest.raises(ValueError, match=r"lacks 12 of the 42 tensors .* 3 blocks, .*'blocks.1.norm1.weight'"):
        convert(NAME, gap)
    short = encoder_state(SMALL)
    del short["norm.bias"]
    with pytest.raises(ValueError, match=r"lacks 1 of .*\['norm.bias'\]"):
        convert(NAME, short)


def test_unknown_keys_are_refused_unless_they_are_to_be_left_out(convert):
    state = encoder_state(SMALL) | {"blocks.0.gate": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"1 keys belong to no official layout, .*'blocks.0.gate'.*`ignore_unknown"):
        convert(NAME, state)
    report = convert(NAME, state, ignore_unknown=True)
    assert "ignore_unknown" in report.ignored["blocks.0.gate"]


@pytest.mark.parametrize(
    ("key", "shape"),
    [("blocks.1.mlp.fc2.weight", (96, 128)), ("blocks.0.attn.qkv.bias", (128,)), ("norm.bias", (127,))],
)
def test_misshapen_tensors_are_refused(convert, key, shape):
    with pytest.raises(ValueError, match=rf"`{key}` has shape \({shape[0]}"):
        convert(NAME, encoder_state(SMALL) | {key: hashed(key, *shape)})


def test_damaged_values_are_refused(convert):
    state = encoder_state(SMALL)
    state["blocks.1.attn.proj.weight"][3, 5] = float("nan")
    with pytest.raises(ValueError, match=r"`blocks.1.attn.proj.weight` holds values that are not finite"):
        convert(NAME, state)


def test_keys_that_stand_twice_are_refused(convert):
    state = encoder_state(SMALL)
    with pytest.raises(ValueError, match=r"holds `cls_token` twice, as 'cls_token' and 'backbone.cls_token'"):
        convert(NAME, state | {"backbone.cls_token": state["cls_token"]})


@pytest.mark.parametrize(
    "extra", [{}, pretraining_state(SMALL, has_teacher=False)], ids=["encoder alone", "decoder without teacher"]
)
def test_pretraining_needs_predictor_and_teacher(convert, extra):
    with pytest.raises(ValueError, match=r"needs predictor and teacher, the file holds \d predictor and 0 teacher"):
        convert(NAME, encoder_state(SMALL) | extra, pretraining=True)


def test_image_models_are_refused(convert):
    state = encoder_state(SMALL)
    state["patch_embed.proj.weight"] = hashed("rgb", 128, 3, 16, 16)
    with pytest.raises(ValueError, match=r"must be \(D, 1, mel bins, frames\).*\(128, 3, 16, 16\)"):
        convert(NAME, state)

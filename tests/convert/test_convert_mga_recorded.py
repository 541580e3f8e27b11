# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Converted MGA-CLAP models give the numbers that the authors' code gave for the same weights, clips and captions.

The numbers and how they were made: mga_official_outputs.json, record_mga_official.py. Most are float32, those of the
objective float64.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mga_official import (
    CAPTIONS,
    CASES,
    LONG_CAPTION,
    log_mels,
    mga_state,
    padded,
    spread,
    waveform,
    write_vocabulary,
)
from transformers import AutoModel, AutoProcessor

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.convert import convert_checkpoint
from hf_audiolang.convert.mga_clap_keys import system_table

RECORDED = json.loads(Path(__file__).with_name("mga_official_outputs.json").read_text(encoding="utf-8"))
NOTHING_RANDOM = {
    "audio_config": {"drop_path_rate": 0.0, "spec_augment_time_stripes": 0, "spec_augment_mel_stripes": 0},
    "text_config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
SAME_INPUT = 1e-5  # the same mathematics in another order
SAME_SOUND = 1e-4  # the log-mels differ by up to 4e-4 dB, a batch norm divides them by about 12
LOG_MEL = 5e-4


@pytest.fixture(scope="module", params=["small", pytest.param("real", marks=pytest.mark.slow)], ids=["small", "real"])
def case(request, tmp_path_factory):
    """Name of the case, its record, and the folder it was converted to."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.save({"model": mga_state(CASES[request.param]), "config": {"embed_size": 1024}, "epoch": 9}, folder / "m.pt")
    convert_checkpoint("mga_clap", folder / "m.pt", folder / "out", tokenizer=write_vocabulary(folder))
    return CASES[request.param], RECORDED[request.param], folder / "out"


@pytest.fixture(scope="module")
def model(case):
    return AutoModel.from_pretrained(case[2]).eval()


@pytest.fixture(scope="module")
def caption_embeds(case, model):
    return model.get_text_features(**texts(case[2], CAPTIONS)).pooler_output.detach()


def texts(folder, captions):
    processor = AutoProcessor.from_pretrained(folder)
    return processor(text=list(captions), padding=True, truncation=True, return_tensors="pt")


def assert_close(found, expected, tolerance, name):
    np.testing.assert_allclose(spread(found, len(expected)), expected, rtol=tolerance, atol=tolerance, err_msg=name)


def check_clip(model, inputs, expected, caption_embeds, tolerance):
    """Everything recorded of one clip; its one vector is a sum of many numbers, and its error smaller."""
    output = model.get_audio_features(**inputs)
    embeds = model.audio_projection(output.frame_features)
    assert_close(output.frame_features, expected["frames"], tolerance, "frames")
    assert_close(embeds, expected["frame_embeds"], tolerance, "frame embeddings")
    assert_close(F.normalize(embeds, dim=-1) @ caption_embeds.T, expected["frame_scores"], tolerance, "frame scores")
    check_aggregate(model.codebook(embeds, output.frame_mask)[1], output.pooler_output, expected)


def check_aggregate(weights, embeds, expected):
    assert (weights > 0).sum(1).tolist() == expected["active"]
    largest = weights.sort(dim=1, descending=True).values[:, : weights.shape[1] // 4]
    assert_close(largest, expected["weights"], 1e-5, "largest weights")
    assert_close(weights, expected["weights_in_place"], 1e-5, "weights")
    assert_close(embeds, expected["embeds"], 1e-5, "unit vectors")


@torch.no_grad()
def test_clips_from_waveforms(case, model, caption_embeds):
    """A clip alone, as the authors encode it: stretched if it is shorter than 10 s and not filled with silence."""
    _, recorded, folder = case
    filling = AutoProcessor.from_pretrained(folder).feature_extractor
    stretching = LogMelFeatureExtractor.from_preset("mga_clap", min_seconds=0.0)
    for name, expected in recorded["clips"].items():
        seconds, is_filled = float(name.split()[0]), "padded" in name
        inputs = (filling if is_filled else stretching)(
            waveform(seconds).numpy(), sampling_rate=32000, return_tensors="pt"
        )
        assert_close(inputs["input_features"], expected["log_mel"], LOG_MEL, "log-mel")
        check_clip(model, dict(inputs), expected, caption_embeds, SAME_SOUND)
    assert len(padded(waveform(1.5))) == 320000


@torch.no_grad()
def test_clips_from_log_mels(case, model, caption_embeds):
    for num_frames, expected in case[1]["log_mels"].items():
        inputs = {"input_features": log_mels(int(num_frames))}
        check_clip(model, inputs, expected, caption_embeds, SAME_INPUT)
    weights = model.get_codeword_weights(**inputs)
    check_aggregate(weights, model.get_audio_features(**inputs).pooler_output, expected)
    assert_close(model.frame_embeddings(**inputs)[0], expected["frame_embeds"], SAME_INPUT, "frame embeddings")
    scores = model.get_audio_frame_features(**inputs).frame_features @ caption_embeds.T
    assert_close(scores, expected["frame_scores"], SAME_INPUT, "frame scores")


@torch.no_grad()
def test_captions(case, model):
    """Words without [CLS]; the mask leaves out [SEP] and padding; what is longer than 30 tokens is cut."""
    _, recorded, folder = case
    expected, inputs = recorded["captions"], texts(folder, [*CAPTIONS, LONG_CAPTION])
    words, mask = model.word_embeddings(**inputs)
    assert words.shape[1] == expected["num_tokens"] + 1
    assert not mask[:, 0].any()
    assert mask.sum(1).tolist() == expected["num_words"]
    states = model.get_text_features(**inputs).last_hidden_state
    assert_close(states[:, 1:], expected["words"], SAME_INPUT, "words")
    assert_close(words[:, 1:], expected["word_embeds"], SAME_INPUT, "word embeddings")
    check_aggregate(model.get_codeword_weights(**inputs), model.get_text_features(**inputs).pooler_output, expected)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_objective_and_its_gradients(case, mode):
    """Five pairs, two of them of one clip; in training batch norm takes the batch's statistics and keeps them."""
    sizes, recorded, folder = case
    expected = recorded["objective"][mode]
    model = AutoModel.from_pretrained(folder, **NOTHING_RANDOM).double().train(mode == "train")
    inputs = texts(folder, CAPTIONS) | {"input_features": log_mels(151, len(CAPTIONS)).double()}
    outputs = model(**inputs, clip_ids=torch.tensor([3, 1, 3, 0, 1]), return_loss=True)
    outputs.loss.backward()
    assert outputs.loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    assert_close(model.audio_model.audio_encoder.batch_norm.running_mean, expected["running_mean"], 1e-6, "mean")
    assert_close(model.audio_model.audio_encoder.batch_norm.running_var, expected["running_var"], 1e-6, "variance")
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    table = system_table(sizes.depths, model.text_model.state_dict(), has_qkv_bias=True)
    assert {name for names in table.values() for name in names} == set(model.state_dict())
    largest = max(np.max(norms) for norms in expected["gradients"].values() if norms is not None)
    for official, norms in expected["gradients"].items():
        norms = np.atleast_1d(0.0 if norms is None else norms)
        for name, norm in zip(table[official], norms, strict=True):
            found = 0.0 if gradients[name] is None else gradients[name].norm().item()
            assert found == pytest.approx(norm, rel=1e-4, abs=1e-8 * largest), name
    unused = {name for name, gradient in gradients.items() if gradient is None}
    assert {name.split(".", 6)[-1] for name in unused} == {
        *(f"attention.self.{name}" for name in ("query.weight", "query.bias", "key.weight", "key.bias")),
        *(f"{name}.dense.{part}" for name in ("intermediate", "output") for part in ("weight", "bias")),
        "attention.self.relative_position_bias_table",
    }


@pytest.mark.parametrize("case", ["small"], indirect=True)
@torch.no_grad()
def test_the_numbers_tell_other_models_apart(case):
    """Control: the paper's reading of the last block, another mask of words, another activation."""
    recorded, inputs = case[1]["log_mels"]["1001"], {"input_features": log_mels(1001)}
    for change in ({"locality_mlp": "mlp"}, {"locality_blocks": 0}, {"hidden_act": "relu"}):
        model = AutoModel.from_pretrained(case[2], audio_config=change).eval()
        frames = torch.tensor(spread(model.audio_model(**inputs).frame_features, len(recorded["frames"])))
        assert (frames - torch.tensor(recorded["frames"])).abs().max() > 0.05
    model = AutoModel.from_pretrained(case[2], text_mask_mode="neg_inf").eval()
    embeds = model.get_text_features(**texts(case[2], [*CAPTIONS, LONG_CAPTION])).pooler_output
    expected = torch.tensor(case[1]["captions"]["embeds"])
    assert (torch.tensor(spread(embeds, len(expected))) - expected).abs().max() > 1e-3
    assert torch.allclose(embeds.norm(dim=1), torch.ones(len(embeds)))
    assert F.cosine_similarity(embeds[0], embeds[1], dim=0) < 0.99

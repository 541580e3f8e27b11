# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Converted models give the numbers that the official runtime gave for the same weights and clips.

The numbers and how they were made: m2d_official_outputs.json, record_m2d_official.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from m2d_official import chirp, recorded_case, sampled, some_log_mel
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

from hf_audiolang.convert import convert_checkpoint

RECORDED = json.loads(Path(__file__).with_name("m2d_official_outputs.json").read_text(encoding="utf-8"))
MARKS = {"final_real": pytest.mark.slow}
CAPTION_IDS = [[2, 17, 9, 41, 30, 3], [2, 25, 3, 0, 0, 0]]
# The log-mels of the two implementations differ by up to 1e-3 (each in float32), normalised by a fourth of that.
TOLERANCE = {"log_mel": 3e-4, "tokens": 2e-4, "frames": 2e-4, "scene": 2e-4, "logits": 2e-4, "embedding": 5e-5}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in RECORDED])
@torch.no_grad()
def test_official_numbers_are_met(tmp_path, name):
    case, recorded = recorded_case(name), dict(RECORDED[name])
    file = tmp_path / case.folder / "checkpoint-300.pth"
    file.parent.mkdir()
    torch.save(case.state, file)
    # the small models are narrower than the text encoder that their official name speaks of
    narrow = {"text_embedding_model": "a narrow one"} if name == "clap_2024" else {}
    report = convert_checkpoint("m2d_clap", file, tmp_path / "out", tokenizer="none", **narrow)
    is_classifier = report.model_class.endswith("ForAudioClassification")
    model = (AutoModelForAudioClassification if is_classifier else AutoModel).from_pretrained(tmp_path / "out").eval()
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    tokens = outputs(model, {"input_features": some_log_mel().unsqueeze(0)}, tmp_path / "out")["tokens"]
    expected = recorded.pop("tokens_of_log_mel")
    np.testing.assert_allclose(sampled(tokens, count=16), expected, rtol=0, atol=1e-5)
    text = recorded.pop("text", None)
    for seconds, expected in recorded.items():
        inputs = extractor(
            chirp(float(seconds), case.sampling_rate), sampling_rate=case.sampling_rate, return_tensors="pt"
        )
        found = {"log_mel": inputs["input_features"].transpose(1, 2)} | outputs(model, inputs, tmp_path / "out")
        for key, values in expected.items():
            np.testing.assert_allclose(sampled(found[key]), values, rtol=0, atol=TOLERANCE[key], err_msg=key)
    if text is not None:
        input_ids = torch.tensor(CAPTION_IDS)
        output = model.get_text_features(input_ids, (input_ids > 0).long())
        first_states = output.last_hidden_state[:, 0]
        np.testing.assert_allclose(sampled(first_states, count=16), text, rtol=0, atol=1e-5)


def outputs(model, inputs, folder):
    audio_model = getattr(model, "audio_model", model)
    output = audio_model(**inputs)
    found = {
        "tokens": output.last_hidden_state[0][output.token_mask[0]],
        "frames": output.frame_features,
        "scene": output.pooler_output,
    }
    if hasattr(model, "get_audio_features"):
        found["embedding"] = model.get_audio_features(**inputs).pooler_output
    if hasattr(model, "classifier"):
        found["logits"] = model(**inputs).logits
    return found

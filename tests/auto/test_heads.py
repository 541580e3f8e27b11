# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Trained heads as a user meets them: loaded, measured, and trained by transformers' own Trainer."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_run import TONES, save_model, save_sounds
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from hf_audiolang import SlapForAudioFrameClassification
from hf_audiolang.heads import evaluate_head, has_head, load_head

EXAMPLE = Path(__file__).parents[2] / "examples" / "finetune_with_trainer.py"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return save_sounds(tmp_path_factory.mktemp("data") / "sounds")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("slap") / "model")


def example():
    spec = importlib.util.spec_from_file_location("finetune_with_trainer", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_trainer_of_transformers_trains_a_head(base, sounds, tmp_path):
    torch.manual_seed(0)
    found = example().main(str(base), str(sounds), str(tmp_path / "out"), num_epochs=3)
    assert found["eval_accuracy"] >= 1 / 3
    assert has_head(tmp_path / "out")
    before = AutoModelForAudioClassification.from_pretrained(base, num_labels=3).audio_model.state_dict()
    model, extractor = load_head(tmp_path / "out")
    assert any(not torch.equal(before[name], value) for name, value in model.audio_model.state_dict().items())
    assert model.config.id2label == dict(enumerate(sorted(TONES)))
    report = evaluate_head(model, extractor, sounds)
    assert report["classification/accuracy"] == pytest.approx(found["eval_accuracy"])
    classify = pipeline("audio-classification", model=str(tmp_path / "out"))
    clips = [np.zeros(8000, dtype=np.float32), np.ones(9000, dtype=np.float32)]
    assert [{item["label"] for item in of_clip} for of_clip in classify(clips)] == [set(TONES)] * 2


def test_the_trainer_of_transformers_trains_adapters(base, sounds, tmp_path):
    torch.manual_seed(0)
    found = example().main(str(base), str(sounds), str(tmp_path), num_epochs=3, lora=True)
    assert not (tmp_path / "model.safetensors").exists()
    model, extractor = load_head(tmp_path)
    assert evaluate_head(model, extractor, sounds)["classification/accuracy"] == pytest.approx(found["eval_accuracy"])
    up = [value for name, value in model.named_parameters() if ".lora_B." in name]
    assert up
    assert all(value.abs().max() > 0 for value in up), "they begin at zero"


def test_models_without_head_are_told_apart(base, tmp_path):
    assert not has_head(base)
    assert not has_head(tmp_path / "nothing")
    with pytest.raises(ValueError, match="SlapModel without classification head"):
        load_head(base)


def test_a_head_refuses_labels_it_does_not_know(base, sounds, tmp_path):
    model = AutoModelForAudioClassification.from_pretrained(
        base, id2label={0: "noise", 1: "low tone"}, problem_type="single_label_classification"
    ).eval()
    extractor = AutoFeatureExtractor.from_pretrained(base)
    with pytest.raises(ValueError, match=r"label 'high tone', which is none of the model's 2 classes"):
        evaluate_head(model, extractor, sounds)
    with pytest.raises(ValueError, match="part"):
        evaluate_head(model, extractor, "sound_scenes", train_size=32, validation_size=0, test_size=0)


def test_a_frame_head_is_measured_by_frames(base):
    classes = ["siren", "rain"]
    torch.manual_seed(0)
    model = SlapForAudioFrameClassification.from_pretrained(base, id2label=dict(enumerate(classes))).eval()
    extractor = AutoFeatureExtractor.from_pretrained(base)
    from hf_audiolang.data.sound_events import CLASSES

    model.config.id2label = dict(enumerate(CLASSES))
    model.config.problem_type = "multi_label_classification"
    model.reset_head()
    report = evaluate_head(model.eval(), extractor, "sound_scenes", train_size=0, validation_size=0, test_size=30)
    assert 0 < report["frame_classification/mAP"] < 0.5
    assert report["chance"]["frame_classification/mAP"] < report["frame_classification/mAP"] + 0.05

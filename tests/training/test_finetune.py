# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Fine-tuning from settings to a shareable classifier, on tiny models and a folder of sounds."""

import json

import pytest
import torch
from finetune_run import TONES, save_model, save_sounds
from huggingface_hub import ModelCard
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    pipeline,
)

from hf_audiolang.data import load_audio
from hf_audiolang.heads import evaluate_head, load_head
from hf_audiolang.probing import load_encoder
from hf_audiolang.training.finetune import finetune
from hf_audiolang.training.finetune_config import METRICS, load_finetune_config
from hf_audiolang.training.finetune_model import build_classifier


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return save_sounds(tmp_path_factory.mktemp("data") / "sounds")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("slap") / "model")


def config_of(model, data, output_dir, *overrides):
    return load_finetune_config([
        "--model", str(model), "--data", str(data), "--output_dir", str(output_dir), "--num_workers", "0",
        "--batch_size", "6", "--precision", "fp32", "--num_threads", "1", "--max_steps", "4",
        "--learning_rate", "5e-3", *overrides,
    ])  # fmt: skip


def weights_of(folder):
    return AutoModelForAudioClassification.from_pretrained(folder).state_dict()


def test_a_folder_of_classes_becomes_a_classifier(base, sounds, tmp_path):
    result = finetune(config_of(base, sounds, tmp_path, "--max_steps", "40"))
    assert result.classes == sorted(TONES)
    assert result.report["classification/accuracy"] == 1.0
    assert result.report["chance"] == pytest.approx(dict.fromkeys(METRICS["classification"], 1 / 3))
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["classification/accuracy"] == 1.0
    classify = pipeline("audio-classification", model=str(tmp_path / "model"))
    found = classify(load_audio(sounds / "high tone" / "0.wav", 16000))
    assert found[0]["label"] == "high tone"
    assert found[0]["score"] > 0.5
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.pipeline_tag == "audio-classification"
    assert {item.metric_type for item in card.data.eval_results} >= {"accuracy"}


def test_an_interrupted_run_ends_as_an_uninterrupted_one(base, sounds, tmp_path, monkeypatch):
    options = ["--max_steps", "6", "--save_steps", "2", "--mixup_alpha", "0.4", "--spec_augment_mel", "8"]
    finetune(config_of(base, sounds, tmp_path / "whole", *options))

    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_audiolang.training.finetune.export_classifier", interrupted)
    monkeypatch.setattr("hf_audiolang.training.loop.save", stop_after(4))
    with pytest.raises(KeyboardInterrupt):
        finetune(config_of(base, sounds, tmp_path / "parts", *options))
    monkeypatch.undo()
    finetune(config_of(base, sounds, tmp_path / "parts", *options, "--resume"))
    whole, parts = (weights_of(tmp_path / name / "model") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def stop_after(step):
    from hf_audiolang.training import loop

    save = loop.save

    def save_and_stop(state):
        save(state)
        if state.progress.step == step:
            raise KeyboardInterrupt

    return save_and_stop


def test_tagging_has_any_number_of_labels(base, sounds, tmp_path):
    rows = [f"{label}/{number}.wav,{label}" for label in TONES for number in range(8)]
    rows += [f"noise/{number}.wav,low tone" for number in range(8)]  # a second label
    table = sounds / "tags.csv"
    table.write_text("file_name,label\n" + "\n".join(rows) + "\n")
    try:
        result = finetune(config_of(base, table, tmp_path, "--task", "tagging", "--max_steps", "40"))
    finally:
        table.unlink()
    assert result.report["tagging/mAP"] > 0.95
    assert set(result.report["chance"]) == set(METRICS["tagging"])
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "model")
    assert model.config.problem_type == "multi_label_classification"


def test_frames_learn_when_sounds_are_heard(base, tmp_path):
    options = ["--task", "frames", "--train_size", "48", "--test_size", "48", "--max_seconds", "2", "--max_steps", "3"]
    result = finetune(config_of(base, "sound_scenes", tmp_path, *options))
    assert result.report["frame_classification/mAP"] > 0
    assert set(result.report["chance"]) == set(METRICS["frames"])
    assert "frame_classification/PSDS2" in result.report
    assert type(AutoModelForAudioFrameClassification.from_pretrained(tmp_path / "model")).__name__.startswith("Slap")


def test_adapters_are_saved_alone_and_merged(base, sounds, tmp_path):
    result = finetune(config_of(base, sounds, tmp_path, "--lora", "--lora_rank", "2", "--max_steps", "6"))
    assert result.report["classification/accuracy"] >= 0
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    merged = AutoModelForAudioClassification.from_pretrained(tmp_path / "model").eval()
    adapted = AutoModelForAudioClassification.from_pretrained(tmp_path / "adapter").eval()
    features = torch.randn(2, 60, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(merged(features).logits, adapted(features).logits, rtol=1e-4, atol=1e-5)
    before = AutoModel.from_pretrained(base).audio_model.state_dict()
    changed = {name for name, value in merged.audio_model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("_proj.weight" in name for name in changed)


def test_from_scratch_takes_the_sizes_alone(base, sounds, tmp_path):
    arguments = config_of(base, sounds, tmp_path).model
    torch.manual_seed(1)
    trained = build_classifier(arguments, ["a", "b"])
    arguments.from_scratch = True
    random = build_classifier(arguments, ["a", "b"])
    start = AutoModel.from_pretrained(base).audio_model.state_dict()
    assert all(torch.equal(start[name], value) for name, value in trained.audio_model.state_dict().items())
    assert not torch.equal(start["layers.0.attn.q_proj.weight"], random.audio_model.layers[0].attn.q_proj.weight)


def test_a_head_of_the_same_classes_goes_on_and_one_of_others_begins(base, sounds, tmp_path):
    finetune(config_of(base, sounds, tmp_path, "--max_steps", "3"))
    arguments = config_of(tmp_path / "model", sounds, tmp_path / "next").model
    before = weights_of(tmp_path / "model")
    same = build_classifier(arguments, sorted(TONES))
    assert torch.equal(same.classifier.linear.weight, before["classifier.linear.weight"])
    assert torch.equal(same.classifier.norm.running_var, before["classifier.norm.running_var"])
    for classes in (["a", "b", "c"], ["a", "b"]):
        other = build_classifier(arguments, classes)
        weight = other.classifier.linear.weight
        assert weight.shape[0] == len(classes)
        assert not torch.equal(weight[:2], before["classifier.linear.weight"][:2])
        assert weight.std() < 0.02  # drawn with 0.01
        assert torch.equal(other.classifier.norm.running_var, torch.ones_like(other.classifier.norm.running_var))


def test_a_head_of_another_form_begins_anew(base, sounds, tmp_path):
    finetune(config_of(base, sounds, tmp_path, "--max_steps", "3"))
    options = ["--classifier_pooling", "attention"]
    config = config_of(tmp_path / "model", sounds, tmp_path / "next", *options)
    head = build_classifier(config.model, ["a", "b", "c"]).classifier
    assert not torch.equal(head.linear.weight, weights_of(tmp_path / "model")["classifier.linear.weight"])
    assert torch.equal(head.norm.running_mean, torch.zeros_like(head.norm.running_mean))


def test_an_old_run_is_kept_until_all_is_checked(base, sounds, tmp_path):
    finetune(config_of(base, sounds, tmp_path / "run", "--max_steps", "1"))
    options = ["--task", "frames", "--roll", "true", "--overwrite", "--train_size", "8", "--test_size", "4"]
    with pytest.raises(ValueError, match="roll"):
        finetune(config_of(base, "sound_scenes", tmp_path / "run", *options))
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_data_without_a_test_part_are_refused_before_training(base, tmp_path):
    sounds = save_sounds(tmp_path / "sounds", 1)
    with pytest.raises(ValueError, match="has no test clips"):
        finetune(config_of(base, sounds, tmp_path / "run"))


def test_positions_are_stretched(tmp_path):
    base = save_model(tmp_path / "m2d", "m2d_clap")
    arguments = config_of(base, "sound_scenes", tmp_path, "--max_frames", "160").model
    model = build_classifier(arguments, ["a", "b"])
    assert model.audio_model.embeddings.position_embeddings.shape == (1 + 5 * 10, 24)
    model.save_pretrained(tmp_path / "out")
    again = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    assert again.audio_config.max_frames == 160


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--task", "captions"], "invalid choice: 'captions'"),
        (["--max_frames", "99"], "no positions to stretch"),
        (["--freeze", "audio.*"], "matches no parameter"),
        (["--structured_patchout", "0.5", "--classifier_input", "tokens"], "cannot leave patches out"),
        (["--structured_patchout", "0.5"], "Set it to 'tokens'"),
        (["--classifier_pooling", "sum"], "expected one of .*'attention'.* got sum. Change these keys"),
        (["--optimizer", "sgd", "--amsgrad", "true"], "`amsgrad` is of 'adamw', got `optimizer` 'sgd'"),
        (["--lora", "--freeze", "audio_model.*"], "No linear layer .* is left to adapt"),
        (["--lora", "--from_scratch"], "both true"),
        (["--lora", "--max_frames", "160"], "`max_frames` is 160 with `lora`"),
        (["--samples_per_epoch", "8"], "Set both or none"),
        (["--eval_steps", "2", "--best_metric", "accurracy"], "Unknown `best_metric`"),
        (["--fold", "3"], "`fold` is 3, but .* has no folds"),
        (["--fold_column", "part"], "has no table .* so no columns, got {'fold_column': 'part'}"),
        (["--mixup_alfa", "0.3"], "nearest known one is `--mixup_alpha`"),
    ],
)
def test_wrong_settings_are_refused_before_training(base, sounds, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        finetune(config_of(base, sounds, tmp_path, *overrides))
    assert not (tmp_path / "train_log.jsonl").exists()


def test_an_adapter_is_no_base(base, sounds, tmp_path):
    finetune(config_of(base, sounds, tmp_path / "run", "--lora", "--max_steps", "1"))
    with pytest.raises(FileNotFoundError, match=r"is an adapter, no model of its own\. Give the merged model"):
        finetune(config_of(tmp_path / "run" / "adapter", sounds, tmp_path / "next"))
    with pytest.raises(FileNotFoundError, match=f"is an adapter.* Did you mean '{tmp_path}/run/model'"):
        load_encoder(tmp_path / "run" / "adapter")


def test_drop_path_is_the_encoders(base, sounds, tmp_path):
    model = build_classifier(config_of(base, sounds, tmp_path, "--drop_path_rate", "0.3").model, ["a", "b"])
    assert model.audio_model.layers[-1].drop_path_rate == 0.3
    assert model.config.audio_config.drop_path_rate == 0.3
    other = save_model(tmp_path / "m2d", "m2d_clap")
    with pytest.raises(ValueError, match="the encoder 'm2d_clap_audio_model' skips no blocks"):
        build_classifier(config_of(other, sounds, tmp_path, "--drop_path_rate", "0.3").model, ["a", "b"])


def test_the_log_shows_the_rate_that_was_asked_for(base, sounds, tmp_path):
    options = ["--layer_decay", "0.5", "--lr_end_ratio", "1", "--max_steps", "1"]
    finetune(config_of(base, sounds, tmp_path, *options))
    line = json.loads((tmp_path / "train_log.jsonl").read_text().splitlines()[0])
    assert line["learning_rate"] == pytest.approx(5e-3)


def folded(folder):
    """Sounds with a table whose column `part` puts them into three folds."""
    rows = [f"{label}/{number}.wav,{label},{1 + number % 3}" for label in TONES for number in range(8)]
    (save_sounds(folder) / "metadata.csv").write_text("file_name,label,part\n" + "\n".join(rows) + "\n")
    return folder


def test_a_model_of_one_fold_is_tested_on_it_again(base, tmp_path):
    data = folded(tmp_path / "data")
    options = ["--fold_column", "part", "--fold", "2", "--lora", "--max_steps", "1"]
    finetune(config_of(base, data, tmp_path / "run", *options))
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["records"][0]["fold"] == 2
    assert "held out of training: fold 2." in (tmp_path / "run" / "model" / "README.md").read_text()
    for folder in ("model", "adapter"):
        model, extractor = load_head(tmp_path / "run" / folder)
        report = evaluate_head(model, extractor, data, fold_column="part")
        assert report["records"][0]["fold"] == 2
        assert report["classification/accuracy"] == pytest.approx(written["classification/accuracy"])
    assert evaluate_head(model, extractor, data, fold_column="part", fold=3)["records"][0]["fold"] == 3


def test_a_test_part_on_which_nothing_can_be_measured_is_refused_before_training(base, tmp_path):
    table = save_sounds(tmp_path / "sounds") / "metadata.csv"
    rows = [("", "test") if number > 5 else ("noise", "train") for number in range(8)]
    lines = [f"noise/{number}.wav,{label},{split}" for number, (label, split) in enumerate(rows)]
    table.write_text("file_name,label,split\n" + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"None of the 2 clips of .*, test has labels"):
        finetune(config_of(base, table, tmp_path / "run", "--task", "tagging"))
    lines = [f"noise/{number}.wav,noise,0.1,{0.9 if number == 6 else 0.5}" for number in range(8)]
    table.write_text("file_name,label,onset,offset\n" + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"\[0\.1, 0\.9\] is outside of the clip, which is 0\.600 s long"):
        finetune(config_of(base, table, tmp_path / "run", "--task", "frames"))
    assert not (tmp_path / "run").exists()


def test_labels_the_training_clips_lack_are_refused(base, tmp_path):
    sounds = save_sounds(tmp_path / "sounds", 2)
    for label in TONES:
        target = sounds / "train" / label
        target.parent.mkdir(exist_ok=True)
        (sounds / label).rename(target)
    (sounds / "test").mkdir()
    (sounds / "train" / "noise").rename(sounds / "test" / "noise")
    with pytest.raises(ValueError, match="noise"):
        finetune(config_of(base, sounds, tmp_path / "run"))


def test_padded_clips_are_tested_as_they_are_trained(base, sounds, tmp_path):
    for name, keys, seconds in (("as_they_are", [], None), ("padded", ["--pad_clips"], 0.9)):
        finetune(config_of(base, sounds, tmp_path / name, "--max_steps", "1", "--max_seconds", "0.9", *keys))
        written = json.loads((tmp_path / name / "metrics.json").read_text())
        assert written["records"][0]["clip_seconds"] == seconds

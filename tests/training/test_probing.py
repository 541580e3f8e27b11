# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Probes of model folders and of a run's checkpoints: whose encoder it is, folds, what is written, the script."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import (
    tiny_captionstew_config,
    tiny_htsat_config,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_processor,
    tiny_slap_audio_config,
    tiny_slap_config,
    tiny_zipformer_config,
)
from toy_run import run_slap, toy_config
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
    AutoModelForSpeechSeq2Seq,
    BertConfig,
    BertModel,
)

from hf_audiolang import LogMelFeatureExtractor, probing
from hf_audiolang.data.label_plans import LabelPlan
from hf_audiolang.evaluation.probe_protocol import ProbeSettings
from hf_audiolang.evaluation.probes import run_probe
from hf_audiolang.probing import find_checkpoints, load_encoder, load_folds, probe_checkpoints
from hf_audiolang.training import checkpoint as checkpoints

ROOT = Path(__file__).resolve().parents[2]
EXTRACTOR = LogMelFeatureExtractor.from_preset("slap", mean=-7.0, std=9.0)
CLASSES = ("low", "middle", "high")


def script():
    spec = importlib.util.spec_from_file_location("probe_script", ROOT / "training_scripts" / "probe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stew_config():
    return tiny_captionstew_config(audio_config=tiny_zipformer_config())


MODELS = {
    "system": (AutoModel, tiny_slap_config),
    "encoder": (AutoModel, tiny_slap_audio_config),
    "m2d": (AutoModel, tiny_m2d_clap_config),
    "mga": (AutoModel, tiny_mga_clap_config),
    "classifier of a system": (AutoModelForAudioClassification, tiny_slap_config),
    "classifier of an encoder": (AutoModelForAudioClassification, tiny_htsat_config),
    "frame classifier": (AutoModelForAudioFrameClassification, stew_config),
    "captioner": (AutoModelForSpeechSeq2Seq, tiny_slap_config),
    "pre-training": (AutoModelForPreTraining, tiny_slap_config),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_encoder_of_every_kind_of_model_is_loaded_whole(kind, tmp_path):
    auto_class, build = MODELS[kind]
    torch.manual_seed(3)
    model = auto_class.from_config(build())
    model.save_pretrained(tmp_path)
    EXTRACTOR.save_pretrained(tmp_path)
    encoder, extractor = load_encoder(tmp_path)
    expected = getattr(model.base_model, "audio_model", model.base_model)
    assert type(encoder) is type(expected)
    assert not encoder.training
    assert encoder.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[name].cpu(), value, rtol=0, atol=0)
    assert extractor.mean == -7.0


def test_what_holds_no_encoder_is_refused(tmp_path):
    BertModel(BertConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2)).save_pretrained(tmp_path / "bert")
    EXTRACTOR.save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"is of the type 'bert', which has no audio encoder .* Give a system, or"):
        load_encoder(tmp_path / "bert")
    with pytest.raises(FileNotFoundError, match=r"no config.json, so it is no model folder"):
        load_encoder(tmp_path)
    model = AutoModel.from_config(tiny_slap_config())
    model.save_pretrained(tmp_path / "half")
    EXTRACTOR.save_pretrained(tmp_path / "half")
    path = tmp_path / "half" / "model.safetensors"
    save_file(
        {name: value for name, value in load_file(path).items() if "layers.1" not in name}, path, {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"lacks \d+ weights of SlapAudioModel"):
        load_encoder(tmp_path / "half")


def tones(folder, count=12, folds=None):
    """A table of half-second tones of three classes in turn."""
    rng = np.random.default_rng(0)
    lines = ["file_name,label" + (",fold" if folds else "")]
    folder.mkdir()
    for n in range(count):
        pitch = (300, 1200, 4000)[n % 3] * rng.uniform(0.9, 1.1)
        times = np.arange(8000) / 16000
        soundfile.write(folder / f"{n}.wav", 0.3 * np.sin(2 * np.pi * pitch * times), 16000)
        lines.append(f"{n}.wav,{CLASSES[n % 3]}" + (f",{1 + n // 3 % folds}" if folds else ""))
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


def test_every_fold_is_tested_in_turn_or_the_one_that_is_named(tmp_path):
    folds = load_folds(tones(tmp_path / "tones", folds=4))
    assert [data.fold for data in folds] == [1, 2, 3, 4]
    tested = [name for data in folds for name in data.test.ids]
    assert sorted(tested) == sorted(f"{n}.wav" for n in range(12))
    assert not any("no `fold` is given" in note for data in folds for note in data.notes)
    assert [data.fold for data in load_folds(tmp_path / "tones", fold=3)] == [3]
    with pytest.raises(ValueError, match=r"`fold` is 9, but .* has the folds \[1, 2, 3, 4\]\. Choose one"):
        load_folds(tmp_path / "tones", fold=9)
    assert len(load_folds(tones(tmp_path / "whole"))) == 1


def test_numbers_of_a_regression_plan_are_predicted(tmp_path):
    folder = tones(tmp_path / "music", count=30)
    lines = ["file_name,arousal,valence"] + [f"{n}.wav,{n % 3 / 2},{n / 30}" for n in range(30)]
    (folder / "metadata.csv").write_text("\n".join(lines))
    plan = LabelPlan("emomusic", task="regression", class_order=("arousal", "valence"), metric="r2")
    (data,) = load_folds(folder, plan=plan)
    encoder = AutoModel.from_config(tiny_slap_audio_config()).eval()
    settings = ProbeSettings(num_seeds=1, layer=0, predicts_numbers=True, learning_rates=(1e-2,))
    result = run_probe("layers", encoder, EXTRACTOR, data, settings)
    assert set(result) == {"layers/R2_arousal", "layers/R2_valence"}
    with pytest.raises(ValueError, match=r"The plan 'emomusic' needs the folder with its sounds, got None"):
        load_folds(None, plan=plan)


@pytest.fixture(params=["with tokenizer", "sounds alone"])
def run_folder(tmp_path, monkeypatch, request):
    """A run of the tiny SLAP of which the checkpoints of steps 2 and 4 are kept, with its exported model."""
    monkeypatch.setattr(checkpoints, "_remove_others", lambda *_: None)
    folder = tmp_path / "run"
    config = toy_config(folder, "--max_steps", "4", "--save_steps", "2", "--warmup_steps", "1")
    model, _ = run_slap(config)
    model.slap.save_pretrained(folder / "model")
    processor = tiny_processor() if request.param == "with tokenizer" else EXTRACTOR
    processor.save_pretrained(folder / "processor")
    (folder / "checkpoints" / "step_00000003").mkdir()  # half removed: no progress.json
    return folder


def test_each_checkpoint_gives_its_own_encoder(run_folder, tmp_path, monkeypatch):
    assert [path.name for path in find_checkpoints(run_folder)] == ["step_00000002", "step_00000004"]
    folds, seen = load_folds(tones(tmp_path / "tones")), []

    def remember(probe, encoder, extractor, folds, settings):
        seen.append({name: value.clone() for name, value in encoder.state_dict().items()})
        return run_probe(probe, encoder, extractor, folds, settings)

    monkeypatch.setattr(probing, "run_probe", remember)
    points = probe_checkpoints(run_folder, "knn", folds, ProbeSettings(), "cpu")
    assert [step for step, _ in points] == [2, 4]
    for state, path in zip(seen, find_checkpoints(run_folder), strict=True):
        stored = load_file(path / "model.safetensors")
        for name, value in state.items():
            torch.testing.assert_close(value, stored[f"slap.audio_model.{name}"], rtol=0, atol=0)
    assert any(not torch.equal(value, seen[1][name]) for name, value in seen[0].items())  # it has trained

    settings = {"model_config": str(run_folder / "model"), "model": None}
    (run_folder / "run.yaml").write_text(yaml.safe_dump(settings))
    (run_folder / "model").rename(tmp_path / "elsewhere")  # a run that goes on has no model yet
    with pytest.raises(FileNotFoundError, match=r"has no exported model, and its run.yaml names no model that"):
        probe_checkpoints(run_folder, "knn", folds, ProbeSettings())
    settings["model_config"] = str(tmp_path / "elsewhere")
    (run_folder / "processor").rename(tmp_path / "put away")
    (run_folder / "run.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(FileNotFoundError, match="has no feature extractor: none of"):
        probe_checkpoints(run_folder, "knn", folds, ProbeSettings())
    (tmp_path / "put away").rename(run_folder / "processor")
    (run_folder / "run.yaml").write_text(yaml.safe_dump(settings))
    again = probe_checkpoints(run_folder, "knn", folds, ProbeSettings(), "cpu")
    assert [dict(result) for _, result in again] == [dict(result) for _, result in points]


def test_checkpoints_that_do_not_fit_are_named(run_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no complete checkpoint \(checkpoints/step_\*/progress.json\)"):
        find_checkpoints(tmp_path)
    path = run_folder / "checkpoints" / "step_00000004" / "model.safetensors"
    adapted = {name.replace("slap.", "base_model.model.slap."): value for name, value in load_file(path).items()}
    save_file({name.replace("q_proj", "q_proj.base_layer"): value for name, value in adapted.items()}, path)
    folds = load_folds(tones(tmp_path / "tones"))
    with pytest.raises(ValueError, match=r"checkpoint of step 4 does not hold the encoder .* Those of a run with"):
        probe_checkpoints(run_folder, "knn", folds, ProbeSettings(), "cpu")


def test_the_script_probes_a_model_and_its_control(tmp_path, capsys):
    torch.manual_seed(5)
    AutoModelForAudioClassification.from_config(tiny_slap_config(num_labels=5)).save_pretrained(tmp_path / "model")
    EXTRACTOR.save_pretrained(tmp_path / "model")
    tones(tmp_path / "tones", count=24, folds=2)
    base = [str(tmp_path / "model"), "--data", str(tmp_path / "tones"), "--device", "cpu", "--seeds", "2"]
    base += ["--cache_dir", str(tmp_path / "cache"), "--learning_rates", "0.03"]
    assert script().main(base) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "probes" / "linear"
    assert (folder / "probe.md").read_text() in printed
    report = json.loads((folder / "probe.json").read_text())
    assert report["chance"] == {"linear/accuracy": pytest.approx(1 / 3)}
    assert [fold["fold"] for fold in report["records"][0]["folds"]] == [1, 2]
    assert len(report["records"][0]["per_seed"]["linear/accuracy"]) == 2
    assert "mean over 2 folds" in printed
    stored = len(list((tmp_path / "cache").iterdir()))
    assert stored == 6  # three parts of two folds

    assert script().main([*base, "--random_weights", "--fold", "2"]) == 0
    control = json.loads((tmp_path / "probes" / "linear_random" / "probe.json").read_text())
    assert control["records"][0]["weights"] == "random, seed 0"
    assert "weights random, seed 0" in capsys.readouterr().out
    assert len(list((tmp_path / "cache").iterdir())) == stored + 3


def test_the_script_takes_the_length_of_the_clips_from_a_plan(tmp_path, capsys):
    AutoModel.from_config(tiny_slap_audio_config()).save_pretrained(tmp_path / "model")
    EXTRACTOR.save_pretrained(tmp_path / "model")
    tones(tmp_path / "tones", count=24)
    (tmp_path / "plan.yaml").write_text("task: classification\nunit_seconds: 0.4\nnum_classes: 3\n")
    command = [
        str(tmp_path / "model"),
        "--data",
        str(tmp_path / "plan.yaml"),
        "--data_folder",
        str(tmp_path / "tones"),
    ]
    command += ["--probe", "knn", "--output_dir", str(tmp_path / "out"), "--device", "cpu"]
    assert script().main(command) == 0
    report = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert report["records"][0]["folds"][0]["clip_seconds"] == 0.4
    assert script().main([*command, "--clip_seconds", "0.2"]) == 0
    report = json.loads((tmp_path / "out" / "probe.json").read_text())
    assert report["records"][0]["folds"][0]["clip_seconds"] == 0.2
    capsys.readouterr()
    assert script().main([*command, "--fold", "7"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("probe.py: `fold` is 7, but ")
    assert script().main([*command, "--clip_seconds", "0"]) == 2
    assert "`clip_seconds` must be positive, got 0.0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script().main([*command, "--train_size", "9"])
    assert "--train_size and --test_size are of sound_scenes alone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script().main(["--probe", "knn"])


def test_the_script_draws_the_curve_of_a_run(run_folder, tmp_path, capsys, monkeypatch):
    command = ["--every_checkpoint", str(run_folder), "--data", str(tones(tmp_path / "tones")), "--device", "cpu"]
    assert script().main([*command, "--probe", "knn"]) == 0
    folder = run_folder / "probes" / "knn_checkpoints"
    report = json.loads((folder / "probe.json").read_text())
    assert [point["step"] for point in report["checkpoints"]] == [2, 4]
    assert all(0 <= point["knn/accuracy"] <= 1 for point in report["checkpoints"])
    assert (folder / "probe.png").stat().st_size > 5000
    table = (folder / "probe.md").read_text()
    assert "| metric | step 2 | step 4 | chance |" in table
    assert table in capsys.readouterr().out
    shutil.rmtree(folder)

    def missing(*_):
        raise probing.MissingResourceError("Figures need the package 'matplotlib'")

    monkeypatch.setattr(probing, "plot_checkpoints", missing)
    assert script().main([*command, "--probe", "knn"]) == 0
    assert {path.name for path in folder.iterdir()} == {"probe.json", "probe.md"}

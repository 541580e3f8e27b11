"""`explain`, `map`, `compare` and `convert` as typed: files written, exit codes, one clear line for each bad input."""

import argparse
import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny import tiny_m2d_clap_config, tiny_slap_config, tiny_tokenizer

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, M2dClapModel, SlapModel
from hf_audiolang.cli import build_parser, find_command, main

PNG = b"\x89PNG\r\n\x1a\n"


def save(folder, model, preset):
    model.save_pretrained(folder)
    extractor = LogMelFeatureExtractor.from_preset(preset, mean=-8.0, std=8.0)
    AudioLangProcessor(extractor, tiny_tokenizer()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    return save(tmp_path_factory.mktemp("m2d") / "model", M2dClapModel(tiny_m2d_clap_config()), "m2d_clap")


@pytest.fixture
def sounds(tmp_path):
    """Two classes of three sounds, one broken file, one outside of the classes; the longest has 2 s."""
    generator = np.random.default_rng(0)
    for name in ("dog/a.wav", "dog/b.flac", "dog/c.wav", "rain/a.wav", "rain/b.wav", "rain/c.ogg", "loose.wav"):
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seconds = 2.0 if name == "dog/a.wav" else 0.4
        soundfile.write(path, 0.1 * generator.standard_normal(round(16000 * seconds)), 16000)
    (tmp_path / "sounds" / "rain" / "broken.wav").write_bytes(b"RIFF no sound")
    return tmp_path / "sounds"


def test_explain_draws_beside_you_and_names_the_part(model_folder, sounds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["explain", str(sounds / "dog" / "a.wav"), "--model", model_folder, "--captions", "a dog", "rain"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a_attention.png: first 1.12 s of 2.00 s"
    assert [line.split(maxsplit=1)[1] for line in lines[1:]] == ["a dog", "rain"]
    picture = tmp_path / "a_attention.png"
    assert picture.read_bytes()[:8] == PNG
    picture.unlink()
    assert main([*words, "--json"]) == 0
    assert not picture.exists()
    (answer,) = json.loads(capsys.readouterr().out)["files"]
    assert np.shape(answer["attention"]) == (5, 7)
    printed = [float(line.split()[0]) for line in lines[1:]]
    assert [entry["similarity"] for entry in answer["captions"]] == pytest.approx(printed, abs=1e-3)


def test_explain_of_several_files_fills_a_folder(model_folder, sounds, tmp_path, capsys):
    output = tmp_path / "new" / "pictures"
    assert main(["explain", str(sounds), "--output", str(output), "--npz", "--model", model_folder]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 7
    assert "left out" in err
    assert "broken.wav" in err
    names = {"a", "b", "c", "loose", "a_2", "b_2", "c_2"}  # of both classes
    assert {path.name for path in output.iterdir()} == {
        f"{name}_attention.{suffix}" for name in names for suffix in ("png", "npz")
    }
    with np.load(output / "a_attention.npz") as arrays:
        assert arrays["attention"].shape == (5, 7)
    assert main(["explain", str(sounds), "--output", str(output / "one.png"), "--model", model_folder]) == 2
    assert "is one picture, got 8 sound files. Give a folder." in capsys.readouterr().err


def test_explain_of_another_system_is_refused(sounds, tmp_path, capsys):
    folder = save(tmp_path / "slap", SlapModel(tiny_slap_config()), "slap")
    assert main(["explain", str(sounds / "dog" / "a.wav"), "--model", folder]) == 2
    out, err = capsys.readouterr()
    assert "SlapModel, which has no projector attention" in err
    assert (out, err.count("\n")) == ("", 1)


def test_map_draws_counts_and_names_what_is_left_out(model_folder, sounds, tmp_path, capsys):
    picture, points = tmp_path / "new" / "map.png", tmp_path / "new" / "points.csv"
    words = ["map", str(sounds), "--model", model_folder, "--output", str(picture), "--csv", str(points)]
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert f"{picture}: 6 files of 2 classes" in out
    assert "The perplexity of t-SNE is 1.67" in out
    assert err.count("left out") == 2
    assert "loose.wav: it lies in no sub-folder" in err
    assert "broken.wav" in err
    assert picture.read_bytes()[:8] == PNG
    with open(points, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["dog"] * 3 + ["rain"] * 3
    (sounds / "loose.wav").unlink()
    (sounds / "rain" / "broken.wav").unlink()
    assert main([*words, "--json", "--features", "audio"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["features"] == "audio"
    assert answer["failed"] == []
    assert len(answer["points"]) == 6


def test_compare_prints_a_table_or_json(tmp_path, capsys):
    for name, value in (("one", 0.5), ("two", 0.25)):
        (tmp_path / name).mkdir()
        report = {"text_to_audio/R@1": value, "chance": {"text_to_audio/R@1": 0.01}, "ceiling": {}, "records": []}
        (tmp_path / name / "metrics.json").write_text(json.dumps(report))
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert main(["compare", *runs]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| text to audio R@1 | 50.0 | 25.0 |    1.0 |"
    assert main(["compare", *runs, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["runs"] == runs
    assert answer["metrics"]["text_to_audio/R@1"]["values"] == {runs[0]: 0.5, runs[1]: 0.25}


def test_convert_hands_on_its_settings_and_prints_the_account(monkeypatch, capsys):
    calls = []

    def convert_checkpoint(*arguments, **overrides):
        calls.append((arguments, overrides))
        return SimpleNamespace(summary=lambda: "all used")

    monkeypatch.setattr("hf_audiolang.convert.convert_checkpoint", convert_checkpoint)
    settings = ["max_frames=1001", "pretraining=true", "name=a=b", "text_model=null", "tokenizer=none"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["convert", *words, "m2d_clap", "in.pth", "out"]) == 0
    assert capsys.readouterr().out == "all used\n"
    assert calls == [
        (
            ("m2d_clap", "in.pth", "out"),
            {"max_frames": 1001, "pretraining": True, "name": "a=b", "text_model": None, "tokenizer": "none"},
        )
    ]
    for wrong in ("max_frames", "=3", "max frames=3"):
        assert main(["convert", "m2d_clap", "in.pth", "out", "--set", wrong]) == 2
        assert f"`set` takes KEY=VALUE, got {wrong!r}" in capsys.readouterr().err
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: ["explain", f / "a.wav", "--output", "x.gif", "--model", "m"], "must end in one of ['.png'"),
        (lambda f: ["explain", f / "empty", "--model", "m"], "names no sound file"),
        (lambda f: ["explain", f / "a.wav", "--model", f / "absent" / "model"], "is not a folder"),
        (lambda f: ["map", f / "absent", "--model", "m"], "is not a folder. Give one with a sub-folder per class"),
        (lambda f: ["map", f / "empty", "--model", "m"], "names no sound file"),
        (lambda f: ["map", f, "--model", "m"], "at least two classes, got []"),
        (lambda f: ["map", f, "--model", "m", "--output", "map.jpeg"], "must end in one of"),
        (lambda f: ["compare", f], "has no metrics.json"),
        (lambda f: ["convert", "m3d", "x.pth", f / "out"], "Unknown `family` 'm3d'. Choose one of"),
        (lambda f: ["convert", "m2d_clap", f / "absent.pth", f / "out"], "absent.pth"),
    ],
)
def test_bad_input_is_one_clear_line_and_code_2(tmp_path, capsys, make, message):
    (tmp_path / "empty").mkdir()
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 16000)
    assert main([str(word) for word in make(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_every_sub_command_has_its_function():
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert {"explain", "map", "compare", "convert", "classify", "embed", "search", "bench"} <= set(commands.choices)
    for name, command in commands.choices.items():
        options = argparse.Namespace(command=name, module=command.get_default("module"))
        assert find_command(options).__name__ == f"run_{name}"

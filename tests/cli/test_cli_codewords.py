"""`hf-audiolang codewords` on embedded scenes and on a folder of one's own, and one clear line for each refusal."""

import json
import re

import numpy as np
import pytest
import soundfile
import torch
from tiny import tiny_ast_config, tiny_mga_clap_config, tiny_slap_config, tiny_tokenizer

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, MgaClapModel, SlapModel
from hf_audiolang.cli import main
from hf_audiolang.evaluation import codewords_report


def save(folder, model, feature_size=36):
    extractor = LogMelFeatureExtractor.from_preset(
        "slap", feature_size=feature_size, mean=-7.0, std=9.0, max_seconds=4.0
    )
    model.save_pretrained(folder)
    AudioLangProcessor(extractor, tiny_tokenizer()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    audio_config = tiny_ast_config(encoder={"max_length": 416})
    model = MgaClapModel(tiny_mga_clap_config(audio_config=audio_config, affinity_divisor=2.0))
    return save(tmp_path_factory.mktemp("run") / "model", model)


@pytest.fixture
def sounds(tmp_path):
    """Three clips with captions, two of them with labels."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for number, caption in enumerate(["a dog barking", "rain", "a loud siren"]):
        soundfile.write(folder / f"{number}.wav", 0.1 * generator.standard_normal(12000 + 900 * number), 16000)
        rows.append({"file_name": f"{number}.wav", "caption": caption})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture
def without_pictures(monkeypatch):
    """The same report without the seconds that pictures take."""
    monkeypatch.setattr(codewords_report, "_draw", lambda *arguments: [])


def report_of(folder):
    return json.loads((folder / "codewords.json").read_text(encoding="utf-8"))


def test_the_report_on_scenes_names_codewords_by_their_labels(model_folder, tmp_path, capsys):
    assert main(["codewords", model_folder, "--size", "6", "--report", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    found = report_of(tmp_path / "out")
    assert (found["data"], found["num_clips"], found["num_captions"]) == ("sound_scenes (test)", 6, 30)
    assert found["audio_seconds"] == 24  # the model's limit of 4 s
    assert found["named_by"] == "labels"
    assert not any("_" in text for text in found["naming_texts"])
    assert found["last_block"]["num_clips"] == 6
    for name in ("codewords.json", "codewords.md", "usage.png", "frames.png", "similarity_maps.png"):
        assert (tmp_path / "out" / name).is_file()
        assert str(tmp_path / "out" / name) in output
    assert re.search(r"dead codewords +\d+ \(\d+\.\d%\)", output)
    assert re.search(r"corpus +sound_scenes \(test\): 6 clips", output)


@pytest.mark.usefixtures("without_pictures")
def test_a_folder_of_ones_own_is_named_by_its_captions_or_by_given_texts(model_folder, sounds, tmp_path, capsys):
    arguments = ["codewords", model_folder, "--data", str(sounds), "--report", str(tmp_path / "out")]
    assert main([*arguments, "--size", "2"]) == 0
    found = report_of(tmp_path / "out")
    assert (found["num_clips"], found["named_by"]) == (2, "captions")
    assert found["naming_texts"] == ["a dog barking", "rain"]
    assert main([*arguments, "--texts", "dog, cat", "drum"]) == 0
    found = report_of(tmp_path / "out")
    assert (found["num_clips"], found["named_by"]) == (3, "given texts")
    assert found["naming_texts"] == ["dog", "cat", "drum"]
    (tmp_path / "words.txt").write_text("a bell, far\n\nsiren\n")
    assert main([*arguments, "--texts", str(tmp_path / "words.txt")]) == 0
    assert report_of(tmp_path / "out")["naming_texts"] == ["a bell, far", "siren"]
    assert "named by" in capsys.readouterr().out


@pytest.mark.usefixtures("without_pictures")
def test_a_clip_that_cannot_be_read_is_named_and_the_others_are_reported(model_folder, sounds, tmp_path, capsys):
    audio, rate = soundfile.read(sounds / "1.wav")
    audio[100] = np.nan
    soundfile.write(sounds / "1.wav", audio, rate, subtype="FLOAT")  # its header is fine
    arguments = ["codewords", model_folder, "--data", str(sounds), "--report", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "1.wav" in capsys.readouterr().err
    assert report_of(tmp_path / "out")["num_clips"] == 2


def test_models_without_a_codebook_are_refused_in_one_line(tmp_path, capsys):
    torch.manual_seed(0)
    mean = save(tmp_path / "mean", MgaClapModel(tiny_mga_clap_config(aggregation="mean")), feature_size=16)
    slap = save(tmp_path / "slap", SlapModel(tiny_slap_config()), feature_size=64)
    for folder, found in ((mean, "`aggregation` 'mean'"), (slap, "another kind of model than MGA-CLAP")):
        assert main(["codewords", folder, "--report", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.strip()
        assert f"has no codebook, got {found}" in error
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "0"], "`size` must be at least 1, got 0"),
        (["--texts", "nowhere.txt"], "`texts` 'nowhere.txt' does not exist"),
        (["--texts", ","], "`texts` holds no text"),
        (["--data", "nowhere"], "There is no data set or folder `nowhere`"),
    ],
)
def test_bad_arguments_are_one_clear_line(model_folder, more, message, tmp_path, capsys):
    assert main(["codewords", model_folder, "--report", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("without_pictures")
def test_sounds_with_nothing_to_name_codewords_by_ask_for_texts(model_folder, sounds, tmp_path, capsys):
    (sounds / "metadata.jsonl").unlink()
    arguments = ["codewords", model_folder, "--data", str(sounds), "--report", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "no labels and no captions to name codewords by" in capsys.readouterr().err
    assert main([*arguments, "--texts", "dog"]) == 0
    found = report_of(tmp_path / "out")
    assert (found["num_captions"], found["active_per_caption"]) == (0, None)

"""`detect`, `ground` and the Python calls behind them: tables, files, pictures, exit codes, refusals before audio."""

import csv
import json
import sys

import numpy as np
import pytest
import soundfile
import torch
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableModel, TableProcessor
from test_figures import PictureProcessor
from tiny import tiny_m2d_clap_config, tiny_processor, tiny_slap_config, tiny_tokenizer

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, M2dClapModel, SlapModel, commands_events
from hf_audiolang.cli import main
from hf_audiolang.detection import detect_files, ground_files
from hf_audiolang.evaluation.events import EventRule

PNG = b"\x89PNG\r\n\x1a\n"
FRAMES = {"street.wav": [1, 1, 3, 3, 3, 1, 2, 2], "quiet.wav": [5, 5, 5]}  # a frame is 0.1 s; 5 is no label
WORDS = ["--labels", "siren 2, dog 3", "cat_4", "--model", "known"]


class PictureTableProcessor(PictureProcessor):
    def __init__(self):
        super().__init__()
        self.feature_extractor.hop_length = FRAME_SAMPLES


@pytest.fixture
def sounds(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name, rows in FRAMES.items():
        waveform = np.repeat(np.array(rows, dtype=np.float32) / 100, FRAME_SAMPLES)
        soundfile.write(folder / name, waveform, SAMPLING_RATE, subtype="FLOAT")
    return folder


@pytest.fixture
def known(monkeypatch):
    """Makes the commands load a model of which a frame k has similarity 1 - 0.05 k to a text that ends in k."""
    table = np.eye(9)
    model = TableModel(table * (1 - 0.05 * np.arange(9)), table)
    monkeypatch.setattr(commands_events, "load_quietly", lambda options: (model, PictureTableProcessor()))
    return model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("events") / "model"
    SlapModel(tiny_slap_config()).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


def test_detect_prints_a_table_per_file_and_a_hint_where_nothing_is_found(known, sounds, capsys):
    assert main(["detect", str(sounds), *WORDS, "--threshold", "0.8"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{sounds / 'quiet.wav'}  (0:00.30)",
        "  No sounds found with threshold 0.8. Highest scores: siren 2 0.000, dog 3 0.000, cat_4 0.000.",
        f"{sounds / 'street.wav'}  (0:00.80)",
        "  0:00.20 - 0:00.50  0.850  dog 3",
        "  0:00.60 - 0:00.80  0.900  siren 2",
    ]
    assert main(["detect", str(sounds / "street.wav"), *WORDS, "--threshold", "0.8", "--min_seconds", "0.4"]) == 0
    assert "siren 2 0.900, dog 3 0.850, cat_4 0.000. What passes it is too short" in capsys.readouterr().out
    assert main(["detect", str(sounds / "street.wav"), *WORDS, "--threshold", "0.87"]) == 0
    assert "dog" not in capsys.readouterr().out


def test_the_options_reach_the_rule(known, sounds, capsys):
    words = ["detect", str(sounds / "street.wav"), "--labels", "bird 1", "--model", "known", "--json"]
    for options, expected in (
        ([], [(0.0, 0.6)]),  # gaps below half a second are closed
        (["--join", "0"], [(0.0, 0.2), (0.5, 0.6)]),
        (["--join", "0", "--median", "0.3"], [(0.0, 0.2)]),
        (["--join", "0", "--min_seconds", "0.15", "--max_seconds", "0.3", "--overlap", "0.5"], [(0.0, 0.2)]),
    ):
        assert main([*words, *options]) == 0
        (file,) = json.loads(capsys.readouterr().out)["files"]
        assert [(event["start"], event["end"]) for event in file["events"]] == expected


def test_output_files_parse_back(known, sounds, tmp_path, capsys):
    street, table = str(sounds / "street.wav"), tmp_path / "new" / "all.csv"
    expected = [("dog 3", 0.2, 0.5, 0.85), ("siren 2", 0.6, 0.8, 0.9)]
    assert main(["detect", str(sounds), *WORDS, "--json", "--output", str(table)]) == 0
    files = {file["file"]: file for file in json.loads(capsys.readouterr().out)["files"]}
    events = [(e["label"], e["start"], e["end"], pytest.approx(e["score"])) for e in files[street]["events"]]
    assert events == expected
    assert files[str(sounds / "quiet.wav")]["events"] == []
    assert files[street]["duration"] == 0.8
    assert files[street]["highest_scores"] == pytest.approx({"siren 2": 0.9, "dog 3": 0.85, "cat_4": 0.0})
    with open(table, encoding="utf-8", newline="") as file:
        rows = [(r["file"], r["label"], *map(float, (r["start"], r["end"], r["score"]))) for r in csv.DictReader(file)]
    assert rows == [(street, *event) for event in expected]
    assert main(["detect", street, *WORDS, "--output", str(tmp_path / "track.txt")]) == 0
    lines = (tmp_path / "track.txt").read_text().splitlines()
    assert lines == ["0.200000\t0.500000\tdog 3", "0.600000\t0.800000\tsiren 2"]
    assert main(["ground", street, "a bird 1", "--model", "known", "--output", str(tmp_path / "one.json")]) == 0
    stored = json.loads((tmp_path / "one.json").read_text())
    assert [(event["label"], event["end"]) for event in stored[street]] == [("a bird 1", 0.6)]


def test_ground_takes_each_phrase_as_it_is(known, sounds, capsys):
    words = ["ground", str(sounds / "street.wav"), "a dog, barking_at 3", "rain 2", "--model", "known"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines[1:]] == ["a dog, barking_at 3", "rain 2"]
    assert known.text_batches == [(2, 4)]  # three blanks in the longest: the comma and `_` part nothing


def test_pictures_go_to_one_file_or_a_folder(known, sounds, tmp_path, capsys, monkeypatch):
    street, picture = str(sounds / "street.wav"), tmp_path / "new" / "street.png"
    assert main(["detect", street, *WORDS, "--plot", str(picture)]) == 0
    assert picture.read_bytes()[:8] == PNG
    assert capsys.readouterr().out.splitlines()[-1] == f"  picture: {picture}"
    drawn = {}

    def remember(record, processor, frame_scores, labels, output, rule):
        drawn[record.id] = (output.name, labels, len(frame_scores.scores), rule.threshold)

    monkeypatch.setattr(commands_events, "plot_events", remember)
    words = ["ground", str(sounds), "dog 3", "--model", "known", "--plot", str(tmp_path / "all"), "--threshold", "0.4"]
    assert main([*words, "--json"]) == 0
    assert drawn == {
        str(sounds / "quiet.wav"): ("quiet_events.png", ["dog 3"], 3, 0.4),
        str(sounds / "street.wav"): ("street_events.png", ["dog 3"], 8, 0.4),
    }
    json.loads(capsys.readouterr().out)  # and nothing else


def test_without_matplotlib_the_extra_is_named_before_anything_is_computed(sounds, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["detect", str(sounds), "--labels", "dog", "--model", "absent", "--plot", "pictures"]
    assert main(words) == 2
    assert "pip install 'hf-audiolang[viz]'" in capsys.readouterr().err


def test_unreadable_files_are_named_and_the_others_are_searched(known, sounds, tmp_path, capsys):
    (sounds / "broken.wav").write_bytes(b"RIFF no sound")
    files = [str(sounds), str(tmp_path / "absent.wav")]
    words = ["detect", *files, *WORDS, "--json", "--output", str(tmp_path / "a.csv")]
    assert main(words) == 1
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert [file["file"] for file in answer["files"]] == [str(sounds / name) for name in ("quiet.wav", "street.wav")]
    assert len(answer["failed"]) == 2
    assert err.count("left out: ") == 2
    assert "broken.wav" in err
    assert "absent.wav" in err
    assert main(["detect", str(tmp_path / "absent.wav"), *WORDS]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "dog", "--threshold", "1.5"], "similarity in (0, 1), got 1.5"),
        (["--labels", "dog", "--threshold", "0"], "similarity in (0, 1), got 0"),
        (["--labels", " , "], "`labels` must be a list of texts, got []"),
        (["--labels", "dog, rain, dog"], "`labels` must differ, got ['dog'] more than once"),
        (["--labels", "dog " * 50], "The text encoder reads at most 32"),
        (["--labels", "dog", "--template", "a sound"], "no place for the label"),
        (["--labels", "dog", "--median", "-1"], "`median_seconds` must be 0 or more, got -1.0"),
        (["--labels", "dog", "--overlap", "1"], "`overlap` must lie in [0, 1), got 1.0"),
        (["--labels", "dog", "--output", "a.xls"], "Choose one of ['.csv', '.json', '.txt']"),
        (["--labels", "dog", "--output", "a.txt"], "holds one recording, got 2"),
        (["--labels", "dog", "--plot", "a.png"], "`plot` 'a.png' is one picture, got 2 sound files. Give a folder."),
        (["--labels", "dog", "--plot", "a.gif"], "`plot` 'a.gif' must end in one of ['.png', '.pdf', '.svg']"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_audio_is_read(model_folder, words, message, capsys):
    files = ["absent.wav", "absent_too.wav"]  # their absence would be the first thing to say
    assert main(["detect", *files, *words, "--model", model_folder, "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_phrases_are_refused_like_labels(model_folder, capsys):
    for phrases, message in ((["a dog", "a dog"], "more than once"), ([" "], "blank text")):
        assert main(["ground", "absent.wav", *phrases, "--model", model_folder, "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model_class", "config"), [(SlapModel, tiny_slap_config), (M2dClapModel, tiny_m2d_clap_config)]
)
def test_files_of_every_length_and_rate_are_searched(model_class, config, tmp_path):
    torch.manual_seed(0)
    name = "slap" if model_class is SlapModel else "m2d_clap"
    extractor = LogMelFeatureExtractor.from_preset(name, mean=-7.0, std=9.0, max_seconds=1.0)
    processor = AudioLangProcessor(extractor, tiny_tokenizer())
    generator = np.random.default_rng(0)
    durations = {"a.wav": (0.1, 44100), "b.flac": (3.3, 44100), "c.wav": (0.004, 16000), "d.wav": (0.95, 8000)}
    for file, (seconds, rate) in durations.items():
        samples = generator.standard_normal((round(seconds * rate), 2)) / 10
        soundfile.write(tmp_path / file, samples, rate)
    found = detect_files([tmp_path], ["dog", "rain"], model_class(config()).eval(), processor, rule=EventRule(0.01))
    assert [round(file.duration, 3) for file in found.files] == [seconds for seconds, _ in durations.values()]
    for file in found.files:
        assert file.frame_scores.edges[-1] == pytest.approx(file.duration)
        assert all(0 <= event.start < event.end <= round(file.duration, 6) for event in file.events)
    scores = found.files[1].frame_scores
    assert np.abs(scores.scores[scores.edges[:-1] > 1]).min() > 0  # beyond the first window


def test_python_calls_take_a_folder_or_a_loaded_model(model_folder, sounds, known):
    (file,) = ground_files([sounds / "street.wav"], "dog 3", known, TableProcessor(), rule=EventRule(0.8)).files
    assert [event.to_dict() for event in file.events] == [
        {"label": "dog 3", "score": pytest.approx(0.85), "start": 0.2, "end": 0.5}
    ]
    assert file.frame_scores.scores.shape == (8, 1)
    assert len(ground_files([sounds], ["a dog"], model_folder).files) == 2
    with pytest.raises(ValueError, match="`processor` is missing"):
        detect_files([sounds], ["a dog"], known)

import json
import os
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from accelerate_state import forget_accelerate
from caption_fakes import CAPTIONS as CAPTIONS_OF_ROWS
from caption_fakes import CaptionProcessor, TableCaptioner
from evaluation_fakes import record as known_clip
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.data import Record, TooManyBadExamples
from hf_audiolang.models.modeling_slap import SlapForPreTraining
from hf_audiolang.training import load_run_config, next_commands, pretrain
from hf_audiolang.training.build import build_datasets
from hf_audiolang.training.checkpoint import find_last_checkpoint
from hf_audiolang.training.finish import evaluate_run, readable_clips
from hf_audiolang.training.log import LOG_FILE, read_log
from hf_audiolang.training.outline import SMOKE_SIZES

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))
# What a run of a family exports, and where it stood in the trained model.
EXPORTED = {
    "captionstew": ("CaptionStewModel", "captionstew."),
    "m2d_base": ("M2dClapAudioModel", "m2d_clap.audio_model."),
    "m2d_clap": ("M2dClapModel", "m2d_clap."),
    "mga_clap": ("MgaClapModel", ""),
    "slap": ("SlapModel", "slap."),
}
NO_TEXT = ("m2d_base", "m2d_clap_stage1", "captionstew_captioning", "captionstew_scenes_captioning")  # no text tower
CAPTIONERS = {"slap": "SlapForConditionalGeneration", "captionstew": "CaptionStewForConditionalGeneration"}
CAPTIONS = ["a dog barks", "a siren wails", "rain falls", "a bell rings twice", "someone knocks on a door"]


@pytest.fixture(autouse=True)
def _fresh_accelerate(monkeypatch):
    monkeypatch.chdir(ROOT)  # the configurations name the model folders from there
    forget_accelerate()  # other tests leave theirs, perhaps of another precision
    yield
    forget_accelerate()


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory) -> str:
    """A model_config folder with a model of width 24."""
    folder = tmp_path_factory.mktemp("tiny_config")
    source = ROOT / "configs" / "models" / "slap_scenes"
    numbers = json.loads((source / "config.json").read_text())
    for part in (numbers, numbers["audio_config"], numbers["text_config"], numbers["decoder_config"]):
        part.update({name: value for name, value in SMOKE_SIZES.items() if name in part})
        if "layer_types" in part:
            part["layer_types"] = part["layer_types"][:2]
    (folder / "config.json").write_text(json.dumps(numbers))
    LogMelFeatureExtractor.from_preset("slap").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory) -> Path:
    """Thirty files of three formats, several rates, one and two channels, 0.06 s to 3 s; one cannot be decoded."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    rows = ["file_name,caption"]
    for number in range(30):
        rate = (8000, 16000, 22050, 44100)[number % 4]
        seconds = 0.06 if number == 3 else 0.5 + 2.5 * number / 29
        samples = 0.1 * generator.standard_normal((int(rate * seconds), 1 + number % 2))
        name = f"sound_{number:02d}.{('wav', 'flac', 'ogg')[number % 3]}"
        soundfile.write(folder / name, samples, rate)
        rows.append(f'{name},"{CAPTIONS[number % 5]}, number {number}"')
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def run(tmp_path, tiny_config, *arguments: str):
    """A run of a tiny model on a few scenes of one second."""
    base = ["--model_config", tiny_config, "--output_dir", str(tmp_path / "run"), "--max_steps", "4"]
    base += ["--train_size", "12", "--batch_size", "4", "--min_seconds", "1", "--max_seconds", "1.6"]
    base += ["--num_workers", "0", "--test_size", "10", "--composition_size", "4", "--zero_shot_size", "32"]
    base += ["--log_steps", "1", "--save_steps", "2", "--learning_rate", "1e-3", "--num_threads", "1"]
    return pretrain(load_run_config([*base, *arguments]))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_trains_evaluates_and_exports_in_smoke_mode(path, tmp_path):
    config = load_run_config([str(path), "--smoke", "--output_dir", str(tmp_path / "x"), "--num_threads", "1"])
    result = pretrain(config)
    folder = tmp_path / "x_smoke"
    assert result.output_dir == folder
    metrics = json.loads((folder / "metrics.json").read_text())
    names = "zero_shot/accuracy text_to_audio/R@1 text_to_audio/R@10 audio_to_text/R@1 composition/text_to_audio/R@10"
    has_text = path.stem not in NO_TEXT
    for name in [*names.split(), "frame/mAP"] if has_text else ["probe/accuracy"]:
        assert 0 <= metrics[name] <= 1, name
    assert ("zero_shot/accuracy" in metrics) == has_text
    steps = [line["step"] for line in read_log(folder / LOG_FILE) if "loss" in line]
    assert steps == [1, 2]
    model, info = AutoModel.from_pretrained(folder / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    class_name, prefix = next(EXPORTED[family] for family in EXPORTED if path.stem.startswith(family))
    assert type(model).__name__ == class_name
    assert not [name for name in load_file(folder / "model" / "model.safetensors") if "teacher" in name]
    trained = load_file(find_last_checkpoint(folder / "checkpoints") / "model.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained[f"{prefix}{name}"]), name
    assert AutoFeatureExtractor.from_pretrained(folder / "model").mean is not None
    writes_captions = path.stem.startswith("slap") or "captioning" in path.stem
    assert (folder / "captioner").is_dir() == writes_captions == ("captioning/CIDEr-D" in metrics)
    if writes_captions:
        captioner, info = AutoModelForSpeechSeq2Seq.from_pretrained(folder / "captioner", output_loading_info=True)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert type(captioner).__name__ == next(CAPTIONERS[name] for name in CAPTIONERS if path.stem.startswith(name))
        assert all(torch.equal(value, trained[name]) for name, value in captioner.state_dict().items())
    assert (folder / "model" / "tokenizer.json").is_file() == (has_text or writes_captions)
    if has_text:
        processor = AutoProcessor.from_pretrained(folder / "model")
        assert len(processor.tokenizer) == model.config.text_config.vocab_size
    pictures = {"losses.png", "scene.png"} if has_text else {"losses.png"}
    assert {path.name for path in (folder / "figures").iterdir()} == pictures
    commands = next_commands(folder, result.examples, result.labels, result.embeds_text)
    assert (f"--labels '{result.labels[0]}, " if has_text else "hf-audiolang embed") in commands[0]
    for command in commands:
        named = [Path(word) for word in command.split() if word.startswith(str(folder))]
        assert named
        assert all(word.exists() for word in named)


def test_the_card_says_what_was_measured_and_nothing_else(tmp_path, tiny_config):
    result = run(tmp_path, tiny_config)
    card = ModelCard.load(tmp_path / "run" / "model" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "zero-shot-audio-classification"
    values = {found.metric_name: found.metric_value for found in card.data.eval_results}
    assert set(values) <= set(result.report)
    assert len(values) == 11
    for name, value in values.items():
        assert value == pytest.approx(result.report[name], abs=5.1e-5)  # four decimals
    data = {found.metric_name: found.dataset_name for found in card.data.eval_results}
    assert data["composition/text_to_audio/R@10"] == "synthetic-scenes v1 composition"
    assert "# run\n" in card.text
    assert "synthetic data only" in card.text
    assert "4 steps of 4 clips" in card.text
    assert "Losses: contrastive x 1.0, masked x 1.0, caption x 0.5." in card.text
    assert "{{" not in card.text
    assert "{%" not in card.text


def test_the_schedules_epochs_are_those_of_the_data(tmp_path, tiny_config, monkeypatch):
    class ReachedError(Exception):
        pass

    def stop(model, make_loader, config, accelerator, *, num_steps, batches_per_epoch, evaluate_model):
        assert (num_steps, batches_per_epoch) == (4, 2)
        raise ReachedError

    monkeypatch.setattr("hf_audiolang.training.run.train", stop)
    with pytest.raises(ReachedError):
        run(tmp_path, tiny_config, "--lr_schedule", "eden", "--train_size", "11", "--batch_size", "4")


def test_resuming_a_finished_run_only_evaluates_and_exports_again(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setattr("hf_audiolang.training.run.write_figures", lambda *a: [])
    first = run(tmp_path, tiny_config)
    weights = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "model")
    second = run(tmp_path, tiny_config, "--resume")
    assert second.progress.step == 4
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == weights
    assert second.report["text_to_audio/MeanR"] == first.report["text_to_audio/MeanR"]
    assert [line["step"] for line in read_log(tmp_path / "run" / LOG_FILE)] == [1, 2, 3, 4]


def test_an_interrupted_run_resumes_to_the_same_model_bit_for_bit(tmp_path, tiny_config, monkeypatch):
    whole = run(tmp_path / "whole", tiny_config)
    update, calls = SlapForPreTraining.update_teacher, []

    def update_and_signal(self, decay):
        calls.append(decay)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, decay)

    with monkeypatch.context() as patch:
        patch.setattr(SlapForPreTraining, "update_teacher", update_and_signal)
        stopped = run(tmp_path / "parts", tiny_config)
    assert stopped.signal_number == signal.SIGTERM
    assert stopped.report == {}
    assert not (tmp_path / "parts" / "run" / "model").exists()
    resumed = run(tmp_path / "parts", tiny_config, "--resume")
    first, second = tmp_path / "whole" / "run", tmp_path / "parts" / "run"
    assert read_log(first / LOG_FILE) == read_log(second / LOG_FILE)
    for part in ("model", "checkpoints/step_00000004"):
        weights, others = load_file(first / part / "model.safetensors"), load_file(second / part / "model.safetensors")
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert [resumed.report[name] for name in ("frame/mAP", "audio_to_text/R@1")] == [
        whole.report[name] for name in ("frame/mAP", "audio_to_text/R@1")
    ]


def test_a_folder_of_ones_own_sounds_trains_evaluates_and_exports(tmp_path, tiny_config, sound_folder, caplog):
    result = run(tmp_path, tiny_config, "--train_data", str(sound_folder), "--batch_size", "64", "--num_workers", "1")
    folder = tmp_path / "run"
    assert "`batch_size` is 64" in caplog.text
    record = result.report["records"][0]
    assert record["data"] == f"held-out part of {sound_folder.name}"
    for path in ("metrics.json", "metrics.md", "model/README.md"):
        assert str(sound_folder) not in (folder / path).read_text()  # a private path
    assert record["num_clips"] == 1  # sound_12.wav, by a hash of the names
    assert "at least two clips" in result.report["left_out"]["captioning"]
    assert "captioning/CIDEr-D" not in result.report
    assert set(result.report["chance"]) >= {"text_to_audio/R@1", "audio_to_text/R@10"}
    assert AutoModel.from_pretrained(folder / "model").config.model_type == "slap"
    assert (folder / "figures" / "scene.png").stat().st_size > 10_000
    card = ModelCard.load(folder / "model" / "README.md")
    assert "synthetic" not in card.text
    assert card.data.license is None
    assert all(soundfile.info(path).samplerate == 16000 for path in result.examples)
    assert len(result.examples) == 1
    assert not (folder / "bad_examples.txt").exists()
    settings = yaml.safe_load((find_last_checkpoint(folder / "checkpoints") / "run.yaml").read_text())
    assert (settings["train_data"], settings["batch_size"]) == (str(sound_folder), 29)


def test_captions_of_ones_own_sounds_are_scored_on_the_first_clips(tmp_path):
    clips = [known_clip(row, captions=(CAPTIONS_OF_ROWS[row],)) for row in (0, 1, 2, 4, 5)]
    options = ["--train_data", "mine", "--eval_data", "test_clips", "--model_config", "x", "--max_steps", "1"]
    config = load_run_config([*options, "--output_dir", str(tmp_path), "--test_size", "3"])
    captioner, no_text = TableCaptioner(), torch.nn.Linear(2, 3)
    report, examples = evaluate_run(config, no_text, CaptionProcessor(), clips, captioner)
    (about,) = report["records"]
    assert (about["task"], about["data"], about["num_clips"]) == ("captioning", "test_clips", 3)
    assert sum(call["shape"][0] for call in captioner.calls) == 3
    assert report["captioning/BLEU_1"] == pytest.approx(1)  # of their own captions
    assert json.loads((tmp_path / "metrics.json").read_text()) == report
    assert len(examples) == 5
    config.eval.test_size = 300
    report, _ = evaluate_run(config, no_text, CaptionProcessor(), clips, captioner)
    assert report["records"][0]["num_clips"] == 5


def test_a_bad_file_is_left_out_and_counted_or_stops_the_run(tmp_path, tiny_config, sound_folder):
    folder = tmp_path / "spoiled"
    shutil.copytree(sound_folder, folder)
    spoiled = np.full(16000, np.nan, dtype=np.float32)
    soundfile.write(folder / "sound_15.wav", spoiled, 16000, subtype="FLOAT")  # its header is fine
    held_out = tmp_path / "held_out"
    shutil.copytree(sound_folder, held_out)
    soundfile.write(held_out / "sound_00.wav", spoiled, 16000, subtype="FLOAT")
    arguments = ("--train_data", str(folder), "--batch_size", "24", "--max_steps", "2", "--save_steps", "1")
    result = run(tmp_path, tiny_config, *arguments, "--eval_data", str(held_out))
    (message,) = result.progress.bad_examples
    assert "sound_15.wav" in message
    assert (tmp_path / "run" / "bad_examples.txt").read_text() == f"{message}\n"
    assert [path.stem for path in result.examples] == [f"sound_{number:02d}" for number in range(1, 9)]
    assert (tmp_path / "run" / "figures" / "scene.png").is_file()  # of another clip than the first
    assert result.report["records"][0]["data"] == "held_out"
    for path in held_out.glob("sound_*"):
        soundfile.write(path, spoiled[:9], 16000, subtype="FLOAT", format="WAV")
    with pytest.raises(ValueError, match=r"`eval_data`: none of the 30 held-out clips can be used.*Repair"):
        run(tmp_path / "none", tiny_config, *arguments, "--eval_data", str(held_out))
    with pytest.raises(ValueError, match=r"sound_15\.wav"):
        run(tmp_path / "strict", tiny_config, *arguments, "--on_bad_example", "error")
    for number in range(0, 15, 3):
        (folder / f"sound_{number:02d}.wav").write_bytes(b"no sound")
    with pytest.raises(TooManyBadExamples, match="more than 5%"):
        run(tmp_path / "many", tiny_config, *arguments)


def test_what_only_the_end_of_a_run_would_notice_is_refused_before_data_are_made(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setattr("hf_audiolang.training.run.build_datasets", lambda *a: pytest.fail("data were made"))
    with pytest.raises(ValueError, match=r"`num_events` \[1, 1\].* the final test cannot be made: .*'test' needs"):
        run(tmp_path, tiny_config, "--num_events", "1", "1")
    arguments = ["--model", tiny_config, "--output_dir", str(tmp_path / "x"), "--max_steps", "4"]
    with pytest.raises(FileNotFoundError, match=r"`model` '.*' has no weights \(model.safetensors\).*--model_config"):
        pretrain(load_run_config(arguments))


def test_ones_own_sounds_can_be_tested_on_the_scenes(tmp_path, tiny_config, sound_folder):
    arguments = ("--train_data", str(sound_folder), "--eval_data", "sound_scenes", "--batch_size", "10")
    config = load_run_config(["--model_config", tiny_config, "--max_steps", "1", *arguments, "--eval_size", "3"])
    train, held_out = build_datasets(config, 16000)
    assert (len(train), held_out) == (30, None)  # nothing is held out of the own data
    config.eval.eval_steps = 1
    config.data.max_seconds, config.data.min_seconds = 1.5, 1.0
    assert build_datasets(config, 16000)[1][0].id.startswith("scenes-v1-validation")
    result = run(tmp_path, tiny_config, "--max_steps", "1", *arguments)
    assert result.report["records"][0]["data"] == "synthetic-scenes v1 zero_shot"


def test_a_damaged_held_out_file_does_not_take_the_end_of_a_run_away(tmp_path, caplog):
    clips = [Record(str(n), np.full(800, 0.1 * n, dtype=np.float32), 16000, captions=("a",)) for n in range(5)]
    clips[0] = replace(clips[0], audio=np.full(800, np.nan, dtype=np.float32))
    clips[2] = replace(clips[2], audio=str(tmp_path / "gone.wav"), sampling_rate=None)
    assert [clip.id for clip in readable_clips(clips, 2, 16000)] == ["1", "3"]
    assert [clip.id for clip in readable_clips(clips, 8, 16000)] == ["1", "3", "4"]
    assert "No example of 2" in caplog.text
    assert "hf-audiolang classify SOUND.wav --labels 'a sound'" in next_commands(tmp_path, [], [])[0]


def test_the_printed_commands_name_programs_that_the_shell_finds(tmp_path, monkeypatch):
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    (folder / "hf-audiolang").touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    commands = next_commands(Path("runs/x"), [Path("runs/x/examples/a.wav")], ["rain"])
    assert [shlex.split(command)[0] for command in commands] == [
        "my env/bin/hf-audiolang",
        "my env/bin/hf-audiolang",
        "my env/bin/hf-audiolang",
        "my env/bin/python",
    ]
    monkeypatch.setenv("PATH", str(folder))
    assert next_commands(Path("runs/x"), [], ["rain"])[0].startswith("hf-audiolang classify")
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(folder)
    assert shlex.split(next_commands(Path("runs/x"), [], ["rain"])[0])[0] == "./hf-audiolang"


def test_wrong_data_and_models_are_refused_before_training(tmp_path, tiny_config, sound_folder, monkeypatch):
    monkeypatch.setattr("hf_audiolang.training.run.train", lambda *a, **k: pytest.fail("training began"))
    with pytest.raises(ValueError, match="text"):
        run(tmp_path / "a", tiny_config, "--train_data", str(sound_folder), "--caption_column", "text")
    with pytest.raises(OSError, match=r"`model_config` '.*nowhere' has no preprocessor_config\.json"):
        run(tmp_path / "b", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="no_such_data"):
        run(tmp_path / "c", tiny_config, "--train_data", "no_such_data")
    with pytest.raises(OSError, match="`tokenizer` 'no/tokenizer'"):
        run(tmp_path / "d", tiny_config, "--tokenizer", "no/tokenizer")


def test_a_folder_with_a_run_is_not_overwritten_by_accident(tmp_path, tiny_config):
    run(tmp_path, tiny_config, "--max_steps", "1")
    with pytest.raises(FileExistsError, match=r"already holds a run.*--resume.*--overwrite"):
        run(tmp_path, tiny_config)
    changes = ("--resume", "--learning_rate", "2e-3", "--log_steps", "5")
    message = r"`resume` with other settings.*\(max_steps: 1 -> 2; learning_rate: 0.001 -> 0.002\).*--overwrite"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, tiny_config, "--max_steps", "2", *changes)
    old = [
        tmp_path / "run" / name for name in ("examples/old.wav", "figures/old.png", "model/old", "bad_examples.txt")
    ]
    for path in old:
        path.touch()
    run(tmp_path, tiny_config, "--max_steps", "1", "--resume", "--log_steps", "5")
    assert all(path.exists() for path in old)
    with pytest.raises(FileNotFoundError, match="no_such_data"):
        run(tmp_path, tiny_config, "--overwrite", "--train_data", "no_such_data")
    assert all(path.exists() for path in old)  # a slip on the command line costs nothing
    run(tmp_path, tiny_config, "--max_steps", "1", "--overwrite")
    assert [line["step"] for line in read_log(tmp_path / "run" / LOG_FILE)] == [1]
    assert not any(path.exists() for path in old)


def test_only_a_run_that_continues_a_checkpoint_keeps_the_processor_of_its_folder(tmp_path, tiny_config, monkeypatch):
    monkeypatch.setattr("hf_audiolang.training.run._finish", lambda run, *rest: run)
    path = tmp_path / "run" / "processor"
    run(tmp_path, tiny_config, "--max_steps", "1")
    measured = AutoProcessor.from_pretrained(path).feature_extractor.mean
    other = AutoProcessor.from_pretrained(path)
    other.feature_extractor.set_statistics(-1.25, 3.0)
    other.save_pretrained(path)
    run(tmp_path, tiny_config, "--max_steps", "1", "--resume")
    assert AutoProcessor.from_pretrained(path).feature_extractor.mean == -1.25
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # what a run leaves that died before its first checkpoint
    run(tmp_path, tiny_config, "--max_steps", "1", "--resume")
    assert AutoProcessor.from_pretrained(path).feature_extractor.mean == measured


def test_the_best_weights_are_exported_when_asked_for(tmp_path, tiny_config, monkeypatch):
    values = iter([0.9, 0.1])
    validate = lambda model: {"text_to_audio/R@10": next(values)}  # noqa: E731
    monkeypatch.setattr("hf_audiolang.training.run._validation", lambda *a: validate)
    result = run(tmp_path, tiny_config, "--eval_steps", "2", "--eval_size", "4", "--export", "best", "--tensorboard")
    assert result.progress.best_step == 2
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    exported = load_file(tmp_path / "run" / "model" / "model.safetensors")
    checkpoints = tmp_path / "run" / "checkpoints"
    best, last = (load_file(checkpoints / f"step_{step:08d}" / "model.safetensors") for step in (2, 4))
    assert all(torch.equal(exported[name], best[f"slap.{name}"]) for name in exported)
    assert not all(torch.equal(exported[name], last[f"slap.{name}"]) for name in exported)


def test_training_continues_from_an_exported_model(tmp_path, tiny_config):
    run(tmp_path, tiny_config, "--max_steps", "1")
    before = load_file(tmp_path / "run" / "model" / "model.safetensors")
    arguments = ["--model", str(tmp_path / "run" / "model"), "--output_dir", str(tmp_path / "next")]
    arguments += ["--max_steps", "1", "--train_size", "12", "--batch_size", "4", "--min_seconds", "1"]
    arguments += ["--max_seconds", "1.6", "--num_workers", "0", "--test_size", "10", "--composition_size", "4"]
    arguments += ["--zero_shot_size", "32", "--learning_rate", "1e-9", "--num_threads", "1"]
    pretrain(load_run_config(arguments))
    after = load_file(tmp_path / "next" / "model" / "model.safetensors")
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-7)
    first, second = (AutoProcessor.from_pretrained(tmp_path / name / "model") for name in ("run", "next"))
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    assert (first.feature_extractor.mean, first.feature_extractor.std) == (
        second.feature_extractor.mean,
        second.feature_extractor.std,
    )


def test_the_tiny_config_is_tiny_and_its_statistics_are_open(tiny_config):
    assert AutoConfig.from_pretrained(tiny_config).audio_config.hidden_size == 24
    assert AutoFeatureExtractor.from_pretrained(tiny_config).mean is None

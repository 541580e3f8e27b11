import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import tone, write_sound
from text_helpers import CAPTIONS, contents, plain_embedding, write_pooling, write_text_model
from tiny import tiny_m2d_clap_config

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.data.captions import split_held_out
from hf_audiolang.data.records import dataset_captions
from hf_audiolang.data.registry import build_dataset
from hf_audiolang.data.sound_scenes import SoundScenes
from hf_audiolang.data.text_embeddings import TextStore, TextStoreError
from hf_audiolang.training import load_run_config
from hf_audiolang.training.build import build_datasets
from hf_audiolang.training.run_captions import captions_of_run, text_model_of_run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "training_scripts" / "precompute_text.py"
SCENES = ["--train_data", "sound_scenes", "--min_seconds", "1.0", "--max_seconds", "1.5", "--max_steps", "3"]


@pytest.fixture
def script(monkeypatch):
    """The script as a module that adds no handlers for messages."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    module = importlib.import_module("precompute_text")
    monkeypatch.setattr(module, "show_progress_messages", lambda: None)
    return module


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with captions.txt, a text model and the sizes of a run's model, from which the script is called."""
    monkeypatch.chdir(tmp_path)
    Path("captions.txt").write_text("\n".join([*CAPTIONS, *CAPTIONS[2:4]]))
    write_pooling(write_text_model(tmp_path / "model"), {"pooling_mode": "lasttoken"})
    config = tiny_m2d_clap_config(text_config=None, text_embedding_size=16, text_embedding_model="model")
    config.save_pretrained("sizes")
    LogMelFeatureExtractor.from_preset("m2d_clap", mean=-7.0, std=4.0).save_pretrained("sizes")
    return tmp_path


def run_config(*arguments):
    return load_run_config([*SCENES, "--model_config", "sizes", *arguments])


def write_run(**keys):
    keys = {"model_config": "sizes", "max_steps": 3, "min_seconds": 1.0, "max_seconds": 1.5, "train_size": 5, **keys}
    Path("run.yaml").write_text("".join(f"{name}: {value}\n" for name, value in keys.items()))


def write_sounds(folder):
    """Twelve sounds with two captions each."""
    rows = ["file_name,caption_1,caption_2"]
    for number in range(12):
        write_sound(folder / f"{number}.wav", tone(0.2))
        rows.append(f'{number}.wav,sound {number},"sound {number}, again"')
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder


# which captions


def test_scenes_give_the_captions_that_training_draws_without_being_rendered(workplace, monkeypatch):
    config = run_config("--train_size", "7", "--eval_steps", "2", "--num_events", "1", "2")
    drawn = [text for texts in dataset_captions(build_datasets(config, 16000)[0]) for text in texts]
    monkeypatch.setattr(SoundScenes, "render", None)
    assert captions_of_run(config) == drawn
    assert len(drawn) == 35
    assert (
        captions_of_run(run_config("--train_size", "7", "--max_seconds", "4")) != drawn
    )  # control: the run's options matter


def test_own_data_give_the_captions_that_are_not_held_out(workplace):
    folder = str(write_sounds(workplace / "sounds"))
    whole = build_dataset(folder, "train")
    train, held_out = split_held_out(whole)
    assert 0 < len(held_out) < len(train)
    captions = captions_of_run(run_config("--train_data", folder))
    assert captions == [text for texts in dataset_captions(train) for text in texts]
    everything = [text for texts in dataset_captions(whole) for text in texts]
    assert captions_of_run(run_config("--train_data", folder, "--eval_data", "sound_scenes")) == everything
    one_column = captions_of_run(run_config("--train_data", folder, "--caption_column", "caption_2"))
    assert one_column == [text for text in captions if text.endswith("again")]


def test_the_text_model_is_the_one_that_the_runs_config_names(workplace):
    assert text_model_of_run(run_config()) == "model"
    assert text_model_of_run(run_config(), "model") == "model"
    with pytest.raises(ValueError, match=r"is to be 'other', but .* has `text_embedding_model` 'model'"):
        text_model_of_run(run_config(), "other")
    with pytest.raises(OSError, match="`model_config` 'nowhere' has no preprocessor_config"):
        text_model_of_run(load_run_config([*SCENES, "--model_config", "nowhere"]))


# the script


def test_a_text_file_becomes_a_store_that_the_script_says_how_to_use(workplace, script, capsys):
    assert script.main(["captions.txt", "--model", "model", "--dtype", "float32", "--prefix", "the "]) == 0
    store = TextStore.open("runs/text_embeddings/model")
    wanted = torch.stack([plain_embedding(workplace / "model", f"the {caption}", "last") for caption in CAPTIONS])
    torch.testing.assert_close(store.rows(CAPTIONS), wanted, atol=1e-5, rtol=1e-5)
    assert len(store) == len(CAPTIONS)
    output = capsys.readouterr().out
    assert "\n    text_embeddings: runs/text_embeddings/model\n" in output
    assert "text_embedding_size 16." in output


def test_a_run_names_its_captions_its_text_model_and_its_folder(workplace, script):
    write_run(text_embeddings="here")
    assert script.main(["run.yaml", "--train_size", "4", "--max_tokens", "9"]) == 0
    store = TextStore.open("here")
    store.check_fits(16, "model")
    assert (store.settings.pooling, store.settings.dtype, store.settings.max_tokens) == ("last", "float16", 9)
    captions = captions_of_run(load_run_config(["run.yaml", "--train_size", "4"]))
    assert sorted(store.captions()) == sorted(set(captions))
    assert script.main(["run.yaml", "--train_size", "6", "--max_tokens", "9"]) == 0
    TextStore.open("here").check_covers(captions_of_run(load_run_config(["run.yaml", "--train_size", "6"])))
    with pytest.raises(TextStoreError, match="lacks"):
        store.check_covers(captions_of_run(load_run_config(["run.yaml", "--train_size", "6"])))  # control


def test_embeddings_computed_elsewhere_are_taken_from_a_file(workplace, script):
    rows = {caption: np.full(3, number, np.float16) for number, caption in enumerate(CAPTIONS)}
    np.save("rows.npy", rows)
    assert (
        script.main(["captions.txt", "--model", "org/far_away", "--pooling", "mean", "--embeddings", "rows.npy"]) == 0
    )
    store = TextStore.open("runs/text_embeddings/far_away")
    assert store.settings.model == "org/far_away"
    assert store.settings.pooling == "mean"
    assert torch.equal(store.rows(CAPTIONS)[:, 0], torch.arange(float(len(CAPTIONS))))


def test_embeddings_from_a_file_need_no_pooling(workplace, script, capsys):
    np.save("rows.npy", {caption: np.full(3, number, np.float16) for number, caption in enumerate(CAPTIONS)})
    assert script.main(["captions.txt", "--model", "model", "--embeddings", "rows.npy", "--output_dir", "x"]) == 0
    assert TextStore.open("x").settings.pooling == "given"
    Path("captions.txt").write_text("a caption that the file lacks")
    assert script.main(["captions.txt", "--model", "model", "--output_dir", "x"]) == 2
    assert "`pooling` 'given' there and 'last' here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.txt"], "`nowhere.txt` does not exist. Give a text file with one caption per line."),
        (["nowhere.yaml"], "The run's configuration 'nowhere.yaml' does not exist."),
        (["run.yaml", "--train_siz", "4"], "Unknown key `--train_siz` on the command line. The nearest known one is"),
        (["run.yaml", "--model", "other"], "The text model is to be 'other', but the config of the run's model has"),
        (["captions.txt", "--model", "nowhere"], "`model` 'nowhere' cannot be loaded: "),
        (["captions.txt", "--model", "sizes"], "`model` 'sizes' has no modules.json"),
        (["captions.txt", "--model", "sizes", "--pooling", "cls"], "`model` 'sizes' cannot be loaded: "),
        (["captions.txt", "--model", "model", "--shard_size", "0"], "`shard_size` is 0."),
        (["captions.txt", "--model", "model", "--token_budget", "0"], "`token_budget` is 0."),
        (["captions.txt", "--model", "model", "--max_tokens", "0"], "`max_tokens` is 0."),
        (["captions.txt", "--embeddings", "nowhere.npy", "--pooling", "cls"], "'nowhere.npy' is no file."),
        (
            ["captions.txt", "--model", "model", "--max_tokens", "800"],
            "`max_tokens` is 800, but 'model' takes at most 32",
        ),
        (["captions.txt", "--embeddings", "captions.txt"], "'captions.txt' is no file of caption"),
        (["captions.txt", "--embeddings", "captions.txt", "--pooling", "cls"], "'captions.txt' is no file of caption"),
    ],
)
def test_wrong_input_ends_with_one_message(workplace, script, capsys, arguments, message):
    write_run(text_embeddings="here")
    assert script.main(arguments) == 2
    error = capsys.readouterr().err
    assert f"precompute_text.py: {message}" in error
    assert "Traceback" not in error
    assert not Path("here").exists()


def test_other_settings_for_the_same_folder_are_refused(workplace, script, capsys):
    assert script.main(["captions.txt", "--model", "model", "--output_dir", "x"]) == 0
    assert script.main(["captions.txt", "--model", "model", "--output_dir", "x", "--pooling", "cls"]) == 2
    assert "`pooling` 'last' there and 'cls' here. Give the same settings, or another" in capsys.readouterr().err


def test_keys_of_a_run_need_a_run(workplace, script, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main(["captions.txt", "--modle", "model"])
    assert ended.value.code == 2
    assert "unknown '--modle': only the keys of a run" in capsys.readouterr().err


def test_an_error_of_ours_is_not_hidden(workplace, script, monkeypatch):
    monkeypatch.setattr(script, "read_captions", lambda path: int("a bug"))
    with pytest.raises(ValueError, match="invalid literal"):
        script.main(["captions.txt", "--model", "model"])


# processes that are killed, and several at once


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def execute(launcher, *arguments, code=None):
    """Runs the script, or `code` with the same arguments, in processes of their own."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, *(["-c", code] if code else [str(SCRIPT)]), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


ARGUMENTS = ("captions.txt", "--model", "model", "--shard_size", "2")
# Runs the script and kills it in place of writing the third shard.
KILLED = f"""
import os, runpy, signal, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
from hf_audiolang.data import text_embeddings
write = text_embeddings.write_shard
def write_or_die(path, *others):
    if path.name == "shard-00002.safetensors":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, *others)
text_embeddings.write_shard = write_or_die
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""


@pytest.fixture
def whole(workplace, script):
    """The files that one process writes without being interrupted."""
    assert script.main([*ARGUMENTS, "--output_dir", "one"]) == 0
    assert sum(path.name.startswith("shard") for path in Path("one").iterdir()) == 4
    return contents(Path("one"))


@pytest.mark.multiprocess
def test_two_processes_write_the_bytes_of_one(whole):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    done = execute(launcher, *ARGUMENTS, "--output_dir", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("text_embeddings: two") == 1  # the first process alone speaks
    assert "per second on 2 process(es)" in done.stderr
    assert "Shard 2 of 2 of this process" in done.stderr  # four shards for two processes
    assert contents(Path("two")) == whole


@pytest.mark.multiprocess
def test_a_killed_process_is_continued_to_the_same_bytes(whole, script, capsys):
    done = execute([], *ARGUMENTS, "--output_dir", "killed", code=KILLED)
    assert done.returncode == -signal.SIGKILL
    assert sorted(contents(Path("killed"))) == ["shard-00000.safetensors", "shard-00001.safetensors"]
    assert script.main([*ARGUMENTS, "--output_dir", "killed"]) == 0
    assert contents(Path("killed")) == whole
    assert json.loads(whole["index.json"])["num_captions"] == 7


def test_a_signal_ends_the_script_with_its_number(script, capsys):
    with pytest.raises(SystemExit) as ended:
        script.leave(signal.SIGTERM, None)
    assert ended.value.code == 143
    assert capsys.readouterr().err.startswith("precompute_text.py: stopped. The same command continues")

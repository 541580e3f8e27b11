import os
import subprocess
import sys

import pytest
import torch
from m2d_toy_run import STEPS, save_config, save_store, save_text_model, text_keys, train_frozen
from test_loop import free_port

from hf_audiolang.training import load_run_config
from hf_audiolang.training.checkpoint import find_last_checkpoint
from hf_audiolang.training.log import LOG_FILE, read_log

FROZEN = ["--freeze", "audio_model.*", "text_model.*"]


def in_two_processes(*command: str) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([*launcher, *command], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.multiprocess
def test_two_processes_with_frozen_and_unused_towers_equal_one_on_the_joined_batch(tmp_path):
    base = ["--model_config", "x", *STEPS, *FROZEN]
    single = train_frozen(load_run_config([*base, "--output_dir", str(tmp_path / "single"), "--batch_size", "8"]))
    script = str(os.path.join(os.path.dirname(__file__), "m2d_toy_run.py"))
    done = in_two_processes(script, str(tmp_path / "pair"), *FROZEN, "--batch_size", "4")
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / "pair" / "state.pt")
    fresh = train_frozen(load_run_config([*base, "--output_dir", str(tmp_path / "none"), "--learning_rate", "1e-9"]))
    for name, value in single.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, msg=name)
        is_frozen = name.startswith(("m2d_clap.audio_model.", "m2d_clap.text_model."))
        assert torch.equal(value, fresh.state_dict()[name]) == is_frozen or "logit_scale" in name, name


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("kind", ["both_losses", "m2d_alone"])
def test_whole_runs_in_two_processes_neither_hang_nor_disagree(tmp_path, kind):
    """Parameters without a gradient: a text tower that reads nothing, or a projection without a contrastive loss."""
    if kind == "both_losses":
        text_model, text_config = save_text_model(tmp_path / "bert")
        store = save_store(tmp_path / "store", text_model)
        folder = save_config(tmp_path / "config", text_config=text_config, text_pooling="mean")
        keys = ["--text_embeddings", str(store.folder), "--freeze", "text_model.*", *text_keys(text_model)]
    else:
        folder, keys = save_config(tmp_path / "config", text_config=None, contrastive_weight=0.0), []
    arguments = [*STEPS, "--model_config", folder, "--output_dir", str(tmp_path / "run"), *keys, "--batch_size", "4"]
    arguments += ["--train_size", "12", "--min_seconds", "1", "--max_seconds", "1.6", "--num_workers", "0"]
    arguments += ["--test_size", "10", "--composition_size", "4", "--zero_shot_size", "32"]
    done = in_two_processes("training_scripts/pretrain.py", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["step"] for line in read_log(tmp_path / "run" / LOG_FILE)] == [1, 2, 3, 4]
    assert find_last_checkpoint(tmp_path / "run" / "checkpoints").name == "step_00000004"
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()

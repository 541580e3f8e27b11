import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_loop import free_port
from torch.utils.data import DataLoader

from hf_audiolang.data import BadExampleError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "training_scripts/pretrain.py"
CONFIG = "configs/pretrain/slap_scenes.yaml"


def execute(launcher: list[str], *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher, SCRIPT, CONFIG, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        command, cwd=ROOT, env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=500
    )


def test_a_wrong_key_ends_with_one_line_and_no_traceback():
    done = execute([], "--learning_rat", "1")
    assert done.returncode == 2
    assert done.stderr == (
        "pretrain.py: Unknown key `--learning_rat` on the command line. The nearest known one is `--learning_rate`.\n"
    )


class WorkersError:
    """A data set whose only item is an error of the data, as training sees them."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise BadExampleError("`a.wav` is empty.\nRemove it.")


@pytest.mark.multiprocess
def test_an_error_in_a_data_worker_ends_with_its_message_alone(capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "training_scripts"))
    script = importlib.import_module("pretrain")
    loader = DataLoader(WorkersError(), batch_size=None, num_workers=1, multiprocessing_context="fork")
    monkeypatch.setattr(script, "load_run_config", list)
    monkeypatch.setattr(script, "pretrain", lambda config: next(iter(loader)))
    assert script.main([]) == 2
    assert capsys.readouterr().err == "pretrain.py: `a.wav` is empty.\nRemove it.\n"
    monkeypatch.setattr(script, "pretrain", lambda config: int("a bug"))
    with pytest.raises(ValueError, match="invalid literal"):  # control: not meant for the user
        script.main([])


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("processes", [1, 2])
def test_the_readme_command_trains_prints_the_table_and_uses_all_cores(tmp_path, processes):
    launcher = ["-m", "accelerate.commands.launch"]
    if processes == 2:
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    done = execute(launcher, "--smoke", "--output_dir", str(tmp_path / "x"))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "x_smoke"
    facts = json.loads((folder / "environment.json").read_text())
    assert facts["num_processes"] == processes
    if processes == 1:
        assert facts["num_threads"] == len(os.sched_getaffinity(0))
    assert done.stdout.count("| zero-shot accuracy |") == 1  # the first process alone speaks
    commands = re.findall(r"^    (?:\S*/)?(hf-audiolang|python) (\S+)", done.stdout, flags=re.MULTILINE)
    assert commands == [
        ("hf-audiolang", "classify"),
        ("hf-audiolang", "search"),
        ("python", "training_scripts/evaluate.py"),
    ]
    assert json.loads((folder / "metrics.json").read_text())["frame/mAP"] > 0

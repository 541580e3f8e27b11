# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The README's lines on fine-tuning and sharing, run word for word: from a folder of sounds to the Hub and back."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from finetune_run import save_model, save_sounds
from loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.multiprocess


def blocks_of(heading: str) -> list[tuple[str, str]]:
    """(language, text) of each code block of a section of the README."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```(bash|python)\n(.*?)```", section, flags=re.DOTALL)


@pytest.fixture
def place(tmp_path):
    """A working folder as a user has it: a trained model, sounds in class sub-folders, a recording."""
    save_model(tmp_path / "runs" / "slap_scenes" / "model")
    sounds = save_sounds(tmp_path / "my_sounds", num_clips=20)
    samples, rate = soundfile.read(sounds / "high tone" / "0.wav")
    soundfile.write(tmp_path / "my.wav", samples, rate)
    for name in ("training_scripts", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_the_lines_run_as_they_stand(place):
    with LoopbackHub({"secret": "me"}) as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(place / "home"), "HF_TOKEN": "secret"}
        environment |= {"HF_HUB_DISABLE_XET": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        outputs = []
        for language, text in [*blocks_of("Fine-tune"), *blocks_of("Share")]:
            if "BitsAndBytes" in text:  # for a GPU
                continue
            command = ["bash", "-euc", text]
            if language == "python":
                lines = text.splitlines()
                text = "\n".join([*lines[:-1], f"print({lines[-1].split('  # ')[0]})"])
                command = [sys.executable, "-c", text]
            done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, (text, done.stderr[-3000:])
            outputs.append((language, done.stdout))
        files = hub.repos["me/my-classifier"].branches["main"]
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"} <= set(files)
    trained, *_ = [out for language, out in outputs if language == "bash"]
    assert trained.count("| accuracy |") == 2  # of the run, and measured again
    first, last = [out for language, out in outputs if language == "python"]
    assert first == last  # the model that came back says the same
    assert "'label': 'high tone'" in first.split("}")[0]
    assert f"pushed: {hub.endpoint}/me/my-classifier" in outputs[-2][1] + outputs[-3][1]

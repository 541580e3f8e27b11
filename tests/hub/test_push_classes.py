# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Public classes are pushed to a Hub on the loopback interface and come back to the bit, with and without the package.

The default run takes one of each kind, the slow one all of them.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from loopback_hub import LoopbackHub
from test_remote_code import CASES, REFUSE, captioner_inputs, make_inputs
from tiny import tiny_processor

pytestmark = pytest.mark.multiprocess
PUSH = """
import json, sys
from pathlib import Path
from hf_audiolang.hub import PushOptions, push

root = Path(sys.argv[1])
for name in json.loads(sys.argv[2]):
    push(root / name, f"me/{name}", PushOptions(with_code=True, private=True))
"""
LOAD = """
import json, sys
from pathlib import Path
import torch
import transformers

root, target = Path(sys.argv[1]), sys.argv[3]
for name, auto_class in json.loads(sys.argv[2]).items():
    model = getattr(transformers, auto_class).from_pretrained(f"me/{name}", trust_remote_code=TRUST).eval()
    if name != "AudioProjector":
        extractor = transformers.AutoFeatureExtractor.from_pretrained(f"me/{name}", trust_remote_code=TRUST)
        assert extractor.sampling_rate == 16000
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # memory that is aligned alike: products round by it
    torch.manual_seed(7)
    with torch.no_grad():
        outputs = model(**torch.load(root / name / "inputs.pt", weights_only=True))
    tensors = {key: value for key, value in outputs.items() if isinstance(value, torch.Tensor)}
    torch.save(tensors, root / name / target)
"""
ALL = {name: auto_class for name, (_, auto_class, _) in CASES.items()}
FEW = (
    "AudioProjector",
    "MgaClapModel",
    "SlapForAudioClassification",
    "CaptionStewForConditionalGeneration",
    "ZipformerModel",
)


def execute(script: str, hub: LoopbackHub, home, *arguments: str, isolated: bool = False) -> None:
    environment = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": "secret",
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PATH": os.environ["PATH"],
        "HOME": str(home),
    }
    path = home / "script.py"
    home.mkdir(exist_ok=True)
    path.write_text(script)
    command = [sys.executable, *(["-I"] if isolated else []), str(path), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def push_and_load(root, names: dict[str, str]) -> None:
    """Writes folders with models and inputs, pushes them, and has two other processes run what comes back."""
    for name in names:
        model_class, _, config = CASES[name]
        torch.manual_seed(2)
        model_class(config).save_pretrained(root / name)
        if name != "AudioProjector":
            tiny_processor().save_pretrained(root / name)
        is_captioner = name.endswith("ForConditionalGeneration")
        torch.save((captioner_inputs if is_captioner else make_inputs)(config), root / name / "inputs.pt")
    with LoopbackHub({"secret": "me"}) as hub:
        execute(PUSH, hub, root / "pusher", str(root), json.dumps(list(names)))
        with_package = "import hf_audiolang\n" + LOAD.replace("TRUST", "False")
        execute(with_package, hub, root / "user", str(root), json.dumps(names), "with_package.pt")
        without = REFUSE + LOAD.replace("TRUST", "True")
        execute(without, hub, root / "stranger", str(root), json.dumps(names), "without.pt", isolated=True)
        assert all(repo.private and repo.num_commits == 1 for repo in hub.repos.values())
        assert len(hub.repos) == len(names)


def assert_equal_outputs(root, name: str) -> None:
    model = CASES[name][0].from_pretrained(root / name).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    torch.manual_seed(7)
    with torch.no_grad():
        outputs = model(**torch.load(root / name / "inputs.pt", weights_only=True))
    expected = {key: value for key, value in outputs.items() if isinstance(value, torch.Tensor)}
    assert expected
    for target in ("with_package.pt", "without.pt"):
        found = torch.load(root / name / target, weights_only=True)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), (name, target, key)


def test_one_of_each_kind_comes_back_to_the_bit(tmp_path):
    push_and_load(tmp_path, {name: ALL[name] for name in FEW})
    for name in FEW:
        assert_equal_outputs(tmp_path, name)


@pytest.mark.slow
def test_every_public_class_comes_back_to_the_bit(tmp_path):
    push_and_load(tmp_path, ALL)
    for name in ALL:
        assert_equal_outputs(tmp_path, name)

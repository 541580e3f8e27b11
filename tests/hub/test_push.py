# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""`hf-audiolang push` to a Hub on the loopback interface: one commit, what it replaces, and failures that say so.

All pushes are made by one process, which reads the address when it starts; another one loads what has arrived.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub, Repo
from tiny import tiny_batch, tiny_processor, tiny_slap_config

from hf_audiolang import LogMelFeatureExtractor, SlapForAudioClassification, SlapForConditionalGeneration, SlapModel
from hf_audiolang.training.adapters import add_adapter, lora_config, save_adapter

pytestmark = pytest.mark.multiprocess
PUSH = """
import contextlib, io, json, os, sys
from huggingface_hub import constants
from hf_audiolang.cli import main

done = {}
for name, (words, token, endpoint) in json.loads(sys.argv[1]).items():
    os.environ["HF_TOKEN"], constants.ENDPOINT = token, endpoint
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        code = main(["push", *words])
    done[name] = (code, output.getvalue(), error.getvalue())
print(json.dumps(done))
"""
LOAD = """
import sys
import torch, transformers
import hf_audiolang

inputs, target = torch.load(sys.argv[1], weights_only=True), sys.argv[2]
audio = {key: value for key, value in inputs.items() if "features" in key}
with torch.no_grad():
    head = transformers.AutoModelForAudioClassification.from_pretrained("me/adapter").eval()
    assert transformers.AutoFeatureExtractor.from_pretrained("me/adapter").sampling_rate == 16000
    captioner = transformers.AutoModelForSpeechSeq2Seq.from_pretrained("me/captioner").eval()
    found = {
        "adapter": head(**audio).logits,
        "again": transformers.AutoModel.from_pretrained("me/again").eval()(**inputs).logits_per_audio,
        "branch": transformers.AutoModel.from_pretrained("me/tiny", revision="v1").eval()(**inputs).logits_per_audio,
        "captioner": captioner.generate(**audio, num_beams=2, max_new_tokens=5),
    }
torch.save(found, target)
"""
CARD = """---
license: apache-2.0
library_name: transformers
model-index:
- name: tiny
  results:
  - task:
      type: audio-classification
    dataset:
      name: my_sounds
      type: my_sounds
    metrics:
    - type: accuracy
      value: 0.5
---

# tiny

classify = pipeline("zero-shot-audio-classification", model="runs/tiny/model")
"""
NOWHERE = "http://127.0.0.1:9"


@dataclass
class Pushed:
    """Exit code, output and errors of each push, and what the Hub has after all of them."""

    done: dict[str, tuple[int, str, str]]
    repos: dict[str, Repo]
    requests: list[str]
    endpoint: str
    loaded: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with a SLAP, a captioner and an adapter, and beside them what must stay at home."""
    run = tmp_path_factory.mktemp("place") / "runs" / "tiny"
    torch.manual_seed(0)
    SlapModel(tiny_slap_config()).save_pretrained(run / "model")
    tiny_processor().save_pretrained(run / "model")
    config = run / "model" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"_name_or_path": str(run), "text_embedding_model": str(run)}))
    (run / "model" / "README.md").write_text(CARD)
    (run / "model" / "optimizer.bin").write_bytes(b"secret")
    (run / "run.yaml").write_text(f"train_data: {run}\n")
    SlapForConditionalGeneration(tiny_slap_config()).save_pretrained(run / "captioner")
    tiny_processor().save_pretrained(run / "captioner")
    save_adapter(adapted(run), run / "adapter", str(run / "model"))
    LogMelFeatureExtractor.from_preset("slap", mean=-7.0, std=4.0).save_pretrained(run / "adapter")
    return run


def adapted(run):
    """A head with adapters whose matrices are not zero."""
    torch.manual_seed(3)
    model = SlapForAudioClassification.from_pretrained(run / "model", num_labels=3)
    add_adapter(model, lora_config(model, rank=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model.eval()


def pushes(run) -> dict[str, tuple[list[str], str]]:
    """name -> (words after `push`, token)"""
    return {
        "branch": (["me/tiny", "--private", "--revision", "v1", "--max-shard-size", "50KB"], "secret"),
        "no token": (["me/none"], ""),
        "wrong token": (["me/none"], "wrong"),
        "not yours": (["you/tiny"], "secret"),
        "broken": (["me/broken"], "secret"),
        "cut": (["me/cut"], "secret"),
        "stuck": (["me/stuck"], "secret"),
        "lossy": (["me/lossy"], "secret"),
        "stale": (["me/stale"], "secret"),
        "nowhere": (["me/nowhere"], "secret"),
        "dry": (["me/dry", "--dry-run"], "secret"),
        "again": (["me/again", "--max-shard-size", "50KB"], "secret"),
        "not private": (["me/again", "--private", "--revision", "v9"], "secret"),
        "captioner": (["me/captioner", "--part", "captioner"], "secret"),
        "no base": (["me/adapter", "--part", "adapter", "--base-model", "me/absent"], "secret"),
        "adapter": (["me/adapter", "--part", "adapter", "--base-model", "me/again"], "secret"),
    }


@pytest.fixture(scope="module")
def pushed(run_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "secret"}

    def execute(script: str, *words: str) -> str:
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    failures = {"POST .*/me/broken/commit/": 500, "POST .*/me/cut/commit/": 0, "PUT /blobs/me/stuck/": 403}
    with LoopbackHub({"secret": "me"}, fails_on=failures, loses="^me/lossy/config.json") as hub:
        old = {
            "model.safetensors": b"old",
            "layers_mlp.py": b"old",
            "figure.png": b"kept",
            "talk/config.json": b"kept",
        }
        hub.repos["me/again"] = Repo(private=False, branches={"main": old})
        size = (run_folder / "model" / "model.safetensors").stat().st_size
        hub.repos["me/stale"] = Repo(private=False, branches={"main": {"model.safetensors": bytes(size)}})
        hub.ignores = "^me/stale/model.safetensors"
        environment["HF_ENDPOINT"] = hub.endpoint
        calls = {
            name: ([str(run_folder), *words], token, NOWHERE if name == "nowhere" else hub.endpoint)
            for name, (words, token) in pushes(run_folder).items()
        }
        done = json.loads(execute(PUSH, json.dumps(calls)))
        torch.save(inputs(), home / "inputs.pt")
        execute(LOAD, str(home / "inputs.pt"), str(home / "found.pt"))
        loaded = torch.load(home / "found.pt", weights_only=True)
        return Pushed(done, hub.repos, hub.requests, hub.endpoint, loaded)


def inputs() -> dict[str, torch.Tensor]:
    return {name: value for name, value in tiny_batch(tiny_slap_config(), seed=1).items() if name != "labels"}


def test_a_push_is_one_commit_of_cleaned_files_with_flags_and_shards(pushed, run_folder):
    assert pushed.done["branch"] == [0, f"pushed: {pushed.endpoint}/me/tiny/tree/v1\n", ""]
    repo = pushed.repos["me/tiny"]
    assert (repo.private, repo.num_commits) == (True, 1)
    assert repo.branches["main"] == {}
    files = repo.branches["v1"]
    shards = set(json.loads(files["model.safetensors.index.json"])["weight_map"].values())
    assert len(shards) > 1
    assert shards <= set(files)
    assert "model.safetensors" not in files
    assert {"README.md", "config.json", "processor_config.json", "tokenizer.json"} <= set(files)
    assert not {"optimizer.bin", "run.yaml"} & set(files)
    for name, data in files.items():
        assert str(run_folder.parent).encode() not in data, name  # where it lay on this machine
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results[0].metric_value == 0.5
    assert 'model="me/tiny"' in card.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no token", "There is no token to push to `me/none` with"),
        ("wrong token", "does not accept the token for `me/none` (401)"),
        ("not yours", "`you/tiny` is not yours to write (403)"),
        ("broken", "The Hub refused the push to `me/broken`"),
        ("cut", "The Hub cannot be reached to push `me/cut`, or the connection broke"),
        ("stuck", "The upload to `me/stuck` failed"),
        ("lossy", "`me/lossy` lacks 1 of 6 files"),
        ("stale", "other contents in them, for instance 'model.safetensors'"),  # of the same size
        ("nowhere", "The Hub cannot be reached to push `me/nowhere`"),
        ("not private", "`me/again` exists already and is public"),
        ("no base", "`me/absent`, which is not on the Hub"),
    ],
)
def test_a_push_that_did_not_arrive_is_never_called_done(pushed, name, message):
    code, output, error = pushed.done[name]
    assert (code, output) == (2, "")
    assert message in error
    repo_id = pushes(None)[name][0][0]
    untouched = [repo.num_commits == 0 for owner, repo in pushed.repos.items() if owner == repo_id]
    assert all(untouched) or name in (
        "lossy",
        "stale",
        "not private",
        "no base",
    )


def test_a_new_push_replaces_an_old_one_and_leaves_other_files(pushed):
    repo = pushed.repos["me/again"]
    files = repo.branches["main"]
    assert repo.num_commits == 1
    assert set(repo.branches) == {"main"}  # the refused private push has made none
    assert not {"model.safetensors", "layers_mlp.py"} & set(files)  # it would be loaded in place of the new weights
    assert (files["figure.png"], files["talk/config.json"]) == (b"kept", b"kept")


def test_a_dry_run_lists_what_would_be_sent_and_touches_no_network(pushed, run_folder):
    code, output, _ = pushed.done["dry"]
    assert code == 0
    size = (run_folder / "model" / "model.safetensors").stat().st_size
    assert f"{size / 1e6:.3f} MB  model.safetensors" in output
    assert "6 files" in output
    assert "optimizer.bin" not in output
    assert not [request for request in pushed.requests if "dry" in request]
    assert "me/dry" not in pushed.repos


def test_what_has_arrived_is_what_was_sent(pushed, run_folder):
    model = SlapModel.from_pretrained(run_folder / "model").eval()
    captioner = SlapForConditionalGeneration.from_pretrained(run_folder / "captioner").eval()
    audio = {name: value for name, value in inputs().items() if "features" in name}
    with torch.no_grad():
        logits, adapted_logits = model(**inputs()).logits_per_audio, adapted(run_folder)(**audio).logits
        captions = captioner.generate(**audio, num_beams=2, max_new_tokens=5)
        plain = SlapForAudioClassification.from_pretrained(run_folder / "model", num_labels=3).eval()(**audio).logits
    for name, expected in (("branch", logits), ("again", logits), ("adapter", adapted_logits)):
        torch.testing.assert_close(pushed.loaded[name], expected, rtol=1e-5, atol=1e-5)  # aligned otherwise
    assert torch.equal(pushed.loaded["captioner"], captions)
    assert (plain - adapted_logits).abs().max() > 1e-2  # control: the adapter does something


def test_an_adapter_is_sent_with_the_name_of_its_base_and_nothing_of_it(pushed):
    files = pushed.repos["me/adapter"].branches["main"]
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors", "preprocessor_config.json"}
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/again"
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.library_name) == ("me/again", "peft")
    assert 'AutoModelForAudioClassification.from_pretrained("me/adapter")' in card.text

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sharing: what is sent in one commit to a Hub on the loopback interface, what is refused, what must not leave."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub
from peft import LoraConfig
from tiny import tiny_processor, tiny_slap_config

from hf_audiolang import LogMelFeatureExtractor, SlapForAudioClassification, SlapModel
from hf_audiolang.hub import PushOptions, plan_push
from hf_audiolang.training.adapters import add_adapter, lora_config, save_adapter

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

classify = pipeline("audio-classification", model="{name}")
hf-audiolang classify sound.wav --labels "a, b" --model {name}
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run with a whole SLAP, and beside it what must stay at home."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    torch.manual_seed(0)
    SlapModel(tiny_slap_config()).save_pretrained(run / "model")
    tiny_processor().save_pretrained(run / "model")
    config = run / "model" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"_name_or_path": str(run), "text_embedding_model": str(run)}))
    (run / "model" / "README.md").write_text(CARD.format(name=(run / "model").as_posix()))
    (run / "model" / "optimizer.bin").write_bytes(b"secret")
    (run / "run.yaml").write_text(f"train_data: {run}\n")
    return run


@pytest.fixture(scope="module")
def adapter_folder(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    model = SlapForAudioClassification.from_pretrained(run_folder / "model", num_labels=3)
    save_adapter(add_adapter(model, lora_config(model, rank=2)), folder, str(run_folder / "model"))
    LogMelFeatureExtractor.from_preset("slap", mean=-7.0, std=4.0).save_pretrained(folder)
    return folder


def push(hub: LoopbackHub | str, home: Path, *arguments: str, token: str | None = "secret"):
    """`hf-audiolang push` in a process of its own, which reads the endpoint when it starts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": getattr(hub, "endpoint", hub), "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    if token is not None:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-m", "hf_audiolang.cli", "push", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_dry_run_lists_what_would_be_sent_and_touches_no_network(run_folder):
    plan = plan_push(run_folder, "me/tiny")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(plan.files)
    assert not {"optimizer.bin", "run.yaml"} & set(plan.files)
    assert plan.files["model.safetensors"] == (run_folder / "model" / "model.safetensors").stat().st_size
    assert "me/tiny" in plan.summary()
    assert "model.safetensors" in plan.summary()


@pytest.mark.multiprocess
def test_a_push_is_one_commit_of_cleaned_files_with_flags_and_shards(run_folder, tmp_path):
    with LoopbackHub({"secret": "me"}) as hub:
        done = push(
            hub, tmp_path, str(run_folder), "me/tiny", "--private", "--revision", "v1", "--max-shard-size", "50KB"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"pushed: {hub.endpoint}/me/tiny/tree/v1\n"
        repo = hub.repos["me/tiny"]
    assert (repo.private, repo.num_commits) == (True, 1)
    assert repo.branches["main"] == {}
    files = repo.branches["v1"]
    index = json.loads(files["model.safetensors.index.json"])
    shards = set(index["weight_map"].values())
    assert len(shards) > 1
    assert shards <= set(files)
    assert "model.safetensors" not in files
    assert not {"optimizer.bin", "run.yaml"} & set(files)
    for name, data in files.items():
        assert str(run_folder).encode() not in data, name  # where it lay on this machine
    card = ModelCard(files["README.md"].decode())
    assert card.data.eval_results[0].metric_value == 0.5
    assert 'model="me/tiny"' in card.text
    assert "--model me/tiny" in card.text


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("server", "token", "repo_id", "message"),
    [
        ({}, None, "me/tiny", "There is no token to push to `me/tiny` with"),
        ({}, "wrong", "me/tiny", "does not accept the token"),
        ({}, "secret", "you/tiny", "`you/tiny` is not yours to write (403)"),
        ({"fails_on": "POST .*/commit/"}, "secret", "me/tiny", "The Hub refused the push to `me/tiny`"),
        ({"loses": "^config.json"}, "secret", "me/tiny", "`me/tiny` lacks 1 of 6 files"),
    ],
)
def test_a_push_that_did_not_arrive_is_never_called_done(run_folder, tmp_path, server, token, repo_id, message):
    with LoopbackHub({"secret": "me"}, **server) as hub:
        done = push(hub, tmp_path, str(run_folder), repo_id, token=token)
        assert all(repo.num_commits == 0 for repo in hub.repos.values()) or "loses" in server
    assert done.returncode == 2
    assert "pushed" not in done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.multiprocess
def test_without_a_network_the_message_says_so(run_folder, tmp_path):
    done = push("http://127.0.0.1:9", tmp_path, str(run_folder), "me/tiny")
    assert done.returncode == 2
    assert "The Hub cannot be reached to push `me/tiny`" in done.stderr


def test_an_adapter_names_a_base_that_others_have(adapter_folder):
    with pytest.raises(ValueError, match=r"trained on the folder .* which nobody else has"):
        plan_push(adapter_folder, "me/adapter")
    plan = plan_push(adapter_folder, "me/adapter", PushOptions(base_model="me/tiny"))
    assert {"adapter_config.json", "adapter_model.safetensors", "preprocessor_config.json"} <= set(plan.files)
    assert not {"config.json", "model.safetensors"} & set(plan.files)
    with pytest.raises(ValueError, match="is an adapter, which has no code"):
        plan_push(adapter_folder, "me/adapter", PushOptions(base_model="me/tiny", with_code=True))
    assert isinstance(LoraConfig.from_pretrained(adapter_folder), LoraConfig)


@pytest.mark.parametrize("repo_id", ["tiny", "me/", "me/a b", "a/b/c", "me/..", ""])
def test_names_that_are_none_are_refused(run_folder, repo_id):
    with pytest.raises(ValueError, match="`repo_id` must be owner/name"):
        plan_push(run_folder, repo_id)


def test_folders_without_weights_and_wrong_options_are_refused(run_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder of a model"):
        plan_push(tmp_path, "me/tiny")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"has no weights \(\*.safetensors\)"):
        plan_push(tmp_path, "me/tiny")
    with pytest.raises(FileNotFoundError, match="has no captioner/"):
        plan_push(run_folder, "me/tiny", PushOptions(part="captioner"))
    with pytest.raises(ValueError, match="Unknown `part`"):
        plan_push(run_folder, "me/tiny", PushOptions(part="decoder"))
    with pytest.raises(ValueError, match="is no adapter"):
        plan_push(run_folder, "me/tiny", PushOptions(base_model="me/base"))


def test_weights_that_may_not_be_passed_on_stay_here(tmp_path):
    SlapModel(tiny_slap_config()).save_pretrained(tmp_path)
    head = "license: other\nlicense_name: ntt-software-evaluation-license-agreement"
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n")
    with pytest.raises(ValueError, match="may not be passed on"):
        plan_push(tmp_path, "me/tiny")


def test_a_folder_without_card_gets_a_short_one(tmp_path):
    SlapModel(tiny_slap_config()).save_pretrained(tmp_path / "model")
    assert "README.md" in plan_push(tmp_path / "model", "me/tiny").files

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""training_scripts/finetune.py: every recipe in miniature, tasks that go on with pre-training, messages."""

import importlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from finetune_run import save_model, save_sounds
from tiny import tiny_processor, tiny_slap_config
from transformers import AutoModel

from hf_audiolang import SlapModel
from hf_audiolang.training.finetune_config import CONTINUED_TASKS, load_finetune_config, task_of

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs" / "finetune").glob("*.yaml"))
HEAD_RECIPES = [path for path in RECIPES if task_of([str(path)]) not in CONTINUED_TASKS]
BASES = {"m2d": "m2d_clap", "slap": "slap", "mga": "mga_clap", "captionstew": "zipformer"}


@pytest.fixture(scope="module")
def script():
    import sys

    sys.path.insert(0, str(ROOT / "training_scripts"))
    return importlib.import_module("finetune")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {name: save_model(root / name, name) for name in BASES.values()}


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """A whole SLAP with its tokenizer, as a run exports it."""
    folder = tmp_path_factory.mktemp("system")
    torch.manual_seed(0)
    SlapModel(tiny_slap_config()).save_pretrained(folder)
    processor = tiny_processor()
    processor.save_pretrained(folder)
    return folder


def test_there_is_a_recipe_of_every_system_and_kind():
    assert {path.stem.split("_")[0] for path in RECIPES} == set(BASES)
    assert {task_of([str(path)]) for path in RECIPES} >= {"classification", "tagging", "retrieval"}


@pytest.mark.parametrize("path", HEAD_RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_a_head_runs_in_miniature(script, bases, tmp_path, path, capsys):
    base = bases[BASES[path.stem.split("_")[0]]]
    options = ["--smoke", "--model", str(base), "--output_dir", str(tmp_path / "run"), "--num_threads", "1"]
    options += ["--precision", "fp32"]
    assert script.main([str(path), *options]) == 0, capsys.readouterr().err
    written = json.loads((tmp_path / "run_smoke" / "metrics.json").read_text())
    assert written["records"][0]["num_clips"] > 0
    settings = yaml.safe_load(path.read_text())
    resolved = yaml.safe_load((tmp_path / "run_smoke" / "run.yaml").read_text())
    kept = ("task", "optimizer", "learning_rate", "mixup_alpha", "structured_patchout", "layer_decay", "freeze")
    assert {key: resolved[key] for key in kept if key in settings} == {k: settings[k] for k in kept if k in settings}


@pytest.mark.parametrize("path", HEAD_RECIPES, ids=lambda path: path.stem)
def test_the_plans_that_recipes_name_exist_and_agree_with_them(path):
    settings = yaml.safe_load(path.read_text())
    if settings["data"] == "sound_scenes":
        return
    plan = yaml.safe_load((ROOT / settings["data"]).read_text())
    assert plan.get("task", "classification") == settings["task"]
    if "unit_seconds" in plan and not path.stem.startswith("captionstew"):
        assert plan["unit_seconds"] == settings["max_seconds"]


@pytest.mark.parametrize("task", CONTINUED_TASKS)
def test_all_losses_go_on(script, system, tmp_path, task, capsys):
    recipe = str(ROOT / "configs" / "finetune" / "slap_audiocaps.yaml")
    options = ["--task", task, "--smoke", "--model", str(system), "--output_dir", str(tmp_path / "run")]
    assert script.main([recipe, *options, "--num_threads", "1", "--precision", "fp32"]) == 0, capsys.readouterr().err
    lines = (tmp_path / "run_smoke" / "train_log.jsonl").read_text().splitlines()
    assert {"contrastive", "masked", "caption"} <= set(json.loads(lines[0]))
    trained = AutoModel.from_pretrained(tmp_path / "run_smoke" / "model").state_dict()
    before = AutoModel.from_pretrained(system).state_dict()
    moved = [(trained[name] - before[name]).abs().max() for name in before if before[name].is_floating_point()]
    assert 0 < max(moved) < 1e-3  # two steps of a rate of 2e-5 from the weights that were given


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`model` is needed, got none"),
        (
            ["--task", "retrieval", "--max_steps", "2", "--model_config", "configs/models/slap_scenes"],
            "`model` is need",
        ),
        (["--task", "sing"], "Unknown `task` 'sing'. Choose one of"),
        (["--task"], "cannot be read"),
        (["missing.yaml"], "'missing.yaml' does not exist"),
    ],
)
def test_wrong_command_lines_end_with_one_message(script, capsys, arguments, message):
    assert script.main([*arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_task_without_its_loss_is_refused(script, tmp_path, capsys):
    SlapModel(tiny_slap_config(caption_weight=0.0)).save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    options = ["--task", "captioning", "--model", str(tmp_path / "model"), "--max_steps", "2"]
    assert script.main(options) == 2
    assert "`task` is 'captioning', but `caption_weight` of the SlapConfig is 0" in capsys.readouterr().err


def test_the_same_run_twice_is_refused(script, bases, tmp_path, capsys):
    sounds = save_sounds(tmp_path / "sounds", 4)
    options = ["--model", str(bases["slap"]), "--data", str(sounds), "--output_dir", str(tmp_path / "run")]
    options += [
        "--max_steps",
        "1",
        "--num_workers",
        "0",
        "--batch_size",
        "4",
        "--num_threads",
        "1",
        "--precision",
        "fp32",
    ]
    assert script.main(options) == 0
    assert script.main(options) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert load_finetune_config(options).train.max_steps == 1

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Arms become runs that differ in their own keys alone, settings are chosen before the test, a row is their mean."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hf_audiolang.data import Record
from hf_audiolang.evaluation.frame_scores import ScoredRecords
from hf_audiolang.evaluation.metrics.detections import FrameScores, Smoothing
from hf_audiolang.training import ablation
from hf_audiolang.training.ablation import ablation_table, arm_config, choose, load_plan, run_plan

ROOT = Path(__file__).resolve().parents[2]
PLANS = sorted((ROOT / "configs" / "ablate").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)  # the plans name configurations from there


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_arms_of_a_plan_differ_in_their_keys_and_have_the_same_steps(path):
    plan = load_plan(path)
    configs = {(arm.name, seed): arm_config(plan, arm, seed) for arm in plan.arms for seed in arm.seeds}
    assert len({config.train.output_dir for config in configs.values()}) == len(configs)
    first = next(iter(configs.values())).to_dict()
    for arm in plan.arms:
        for seed in arm.seeds:
            settings = configs[arm.name, seed].to_dict()
            changed = {key for key, value in settings.items() if value != first[key]}
            own = {"output_dir", "seed", *arm.settings, *plan.arms[0].settings}
            assert changed <= own
            assert settings["seed"] == seed
            assert (settings["max_steps"], settings["batch_size"]) == (first["max_steps"], first["batch_size"])


def test_a_plan_with_a_misspelled_key_is_refused(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("config: x.yaml\noutput_dir: runs/x\narm: {a: {}}\n")
    with pytest.raises(ValueError, match=r"unknown keys \['arm'\] or no arms"):
        load_plan(path)
    path.write_text("config: x.yaml\noutput_dir: runs/x\nmeasure_on: train\narms: {a: {}}\n")
    with pytest.raises(ValueError, match="must be 'test' or 'validation', got 'train'"):
        load_plan(path)
    path.write_text("config: x.yaml\noutput_dir: runs/x\narms: {a b: {}, a_b: }\n")
    with pytest.raises(ValueError, match="would share folders"):
        load_plan(path)
    with pytest.raises(FileNotFoundError, match="There is no plan"):
        load_plan(tmp_path / "none.yaml")


def test_prompt_and_smoothing_are_those_that_do_best_on_the_given_clips(monkeypatch):
    """Frames of an event that go dark in between: only joining finds it whole; and one prompt sees nothing."""
    record = Record("clip", None, duration=2.0, events=({"label": "dog", "onset": 0.5, "offset": 1.5},))
    edges = np.arange(21) / 10
    curve = np.zeros(20)
    curve[[5, 7, 8, 10, 12, 14]] = 1.0

    def scores(_model, _processor, _clips, _labels, prompt):
        values = curve if prompt == "{label}" else 1 - curve
        return ScoredRecords([FrameScores(values[:, None], edges)], [record], [10.0], [])

    queries = ScoredRecords(
        [FrameScores(curve[:, None], edges)],
        [Record("clip", None, duration=2.0, phrases=({"phrase": "a dog", "segments": [[0.5, 1.5]]},))],
        [10.0],
        [],
    )
    monkeypatch.setattr(ablation, "_scored", scores)
    monkeypatch.setattr(ablation.grounding, "frame_scores_of", lambda *a: queries)
    smoothings = (Smoothing(1), Smoothing(1, 0.2), Smoothing(9))
    plan = SimpleNamespace(prompts=("{label} can be heard", "{label}"), smoothings=smoothings)
    choice = choose(None, None, [record], ["dog"], plan)
    assert choice.prompt == "{label}"
    assert choice.detection == Smoothing(1, 0.2)


def test_runs_are_trained_once_and_the_table_shows_their_mean(tmp_path, monkeypatch):
    plan_path = tmp_path / "plan.yaml"
    plan_path.write_text(
        f"config: configs/pretrain/mga_clap_scenes.yaml\noutput_dir: {tmp_path}/out\n"
        "arms:\n  one: {seeds: [0, 1]}\n  two: {aggregation: mean}\n"
    )
    trained = []

    def pretrain(config):
        trained.append((config.model.aggregation, config.train.seed))
        folder = Path(config.train.output_dir)
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
        config.save(folder / "run.yaml")

    def measured(plan, config):
        value = 0.25 + 0.5 * config.train.seed
        return {"run": config.train.output_dir, "choice": {}, "values": dict.fromkeys(ablation.COLUMNS, value)}

    monkeypatch.setattr(ablation, "pretrain", pretrain)
    monkeypatch.setattr(ablation, "_measured", measured)
    plan = load_plan(plan_path)
    results = run_plan(plan)
    assert trained == [(None, 0), (None, 1), ("mean", 0)]
    run_plan(plan)
    assert len(trained) == 3
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == results
    table = ablation_table(results).splitlines()
    assert table[2].startswith("| one | 2 | 50.0 (25.0, 75.0) |")
    assert table[3].startswith("| two | 1 | 25.0 |")
    plan_path.write_text(plan_path.read_text().replace("aggregation: mean", "aggregation: max"))
    with pytest.raises(ValueError, match=r"other settings than the plan's \(aggregation: mean -> max\)"):
        run_plan(load_plan(plan_path))

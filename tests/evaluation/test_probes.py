# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Probes by name: means and intervals over folds and seeds, the random control, the table and the curve."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_fakes import unit
from probe_fakes import FrameExtractor, LayerEncoder, System, clip, labelled
from scipy.stats import t as student
from tiny import tiny_htsat_config, tiny_m2d_clap_audio_config, tiny_slap_config, tiny_zipformer_config
from transformers import AutoModel

from hf_audiolang.evaluation import probes
from hf_audiolang.evaluation.figures_probe import plot_checkpoints
from hf_audiolang.evaluation.probe_protocol import ProbeScores, ProbeSettings
from hf_audiolang.evaluation.probes import PROBES, SETTINGS, probe_table, run_probe, with_random_weights

TABLE = np.repeat(5 * np.eye(4, 7), 10, axis=0).astype(np.float32) + unit(40, 7, seed=0)


def classes(count, seed):
    rng = np.random.default_rng(seed)
    events = ({"label": "class 0", "onset": 0.0, "offset": 0.2}, {"label": "class 1", "onset": 0.2, "offset": 0.4})
    return [
        clip(10 * (n % 3) + rng.integers(1, 10, 4), id=f"{seed}-{n}", labels=(f"class {n % 3}",), events=events)
        for n in range(count)
    ]


def data_of(**fields):
    return labelled(classes(30, 0), classes(9, 1), validation=classes(9, 2), **fields)


def test_folds_are_averaged_for_each_seed_and_seeds_give_the_interval(monkeypatch):
    values = {1: [0.5, 0.9, 0.7], 2: [0.7, 0.5, 0.9], 4: [0.3, 0.7, 0.8]}

    def score(model, processor, data, settings):
        skipped = ["a: broken", f"{data.fold}: broken"]
        return ProbeScores({"x/accuracy": values[data.fold]}, {"x/accuracy": data.fold / 10}, 10, skipped, {"z": 1})

    monkeypatch.setitem(PROBES, "linear", score)
    folds = [data_of(fold=fold, notes=["same", f"fold {fold}"]) for fold in (1, 2, 4)]
    result = run_probe("linear", System(LayerEncoder([TABLE])), FrameExtractor(), folds)
    per_seed = np.mean(list(values.values()), axis=0)
    assert result["x/accuracy"] == pytest.approx(per_seed.mean())
    assert result.chance == {"x/accuracy": pytest.approx(0.7 / 3)}
    record = result.record
    low, high = student.interval(0.95, 2, loc=0, scale=per_seed.std(ddof=1) / 3**0.5)
    assert record["ci95"] == {"x/accuracy": pytest.approx((high - low) / 2)}
    assert record["per_seed"] == {"x/accuracy": pytest.approx(per_seed)}
    assert [fold["fold"] for fold in record["folds"]] == [1, 2, 4]
    assert (record["num_clips"], record["num_skipped"], record["data"]) == (30, 4, "fakes")
    assert record["notes"] == ["same", "fold 1", "fold 2", "fold 4"]
    json.dumps(record, allow_nan=False)
    table = probe_table({"value": result})
    assert f"| x/accuracy | {100 * per_seed.mean():.1f} +- {50 * (high - low):.1f} | 23.3 |" in table
    assert "30, 30, 30 training clips, mean over 3 folds, 4 clips left out" in table
    assert "- fold 4" in table


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_hears_what_the_frames_say(name, tmp_path):
    encoder = LayerEncoder([TABLE, TABLE]).train()
    before = encoder.table.detach().clone()
    rates = {"linear": (0.1,), "layers": (1e-2,), "frames": (0.3,)}
    settings = ProbeSettings(num_seeds=2, learning_rates=rates.get(name, ()), cache_dir=tmp_path)
    data = data_of()
    if name == "frames":
        data = replace(data, classes=["class 0", "class 1"])
    result = run_probe(name, System(encoder), FrameExtractor(), data, settings)
    assert result
    assert result.record["task"] == f"{name}_probe"
    if name == "frames":
        assert 0.3 < result["frame_probe/mAP"] < 0.8  # the events have nothing to do with the sounds
    else:
        assert all(value == 1 for value in result.values())
    assert set(result.record["ci95"]) == (set() if name == "knn" else set(result))
    assert all(np.isfinite(list(result.values())))
    num_clips = 39 if name == "knn" else 48  # each clip once; neighbours need no validation clips
    assert encoder.num_clips == num_clips
    again = run_probe(name, System(encoder), FrameExtractor(), data, settings)
    assert encoder.num_clips == num_clips
    assert dict(again) == dict(result)
    assert encoder.training
    torch.testing.assert_close(encoder.table, before, rtol=0, atol=0)
    json.dumps(result.record, allow_nan=False)
    assert "nan" not in probe_table({"value": result}).lower()


def test_pooling_has_both_poolings_with_a_value_per_seed():
    data = data_of()
    for name, part in (("train", data.train), ("test", data.test)):
        part[0] = replace(part[0], id=f"bad {name}", audio=np.full(40, np.nan, np.float32))
    result = run_probe("pooling", LayerEncoder([TABLE]), FrameExtractor(), data, ProbeSettings(num_seeds=2))
    assert set(result) == {"probe_mean/accuracy", "probe_attention/accuracy"}
    assert all(len(values) == 2 for values in result.record["per_seed"].values())
    assert [message.split(":")[0] for message in result.record["skipped"]] == ["bad train", "bad test"]


def test_settings_that_would_change_nothing_are_refused():
    model, data = LayerEncoder([TABLE]), data_of()
    message = r"`layer` is 'best', but the probe 'linear' has none\. Leave it out, or use \['layers'\]"
    with pytest.raises(ValueError, match=message):
        run_probe("linear", model, FrameExtractor(), data, ProbeSettings(layer="best"))
    for name in ("pooling", "knn"):
        with pytest.raises(ValueError, match=rf"`learning_rates` is \(0.1,\), but the probe '{name}' has none"):
            run_probe(name, model, FrameExtractor(), data, ProbeSettings(learning_rates=(0.1,)))
    with pytest.raises(ValueError, match=r"`predicts_numbers` is True, but the probe 'knn'"):
        run_probe("knn", model, FrameExtractor(), data, ProbeSettings(predicts_numbers=True))
    with pytest.raises(ValueError, match=r"Unknown probe 'svm'\. Choose one of \['frames', 'knn', 'layers', 'linear'"):
        run_probe("svm", model, FrameExtractor(), data)
    with pytest.raises(ValueError, match=r"`folds` is empty, got 0 data sets"):
        run_probe("knn", model, FrameExtractor(), [])
    with pytest.raises(ValueError, match=r"`num_seeds` must be at least 1, got 0\. Three give an interval"):
        ProbeSettings(num_seeds=0)
    with pytest.raises(ValueError, match=r"`clip_seconds` must be positive, got -1\. Leave it out"):
        ProbeSettings(clip_seconds=-1)
    with pytest.raises(ValueError, match=r"`learning_rates` must lie between 0 and 100, got \(0.1, 0\)"):
        ProbeSettings(learning_rates=(0.1, 0))
    assert model.num_clips == 0
    assert set(SETTINGS) == set(PROBES) == set(probes.NOTES)


@pytest.mark.parametrize(
    "build", [tiny_slap_config, tiny_m2d_clap_audio_config, tiny_htsat_config, tiny_zipformer_config]
)
def test_the_control_has_the_same_architecture_and_other_weights_by_its_seed(build):
    torch.manual_seed(9)
    model = AutoModel.from_config(build()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, again, other = (with_random_weights(model, seed) for seed in (0, 0, 1))
    torch.testing.assert_close(torch.rand(2), expected, rtol=0, atol=0)  # global draws stay as they are
    encoder = getattr(model, "audio_model", model)
    assert type(first) is type(encoder)
    assert not first.training
    shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in (first, encoder)]
    assert shapes[0] == shapes[1]
    matrices = [name for name, value in first.named_parameters() if value.ndim > 1 and value.std() > 0]
    assert matrices
    for name in matrices:
        mine = first.state_dict()[name]
        torch.testing.assert_close(mine, again.state_dict()[name], rtol=0, atol=0)
        assert not torch.equal(mine, other.state_dict()[name])
        assert not torch.equal(mine, encoder.state_dict()[name])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_curve_has_a_panel_per_metric_with_interval_and_chance(tmp_path, drawn):
    data = data_of()
    points = []
    for step, scale in ((10, 0.0), (20, 1.0), (40, 1.0)):
        encoder = LayerEncoder([scale * TABLE + 0.3 * unit(40, 7, seed=step)])
        points.append((step, run_probe("pooling", encoder, FrameExtractor(), data, ProbeSettings(num_seeds=2))))
    path = plot_checkpoints(points, tmp_path / "curves" / "probe.png")
    assert path.stat().st_size > 5000
    (figure,) = drawn
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["probe_mean/accuracy", "probe_attention/accuracy"]
    line, chance = figure.axes[0].get_lines()
    assert line.get_xdata().tolist() == [10, 20, 40]
    assert line.get_ydata().tolist() == pytest.approx([100 * result["probe_mean/accuracy"] for _, result in points])
    assert line.get_ydata()[1] > line.get_ydata()[0]  # control
    assert chance.get_ydata()[0] == pytest.approx(100 / 3)
    (band,) = figure.axes[0].collections
    vertices = band.get_paths()[0].vertices
    width = points[0][1].record["ci95"]["probe_mean/accuracy"]
    at_first = vertices[np.isclose(vertices[:, 0], 10), 1]
    assert np.ptp(at_first) == pytest.approx(200 * width)
    with pytest.raises(ValueError, match=r"`points` is empty, got 0 checkpoints"):
        plot_checkpoints([], tmp_path / "probe.png")

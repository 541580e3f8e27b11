# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Probe of layers: it finds the layer that knows, averages windows, and scores as scikit-learn does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_fakes import unit
from probe_fakes import FrameExtractor, LayerEncoder, clip, features_of, labelled
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score
from torch import nn

from hf_audiolang.evaluation import layer_probe, layer_probe_training
from hf_audiolang.evaluation.clip_cuts import Windows
from hf_audiolang.evaluation.layer_probe import layer_scores
from hf_audiolang.evaluation.layer_probe_training import (
    LayerClips,
    LayerMlp,
    LayerRecipe,
    clip_outputs,
    train_best,
)
from hf_audiolang.evaluation.probe_protocol import ProbeSettings

QUICK = LayerRecipe(learning_rates=(1e-2, 1e-3), hidden_size=16, num_epochs=30)
CLASSES = ("class 0", "class 1", "class 2")
KNOWING = np.repeat(5 * np.eye(4, 7), 10, axis=0).astype(np.float32) + unit(40, 7, seed=0)
NOISE = [np.tile(4 * unit(10, 7, seed=seed), (4, 1)) for seed in (1, 2)]  # the same for all classes


def layered(count, seed, knowing=2, num_layers=4):
    """Rows (N, L, 6) of noise, the class in one layer; labels of three classes in turn."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, num_layers, 6)).astype(np.float32)
    rows[np.arange(count), knowing, np.arange(count) % 3] += 3
    return features_of(rows, [(CLASSES[n % 3],) for n in range(count)])


def sets_of(*sizes, make=layered):
    return dict(zip(("train", "dev", "test"), [make(size, seed) for seed, size in enumerate(sizes)], strict=True))


def test_the_sum_turns_to_the_layer_that_knows():
    found = layer_scores(sets_of(240, 60, 90), CLASSES, "single", seeds=[42, 43], recipe=replace(QUICK, num_epochs=60))
    assert min(found.values["layers/accuracy"]) > 0.85
    weights = found.details["layer_weights"]
    assert np.argmax(weights) == 2
    assert weights[2] > 0.35
    assert sum(weights) == pytest.approx(1)
    assert found.details["layers"] == [None, None]
    assert found.chance == {"layers/accuracy": 1 / 3}


def test_the_best_layer_is_chosen_on_the_dev_clips_and_one_layer_hears_nothing_else():
    sets = sets_of(240, 60, 90)
    found = layer_scores(sets, CLASSES, "single", layer="best", seeds=[42, 43], recipe=QUICK)
    assert found.details["layers"] == [2, 2]
    assert min(found.values["layers/accuracy"]) > 0.85
    of_layers = found.details["layer_dev_scores"]
    assert of_layers[2] > max(of_layers[n] for n in (0, 1, 3)) + 0.2
    deaf = layer_scores(sets, CLASSES, "single", layer=3, seeds=[42], recipe=QUICK)
    assert deaf.values["layers/accuracy"][0] < 0.55
    knowing = layer_scores(sets, CLASSES, "single", layer=2, seeds=[42], recipe=QUICK)
    assert knowing.values["layers/accuracy"][0] == found.values["layers/accuracy"][0]


def test_without_dev_clips_a_tenth_of_the_training_clips_chooses():
    sets = sets_of(240, 60, 90)
    del sets["dev"]
    found = layer_scores(sets, CLASSES, "single", layer=2, seeds=[42, 43], recipe=QUICK)
    assert min(found.values["layers/accuracy"]) > 0.8
    assert set(np.round(np.array(found.details["dev_scores"]) * 24, 9) % 1) == {0}  # 24 clips


def test_the_probe_is_marbles():
    linear, activation, dropout, output = LayerMlp(13, 768, 50, LayerRecipe()).mlp
    assert (linear.in_features, linear.out_features, output.in_features, output.out_features) == (768, 512, 512, 50)
    assert isinstance(activation, nn.ReLU)
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.2
    assert set(LayerRecipe().learning_rates) == {1e-2, 5e-3, 1e-3, 5e-4, 1e-4}


def test_outputs_of_a_clip_are_the_mean_over_its_pieces():
    torch.manual_seed(0)
    probe = LayerMlp(2, 5, 3, QUICK)
    rows, lengths = torch.randn(6, 2, 5), torch.tensor([2, 1, 3])
    clips = LayerClips(rows, lengths, torch.tensor([0, 1, 2]), "single")
    with torch.no_grad():
        probe.eval()
        of_rows = probe.mlp(rows.mean(1))  # equal weights at first
    expected = torch.stack([of_rows[:2].mean(0), of_rows[2], of_rows[3:].mean(0)])
    torch.testing.assert_close(clip_outputs(probe, clips), expected, rtol=0, atol=1e-6)
    some = clips.take(torch.tensor([2, 0]))
    torch.testing.assert_close(clip_outputs(probe, some), expected[[0, 2]], rtol=0, atol=1e-6)
    assert some.targets.tolist() == [0, 2]
    one = clips.layer(1)
    torch.testing.assert_close(one.rows[:, 0], rows[:, 1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["single", "multi", "numbers"])
def test_training_is_a_plain_loop_of_torch(kind):
    recipe = LayerRecipe(learning_rates=(1e-2,), hidden_size=8, batch_rows=5, num_epochs=150, patience=4)
    recipe = replace(recipe, plateau_patience=0)
    generator = torch.Generator().manual_seed(3)
    lengths = torch.tensor([1, 3, 2, 1, 2, 3])
    rows = torch.randn(12, 2, 4, generator=generator)
    dev_rows = rows + 0.8 * torch.randn(12, 2, 4, generator=generator)
    targets = {
        "single": torch.arange(6) % 3,
        "multi": (torch.arange(18) % 4 == 0).float().view(6, 3),
        "numbers": torch.randn(6, 3, generator=generator),
    }[kind]
    train, dev = LayerClips(rows, lengths, targets, kind), LayerClips(dev_rows, lengths, targets, kind)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_probe_training, "clip_outputs", lambda *args: asked.append(1) or clip_outputs(*args))
        run = train_best(train, dev, 3, 7, recipe)

    of_row = targets[torch.repeat_interleave(torch.arange(6), lengths)]
    loss_of = {"single": nn.CrossEntropyLoss(), "multi": nn.BCEWithLogitsLoss(), "numbers": nn.MSELoss()}[kind]
    torch.manual_seed(7)
    probe = LayerMlp(2, 4, 3, recipe)
    optimizer = torch.optim.Adam(probe.parameters(), lr=1e-2)
    best, highest, num_bad, halved = (-np.inf, -np.inf, 0, None), -np.inf, 0, []
    for epoch in range(1, 151):
        probe.train()
        for chosen in torch.randperm(12).split(5):
            optimizer.zero_grad()
            loss_of(probe(rows[chosen]), of_row[chosen]).backward()
            optimizer.step()
        probe.eval()
        with torch.no_grad():
            outputs = torch.stack([part.mean(0) for part in probe(dev_rows).split(lengths.tolist())])
        score, loss = dev_score(outputs.numpy(), targets.numpy(), kind), loss_of(outputs, targets).item()
        is_higher = score > highest + 1e-4 * abs(highest) if np.isfinite(highest) else True
        highest, num_bad = (score, 0) if is_higher else (highest, num_bad + 1)
        if num_bad > 0:
            num_bad = 0
            halved.append(epoch)
            optimizer.param_groups[0]["lr"] /= 2
        if (score, -loss) > best[:2]:
            best = (score, -loss, epoch, {name: value.clone() for name, value in probe.state_dict().items()})
        elif epoch - best[2] == 4:
            break
    assert (run.epoch, run.learning_rate) == (best[2], 1e-2)
    assert (run.dev_score, -run.dev_loss) == pytest.approx(best[:2], abs=1e-5)
    for name, value in run.probe.state_dict().items():
        torch.testing.assert_close(value, best[3][name], rtol=0, atol=1e-5)
    assert halved[0] < best[2] or kind == "numbers"  # the best epoch comes after a change of the learning rate
    assert len(asked) == epoch < 150  # it ended early


def dev_score(outputs, targets, kind):
    if kind == "single":
        return (outputs.argmax(1) == targets).mean()
    of_column = average_precision_score if kind == "multi" else r2_score
    return np.mean([of_column(targets[:, c], outputs[:, c]) for c in range(3)])


def test_the_learning_rate_that_is_best_on_the_dev_clips_is_taken_and_global_draws_stay_as_they_are():
    sets = sets_of(120, 60, 30)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    bad, good = replace(QUICK, learning_rates=(1e-5, 1e-2)), replace(QUICK, learning_rates=(1e-2,))
    found = layer_scores(sets, CLASSES, "single", layer=2, seeds=[42], recipe=bad)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert found.details["learning_rates"] == [1e-2]
    assert found.values == layer_scores(sets, CLASSES, "single", layer=2, seeds=[42], recipe=good).values


def test_several_labels_give_map_and_roc_auc_of_the_classes_with_both_labels():
    rng = np.random.default_rng(0)
    names = ("a", "b", "c", "d")

    def mixtures(count, seed):
        rng = np.random.default_rng(seed)
        hot = rng.random((count, 4)) < 0.4
        if seed == 2:
            hot[:, 1], hot[:, 3] = True, False  # always and never in the test
        rows = (hot @ np.eye(4, 6) * 2 + rng.standard_normal((count, 6)))[:, None].astype(np.float32)
        return features_of(rows, [tuple(np.array(names)[of_clip]) for of_clip in hot])

    sets = sets_of(120, 40, 50, make=mixtures)
    outputs = rng.standard_normal((50, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_probe, "clip_outputs", lambda *_: torch.from_numpy(outputs))
        known = layer_scores(sets, names, "multi", seeds=[42], recipe=QUICK)
    hot = np.array([[name in record.labels for name in names] for record in sets["test"].records])
    kept = [0, 2]
    assert known.values["layers/mAP"] == pytest.approx([average_precision_score(hot[:, kept], outputs[:, kept])])
    assert known.values["layers/ROC_AUC"] == pytest.approx([roc_auc_score(hot[:, kept], outputs[:, kept])])
    found = layer_scores(sets, names, "multi", seeds=[42, 43], recipe=QUICK)
    assert min(found.values["layers/ROC_AUC"]) > 0.8
    assert found.chance == {"layers/mAP": pytest.approx(hot[:, kept].mean()), "layers/ROC_AUC": 0.5}
    assert (found.details["num_classes_scored"], found.details["num_classes_skipped"]) == (2, 2)


def test_numbers_are_predicted_and_scored_by_r2():
    def numbers(count, seed):
        rng = np.random.default_rng(seed)
        values = rng.standard_normal((count, 2)).astype(np.float32)
        rows = np.concatenate([values, rng.standard_normal((count, 3))], axis=1)[:, None].astype(np.float32)
        return features_of(rows, [tuple(map(str, of_clip)) for of_clip in values])

    sets = sets_of(200, 40, 60, make=numbers)
    found = layer_scores(sets, ("arousal", "valence"), "numbers", seeds=[42], recipe=replace(QUICK, num_epochs=60))
    assert min(*found.values["layers/R2_arousal"], *found.values["layers/R2_valence"]) > 0.8
    assert found.chance == {"layers/R2_arousal": 0.0, "layers/R2_valence": 0.0}
    del sets["dev"]
    assert layer_scores(sets, ("arousal", "valence"), "numbers", seeds=[42], recipe=QUICK).num_clips == 60
    with pytest.raises(ValueError, match=r"Record '0' must have 3 numbers as labels, got \['.*Write one for each"):
        layer_scores(sets, ("a", "b", "c"), "numbers", seeds=[42], recipe=QUICK)
    sets["dev"] = numbers(1, 5)
    with pytest.raises(ValueError, match=r"The 1 validation clips all have the same `a`, .*: R2 is not defined"):
        layer_scores(sets, ("a", "b"), "numbers", seeds=[42], recipe=QUICK)


def test_a_probe_that_diverges_is_no_result():
    sets = sets_of(60, 30, 30)
    wild = replace(QUICK, learning_rates=(1e30,))
    with pytest.raises(ValueError, match=r"NaN or infinite values at each learning rate of \(1e\+30,\)"):
        layer_scores(sets, CLASSES, "single", seeds=[42], recipe=wild)


def three_classes(count, seed):
    rng = np.random.default_rng(seed)
    return [
        clip(10 * (n % 3) + rng.integers(1, 10, 4), id=f"{seed}-{n}", labels=(f"class {n % 3}",)) for n in range(count)
    ]


def test_an_encoder_is_asked_once_for_all_its_layers(tmp_path):
    data = labelled(three_classes(45, 0), three_classes(12, 1), validation=three_classes(12, 2))
    encoder = LayerEncoder([NOISE[0], KNOWING, NOISE[1]]).train()
    settings = ProbeSettings(num_seeds=1, layer="best", learning_rates=(1e-2,), cache_dir=tmp_path)
    found = layer_probe.score_fold(encoder, FrameExtractor(), data, settings)
    assert found.details["layers"] == [1]
    assert found.values == {"layers/accuracy": [1.0]}
    assert encoder.num_clips == 69
    assert encoder.training
    layer_probe.score_fold(encoder, FrameExtractor(), data, replace(settings, layer="all"))
    assert encoder.num_clips == 69  # read from the folder
    last = layer_probe.score_fold(encoder, FrameExtractor(), data, replace(settings, layer="clip"))
    assert encoder.num_clips == 138  # the clip feature is another one
    assert last.values["layers/accuracy"][0] < 0.9
    assert (last.details["num_layers"], found.details["num_layers"]) == (1, 3)


def test_long_clips_are_windows_of_five_seconds_of_the_first_thirty():
    long = clip([11] * 55 + [12] * 330, id="long", labels=("class 1",))  # 38.5 s of 10 frames each
    data = labelled([long, *three_classes(3, 0)], [long])
    sets = layer_probe._encoded(LayerEncoder([KNOWING]), FrameExtractor(), data, ProbeSettings())
    assert sets["train"].lengths.tolist() == [6, 1, 1, 1]
    share = np.array([[1, 0], [0.1, 0.9], [0, 1], [0, 1], [0, 1], [0, 1]], dtype=np.float32)
    np.testing.assert_allclose(sets["test"].rows[:, 0], share @ KNOWING[[11, 12]], atol=1e-5)
    assert Windows() == Windows(window_seconds=5.0, max_seconds=30.0)
    fixed = layer_probe._encoded(LayerEncoder([KNOWING]), FrameExtractor(), data, ProbeSettings(clip_seconds=1.0))
    assert fixed["test"].lengths.tolist() == [1]


def test_layers_that_there_are_not_are_refused():
    data, encoder = labelled(three_classes(6, 0), three_classes(3, 1)), LayerEncoder([NOISE[0], KNOWING])
    with pytest.raises(ValueError, match=r"`layer` is 2, but the encoder has the layers 0 to 1\."):
        layer_probe.score_fold(encoder, FrameExtractor(), data, ProbeSettings(layer=2))
    for layer in ("last", -1):
        with pytest.raises(ValueError, match=r"Unknown `layer` .* Choose one of \['all', 'best', 'clip'\], or"):
            layer_probe.score_fold(encoder, FrameExtractor(), data, ProbeSettings(layer=layer))

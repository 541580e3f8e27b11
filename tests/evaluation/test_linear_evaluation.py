# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Linear evaluation: equal to a plain loop of torch and scikit-learn with EVAR's early stop; parts of the clips."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, unit
from probe_fakes import FrameExtractor, LayerEncoder, clip, features_of, labelled
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from hf_audiolang.evaluation import linear_evaluation
from hf_audiolang.evaluation.linear_evaluation import RECIPE, linear_scores
from hf_audiolang.evaluation.probe_protocol import ProbeSettings
from hf_audiolang.evaluation.probe_training import first_weights

CLASSES = ["c", "a", "b"]  # not sorted: the ids follow this order
TABLE = np.repeat(5 * np.eye(4, 7), 10, axis=0).astype(np.float32) + unit(40, 7, seed=0)


def noisy(count, seed, is_multi_label, spread=2.0):
    """Features (N, 5) of very different scales around the centres of their classes, and labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((3, 5))
    hot = rng.random((count, 3)) < 0.4 if is_multi_label else np.eye(3, dtype=bool)[rng.integers(0, 3, count)]
    features = hot @ centres + spread * rng.standard_normal((count, 5))
    features = (features * [1, 100, 1, 0.01, 1] + 5).astype(np.float32)
    return features, [tuple(name for name, is_heard in zip(CLASSES, row, strict=True) if is_heard) for row in hot]


def naive(train, dev, test, seed, recipe, is_multi_label):
    """(best epoch, its dev score, test score, number of epochs run) by EVAR's rules, written out."""
    sets = [np.asarray(features, dtype=np.float64) for features, _ in (train, dev, test)]
    scaler = StandardScaler().fit(sets[0])
    x, x_dev, x_test = (torch.tensor(scaler.transform(part), dtype=torch.float32) for part in sets)
    hots = [
        np.array([[name in of_clip for name in CLASSES] for of_clip in labels]) for _, labels in (train, dev, test)
    ]
    y, y_dev, y_test = hots if is_multi_label else (hot.argmax(1) for hot in hots)
    generator = torch.Generator().manual_seed(seed)
    weights = first_weights("mean", x.shape[1], 3, recipe, generator)
    layer = nn.Linear(x.shape[1], 3)
    layer.load_state_dict({name: weights[f"classifier.{name}"] for name in ("weight", "bias")})
    (rate,) = recipe.learning_rates
    optimizer = torch.optim.Adam(layer.parameters(), lr=rate, betas=(0.9, 0.999), weight_decay=recipe.weight_decay)
    loss_of = nn.BCEWithLogitsLoss() if is_multi_label else nn.CrossEntropyLoss()
    y = torch.tensor(y, dtype=torch.float32 if is_multi_label else torch.long)

    def score(inputs, wanted):
        with torch.no_grad():
            logits = layer(inputs).numpy()
        if is_multi_label:
            return average_precision_score(wanted, logits, average="macro")
        return (logits.argmax(1) == wanted).mean()

    best, waited, kept = -1.0, 0, None
    for epoch in range(1, recipe.num_epochs + 1):
        for rows in torch.randperm(len(x), generator=generator).split(min(recipe.batch_clips, len(x))):
            optimizer.zero_grad()
            loss_of(layer(x[rows]), y[rows]).backward()
            optimizer.step()
        found = score(x_dev, y_dev)
        waited += 1
        if found >= best:
            best, waited, kept = found, 0, (epoch, score(x_test, y_test))
        if waited == recipe.patience:
            break
    return kept[0], best, kept[1], epoch


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_equal_to_a_plain_loop(is_multi_label):
    sets = [noisy(count, seed, is_multi_label) for seed, count in enumerate((90, 37, 61))]
    recipe = replace(RECIPE, learning_rates=(3e-2,), batch_clips=32, num_epochs=60, patience=4, weight_decay=1e-2)
    features = dict(zip(("train", "dev", "test"), [features_of(*part) for part in sets], strict=True))
    seeds = [42, 43, 44, 45]
    found = linear_scores(features, CLASSES, is_multi_label=is_multi_label, seeds=seeds, recipe=recipe)
    expected = [naive(*sets, seed, recipe, is_multi_label) for seed in seeds]
    assert found.details["epochs"] == [epoch for epoch, *_ in expected]
    assert found.details["dev_scores"] == pytest.approx([dev for _, dev, *_ in expected], abs=1e-6)
    name = "linear/mAP" if is_multi_label else "linear/accuracy"
    assert found.values[name] == pytest.approx([test for *_, test, _ in expected], abs=1e-6)
    assert len({(epoch, ended) for epoch, *_, ended in expected}) > 1  # seeds stop by themselves
    assert max(ended for *_, ended in expected) < 60
    hot = np.array([[label in of_clip for label in CLASSES] for of_clip in sets[2][1]])
    assert found.chance[name] == pytest.approx(hot.mean() if is_multi_label else 1 / 3)


def test_the_recipe_is_evars():
    assert (RECIPE.learning_rates, RECIPE.num_epochs, RECIPE.batch_clips) == ((3e-5,), 200, 200)
    assert (RECIPE.lr_end_ratio, RECIPE.weight_decay, RECIPE.patience) == (1.0, 1e-8, 20)


def test_probes_that_still_learn_in_the_last_epoch_are_named():
    sets = {name: features_of(*noisy(40, seed, False, 0.1)) for seed, name in enumerate(("train", "dev", "test"))}
    slow = replace(RECIPE, learning_rates=(1e-3,), num_epochs=9)
    found = linear_scores(sets, CLASSES, is_multi_label=False, seeds=[42, 43], recipe=slow)
    assert found.details["epochs"] == [9, 9]
    assert "The best epoch of 2 of 2 probes was the last one, 9" in found.notes[0]
    perfect = replace(slow, learning_rates=(0.3,))
    found = linear_scores(sets, CLASSES, is_multi_label=False, seeds=[42], recipe=perfect)
    assert (found.details["epochs"], found.details["dev_scores"], found.notes) == (
        [9],
        [1.0],
        [],
    )  # of equals the last
    fast = replace(RECIPE, learning_rates=(0.3,), takes_last_equal=False)
    assert not linear_scores(sets, CLASSES, is_multi_label=False, seeds=[42], recipe=fast).notes


def test_a_probe_that_diverges_is_no_result():
    sets = {name: features_of(*noisy(40, seed, False, 0.1)) for seed, name in enumerate(("train", "dev", "test"))}
    options = {"is_multi_label": False, "seeds": [42]}
    recipe = replace(RECIPE, num_epochs=9, learning_rates=(1e38,))
    with pytest.raises(ValueError, match=r"NaN or infinite values at each of 1 learning rates\. Give lower"):
        linear_scores(sets, CLASSES, recipe=recipe, **options)
    found = linear_scores(sets, CLASSES, recipe=replace(recipe, learning_rates=(1e38, 0.3)), **options)
    alone = linear_scores(sets, CLASSES, recipe=replace(recipe, learning_rates=(0.3,)), **options)
    assert found.details["learning_rates"] == [0.3]
    assert found.values == alone.values


def three_classes(count, seed, tail=()):
    """Records of three classes in turn, four frames each, then the frames `tail`."""
    rng = np.random.default_rng(seed)
    rows = [[*(10 * (n % 3) + rng.integers(1, 4, 4)), *tail] for n in range(count)]
    return [clip(row, id=f"{seed}-{n}", labels=(f"class {n % 3}",)) for n, row in enumerate(rows)]


def test_clips_are_cut_to_one_length_and_only_the_test_begins_at_their_start(monkeypatch, tmp_path):
    given = []
    original = linear_evaluation.clip_features

    def remember(model, processor, records, options, cache_dir, *, cut):
        given.append((records, cut, cache_dir))
        return original(model, processor, records, options, cache_dir, cut=cut)

    monkeypatch.setattr(linear_evaluation, "clip_features", remember)
    tail = [31, 32, 33, 34]  # of no class: the first 0.4 s tell
    data = labelled(three_classes(60, 0), three_classes(12, 1, tail), validation=three_classes(12, 2))
    settings = ProbeSettings(num_seeds=2, clip_seconds=0.4, learning_rates=(0.1,), cache_dir=tmp_path)
    encoder = LayerEncoder([TABLE, TABLE])
    found = linear_evaluation.score_fold(encoder, FrameExtractor(), data, settings)
    assert found.values == {"linear/accuracy": [1.0, 1.0]}
    assert [records for records, *_ in given] == [data.train, data.validation, data.test]
    assert [(cut.seconds, cut.crop_seed) for _, cut, _ in given] == [(0.4, 42), (0.4, 42), (0.4, None)]
    assert encoder.num_clips == 84
    assert linear_evaluation.score_fold(encoder, FrameExtractor(), data, settings).values == found.values
    assert encoder.num_clips == 84  # read from the folder
    assert found.details["clip_seconds"] == 0.4
    assert found.num_clips == 12


def test_without_validation_clips_a_tenth_of_the_training_clips_chooses():
    data = labelled(three_classes(60, 0), three_classes(9, 1))
    settings = ProbeSettings(num_seeds=3, learning_rates=(0.1,))
    found = linear_evaluation.score_fold(LayerEncoder([TABLE, TABLE]), FrameExtractor(), data, settings)
    assert found.details["num_dev_clips"] == 6
    assert found.values["linear/accuracy"] == [1.0] * 3


def test_of_several_learning_rates_the_best_on_the_validation_clips_is_tested():
    data = labelled(three_classes(60, 0), three_classes(9, 1), validation=three_classes(12, 2))
    encoder, extractor = LayerEncoder([TABLE, TABLE]), FrameExtractor()
    settings = ProbeSettings(num_seeds=2, learning_rates=(1e-9, 0.1))
    found = linear_evaluation.score_fold(encoder, extractor, data, settings)
    assert found.details["learning_rates"] == [0.1, 0.1]
    assert found.values["linear/accuracy"] == [1.0, 1.0]
    usual = linear_evaluation.score_fold(encoder, extractor, data, ProbeSettings(num_seeds=1))
    assert usual.details["learning_rates"] == [3e-5]


def test_short_clips_are_followed_by_silence():
    settings = ProbeSettings(clip_seconds=0.8)
    data = labelled(*([clip([7, 9], labels=("class 0",))] for _ in range(2)))
    sets = linear_evaluation.unit_features(LayerEncoder([TABLE, TABLE]), FrameExtractor(), data, settings)
    assert int(0.8 * SAMPLING_RATE) == 8 * FRAME_SAMPLES
    expected = TABLE[[7, 9, *[0] * 6]].mean(0)  # silence has row 0
    for features in sets.values():
        np.testing.assert_allclose(features.clip_means(), [expected], atol=1e-6)


def test_missing_parts_and_foreign_labels_are_refused():
    encoder, extractor = LayerEncoder([TABLE, TABLE]), FrameExtractor()
    with pytest.raises(ValueError, match=r"fakes has no train clips\. Both are needed: give more"):
        linear_evaluation.score_fold(encoder, extractor, labelled(None, three_classes(3, 0)), ProbeSettings())
    odd = [*three_classes(6, 1), clip([1], id="odd", labels=("class 9",))]
    with pytest.raises(ValueError, match=r"Record 'odd' has the label 'class 9', which is none of the 3 classes"):
        linear_evaluation.score_fold(encoder, extractor, labelled(three_classes(30, 0), odd), ProbeSettings())
    two = [clip([1], id="two", labels=("class 0", "class 1"))]
    with pytest.raises(ValueError, match=r"`test`: record 'two' must have exactly one label"):
        linear_evaluation.score_fold(encoder, extractor, labelled(three_classes(30, 0), two), ProbeSettings())

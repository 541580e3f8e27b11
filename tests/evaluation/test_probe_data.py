# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Data of probes: the part of the training clips that chooses, targets, and one scale for all inputs."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.probe_data import label_targets, split_rows, standardised


def test_the_split_takes_a_tenth_of_each_class_and_leaves_each_in_training():
    labels = [("often",)] * 30 + [("seldom",)] * 7 + [("twice",)] * 2 + [("once",)]
    train_rows, dev_rows = split_rows(labels, None, range(3))
    for kept, held_out in zip(train_rows.tolist(), dev_rows.tolist(), strict=True):
        assert sorted(kept + held_out) == list(range(40))
        names = [labels[row][0] for row in held_out]
        assert [names.count(name) for name in ("often", "seldom", "twice", "once")] == [3, 1, 1, 0]
    assert len({tuple(rows) for rows in dev_rows.tolist()}) == 3  # each seed has its own
    torch.testing.assert_close(split_rows(labels, None, [2, 1])[1], dev_rows[[2, 1]], rtol=0, atol=0)
    train_rows, dev_rows = split_rows(labels, 4, [42, 43])
    assert train_rows.tolist() == [list(range(40))] * 2
    assert dev_rows.tolist() == [[40, 41, 42, 43]] * 2


def test_several_labels_are_split_so_that_every_label_stays_in_training():
    rng = np.random.default_rng(0)
    names = np.array(["a", "b", "c", "d", "e"])
    labels = [tuple(names[rng.random(5) < 0.3]) for _ in range(50)] + [("a", "rare"), ("b", "rare")]
    train_rows, dev_rows = split_rows(labels, None, range(4))
    assert 3 <= dev_rows.shape[1] <= 12
    for kept, held_out in zip(train_rows.tolist(), dev_rows.tolist(), strict=True):
        assert sorted(kept + held_out) == list(range(52))
        assert {label for row in kept for label in labels[row]} == {*names, "rare"}


def test_targets_follow_the_order_of_the_classes():
    records = [Record(id=f"{n}", audio=None, labels=labels) for n, labels in enumerate([("b",), ("a",), ("c",)])]
    assert label_targets(records, ["c", "b", "a"], is_multi_label=False).tolist() == [1, 2, 0]
    records = [Record(id=f"{n}", audio=None, labels=labels) for n, labels in enumerate([("b", "c"), (), ("a",)])]
    assert label_targets(records, ["c", "b", "a"], is_multi_label=True).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    with pytest.raises(ValueError, match=r"Record '0' has the label 'b', which is none of the 2 classes\. Corr"):
        label_targets(records, ["c", "a"], is_multi_label=True)


def test_inputs_are_scaled_as_scikit_learn_scales_them():
    rng = np.random.default_rng(0)
    scale, shift = np.array([1, 100, 0.01, 3], np.float32), np.array([5, -70, 0, 9], np.float32)
    train, test = ((rng.standard_normal((n, 4)) * scale + shift).astype(np.float32) for n in (70_000, 5))  # two blocks
    train[:, 3] = test[:, 3] = 7.3
    test[0, 3] = 8.0
    found = standardised({"train": train, "test": test})
    scaler = StandardScaler().fit(train.astype(np.float64))
    for name, inputs in (("train", train), ("test", test)):
        np.testing.assert_allclose(found[name][:, :3], scaler.transform(inputs)[:, :3], atol=1e-4)
        assert not found[name][:, 3].any()  # constant in training: 0 everywhere
        assert found[name].dtype == np.float32

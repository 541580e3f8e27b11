# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Class-balanced sampling: weights by hand, draws by their probabilities, and the interface of `EpochSampler`."""

from collections import Counter

import numpy as np
import pytest
import torch
from data_helpers import RATE, TinyProcessor

from hf_audiolang.data.balanced import WeightedEpochSampler, sample_weights
from hf_audiolang.data.collate import Collator
from hf_audiolang.data.records import Record
from hf_audiolang.data.sampling import EpochSampler, build_train_loader

LABELS = [("dog",), ("dog", "rain"), ("cat",), ("dog", "dog"), ()]  # dog 3, rain 1, cat 1


def test_weights_of_ast_by_hand():
    rare, common = 1000 / 1.01, 1000 / 3.01
    wanted = [common, common + rare, rare, common, 0]
    assert sample_weights(LABELS, "ast").tolist() == pytest.approx(wanted)
    assert wanted[:2] == pytest.approx([332.2259, 1322.3249], abs=1e-4)


def test_weights_of_m2d_by_hand():
    # 1000 / 103 = 9.70874, 1000 / 101 = 9.90099; to the power of 2/3: 4.55102, their sum 7.27190, 4.61090
    assert sample_weights(LABELS, "m2d").tolist() == pytest.approx([4.55102, 7.27190, 4.61090, 4.55102, 0], abs=1e-5)


def test_unknown_schemes_are_refused():
    with pytest.raises(ValueError, match=r"Unknown `scheme` 'audiomae'. Choose one of \['ast', 'm2d'\]"):
        sample_weights(LABELS, "audiomae")


def test_clips_are_drawn_without_replacement_by_their_weights():
    """Two of weights 3, 1, 1, 0: the first stays out in 2 * 1/5 * 1/4 of the epochs, so 0.9, 0.55, 0.55, 0 are in."""
    sampler = WeightedEpochSampler([3.0, 1.0, 1.0, 0.0], 2, 1, seed=0)
    found = Counter()
    for epoch in range(4000):
        clips = sampler.epoch_indices(epoch).tolist()
        assert len(set(clips)) == 2
        found.update(clips)
    assert [found[clip] / 4000 for clip in range(4)] == pytest.approx([0.9, 0.55, 0.55, 0.0], abs=0.032)


def test_an_epoch_visits_its_clips_once_in_a_shuffled_order():
    sampler = WeightedEpochSampler(np.arange(60.0), 23, 5, seed=0)
    assert sampler.num_examples == 60
    assert (sampler.batch_size, sampler.global_batch_size, sampler.steps_per_epoch) == (5, 5, 4)
    assert sampler.locate(9) == (2, 1)
    epochs = [[index for step in range(4) for index in sampler.batch_indices(epoch, step)] for epoch in range(30)]
    for epoch, seen in enumerate(epochs):
        assert len(seen) == len(set(seen)) == 20
        assert set(seen) <= set(sampler.epoch_indices(epoch).tolist())
        assert seen != sorted(seen)
        assert 0 not in seen
    assert epochs[0] != epochs[1]
    assert np.mean(epochs) > 35  # heavy ones are drawn more often
    again = WeightedEpochSampler(np.arange(60.0), 23, 5, seed=0)
    assert again.batch_indices(1, 3) == sampler.batch_indices(1, 3)  # asked in any order
    assert WeightedEpochSampler(np.arange(60.0), 23, 5, seed=1).batch_indices(0, 0) != sampler.batch_indices(0, 0)
    with pytest.raises(IndexError, match="`step` 4"):
        sampler.batch_indices(0, 4)


def test_two_processes_see_the_clips_and_seeds_of_one():
    weights = 1 + np.arange(50) % 7
    one = WeightedEpochSampler(weights, 40, 8, seed=7)
    halves = [WeightedEpochSampler(weights, 40, 4, 7, rank, 2) for rank in range(2)]
    for epoch, step in ((0, 0), (3, 2), (0, 4)):
        assert [index for half in halves for index in half.batch_indices(epoch, step)] == one.batch_indices(
            epoch, step
        )
        seeds = [half.seed_of(epoch, step, position) for half in halves for position in range(4)]
        assert seeds == [one.seed_of(epoch, step, position) for position in range(8)]
        spares = [list(half.spare_indices(epoch, step)) for half in halves]
        batch = set(one.batch_indices(epoch, step))
        assert set(spares[0]).isdisjoint(spares[1])
        assert set(spares[0] + spares[1]) == set(one.epoch_indices(epoch).tolist()) - batch


def test_it_has_all_that_an_epoch_sampler_has():
    public = {name for name in dir(EpochSampler(9, 3, 0)) if not name.startswith("_")}
    has = {name for name in dir(WeightedEpochSampler(np.ones(12), 9, 3, 0)) if not name.startswith("_")}
    assert public - has <= {"seed", "process_index", "num_processes"}  # how it was built


def test_a_resumed_loader_continues_exactly_and_bad_clips_are_replaced():
    rng = np.random.default_rng(3)
    waves = [rng.uniform(-0.5, 0.5, 1600 + 160 * number).astype(np.float32) for number in range(40)]
    waves[3][:] = np.nan
    records = [Record(f"clip {n}", wave, sampling_rate=RATE, captions=(chr(200 + n),)) for n, wave in enumerate(waves)]
    weights = np.ones(40)
    weights[3] = 1e6  # drawn in every epoch
    weights[:3] = 0
    collator = Collator(TinyProcessor(), max_seconds=0.15, max_text_tokens=5, seed=4)

    def batches(start, number):
        sampler = WeightedEpochSampler(weights, 20, 6, seed=5)
        return list(build_train_loader(records, sampler, collator, start, number))

    uninterrupted = batches(0, 9)  # three epochs of three steps
    for start in (2, 7):
        for batch, wanted in zip(batches(start, 9 - start), uninterrupted[start:], strict=True):
            assert torch.equal(batch["input_features"], wanted["input_features"])
            assert torch.equal(batch["input_ids"], wanted["input_ids"])
            assert batch["skipped"] == wanted["skipped"]
    seen = [int(number) - 200 for batch in uninterrupted for number in batch["input_ids"][:, 1]]
    assert min(seen) > 3
    assert any("`clip 3`" in message for batch in uninterrupted for message in batch["skipped"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1.0, -1.0]}, "`weights` must be a finite number of at least 0"),
        ({"weights": [1.0, np.nan]}, "`weights` must be a finite number"),
        ({"weights": [[1.0, 1.0]]}, "for each clip"),
        ({"samples_per_epoch": 4}, "`samples_per_epoch` is 4, but 3 clips have a weight above 0"),
        ({"samples_per_epoch": 0}, "`samples_per_epoch` is 0"),
        ({"batch_size": 3}, "`batch_size` 3 on 1 process"),
    ],
)
def test_impossible_samplers_are_refused(arguments, message):
    settings = {"weights": [1.0, 0.0, 2.0, 1.0], "samples_per_epoch": 2, "batch_size": 1, "seed": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        WeightedEpochSampler(**settings)


def test_drawing_all_clips_is_noted(caplog):
    with caplog.at_level("WARNING", logger="hf_audiolang.data.balanced"):
        WeightedEpochSampler([1.0, 2.0, 0.5], 3, 1, seed=0)
    assert "weights have no effect" in caplog.text


def test_a_large_data_set_is_drawn_quickly_enough_to_be_drawn_at_all():
    sampler = WeightedEpochSampler(np.random.default_rng(0).uniform(0.1, 9, 2_000_000), 200_000, 64, seed=0)
    batch = sampler.batch_indices(0, sampler.steps_per_epoch - 1)
    assert len(set(batch)) == 64
    assert sampler.weights[sampler.epoch_indices(0)].mean() > 1.2 * sampler.weights.mean()

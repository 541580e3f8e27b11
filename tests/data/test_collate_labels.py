# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Batches for classification heads: targets, crops, augmentation, and what depends on which seed."""

import numpy as np
import pytest
import torch

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.data.collate import BadExampleError
from hf_audiolang.data.collate_labels import Augmentation, LabelCollator
from hf_audiolang.data.records import Record

RATE = 16000
CLASSES = ["bell", "cat", "dog"]


def extractor():
    return LogMelFeatureExtractor.from_preset("slap", mean=-7.0, std=4.0)


def record(name="a", seconds=1.0, labels=("dog",), events=(), seed=0):
    waveform = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    return Record(name, waveform, RATE, seconds, labels=labels, events=tuple(events))


def collator(kind="single", **options):
    return LabelCollator(extractor(), CLASSES, kind, **{"max_seconds": 2.0, **options})


def batch_of(collate, records, seeds=None):
    seeds = seeds or range(len(records))
    return collate.collate([collate.draw(item, seed) for item, seed in zip(records, seeds, strict=True)])


def test_class_ids_for_one_label_and_rows_for_several():
    records = [record("a", labels=("dog",)), record("b", labels=("bell",), seconds=0.5)]
    batch = batch_of(collator(), records)
    assert batch["labels"].tolist() == [2, 0]
    assert batch["labels"].dtype == torch.int64
    assert batch["audio_seconds"] == pytest.approx(1.5)
    records = [record("a", labels=("dog", "bell")), record("b", labels=())]
    assert batch_of(collator("multi"), records)["labels"].tolist() == [[1, 0, 1], [0, 0, 0]]


def test_frames_follow_the_crop():
    # 4 s with an event from 2.5 to 3 s: wherever the crop of 2 s begins, the event stays at its place in the sound
    events = [{"label": "cat", "onset": 2.5, "offset": 3.0}]
    waveform = np.zeros(4 * RATE, dtype=np.float32)
    waveform[int(2.5 * RATE) : 3 * RATE] = np.random.default_rng(0).normal(0, 0.3, RATE // 2)
    clip = Record("a", waveform, RATE, 4.0, events=tuple(events))
    collate = collator("frames")
    seen = set()
    for seed in range(8):
        batch = batch_of(collate, [clip], [seed])
        labels, features = batch["labels"][0], batch["input_features"][0]  # (T, C), (T, F)
        assert labels.shape == (features.shape[0], 3)
        is_loud = features.mean(1) > features.mean(1).min() + 1
        marked = labels[:, 1] == 1
        assert (is_loud[marked]).all()
        assert (is_loud & ~marked).sum() <= 6  # analysis windows reach over the borders of the event
        seen.add(int(marked.sum()))
    assert len(seen) > 1  # control: the crops differ


def test_short_clips_are_padded_only_where_that_is_asked_for():
    clips = [record(seconds=0.5)]
    assert batch_of(collator(), clips)["input_features"].shape[1] < 60
    padded = batch_of(collator(pads=True), clips)
    assert padded["input_features"].shape[1] > 190
    assert padded["audio_seconds"] == pytest.approx(0.5)


def test_mixup_mixes_sounds_and_labels_alike():
    records = [record("a", labels=("dog",), seed=1), record("b", labels=("cat",), seed=2)]
    collate = collator(augmentation=Augmentation(mixup_alpha=0.5))
    for seeds in ((0, 1), (2, 3), (4, 5)):
        labels = batch_of(collate, records, seeds)["labels"]
        torch.testing.assert_close(labels.sum(1), torch.ones(2))
        if not torch.equal(labels, torch.tensor([[0.0, 0, 1], [0, 1, 0]])):
            break
    else:
        pytest.fail("nothing was mixed")
    assert labels.dtype == torch.float32


def test_a_batch_depends_on_its_draw_seeds_alone():
    augmentation = Augmentation(0.4, 1.0, True, 8, 20, False, True)
    records = [record("a", 3.0, seed=1), record("b", 1.0, seed=2), record("c", 2.5, seed=3)]
    first, again = (batch_of(collator(augmentation=augmentation), records, [5, 6, 7]) for _ in range(2))
    other = batch_of(collator(augmentation=augmentation), records, [5, 6, 8])
    assert torch.equal(first["input_features"], again["input_features"])
    assert torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["input_features"], other["input_features"])
    state = torch.get_rng_state()
    batch_of(collator(augmentation=augmentation), records, [5, 6, 7])
    assert torch.equal(state, torch.get_rng_state())


def test_sounds_are_rolled_before_silence_is_added():
    clip = record(seconds=0.5)
    waveform = collator(pads=True, augmentation=Augmentation(roll=True)).draw(clip, 3).waveform
    assert len(waveform) == 2 * RATE
    assert (waveform[RATE // 2 :] == 0).all()
    plain = collator(pads=True).draw(clip, 3).waveform[: RATE // 2]
    assert not np.allclose(plain, waveform[: RATE // 2])


def test_augmentation_is_off_by_default_and_masks_where_it_is_on():
    records = [record("a", 1.5, seed=1), record("b", 1.5, seed=2)]
    plain = batch_of(collator(), records)["input_features"]
    masked = batch_of(collator(augmentation=Augmentation(spec_augment_mel=30, spec_augment_frames=60)), records)
    changed = masked["input_features"] != plain
    assert changed.any()
    assert (masked["input_features"][changed] == 0).all()
    cropped = batch_of(collator(augmentation=Augmentation(random_resize_crop=True)), records)["input_features"]
    assert not torch.equal(cropped, plain)
    assert cropped.shape == plain.shape


@pytest.mark.parametrize("name", ["mixup_alpha", "roll", "random_resize_crop"])
def test_frame_labels_refuse_what_moves_sounds(name):
    with pytest.raises(ValueError, match=f"do not follow.*{name}"):
        collator("frames", augmentation=Augmentation(**{name: True}))


def test_bad_sounds_are_named():
    with pytest.raises(BadExampleError, match="`broken`"):
        collator().draw(Record("broken", np.zeros(0, dtype=np.float32), RATE, labels=("dog",)), 0)

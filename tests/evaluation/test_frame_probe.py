# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Frame probe: a plain loop gives the same logits' values, times decide, clips are split, perfect frames reach 1."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_fakes import unit
from probe_fakes import FrameExtractor, LayerEncoder, clip, labelled
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler
from torch import nn

from hf_audiolang.evaluation import detection, frame_probe
from hf_audiolang.evaluation.feature_cache import FrozenFeatures
from hf_audiolang.evaluation.frame_probe import RECIPE, frame_probe_scores
from hf_audiolang.evaluation.metrics.detections import FrameScores, Smoothing
from hf_audiolang.evaluation.probe_protocol import ProbeSettings
from hf_audiolang.evaluation.probe_training import first_weights

CLASSES = ["dog", "cat"]
# rows 11-13 are a dog, 21-23 a cat, 1-3 neither
TABLE = np.repeat(6 * np.eye(4, 7), 10, axis=0).astype(np.float32) + unit(40, 7, seed=0)
QUICK = replace(RECIPE, num_epochs=12, batch_clips=32, learning_rates=(3e-2,))


def scene(number, seed):
    """A clip of 30 frames of 0.1 s: silence, a dog, silence, a cat; where they lie differs."""
    rng = np.random.default_rng((seed, number))
    dog, cat = int(rng.integers(2, 8)), int(rng.integers(17, 22))
    rows = rng.integers(1, 4, 30)
    rows[dog : dog + 6], rows[cat : cat + 5] = rng.integers(11, 14, 6), rng.integers(21, 24, 5)
    events = [
        {"label": "dog", "onset": dog / 10, "offset": (dog + 6) / 10},
        {"label": "cat", "onset": cat / 10, "offset": (cat + 5) / 10},
    ]
    return clip(rows, id=f"{seed}-{number}", events=tuple(events), labels=("dog", "cat"))


def scenes(count, seed):
    return [scene(number, seed) for number in range(count)]


def data_of(**fields):
    return labelled(
        scenes(20, 0), scenes(8, 1), validation=scenes(6, 2), classes=CLASSES, is_multi_label=True, **fields
    )


def test_frames_that_tell_reach_one_and_an_encoder_is_asked_once(tmp_path):
    encoder, settings = LayerEncoder([TABLE]), ProbeSettings(num_seeds=2, learning_rates=(0.1,), cache_dir=tmp_path)
    found = frame_probe.score_fold(encoder, FrameExtractor(), data_of(), settings)
    for name in ("mAP", "PSDS1", "PSDS2", "segment_F1", "event_F1"):
        assert found.values[f"frame_probe/{name}"] == pytest.approx([1, 1]), name
    assert encoder.num_clips == 34
    assert frame_probe.score_fold(encoder, FrameExtractor(), data_of(), settings).values == found.values
    assert encoder.num_clips == 34
    assert found.details["num_frames"] == 240
    assert found.details["frame_rate_hz"] == 10
    assert found.chance["frame_probe/mAP"] == pytest.approx((6 / 30 + 5 / 30) / 2)
    assert found.chance["frame_probe/PSDS1"] == 0
    deaf = LayerEncoder([np.tile(TABLE[:10], (4, 1))])  # dog and cat sound like silence
    assert frame_probe.score_fold(deaf, FrameExtractor(), data_of(), replace(settings, cache_dir=None)).values[
        "frame_probe/mAP"
    ][0] < 0.5  # fmt: skip


def features_of(count, seed, rate_hz=10.0):
    """Noisy frames of scenes of 7 to 12 frames with an event of each class in some of them."""
    rng = np.random.default_rng(seed)
    rows, lengths, records = [], [], []
    for number in range(count):
        length = int(rng.integers(7, 13))
        frames = rng.standard_normal((length, 5)).astype(np.float32) * [1, 30, 1, 1, 0.1] + 2
        events = []
        for column, label in enumerate(CLASSES):
            if rng.random() < 0.7:
                onset = rng.uniform(0, 0.4)
                offset = onset + rng.uniform(0.15, 0.25)
                centres = (np.arange(length) + 0.5) / rate_hz
                frames[(centres >= onset) & (centres < offset), column] += 2
                events.append({"label": label, "onset": onset, "offset": offset})
        rows.append(frames.astype(np.float32))
        lengths.append(length)
        record = clip([1], id=f"{seed}-{number}", events=tuple(events))
        records.append(replace(record, audio=None, duration=length / rate_hz))
    rates = np.full(count, rate_hz)
    return FrozenFeatures(np.concatenate(rows), np.array(lengths), np.arange(count), records, [], rates)


def targets_of(features):
    targets = []
    for record, length in zip(features.records, features.lengths, strict=True):
        centres = (np.arange(length) + 0.5) / 10
        of_clip = np.zeros((length, 2), dtype=np.float32)
        for event in record.events:
            is_heard = (centres >= event["onset"]) & (centres < event["offset"])
            of_clip[is_heard, CLASSES.index(event["label"])] = 1
        targets.append(of_clip)
    return np.concatenate(targets)


def test_equal_to_a_plain_loop():
    sets = {
        name: features_of(count, seed) for seed, (name, count) in enumerate((("train", 25), ("dev", 9), ("test", 12)))
    }
    found = frame_probe_scores(sets, CLASSES, seeds=[42], recipe=QUICK)
    scaler = StandardScaler().fit(sets["train"].rows.astype(np.float64))
    x, x_dev, x_test = (torch.tensor(scaler.transform(sets[n].rows), dtype=torch.float32) for n in sets)
    y, y_dev, y_test = (targets_of(sets[name]) for name in sets)
    generator = torch.Generator().manual_seed(42)
    weights = first_weights("mean", 5, 2, QUICK, generator)
    layer = nn.Linear(5, 2)
    layer.load_state_dict({name: weights[f"classifier.{name}"] for name in ("weight", "bias")})
    optimizer = torch.optim.Adam(layer.parameters())
    num_steps, step, best = 12 * int(np.ceil(len(x) / 32)), 0, (-1, -np.inf, 0, None)
    for epoch in range(1, 13):
        for rows in torch.randperm(len(x), generator=generator).split(32):
            optimizer.param_groups[0]["lr"] = 3e-2 * (0.1 + 0.9 * (1 + np.cos(np.pi * step / num_steps)) / 2)
            optimizer.zero_grad()
            nn.BCEWithLogitsLoss()(layer(x[rows]), torch.tensor(y)[rows]).backward()
            optimizer.step()
            step += 1
        with torch.no_grad():
            dev, loss = layer(x_dev).numpy(), nn.BCEWithLogitsLoss()(layer(x_dev), torch.tensor(y_dev)).item()
            score = average_precision_score(y_dev, dev, average="macro")
            if (score, -loss) > best[:2]:
                best = (score, -loss, epoch, layer(x_test).numpy())
    assert found.details["epochs"] == [best[2]]
    assert found.details["dev_scores"] == pytest.approx([best[0]], abs=1e-6)
    expected = average_precision_score(y_test, best[3], average="macro")
    assert found.values["frame_probe/mAP"] == pytest.approx([expected], abs=1e-6)
    edges = [np.arange(length + 1) / 10 for length in sets["test"].lengths]
    parts = np.split(best[3], np.cumsum(sets["test"].lengths)[:-1])
    scores = [FrameScores(logits, of_clip) for logits, of_clip in zip(parts, edges, strict=True)]
    events = detection.score(scores, sets["test"].records, CLASSES, Smoothing(3))
    for name in ("PSDS1", "PSDS2", "segment_F1", "event_F1"):
        assert found.values[f"frame_probe/{name}"] == pytest.approx([events[f"detection/{name}"]], abs=1e-6)


def test_an_offset_moves_the_frames():
    sets = {name: features_of(12, seed) for seed, name in enumerate(("train", "dev", "test"))}
    plain = frame_probe._targets(sets["test"], CLASSES, 0.0)
    np.testing.assert_array_equal(plain, targets_of(sets["test"]))
    moved = frame_probe._targets(sets["test"], CLASSES, 0.1)  # as if everything was heard a frame earlier
    first = int(sets["test"].lengths[0])
    np.testing.assert_array_equal(moved[: first - 1], plain[1:first])
    scored = frame_probe._scored(sets["test"], plain, 0.1)
    duration = sets["test"].records[0].duration
    np.testing.assert_allclose(
        scored.frame_scores[0].edges, [0, *(np.arange(1, first) / 10 + 0.1).clip(max=duration), duration]
    )


def test_without_validation_clips_some_clips_choose_and_none_is_on_both_sides():
    train = features_of(30, 0)
    for _, kept, held_out in frame_probe._frame_rows({"train": train}, [42, 43]):
        clip_of_frame = np.repeat(np.arange(30), train.lengths)
        assert not set(clip_of_frame[kept]) & set(clip_of_frame[held_out])
        assert sorted(np.concatenate([kept, held_out])) == list(range(len(train.rows)))
        assert 1 <= len(set(clip_of_frame[held_out])) <= 6
    sets = {"train": train, "test": features_of(12, 1)}
    assert len(frame_probe_scores(sets, CLASSES, seeds=[42, 43], recipe=QUICK).values["frame_probe/mAP"]) == 2


def test_faulty_events_are_named_before_anything_is_encoded():
    encoder, data = LayerEncoder([TABLE]), data_of()
    data.test.append(clip([1], id="odd", events=({"label": "cow", "onset": 0.0, "offset": 0.05},)))
    with pytest.raises(ValueError, match=r"Record 'odd', event row 0: the label 'cow' is not among the 2 `labels`"):
        frame_probe.score_fold(encoder, FrameExtractor(), data, ProbeSettings())
    assert encoder.num_clips == 0

"""Probes by pooling: what each pooling can hear, the protocol around them, what is reported and what is refused."""

import numpy as np
import pytest
import torch
from evaluation_fakes import unit
from probe_fakes import FrameEncoder, FrameExtractor, System, clip, frames_of
from scipy.stats import t as student
from sklearn.metrics import average_precision_score

from hf_audiolang.data.records import RecordView
from hf_audiolang.data.sound_scenes import SoundScenes, materialize
from hf_audiolang.evaluation import probe, report_scenes
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.probe_training import ProbeRecipe
from hf_audiolang.evaluation.report import collect, markdown_table
from hf_audiolang.evaluation.results import TaskResult

QUICK = ProbeRecipe(learning_rates=(3e-3, 1e-2), num_epochs=30, batch_clips=32)
WIDTH = 12
CODES = 6 * unit(4, WIDTH, seed=8)
# rows 1-3, 11-13, 21-23 of the table belong to class 0, 1 and 2
TABLE = np.repeat(5 * np.eye(4, 7), 10, axis=0).astype(np.float32) + unit(40, 7, seed=0)


def needles(count, seed, num_needles=1):
    """Clips of 25 to 40 frames of noise; `num_needles` of them (None: all) have the code of the class added."""
    rng = np.random.default_rng(seed)
    clips, labels = [], []
    for n in range(count):
        num_frames = int(rng.integers(25, 41))
        frames = rng.standard_normal((num_frames, WIDTH)).astype(np.float32)
        frames[rng.permutation(num_frames)[:num_needles]] += CODES[n % 4]
        clips.append(frames)
        labels.append((f"class {n % 4}",))
    return clips, labels


def classes_of_frames(count, seed=0):
    """Records of three classes in turn, one to three frames each."""
    rng = np.random.default_rng(seed)
    rows = [[int(n % 3 * 10 + rng.integers(1, 4)) for _ in range(rng.integers(1, 4))] for n in range(count)]
    return [clip(row, id=f"{seed}-{n}", labels=(f"class {n % 3}",)) for n, row in enumerate(rows)]


def test_attention_finds_the_one_frame_that_tells_and_the_mean_does_not():
    sets = [frames_of(*needles(count, seed)) for count, seed in ((240, 0), (120, 1))]
    found = probe.probe_frames(*sets, num_seeds=2, recipe=QUICK)
    assert min(found["attention"].scores) > 0.9
    assert max(found["mean"].scores) < 0.65
    everywhere = [frames_of(*needles(count, seed, num_needles=None)) for count, seed in ((80, 0), (60, 1))]
    control = probe.probe_frames(*everywhere, poolings=("mean",), num_seeds=1, recipe=QUICK)
    assert control["mean"].scores == [1.0]


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_shift_and_scale_of_the_features_do_not_matter(pooling):
    (train, labels), (test, test_labels) = needles(60, 0, 9), needles(40, 1, 9)
    scale = (2.0 ** np.arange(-6, 6)).astype(np.float32)
    shift = np.arange(WIDTH, dtype=np.float32) * scale

    def scores(train, test):
        sets = frames_of(train, labels), frames_of(test, test_labels)
        return probe.probe_frames(*sets, poolings=(pooling,), num_seeds=2, recipe=QUICK)[pooling]

    plain = scores(train, test)
    moved = scores(*([frames * scale + shift for frames in clips] for clips in (train, test)))
    assert moved.scores == pytest.approx(plain.scores, abs=1.5 / 40)  # a clip on the border
    assert min(plain.scores) > 0.4
    assert max(scores(train, [frames * scale + shift for frames in test]).scores) < min(plain.scores) - 0.1  # control
    dead = [np.concatenate([frames, np.full((len(frames), 1), 7.3, np.float32)], axis=1) for frames in test]
    known = [np.concatenate([frames, np.full((len(frames), 1), 7.3, np.float32)], axis=1) for frames in train]
    assert min(scores(known, dead).scores) > 0.4  # a constant feature stays at 0, it is not divided by its deviation


def test_inputs_have_mean_0_and_deviation_1_on_the_training_clips():
    train, test = frames_of(*needles(9, 0)), frames_of(*needles(5, 1))
    for pooling, of_train, of_test in (
        ("mean", train.clip_means(), test.clip_means()),
        ("attention", train.rows, test.rows),
    ):
        found = probe._standardised(pooling, {"train": train, "test": test})
        expected = (of_train - of_train.mean(0)) / of_train.std(0)
        np.testing.assert_allclose(found["train"][0], expected, atol=1e-5)
        np.testing.assert_allclose(found["test"][0], (of_test - of_train.mean(0)) / of_train.std(0), atol=1e-5)


def test_given_dev_clips_choose_and_all_training_clips_train():
    """With misleading dev clips the chosen epoch is early and low; with true ones it is late."""
    train, test = frames_of(*needles(48, 0, None)), frames_of(*needles(40, 1, None))
    clips, labels = needles(40, 2, None)
    wrong = [labels[(n + 1) % 40] for n in range(40)]
    options = {"poolings": ("mean",), "num_seeds": 1, "recipe": QUICK}
    true = probe.probe_frames(train, test, dev=frames_of(clips, labels), **options)["mean"]
    misled = probe.probe_frames(train, test, dev=frames_of(clips, wrong), **options)["mean"]
    assert true.num_dev_clips == misled.num_dev_clips == 40
    assert true.dev_scores == true.scores == [1.0]
    assert true.epochs[0] > misled.epochs[0]
    assert misled.dev_scores[0] < 0.7


def test_evaluation_reports_both_poolings_with_chance_interval_and_record():
    train, test = classes_of_frames(120), classes_of_frames(9, seed=1)
    test.append(clip([1, 2], id="0-0", labels=("class 1",)))  # of class 0 under another name; an id of `train`
    encoder = FrameEncoder(TABLE).train()
    before = encoder.table.detach().clone()
    result = probe.evaluate(System(encoder), FrameExtractor(), train, test)
    assert dict(result) == pytest.approx({"probe_mean/accuracy": 0.9, "probe_attention/accuracy": 0.9})
    assert result.chance == {"probe_mean/accuracy": 1 / 3, "probe_attention/accuracy": 1 / 3}
    record = result.record
    assert record["ci95"] == pytest.approx({"probe_mean/accuracy": 0, "probe_attention/accuracy": 0})
    said = {
        "task": "clip_probe", "num_clips": 10, "num_train_clips": 120, "num_classes": 3,
        "num_features": 7, "num_heads": 7, "num_seeds": 3, "num_shared_ids": 1,
        "dev_data": "10% of each class of the training clips",
    }  # fmt: skip
    assert {name: record[name] for name in said} == said
    for of_pooling in record["poolings"].values():
        assert of_pooling["scores"] == pytest.approx([0.9] * 3)
        assert of_pooling["num_dev_clips"] == 12
        assert set(of_pooling["learning_rates"]) <= {1e-4, 3e-4, 1e-3, 3e-3, 1e-2}
        assert all(1 <= epoch <= 50 for epoch in of_pooling["epochs"])
    assert encoder.training
    assert encoder.dropout.training
    assert encoder.table.grad is None
    torch.testing.assert_close(encoder.table, before, rtol=0, atol=0)
    assert encoder.num_clips == 130  # each clip once, whatever the number of probes


def test_several_labels_give_the_map_of_the_labels_that_the_test_clips_have(tmp_path):
    rng = np.random.default_rng(3)

    def mixtures(count, seed, num_classes):
        rows = [rng.permutation(num_classes)[: rng.integers(0, 3)] for _ in range(count)]  # none, one or two
        return [
            clip([int(10 * k + rng.integers(1, 4)) for k in of_clip] + [31, 32], id=f"{seed}-{n}",
                 labels=tuple(f"class {k}" for k in of_clip))
            for n, of_clip in enumerate(rows)
        ]  # fmt: skip

    train, test = mixtures(60, 0, 3), mixtures(20, 1, 2)  # no test clip of class 2
    test[0] = clip([31, 31], id="wrong", labels=("class 0",))
    options = {"is_multi_label": True, "poolings": ["mean"], "num_seeds": 2, "cache_dir": tmp_path}
    encoder = FrameEncoder(TABLE)
    result = probe.evaluate(encoder, FrameExtractor(), train, test, **options)
    assert set(result) == {"probe_mean/mAP"}
    assert 0.7 < result["probe_mean/mAP"] < 1
    record = result.record
    assert (record["task"], record["num_classes"]) == ("tagging_probe", 3)
    scores = record["poolings"]["mean"]["scores"]
    assert record["poolings"]["mean"]["n_classes_scored"] == 2
    assert result["probe_mean/mAP"] == pytest.approx(np.mean(scores))
    interval = student.interval(0.95, 1, loc=np.mean(scores), scale=np.std(scores, ddof=1) / 2**0.5)
    assert record["ci95"]["probe_mean/mAP"] == pytest.approx((interval[1] - interval[0]) / 2)
    shares = [np.mean([f"class {k}" in of_clip.labels for of_clip in test]) for k in (0, 1)]
    assert result.chance["probe_mean/mAP"] == pytest.approx(np.mean(shares))
    encoder.num_clips = 0
    again = probe.evaluate(encoder, FrameExtractor(), train, test, **options)
    assert encoder.num_clips == 0  # read from the folder
    assert dict(again) == dict(result)
    assert probe.evaluate(encoder, FrameExtractor(), train, test, **{**options, "num_seeds": 1}).record["ci95"] == {}


def test_the_reported_map_is_that_of_the_logits(monkeypatch):
    labels = [("a",), ("b",), ("a", "b"), (), ("a",), ("b",), ("a", "b"), ()] * 4
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((2, 5)).astype(np.float32) for _ in labels]
    train, test = frames_of(clips, labels), frames_of(clips[::-1][:8], labels[:8])
    seen = []
    predict = probe.predict
    monkeypatch.setattr(probe, "predict", lambda *args: seen.append(predict(*args)) or seen[-1])
    found = probe.probe_frames(train, test, is_multi_label=True, num_seeds=2, recipe=QUICK)
    wanted = np.array([["a" in of_clip, "b" in of_clip] for of_clip in labels[:8]])
    for logits, pooling in zip(seen, ("mean", "attention"), strict=True):
        expected = [average_precision_score(wanted, of_seed.numpy(), average="macro") for of_seed in logits[0]]
        assert found[pooling].scores == pytest.approx(expected)


def test_a_sweep_takes_one_thread_and_gives_the_others_back(monkeypatch):
    seen = []
    train_sweep = probe.train_sweep
    monkeypatch.setattr(
        probe, "train_sweep", lambda *args, **more: seen.append(torch.get_num_threads()) or train_sweep(*args, **more)
    )
    before = torch.get_num_threads()
    features = frames_of(*needles(12, 0))
    try:
        torch.set_num_threads(2)
        probe.probe_frames(features, features, poolings=["mean"], num_seeds=1, recipe=QUICK)
        assert (seen, torch.get_num_threads()) == ([1], 2)
        with pytest.raises(ValueError, match="Three give an interval"):
            probe.probe_frames(features, features, num_seeds=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("labels", [(), ("class 0", "class 1")])
def test_labels_are_checked_before_anything_is_encoded(labels):
    encoder, good = FrameEncoder(TABLE), classes_of_frames(12)

    def ask(train, test, **options):
        return probe.evaluate(encoder, FrameExtractor(), train, test, **options)

    message = r"`test`: record 'odd' must have exactly one label, got .* pass `is_multi_label=True`"
    with pytest.raises(ValueError, match=message):
        ask(good, [clip([1], id="odd", labels=labels)])
    unseen = [*good, clip([31], id="new", labels=("class 3",))]
    for options in ({}, {"is_multi_label": True}):
        with pytest.raises(ValueError, match=r"`test` has 1 labels that `train` lacks, got \['class 3'\]\. Add train"):
            ask(good, unseen, **options)
    with pytest.raises(ValueError, match=r"`dev` has 1 labels that `train` lacks.* or leave their clips out"):
        ask(good, good, dev=unseen)
    with pytest.raises(ValueError, match=r"`train` has 1 classes, got \['class 0'\]\. A probe needs 2 or more"):
        ask(good[::3], good[::3])
    with pytest.raises(ValueError, match=r"`poolings` must name some of \['attention', 'mean'\], got \['max'\]\. Cho"):
        ask(good, good, poolings=["max"])
    with pytest.raises(ValueError, match=r"`num_seeds` must be at least 1, got 0\. Three give an interval"):
        ask(good, good, num_seeds=0)
    assert encoder.num_clips == 0


def test_clips_that_cannot_be_probed_are_refused():
    good = classes_of_frames(12)
    broken = [clip([np.nan], id=f"{n}", labels=("class 0",)) for n in range(3)]
    options = AudioOptions(max_bad_fraction=1)
    with pytest.raises(ValueError, match=r"no readable clip, got 3 records\. Check its files"):
        probe.evaluate(FrameEncoder(TABLE), FrameExtractor(), good, broken, options=options)
    table = TABLE.copy()
    table[1:4] = np.nan
    with pytest.raises(ValueError, match=r"not finite, the first belongs to clip '0-0'\. Check the weights"):
        probe.evaluate(FrameEncoder(table), FrameExtractor(), good, good)
    with pytest.raises(ValueError, match=r"`train` has 3 clips, of which none can be .* Give validation clips"):
        probe.evaluate(FrameEncoder(TABLE), FrameExtractor(), good[:3], good)
    silent = [clip([31, 32], id="silent")]
    with pytest.raises(ValueError, match=r"no positive in any of its 3 classes\. Check that the label names"):
        probe.evaluate(FrameEncoder(TABLE), FrameExtractor(), good, silent, is_multi_label=True)


def test_scenes_are_probed_on_clips_of_another_seed(monkeypatch):
    given = []

    def remember(model, processor, train, test, *, is_multi_label, **options):
        given.append((train, test, is_multi_label, options))
        name = f"probe_mean/{'mAP' if is_multi_label else 'accuracy'}"
        record = {"task": name, "num_clips": len(test), "num_skipped": 0, "ci95": {name: 0.0123}}
        return TaskResult({name: 0.5}, {}, record)

    monkeypatch.setattr(report_scenes.probe, "evaluate", remember)
    extractor = FrameExtractor()
    extractor.sampling_rate = 16000
    scenes = {"duration": (1.0, 1.5), "n_events": (1, 2), "seed": 5}
    sizes = {"test_size": 10, "single_size": 40}
    results = report_scenes.scene_probes(None, extractor, scene_options=scenes, num_seeds=4, **sizes)
    (single_train, single_test, *_), (mixed_train, mixed_test, *_) = given
    assert [is_multi_label for _, _, is_multi_label, _ in given] == [False, True]
    assert {options["num_seeds"] for *_, options in given} == {4}
    assert all(len(record.labels) == 1 for part in (single_train, single_test) for record in part)
    assert len({record.labels for record in single_train}) == 32
    assert len({label for record in mixed_train for label in record.labels}) == 32
    sounds = [
        record.audio.tobytes() for part in (single_train, single_test, mixed_train, mixed_test) for record in part
    ]
    assert len(set(sounds)) == len(sounds)
    trained_on = RecordView(materialize(SoundScenes("train", 30, **scenes), num_workers=0))
    assert not {record.audio.tobytes() for record in trained_on} & set(sounds)  # nor any clip of pre-training
    table = markdown_table(collect(results))
    assert "| probe on mean pooling, mixtures, mAP | 50.0 |" in table
    assert "probe_mean/mAP +- 1.2" in table
    assert f"trained on {len(mixed_train)} clips of train, seed 6." in table

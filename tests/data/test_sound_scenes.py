import json
from itertools import combinations, pairwise

import numpy as np
import pytest

from hf_audiolang.data.scene_splits import TEST_PARTS
from hf_audiolang.data.sound_scenes import (
    CLASSES,
    SoundScenes,
    held_out_pairs,
    main,
    materialize,
    oracle_ceilings,
    unseen_class_names,
)

QUICK = {"duration": (2.0, 8.0), "n_events": (1, 3)}
COLUMNS = [
    "id", "audio", "duration", "captions", "labels", "label_ids", "events", "phrases", "qa", "mode", "part", "seed",
]  # fmt: skip


def structures(dataset):
    return [dataset.structure(index) for index in range(len(dataset))]


def log_mel(signal):
    """(T, 40) in dB, by the textbook: Hann windows, power spectrum, triangles on the mel scale."""
    windows = np.lib.stride_tricks.sliding_window_view(signal, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(windows, 512)) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2840 * np.log10(1 + 7900 / 700) / 2840, 42)) - 1)
    hz = np.arange(257)[:, None] * 16_000 / 512
    rising, falling = (hz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hz) / np.diff(edges)[1:]
    return 10 * np.log10(power @ np.maximum(0, np.minimum(rising, falling)) + 1e-10)


def third_octaves_db(signal):
    """(frames, bands) of 40 ms windows every 20 ms."""
    edges = [40, *(1000 * 2 ** ((k - 0.5) / 3) for k in range(-9, 10))]
    padded = np.concatenate([signal, np.zeros(640)])
    power = np.abs(np.fft.rfft([padded[k : k + 640] * np.hanning(640) for k in range(0, len(signal), 320)], 2048)) ** 2
    hz = np.fft.rfftfreq(2048, 1 / 16_000)
    bands = [power[:, (hz >= low) & (hz < high)].sum(1) for low, high in pairwise(edges)]
    return 10 * np.log10(np.stack(bands, axis=1) + 1e-12)


def test_rows_have_the_columns_of_the_description():
    dataset = SoundScenes("train", 20, **QUICK)
    row = dataset[3]
    assert list(row) == COLUMNS
    assert row["audio"]["array"].dtype == np.float32
    assert row["audio"]["array"].shape == (round(row["duration"] * 16_000),)
    assert [CLASSES[k] for k in row["label_ids"]] == row["labels"]
    assert list(row["events"][0]) == ["label", "onset", "offset", "level_db", "loudness", "pitch", "speed", "count"]
    assert len({other["id"] for other in structures(dataset)}) == 20
    assert {key: value for key, value in row.items() if key != "audio"} == dataset.structure(3)
    json.dumps(dataset.structure(3))  # plain types only


def test_a_row_depends_on_its_index_alone():
    forwards = SoundScenes("validation", 12, **QUICK)
    backwards = SoundScenes("validation", 60, **QUICK)
    for index in reversed(range(12)):
        first, second = backwards[index], forwards[index]
        np.testing.assert_array_equal(first["audio"].pop("array"), second["audio"].pop("array"))
        assert first == second
    assert SoundScenes("validation", 12, seed=1, **QUICK).structure(0)["events"] != forwards.structure(0)["events"]
    assert SoundScenes("train", 12, **QUICK).structure(0)["events"] != forwards.structure(0)["events"]
    assert forwards.structure(-1) == forwards.structure(11)


KNOWN = {
    "duration": 2.04,
    "captions": ["a quiet engine followed by chirping crickets", "a faint cricket after an engine runs"],
    "events": [("engine", 0.053, 0.907, -37.1), ("cricket", 1.032, 1.862, -37.4)],
}


def test_structure_is_the_one_written_down():
    """Integers and choices only, so every machine gives these rows."""
    row = SoundScenes("train", 3000, **QUICK).structure(0)
    assert row["duration"] == KNOWN["duration"]
    assert row["captions"][:2] == KNOWN["captions"]
    assert [(e["label"], e["onset"], e["offset"], e["level_db"]) for e in row["events"]] == KNOWN["events"]


@pytest.mark.parametrize("split", ["train", "test", "composition", "zero_shot", "long", "ood_level"])
def test_audio_is_sound_and_events_lie_inside(split):
    dataset = SoundScenes(split, 40, n_events=(1, 5), duration=(20.0, 30.0) if split == "long" else (1.5, 6.0))
    for index in range(0, 40, 6):
        row = dataset[index]
        audio = row["audio"]["array"]
        assert np.all(np.isfinite(audio))
        assert np.abs(audio).max() < 1
        assert np.abs(audio).reshape(-1, 160).max(axis=1).min() > 0  # the background never stops
    for row in structures(dataset):
        onsets = [event["onset"] for event in row["events"]]
        assert onsets == sorted(onsets)
        for event in row["events"]:
            assert 0 <= event["onset"] < event["offset"] <= row["duration"]
            assert round(event["offset"] - event["onset"], 3) >= 0.3
            assert round(event["onset"], 3) == event["onset"]


def test_modes_are_laid_out_as_named():
    modes = {}
    for row in structures(SoundScenes("train", 400, duration=(1.0, 30.0))):
        events, labels = row["events"], [event["label"] for event in row["events"]]
        modes[row["mode"]] = modes.get(row["mode"], 0) + 1
        gaps = [after["onset"] - before["offset"] for before, after in pairwise(events)]
        if row["mode"] == "single":
            assert len(events) == 1
        elif row["mode"] == "repeat":
            assert labels[0] == labels[1]
            assert gaps[0] >= 0.0999
        else:
            assert len(set(labels)) == len(labels)
        if row["mode"] == "sequence":
            assert min(gaps) >= 0.0999
        if row["mode"] == "overlap":
            long, short = events
            assert 0.75 * row["duration"] <= long["offset"] - long["onset"] + 0.001 <= 0.96 * row["duration"]
            assert long["onset"] + 0.0999 <= short["onset"] < short["offset"] <= long["offset"] - 0.0999
        if row["mode"] == "mixed":
            assert len(events) >= 4
            assert sum(gap < 0 for gap in gaps) == 1
    assert set(modes) == {"single", "sequence", "overlap", "repeat", "mixed"}
    assert 0.02 < modes["repeat"] / 400 < 0.09


def test_every_event_is_audible():
    """6 dB over all else in one third-octave band for 100 ms or half of its own active time."""
    dataset = SoundScenes("train", 1000, duration=(2.0, 5.0), n_events=(2, 4))
    overlaps = [k for k in range(300) if dataset.scene(k).mode in ("overlap", "mixed")][:25]
    similar = SoundScenes("train", 1000, duration=2.0, n_events=2, classes=["rain", "hiss", "applause", "clapping"])
    masking = [k for k in range(300) if similar.scene(k).mode == "overlap"][:15]
    chosen = [(dataset, k) for k in [*range(12), *overlaps]] + [(similar, k) for k in masking]
    for dataset, index in chosen:
        background, *events = dataset.stems(index)
        for k, event in enumerate(dataset.scene(index).events):
            part = slice(16 * event.onset_ms, 16 * event.offset_ms)
            others = background + sum((stem for j, stem in enumerate(events) if j != k), np.zeros_like(background))
            own, rest = third_octaves_db(events[k][part]), third_octaves_db(others[part])
            total = 10 * np.log10(np.sum(10 ** (own / 10), axis=1))
            needed = max(1, min(5, np.sum(total > total.max() - 20) // 2))
            assert np.max(np.sum(own - rest >= 6, axis=0)) >= needed, (index, event)


def test_levels_are_the_annotated_ones():
    dataset = SoundScenes("validation", 40, **QUICK)
    for index in range(12):
        background, *events = dataset.stems(index)
        mix = background + sum(events)
        is_free = np.abs(mix) <= 0.95  # of the limiter
        np.testing.assert_allclose(mix[is_free], dataset.render(index)[is_free], atol=1e-6)
        assert -61 < 10 * np.log10(np.mean(background**2)) < -44
        for stem, event in zip(events, dataset.structure(index)["events"], strict=True):
            start, end = round(event["onset"] * 16_000), round(event["offset"] * 16_000)
            sound = stem[start:end]
            assert not stem[:start].any()
            assert not stem[end:].any()
            assert sound[:160].any()  # it begins within 10 ms
            powers = [np.mean(sound[k : k + 320] ** 2) for k in range(0, len(sound), 320)]
            active = np.mean([power for power in powers if power > max(powers) / 1000])
            assert 10 * np.log10(active) == pytest.approx(event["level_db"], abs=0.2)
            middle = {"soft": -36, "neutral": -26, "loud": -16}[event["loudness"]]
            assert abs(event["level_db"] - middle) <= 1.5


def test_held_out_pairs_meet_in_composition_only():
    pairs = {frozenset(pair) for pair in held_out_pairs()}
    assert len(pairs) == 74
    for split in ("train", "validation", "test", "long", "ood_level"):
        for row in structures(SoundScenes(split, 300)):
            assert not any(frozenset(pair) in pairs for pair in combinations(row["labels"], 2))
    composition = structures(SoundScenes("composition", 200, **QUICK))
    for row in composition:
        assert any(frozenset(pair) in pairs for pair in combinations(row["labels"], 2))
    met = {frozenset(pair) for row in composition for pair in combinations(row["labels"], 2)} & pairs
    assert len(met) > 50


def test_test_split_has_its_three_parts():
    rows = structures(SoundScenes("test", 300, **QUICK))
    parts = [row["part"] for row in rows]
    assert [parts.count(name) for name in ("collision_free", "order_pairs", "plain")] == [150, 60, 90]
    bags = [tuple(sorted(event["label"] for event in row["events"])) for row in rows]
    for row, bag in zip(rows, bags, strict=True):
        if row["part"] == "collision_free":
            assert bags.count(bag) == 1
            assert len(bag) >= 2
        elif row["part"] == "order_pairs":
            assert bags.count(bag) == 2
            assert row["mode"] == "sequence"
    assert any(len(bag) == 1 for bag in bags)
    assert {row["part"] for row in structures(SoundScenes("train", 5))} == {""}
    ceilings = oracle_ceilings(SoundScenes("test", 300, **QUICK))
    assert ceilings["ordered"]["text_to_audio/R@1"] > 0.9  # 0.67 without the collision-free part
    assert ceilings["ordered"]["text_to_audio/R@1"] > ceilings["bag"]["text_to_audio/R@1"] + 0.05


def test_zero_shot_takes_classes_in_turn():
    rows = structures(SoundScenes("zero_shot", 64, **QUICK))
    assert [row["labels"] for row in rows] == [[label] for label in CLASSES] * 2
    assert {row["events"][0]["loudness"] for row in rows} == {"soft", "neutral", "loud"}


def test_long_and_ood_level_are_outside_of_training():
    assert all(20 <= row["duration"] <= 30 for row in structures(SoundScenes("long", 30)))
    for row in structures(SoundScenes("ood_level", 60, **QUICK)):
        for event in row["events"]:
            assert event["loudness"] == "neutral"
            assert not -37.5 <= event["level_db"] <= -14.5
        assert not any(word in caption.split() for caption in row["captions"] for word in ("loud", "quiet", "faint"))


def test_unseen_classes_are_absent_from_training_only():
    unseen = set(unseen_class_names(4))
    assert len(unseen) == 4
    train = SoundScenes("train", 400, unseen_classes=4)
    assert {label for row in structures(train) for label in row["labels"]} == set(CLASSES) - unseen
    zero_shot = SoundScenes("zero_shot", 32, unseen_classes=4)
    assert {label for row in structures(zero_shot) for label in row["labels"]} == set(CLASSES)
    assert train.labels == CLASSES


def test_classes_and_numbers_of_events_can_be_chosen():
    rows = structures(SoundScenes("train", 60, classes=["siren", "bell", "rain", "drum"], n_events=2, duration=3))
    assert {label for row in rows for label in row["labels"]} == {"siren", "bell", "rain", "drum"}
    assert {len(row["events"]) for row in rows} == {2}
    assert {row["duration"] for row in rows} == {3.0}
    durations = [row["duration"] for row in structures(SoundScenes("train", 500, duration=(1.0, 30.0)))]
    assert abs(np.mean(np.log(durations)) - np.log(30) / 2) < 0.15  # log-uniform
    assert min(durations) < 1.3
    assert max(durations) > 25


def test_classes_are_separable_but_not_trivially():
    """Nearest centroid on time mean and standard deviation of the log-mel, relative to the clip's loudest value.

    The task must be possible for a linear look at the spectrum, and leave something to learn.
    """

    def features(seed, size):
        dataset = SoundScenes("zero_shot", size, seed=seed, duration=3.0)
        mels = [log_mel(dataset.render(index)) for index in range(size)]
        mels = [np.maximum(mel - mel.max(), -40) for mel in mels]
        return np.array([np.concatenate([mel.mean(0), mel.std(0)]) for mel in mels]), np.arange(size) % 32

    (known, labels), (asked, truth) = features(1, 512), features(2, 256)
    scale = known.std(0)
    centroids = np.array([known[labels == k].mean(0) for k in range(32)])
    guesses = np.argmin((((asked[:, None] - centroids) / scale) ** 2).sum(-1), axis=1)
    assert 0.6 < np.mean(guesses == truth) < 0.9


@pytest.mark.parametrize(
    ("options", "change"),
    [({"lowpass": 1000.0}, "dull"), ({"reverb": True}, "tail"), ({"codec": "mulaw"}, "steps")],
)
def test_effects_change_the_audio_and_nothing_else(options, change):
    plain, other = SoundScenes("test", 20, **QUICK), SoundScenes("test", 20, **QUICK, **options)
    assert plain.structure(2) == other.structure(2)
    before, after = plain.render(2), other.render(2)
    assert before.shape == after.shape
    assert np.abs(after).max() < 1
    if change == "dull":
        ratio = (np.abs(np.fft.rfft(after)) + 1e-9) / (np.abs(np.fft.rfft(before)) + 1e-9)
        assert np.median(ratio[-len(ratio) // 4 :]) < 0.05  # above 6 kHz
        assert np.median(ratio[: len(ratio) // 40]) > 0.95  # below 200 Hz
    elif change == "tail":
        end = round(plain.structure(2)["events"][-1]["offset"] * 16_000)
        assert np.std(after[end : end + 800]) > 1.5 * np.std(before[end : end + 800])
    else:
        assert len(np.unique(after)) <= 255
        assert np.corrcoef(before, after)[0, 1] > 0.99


def test_other_sampling_rates_are_longer_arrays_of_the_same_sound():
    row = SoundScenes("train", 5, sampling_rate=44_100, **QUICK)[1]
    plain = SoundScenes("train", 5, **QUICK)[1]
    assert row["audio"]["sampling_rate"] == 44_100
    assert len(row["audio"]["array"]) == round(row["duration"] * 44_100)
    assert np.std(row["audio"]["array"]) == pytest.approx(np.std(plain["audio"]["array"]), rel=0.01)


@pytest.mark.parametrize(
    ("split", "size", "options", "message"),
    [
        ("dev", 5, {}, r"Unknown `split` 'dev'. Choose one of \['train'"),
        ("train", 0, {}, "`size` must lie between 1"),
        ("train", 5, {"duration": (5.0, 2.0)}, "`duration` must lie between 1.0 and 2.0"),
        ("train", 5, {"duration": 0.2}, "`duration` must lie between 1.0"),
        ("train", 5, {"duration": (1.0, 2.0, 3.0)}, "`duration` must be a number or a pair"),
        ("train", 5, {"duration": 500.0}, "`duration` must lie between"),
        ("train", 5, {"n_events": (0, 3)}, "`n_events` must lie between 1 and 3, got 0"),
        ("train", 5, {"n_events": (1, 9)}, "`n_events` must lie between 1 and 5, got 9"),
        ("train", 5, {"n_events": (4, 5), "duration": 2.0}, "hold at most 3"),
        ("train", 5, {"classes": ["siren", "trumpet"]}, r"Unknown class name 'trumpet'. Choose one of \['beep'"),
        ("train", 5, {"classes": ["siren", "siren"]}, "`classes` must be different class names"),
        ("train", 5, {"classes": ["siren"], "n_events": (3, 3)}, "Pass more classes or fewer events"),
        ("composition", 5, {"classes": ["siren", "beep"]}, "contain no held-out pair"),
        ("test", 5, {"n_events": 1}, "needs scenes with 2 events"),
        ("test", 5, {"duration": 1.0}, "needs scenes with 2 events"),
        ("train", 5, {"sampling_rate": 8000}, "`sampling_rate` must lie between 16000"),
        ("train", 5, {"paraphrase": "free"}, "Unknown `paraphrase` 'free'"),
        ("train", 5, {"codec": "mp3"}, "Unknown `codec` 'mp3'"),
        ("train", 5, {"lowpass": 5.0}, "`lowpass` must be between"),
        ("train", 5, {"version": 2}, "`version` must lie between 1 and 1"),
    ],
)
def test_impossible_requests_are_refused(split, size, options, message):
    with pytest.raises(ValueError, match=message):
        SoundScenes(split, size, **options)


def test_a_test_split_without_enough_label_sets_is_refused():
    dataset = SoundScenes("test", 300, classes=CLASSES[:5], n_events=(2, 2))
    with pytest.raises(ValueError, match="`size` is too large"):
        dataset.structure(0)


def test_indices_outside_are_refused():
    with pytest.raises(IndexError, match="`index` 5 is outside of the 5 rows"):
        SoundScenes("train", 5)[5]


def test_rendering_in_processes_changes_nothing():
    dataset = SoundScenes("train", 120, duration=(1.0, 1.5), n_events=(1, 2))
    alone, together = materialize(dataset, num_workers=1), materialize(dataset, num_workers=2)
    assert len(alone) == len(together) == 120
    for index in (0, 49, 50, 119, -1):
        first, second, plain = alone[index], together[index], dataset[index]
        np.testing.assert_array_equal(first["audio"].pop("array"), waveform := second["audio"].pop("array"))
        assert waveform.dtype == np.int16
        np.testing.assert_allclose(waveform / 32767, plain["audio"].pop("array"), atol=0.51 / 32767)
        assert first == second == plain
    assert [row["id"] for row in together] == [row["id"] for row in structures(dataset)]
    assert oracle_ceilings(together) == oracle_ceilings(dataset)
    with pytest.raises(IndexError):
        together[120]


def test_command_line_writes_a_folder(tmp_path, capsys):
    main(
        [
            "--split",
            "zero_shot",
            "--size",
            "2",
            "--out",
            str(tmp_path / "out"),
            "--duration",
            "1.0",
            "--format",
            "flac",
        ]
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "audio", "metadata.jsonl"]
    with pytest.raises(SystemExit):
        main(["--split", "nowhere", "--size", "2", "--out", str(tmp_path / "other")])
    assert "Unknown `split` 'nowhere'" in capsys.readouterr().err


def test_parts_follow_a_pattern_of_ten():
    assert [TEST_PARTS.count(name) for name in ("collision_free", "order_pairs", "plain")] == [5, 2, 3]

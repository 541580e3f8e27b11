"""Events from frame scores against hand-made cases, and the files they are written to."""

import csv
import json

import numpy as np
import pytest

from hf_audiolang.evaluation.events import DetectedEvent, EventRule, find_events, write_events
from hf_audiolang.evaluation.metrics.detections import FrameScores

PLAIN = EventRule(threshold=0.5, join_seconds=0.0)


def scores_of(*columns, step=0.1, seconds=None):
    """Frames of `step` seconds, the last one shorter if the clip is."""
    scores = np.stack(columns, axis=1).astype(np.float32)
    edges = np.arange(len(scores) + 1) * step
    edges[-1] = seconds or edges[-1]
    return FrameScores(scores, edges)


def found(item, labels, rule):
    return [(e.label, round(e.score, 6), e.start, e.end) for e in find_events(item, labels, rule)]


def test_runs_at_or_above_the_threshold_are_events_in_order_of_start_then_label():
    rain = [0.1, 0.9, 0.7, 0.4, 0.5, 0.2, 0.8]
    dog = [-0.9, 0.6, 0.2, -0.1, 0.3, 0.1, 0.1]
    assert found(scores_of(rain, dog, seconds=0.65), ["rain", "dog"], PLAIN) == [
        ("dog", 0.6, 0.1, 0.2),
        ("rain", 0.8, 0.1, 0.3),
        ("rain", 0.5, 0.4, 0.5),
        ("rain", 0.8, 0.6, 0.65),
    ]
    assert found(scores_of([0.24, 0.26, 0.24]), ["rain"], None) == [("rain", 0.26, 0.1, 0.2)]  # .25 unless told
    assert found(scores_of([0.1, -0.9]), ["rain"], EventRule()) == []


def test_detections_closer_than_the_gap_become_one_and_its_score_is_the_mean_of_all_its_frames():
    item = scores_of([0.6, -0.4, 0.2, 0.8, 0.1, 0.1, 0.1, 0.7])
    assert found(item, ["dog"], EventRule(0.5, join_seconds=0.2)) == [
        ("dog", 0.6, 0.0, 0.1),
        ("dog", 0.8, 0.3, 0.4),
        ("dog", 0.7, 0.7, 0.8),
    ]
    joined = [("dog", 0.4, 0.0, 0.4), ("dog", 0.7, 0.7, 0.8)]  # (.6 + 0 + .2 + .8) / 4: not below 0
    assert found(item, ["dog"], EventRule(0.5, join_seconds=0.21)) == joined
    assert found(item, ["dog"], EventRule(0.5, join_seconds=0.3)) == joined
    assert len(found(item, ["dog"], EventRule(0.5, join_seconds=0.31))) == 1


def test_short_detections_are_dropped_after_joining():
    item = scores_of([0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1])
    assert found(item, ["dog"], EventRule(0.5, join_seconds=0.2, min_seconds=0.3)) == [("dog", 0.633333, 0.0, 0.3)]
    assert found(item, ["dog"], EventRule(0.5, join_seconds=0.2, min_seconds=0.31)) == []


def test_the_median_filter_has_an_odd_width_and_scores_stay_unsmoothed():
    item = scores_of([0.1, 0.9, 0.1, 0.1, 0.9, 0.2, 0.8, 0.6, 0.1, 0.1])
    # medians of three: .2 at frame 4, .8 at 5, .6 at 6 and 7; the score is the mean of .2, .8, .6
    filtered = [("dog", 0.533333, 0.5, 0.8)]
    assert found(item, ["dog"], EventRule(0.5, 0.3, 0.0)) == filtered
    assert found(item, ["dog"], EventRule(0.5, 0.2, 0.0)) == filtered  # 2 frames: 3
    assert len(found(item, ["dog"], EventRule(0.5, 0.19, 0.0))) == 3  # 1.9 frames: 1
    assert found(item, ["dog"], EventRule(0.5, 0.5, 0.0)) == [("dog", 0.5, 0.5, 0.7)]
    assert found(scores_of([0.7], seconds=0.04), ["dog"], EventRule(0.5, 1.0)) == [("dog", 0.7, 0.0, 0.04)]


def test_faulty_scores_and_rules_are_refused():
    item = scores_of([0.1, 0.2], [0.1, np.nan])
    with pytest.raises(ValueError, match="NaN at frame 1, label 'dog'"):
        find_events(item, ["rain", "dog"])
    with pytest.raises(ValueError, match=r"expected \(T, 1\) and \(T \+ 1,\). Give one column per label"):
        find_events(item, ["rain"])
    with pytest.raises(ValueError, match=r"expected \(T, 2\)"):
        find_events(FrameScores(item.scores[:, :2], item.edges[:-1]), ["rain", "dog"])
    for threshold in (0, 1, -0.2, float("nan")):
        with pytest.raises(ValueError, match=r"`threshold` is a similarity in \(0, 1\), got"):
            EventRule(threshold)
    for name in ("median_seconds", "join_seconds", "min_seconds"):
        with pytest.raises(ValueError, match=f"`{name}` must be 0 or more, got -0.1"):
            EventRule(**{name: -0.1})


EVENTS = {
    "a, b.wav": [DetectedEvent("dog\tbark", 0.51234, 0.0, 1.28), DetectedEvent("rain", 0.4, 0.5, 3661.25)],
    "silent.wav": [],
}


def test_tables_and_json_hold_all_recordings(tmp_path):
    path = write_events(EVENTS, tmp_path / "new" / "events.csv")
    rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
    assert rows == [
        ["file", "label", "score", "start", "end"],
        ["a, b.wav", "dog\tbark", "0.5123", "0.000", "1.280"],
        ["a, b.wav", "rain", "0.4000", "0.500", "3661.250"],
    ]
    stored = json.loads(write_events(EVENTS, str(tmp_path / "events.JSON")).read_text())
    assert stored["silent.wav"] == []
    assert stored["a, b.wav"][1] == {"label": "rain", "score": 0.4, "start": 0.5, "end": 3661.25}
    assert stored["a, b.wav"][1] == EVENTS["a, b.wav"][1].to_dict()


def test_a_label_track_holds_one_recording(tmp_path):
    path = write_events({"a, b.wav": EVENTS["a, b.wav"]}, tmp_path / "a.txt")
    assert path.read_text() == "0.000000\t1.280000\tdog bark\n0.500000\t3661.250000\train\n"
    with pytest.raises(ValueError, match="holds one recording, got 2"):
        write_events(EVENTS, tmp_path / "both.txt")
    with pytest.raises(ValueError, match=r"ends with '.xml'.*\['.csv', '.json', '.txt'\]"):
        write_events(EVENTS, tmp_path / "events.xml")
    assert not (tmp_path / "both.txt").exists()

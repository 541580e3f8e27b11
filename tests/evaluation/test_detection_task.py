"""Zero-shot detection: known frames against the metrics themselves, ground truth that is refused, smoothing apart."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableModel, TableProcessor

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import detection
from hf_audiolang.evaluation.frame_scores import FrameScoreOptions, embed_labels
from hf_audiolang.evaluation.metrics.detections import FrameScores, Segment, Smoothing, smooth_scores
from hf_audiolang.evaluation.metrics.event_scores import event_f1, segment_f1
from hf_audiolang.evaluation.metrics.psds import PSDS1, PSDS2, psds

LABELS = ["sound 0", "sound 1", "sound 2"]
TEXTS = np.eye(3, 6, dtype=np.float32)


def frame_table(*cosines):
    """Unit vectors with these cosines to the first two texts, and less to the third."""
    table = np.zeros((len(cosines), 6), dtype=np.float32)
    table[:, :2] = cosines
    table[:, 3] = np.sqrt(1 - (table**2).sum(axis=1))
    return table


TABLE = frame_table(
    (0.9, 0.1), (0.1, 0.8), (0.7, 0.2), (0.3, 0.6), (0.5, 0.55), (0.2, 0.1), (0.6, 0.3), (0.05, 0.9), (0.4, 0.15),
    (-0.9, -0.3),
)  # fmt: skip
# rows of the table per frame of 0.1 s, and the events; the third clip, five minutes, has none and so has "sound 2"
ROWS = (
    [5, 0, 2, 0, 0, 5, 5, 4, 5, 1, 3, 1, 1, 1, 5, 5, 6, 6, 5, 5],
    [5, 5, 3, 3, 1, 5, 6, 2, 6, 5, 4, 4, 4, 5],
    [9] * 3000 + [8, 8, 2, 2, 5],
    [5, 7, 7, 5, 0, 0, 2, 5, 3, 3, 3, 5],
)
EVENTS = (
    [("sound 0", 0.1, 0.5), ("sound 1", 0.9, 1.4), ("sound 0", 1.55, 1.95)],
    [("sound 1", 0.2, 0.5), ("sound 0", 0.6, 1.0)],
    [],
    [("sound 1", 0.1, 0.35), ("sound 0", 0.4, 0.7)],
)
METRICS = {
    "detection/PSDS1", "detection/PSDS2", "detection/PSDS1_no_spread", "detection/PSDS2_no_spread",
    "detection/segment_F1", "detection/event_F1",
}  # fmt: skip


def clip(name, rows, events):
    samples = np.repeat(np.array(rows, dtype=np.float32) / 100, FRAME_SAMPLES)
    events = tuple({"label": label, "onset": onset, "offset": offset} for label, onset, offset in events)
    return Record(id=name, audio=samples, sampling_rate=SAMPLING_RATE, events=events)


@pytest.fixture
def records():
    return [clip(f"clip {i}", *pair) for i, pair in enumerate(zip(ROWS, EVENTS, strict=True))]


@pytest.fixture
def model():
    return TableModel(TABLE, TEXTS)


def expected_values(smooth):
    """The metrics on hand-made tables of scores, with the classes that are heard."""
    frame_scores, seconds = {}, {}
    for name, rows in zip("abcd", ROWS, strict=True):
        scores, edges = smooth((TABLE[rows] @ TEXTS.T)[:, :2].astype(np.float64), np.arange(len(rows) + 1) / 10)
        frame_scores[name], seconds[name] = FrameScores(scores, edges), len(rows) / 10
    segments = [Segment(name, *event) for name, events in zip("abcd", EVENTS, strict=True) for event in events]
    case = (frame_scores, segments, LABELS[:2], seconds)
    return {
        "detection/PSDS1": psds(*case, PSDS1).psds,
        "detection/PSDS2": psds(*case, PSDS2).psds,
        "detection/PSDS1_no_spread": psds(*case, replace(PSDS1, alpha_st=0.0)).psds,
        "detection/PSDS2_no_spread": psds(*case, replace(PSDS2, alpha_st=0.0)).psds,
        "detection/segment_F1": segment_f1(*case).f1,
        "detection/event_F1": event_f1(*case).f1,
    }


@pytest.mark.filterwarnings("error")  # classes without an event are named in the record, not warned of
def test_values_are_those_of_the_smoothed_scores(model, records):
    result = detection.evaluate(model, TableProcessor(), records, LABELS)
    assert set(result) == METRICS
    expected = expected_values(lambda scores, edges: (smooth_scores(scores, 3), edges))
    assert result == pytest.approx(expected, abs=1e-6)
    assert 0 < result["detection/event_F1"] < result["detection/segment_F1"]
    joined = detection.evaluate(model, TableProcessor(), records, LABELS, median_frames=1, join_seconds=0.15)
    assert joined == pytest.approx(
        expected_values(lambda scores, edges: (smooth_scores(scores, 1, join_frames=2), edges)), abs=1e-6
    )
    assert joined != pytest.approx(dict(result), abs=1e-3)


def test_pooling_takes_the_highest_of_so_many_frames_and_makes_one_of_them(model, records):
    result = detection.evaluate(model, TableProcessor(), records, LABELS, pool_frames=4)

    def pool(scores, edges):
        blocks = [scores[start : start + 4].max(axis=0) for start in range(0, len(scores), 4)]
        return smooth_scores(np.stack(blocks), 3), np.append(edges[:-1:4], edges[-1])

    assert result == pytest.approx(expected_values(pool), abs=1e-6)
    assert result.record["smoothing"] == {"median_frames": 3, "join_seconds": 0.0, "pool_frames": 4}


def test_frames_that_match_their_events_reach_one_and_the_record_says_what_was_scored():
    table = np.eye(3, dtype=np.float32)
    records = [
        clip("a", [0] * 12 + [2] * 9 + [1] * 15, [("sound 0", 0, 1.2), ("sound 1", 2.1, 3.6)]),
        clip("b", [2] * 4 + [1] * 10, [("sound 1", 0.4, 1.4)]),
        clip("c", [2] * 20, []),
    ]
    result = detection.evaluate(TableModel(table, table), TableProcessor(), records, LABELS)
    assert result == pytest.approx(dict.fromkeys(METRICS, 1.0))
    record = result.record
    assert (record["task"], record["num_clips"], record["templates"]) == ("detection", 3, ["{label}"])
    assert (record["num_events"], record["num_classes"], record["num_classes_scored"]) == (3, 3, 2)
    assert record["frame_rate_hz"] == 10.0
    assert record["audio_seconds"] == pytest.approx(7.0)
    control = detection.evaluate(TableModel(table[[1, 2, 0]], table), TableProcessor(), records, LABELS)
    assert max(control.values()) < 0.7
    # a constant score: one detection per clip and class; of 4 + 2 + 2 segments 2 have sound 0, 4 have sound 1
    assert result.chance["detection/segment_F1"] == pytest.approx((4 / 10 + 8 / 12) / 2)
    assert result.chance["detection/event_F1"] == pytest.approx(0.0)
    assert result.chance["detection/PSDS1"] == 0.0
    assert set(result.chance) == METRICS


def test_prompts_are_bare_labels_unless_told_and_long_clips_are_windows(model, records):
    result = detection.evaluate(model, TableProcessor(), records, LABELS, options=FrameScoreOptions(0.5, 0.2))
    assert result == pytest.approx(dict(detection.evaluate(model, TableProcessor(), records, LABELS)))
    assert result.record["templates"] == ["{label}"]
    events = [
        replace(record, events=tuple({**event, "label": event["label"][-1:] + "_bark"} for event in record.events))
        for record in records
    ]
    names = {"0_bark": "sound 0", "1_bark": "sound 1"}
    named = detection.evaluate(model, TableProcessor(), events, list(names), ["a {label}"], label_text=names.get)
    assert named == pytest.approx(dict(result))
    assert named.record["templates"] == ["a {label}"]


def test_scores_are_made_once_for_every_smoothing(model, records):
    processor = TableProcessor()
    texts = embed_labels(model, processor, LABELS)
    scored = detection.frame_scores_of(model, processor, records, texts)
    for smoothing in (Smoothing(), Smoothing(1, 0.2), Smoothing(5, 0.0, 2)):
        found = detection.score(scored.frame_scores, scored.records, LABELS, smoothing)
        direct = detection.evaluate(
            model, processor, records, LABELS, median_frames=smoothing.median_frames,
            join_seconds=smoothing.join_seconds, pool_frames=smoothing.pool_frames,
        )  # fmt: skip
        assert found == direct
    np.testing.assert_allclose(scored.frame_scores[1].scores, TABLE[ROWS[1]] @ TEXTS.T, atol=1e-6)  # not smoothed


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (("sound 0", 0.5, 0.4), "the offset must come after the onset, got 0.5 and 0.4"),
        (("sound 0", 0.5, 0.5), "the offset must come after the onset"),
        (("sound 0", float("nan"), 0.5), "the offset must come after the onset"),
        (("sound 0", 0.5, 2.1), r"\[0.5, 2.1\] is outside of the clip, which is 2.000 s long"),
        (("sound 0", -0.1, 0.5), "outside of the clip"),
        (("sound 0", 2.0, 2.01), "outside of the clip"),
        (("sound 9", 0.1, 0.5), "the label 'sound 9' is not among the 3 `labels`"),
    ],
)
def test_faulty_events_are_refused_by_record_and_row(model, records, event, message):
    records[0] = clip("bad one", ROWS[0], [*EVENTS[0], event])
    with pytest.raises(ValueError, match=rf"Record 'bad one', event row 3: .*{message}"):
        detection.evaluate(model, TableProcessor(), records, LABELS)


def test_rounding_beyond_the_clip_is_cut(model, records):
    records[0] = clip("exact", ROWS[0], [("sound 0", 0.0, 0.5), EVENTS[0][1], ("sound 0", 1.55, 2.0)])
    exact = detection.evaluate(model, TableProcessor(), records, LABELS)
    records[0] = clip("rounded", ROWS[0], [("sound 0", -0.001, 0.5), EVENTS[0][1], ("sound 0", 1.55, 2.0004)])
    assert detection.evaluate(model, TableProcessor(), records, LABELS) == exact


def test_scores_that_are_not_numbers_and_data_without_events_are_refused(model, records):
    scored = detection.frame_scores_of(model, TableProcessor(), records, TEXTS)
    scored.frame_scores[1].scores[2, 2] = np.nan  # of a class that is never heard
    with pytest.raises(ValueError, match="Record 'clip 1': the score of 'sound 2' is NaN at frame 2"):
        detection.score(scored.frame_scores, scored.records, LABELS, Smoothing())
    with pytest.raises(ValueError, match="None of the 1 records has an event"):
        detection.evaluate(model, TableProcessor(), records[2:3], LABELS)
    for faulty, message in (
        ({"median_frames": 2}, "`median_frames` must be odd"),
        ({"join_seconds": -1}, "`join_seconds` must be 0 or more"),
        ({"pool_frames": 0}, "`pool_frames` must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            detection.evaluate(model, TableProcessor(), records, LABELS, **faulty)


def test_unreadable_clips_are_left_out_with_their_events(model, records):
    broken = replace(records[1], audio=np.full(100, np.nan, dtype=np.float32), id="broken")
    result = detection.evaluate(model, TableProcessor(), [*records, broken], LABELS)
    assert result == detection.evaluate(model, TableProcessor(), records, LABELS)
    assert (result.record["num_skipped"], result.record["num_events"]) == (1, 7)
    assert "broken" in result.record["skipped"][0]


def test_faulty_events_are_found_before_any_clip_is_encoded(model, records):
    broken = [*records[:-1], replace(records[-1], events=({"label": "sound 1", "onset": 0.5, "offset": 0.4},))]
    model.get_audio_frame_features = lambda **inputs: pytest.fail("a clip was encoded")
    with pytest.raises(ValueError, match="event row 0: the offset must come after the onset"):
        detection.evaluate(model, TableProcessor(), broken, LABELS)

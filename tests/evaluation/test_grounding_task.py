"""Text-to-audio grounding: queries against the metric itself, phrases not heard, segments that are refused."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableModel, TableProcessor, unit
from sklearn.metrics import average_precision_score

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import grounding
from hf_audiolang.evaluation.metrics.detections import FrameScores, Segment, Smoothing, smooth_scores
from hf_audiolang.evaluation.metrics.psds import PSDSM, grounding_psds, psds

TABLE = unit(10, 6, seed=0)
TEXTS = unit(5, 6, seed=1)
STRICT = replace(PSDSM, dtc=0.7, gtc=0.7)


def clip(name, rows, *phrases):
    """Frames of 0.1 s that name rows of the table; (phrase, segments) each."""
    samples = np.repeat(np.array(rows, dtype=np.float32) / 100, FRAME_SAMPLES)
    phrases = tuple({"phrase": phrase, "segments": segments} for phrase, segments in phrases)
    return Record(id=name, audio=samples, sampling_rate=SAMPLING_RATE, phrases=phrases)


ROWS = np.random.default_rng(3).integers(0, 10, 40)
OTHER_ROWS = np.random.default_rng(4).integers(0, 10, 25)


@pytest.fixture
def records():
    return [
        clip(
            "a", ROWS, ("a dog 0", [[0.0, 1.0], [2.0, 3.1]]), ("not heard 4", [[0, 0]]), ("two cats 1", [[1.5, 2.2]])
        ),
        clip("silent", [1, 2], ("never 4", [])),
        clip("b", OTHER_ROWS, ("a dog 0", [[0, 0], [0.4, 2.5]])),
        clip("no phrase", [4, 4]),
    ]


@pytest.fixture
def model():
    return TableModel(TABLE, TEXTS)


def queries():
    """(frame scores, segments, seconds) of the three queries, made by hand."""
    similarities = {"a0": TABLE[ROWS] @ TEXTS[0], "a1": TABLE[ROWS] @ TEXTS[1], "b0": TABLE[OTHER_ROWS] @ TEXTS[0]}
    frame_scores = {
        name: FrameScores(values[:, None].astype(np.float64), np.arange(len(values) + 1) / 10)
        for name, values in similarities.items()
    }
    times = [("a0", 0.0, 1.0), ("a0", 2.0, 3.1), ("a1", 1.5, 2.2), ("b0", 0.4, 2.5)]
    segments = [Segment(name, "phrase", onset, offset) for name, onset, offset in times]
    return frame_scores, segments, {"a0": 4.0, "a1": 4.0, "b0": 2.5}


def frame_precision():
    frame_scores, segments, _ = queries()
    values = []
    for name, item in frame_scores.items():
        centres = np.arange(len(item.scores)) / 10 + 0.05
        heard = [any(s.onset <= t < s.offset for s in segments if s.clip == name) for t in centres]
        values.append(average_precision_score(heard, item.scores[:, 0]))
    return np.mean(values)


def test_queries_are_phrases_of_clips_and_phrases_not_heard_are_left_out(model, records):
    result = grounding.evaluate(model, TableProcessor(), records)
    assert dict(result) == pytest.approx(
        {
            "grounding/PSDSm": grounding_psds(*queries()).psds,
            "grounding/PSDS1": grounding_psds(*queries(), scenario=STRICT).psds,
            "grounding/frame_AP": frame_precision(),
        },
        abs=1e-6,
    )
    assert result["grounding/PSDS1"] != result["grounding/PSDSm"]
    record = result.record
    assert (record["num_clips"], record["num_queries"], record["num_phrases_not_heard"]) == (2, 3, 1)
    assert record["smoothing"] == {"median_frames": 3, "join_seconds": 0.5, "pool_frames": 1}
    assert sum(shape[0] for shape in model.text_batches) == 2  # distinct phrases that are heard


def test_fixed_thresholds_are_an_option(records):
    near = TableModel(TABLE / 20, TEXTS)  # all cosines between two of the 50 thresholds
    every, few = (grounding.evaluate(near, TableProcessor(), records, thresholds=name) for name in ("all", "mga50"))
    frame_scores, segments, seconds = queries()
    frame_scores = {name: FrameScores(item.scores / 20, item.edges) for name, item in frame_scores.items()}
    expected = grounding_psds(frame_scores, segments, seconds, thresholds="mga50").psds
    assert few["grounding/PSDSm"] == pytest.approx(expected, abs=1e-6)
    assert few["grounding/PSDSm"] != pytest.approx(every["grounding/PSDSm"], abs=1e-3)
    assert few["grounding/frame_AP"] == every["grounding/frame_AP"]
    assert (every.record["thresholds"], few.record["thresholds"]) == ("all", "mga50")


def test_smoothing_is_a_choice(model, records):
    scored = grounding.frame_scores_of(model, TableProcessor(), records)
    assert [item.scores.shape for item in scored.frame_scores] == [(40, 2), (25, 1)]
    assert [record.id for record in scored.records] == ["a", "b"]
    frame_scores, segments, seconds = queries()
    pooled = {}
    for name, item in frame_scores.items():
        blocks = [item.scores[start : start + 2].max(axis=0) for start in range(0, len(item.scores), 2)]
        edges = np.append(item.edges[:-1:2], item.edges[-1])
        pooled[name] = FrameScores(smooth_scores(np.stack(blocks), 1, join_frames=2), edges)
    expected = psds(pooled, segments, ["phrase"], seconds, PSDSM).psds
    found = grounding.score(scored.frame_scores, scored.records, Smoothing(1, 0.4, 2))
    assert found["grounding/PSDSm"] == pytest.approx(expected, abs=1e-6)
    direct = grounding.evaluate(model, TableProcessor(), records, median_frames=1, join_seconds=0.4, pool_frames=2)
    assert direct == found
    official = grounding.score(scored.frame_scores, scored.records, Smoothing(3, 0.5))
    assert official == grounding.evaluate(model, TableProcessor(), records)
    assert official["grounding/PSDSm"] != found["grounding/PSDSm"]
    assert official["grounding/frame_AP"] == found["grounding/frame_AP"]  # of the raw scores


def test_frames_that_match_reach_one_and_chance_is_a_constant_score():
    table = np.eye(3, dtype=np.float32)
    rows = [2] * 10 + [0] * 20 + [2] * 10
    records = [clip("a", rows, ("sound 0", [[1.0, 3.0]])), clip("b", [1] * 30, ("sound 1", [[0.0, 3.0]]))]
    result = grounding.evaluate(TableModel(table, table), TableProcessor(), records)
    assert dict(result) == pytest.approx({"grounding/PSDSm": 1, "grounding/PSDS1": 1, "grounding/frame_AP": 1})
    # the constant covers half of "a", enough for .5, not for .7: a false positive in 7 s, 514 per hour of 800, comes
    # with the one right detection
    assert result.chance == pytest.approx(
        {
            "grounding/PSDSm": 1.0,
            "grounding/PSDS1": (800 - 3600 / 7) / 800 / 2,
            "grounding/frame_AP": (0.5 + 1) / 2,
        }
    )
    control = grounding.evaluate(TableModel(table[[1, 2, 0]], table), TableProcessor(), records)
    assert max(control["grounding/PSDS1"], control["grounding/frame_AP"]) < 0.8


def test_the_strict_score_asks_for_more_of_an_event():
    table = np.eye(3, dtype=np.float32)
    records = [clip("a", [0] * 12 + [2] * 28, ("sound 0", [[0.0, 2.0]]))]  # 60 % of it
    found = grounding.evaluate(TableModel(table, table), TableProcessor(), records)
    assert (found["grounding/PSDSm"], found["grounding/PSDS1"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ([0.5, 0.4], "the offset must come after the onset, got 0.5 and 0.4"),
        ([0.0, 2.6], "outside of the clip, which is 2.500 s long"),
    ],
)
def test_faulty_segments_are_refused_by_record_phrase_and_row(model, records, segment, message):
    records[2] = clip("bad one", OTHER_ROWS, ("a dog 0", [[0, 0], segment]))
    with pytest.raises(ValueError, match=f"Record 'bad one', phrase 'a dog 0', segment row 1: .*{message}"):
        grounding.evaluate(model, TableProcessor(), records)


def test_what_cannot_be_grounded_is_refused(model, records):
    with pytest.raises(ValueError, match="None of the 2 records has a phrase that is heard"):
        grounding.evaluate(model, TableProcessor(), [records[1], records[3]])
    with pytest.raises(ValueError, match="Record 'blank' has a blank phrase"):
        grounding.evaluate(model, TableProcessor(), [clip("blank", [1], (" ", [[0, 0.1]]))])
    with pytest.raises(ValueError, match=r"Unknown `thresholds` 'some'"):
        grounding.evaluate(model, TableProcessor(), records, thresholds="some")
    scored = grounding.frame_scores_of(model, TableProcessor(), records)
    scored.frame_scores[0].scores[5, 1] = np.nan
    with pytest.raises(ValueError, match="Record 'a': the score of 'two cats 1' is NaN at frame 5"):
        grounding.score(scored.frame_scores, scored.records, Smoothing())


def test_unreadable_clips_are_left_out(model, records):
    broken = replace(records[0], id="broken", audio=np.full(10, np.nan, dtype=np.float32))
    result = grounding.evaluate(model, TableProcessor(), [broken, *records])
    assert result == grounding.evaluate(model, TableProcessor(), records)
    assert result.record["num_skipped"] == 1

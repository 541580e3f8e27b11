"""Frame labels at the edges of events, and the frame score against scikit-learn on known frames."""

import numpy as np
import pytest
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableModel, TableProcessor, unit
from sklearn.metrics import average_precision_score

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import frames

LABELS = ["sound 0", "sound 1", "sound 2"]


def scene(name, rows, events):
    samples = np.repeat(np.array(rows, dtype=np.float32) / 100, FRAME_SAMPLES)
    events = tuple({"label": label, "onset": onset, "offset": offset} for label, onset, offset in events)
    return Record(id=name, audio=samples, sampling_rate=SAMPLING_RATE, events=events)


def test_a_frame_is_positive_if_its_centre_is_in_the_event():
    record = scene("edges", [0] * 5, [("sound 1", 0.05, 0.25), ("sound 2", 0.3501, 0.5), ("sound 2", 0.0, 0.01)])
    positives = frames.frame_labels(record, LABELS, 5, 10.0)  # centres 0.05 0.15 0.25 0.35 0.45
    assert positives.tolist() == [
        [False, True, False],  # onset belongs to the event
        [False, True, False],
        [False, False, False],  # offset does not
        [False, False, False],
        [False, False, True],
    ]
    with pytest.raises(ValueError, match="'edges' has an event labelled 'sound 1', which is not among the 2"):
        frames.frame_labels(record, ["sound 0", "sound 2"], 5, 10.0)


def test_frame_map_pools_the_frames_of_clips_of_different_lengths():
    rows = [[3, 7, 4, 9, 1], [5, 5, 2], [8, 6, 0, 2, 4, 7, 3]]
    events = [[("sound 0", 0.0, 0.2)], [("sound 1", 0.1, 0.3)], [("sound 0", 0.2, 0.5), ("sound 1", 0.4, 0.7)]]
    records = [scene(f"clip {i}", *pair) for i, pair in enumerate(zip(rows, events, strict=True))]
    table, text = unit(10, 6, seed=0), unit(3, 6, seed=1)
    model = TableModel(table, text)
    with pytest.warns(UserWarning, match="1 of 3 classes"):
        result = frames.evaluate(model, TableProcessor(), records, LABELS, ["{label}"])
    similarities = table[np.concatenate(rows)] @ text.T
    heard_0 = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    heard_1 = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1])
    expected = np.mean([
        average_precision_score(heard_0, similarities[:, 0]),
        average_precision_score(heard_1, similarities[:, 1]),
    ])  # fmt: skip
    assert result["frame/mAP"] == pytest.approx(expected)
    assert result["frame/n_classes_scored"] == 2
    assert result.chance["frame/mAP"] == pytest.approx((heard_0.mean() + heard_1.mean()) / 2)
    assert result.record["num_frames"] == 15
    assert result.record["frame_rate_hz"] == 10.0


def test_frames_that_match_their_events_reach_one():
    table = np.eye(3, dtype=np.float32)
    rows = [[0, 1, 1, 2], [2, 2, 0]]
    events = [
        [("sound 0", 0, 0.1), ("sound 1", 0.1, 0.3), ("sound 2", 0.3, 0.4)],
        [("sound 2", 0, 0.2), ("sound 0", 0.2, 0.3)],
    ]
    records = [scene(f"clip {i}", *pair) for i, pair in enumerate(zip(rows, events, strict=True))]
    result = frames.evaluate(TableModel(table, table), TableProcessor(), records, LABELS, ["{label}"])
    assert result["frame/mAP"] == 1.0
    control = frames.evaluate(TableModel(table[[1, 2, 0]], table), TableProcessor(), records, LABELS, ["{label}"])
    assert control["frame/mAP"] < 0.6

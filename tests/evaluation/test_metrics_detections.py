"""Smoothing of frame scores by hand; the rest of the module is tested with PSDS and F1."""

import numpy as np
import pytest

from hf_audiolang.evaluation.metrics.detections import FrameScores, Smoothing


def smoothed(scores, *numbers, step=0.1):
    scores = np.asarray(scores, dtype=np.float32)[:, None]
    item = Smoothing(*numbers).apply(FrameScores(scores, np.arange(len(scores) + 1) * step))
    return item.scores[:, 0].round(6).tolist(), item.edges.round(6).tolist()


def test_gaps_up_to_the_seconds_in_whole_frames_rounded_up_are_closed():
    scores = [0.9, 0.1, 0.2, 0.8, 0.1, 0.1, 0.1, 0.7]
    for seconds in (0.11, 0.15, 0.2):  # two frames
        assert smoothed(scores, 1, seconds)[0] == pytest.approx([0.9, 0.8, 0.8, 0.8, 0.1, 0.1, 0.1, 0.7])
    assert smoothed(scores, 1, 0.1)[0] == pytest.approx([0.9, 0.2, 0.2, 0.8, 0.1, 0.1, 0.1, 0.7])  # one frame
    assert smoothed(scores, 1, 0.21)[0] == pytest.approx([0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.7, 0.7])  # three
    assert smoothed([0.5], 3, 0.5) == ([0.5], [0.0, 0.1])


def test_frames_are_pooled_before_the_median_and_the_join():
    scores = [0.1, 0.9, 0.2, 0.3, 0.1, 0.6, 0.8]
    assert smoothed(scores, 1, 0.0, 2) == ([0.9, 0.3, 0.6, 0.8], [0.0, 0.2, 0.4, 0.6, 0.7])
    assert smoothed(scores, 3, 0.0, 2)[0] == pytest.approx([0.9, 0.6, 0.6, 0.8])
    assert smoothed(scores, 1, 0.15, 2)[0] == pytest.approx([0.9, 0.6, 0.6, 0.8])  # one frame of 0.2 s
    assert smoothed(scores, 1, 0.3, 2)[0] == pytest.approx([0.9, 0.8, 0.8, 0.8])  # two
    assert smoothed(scores, 1)[1] == pytest.approx(np.arange(8) / 10)


def test_numbers_out_of_range_are_refused():
    for numbers, message in (
        ({"median_frames": 4}, "`median_frames` must be odd and at least 1, got 4"),
        ({"median_frames": -1}, "`median_frames` must be odd and at least 1, got -1"),
        ({"join_seconds": -0.1}, "`join_seconds` must be 0 or more, got -0.1"),
        ({"pool_frames": 0}, "`pool_frames` must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Smoothing(**numbers)

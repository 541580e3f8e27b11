"""F1 with best thresholds against hand-counted cases and recorded values of sed_scores_eval 0.0.4."""

import numpy as np
import pytest
from detection_cases import LABELS, scene_case, uneven_case

from hf_audiolang.evaluation.metrics.event_scores import event_f1, segment_f1
from hf_audiolang.evaluation.metrics.psds import FrameScores, Segment

WIDE = {"onset_collar": 0.5, "offset_collar": 0.3, "offset_share": 0.5}
WIDER = {"onset_collar": 1.5, "offset_collar": 1.5, "offset_share": 0.5}  # several detections fit several events
# (seed, classes, classes with events) -> means over the classes with events of event F1 with the collars of DCASE,
# WIDE and WIDER, and of segment F1 with segments of 1 s and 0.35 s. sed_scores_eval refuses classes without events,
# so it got the columns of the others; its check against overlapping events of a class was switched off.
RECORDED = {
    (0, 3, 3): [
        0.05128205128205127,
        0.3717948717948718,
        0.8147435897435896,
        0.7807017543859649,
        0.6702508960573477,
    ],
    (1, 4, 3): [
        0.19694989106753813,
        0.4788359788359789,
        0.8690476190476191,
        0.7917027149507683,
        0.7357330106876386,
    ],
    (2, 5, 5): [
        0.12004608294930877,
        0.5205194805194805,
        0.7486753246753246,
        0.7143434343434343,
        0.6117761247033757,
    ],
    (3, 2, 2): [
        0.12424242424242424,
        0.3666666666666667,
        0.6227272727272728,
        0.7450980392156863,
        0.6476190476190476,
    ],
    (4, 6, 3): [
        0.2111111111111111,
        0.6499999999999999,
        0.8296296296296296,
        0.8058431101909362,
        0.724031279178338,
    ],
}


def one_clip(scores, *events, seconds=None, step=0.5):
    """One class "dog", frames of `step` seconds."""
    scores = np.asarray(scores, dtype=np.float64)[:, None]
    edges = np.arange(len(scores) + 1) * step
    segments = [Segment("a", "dog", onset, offset) for onset, offset in events]
    return {"a": FrameScores(scores, edges)}, segments, ["dog"], {"a": seconds or edges[-1]}


def all_values(case):
    event = [event_f1(*case, **collars).f1 for collars in ({}, WIDE, WIDER)]
    return event + [segment_f1(*case, segment_seconds=seconds).f1 for seconds in (1.0, 0.35)]


@pytest.mark.parametrize("key", RECORDED, ids=str)
def test_empty_clips_and_classes_score_what_sed_scores_eval_gives(key):
    case = uneven_case(*key)
    assert all_values(case) == pytest.approx(RECORDED[key], abs=1e-12)
    assert len(event_f1(*case).f1_per_class) == key[2]  # classes without an event are left out


def test_every_class_scores_what_sed_scores_eval_gives():
    event, segment = event_f1(*scene_case()), segment_f1(*scene_case())
    assert list(event.f1_per_class) == LABELS
    assert list(event.f1_per_class.values()) == pytest.approx([0.84375, 0.7868852459016393, 0.75], abs=1e-12)
    expected = [0.8780487804878049, 0.9523809523809524, 0.976]
    assert list(segment.f1_per_class.values()) == pytest.approx(expected, abs=1e-12)
    assert event.f1 == pytest.approx(0.7935450819672131, abs=1e-12)


def test_the_best_threshold_counts_as_by_hand():
    # at .8 the two frames [1, 2) are the event: TP 1 of 1; at .5 one more detection: 2 * 1 / (2 + 1)
    scores = [0.1, 0.1, 0.8, 0.9, 0.1, 0.1, 0.5, 0.1]
    found = event_f1(*one_clip(scores, (1.0, 2.0)))
    assert (found.f1, found.thresholds["dog"]) == (1.0, 0.8)
    # a second event, [3.5, 4), that no threshold gives alone: 1 TP of 2 events; with the false one at .5 worse
    assert event_f1(*one_clip(scores, (1.0, 2.0), (3.5, 4.0))).f1 == pytest.approx(2 / 3)
    # two events at once: both right from .5 on, 2 detections
    found = event_f1(*one_clip(scores, (1.0, 2.0), (3.0, 3.5)))
    assert (found.f1, found.thresholds["dog"]) == (1.0, 0.5)


def test_collars_hold_at_equality_and_the_offset_has_a_share_of_the_event():
    scores = [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]  # [1, 3.5)
    assert event_f1(*one_clip(scores, (1.2, 3.5))).f1 == 1.0
    assert event_f1(*one_clip(scores, (1.201, 3.5))).f1 == 0.0
    assert event_f1(*one_clip(scores, (0.8, 3.3))).f1 == 1.0
    assert event_f1(*one_clip(scores, (1.0, 4.1))).f1 == 1.0  # .6 off, 20 % of 3.1 s is .62
    assert event_f1(*one_clip(scores, (1.0, 4.2))).f1 == 0.0  # .7 off, .64 allowed
    assert event_f1(*one_clip(scores, (1.0, 4.1)), offset_share=0.0).f1 == 0.0
    assert event_f1(*one_clip(scores, (1.2, 3.5))).thresholds["dog"] == 1.0
    assert event_f1(*one_clip(scores, (1.201, 3.5))).thresholds["dog"] == np.inf


def test_a_detection_and_an_event_count_once_and_the_most_pairs_are_found():
    # one detection, two events of the same time: 1 TP of 2 events
    assert event_f1(*one_clip([0, 1, 1, 0], (0.5, 1.5), (0.5, 1.5))).f1 == pytest.approx(2 / 3)
    # detections [0, .5), [1, 1.5) and events A, B: the first fits both, the second only A: two pairs, not one
    case = one_clip([1, 0, 1, 0, 0], (0.5, 1.0), (0.0, 0.5))
    assert event_f1(*case, onset_collar=0.5, offset_collar=0.5).f1 == 1.0
    # two detections, one event within the collars of both: 1 TP, 2 detections
    assert event_f1(*one_clip([1, 0, 1, 0, 0], (0.5, 1.0)), onset_collar=0.5, offset_collar=0.5).f1 == pytest.approx(
        2 / 3
    )


def test_segments_are_active_by_any_overlap():
    # segments [0, 1) ... [3, 4); events touch 1 and 2; frames of .5 s: the fourth, [1.5, 2), is at .9
    scores = [0.1, 0.1, 0.2, 0.9, 0.3, 0.1, 0.6, 0.1]
    found = segment_f1(*one_clip(scores, (1.99, 2.01)))
    # at .9 segment 1: TP 1, FN 1 -> 2/3; at .6 also segment 3 -> 1/2 ; at .3 also segment 2 -> 2*2/(3 + 2)
    assert (found.f1, found.thresholds["dog"]) == (pytest.approx(4 / 5), 0.3)
    # borders do not touch: [1, 2) is segment 1 alone
    assert segment_f1(*one_clip(scores, (1.0, 2.0))).f1 == 1.0
    assert segment_f1(*one_clip(scores, (1.0, 2.0)), segment_seconds=0.5).f1 == pytest.approx(2 * 1 / (1 + 2))
    # always active: 4 segments, 2 with an event
    assert segment_f1(*one_clip(np.ones(8), (1.99, 2.01))).f1 == pytest.approx(2 * 2 / (4 + 2))


def test_a_frame_over_a_border_counts_in_both_segments_and_the_rest_of_a_clip_is_a_segment():
    case = one_clip([0.1, 0.9, 0.1, 0.1], (0.7, 1.4), step=0.6)  # frame 1 is [.6, 1.2)
    assert segment_f1(*case).f1 == 1.0
    frame_scores, segments, labels, _ = case
    # 2.4 s have three segments; scores end before a clip of 3.5 s: its fourth is never detected
    assert segment_f1(frame_scores, [Segment("a", "dog", 3.0, 3.4)], labels, {"a": 3.5}).f1 == 0.0
    silent = {**frame_scores, "b": FrameScores(np.full((2, 1), -np.inf), np.arange(3.0))}
    assert segment_f1(silent, segments, labels, {"a": 2.4, "b": 2.0}).f1 == 1.0


def test_clips_without_events_lower_both_scores():
    frame_scores, segments, labels, clip_seconds = one_clip([0.1, 0.8, 0.8, 0.1], (0.5, 1.5))
    noisy = {**frame_scores, "b": FrameScores(np.array([[0.9], [0.1]]), np.array([0, 0.5, 1.0]))}
    case = (noisy, segments, labels, {**clip_seconds, "b": 1.0})
    assert event_f1(*case).f1 == pytest.approx(2 / 3)
    assert segment_f1(*case).f1 == pytest.approx(4 / 5)
    assert event_f1(frame_scores, segments, labels, clip_seconds).f1 == 1.0


def test_malformed_arguments_are_refused():
    frame_scores, segments, labels, clip_seconds = one_clip([0.1, np.nan], (0.5, 1.0))
    for score in (event_f1, segment_f1):
        with pytest.raises(ValueError, match="clip 'a' is NaN at frame 1, label 'dog'"):
            score(frame_scores, segments, labels, clip_seconds)
        with pytest.raises(ValueError, match="needs at least one event"):
            score(*one_clip([0.1, 0.2]))
        with pytest.raises(ValueError, match=r"row 0.*outside of its clip"):
            score(*one_clip([0.1, 0.2], (0.5, 3.0)))

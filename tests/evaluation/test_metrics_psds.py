# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""PSDS against hand-computed cases, recorded values of sed_scores_eval 0.0.4 and a naive count per threshold."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from detection_cases import LABELS, scene_case, uneven_case

from hf_audiolang.evaluation.metrics.psds import (
    PSDS1,
    PSDS2,
    PSDSM,
    FrameScores,
    PsdsScenario,
    Segment,
    grounding_psds,
    psds,
    smooth_scores,
)

RATE = 3600.0  # false positives per hour of one in a second


def one_clip(scores, *events, seconds=None):
    """One class "dog", frames of 1 s."""
    scores = np.asarray(scores, dtype=np.float64)[:, None]
    segments = [Segment("a", "dog", onset, offset) for onset, offset in events]
    return (
        {"a": FrameScores(scores, np.arange(len(scores) + 1.0))},
        segments,
        ["dog"],
        {"a": float(seconds or len(scores))},
    )


CUSTOM = PsdsScenario(dtc=0.3, gtc=0.5, cttc=0.5, alpha_ct=1.0, alpha_st=0.5, max_efpr=1500.0)
# (seed, classes, classes with events) -> values of sed_scores_eval for the scenarios of `recorded_scenarios`
RECORDED = {
    (0, 3, 3): [
        0.0,
        0.03622004357298474,
        0.742706281096817,
        0.851366561866421,
        0.3592903828197946,
        0.3570477024879992,
    ],
    (1, 4, 3): [
        0.059537078216176535,
        0.15735683162153752,
        0.2554821581928231,
        0.6550513404595555,
        0.42083333333333334,
        0.23737659562202854,
    ],
    (2, 5, 5): [
        0.0034992950016301855,
        0.10856935366739287,
        0.5982408439672904,
        0.8018684311629207,
        0.3944444444444444,
        0.3784513719605576,
    ],
    (3, 2, 2): [
        0.2914851125635439,
        0.3802196804647785,
        0.435898573606476,
        0.5757822896915743,
        0.5529003267973855,
        0.6050518589036977,
    ],
    (4, 6, 3): [0.0, 0.07398978109762423, 0.0, 0.35544747744477156, 0.3045401493930906, 0.14660541435116925],
}


def recorded_scenarios():
    wide1, wide2 = replace(PSDS1, max_efpr=900.0), replace(PSDS2, max_efpr=900.0)
    return [wide1, replace(wide1, alpha_st=0.0), wide2, replace(wide2, alpha_st=0.0), PSDSM, CUSTOM]


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        (PSDS1, 0.10125077717918365),
        (PSDS2, 0.9701948942916901),
        (replace(PSDSM, max_efpr=100.0), 0.6892877492877493),
        (PSDSM, 0.9584294871794873),
    ],
)
def test_scenes_score_what_sed_scores_eval_gives(scenario, expected):
    assert psds(*scene_case(), scenario).psds == pytest.approx(expected, abs=1e-12)


def test_classes_score_without_the_spread_penalty():
    result = psds(*scene_case(), PSDS1)
    assert list(result.psds_per_class) == LABELS
    assert list(result.psds_per_class.values()) == pytest.approx([0.303333, 0.145556, 0.110385], abs=1e-6)
    # without the penalty the score is the mean over classes; with it, it is lower
    plain = psds(*scene_case(), replace(PSDS1, alpha_st=0.0)).psds
    assert plain == pytest.approx(np.mean(list(result.psds_per_class.values())), abs=1e-12)
    assert result.psds < plain


@pytest.mark.parametrize("key", RECORDED, ids=str)
def test_empty_clips_and_classes_score_what_sed_scores_eval_gives(key):
    case = uneven_case(*key)
    found = [psds(*case, scenario, empty_classes="zero").psds for scenario in recorded_scenarios()]
    assert found == pytest.approx(RECORDED[key], abs=1e-12)


def naive_counts(item, events, threshold, scenario):
    """(TP, FP) of one clip of one class at one threshold, detection by detection."""
    active = np.concatenate([[0], item.scores[:, 0] >= threshold, [0]])
    begins, ends = np.flatnonzero(np.diff(active) == 1), np.flatnonzero(np.diff(active) == -1)
    relevant, num_false = [], 0
    for onset, offset in zip(item.edges[begins], item.edges[ends], strict=True):
        inside = sum(max(0.0, min(offset, b) - max(onset, a)) for a, b in events)
        if inside >= scenario.dtc * (offset - onset) - 1e-9:
            relevant.append((onset, offset))
        else:
            num_false += 1
    covers = [sum(max(0.0, min(b, y) - max(a, x)) for x, y in relevant) / (b - a) for a, b in events]
    return sum(cover >= scenario.gtc - 1e-9 for cover in covers), num_false


def test_curve_equals_a_count_at_every_threshold():
    frame_scores, segments, _, clip_seconds = scene_case()
    noise = iter(0.35 * np.random.default_rng(0).standard_normal((40, 32, 1)))
    frame_scores = {
        clip: FrameScores((item.scores[:, 2:] + next(noise)).round(1), item.edges)
        for clip, item in frame_scores.items()
    }
    segments = [segment for segment in segments if segment.label == "speech"]  # none in every third clip
    scenario = PsdsScenario(dtc=0.3, gtc=0.4, max_efpr=900.0)
    result = psds(frame_scores, segments, ["speech"], clip_seconds, scenario)
    events = {clip: [(s.onset, s.offset) for s in segments if s.clip == clip] for clip in frame_scores}
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([item.scores.ravel() for item in frame_scores.values()])):
        counts = [naive_counts(item, events[clip], threshold, scenario) for clip, item in frame_scores.items()]
        hits, false = np.sum(counts, axis=0)
        points.append((RATE * false / sum(clip_seconds.values()), hits / len(segments)))
    expected = [max(y for x, y in points if x <= efpr + 1e-9) for efpr in result.efpr]
    assert len(result.efpr) > 10
    assert len(np.unique(result.etpr)) > 5
    np.testing.assert_allclose(result.etpr, expected, atol=1e-12)


def test_perfect_scores_give_one_and_all_equal_scores_nothing():
    assert psds(*one_clip([0, 0, 1, 1, 0, 0], (2, 4)), PSDS1).psds == pytest.approx(1.0)
    assert psds(*one_clip([0, 0, 0, 0, 0, 0], (2, 4)), PSDS1).psds == 0.0


def test_false_positive_costs_the_area_below_its_rate():
    # a false second at .9 stands above the event at .8: FP rate 3600 / 7200 s = 0.5 per hour before the TP counts
    case = one_clip([0.1, 0.9, 0.1, 0.8, 0.8, 0.1], (3, 5), seconds=7200)
    scenario = replace(PSDS1, max_efpr=2.0)
    assert psds(*case, scenario).psds == pytest.approx(0.75)
    assert psds(*case, replace(scenario, max_efpr=0.4)).psds == 0.0
    frame_scores, segments, labels, clip_seconds = case
    frame_scores = {**frame_scores, "b": FrameScores(np.full((3, 1), -np.inf), np.arange(4.0))}
    clip_seconds = {**clip_seconds, "b": 7200.0}
    # a silent clip without an event counts with its duration: half the rate; MGA-CLAP leaves it out
    assert psds(frame_scores, segments, labels, clip_seconds, scenario).psds == pytest.approx(0.875)
    assert psds(frame_scores, segments, labels, clip_seconds, scenario, drop_empty=True).psds == pytest.approx(0.75)


def test_tolerances_hold_at_equality():
    # the detection [1, 6) has 3.5 of its 5 s in the event (dtc .7) and covers 3.5 of 5 s of it (gtc .7)
    case = one_clip([0, 1, 1, 1, 1, 1, 0, 0, 0], (2.5, 7.5))
    assert psds(*case, PSDS1).psds == pytest.approx(1.0)
    assert psds(*case, replace(PSDS1, dtc=0.71)).psds == 0.0
    assert psds(*case, replace(PSDS1, gtc=0.71)).psds == 0.0


def test_detections_of_one_event_add_up():
    case = one_clip([1, 1, 0, 1, 0, 0], (0, 5))
    assert psds(*case, PsdsScenario(dtc=1.0, gtc=0.6)).psds == pytest.approx(1.0)
    # lower still, the whole clip is one detection with 5 of 6 s in the event: found too
    assert psds(*case, PsdsScenario(dtc=0.8, gtc=0.61)).psds == pytest.approx(1.0)
    assert psds(*case, PsdsScenario(dtc=0.9, gtc=0.61)).psds == 0.0


def cross_trigger_case():
    """One hour: "dog" fires at [0, 2) inside the cat's 100 s, then at its own event."""
    scores = np.full((300, 2), -np.inf)
    scores[0:2, 0], scores[200:210, 0], scores[0:100, 1] = 0.9, 0.8, 1.0
    frame_scores = {"a": FrameScores(scores, np.arange(301.0))}
    segments = [Segment("a", "cat", 0, 100), Segment("a", "dog", 200, 210)]
    return frame_scores, segments, ["dog", "cat"], {"a": 3600.0}


def test_cross_trigger_raises_the_effective_rate():
    # FP: 1 per hour. Cross-trigger: 1 in 100 s of cat = 36 per hour, weight .5: eFPR = 19 before the dog is found
    result = psds(*cross_trigger_case(), replace(PSDS2, alpha_st=0.0))
    assert result.psds_per_class == pytest.approx({"dog": 0.81, "cat": 1.0})
    assert result.psds == pytest.approx(0.905)
    # with the spread: mean 1/2 - std 1/2 below 19, then 1
    assert psds(*cross_trigger_case(), PSDS2).psds == pytest.approx(0.81)
    np.testing.assert_allclose(psds(*cross_trigger_case(), PSDS2).efpr, [0, 19, 100])


def test_class_without_events_is_left_out_with_a_warning_or_counts_zero():
    frame_scores, segments, labels, clip_seconds = uneven_case(1, 4, 3)
    plain = replace(CUSTOM, cttc=None, alpha_ct=0.0, alpha_st=0.0)
    with pytest.warns(UserWarning, match="1 of 4 classes have no event"):
        left_out = psds(frame_scores, segments, labels, clip_seconds, plain)
    as_zero = psds(frame_scores, segments, labels, clip_seconds, plain, empty_classes="zero")
    assert list(left_out.psds_per_class) == labels[:3]
    assert as_zero.psds_per_class["label3"] == 0.0
    assert as_zero.psds == pytest.approx(left_out.psds * 3 / 4, abs=1e-12)
    # left out altogether: the column is not looked at, and the cross-trigger mean is over the others
    columns = {clip: FrameScores(item.scores[:, :3], item.edges) for clip, item in frame_scores.items()}
    with pytest.warns(UserWarning, match="left out"):
        found = psds(frame_scores, segments, labels, clip_seconds, CUSTOM)
    assert found.psds == psds(columns, segments, labels[:3], clip_seconds, CUSTOM).psds


def test_order_monotone_maps_and_class_blocks_do_not_change_the_score(monkeypatch):
    frame_scores, segments, labels, clip_seconds = uneven_case(2, 5, 5)
    expected = psds(frame_scores, segments, labels, clip_seconds, CUSTOM).psds
    turned = {clip: FrameScores(np.exp(item.scores[:, ::-1]), item.edges) for clip, item in frame_scores.items()}
    turned = dict(reversed(turned.items()))
    monkeypatch.setitem(psds.__globals__, "CLASS_BLOCK", 2)
    assert psds(turned, segments[::-1], labels[::-1], clip_seconds, CUSTOM).psds == pytest.approx(expected, abs=1e-12)
    assert psds(frame_scores, segments, labels, clip_seconds, PSDS1).psds != pytest.approx(expected, abs=1e-3)


def test_fixed_thresholds_are_strict_and_only_these_count():
    case = one_clip([0.1, 0.9, 0.1, 0.8, 0.8, 0.1], (3, 5))
    wide = replace(PSDS1, max_efpr=1200.0)
    assert psds(*case, wide).psds == pytest.approx(0.5)  # FP at 3600 / 6 s = 600 per hour
    assert psds(*case, wide, thresholds=np.array([0.79, 0.2])).psds == pytest.approx(0.5)
    assert psds(*case, wide, thresholds=np.array([0.8, 0.05])).psds == 0.0  # .8 > .8 is false
    grid = np.unique(np.concatenate([item.scores.ravel() for item in scene_case()[0].values()])) - 1e-6
    assert psds(*scene_case(), PSDS1, thresholds=grid).psds == psds(*scene_case(), PSDS1).psds


def naive_smooth(active, join_frames):
    """Median over three frames, then gaps of up to `join_frames` between detections filled."""
    padded = np.concatenate([active[:1], active, active[-1:]])
    active = np.array([padded[k : k + 3].sum() >= 2 for k in range(len(active))])
    on = np.flatnonzero(active)
    for a, b in itertools.pairwise(on):
        if b - a - 1 <= join_frames:
            active[a:b] = True
    return active


@pytest.mark.parametrize("join_frames", [0, 1, 2, 5])
def test_smoothing_scores_equals_smoothing_the_detections_of_every_threshold(join_frames):
    scores = np.random.default_rng(0).standard_normal((41, 3)).round(1)
    smoothed = smooth_scores(scores, median_frames=3, join_frames=join_frames)
    assert (smoothed != scores).any()
    for threshold in np.unique(scores):
        for c in range(3):
            expected = naive_smooth(scores[:, c] > threshold, join_frames)
            np.testing.assert_array_equal(smoothed[:, c] > threshold, expected)


def grounding_case():
    centres = (np.arange(32) + 0.5) * 0.3125
    frame_scores, segments = {}, []
    for i in range(30):
        onset = 0.4 + 0.7 * ((5 * i) % 9)
        offset = onset + 0.9 + 0.5 * (i % 4)
        events = [(onset, offset)] + ([(offset + 0.9, offset + 1.6)] if i % 3 == 0 else [])
        events = [(round(a, 3), round(b, 3)) for a, b in events]
        heard = np.any([(a <= centres) & (centres < b) for a, b in events], axis=0)
        scores = (0.15 * np.sin(0.37 * i**2 + 1.3 * np.arange(32)) + 0.35 * heard).round(3)
        frame_scores[f"query{i}"] = FrameScores(scores[:, None], np.arange(33) * 0.3125)
        segments += [Segment(f"query{i}", f"phrase {i}", a, b) for a, b in events]
    return frame_scores, segments, dict.fromkeys(frame_scores, 10.0)


@pytest.mark.parametrize(("tolerance", "expected"), [(0.7, 0.91525), (0.5, 1.0), (0.1, 1.0)])
def test_grounding_with_fifty_thresholds_equals_the_curve_of_psds_eval(tolerance, expected):
    scenario = replace(PSDSM, dtc=tolerance, gtc=tolerance)
    found = grounding_psds(*grounding_case(), scenario=scenario, thresholds="mga50").psds
    assert found == pytest.approx(expected, abs=1e-9)
    # fewer thresholds can only miss operating points
    assert grounding_psds(*grounding_case(), scenario=scenario).psds >= found - 1e-12


def test_grounding_leaves_out_phrases_that_are_not_heard():
    frame_scores, segments, clip_seconds = grounding_case()
    strict = replace(PSDSM, dtc=0.7, gtc=0.7)
    expected = grounding_psds(frame_scores, segments, clip_seconds, scenario=strict).psds
    loud = FrameScores(np.ones((32, 1)), np.arange(33) * 0.3125)
    frame_scores, clip_seconds = {**frame_scores, "x": loud, "y": loud}, {**clip_seconds, "x": 10.0, "y": 10.0}
    absent = [Segment("x", "", 0, 0), *segments]
    assert grounding_psds(frame_scores, absent, clip_seconds, scenario=strict).psds == expected
    heard = [Segment("x", "", 0, 0.5), *segments]
    assert grounding_psds(frame_scores, heard, clip_seconds, scenario=strict).psds != expected  # control


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Segment("a", "dog", 3, 2), r"row 1, .*onset=3, offset=2.*the offset must come after the onset"),
        (Segment("a", "dog", 2, 2), "row 1.*the offset must come after the onset"),
        (Segment("a", "dog", math.nan, 2), "row 1.*the offset must come after the onset"),
        (Segment("a", "dog", 1, 4.01), r"row 1.*outside of its clip of 4.0 s"),
        (Segment("a", "dog", -0.1, 2), "row 1.*outside of its clip"),
        (Segment("b", "dog", 1, 2), "row 1.*clip='b'.*unknown clip"),
        (Segment("a", "cow", 1, 2), r"row 1.*unknown label. Use one of \['dog'\]"),
    ],
)
def test_faulty_segments_are_refused_by_row(event, message):
    frame_scores, segments, labels, clip_seconds = one_clip([0, 1, 1, 0], (1, 3))
    with pytest.raises(ValueError, match=message):
        psds(frame_scores, [*segments, event], labels, clip_seconds, PSDS1)
    if "label" not in message:
        with pytest.raises(ValueError, match=message):
            grounding_psds(frame_scores, [Segment("a", "", 0, 0), event], clip_seconds)


def test_faulty_scores_and_clips_are_refused():
    frame_scores, segments, labels, clip_seconds = one_clip([0, 1, math.nan, 0], (1, 3))
    with pytest.raises(ValueError, match="clip 'a' is NaN at frame 2, label 'dog'"):
        psds(frame_scores, segments, labels, clip_seconds, PSDS1)
    frame_scores, *_ = one_clip([0, 1, 1, 0], (1, 3))
    item = frame_scores["a"]
    with pytest.raises(ValueError, match="must hold the same clips, got 1 in only one of them: \\['b'\\]"):
        psds(frame_scores, segments, labels, {**clip_seconds, "b": 4.0}, PSDS1)
    with pytest.raises(ValueError, match="duration in seconds, above 0"):
        psds(frame_scores, segments, labels, {"a": 0.0}, PSDS1)
    with pytest.raises(ValueError, match="the end of the last frame too"):
        psds({"a": FrameScores(item.scores, item.edges[:-1])}, segments, labels, clip_seconds, PSDS1)
    with pytest.raises(ValueError, match="must rise from 0"):
        psds({"a": FrameScores(item.scores, item.edges[::-1])}, segments, labels, clip_seconds, PSDS1)
    with pytest.raises(ValueError, match="one name per score column"):
        psds(frame_scores, segments, ["dog", "dog"], clip_seconds, PSDS1)
    with pytest.raises(ValueError, match="needs at least one event"):
        psds(frame_scores, [], labels, clip_seconds, PSDS1)


def test_unknown_options_are_refused():
    case = one_clip([0, 1, 1, 0], (1, 3))
    with pytest.raises(ValueError, match="Choose one of \\['exclude', 'zero'\\]"):
        psds(*case, PSDS1, empty_classes="keep")
    with pytest.raises(ValueError, match="Choose one of \\['all', 'mga50'\\]"):
        grounding_psds(case[0], case[1], case[3], thresholds="some")
    with pytest.raises(ValueError, match=r"`dtc` .* got 1.5. Choose a value in \(0, 1\]"):
        PsdsScenario(dtc=1.5, gtc=0.5)
    with pytest.raises(ValueError, match="Give both, or leave both out"):
        replace(PSDS2, cttc=None)
    with pytest.raises(ValueError, match=r"`alpha_st` .* at least 0"):
        replace(PSDS1, alpha_st=-1.0)
    with pytest.raises(ValueError, match="positive and finite"):
        replace(PSDS1, max_efpr=0.0)
    with pytest.raises(ValueError, match="odd and at least 1, got 2"):
        smooth_scores(np.zeros((4, 1)), median_frames=2)
    with pytest.raises(ValueError, match="must not be negative"):
        smooth_scores(np.zeros((4, 1)), join_frames=-1)
    with pytest.raises(ValueError, match="one column per class"):
        smooth_scores(np.zeros(4))

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Cuts of clips: one length for all, and windows."""

import numpy as np

from hf_audiolang.evaluation.clip_cuts import UnitLength, Windows

RATE = 100
CLIP = np.arange(1, 231, dtype=np.float32)  # 2.3 s


def test_a_long_clip_gives_its_first_part_and_a_short_one_is_followed_by_silence():
    (piece,) = UnitLength(1.5).pieces(CLIP, 7, RATE)
    np.testing.assert_array_equal(piece, CLIP[:150])
    (piece,) = UnitLength(2.5).pieces(CLIP, 7, RATE)
    np.testing.assert_array_equal(piece, [*CLIP, *[0] * 20])
    (piece,) = UnitLength(2.3).pieces(CLIP, 7, RATE)
    np.testing.assert_array_equal(piece, CLIP)


def test_a_random_part_depends_on_seed_and_position_alone():
    def start(seed, index):
        (piece,) = UnitLength(1.5, crop_seed=seed).pieces(CLIP, index, RATE)
        np.testing.assert_array_equal(piece, CLIP[int(piece[0]) - 1 :][:150])
        return int(piece[0]) - 1

    starts = [start(42, index) for index in range(400)]
    assert starts == [start(42, index) for index in range(400)]
    assert (min(starts), max(starts)) == (0, 80)  # both ends can be drawn
    assert starts != [start(43, index) for index in range(400)]
    (piece,) = UnitLength(2.5, crop_seed=1).pieces(CLIP, 7, RATE)
    np.testing.assert_array_equal(piece, [*CLIP, *[0] * 20])  # a short one is not moved


def test_windows_are_whole_and_end_with_the_longest_part():
    windows = Windows(window_seconds=0.5, max_seconds=1.8)
    np.testing.assert_array_equal(windows.pieces(CLIP, 0, RATE), CLIP[:150].reshape(3, 50))
    short = windows.pieces(CLIP[:30], 0, RATE)
    assert len(short) == 1
    np.testing.assert_array_equal(short[0], CLIP[:30])
    assert len(windows.pieces(CLIP[:99], 0, RATE)) == 1

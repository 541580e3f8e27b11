# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The packing suite runs, compares equal outputs and counts real audio."""

import pytest

from hf_audiolang.benchmarks import run_suite
from hf_audiolang.benchmarks.packing import measure_memory, packing


def test_packed_and_padded_agree_and_are_timed():
    report = run_suite("packing", rounds=1, is_tiny=True)
    assert [case["name"] for case in report["cases"]] == ["padded batch, forward", "padded batch, forward + backward"]
    for case in report["cases"]:
        assert case["error"] < 1e-4
        assert case["ratio"]["median"] > 0
    assert report["cases"][0]["notes"]["padded frames per real frame"] > 1


def test_work_is_the_real_audio():
    forward, _ = packing(is_tiny=True)
    assert 3.0 < forward.work < 9.0  # three clips of one to three seconds


def test_unequal_output_is_not_timed(monkeypatch):
    monkeypatch.setattr("hf_audiolang.benchmarks.packing._difference", lambda ours, peer: 1.0)
    with pytest.raises(RuntimeError, match="must agree"):
        run_suite("packing", rounds=1, is_tiny=True)


@pytest.mark.slow
def test_memory_of_a_step_is_measured():
    written = []
    measure_memory("packed", written.append)
    assert 100 < float(written[0]) < 10000

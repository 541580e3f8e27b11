"""The benchmark machinery on known cases, and the front-end suite at a tiny size with scale-free assertions."""

import json
import time

import pytest
import torch

from hf_audiolang.benchmarks import SUITES, Case, compare, format_report, register_suite, run_suite


def spend(seconds: float):
    """A call that takes this much CPU time."""

    def call() -> float:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return seconds

    return call


@pytest.fixture
def toy_suite():
    calls = []

    def build(device: str, is_tiny: bool) -> list[Case]:
        calls.append((device, is_tiny, torch.get_num_threads()))
        return [
            Case("slower peer", 3.0, "clips", spend(0.002), spend(0.006), lambda a, b: abs(b - a), 0.01, goal=2.0),
            Case("absent peer", skipped="No module named 'absent'"),
        ]

    register_suite("toy")(build)
    yield calls
    del SUITES["toy"]


def test_report_holds_ratios_rates_and_reasons(toy_suite, tmp_path):
    threads = torch.get_num_threads()
    report = run_suite("toy", rounds=5, json_path=tmp_path / "toy.json", is_tiny=True)
    assert toy_suite == [("cpu", True, 1)]
    assert torch.get_num_threads() == threads
    assert json.loads((tmp_path / "toy.json").read_text()) == report
    case, skipped = report["cases"]
    assert case["ratio"]["median"] == pytest.approx(3.0, rel=0.3)
    assert case["ratio"]["min"] <= case["ratio"]["median"] <= case["ratio"]["max"]
    assert case["ours"]["best_s"] <= case["ours"]["median_s"]
    assert case["peer"]["rate"] == pytest.approx(3.0 / case["peer"]["median_s"])
    assert case["error"] == pytest.approx(0.004)
    assert skipped == {"name": "absent peer", "skipped": "No module named 'absent'"}
    assert report["machine"]["clock"] == "CPU time"
    assert report["machine"]["torch"] == torch.__version__
    text = format_report(report)
    assert "slower peer" in text
    assert "below goal" not in text
    assert "skipped: No module named 'absent'" in text


def test_unequal_outputs_are_not_timed(toy_suite):
    wrong = Case("wrong peer", 1.0, "clips", lambda: 1.0, lambda: 2.0, lambda a, b: abs(b - a), tolerance=0.5)
    register_suite("toy")(lambda device, is_tiny: [wrong])
    with pytest.raises(RuntimeError, match=r"`wrong peer` must agree to 0\.5, got 1\.0"):
        run_suite("toy")
    broken = Case("nan peer", 1.0, "clips", lambda: 1.0, lambda: 2.0, lambda a, b: float("nan"), tolerance=0.5)
    register_suite("toy")(lambda device, is_tiny: [broken])
    with pytest.raises(RuntimeError, match="`nan peer` must agree"):
        run_suite("toy")


def test_wrong_requests_are_refused(toy_suite):
    with pytest.raises(ValueError, match=r"Unknown suite `name` 'front'\. Choose one of .*'frontend'"):
        run_suite("front")
    with pytest.raises(ValueError, match="`rounds` must be at least 1, got 0"):
        run_suite("toy", rounds=0)


def report_file(path, suite: str, ratios: dict[str, float | None]):
    cases = [
        {"name": name, "skipped": "gone"} if ratio is None else {"name": name, "ratio": {"median": ratio}}
        for name, ratio in ratios.items()
    ]
    path.write_text(json.dumps({"suite": suite, "cases": cases}))
    return path


def test_compare_flags_losses_of_more_than_a_tenth(tmp_path):
    before = report_file(tmp_path / "a.json", "toy", {"kept": 2.0, "slower": 2.0, "faster": 2.0, "gone": 2.0})
    after = report_file(tmp_path / "b.json", "toy", {"kept": 1.81, "slower": 1.79, "faster": 3.0, "gone": None})
    rows = {row["name"]: row for row in compare(before, after)}
    assert [name for name, row in rows.items() if row["is_loss"]] == ["slower", "gone"]
    assert rows["faster"]["change"] == pytest.approx(0.5)
    assert rows["gone"]["after"] is None
    other = report_file(tmp_path / "c.json", "packing", {"kept": 2.0})
    with pytest.raises(ValueError, match="reports of one suite, got 'toy' and 'packing'"):
        compare(before, other)


def test_frontend_suite_agrees_with_all_peers_and_is_faster_where_it_must_be():
    report = run_suite("frontend", rounds=1, is_tiny=True)
    cases = {case["name"]: case for case in report["cases"]}
    assert len(cases) == 6
    assert not any("skipped" in case for case in cases.values())
    goals = {name.split()[1].rstrip(","): case["goal"] for name, case in cases.items() if case["goal"]}
    assert goals == {"MelSpectrogram": 1.7, "ClapFeatureExtractor": 4.0, "ASTFeatureExtractor": 2.0}
    assert all(case["error"] <= case["tolerance"] for case in cases.values())
    # at this size calls cost more than samples; padding to thirty seconds still costs many times more
    assert cases["transformers WhisperFeatureExtractor, default"]["ratio"]["median"] > 2

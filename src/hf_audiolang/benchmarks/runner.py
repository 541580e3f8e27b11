# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Speed as a ratio to a named peer, measured side by side in one process and only at equal output.

suite -> cases (ours, peer) -> outputs compared -> rounds of all candidates in shuffled order -> ratios -> JSON
"""

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers

LOSS_THRESHOLD = 0.10  # a ratio that falls by more than this is a loss
SUITES: dict[str, Callable] = {}
ROUNDS: dict[str, int] = {}  # suite -> rounds that give a steady median


@dataclass(frozen=True)
class Case:
    """One comparison of ours with a peer.

    Attributes:
        name: the peer and how it is used.
        work: units done by one call of either side, so that `work` / seconds is a rate.
        unit: what is counted, for example `"audio-s"`.
        ours: a call of ours; None when skipped.
        peer: the peer's call on the same input.
        error: largest absolute difference of the two outputs, at equal meaning.
        tolerance: the error allowed before timing starts.
        goal: ratio that ours must reach; None when it is only reported.
        notes: further numbers for the report, for example peak memory.
        skipped: why the case cannot run; empty when it can.
    """

    name: str
    work: float = 1.0
    unit: str = "calls"
    ours: Callable[[], object] | None = None
    peer: Callable[[], object] | None = None
    error: Callable[[object, object], float] | None = None
    tolerance: float = 0.0
    goal: float | None = None
    notes: dict[str, float | str] = field(default_factory=dict)
    skipped: str = ""


def register_suite(name: str, rounds: int = 9) -> Callable[[Callable], Callable]:
    """Decorator that adds a suite, a function (device, is_tiny) -> list of cases, with its usual number of rounds."""

    def add(suite: Callable) -> Callable:
        SUITES[name] = suite
        ROUNDS[name] = rounds
        return suite

    return add


def run_suite(
    name: str,
    *,
    device: str = "cpu",
    threads: int = 1,
    rounds: int | None = None,
    json_path: str | Path | None = None,
    is_tiny: bool = False,
) -> dict:
    """Times every case of a suite and returns (and writes) the report.

    Args:
        name: a key of `SUITES`.
        device: `"cpu"` or `"cuda"`.
        threads: torch threads. With one thread on a CPU, CPU time is measured: it hardly notices other programs.
        rounds: every round calls each candidate once, in a new order; None takes the suite's usual number.
        json_path: where to write the report.
        is_tiny: small inputs, to try the machinery.

    Returns:
        `{"suite", "machine", "cases"}`; a case has `ours` and `peer` with median and best seconds and rate, `ratio`
        (how many times faster ours is) with median, min and max over the rounds, and `error`; a skipped one has
        `skipped`.

    Raises:
        ValueError: for an unknown suite or fewer than one round.
        RuntimeError: if outputs differ by more than the case's tolerance.
    """
    if name not in SUITES:
        raise ValueError(f"Unknown suite `name` {name!r}. Choose one of {sorted(SUITES)}.")
    rounds = ROUNDS[name] if rounds is None else rounds
    if rounds < 1:
        raise ValueError(f"`rounds` must be at least 1, got {rounds}. Nine give a steady median.")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        cases = SUITES[name](device=device, is_tiny=is_tiny)
        errors = [_checked_error(case) for case in cases]
        seconds = _time_rounds(cases, rounds, device, threads)
    finally:
        torch.set_num_threads(threads_before)
    report = {
        "suite": name,
        "machine": machine_info(device, threads),
        "rounds": rounds,
        "cases": [
            _summarise(case, error, seconds[index])
            for index, (case, error) in enumerate(zip(cases, errors, strict=True))
        ],
    }
    if json_path is not None:
        Path(json_path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _checked_error(case: Case) -> float | None:
    """Difference of the outputs; the two calls are the warm-up too."""
    if case.skipped:
        return None
    error = case.error(case.ours(), case.peer())
    if not error <= case.tolerance:
        raise RuntimeError(
            f"The outputs of `{case.name}` must agree to {case.tolerance}, got {error}. Speed at unequal output says "
            "nothing: correct the case before timing it."
        )
    return error


def _time_rounds(cases: Sequence[Case], rounds: int, device: str, threads: int) -> list[dict[str, list[float]]]:
    """Seconds per round of both sides of each case."""
    seconds = [{"ours": [], "peer": []} for _ in cases]
    candidates = [(index, side) for index, case in enumerate(cases) if not case.skipped for side in ("ours", "peer")]
    order = random.Random(0)
    for _ in range(rounds):
        order.shuffle(candidates)
        for index, side in candidates:
            seconds[index][side].append(_seconds(getattr(cases[index], side), device, threads))
    return seconds


def _seconds(call: Callable[[], object], device: str, threads: int) -> float:
    if device != "cpu":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000.0
    clock = time.process_time if threads == 1 else time.perf_counter
    begin = clock()
    call()
    return clock() - begin


def _summarise(case: Case, error: float | None, seconds: dict[str, list[float]]) -> dict:
    if case.skipped:
        return {"name": case.name, "skipped": case.skipped}
    summary: dict = {"name": case.name, "unit": case.unit, "work": case.work}
    for side, values in seconds.items():
        median = statistics.median(values)
        summary[side] = {"median_s": median, "best_s": min(values), "rate": case.work / median}
    ratios = [peer / ours for ours, peer in zip(seconds["ours"], seconds["peer"], strict=True)]
    summary["ratio"] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return summary | {"error": error, "tolerance": case.tolerance, "goal": case.goal, "notes": dict(case.notes)}


def machine_info(device: str, threads: int) -> dict[str, str | int]:
    """What the figures depend on: processor, cores, threads, device, clock and versions."""
    is_cpu_time = device == "cpu" and threads == 1
    clock = "CPU time" if is_cpu_time else "wall time" if device == "cpu" else "CUDA events"
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "clock": clock,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def format_report(report: dict) -> str:
    """A table of a report for people: rates, ratio with its range, error, and whether the goal is reached."""
    machine = report["machine"]
    lines = [
        f"{report['suite']}: {machine['processor']}, {machine['threads']} thread(s), {machine['device']}, "
        f"{machine['clock']}, torch {machine['torch']}, {report['rounds']} rounds",
        f"{'peer':<44}{'peer/s':>10}{'ours/s':>10}  {'ratio (min..max)':<22}{'goal':>6}  {'max error':>9}",
    ]
    for case in report["cases"]:
        if "skipped" in case:
            lines.append(f"{case['name']:<44}  skipped: {case['skipped']}")
            continue
        ratio, goal = case["ratio"], case["goal"]
        shown = f"{ratio['median']:.2f}x ({ratio['min']:.2f}..{ratio['max']:.2f})"
        lines.append(
            f"{case['name']:<44}{case['peer']['rate']:>10.4g}{case['ours']['rate']:>10.4g}  {shown:<22}"
            f"{'' if goal is None else f'{goal:g}x':>6}  {case['error']:>9.1e}"
            f"{'' if goal is None or ratio['median'] >= goal else '  below goal'}"
        )
        lines += [f"    {name}: {value}" for name, value in case["notes"].items()]
    return "\n".join(lines)


def compare(before: str | Path, after: str | Path) -> list[dict]:
    """What changed between two reports, case by case; ratios to peers carry over between machines, times do not.

    Args:
        before: JSON of `run_suite`.
        after: the newer one.

    Returns:
        One dict per case of `before`: `name`, `before` and `after` (median ratios, None when not measured), `change`
        (relative) and `is_loss`: slower by more than 10 %, or no longer measured.

    Raises:
        ValueError: if the reports are of different suites.
    """
    old, new = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (before, after))
    if old["suite"] != new["suite"]:
        raise ValueError(
            f"`before` and `after` must be reports of one suite, got {old['suite']!r} and {new['suite']!r}. Run the "
            "same suite twice."
        )
    ratios = [
        {case["name"]: case["ratio"]["median"] for case in report["cases"] if "ratio" in case} for report in (old, new)
    ]
    rows = []
    for name, ratio in ratios[0].items():
        now = ratios[1].get(name)
        change = None if now is None else now / ratio - 1.0
        is_loss = change is None or change < -LOSS_THRESHOLD
        rows.append({"name": name, "before": ratio, "after": now, "change": change, "is_loss": is_loss})
    return rows


__all__ = [
    "LOSS_THRESHOLD",
    "SUITES",
    "Case",
    "compare",
    "format_report",
    "machine_info",
    "register_suite",
    "run_suite",
]

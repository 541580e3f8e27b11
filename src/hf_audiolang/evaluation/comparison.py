# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The values of finished runs side by side.

RUN/metrics.json, ... -> one row per metric: value of each run, chance -> table
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .report import TABLE_ROWS, metrics_of

REPORT_FILE = "metrics.json"
MISSING = "-"
RANKS = ("MedR", "MeanR")  # metrics that are no rates
SAME_FIELDS = ("data", "num_clips", "seed", "data_options", "templates")  # of the records of comparable runs


def read_reports(runs: Sequence[str | Path]) -> dict[str, dict]:
    """Run as named by the caller -> its report.

    Args:
        runs: folders of finished runs, or their metrics.json.

    Raises:
        FileNotFoundError: if a run has no metrics.json.
        ValueError: if a run is named twice, or its file is no report.
    """
    reports: dict[str, dict] = {}
    for run in map(str, runs):
        if run in reports:
            raise ValueError(f"`runs` names {run!r} twice. Name each run once.")
        reports[run] = _read_report(Path(run))
    return reports


def compare_reports(reports: Mapping[str, Mapping[str, object]]) -> dict[str, dict]:
    """Metric name -> {"values": run -> value or None, "chance": run -> value or None}, main metrics first.

    Args:
        reports: run -> report, as `read_reports` gives.
    """
    values = {run: metrics_of(report) for run, report in reports.items()}
    known = list(dict.fromkeys(name for of_run in values.values() for name in of_run))
    main = [name for name, _ in TABLE_ROWS if name in known]
    return {
        name: {
            "values": {run: of_run.get(name) for run, of_run in values.items()},
            "chance": {run: report["chance"].get(name) for run, report in reports.items()},
        }
        for name in dict.fromkeys([*main, *known])
    }


def comparison_table(reports: Mapping[str, Mapping[str, object]], *, all_metrics: bool = False) -> str:
    """Markdown table with a column per run: rates in percent, "-" where a run lacks a metric; then what differs.

    Args:
        reports: run -> report, as `read_reports` gives.
        all_metrics: also those that are not in the table of a report.
    """
    rows, titles = compare_reports(reports), dict(TABLE_ROWS)
    shown = [name for name in rows if all_metrics or name in titles] or list(rows)
    lines = [["metric", *_short_names(list(reports)), "chance"]]
    for name in shown:
        values, chances = rows[name]["values"].values(), rows[name]["chance"].values()
        chance = " / ".join(dict.fromkeys(_shown(name, value) for value in chances if value is not None))
        lines.append([titles.get(name, name), *(_shown(name, value) for value in values), chance or MISSING])
    differences = _differences(reports)
    return "\n".join([*_aligned(lines), *([""] if differences else []), *differences])


def _read_report(run: Path) -> dict:
    path = run / REPORT_FILE if run.is_dir() else run
    if not path.is_file():
        above = run.parent / REPORT_FILE
        hint = f"Did you mean '{run.parent}'?" if above.is_file() else "Give the folder of a finished run (runs/NAME)."
        raise FileNotFoundError(f"`runs` names '{run}', which has no {REPORT_FILE}. {hint}")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"`{path}` is no JSON: {error}. Evaluate the run again.") from error
    if not isinstance(report, dict) or not {"chance", "records"} <= set(report):
        raise ValueError(f"`{path}` is no report of an evaluation. Give a {REPORT_FILE} that this package wrote.")
    return report


def _short_names(runs: Sequence[str]) -> list[str]:
    """Last parts of the paths, or as given where these do not tell the runs apart."""
    names = [Path(run).resolve().parent.name if run.endswith(".json") else Path(run).resolve().name for run in runs]
    return names if len(set(names)) == len(names) else list(runs)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.1f}" if name.endswith(RANKS) else f"{100 * value:.1f}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a Markdown table whose columns also line up in a terminal; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    rule = ["-" * width if place == 0 else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]


def _differences(reports: Mapping[str, Mapping[str, object]]) -> list[str]:
    """One sentence per task that the runs did on other clips or with other words: such values cannot be compared."""
    records: dict[str, dict[str, dict]] = {}
    for name, report in zip(_short_names(list(reports)), reports.values(), strict=True):
        for record in report["records"]:
            records.setdefault(record["task"], {})[name] = record
    sentences = []
    for task, of_run in records.items():
        for field in SAME_FIELDS:
            runs_of: dict[str, list[str]] = {}  # value as text -> runs that have it
            for name, record in of_run.items():
                runs_of.setdefault(str(_without_rate(record.get(field))), []).append(name)
            if len(runs_of) > 1:
                listed = "; ".join(f"{value} ({', '.join(names)})" for value, names in runs_of.items())
                sentences.append(f"Not comparable: {task}, {field}: {listed}.")
                break
    return sentences


def _without_rate(value: object) -> object:
    """Options of a data set without the sampling rate, which is the model's: the scenes are the same."""
    return {k: v for k, v in value.items() if k != "sampling_rate"} if isinstance(value, dict) else value


__all__ = ["REPORT_FILE", "compare_reports", "comparison_table", "read_reports"]

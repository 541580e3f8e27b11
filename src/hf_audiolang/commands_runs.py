# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sub-commands of `hf-audiolang` around models and results: compare, convert, bench.

Each takes the parsed options and returns the exit code; the work is done by the Python function of the same purpose,
which is imported when it is called: none needs what the others need.
"""

import argparse
import json

from hf_audiolang.cli import DONE, SOMETHING_FAILED


def run_compare(options: argparse.Namespace) -> int:
    """`compare`: prints the values of finished runs side by side."""
    from hf_audiolang.evaluation.comparison import compare_reports, comparison_table, read_reports

    reports = read_reports(options.runs)
    if options.json:
        print(json.dumps({"runs": list(reports), "metrics": compare_reports(reports)}, indent=2))
    else:
        print(comparison_table(reports, all_metrics=options.all))
    return DONE


def run_convert(options: argparse.Namespace) -> int:
    """`convert`: writes an official checkpoint in this package's form and prints what became of it, and no bars."""
    from transformers.utils import logging

    from hf_audiolang.convert import convert_checkpoint

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    report = convert_checkpoint(options.system, options.checkpoint, options.output, **_settings(options.set))
    print(report.summary())
    return DONE


def run_bench(options: argparse.Namespace) -> int:
    """`bench`: runs a suite, or compares two results of one; code 1 if a comparison shows a loss."""
    from hf_audiolang import benchmarks

    if options.suite == "compare":
        if len(options.results) != 2:
            raise ValueError(
                f"`compare` needs two result files, got {len(options.results)}. Give the old and the new."
            )
        changes = benchmarks.compare(*options.results)
        print(json.dumps(changes, indent=2) if options.json else "\n".join(map(_change, changes)))
        return SOMETHING_FAILED if any(change["is_loss"] for change in changes) else DONE
    if options.results:
        raise ValueError(f"Only `compare` takes result files, got {options.results}. Give one suite and options.")
    report = benchmarks.run_suite(
        options.suite,
        device=options.device,
        threads=options.threads,
        rounds=options.rounds,
        json_path=options.output,
        is_tiny=options.tiny,
    )
    print(json.dumps(report, indent=2) if options.json else benchmarks.format_report(report))
    return DONE


def _settings(words: list[str]) -> dict[str, object]:
    """`KEY=VALUE` words as keywords; a value that is JSON is read as such, any other is text."""
    settings: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"`set` takes KEY=VALUE, got {word!r}. Write for example max_frames=1001.")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return settings


def _change(change: dict) -> str:
    after = "not measured" if change["after"] is None else f"{change['after']:.2f}x ({change['change']:+.0%})"
    return f"{change['name']}: {change['before']:.2f}x -> {after}{'  LOSS' if change['is_loss'] else ''}"


__all__ = ["run_bench", "run_compare", "run_convert"]

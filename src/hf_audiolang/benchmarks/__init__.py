# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Speed of this package beside its peers: `run_suite("frontend")`; importing this registers the suites."""

from hf_audiolang.benchmarks import encoder, frontend, htsat, packing
from hf_audiolang.benchmarks.runner import (
    SUITES,
    Case,
    compare,
    format_report,
    machine_info,
    register_suite,
    run_suite,
)

__all__ = [
    "SUITES",
    "Case",
    "compare",
    "encoder",
    "format_report",
    "frontend",
    "htsat",
    "machine_info",
    "packing",
    "register_suite",
    "run_suite",
]

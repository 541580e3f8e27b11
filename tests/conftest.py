# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Settings of every test: nothing is downloaded, tiny models run on one thread, `tiny` and fakes can be imported.

A script that a test calls sends the package's messages to stderr; after the test the logger is as it was.
"""

import logging
import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny matrices gain nothing from a second thread
sys.path[:0] = [str(Path(__file__).resolve().parent / folder) for folder in ("", "evaluation", "convert")]


@pytest.fixture(autouse=True)
def package_logger():
    """Leaves the package's logger with the handlers and the level that it had before the test."""
    logger = logging.getLogger("hf_audiolang")
    handlers, level = [*logger.handlers], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)

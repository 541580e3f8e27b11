# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Settings of every test: nothing is downloaded, tiny models run on one thread, `tiny` and fakes can be imported."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny matrices gain nothing from a second thread
sys.path[:0] = [str(Path(__file__).resolve().parent / folder) for folder in ("", "evaluation", "convert")]

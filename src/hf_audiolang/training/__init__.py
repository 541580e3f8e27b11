# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Training: settings, the one loop, checkpoints, and whole runs."""

from .config import RunConfig, load_run_config
from .finish import next_commands
from .loop import TrainResult, train
from .run import RunResult, pretrain
from .tokenizer import load_tokenizer, train_tokenizer

__all__ = [
    "RunConfig",
    "RunResult",
    "TrainResult",
    "load_run_config",
    "load_tokenizer",
    "next_commands",
    "pretrain",
    "train",
    "train_tokenizer",
]

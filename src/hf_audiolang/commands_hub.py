# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sub-command of `hf-audiolang` that shares a model: push.

It takes the parsed options and returns the exit code; the work is done by `hub.push`.
"""

import argparse

from transformers.utils import logging

from hf_audiolang.hub import PushOptions, plan_push, push


def run_push(options: argparse.Namespace) -> int:
    """`push`: sends a folder in one commit and prints its address; with --dry-run prints what would be sent."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    how = PushOptions(
        part=options.part,
        private=options.private,
        revision=options.revision,
        with_code=options.with_code,
        max_shard_size=options.max_shard_size,
        base_model=options.base_model,
    )
    if options.dry_run:
        print(plan_push(options.source, options.repo_id, how).summary())
        return 0
    print(f"pushed: {push(options.source, options.repo_id, how)}")
    return 0


__all__ = ["run_push"]

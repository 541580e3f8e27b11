# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What the training scripts say on the console: progress, and errors in one message."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from hf_audiolang.data import AudioError, BadExampleError, TooManyBadExamples

PACKAGE = Path(__file__).parents[1]
REFUSALS = (OSError, ValueError, ImportError, FloatingPointError)  # what a run of wrong settings or data raises


def reporting(script: str, run: Callable[[], int]) -> int:
    """The exit code of `run`, or 2 and one message on stderr for settings, data or a model that it refuses.

    Args:
        script: name of the script, for the message.
        run: returns the exit code.
    """
    show_progress_messages()
    try:
        return run()
    except REFUSALS as error:
        if not is_our_message(error):
            raise
        print(f"{script}: {message_of(error)}", file=sys.stderr)  # noqa: T201 - the script's own voice
        return 2


def show_progress_messages() -> None:
    """Sends this package's messages to stderr, those below a warning from the first process only."""
    logger = logging.getLogger("hf_audiolang")
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        logger.addHandler(_StandardError())
    logger.setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)


class _StandardError(logging.Handler):
    """Writes to what `sys.stderr` is when a message comes: somebody may have exchanged and closed the one before."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)  # noqa: T201 - the script's own voice


def is_our_message(error: Exception) -> bool:
    """True if this package raised the error on purpose; others come with their traceback."""
    if isinstance(error, AudioError | BadExampleError | TooManyBadExamples):
        return True  # torch raises those of the data workers once more
    last_frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last_frame.filename).is_relative_to(PACKAGE)


def message_of(error: Exception) -> str:
    """The error's own message; torch puts a worker's traceback before it."""
    kind = type(error)
    return str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")[2].rstrip()


__all__ = ["REFUSALS", "is_our_message", "message_of", "reporting", "show_progress_messages"]

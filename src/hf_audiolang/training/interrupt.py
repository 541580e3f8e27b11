# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SIGTERM and Ctrl-C as a request to end after the current step, agreed on by all processes."""

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from accelerate import Accelerator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Context manager that turns the first SIGTERM or SIGINT into a request; the second one ends the process at once.

    Under `accelerate launch` the launcher's death counts as SIGTERM: it does not pass signals on, and the training
    process would go on alone.

    Example:
        >>> with StopRequest(accelerator) as stop:
        ...     for step in range(num_steps):
        ...         ...
        ...         if stop.requested() is not None:
        ...             break
    """

    def __init__(self, accelerator: Accelerator):
        self.num_processes = accelerator.num_processes
        # A group of its own on the CPU: asking every step must not wait for a GPU.
        self.group = torch.distributed.new_group(backend="gloo") if self.num_processes > 1 else None
        self.launcher = os.getppid() if "ACCELERATE_MIXED_PRECISION" in os.environ else None
        self.signal_number = 0

    def __enter__(self) -> "StopRequest":
        self.previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def requested(self) -> int | None:
        """Number of the signal any process has received (the same answer in all processes), or None."""
        if self.launcher is not None and os.getppid() != self.launcher:
            self.signal_number = self.signal_number or signal.SIGTERM
        number = int(self.signal_number)
        if self.group is not None:
            agreed = torch.tensor(number)
            torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MAX, group=self.group)
            number = int(agreed)
        return number or None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        signal.signal(number, self.previous[number])


def start_worker(then: Callable[[int], None] | None, worker_id: int) -> None:
    """First call of a data worker: it ignores the stop signals, which reach the whole process group, then `then`.

    The training process still needs batches for the step it is in; workers end with it.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if then is not None:
        then(worker_id)


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Turns Python's cyclic collector off inside the block: its pauses come at other times in every process."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


__all__ = ["StopRequest", "garbage_collection_paused", "start_worker"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Forgets what accelerate keeps for the whole process."""

from accelerate.state import AcceleratorState, GradientState, PartialState


def forget_accelerate() -> None:
    """Another test's devices and precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Checkpoints that are either complete or absent.

runs/x/checkpoints/step_00000120/   model, optimizer, random states of every process, progress.json
runs/x/checkpoints/.writing/        a checkpoint being written; renamed when it is on disk
"""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import load as load_accelerate_file
from transformers.utils import logging

logger = logging.get_logger(__name__)

_PROGRESS_FILE = "progress.json"
_UNFINISHED = ".writing"
_RUN_FILES = ("run.yaml", "environment.json")  # of the run's folder: a checkpoint moved elsewhere keeps them


@dataclass
class Progress:
    """What a continuation must know beside the tensors.

    Attributes:
        step: optimizer steps done.
        num_processes: processes of the run; a continuation needs the same number.
        elapsed_seconds: wall time spent in steps, evaluations and saves.
        audio_seconds: audio trained on by all processes together, seconds.
        best_step: step of the best validation value so far, or None.
        best_value: that value.
        schedule: position of the learning-rate schedule (see `schedule_state`).
        bad_examples: one message per example that could not be used, each once.
    """

    step: int = 0
    num_processes: int = 1
    elapsed_seconds: float = 0.0
    audio_seconds: float = 0.0
    best_step: int | None = None
    best_value: float | None = None
    schedule: dict[str, object] = field(default_factory=dict)
    bad_examples: list[str] = field(default_factory=list)

    def note_bad_examples(self, messages: list[str]) -> None:
        """Adds the messages not yet known."""
        self.bad_examples += [message for message in dict.fromkeys(messages) if message not in self.bad_examples]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` optimizer steps, inside the checkpoint folder `folder`."""
    return folder / f"step_{step:08d}"


def find_last_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps in `folder`, or None."""
    complete = [path for path in folder.glob("step_*") if (path / _PROGRESS_FILE).is_file()]
    return max(complete, key=lambda path: path.name, default=None)


def save_checkpoint(accelerator: Accelerator, folder: Path, progress: Progress, *, keeps_all: bool = False) -> Path:
    """Writes the state of every process and returns its folder; keeps this checkpoint and the best, removes the rest.

    With `keeps_all` it removes none, so that the run can be probed at every step that was saved.

    The files are written under another name, flushed to the disk and renamed, so a process killed at any moment
    leaves the previous checkpoint and at most an unfinished folder that nobody reads. All processes must call this.
    """
    target, unfinished = checkpoint_path(folder, progress.step), folder / _UNFINISHED
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        text = json.dumps(dataclasses.asdict(progress), indent=1)
        (unfinished / _PROGRESS_FILE).write_text(text, encoding="utf-8")
        for name in _RUN_FILES:
            if (folder.parent / name).is_file():
                shutil.copy(folder.parent / name, unfinished)
        for path in [*unfinished.iterdir(), unfinished]:
            _flush_to_disk(path)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        _flush_to_disk(folder)
        if not keeps_all:
            _remove_others(folder, progress)
    accelerator.wait_for_everyone()
    return target


def read_progress(checkpoint: Path) -> Progress:
    """The progress stored in a checkpoint folder."""
    return Progress(**json.loads((checkpoint / _PROGRESS_FILE).read_text(encoding="utf-8")))


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> Progress:
    """Restores everything `save_checkpoint` wrote into what `accelerator` prepared; returns the progress.

    Nothing in the folder is unpickled: accelerate reads tensors as safetensors or with `weights_only`. It would
    unpickle objects registered with it, so there must be none.

    Raises:
        ValueError: if the run had another number of processes.
        RuntimeError: if the random states could not be restored (accelerate itself only notes it).
    """
    progress = read_progress(checkpoint)
    if progress.num_processes != accelerator.num_processes:
        raise ValueError(
            f"`resume`: {str(checkpoint)!r} was written by {progress.num_processes} processes, this run has "
            f"{accelerator.num_processes}. Start as many, or begin a new `output_dir` with `model` set."
        )
    accelerator.load_state(str(checkpoint))
    random_states = load_accelerate_file(checkpoint / f"random_states_{accelerator.process_index}.pkl")
    if not torch.equal(torch.get_rng_state(), random_states["torch_manual_seed"]):
        raise RuntimeError(
            f"The random states in {str(checkpoint)!r} were not restored, so the run would not continue exactly. Use "
            "the accelerate and torch versions that wrote it."
        )
    return progress


def _remove_others(folder: Path, progress: Progress) -> None:
    kept = {checkpoint_path(folder, step) for step in (progress.step, progress.best_step) if step is not None}
    for path in folder.glob("step_*"):
        if path not in kept:
            # Without its progress file a half removed folder is not taken for a checkpoint.
            (path / _PROGRESS_FILE).unlink(missing_ok=True)
            shutil.rmtree(path)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = [
    "Progress",
    "checkpoint_path",
    "find_last_checkpoint",
    "load_checkpoint",
    "read_progress",
    "save_checkpoint",
]

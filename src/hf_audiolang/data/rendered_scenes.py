# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Synthetic scenes rendered into memory by several processes.

    SoundScenes -> materialize -> workers: rows as JSON + samples as int16 -> RenderedScenes

The workers are plain Python processes that import numpy and the scene modules alone, so they start in a fraction of a
second where importing the whole package takes several, and the calling script needs no `__main__` guard.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .sound_scenes import SoundScenes

CLIPS_PER_TASK = 50  # the block over which questions are balanced: each process then computes whole blocks
SERIAL_SECONDS = 300  # less audio than this is rendered in the calling process
PEAK = 32767

# Empty stand-ins for the two packages keep their __init__ files, and with them torch, out of the worker.
_WORKER = """
import json, sys, types
task = json.loads(sys.stdin.readline())
sys.path[:] = task["sys_path"]
for name, folder in task["packages"]:
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from hf_audiolang.data.rendered_scenes import write_rows
from hf_audiolang.data.sound_scenes import SoundScenes
write_rows(SoundScenes(**task["options"]), task["starts"], sys.stdout.buffer)
"""


class RenderedScenes:
    """Scenes with their audio in memory: a list-like of rows as `SoundScenes` gives them, the array as int16.

    All samples are one array, so that pickling and forking are cheap. `row["audio"]["array"] / 32767` equals the
    float32 of the data set within half a step.

    Attributes:
        dataset: the `SoundScenes` it was made from.
        labels: all class names in the order of `label_ids`.
    """

    def __init__(self, dataset: "SoundScenes", rows: list[dict[str, Any]], samples: np.ndarray) -> None:
        self.dataset = dataset
        self.labels = dataset.labels
        self._rows = rows
        self._samples = samples
        self._ends = np.cumsum([round(row["duration"] * dataset.sampling_rate) for row in rows])

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.structure(index))
        position = range(len(self))[index]
        start = self._ends[position - 1] if position else 0
        audio = {"array": self._samples[start : self._ends[position]], "sampling_rate": self.dataset.sampling_rate}
        return {"id": row.pop("id"), "audio": audio, **row}

    def structure(self, index: int) -> dict[str, Any]:
        """The row without its audio."""
        return self._rows[index]


def materialize(dataset: "SoundScenes", num_workers: int | None = None) -> RenderedScenes:
    """All rows rendered into memory, in parallel processes; the result does not depend on their number.

    Args:
        dataset: the scenes to render.
        num_workers: processes; 0 or 1 renders in this one. None takes one per core, or none for small data sets.

    Raises:
        RuntimeError: if a worker process fails, with its last words.
    """
    starts = list(range(0, len(dataset), CLIPS_PER_TASK))
    num_workers = min(_default_workers(dataset) if num_workers is None else num_workers, len(starts))
    if num_workers <= 1:
        parts = [_render_rows(dataset, start) for start in starts]
    else:
        shares = [starts[k::num_workers] for k in range(num_workers)]
        with ThreadPoolExecutor(num_workers) as executor:
            answers = list(executor.map(_run_worker, [dataset] * num_workers, shares))
        parts = [answers[k % num_workers][k // num_workers] for k in range(len(starts))]
    rows = [row for part in parts for row in part[0]]
    return RenderedScenes(dataset, rows, np.concatenate([part[1] for part in parts]))


def _default_workers(dataset: "SoundScenes") -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if len(dataset) * sum(dataset.duration) / 2 < SERIAL_SECONDS else cores


def _render_rows(dataset: "SoundScenes", start: int) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows and int16 samples of one task."""
    indices = range(start, min(start + CLIPS_PER_TASK, len(dataset)))
    rows = [dataset.structure(index) for index in indices]
    return rows, np.concatenate([np.round(dataset.render(index) * PEAK).astype(np.int16) for index in indices])


def write_rows(dataset: "SoundScenes", starts: list[int], stream) -> None:
    """What a worker process does: per task one JSON line {rows, num_samples}, then the samples as int16 bytes."""
    for start in starts:
        rows, samples = _render_rows(dataset, start)
        stream.write(json.dumps({"rows": rows, "num_samples": len(samples)}).encode() + b"\n")
        stream.write(samples.tobytes())


def _run_worker(dataset: "SoundScenes", starts: list[int]) -> list[tuple[list[dict[str, Any]], np.ndarray]]:
    """Starts a worker process for some tasks and reads what it writes."""
    here = Path(__file__).resolve().parent
    task = {
        "options": dataclasses.asdict(dataset),
        "starts": starts,
        "sys_path": sys.path,
        "packages": [["hf_audiolang", str(here.parent)], ["hf_audiolang.data", str(here)]],
    }
    done = subprocess.run(
        [sys.executable, "-c", _WORKER], input=json.dumps(task).encode() + b"\n", capture_output=True, check=False
    )
    if done.returncode:
        last_words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(
            f"A process that renders scenes failed with code {done.returncode}: {' '.join(last_words)}. Pass "
            "`num_workers=1` to render in this process and see the whole error."
        )
    parts, position = [], 0
    while position < len(done.stdout):
        line_end = done.stdout.index(b"\n", position)
        header = json.loads(done.stdout[position:line_end])
        position = line_end + 1 + 2 * header["num_samples"]
        samples = np.frombuffer(done.stdout, np.int16, header["num_samples"], line_end + 1)
        parts.append((header["rows"], samples))
    return parts


__all__ = ["CLIPS_PER_TASK", "RenderedScenes", "materialize", "write_rows"]

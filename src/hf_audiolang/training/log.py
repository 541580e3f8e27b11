# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a run writes while it trains: one JSON line per step, a progress bar, TensorBoard if asked.

Values of a step stay on the device until the next `flush`, so that logging does not make the device wait.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from .checkpoint import Progress

LOG_FILE = "train_log.jsonl"


class TrainLog:
    """Collects the values of each step and writes them out; all processes call its methods, the main one writes."""

    def __init__(self, accelerator: Accelerator, folder: Path, progress: Progress, num_steps: int):
        self.accelerator = accelerator
        self.path = folder / LOG_FILE
        self.progress = progress
        self.waiting: list[tuple[dict[str, Tensor], dict[str, float]]] = []
        self.clock = time.monotonic()
        self.shown = ["loss"]  # values on the progress bar; the loop adds the model's loss terms
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            cut_log(self.path, progress.step)
        self.bar = tqdm(
            total=num_steps,
            initial=progress.step,
            desc="training",
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=not accelerator.is_main_process,
        )

    def add(self, terms: dict[str, Tensor], notes: dict[str, float]) -> None:
        """Takes a step's values: () tensors on the device, and known numbers (`step`, `audio_seconds`, others)."""
        self.waiting.append((terms, notes))

    def flush(self) -> None:
        """Fetches the waiting values, averages them over the processes (`audio_seconds` is their sum), writes them.

        Raises:
            FloatingPointError: if a loss or gradient norm is not finite; names the first such step.
        """
        if not self.waiting:
            return
        names = list(self.waiting[0][0])
        table = torch.stack(
            [torch.stack([terms[name].detach().float() for name in names]) for terms, _ in self.waiting]
        )
        seconds = torch.tensor([[notes["audio_seconds"]] for _, notes in self.waiting], device=table.device)
        table = self.accelerator.reduce(torch.cat([table, seconds], dim=1), "mean")  # (steps, names + 1)
        lines = []
        for (_, notes), row in zip(self.waiting, table.tolist(), strict=True):
            notes["audio_seconds"] = row[-1] * self.accelerator.num_processes
            lines.append(notes | dict(zip(names, row[:-1], strict=True)))
        self.waiting = []
        self._show(lines)
        self._write(lines)
        _refuse_non_finite(lines)

    def write_metrics(self, metrics: dict[str, float]) -> None:
        """Adds a line with the metrics of an evaluation after the present step."""
        self._write([{"step": self.progress.step, **metrics}])

    def measure_time(self) -> float:
        """Seconds since the last call, which it adds to the progress."""
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        self.progress.elapsed_seconds += seconds
        return seconds

    def _write(self, lines: list[dict[str, float]]) -> None:
        if not self.accelerator.is_main_process:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        for line in lines:
            values = {name: value for name, value in line.items() if name != "step"}
            self.accelerator.log(values, step=int(line["step"]))

    def _show(self, lines: list[dict[str, float]]) -> None:
        """The bar with the means over the new lines and the audio-seconds trained per second."""
        audio_seconds = sum(line["audio_seconds"] for line in lines)
        self.progress.audio_seconds += audio_seconds
        means = {name: sum(line[name] for line in lines) / len(lines) for name in self.shown}
        shown = {name: f"{value:.3f}" for name, value in means.items()}
        shown["audio_s/s"] = f"{audio_seconds / max(self.measure_time(), 1e-9):.0f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(len(lines))


def read_log(path: Path) -> list[dict]:
    """The lines of a JSONL log as dictionaries; a line that was cut off by a kill ends the list."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def cut_log(path: Path, step: int) -> None:
    """Removes the lines after `step` from a JSONL log, so that a resumed run writes each of them exactly once."""
    kept = [line for line in read_log(path) if line["step"] <= step]
    replacement = path.with_suffix(".tmp")
    replacement.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    replacement.replace(path)


def _refuse_non_finite(lines: list[dict[str, float]]) -> None:
    for line in lines:
        bad = [name for name in ("loss", "grad_norm") if not math.isfinite(line[name])]
        if bad:
            raise FloatingPointError(
                f"`{bad[0]}` is {line[bad[0]]} at step {line['step']}. The checkpoints are from before it: lower "
                "`learning_rate` or `max_grad_norm`, or use `precision: fp32`, and continue with --resume."
            )


__all__ = ["LOG_FILE", "TrainLog", "cut_log", "read_log"]

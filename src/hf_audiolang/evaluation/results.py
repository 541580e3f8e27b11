# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What an evaluation returns: values by name, the chance level of each, and the record of how they came about."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from torch import nn


class TaskResult(dict[str, float]):
    """Metric name -> value, a plain dict with two attributes beside it.

    Rates are in [0, 1]; `MedR` and `MeanR` are ranks from 1.

    Attributes:
        chance: metric name -> value that guessing reaches, for the metrics that have one.
        record: task, data, numbers of clips used and left out with reasons, prompts, model, package version, seconds.
    """

    def __init__(self, values: Mapping[str, float], chance: Mapping[str, float], record: Mapping[str, object]):
        super().__init__({name: float(value) for name, value in values.items()})
        self.chance = {name: float(value) for name, value in chance.items()}
        self.record = dict(record)

    def labelled(self, data: str, prefix: str = "", **more: object) -> "TaskResult":
        """The same result with `data` as the name of its data set and `prefix` before each metric name.

        Further keywords join the record, such as the options that the data was made with.
        """
        return TaskResult(
            {f"{prefix}{name}": value for name, value in self.items()},
            {f"{prefix}{name}": value for name, value in self.chance.items()},
            {**self.record, "task": f"{prefix}{self.record['task']}", "data": data, **more},
        )


def task_record(
    task: str,
    model: nn.Module,
    dataset: object,
    skipped: Sequence[str],
    num_clips: int,
    seconds: float,
    **more: object,
) -> dict[str, object]:
    """The record of one evaluation, ready for JSON.

    Args:
        task: name of the task.
        model: its config names where it was loaded from.
        dataset: its attribute `name` is used if it has one, else the name of its class.
        skipped: one message per clip that was left out.
        num_clips: number of clips the values are computed on.
        seconds: wall time of the evaluation.
        more: what else belongs to this task: templates, number of captions, ties.
    """
    config = getattr(model, "config", None)
    return {
        "task": task,
        "data": getattr(dataset, "name", type(dataset).__name__),
        "num_clips": num_clips,
        "num_skipped": len(skipped),
        "skipped": list(skipped),
        "model": getattr(config, "_name_or_path", "") or type(model).__name__,
        "model_revision": getattr(config, "_commit_hash", None),
        "package_version": package_version(),
        "seconds": round(seconds, 2),
        **more,
    }


def package_version() -> str:
    """Installed version of this package, or "not installed" when it runs from a bare source folder."""
    try:
        return version("hf-audiolang")
    except PackageNotFoundError:
        return "not installed"


__all__ = ["TaskResult", "package_version", "task_record"]

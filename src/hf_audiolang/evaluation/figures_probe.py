# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The curve of a run's checkpoints: what a probe finds in each of them (M2D-CLAP Fig. 4 and 5).

[(step, TaskResult), ...] -> one panel per metric: value over steps, band of the 95 % interval, chance as a dashed line

Needs matplotlib (the extra `viz`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .figures_style import COLOURS, FAINT, house_style, new_figure, save_figure
from .results import TaskResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_checkpoints(points: Sequence[tuple[int, TaskResult]], output: str | Path) -> Path:
    """Draws each metric of a probe over the steps of the checkpoints.

    Args:
        points: (optimizer step, what the probe found there), ascending; the same metrics everywhere.
        output: picture to write, .png or .pdf.

    Returns:
        `output` as a path.

    Raises:
        MissingResourceError: if matplotlib is not installed.
        ValueError: if there is no point.
    """
    if not points:
        raise ValueError("`points` is empty, got 0 checkpoints. Give the results of one or more.")
    names = list(points[0][1])
    with house_style():
        figure = new_figure(3.4 * len(names) + 0.4, 3.0)
        for place, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), place + 1)
            _draw(axes, points, name, COLOURS[place % len(COLOURS)])
            axes.set_ylabel("percent" if place == 0 else "")
        return save_figure(figure, output)


def _draw(axes: "Axes", points: Sequence[tuple[int, TaskResult]], name: str, colour: str) -> None:
    steps = np.array([step for step, _ in points])
    values = 100 * np.array([result[name] for _, result in points])
    widths = 100 * np.array([result.record["ci95"].get(name, 0.0) for _, result in points])
    axes.fill_between(steps, values - widths, values + widths, color=colour, alpha=0.16, linewidth=0)
    axes.plot(steps, values, color=colour, linewidth=2, marker="o", markersize=4)
    if name in points[0][1].chance:
        axes.axhline(100 * points[0][1].chance[name], color=FAINT, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_title(name, loc="left", fontsize=11)
    axes.set_xlabel("optimizer step")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)


__all__ = ["plot_checkpoints"]

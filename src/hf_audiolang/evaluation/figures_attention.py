# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The picture of an `Explanation`: the log-mel of a clip, and the same in grey with the attention over it.

Needs matplotlib (the extra `viz`).
"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .explain import Explanation
from .figures_style import FAINT, add_colour_bar, draw_level, house_style, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap

MAX_CAPTIONS = 6  # in the title, most similar first
POINTS_PER_LINE = 14


def plot_attention(explanation: Explanation, output: str | Path) -> Path:
    """Draws a clip's log-mel, and below it the share of the attention that each patch gets.

    Args:
        explanation: of one clip.
        output: picture to write, .png or .pdf.

    Returns:
        `output` as a path.

    Raises:
        MissingResourceError: if matplotlib is not installed.
    """
    seconds = len(explanation.log_mel_db) * _frame_step(explanation)
    with house_style():
        figure = new_figure(10.0, 5.4)
        level_axes, attention_axes = figure.subplots(2, 1, sharex=True)
        image = draw_level(level_axes, explanation.log_mel_db, explanation.mel_hz, seconds)
        add_colour_bar(figure, level_axes, image, "level (dB below peak)")
        draw_level(attention_axes, explanation.log_mel_db, explanation.mel_hz, seconds, colour_map=_pale_greys())
        percent = 100 * explanation.attention
        patches = attention_axes.imshow(
            percent, origin="lower", aspect="auto", cmap=_glaze(), vmin=0, vmax=percent.max(),
            extent=(0, _patch_end(explanation), -0.5, len(explanation.mel_hz) - 0.5), interpolation="nearest",
        )  # fmt: skip
        bar_axes = add_colour_bar(figure, attention_axes, patches, "attention of a patch (%)")
        bar_axes.axhline(100 / percent.size, color=FAINT, linewidth=1, linestyle=(0, (2, 1)))
        attention_axes.set_xlim(0, seconds)
        attention_axes.set_xlabel("time (seconds)")
        even = f"dashed in the colour bar: all patches alike, {100 / percent.size:.2g} %"
        attention_axes.set_title(even, loc="left", fontsize=8, color=FAINT)
        _draw_title(level_axes, explanation)
        return save_figure(figure, output)


def _draw_title(axes: "Axes", explanation: Explanation) -> None:
    """File name; under it which part is shown, and the captions with their similarity, most similar first."""
    ranked = sorted(zip(explanation.similarities, explanation.captions, strict=True), reverse=True)
    lines = [explanation.part]
    lines += [f"{similarity:+.2f}  “{_short(caption)}”" for similarity, caption in ranked[:MAX_CAPTIONS]]
    if len(ranked) > MAX_CAPTIONS:
        lines.append(f"and {len(ranked) - MAX_CAPTIONS} more captions")
    axes.set_title(_short(Path(explanation.name).name), loc="left", fontsize=13, pad=9 + POINTS_PER_LINE * len(lines))
    for position, line in enumerate(reversed(lines)):
        axes.annotate(
            line, (0, 1), (0, 8 + POINTS_PER_LINE * position), xycoords="axes fraction", textcoords="offset points",
            fontsize=9, color=FAINT if line == explanation.part else None,
        )  # fmt: skip


def _short(text: str) -> str:
    return textwrap.shorten(text, 100, placeholder=" …") if " " in text else text[:100]


def _frame_step(explanation: Explanation) -> float:
    """Seconds from one frame to the next; a clip of one frame is as long as it is."""
    frames = explanation.frame_seconds
    return float(frames[1] - frames[0]) if len(frames) > 1 else explanation.shown_seconds


def _patch_end(explanation: Explanation) -> float:
    """Seconds at which the last column of patches ends."""
    centres = explanation.column_seconds
    return float(centres[-1] + centres[0])


def _pale_greys() -> "ListedColormap":
    """White to middle grey, so that colour shows on it."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["Greys"](np.linspace(0, 0.65, 256)))


def _glaze() -> "ListedColormap":
    """White and clear to dark red and nearly opaque."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    colours = colormaps["YlOrRd"](np.linspace(0.1, 0.9, 256))
    colours[:, 3] = np.linspace(0, 0.8, 256)
    return ListedColormap(colours)


__all__ = ["plot_attention"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The picture of an `EmbeddingMap`: a point per clip, colour and shape by class, the silhouette in the title.

Needs matplotlib (the extra `viz`).
"""

from pathlib import Path

from .embedding_map import EmbeddingMap
from .figures_style import COLOURS, FAINT, house_style, new_figure, save_figure

MARKERS = "os^DvPX*<>phd8"
MAX_LOOKS = len(COLOURS) * len(MARKERS)  # classes that can look different; more repeat, without a legend
LEGEND_ROWS = 25
FEATURE_NAMES = {"clap": "embeddings in the shared space", "audio": "features of the audio encoder"}


def plot_map(embedding_map: EmbeddingMap, output: str | Path, *, note: str = "") -> Path:
    """Draws the clips of a map.

    Args:
        embedding_map: points of clips with classes.
        output: picture to write, .png or .pdf.
        note: added to the small line under the title, such as the name of the model.

    Returns:
        `output` as a path.

    Raises:
        MissingResourceError: if matplotlib is not installed.
    """
    classes = embedding_map.classes
    with house_style():
        columns = -(-len(classes) // LEGEND_ROWS) if len(classes) <= MAX_LOOKS else 0
        figure = new_figure(7.5 + 1.8 * columns, 6.5)
        axes = figure.add_subplot()
        size = 36 if len(embedding_map.labels) <= 500 else 12
        for number, name in enumerate(classes):
            own = embedding_map.points[[label == name for label in embedding_map.labels]]  # (clips of it, 2)
            marker, colour = MARKERS[number // len(COLOURS) % len(MARKERS)], COLOURS[number % len(COLOURS)]
            label = f"{name.replace('_', ' ')} ({len(own)})"
            axes.scatter(
                *own.T, s=size, marker=marker, color=colour, alpha=0.75, linewidths=0.4, edgecolors="white",
                label=label,
            )  # fmt: skip
        axes.set_xlabel("t-SNE 1 (no unit)")
        axes.set_ylabel("t-SNE 2 (no unit)")
        axes.tick_params(labelsize=8)
        axes.set_aspect("equal", adjustable="datalim")
        if columns:
            axes.legend(
                loc="upper left", bbox_to_anchor=(1.01, 1), ncols=columns, fontsize=8, frameon=False,
                title="class (clips)", title_fontsize=8, alignment="left",
            )  # fmt: skip
        axes.set_title(f"silhouette {embedding_map.silhouette:.3f}", loc="left", fontsize=13, pad=24)
        details = (
            f"{len(embedding_map.labels)} clips of {len(classes)} classes",
            FEATURE_NAMES[embedding_map.features],
            "silhouette: cosine distance, before t-SNE",
            "" if columns else "too many classes for a legend: looks repeat",
            note,
        )
        axes.annotate(
            "   ·   ".join(detail for detail in details if detail), (0, 1), (0, 10), xycoords="axes fraction",
            textcoords="offset points", fontsize=8, color=FAINT,
        )  # fmt: skip
        return save_figure(figure, output)


__all__ = ["plot_map"]

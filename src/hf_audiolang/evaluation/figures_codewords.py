# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Pictures of what codewords mean: their usage, when they are heard in a clip, and the last block's maps (Figure 3).

    CodewordUsage -> in how many clips and captions, and with how much weight, each codeword is
    record, FrameScores (T, K) -> log-mel, the true events, one lane per codeword
    records, BlockMaps -> two maps per clip, with the borders of its events

Needs matplotlib (the extra `viz`).
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_audiolang.data.records import Record

from .block_maps import BlockMaps
from .capabilities import AudioProcessor, feature_extractor_of
from .codewords import CodewordUsage
from .figures_events import level_overview
from .figures_style import (
    COLOURS,
    FAINT,
    INK,
    add_colour_bar,
    draw_level,
    house_style,
    mel_centres_hz,
    new_figure,
    save_figure,
)
from .metrics.detections import FrameScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

GRID = "#E6E6E6"
LOWEST_WEIGHT = 0.01  # of the logarithmic axis, times an equal weight; smaller ones are drawn there
EVENT_INCHES, LANE_INCHES, MAP_INCHES = 0.27, 0.85, 4.3
LINE_LENGTH, LANE_LENGTH = 88, 96  # characters of a title and of a lane's name
HIGH_PERCENTILE = 99  # of the map's values off the diagonal: where its colours end


def plot_usage(usage: CodewordUsage, output: str | Path, *, note: str = "") -> Path:
    """Draws how much each codeword is used, sorted by its use in clips: in clips as a line, in captions as points.

    Args:
        usage: of a corpus.
        output: picture to write, .png, .pdf or .svg.
        note: added to the small line under the title, such as the name of the model.

    Returns:
        `output` as a path.

    Raises:
        MissingResourceError: if matplotlib is not installed.
    """
    num_clips, num_captions = usage.num_clips, max(usage.num_captions, 1)
    equal = 1 / usage.num_codewords
    with house_style():
        figure = new_figure(11.0, 4.6)
        left, right = figure.subplots(1, 2)
        is_dead = usage.audio_counts + usage.text_counts == 0
        order = np.lexsort((-usage.audio_weights, -usage.audio_counts, is_dead))
        shares = (100 * usage.audio_counts / num_clips, 100 * usage.text_counts / num_captions)
        _draw_sorted(left, *(share[order] for share in shares), has_captions=usage.num_captions > 0)
        left.set_ylim(-2, 104)
        left.set_ylabel("clips or captions whose support holds it (%)")
        order = np.lexsort((-usage.text_weights, -usage.audio_weights))
        weights = (usage.audio_weights / num_clips / equal, usage.text_weights / num_captions / equal)
        weights = [np.maximum(weight[order], LOWEST_WEIGHT) for weight in weights]
        _draw_sorted(right, *weights, has_captions=usage.num_captions > 0)
        right.set_yscale("log")
        right.set_ylim(LOWEST_WEIGHT * 0.8, None)
        right.axhline(1, color=FAINT, linewidth=1, linestyle=(0, (4, 2)))
        right.set_ylabel("mean weight (1 = all codewords alike)")
        right.yaxis.set_major_formatter(lambda value, _: f"{'≤ ' if value <= LOWEST_WEIGHT else ''}{value:g}")
        for axes, by in ((left, "clips that hold them"), (right, "weight in clips")):
            if is_dead.any():  # last in either order
                first = usage.num_codewords - is_dead.sum()
                axes.axvspan(first, usage.num_codewords, color=INK, alpha=0.15, linewidth=0)
            axes.set_xlim(0, usage.num_codewords)
            axes.set_xlabel(f"codewords, sorted by {by}")
            axes.grid(axis="y", color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
        _draw_title(left, _dead_title(usage), _usage_line(usage, note))
        return save_figure(figure, output)


def plot_codeword_frames(
    record: Record,
    processor: AudioProcessor,
    scores: FrameScores,
    names: Sequence[str],
    output: str | Path,
    *,
    note: str = "",
) -> Path:
    """Draws a clip's log-mel, its true events as bars, and for each codeword its cosine with every frame.

    Args:
        record: the clip; its `events` are the bars and the shading.
        processor: holds the model's feature extractor, or is it.
        scores: `scores` (T, K) cosines, `edges` (T + 1,) seconds.
        names: K labels of the lanes.
        output: picture to write, .png, .pdf or .svg.
        note: small line under the title.

    Returns:
        `output` as a path.

    Raises:
        AudioError: if the clip cannot be read.
        MissingResourceError: if matplotlib is not installed.
        ValueError: if there are not as many labels as columns.
    """
    if scores.scores.shape[1] != len(names):
        raise ValueError(
            f"`names` has {len(names)} labels for {scores.scores.shape[1]} columns of scores. Give one for each."
        )
    extractor, seconds = feature_extractor_of(processor), float(scores.edges[-1])
    colours = _label_colours([record])
    rows = list(colours)
    with house_style():
        level_db = level_overview(record, extractor, seconds)  # (columns, F)
        heights = [2.0, *([0.2 + EVENT_INCHES * len(rows)] if rows else []), *[LANE_INCHES] * len(names)]
        figure = new_figure(10.0, 1.3 + sum(heights))
        grid = figure.add_gridspec(len(heights), 1, height_ratios=heights, hspace=0.08)
        mel_axes = figure.add_subplot(grid[0])
        image = draw_level(mel_axes, level_db, mel_centres_hz(extractor, level_db.shape[1]), seconds)
        add_colour_bar(figure, mel_axes, image, "level (dB below peak)")
        _draw_title(mel_axes, _title_of(record), note)
        if rows:
            _draw_events(figure.add_subplot(grid[1], sharex=mel_axes), record, colours)
        lanes = [figure.add_subplot(cell, sharex=mel_axes) for cell in list(grid)[len(heights) - len(names) :]]
        margin = 0.08 * float(np.ptp(scores.scores)) or 0.1
        for lane, (axes, name) in enumerate(zip(lanes, names, strict=True)):
            _draw_lane(axes, name, scores.scores[:, lane], scores.edges, record, colours)
            axes.set_ylim(scores.scores.min() - margin, scores.scores.max() + margin)
        lanes[len(lanes) // 2].set_ylabel("cosine")
        lanes[-1].set_xlabel("time (seconds)")
        mel_axes.set_xlim(0, seconds)
        for axes in figure.axes[:-1]:
            axes.tick_params(labelbottom=axes is lanes[-1])
        return save_figure(figure, output)


def plot_block_maps(clips: Sequence[tuple[Record, BlockMaps]], output: str | Path, *, note: str = "") -> Path:
    """Draws for each clip how alike its frames are, by queries and keys and by values, with its events (Figure 3).

    Args:
        clips: records with their maps, a row of the picture for each.
        output: picture to write, .png, .pdf or .svg.
        note: small line at the bottom.

    Returns:
        `output` as a path.

    Raises:
        MissingResourceError: if matplotlib is not installed.
    """
    with house_style():
        heights = [_map_heights(record) for record, _ in clips]
        figure = new_figure(10.6, 0.4 + sum(sum(own) + 1.2 for own in heights))
        rows = figure.subfigures(
            len(clips), 1, squeeze=False, hspace=0.04, height_ratios=[sum(own) + 1.2 for own in heights]
        )
        for part, own, (record, maps) in zip(rows[:, 0], heights, clips, strict=True):
            _draw_maps(part, own, record, maps)
        if note:
            figure.supxlabel("\n".join(textwrap.wrap(note, 150)), x=0.02, ha="left", fontsize=9, color=FAINT)
        return save_figure(figure, output)


def _draw_sorted(axes: "Axes", audio: np.ndarray, text: np.ndarray, *, has_captions: bool) -> None:
    """Values (M,) of clips as a line, and of captions as points at the same places."""
    places = np.arange(len(audio)) + 0.5
    if has_captions:
        axes.scatter(places, text, s=9, color=COLOURS[1], alpha=0.55, linewidths=0, label="captions")
    axes.plot(places, audio, color=COLOURS[0], linewidth=2.2, label="clips")


def _dead_title(usage: CodewordUsage) -> str:
    if not len(usage.dead):
        return f"None of the {usage.num_codewords} codewords is dead"
    return f"{len(usage.dead)} of {usage.num_codewords} codewords are dead ({usage.dead_share:.1%}, grey)"


def _usage_line(usage: CodewordUsage, note: str) -> str:
    parts = [f"{usage.num_clips} clips with {usage.active_per_clip:.4g} codewords each on average"]
    if usage.active_per_caption is not None:
        parts.append(f"{usage.num_captions} captions with {usage.active_per_caption:.4g}")
    return "   ·   ".join([*parts, *([note] if note else [])])


def _draw_title(axes: "Axes", title: str, line: str) -> None:
    """A title, and under it a small line."""
    axes.set_title(_wrapped(title), loc="left", fontsize=13, pad=24, parse_math=False)
    _draw_line(axes, line)


def _draw_line(axes: "Axes", line: str) -> None:
    """A small line over the axes, which may be wider than they are."""
    text = axes.annotate(
        line, (0, 1), (0, 9), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=FAINT,
        parse_math=False, annotation_clip=False,
    )  # fmt: skip
    text.set_in_layout(False)  # else the panels make room for it between them


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, LINE_LENGTH, max_lines=2, placeholder=" ..."))


def _title_of(record: Record) -> str:
    return f"“{record.captions[0]}”" if record.captions else Path(record.id).name


def _label_colours(records: Sequence[Record]) -> dict[str, str]:
    """A colour for each label of the events, in order of time."""
    events = [event for record in records for event in sorted(record.events, key=lambda event: event["onset"])]
    labels = dict.fromkeys(event["label"] for event in events)
    return {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(labels)}


def _draw_events(axes: "Axes", record: Record, colours: dict[str, str]) -> None:
    """One row of bars per label of the clip's events."""
    rows = list(colours)
    for row, label in enumerate(rows):
        spans = [(e["onset"], e["offset"] - e["onset"]) for e in record.events if e["label"] == label]
        axes.broken_barh(spans, (row - 0.32, 0.64), color=colours[label])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [label.replace("_", " ") for label in rows], fontsize=9)
    for tick, label in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(colours[label])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_lane(
    axes: "Axes", name: str, cosines: np.ndarray, edges: np.ndarray, record: Record, colours: dict[str, str]
) -> None:
    """Cosines (T,) of one codeword as steps, over the shaded events."""
    for event in record.events:
        axes.axvspan(event["onset"], event["offset"], color=colours[event["label"]], alpha=0.15, linewidth=0)
    axes.axhline(0, color="#CCCCCC", linewidth=0.8, zorder=1)
    axes.stairs(cosines, edges, baseline=None, color=INK, linewidth=1.8)
    axes.annotate(
        name if len(name) <= LANE_LENGTH else f"{name[: LANE_LENGTH - 3]}...", (0, 1), (0, 3),
        xycoords="axes fraction", textcoords="offset points", fontsize=9, parse_math=False,
    )  # fmt: skip
    axes.locator_params(axis="y", nbins=3)


def _map_heights(record: Record) -> list[float]:
    """Inches of a clip's rows of panels: its events, if there are any, and its maps."""
    num_labels = len(_label_colours([record]))
    return [*([0.15 + EVENT_INCHES * num_labels] if num_labels else []), MAP_INCHES]


def _draw_maps(figure: "SubFigure", heights: Sequence[float], record: Record, maps: BlockMaps) -> None:
    """Both maps of a clip side by side, each under the clip's events."""
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, hspace=0.02)
    ratios = (maps.query_key_ratio, maps.value_value_ratio)
    names = ("queries and keys", "values and values")
    for column, similarities in enumerate((maps.query_key, maps.value_value)):
        axes = [figure.add_subplot(grid[row, column]) for row in range(len(heights))]
        _draw_map(figure, axes[-1], similarities, maps, record)
        axes[-1].set_ylabel("time of the asking frame (s)" if column == 0 else "")
        if len(axes) > 1:
            _draw_events(axes[0], record, _label_colours([record]))
            axes[0].set_xlim(axes[-1].get_xlim())
            axes[0].tick_params(labelbottom=False, labelleft=column == 0)
        if column == 0:
            axes[0].set_title(_wrapped(_title_of(record)), loc="left", fontsize=12, pad=24, parse_math=False)
        ratio = "" if ratios[column] is None else f"   ·   inside / across events {ratios[column]:.2f}"
        _draw_line(axes[0], f"{names[column]}{ratio}")


def _draw_map(figure: "SubFigure", axes: "Axes", similarities: np.ndarray, maps: BlockMaps, record: Record) -> None:
    """One map (T, T) in multiples of an equal share, with the borders of the events."""
    relative, seconds = similarities * len(similarities), float(maps.edges[-1])
    others = relative[~np.eye(len(relative), dtype=bool)]
    top = float(np.percentile(others, HIGH_PERCENTILE)) if len(others) else float(relative.max())
    image = axes.pcolormesh(maps.edges, maps.edges, relative, cmap="viridis", vmin=0, vmax=max(top, 1.0))
    for border in sorted({event[side] for event in record.events for side in ("onset", "offset")}):
        if 0 < border < seconds:
            axes.axvline(border, color="white", linewidth=0.9, linestyle=(0, (4, 3)))
            axes.axhline(border, color="white", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, seconds)
    axes.set_xlabel("time of the other frame (s)")
    add_colour_bar(figure, axes, image, "similarity (1 = all frames alike)")


__all__ = ["plot_block_maps", "plot_codeword_frames", "plot_usage"]

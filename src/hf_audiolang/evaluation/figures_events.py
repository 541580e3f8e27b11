# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The picture of what was found in a recording of any length: its log-mel, and below it one lane per label.

    recording -> windows -> log-mel, averaged to at most 1500 columns ----.
    FrameScores (T, C) -> score of each label over time, at most 1500 steps -+-> picture
                       -> find_events -> bars -----------------------------'

Needs matplotlib (the extra `viz`).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers import FeatureExtractionMixin

from hf_audiolang.data.audio_io import record_waveform
from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor, feature_extractor_of
from .embed import AudioOptions, longest_seconds
from .events import DetectedEvent, EventRule, find_events
from .figures_style import (
    COLOURS,
    FAINT,
    add_colour_bar,
    draw_level,
    house_style,
    level_of,
    mel_centres_hz,
    new_figure,
    save_figure,
)
from .metrics.psds import FrameScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LANES = 8
MAX_COLUMNS = 1500  # a picture of 10 inches has as many points
WINDOW_SECONDS = 10.0  # of the log-mel, or the feature extractor's limit if that is shorter
MANY_STEPS = 400  # of a curve, which is drawn thinner then
MAX_LABEL = 64  # characters that fit beside the note of a lane
TICK_SECONDS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)
MINUTE, HOUR = 60, 3600


def plot_events(
    record: Record,
    processor: AudioProcessor,
    frame_scores: FrameScores,
    labels: Sequence[str],
    output: str | Path,
    *,
    rule: EventRule | None = None,
) -> Path:
    """Draws a recording's log-mel; below it each label's score over time, the threshold, and what was found.

    Args:
        record: the recording; a file is read window by window.
        processor: holds the model's feature extractor, or is it.
        frame_scores: `scores` (T, C) cosine similarities, `edges` (T + 1,) seconds.
        labels: C names of the columns; of more than eight, those with the highest score are drawn.
        output: picture to write, .png, .pdf or .svg.
        rule: by which the bars are made.

    Returns:
        `output` as a path.

    Raises:
        AudioError: if the recording cannot be read.
        MissingResourceError: if matplotlib is not installed.
        ValueError: if the columns are not the labels'.
    """
    rule = rule or EventRule()
    events = find_events(frame_scores, labels, rule)
    scores, seconds = np.maximum(frame_scores.scores, 0.0), float(frame_scores.edges[-1])  # (T, C)
    lanes = highest_columns(scores)
    extractor = feature_extractor_of(processor)
    with house_style():
        level_db = level_overview(record, extractor, seconds)  # (columns, F)
        lane_inches = 0.95 if len(lanes) <= 4 else 0.75
        figure = new_figure(10.0, 3.4 + lane_inches * len(lanes))
        grid = figure.add_gridspec(len(lanes) + 1, 1, height_ratios=[2.0, *[lane_inches] * len(lanes)], hspace=0.08)
        mel_axes = figure.add_subplot(grid[0])
        image = draw_level(mel_axes, level_db, mel_centres_hz(extractor, level_db.shape[1]), seconds)
        add_colour_bar(figure, mel_axes, image, "level (dB below peak)")
        _draw_title(mel_axes, record, seconds, _summary(events, len(lanes), len(labels), rule))
        top = 1.15 * max(float(scores[:, lanes].max()), rule.threshold)
        for position, column in enumerate(lanes):
            axes = figure.add_subplot(grid[position + 1], sharex=mel_axes)
            found = [event for event in events if event.label == labels[column]]
            curve = FrameScores(scores[:, [column]], frame_scores.edges)
            _draw_lane(axes, labels[column], curve, found, COLOURS[position % len(COLOURS)])
            axes.axhline(rule.threshold, color=FAINT, linewidth=1, linestyle=(0, (4, 2)))
            axes.set_ylim(-0.16 * top, top)
            axes.set_ylabel("score" if position == len(lanes) // 2 else "")
            axes.tick_params(labelbottom=position == len(lanes) - 1)
        _set_time_axis(axes, seconds)
        mel_axes.set_xlim(0, seconds)
        mel_axes.tick_params(labelbottom=False)
        return save_figure(figure, output)


def level_overview(
    record: Record, extractor: FeatureExtractionMixin, seconds: float, max_columns: int = MAX_COLUMNS
) -> np.ndarray:
    """Log-mel (columns, F) in dB of a recording of any length: the mean power of the frames in each column.

    At most ten seconds of the recording are in memory at a time.

    Args:
        record: the recording.
        extractor: a log-mel feature extractor with `hop_length`.
        seconds: duration of the recording.
        max_columns: most columns of the result; a short recording keeps its frames.
    """
    rate, hop = extractor.sampling_rate, extractor.hop_length
    num_columns = min(max_columns, max(1, math.ceil(seconds * rate / hop)))
    window_seconds = longest_seconds(extractor, AudioOptions(max_seconds=WINDOW_SECONDS))
    power, counts = None, np.zeros(num_columns)
    for start in np.arange(0, seconds, window_seconds):
        waveform = record_waveform(record, rate, float(start), window_seconds)
        level_db = level_of(extractor, waveform)[: math.ceil(len(waveform) / hop)]  # (T, F) without filling
        middles = start + (np.arange(len(level_db)) + 0.5) * hop / rate
        columns = np.minimum((middles / seconds * num_columns).astype(int), num_columns - 1)
        if power is None:
            power = np.zeros((num_columns, level_db.shape[1]))
        np.add.at(power, columns, 10 ** (level_db.astype(np.float64) / 10))
        np.add.at(counts, columns, 1)
    filled = np.maximum.accumulate(np.where(counts > 0, np.arange(num_columns), 0))  # an empty one repeats the last
    return 10 * np.log10(power[filled] / counts[filled, None])


def highest_columns(scores: np.ndarray, count: int = MAX_LANES) -> list[int]:
    """The columns of (T, C) scores with the highest maximum, at most `count` of them, in their own order."""
    return sorted(np.argsort(-scores.max(axis=0), kind="stable")[:count].tolist())


def clock_text(seconds: float, decimals: int = 2) -> str:
    """A time as m:ss.ss, from an hour on as h:mm:ss.ss: `clock_text(75.5)` is `"1:15.50"`."""
    ticks = round(seconds * 10**decimals)  # rounded first: 59.999 is 1:00.00
    minutes, ticks = divmod(ticks, MINUTE * 10**decimals)
    hours, minutes = divmod(minutes, 60)
    rest = f"{ticks / 10**decimals:0{decimals + 3 if decimals else 2}.{decimals}f}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


def _summary(events: Sequence[DetectedEvent], num_lanes: int, num_labels: int, rule: EventRule) -> str:
    """What was found, by which threshold, and whether labels are left out."""
    found = f"{len(events)} found" if events else "nothing found"
    left_out = (
        f"   ·   the {num_lanes} of {num_labels} labels with the highest score" if num_labels > num_lanes else ""
    )
    return f"{found}   ·   dashed: threshold {rule.threshold:g}{left_out}"


def _draw_title(axes: "Axes", record: Record, seconds: float, summary: str) -> None:
    """The name of the file, and under it a small line."""
    name = Path(record.id).name
    axes.set_title(name if len(name) <= 80 else f"{name[:77]}...", loc="left", fontsize=13, pad=24, parse_math=False)
    duration = clock_text(seconds) if seconds >= MINUTE else f"{seconds:.2f} s"
    axes.annotate(
        f"{duration}   ·   {summary}", (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
        fontsize=9, color=FAINT,
    )  # fmt: skip


def _draw_lane(axes: "Axes", label: str, curve: FrameScores, found: Sequence[DetectedEvent], colour: str) -> None:
    """Score (T, 1) of one label as steps; under it a bar for each event, and its time shaded."""
    for event in found:
        axes.axvspan(event.start, event.end, color=colour, alpha=0.16, linewidth=0)
        axes.axvspan(event.start, event.end, ymin=0.02, ymax=0.11, color=colour, linewidth=1.5)  # thin ones too
    bounds = np.unique(np.linspace(0, len(curve.scores), min(MAX_COLUMNS, len(curve.scores)) + 1).astype(int))
    highest = np.maximum.reduceat(curve.scores[:, 0], bounds[:-1])  # of the frames that share a column
    axes.stairs(
        highest, curve.edges[bounds], baseline=None, color=colour, linewidth=1.5 if len(highest) < MANY_STEPS else 1
    )
    axes.axhline(0, color="#DDDDDD", linewidth=0.8, zorder=0)
    axes.annotate(
        label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 3]}...", (0, 1), (0, 3),
        xycoords="axes fraction", textcoords="offset points", color=colour, fontsize=11, fontweight="bold",
        parse_math=False,
    )  # fmt: skip
    axes.annotate(
        f"{len(found)} found, highest score {curve.scores.max():.2f}", (1, 1), (0, 3), ha="right",
        xycoords="axes fraction", textcoords="offset points", fontsize=8, color=FAINT,
    )  # fmt: skip
    axes.locator_params(axis="y", nbins=3)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)


def _set_time_axis(axes: "Axes", seconds: float) -> None:
    """Seconds, or m:ss with round steps for more than a minute."""
    if seconds < MINUTE:
        axes.set_xlabel("time (seconds)")
        return
    step = next((step for step in TICK_SECONDS if seconds / step <= 10), math.ceil(seconds / 10 / HOUR) * HOUR)
    axes.set_xticks(np.arange(0, seconds + 1e-6, step))
    axes.xaxis.set_major_formatter(lambda value, _: clock_text(value, decimals=0))
    axes.set_xlabel("time (min:s)" if seconds < HOUR else "time (h:min:s)")


__all__ = ["clock_text", "highest_columns", "level_overview", "plot_events"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Two pictures of a run: the loss curves, and what the model hears when in one scene.

    train_log.jsonl -> one panel per loss term
    record -> log-mel; below it, per phrase of the scene, the similarity of each frame and the true onsets and offsets

Needs matplotlib (the extra `viz`); nothing else of the package does.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from transformers import ProcessorMixin

from hf_audiolang.data.audio_io import record_waveform
from hf_audiolang.data.records import Record

from .embed import embed_texts
from .figures_style import (
    COLOURS,
    FAINT,
    INK,
    add_colour_bar,
    draw_level,
    house_style,
    level_of,
    mel_centres_hz,
    new_figure,
    save_figure,
)
from .frames import embed_frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS_NAMES = ("loss", "contrastive", "masked", "caption")
PICTURE_CANDIDATES = 60  # first scenes of the test split, among which the picture's scene is found


def plot_losses(log_file: str | Path, output: str | Path, names: Sequence[str] = LOSS_NAMES) -> Path:
    """Draws the loss terms of a run over its steps: each step faint, their running mean bold.

    Args:
        log_file: the run's train_log.jsonl, one JSON object with `step` and values per line.
        output: picture to write, .png or .pdf.
        names: values to draw, each in a panel of its own; those that the log does not have are left out.

    Returns:
        `output` as a path.

    Raises:
        MissingResourceError: if matplotlib is not installed.
        ValueError: if the log has none of the values.
    """
    lines = [json.loads(line) for line in Path(log_file).read_text(encoding="utf-8").splitlines() if line.strip()]
    curves = {name: np.array([(line["step"], line[name]) for line in lines if name in line]) for name in names}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        raise ValueError(f"`log_file` '{log_file}' has none of {list(names)}. Give the train_log.jsonl of a run.")
    with house_style():
        figure = new_figure(3.0 * len(curves) + 0.6, 2.9)
        for position, (name, curve) in enumerate(curves.items()):
            axes = figure.add_subplot(1, len(curves), position + 1)
            _draw_curve(axes, name, curve, INK if name == "loss" else COLOURS[(position - 1) % len(COLOURS)])
            axes.set_ylabel("nats" if position == 0 else "")
        return save_figure(figure, output)


def plot_scene(
    model: nn.Module,
    processor: ProcessorMixin,
    record: Record,
    output: str | Path,
    *,
    phrases: Sequence[str] | None = None,
    note: str = "",
) -> Path:
    """Draws one clip: its log-mel, and for each phrase how much every frame resembles it, with the true times.

    Args:
        model: has `get_audio_frame_features` and `get_text_features`.
        processor: the model's processor.
        record: a clip with `phrases` ({"phrase", "segments"}) and, for the title, captions.
        output: picture to write, .png or .pdf.
        phrases: other words to compare the frames with, for a clip without annotation; no true times are drawn.
        note: small line under the title, such as the name of the clip.

    Returns:
        `output` as a path.

    Raises:
        MissingResourceError: if matplotlib is not installed.
        ValueError: if there is nothing to compare with, or the clip cannot be read.
    """
    entries = [{"phrase": text, "segments": []} for text in phrases] if phrases else list(record.phrases)
    if not entries:
        raise ValueError(f"Record {record.id!r} has no `phrases`. Pass `phrases` with the words to look for.")
    waveform = record_waveform(record, processor.feature_extractor.sampling_rate)
    seconds = len(waveform) / processor.feature_extractor.sampling_rate
    embedded = embed_frames(model, processor, [record])
    similarities = embedded.frames[0] @ embed_texts(model, processor, [entry["phrase"] for entry in entries]).T

    with house_style():
        figure = new_figure(10.0, 3.6 + 1.05 * len(entries))
        grid = figure.add_gridspec(len(entries) + 1, 1, height_ratios=[2.3] + [1.0] * len(entries), hspace=0.08)
        mel_axes = figure.add_subplot(grid[0])
        level_db = level_of(processor.feature_extractor, waveform)
        mel_hz = mel_centres_hz(processor.feature_extractor, level_db.shape[1])
        image = draw_level(mel_axes, level_db, mel_hz, seconds)
        add_colour_bar(figure, mel_axes, image, "level (dB below peak)")
        _draw_title(mel_axes, record, f"{note}   ·   {seconds:.1f} s" if note else f"{seconds:.1f} s")
        margin = 0.08 * float(np.ptp(similarities)) or 0.1
        for lane, entry in enumerate(entries):
            axes = figure.add_subplot(grid[lane + 1], sharex=mel_axes)
            colour = COLOURS[lane % len(COLOURS)]
            _draw_lane(axes, entry, similarities[:, lane], embedded.frame_rate_hz, colour)
            axes.set_ylim(similarities.min() - margin, similarities.max() + margin)
            axes.set_ylabel("cosine similarity" if lane == len(entries) // 2 else "")
            axes.tick_params(labelbottom=lane == len(entries) - 1)
            for segment in entry["segments"]:
                _draw_bracket(mel_axes, segment, colour, lane)
        axes.set_xlabel("time (seconds)")
        mel_axes.set_xlim(0, seconds)
        mel_axes.tick_params(labelbottom=False)
        return save_figure(figure, output)


def plot_test_scene(
    model: nn.Module, processor: ProcessorMixin, output: str | Path, scene_options: Mapping[str, object] | None = None
) -> Path:
    """Draws one scene of the embedded data's test split: the same for every model, not one that came out well.

    Args:
        model: has `get_audio_frame_features` and `get_text_features`.
        processor: the model's processor.
        output: picture to write, .png or .pdf.
        scene_options: options of `SoundScenes`, such as `duration` and `n_events`.

    Returns:
        `output` as a path.

    Raises:
        MissingResourceError: if matplotlib is not installed.
    """
    from hf_audiolang.data.sound_scenes import SoundScenes

    options = {"sampling_rate": processor.feature_extractor.sampling_rate, **(scene_options or {})}
    scenes = SoundScenes("test", PICTURE_CANDIDATES, **options)
    position = picture_scene([scenes.structure(index) for index in range(len(scenes))])
    note = f"test scene {position} of SoundScenes v{scenes.version} (synthetic)"
    return plot_scene(model, processor, Record.from_row(scenes[position]), output, note=note)


def picture_scene(rows: Sequence[Mapping]) -> int:
    """Position of the first `plain` scene that is a sequence of three sounds, else of the one with most sounds.

    Args:
        rows: rows of the test split, audio not needed.
    """
    for position, row in enumerate(rows):
        if (row["part"], row["mode"], len(row["events"])) == ("plain", "sequence", 3):
            return position
    return max(range(len(rows)), key=lambda position: (len(rows[position]["phrases"]), -position))


def _draw_curve(axes: "Axes", name: str, curve: np.ndarray, colour: str) -> None:
    """One loss term: (steps, 2) of step and value."""
    steps, values = curve.T
    width = max(1, len(values) // 20)
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    mean = running_mean(values, width)
    axes.plot(steps, mean, color=colour, linewidth=2)
    axes.annotate(
        f"{values[-width:].mean():.2f}", (1, 1), xycoords="axes fraction", ha="right", va="bottom",
        color=colour, fontsize=11, fontweight="bold",
    )  # fmt: skip
    axes.set_title("total loss" if name == "loss" else f"{name} loss", loc="left", fontsize=11)
    axes.set_xlabel("optimizer step")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_xlim(min(0, steps[0]), max(steps[-1], steps[0] + 1))


def _draw_title(axes: "Axes", record: Record, note: str) -> None:
    """The first caption as title, under it a small line."""
    title = f"“{record.captions[0]}”" if record.captions else record.id
    has_times = any(entry["segments"] for entry in record.phrases)
    shaded = "   ·   bars and shading: when it is really heard" if has_times else ""
    num_lines = -(-len(title) // 88)
    title = textwrap.fill(title, -(-len(title) // num_lines) + 8)  # lines of about equal length
    axes.set_title(title, loc="left", fontsize=13, pad=34)
    axes.annotate(
        note + shaded, (0, 1), (0, 21), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=FAINT
    )


def _draw_bracket(axes: "Axes", segment: Sequence[float], colour: str, lane: int) -> None:
    """A bar above the log-mel from onset to offset, so that the eye finds the sound in the picture."""
    height = 1.025 + 0.03 * lane
    axes.plot(
        segment, (height, height), transform=axes.get_xaxis_transform(), color=colour, linewidth=3.5, clip_on=False,
        solid_capstyle="butt",
    )  # fmt: skip


def _draw_lane(axes: "Axes", entry: dict, similarity: np.ndarray, frame_rate_hz: float, colour: str) -> None:
    """Similarity (T',) of the frames to one phrase as steps, on the shaded true segments."""
    for onset, offset in entry["segments"]:
        axes.axvspan(onset, offset, color=colour, alpha=0.16, linewidth=0)
        for edge in (onset, offset):
            axes.axvline(edge, color=colour, linewidth=1, linestyle=(0, (4, 2)))
    edges = np.arange(len(similarity) + 1) / frame_rate_hz
    axes.stairs(similarity, edges, baseline=None, color=colour, linewidth=2)
    axes.axhline(0, color="#DDDDDD", linewidth=0.8, zorder=0)
    axes.annotate(
        entry["phrase"], (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", color=colour,
        fontsize=11, fontweight="bold",
    )  # fmt: skip
    axes.locator_params(axis="y", nbins=3)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean (T,) of each value and its neighbours, about `width` in all, fewer at the ends."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    positions = np.arange(len(values))
    starts, ends = np.maximum(positions - width // 2, 0), np.minimum(positions + width // 2 + 1, len(values))
    return (sums[ends] - sums[starts]) / (ends - starts)


__all__ = ["LOSS_NAMES", "picture_scene", "plot_losses", "plot_scene", "plot_test_scene", "running_mean"]

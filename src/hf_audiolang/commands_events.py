# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sub-commands of `hf-audiolang` that say what is heard when in sound files: detect, ground.

Each takes the parsed options and returns the exit code; the work is done by `detection.detect_files`, `ground_files`.
"""

import argparse
import json
from pathlib import Path

from hf_audiolang.commands_files import load_quietly, picture_paths, report_failed, split_labels, templates_of
from hf_audiolang.data.records import Record
from hf_audiolang.detection import FileDetection, FileEvents, detect_files, ground_files
from hf_audiolang.evaluation.capabilities import AudioProcessor
from hf_audiolang.evaluation.events import EventRule, check_events_path, write_events
from hf_audiolang.evaluation.figures_events import clock_text, plot_events
from hf_audiolang.evaluation.figures_style import house_style
from hf_audiolang.evaluation.frame_scores import FrameScoreOptions
from hf_audiolang.inference import find_audio_files

MAX_HINTS = 10  # labels whose highest score is named where nothing was found


def run_detect(options: argparse.Namespace) -> int:
    """`detect`: prints which label is heard in each file, from when to when."""
    settings, pictures = _checked(options)
    model, processor = load_quietly(options)
    labels, templates = split_labels(options.labels), templates_of(options.template)
    found = detect_files(options.files, labels, model, processor, templates=templates, **settings)
    return _report(found, processor, pictures, options)


def run_ground(options: argparse.Namespace) -> int:
    """`ground`: prints when each phrase is heard in a file."""
    settings, pictures = _checked(options)
    model, processor = load_quietly(options)
    found = ground_files(options.files, options.phrases, model, processor, **settings)
    return _report(found, processor, pictures, options)


def _checked(options: argparse.Namespace) -> tuple[dict[str, EventRule | FrameScoreOptions], dict[str, Path]]:
    """Rule and windows, and the picture of each file, after all checks that need neither model nor audio."""
    rule = EventRule(options.threshold, options.median, options.join, options.min_seconds)
    windows = FrameScoreOptions(window_seconds=options.max_seconds, overlap=options.overlap)
    files = find_audio_files(options.files)
    if options.output:
        check_events_path(options.output, len(files))
    pictures: dict[str, Path] = {}
    if options.plot:
        house_style()  # raises without matplotlib
        pictures = picture_paths(options.plot, files, ending="events", argument="plot")
    return {"rule": rule, "options": windows}, pictures


def _report(
    found: FileDetection, processor: AudioProcessor, pictures: dict[str, Path], options: argparse.Namespace
) -> int:
    """Writes what was asked for, prints the events, and returns the exit code."""
    if options.output:
        write_events({file.file: file.events for file in found.files}, options.output)
    if options.json:
        print(json.dumps({"files": list(map(_as_json, found.files)), "failed": list(found.failed)}, indent=2))
    for file in found.files:
        if not options.json:
            print(_table(file, options.threshold))
        if pictures:
            rule = EventRule(options.threshold, options.median, options.join, options.min_seconds)
            record = Record(id=file.file, audio=file.file)
            plot_events(record, processor, file.frame_scores, file.labels, pictures[file.file], rule=rule)
            if not options.json:
                print(f"  picture: {pictures[file.file]}")
    return report_failed(found.failed)


def _table(file: FileEvents, threshold: float) -> str:
    """One line per event under the file's name, or what would have to change for one."""
    times = [f"{clock_text(event.start)} - {clock_text(event.end)}" for event in file.events]
    width = max(map(len, times), default=0)
    lines = [
        f"  {time:>{width}}  {event.score:5.3f}  {event.label}" for time, event in zip(times, file.events, strict=True)
    ]
    if not file.events:
        highest = list(file.highest_scores().items())
        named = ", ".join(f"{label} {score:.3f}" for label, score in highest[:MAX_HINTS])
        more = f", and {len(highest) - MAX_HINTS} more" if len(highest) > MAX_HINTS else ""
        why = " What passes it is too short for --min_seconds or --median." if highest[0][1] >= threshold else ""
        lines = [f"  No sounds found with threshold {threshold:g}. Highest scores: {named}{more}.{why}"]
    return "\n".join([f"{file.file}  ({clock_text(file.duration)})", *lines])


def _as_json(file: FileEvents) -> dict[str, object]:
    return {
        "file": file.file,
        "duration": file.duration,
        "events": [event.to_dict() for event in file.events],
        "highest_scores": file.highest_scores(),
    }


__all__ = ["run_detect", "run_ground"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""All values of a model in one dict, as metrics.json and as a table with chance levels and ceilings beside them.

    evaluate_sound_scenes(model, processor) or evaluate_own_data(model, processor, dataset)
        -> {"zero_shot/accuracy": 0.93, ..., "chance": {...}, "ceiling": {...}, "records": [...], "left_out": {...}}
        -> write_report -> metrics.json, metrics.md

A task that the model cannot do (no text encoder, no frame embeddings), or that needs a package which is not
installed, is left out and named with the reason. Rates are in [0, 1] here and in metrics.json; the table prints them
in percent. A ceiling is what an oracle reaches that knows the sounds of each clip and their order; a model that also
hears loudness, pitch or counts can be above it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from hf_audiolang.data.records import Record, RecordView

from . import detection, frames, grounding, logistic_probe, retrieval, zero_shot
from .capabilities import AudioProcessor, feature_extractor_of, why_no_text
from .embed import AudioOptions
from .frame_scores import FrameScoreOptions
from .metrics import MissingResourceError
from .results import TaskResult

if TYPE_CHECKING:
    from hf_audiolang.data.sound_scenes import RenderedScenes, SoundScenes

# Rows of the table, in this order; metrics.json has all values.
TABLE_ROWS = (
    ("zero_shot/accuracy", "zero-shot accuracy"),
    ("probe/accuracy", "linear probe accuracy"),
    ("probe_mean/accuracy", "probe on mean pooling, accuracy"),
    ("probe_attention/accuracy", "probe on attention pooling, accuracy"),
    ("probe_mean/mAP", "probe on mean pooling, mixtures, mAP"),
    ("probe_attention/mAP", "probe on attention pooling, mixtures, mAP"),
    ("captioning/CIDEr-D", "captions CIDEr-D"),
    ("captioning/BLEU_4", "captions BLEU-4"),
    ("captioning/ROUGE_L", "captions ROUGE-L"),
    ("captioning/empty", "captions without words"),
    ("text_to_audio/R@1", "text to audio R@1"),
    ("text_to_audio/R@5", "text to audio R@5"),
    ("text_to_audio/R@10", "text to audio R@10"),
    ("text_to_audio/R@1_sem", "text to audio R@1, any clip that fits"),
    ("text_to_audio/mAP@10", "text to audio mAP@10"),
    ("audio_to_text/R@1", "audio to text R@1"),
    ("audio_to_text/R@10", "audio to text R@10"),
    ("order_pairs/accuracy", "order of two sounds"),
    ("composition/text_to_audio/R@1", "unseen pairs of sounds: text to audio R@1"),
    ("composition/text_to_audio/R@10", "unseen pairs of sounds: text to audio R@10"),
    ("classification/accuracy", "accuracy"),
    ("classification/balanced_accuracy", "balanced accuracy"),
    ("tagging/mAP", "tags, mAP"),
    ("frame_classification/mAP", "frames of the head, mAP"),
    ("frame_classification/PSDS1_no_spread", "frames of the head, PSDS1, no spread penalty"),
    ("frame_classification/PSDS2", "frames of the head, PSDS2"),
    ("frame_classification/segment_F1", "frames of the head, segment F1"),
    ("frame/mAP", "frame mAP"),
    ("detection/PSDS1_no_spread", "PSDS1, no spread penalty"),
    ("detection/PSDS2", "PSDS2"),
    ("grounding/PSDSm", "grounding PSDSm"),
)
CEILING_NOTE = (
    "In percent. Ceiling: an oracle that knows the sounds of each clip and their order, nothing else; a model that "
    "also hears loudness, pitch or counts can be above it. Of captions: a clip's own captions against each other.\n"
)
NOT_METRICS = ("chance", "ceiling", "records", "left_out")
FRAME_TASKS = ("frame", "detection", "grounding")
TEXT_TASKS = ("zero_shot", "retrieval", "composition/retrieval", *FRAME_TASKS)
PROBE_TRAIN_RATIO = 2  # training clips of the probe per test clip, our choice: 16 and 8 per class at the usual size


def evaluate_sound_scenes(
    model: nn.Module,
    processor: AudioProcessor,
    *,
    test_size: int = 300,
    composition_size: int = 200,
    zero_shot_size: int = 256,
    scene_options: Mapping[str, object] | None = None,
    num_workers: int = 0,
    options: AudioOptions | None = None,
) -> dict[str, object]:
    """Everything that is reported on the embedded synthetic data: zero-shot, retrieval, order, frames, probe.

    Frames are compared with classes one by one, and asked for events of the classes and for phrases of the captions.

    The probe is tested on the zero-shot clips and trained on twice as many of the same kind, classes in turn, made
    with the next seed: random numbers of their own, no row in common, and no row of any other split.

    Args:
        model: a system with clip, frame and text embeddings, or less: what it cannot do is left out.
        processor: its processor; a feature extractor alone for a model without text.
        test_size: clips of the split `test`: half collision-free, a fifth order pairs, the rest plain.
        composition_size: clips with pairs of classes that training never had together.
        zero_shot_size: single-event clips, classes in turn.
        scene_options: further options of `SoundScenes`: `duration`, `n_events`, `seed`.
        num_workers: processes that render the clips; the values do not depend on it.
        options: reading and batching of the clips.

    Returns:
        metric name -> value, and `chance`, `ceiling` (name -> value), `records` (one per task) and `left_out` (task
        -> reason).
    """
    scene_options = {"sampling_rate": feature_extractor_of(processor).sampling_rate, **(scene_options or {})}

    def render(split: str, num_clips: int, **changes: object) -> RenderedSplit:
        return rendered_split(split, num_clips, {**scene_options, **changes}, num_workers)

    left_out = tasks_left_out(model, processor)
    single_events = render("zero_shot", zero_shot_size)
    results: list[TaskResult] = []
    ceiling: dict[str, float] = {}
    if "retrieval" not in left_out:
        splits = {
            "zero_shot": single_events,
            "test": render("test", test_size),
            "composition": render("composition", composition_size),
        }
        results += _text_tasks(model, processor, splits, options, has_frames="frame" not in left_out)
        ceiling = _ceilings(splits)
    if "probe" not in left_out:
        train = render("zero_shot", PROBE_TRAIN_RATIO * zero_shot_size, seed=single_events.scenes.seed + 1)
        found = logistic_probe.evaluate(model, processor, train.records, single_events.records, options=options)
        train_data = f"{len(train.rows)} clips of seed {train.scenes.seed}"
        results.append(found.labelled(**single_events.about, train_data=train_data))
    return collect(results, ceiling, left_out)


def tasks_left_out(model: nn.Module, processor: AudioProcessor) -> dict[str, str]:
    """Task -> why `evaluate_sound_scenes` leaves it out for this model; empty if it does all."""
    left_out: dict[str, str] = {}
    no_text = why_no_text(model, processor)
    if no_text is not None:
        left_out |= dict.fromkeys(TEXT_TASKS, no_text)
    elif not hasattr(model, "get_audio_frame_features"):
        reason = f"`model` is a {type(model).__name__}, which has no `get_audio_frame_features`."
        left_out |= dict.fromkeys(FRAME_TASKS, reason)
    try:
        logistic_probe.check_installed()
    except MissingResourceError as error:
        left_out["probe"] = str(error)
    return left_out


@dataclass(frozen=True)
class RenderedSplit:
    """One split of the embedded data in memory: rows, the same as records, and what a task's record says of it."""

    scenes: "SoundScenes"
    rows: "RenderedScenes"
    records: RecordView
    about: dict[str, object]


def rendered_split(split: str, num_clips: int, scene_options: Mapping[str, object], num_workers: int) -> RenderedSplit:
    """The first `num_clips` scenes of a split, made by `num_workers` processes."""
    from hf_audiolang.data.sound_scenes import SoundScenes, materialize

    scenes = SoundScenes(split, num_clips, **scene_options)
    rows = materialize(scenes, num_workers=num_workers)
    about = {
        "data": f"synthetic-scenes v{scenes.version} {split}",
        "seed": scenes.seed,
        "data_options": dict(scene_options),
    }
    return RenderedSplit(scenes, rows, RecordView(rows), about)


def _text_tasks(
    model: nn.Module,
    processor: AudioProcessor,
    splits: Mapping[str, RenderedSplit],
    options: AudioOptions | None,
    *,
    has_frames: bool,
) -> list[TaskResult]:
    """The results of all tasks that compare sounds with words."""
    from hf_audiolang.data.sound_scenes import order_pairs, zero_shot_text

    single_events, test, composition = splits["zero_shot"], splits["test"], splits["composition"]
    prompts = {"labels": test.scenes.labels, "label_text": zero_shot_text, "options": options}
    in_test = {"true_clips": _true_clips(test.rows), "order_pairs": order_pairs(test.rows), "options": options}
    results = [
        zero_shot.evaluate(model, processor, single_events.records, **prompts).labelled(**single_events.about),
        retrieval.evaluate(model, processor, test.records, **in_test).labelled(**test.about),
        retrieval.evaluate(model, processor, composition.records, options=options).labelled(
            prefix="composition/", **composition.about
        ),
    ]
    if has_frames:
        windows = FrameScoreOptions(reading=options or AudioOptions())
        results += [
            frames.evaluate(model, processor, test.records, **prompts).labelled(**test.about),
            detection.evaluate(model, processor, test.records, **{**prompts, "options": windows}).labelled(
                **test.about
            ),
            grounding.evaluate(model, processor, test.records, options=windows).labelled(**test.about),
        ]
    return results


def _ceilings(splits: Mapping[str, RenderedSplit]) -> dict[str, float]:
    """Values, by metric, of an oracle that knows each clip's sounds in order."""
    from hf_audiolang.data.sound_scenes import oracle_ceilings

    unseen = oracle_ceilings(splits["composition"].rows)["ordered"]
    prefixed = {f"composition/{name}": value for name, value in unseen.items()}
    return oracle_ceilings(splits["test"].rows)["ordered"] | prefixed


def _true_clips(scenes: "RenderedScenes") -> list[list[list[int]]]:
    """For each caption of each scene the positions of all scenes that it describes completely."""
    from hf_audiolang.data.sound_scenes import relevance

    per_caption = iter(relevance(scenes))
    return [[next(per_caption) for _ in scenes.structure(index)["captions"]] for index in range(len(scenes))]


def evaluate_own_data(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: Sequence[Record],
    *,
    data: str = "your data",
    options: AudioOptions | None = None,
) -> dict[str, object]:
    """What can be reported on any clips: retrieval by their captions, detection by events, grounding by phrases.

    The classes of detection are the labels of the events that there are.

    Args:
        model: a system with clip and text embeddings; for any other the report holds the reason, and no value.
        processor: its processor.
        dataset: records with `captions`, `events` or `phrases`.
        data: name of the data set for the record.
        options: reading and batching of the clips.

    Returns:
        metric name -> value, and `chance`, `ceiling` (empty), `records` and `left_out`.
    """
    given = _annotations_of(dataset)
    no_text = why_no_text(model, processor)
    if no_text is not None:
        return collect([], left_out=dict.fromkeys(given, no_text))
    windows = FrameScoreOptions(reading=options or AudioOptions())
    detection.check_events(dataset, given.get("detection", []))  # before anything is encoded
    results = []
    if "retrieval" in given:
        results.append(retrieval.evaluate(model, processor, dataset, options=options))
    if "detection" in given:
        results.append(detection.evaluate(model, processor, dataset, given["detection"], options=windows))
    if "grounding" in given:
        results.append(grounding.evaluate(model, processor, dataset, options=windows))
    left_out = {} if "retrieval" in given else {"retrieval": "No record has a caption."}
    return collect([result.labelled(data) for result in results], left_out=left_out)


def _annotations_of(dataset: Sequence[Record]) -> dict[str, list[str]]:
    """Tasks that the records are annotated for, detection with its class names; retrieval if with nothing else."""
    labels: set[str] = set()
    has_captions = has_phrases = False
    for index in range(len(dataset)):
        record = dataset[index]
        labels.update(event["label"] for event in record.events)
        has_captions |= bool(record.captions)
        has_phrases |= bool(grounding.heard_phrases(record))
    given = {"detection": sorted(labels)} if labels else {}
    given |= {"grounding": []} if has_phrases else {}
    return given | ({"retrieval": []} if has_captions or not given else {})


def collect(
    results: Sequence[TaskResult],
    ceiling: Mapping[str, float] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """The report of several tasks: all values, then `chance`, `ceiling`, `records` and `left_out`.

    Args:
        results: one per task.
        ceiling: metric name -> value of an oracle.
        left_out: task that was not done -> reason.
    """
    report: dict[str, object] = {name: value for result in results for name, value in result.items()}
    report["chance"] = {name: value for result in results for name, value in result.chance.items()}
    report["ceiling"] = dict(ceiling or {})
    report["records"] = [result.record for result in results]
    report["left_out"] = dict(left_out or {})
    return report


def extended(
    report: Mapping[str, object], results: Sequence[TaskResult], ceiling: Mapping[str, float] | None = None
) -> dict[str, object]:
    """A report with the values of further tasks."""
    more = collect(results, ceiling)
    joined = {**report, **metrics_of(more), "records": [*report["records"], *more["records"]]}
    return {**joined, **{name: {**report[name], **more[name]} for name in ("chance", "ceiling", "left_out")}}


def default_report_dir(model: str, captions: bool = False) -> Path:
    """`evaluation` beside a model folder; `evaluation/<name>` here for a model `owner/<name>` of the Hub.

    For captions `evaluation_captions` in its place: a run's model and captioner lie side by side.
    """
    name = "evaluation_captions" if captions else "evaluation"
    folder = Path(model).expanduser()
    return folder.parent / name if folder.is_dir() else Path(name) / folder.name


def metrics_of(report: Mapping[str, object]) -> dict[str, float]:
    """The values of a report alone, metric name -> number."""
    return {name: value for name, value in report.items() if name not in NOT_METRICS}


def markdown_table(report: Mapping[str, object]) -> str:
    """The main values of a report as a Markdown table: value, chance level and ceiling, in percent, then notes."""
    lines = ["| metric | value | chance | ceiling |", "|---|---:|---:|---:|"]
    for name, title in TABLE_ROWS:
        if name in report:
            columns = (report[name], report["chance"].get(name), report["ceiling"].get(name))
            lines.append(f"| {title} | " + " | ".join(_percent(value) for value in columns) + " |")
    lines.append("")
    if report["ceiling"]:
        lines.append(CEILING_NOTE)
    for record in report["records"]:
        skipped = f", {record['num_skipped']} left out" if record["num_skipped"] else ""
        skipped += "".join(f", {name} +- {100 * width:.1f}" for name, width in record.get("ci95", {}).items())
        more = f", prompt {' / '.join(record['templates'])!r}" if "templates" in record else ""
        more += f", trained on {record['train_data']}" if "train_data" in record else ""
        lines.append(f"- {record['task']}: {record['data']}, {record['num_clips']} clips{skipped}{more}.")
    for reason in dict.fromkeys(report["left_out"].values()):
        tasks = ", ".join(task for task, why in report["left_out"].items() if why == reason)
        lines.append(f"- Left out: {tasks}. {reason}")
    return "\n".join(lines) + "\n"


def write_report(report: Mapping[str, object], output_dir: str | Path) -> tuple[Path, Path]:
    """Writes metrics.json and metrics.md into a folder and returns their paths."""
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    as_json, as_table = folder / "metrics.json", folder / "metrics.md"
    as_json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    as_table.write_text(markdown_table(report), encoding="utf-8")
    return as_json, as_table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


__all__ = [
    "TABLE_ROWS",
    "RenderedSplit",
    "collect",
    "default_report_dir",
    "evaluate_own_data",
    "evaluate_sound_scenes",
    "extended",
    "markdown_table",
    "metrics_of",
    "rendered_split",
    "tasks_left_out",
    "write_report",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""All values of a model in one dict, as metrics.json and as a table with chance levels and ceilings beside them.

    evaluate_sound_scenes(model, processor) or evaluate_retrieval_only(model, processor, dataset)
        -> {"zero_shot/accuracy": 0.93, ..., "chance": {...}, "ceiling": {...}, "records": [...]}
        -> write_report -> metrics.json, metrics.md

Rates are in [0, 1] here and in metrics.json; the table prints them in percent. A ceiling is what an oracle reaches
that knows the sounds of each clip and their order; a model that also hears loudness, pitch or counts can be above it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers import ProcessorMixin

from hf_audiolang.data.records import Record, RecordView

from . import frames, retrieval, zero_shot
from .embed import AudioOptions
from .results import TaskResult

if TYPE_CHECKING:
    from hf_audiolang.data.sound_scenes import RenderedScenes

# Rows of the table, in this order; metrics.json has all values.
TABLE_ROWS = (
    ("zero_shot/accuracy", "zero-shot accuracy"),
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
    ("frame/mAP", "frame mAP"),
)
CEILING_NOTE = (
    "In percent. Ceiling: an oracle that knows the sounds of each clip and their order, nothing else; a model that "
    "also hears loudness, pitch or counts can be above it.\n"
)
NOT_METRICS = ("chance", "ceiling", "records")


def evaluate_sound_scenes(
    model: nn.Module,
    processor: ProcessorMixin,
    *,
    test_size: int = 300,
    composition_size: int = 200,
    zero_shot_size: int = 256,
    scene_options: Mapping[str, object] | None = None,
    num_workers: int = 0,
    options: AudioOptions | None = None,
) -> dict[str, object]:
    """Everything that is reported on the embedded synthetic data: retrieval, order, composition, zero-shot, frames.

    Args:
        model: a system with clip, frame and text embeddings.
        processor: its processor.
        test_size: clips of the split `test`: half collision-free, a fifth order pairs, the rest plain.
        composition_size: clips with pairs of classes that training never had together.
        zero_shot_size: single-event clips, classes in turn.
        scene_options: further options of `SoundScenes`: `duration`, `n_events`, `seed`.
        num_workers: processes that render the clips; the values do not depend on it.
        options: reading and batching of the clips.

    Returns:
        metric name -> value, and `chance`, `ceiling` (name -> value) and `records` (one per task).
    """
    from hf_audiolang.data.sound_scenes import SoundScenes, materialize, oracle_ceilings, order_pairs, zero_shot_text

    scene_options = {"sampling_rate": processor.feature_extractor.sampling_rate, **(scene_options or {})}
    sizes = {"test": test_size, "composition": composition_size, "zero_shot": zero_shot_size}
    scenes = {split: SoundScenes(split, size, **scene_options) for split, size in sizes.items()}
    rows = {split: materialize(scene, num_workers=num_workers) for split, scene in scenes.items()}
    records = {split: RecordView(split_rows) for split, split_rows in rows.items()}
    made_with = {"seed": scenes["test"].seed, "data_options": scene_options}
    data = {
        split: {"data": f"synthetic-scenes v{scene.version} {split}", **made_with} for split, scene in scenes.items()
    }
    prompts = {"labels": scenes["test"].labels, "label_text": zero_shot_text, "options": options}
    in_test = {"true_clips": _true_clips(rows["test"]), "order_pairs": order_pairs(rows["test"]), "options": options}
    ceiling = oracle_ceilings(rows["test"])["ordered"]
    unseen = oracle_ceilings(rows["composition"])["ordered"]

    results = [
        zero_shot.evaluate(model, processor, records["zero_shot"], **prompts).labelled(**data["zero_shot"]),
        retrieval.evaluate(model, processor, records["test"], **in_test).labelled(**data["test"]),
        retrieval.evaluate(model, processor, records["composition"], options=options).labelled(
            prefix="composition/", **data["composition"]
        ),
        frames.evaluate(model, processor, records["test"], **prompts).labelled(**data["test"]),
    ]
    return collect(results, ceiling | {f"composition/{name}": value for name, value in unseen.items()})


def _true_clips(scenes: "RenderedScenes") -> list[list[list[int]]]:
    """For each caption of each scene the positions of all scenes that it describes completely."""
    from hf_audiolang.data.sound_scenes import relevance

    per_caption = iter(relevance(scenes))
    return [[next(per_caption) for _ in scenes.structure(index)["captions"]] for index in range(len(scenes))]


def evaluate_retrieval_only(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    *,
    data: str = "your data",
    options: AudioOptions | None = None,
) -> dict[str, object]:
    """What can be reported on any clips with captions: retrieval in both directions.

    Args:
        model: a system with clip and text embeddings.
        processor: its processor.
        dataset: records with captions.
        data: name of the data set for the record.
        options: reading and batching of the clips.

    Returns:
        metric name -> value, and `chance`, `ceiling` (empty) and `records`.
    """
    return collect([retrieval.evaluate(model, processor, dataset, options=options).labelled(data)])


def collect(results: Sequence[TaskResult], ceiling: Mapping[str, float] | None = None) -> dict[str, object]:
    """The report of several tasks: all values, then `chance`, `ceiling` and `records`.

    Args:
        results: one per task.
        ceiling: metric name -> value of an oracle.
    """
    report: dict[str, object] = {name: value for result in results for name, value in result.items()}
    report["chance"] = {name: value for result in results for name, value in result.chance.items()}
    report["ceiling"] = dict(ceiling or {})
    report["records"] = [result.record for result in results]
    return report


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
        templates = f", prompt {' / '.join(record['templates'])!r}" if "templates" in record else ""
        lines.append(f"- {record['task']}: {record['data']}, {record['num_clips']} clips{skipped}{templates}.")
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
    "collect",
    "evaluate_retrieval_only",
    "evaluate_sound_scenes",
    "markdown_table",
    "metrics_of",
    "write_report",
]

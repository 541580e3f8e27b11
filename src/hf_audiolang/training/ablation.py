# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Arms of a comparison on the embedded scenes: trained alike, measured alike, free settings chosen before the test.

plan.yaml -> arm x seed -> pretrain -> model -> validation scenes: prompt, smoothing -> test scenes, once -> table

Nothing is chosen by values on the test split, which each run's own report measures too, with default settings. A run
that is finished is not trained again, and refused if its settings are others than the plan's.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import yaml
from torch import nn
from transformers import AutoModel, AutoProcessor, ProcessorMixin
from transformers.utils import logging

from hf_audiolang.data.records import Record, RecordDataset
from hf_audiolang.data.sound_scenes import zero_shot_text
from hf_audiolang.evaluation import detection, grounding, retrieval
from hf_audiolang.evaluation.capabilities import feature_extractor_of
from hf_audiolang.evaluation.comparison import REPORT_FILE
from hf_audiolang.evaluation.frame_scores import ScoredRecords, embed_labels
from hf_audiolang.evaluation.frames import frame_labels
from hf_audiolang.evaluation.metrics import mean_average_precision
from hf_audiolang.evaluation.metrics.detections import Smoothing

from .build import build_scenes
from .config import RunConfig, load_run_config
from .run import changed_settings, pretrain

logger = logging.get_logger(__name__)

DETECTION_CRITERION = "detection/PSDS1_no_spread"
GROUNDING_CRITERION = "grounding/PSDSm"
FRAME_MAP = "frame/mAP"
# values of the table, and its headings
COLUMNS = {
    "detection/PSDS1_no_spread": "PSDS1, no spread penalty",
    "detection/PSDS1": "PSDS1",
    "detection/PSDS2_no_spread": "PSDS2, no spread penalty",
    "detection/PSDS2": "PSDS2",
    FRAME_MAP: "frame mAP",
    "grounding/PSDSm": "grounding PSDSm",
    "text_to_audio/R@1": "T2A R@1",
    "audio_to_text/R@1": "A2T R@1",
}
RESULT_FILE = "ablation.json"


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: heading of the row.
        seeds: of the runs; the row shows their mean and each of them.
        settings: run keys that differ from the plan's configuration.
    """

    name: str
    seeds: tuple[int, ...]
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class AblationPlan:
    """What is trained and what is free to be chosen.

    Attributes:
        config: YAML file of the run that all arms share.
        output_dir: folder with one run per arm and seed, and the table.
        arms: rows of the table.
        measure_on: "test", or "validation" for a choice between arms.
        prompts: templates among which each model gets its best on validation clips, by frame mAP.
        smoothings: among which each model gets its best on validation clips, for detection and for grounding.
        validation_size: clips of the validation split.
        test_size: clips of the test split.
    """

    config: str
    output_dir: str
    arms: tuple[Arm, ...]
    measure_on: str = "test"
    prompts: tuple[str, ...] = ("{label}",)
    smoothings: tuple[Smoothing, ...] = (Smoothing(3),)
    validation_size: int = 200
    test_size: int = 300


@dataclass(frozen=True)
class Choice:
    """Settings of one model, chosen on validation clips."""

    prompt: str
    detection: Smoothing
    grounding: Smoothing


def load_plan(path: str | Path) -> AblationPlan:
    """The plan of a YAML file: fields of `AblationPlan`, arms as `name: {seeds: [...], run key: value, ...}`.

    `smoothings` stands for all combinations of the lists `median_frames`, `join_seconds` and `pool_frames`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown key, a plan without arms, arms that would share a folder, or a `measure_on` that is
            no split.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no plan {str(path)!r}. Give a YAML file such as those in configs/ablate.")
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    known = {*AblationPlan.__dataclass_fields__, "median_frames", "join_seconds", "pool_frames"} - {"smoothings"}
    unknown = sorted(set(content) - known)
    if unknown or not content.get("arms"):
        raise ValueError(f"The plan {str(path)!r} has the unknown keys {unknown} or no arms. Known: {sorted(known)}.")
    lists = [content.pop(name, default) for name, default in (("median_frames", [3]), ("join_seconds", [0.0]))]
    lists.append(content.pop("pool_frames", [1]))
    content["smoothings"] = tuple(Smoothing(*values) for values in itertools.product(*lists))
    content["prompts"] = tuple(content.get("prompts", AblationPlan.prompts))
    content["arms"] = tuple(
        Arm(str(name), tuple((settings or {}).pop("seeds", [0])), settings or {})
        for name, settings in content["arms"].items()
    )
    plan = AblationPlan(**content)
    if plan.measure_on not in ("test", "validation"):
        raise ValueError(f"`measure_on` must be 'test' or 'validation', got {plan.measure_on!r}.")
    folders = [_folder_name(arm.name) for arm in plan.arms]
    if len(set(folders)) != len(folders):
        raise ValueError(f"`arms` of {str(path)!r} would share folders, got {sorted(folders)}. Give other names.")
    return plan


def run_plan(plan: AblationPlan) -> dict[str, list[dict]]:
    """Trains what is missing, measures every run, and writes ablation.json and ablation.md; returns the results.

    Returns:
        arm name -> one dict per seed with `values`, `choice` and `run`.
    """
    results: dict[str, list[dict]] = {row.name: [] for row in plan.arms}
    runs = [(arm, seed) for arm in plan.arms for seed in arm.seeds]
    for arm, seed in runs:
        config = arm_config(plan, arm, seed)
        if (Path(config.train.output_dir) / REPORT_FILE).is_file():
            refuse_other_settings(config)
        else:
            logger.info(f"Training {arm.name}, seed {seed}.")
            pretrain(config)
        results[arm.name].append(_measured(plan, config))
        write_results(plan, results)
    return results


def arm_config(plan: AblationPlan, arm: Arm, seed: int) -> RunConfig:
    """The checked settings of one run of an arm."""
    folder = f"{plan.output_dir}/{_folder_name(arm.name)}_seed{seed}"
    given = {**arm.settings, "seed": seed, "output_dir": folder, "resume": True}
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    return load_run_config([plan.config, *words])


def refuse_other_settings(config: RunConfig) -> None:
    """Makes sure that a finished run was trained with the settings of the plan.

    Raises:
        ValueError: if it was not; names each key with both values.
    """
    folder = Path(config.train.output_dir)
    changed = changed_settings(config, folder / "run.yaml")
    if changed:
        raise ValueError(
            f"`{folder}` holds a run of other settings than the plan's ({'; '.join(changed)}). Remove the folder to "
            "train it anew, or give the plan another `output_dir`."
        )


def choose(
    model: nn.Module, processor: ProcessorMixin, clips: RecordDataset, labels: Sequence[str], plan: AblationPlan
) -> Choice:
    """The prompt and the smoothings under which a model does best on clips that are not the test's."""
    scored = {prompt: _scored(model, processor, clips, labels, prompt) for prompt in plan.prompts}
    prompt = max(plan.prompts, key=lambda name: frame_map(scored[name], labels))
    best = scored[prompt]
    phrases = grounding.frame_scores_of(model, processor, clips)

    def of_detection(smoothing: Smoothing) -> float:
        return detection.score(best.frame_scores, best.records, labels, smoothing)[DETECTION_CRITERION]

    def of_grounding(smoothing: Smoothing) -> float:
        return grounding.score(phrases.frame_scores, phrases.records, smoothing)[GROUNDING_CRITERION]

    return Choice(prompt, max(plan.smoothings, key=of_detection), max(plan.smoothings, key=of_grounding))


def values_of(
    model: nn.Module, processor: ProcessorMixin, clips: RecordDataset, labels: Sequence[str], choice: Choice
) -> dict[str, float]:
    """Detection, frame mAP, grounding and retrieval under settings that are fixed."""
    scored = _scored(model, processor, clips, labels, choice.prompt)
    phrases = grounding.frame_scores_of(model, processor, clips)
    return {
        **detection.score(scored.frame_scores, scored.records, labels, choice.detection),
        FRAME_MAP: frame_map(scored, labels),
        **grounding.score(phrases.frame_scores, phrases.records, choice.grounding),
        **retrieval.evaluate(model, processor, clips),
    }


def frame_map(scored: ScoredRecords, labels: Sequence[str]) -> float:
    """Macro average precision of the frames of all clips, not smoothed."""
    scores = np.concatenate([item.scores for item in scored.frame_scores])
    triples = zip(scored.records, scored.frame_scores, scored.frame_rates_hz, strict=True)
    positives = [frame_labels(record, labels, len(item.scores), rate) for record, item, rate in triples]
    return mean_average_precision(scores, np.concatenate(positives))["mAP"]


def write_results(plan: AblationPlan, results: Mapping[str, Sequence[dict]]) -> Path:
    """Writes ablation.json and ablation.md into the plan's folder; returns the path of the table."""
    folder = Path(plan.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT_FILE).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = folder / "ablation.md"
    table.write_text(ablation_table(results), encoding="utf-8")
    return table


def ablation_table(results: Mapping[str, Sequence[dict]]) -> str:
    """A row per arm: the mean over its seeds in percent, and each seed's value where there are several."""
    lines = ["| arm | seeds | " + " | ".join(COLUMNS.values()) + " |", "|---|---:|" + "---:|" * len(COLUMNS)]
    for name, runs in results.items():
        if not runs:
            continue
        cells = []
        for column in COLUMNS:
            values = [100 * run["values"][column] for run in runs]
            each = f" ({', '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{each}")
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _measured(plan: AblationPlan, config: RunConfig) -> dict:
    """Values of a finished run, with what was chosen for it."""
    folder = Path(config.train.output_dir)
    model = AutoModel.from_pretrained(folder / "model").eval()
    processor = AutoProcessor.from_pretrained(folder / "model")
    rate = feature_extractor_of(processor).sampling_rate
    validation = build_scenes(config.data, "validation", plan.validation_size, rate)
    labels = validation.rows.labels
    choice = choose(model, processor, validation, labels, plan)
    clips = validation
    if plan.measure_on == "test":
        clips = build_scenes(config.data, "test", plan.test_size, rate)
    values = values_of(model, processor, clips, labels, choice)
    return {"run": folder.name, "choice": asdict(choice), "values": values}


def _folder_name(arm: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in arm.lower())


def _scored(
    model: nn.Module, processor: ProcessorMixin, clips: Sequence[Record], labels: Sequence[str], prompt: str
) -> ScoredRecords:
    embeds = embed_labels(model, processor, labels, (prompt,), zero_shot_text)
    return detection.frame_scores_of(model, processor, clips, embeds)


__all__ = [
    "COLUMNS",
    "RESULT_FILE",
    "AblationPlan",
    "Arm",
    "Choice",
    "ablation_table",
    "arm_config",
    "choose",
    "frame_map",
    "load_plan",
    "refuse_other_settings",
    "run_plan",
    "values_of",
    "write_results",
]

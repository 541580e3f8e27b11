# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Probes of a model folder, or of every checkpoint of a training run: all of training_scripts/probe.py.

MODEL (system, encoder, classifier, captioner, converted model) -> its encoder --.
RUN/checkpoints/step_* -> the encoder at each step ----------------------------- >-- probe -> probe.json, probe.md
folder, plan, Hub id, sound_scenes -> LabelledData of each fold ----------------'              (curve: probe.png)
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from .data.label_plans import LabelPlan
from .data.labels import SCENES, LabelledData, load_labelled
from .data.labels_numbers import load_numbers
from .evaluation.figures_probe import plot_checkpoints
from .evaluation.metrics import MissingResourceError
from .evaluation.probe_protocol import ProbeSettings
from .evaluation.probes import probe_table, run_probe
from .evaluation.report import collect
from .evaluation.results import TaskResult
from .hub_staging import EXTRACTOR_FILES
from .inference import check_model_folder
from .models.modeling_audio_encoders import AUDIO_MODELS
from .training.checkpoint import read_progress

logger = logging.get_logger(__name__)

# what stands before an encoder's weights in a captioner or a pre-training checkpoint; not before a teacher's
SYSTEM_PREFIX = {r"^\w+\.audio_model\.": "audio_model."}


def load_encoder(name: str | Path, device: str | None = None) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """The audio encoder of a folder or Hub id, in evaluation mode, and its feature extractor.

    Args:
        name: a system, an encoder, a classifier, a captioner, or what a converter wrote.
        device: by default cuda if there is one.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if it holds no audio encoder of this package, or not all of its weights.
    """
    check_model_folder(Path(name).expanduser(), str(name))
    try:
        config, extractor = AutoConfig.from_pretrained(name), AutoFeatureExtractor.from_pretrained(name)
    except OSError as error:
        raise FileNotFoundError(
            f"`model` {str(name)!r} cannot be loaded: {str(error).splitlines()[0]} Give the folder that a training "
            "run exported (runs/NAME/model), or the id of a model on the Hub."
        ) from error
    return _encoder(str(name), config, device), extractor


def find_checkpoints(run: str | Path) -> list[Path]:
    """The complete checkpoints of a training run, first step first.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = sorted(path.parent for path in (Path(run) / "checkpoints").glob("step_*/progress.json"))
    if not found:
        raise FileNotFoundError(
            f"`run` {str(run)!r} has no complete checkpoint (checkpoints/step_*/progress.json). Give the `output_dir` "
            "of a training run."
        )
    return found


def load_folds(
    name_or_path: str | Path | None, *, plan: LabelPlan | None = None, fold: int | None = None, **options: object
) -> list[LabelledData]:
    """Labelled data of every fold, or of one; of data without folds themselves.

    Args:
        name_or_path: see `load_labelled`; of a plan with numbers a folder.
        plan: what is known of a published data set.
        fold: the fold that is tested; None takes all of them in turn, unless the data have test clips of their own.
        options: further ones of `load_labelled`.

    Raises:
        FileNotFoundError, TypeError, ValueError, TooManyBadExamples: as `load_labelled` and `load_numbers`.
    """

    def load(number: int | None) -> LabelledData:
        if plan is not None and plan.task == "regression":
            known = {name: value for name, value in options.items() if name in ("on_bad_example", "seed")}
            return load_numbers(_folder_of(name_or_path, plan), plan, fold=number, **known)
        return load_labelled(name_or_path, plan=plan, fold=number, **options)

    first = load(fold)
    if fold is not None or first.fold is None:
        return [first]
    logger.info(f"{first.name} has the folds {list(first.folds)}: each of them is tested.")
    folds = [load(number) if number != first.fold else first for number in first.folds]
    return [replace(data, notes=[note for note in data.notes if "no `fold` is given" not in note]) for data in folds]


def probe_checkpoints(
    run: str | Path, probe: str, folds: Sequence[LabelledData], settings: ProbeSettings, device: str | None = None
) -> list[tuple[int, TaskResult]]:
    """(optimizer step, what the probe finds there) for each checkpoint of a run.

    Args:
        run: folder of a training run, finished or not.
        probe: name in `evaluation.probes.PROBES`.
        folds: labelled data of each fold.
        settings: of the probe.
        device: by default cuda if there is one.

    Raises:
        FileNotFoundError: if there are no checkpoints, or neither an exported model nor a run.yaml.
        ValueError: if a checkpoint does not hold the weights of the run's encoder, or as the probe says.
    """
    checkpoints, (source, config, extractor) = find_checkpoints(run), _run_parts(Path(run))
    points = []
    for checkpoint in checkpoints:
        step = read_progress(checkpoint).step
        try:
            encoder = _encoder(str(checkpoint), config, device)
        except ValueError as error:
            raise ValueError(
                f"`run` {str(run)!r}: the checkpoint of step {step} does not hold the encoder of {source}: {error} "
                "Those of a run with adapters cannot be probed; probe its `model` folder."
            ) from error
        result = run_probe(probe, encoder, extractor, folds, settings)
        logger.info(f"Step {step}: {', '.join(f'{name} {value:.4f}' for name, value in result.items())}")
        points.append((step, result))
    return points


def write_probe(result: TaskResult, output_dir: str | Path) -> list[Path]:
    """Writes probe.json and probe.md of one model into a folder and returns their paths."""
    return _write(collect([result]), probe_table({"value": result}), Path(output_dir))


def write_curve(points: Sequence[tuple[int, TaskResult]], output_dir: str | Path) -> list[Path]:
    """Writes probe.json, probe.md and, with matplotlib, probe.png of a run's checkpoints; returns their paths."""
    folder = Path(output_dir)
    report = {"checkpoints": [{"step": step, **collect([result])} for step, result in points]}
    paths = _write(report, probe_table({f"step {step}": result for step, result in points}), folder)
    try:
        return [*paths, plot_checkpoints(points, folder / "probe.png")]
    except MissingResourceError as error:
        logger.warning(f"No figure: {error}")
        return paths


def _encoder(name: str, config: PreTrainedConfig, device: str | None) -> PreTrainedModel:
    """The encoder that a config, of a system or of an encoder, describes, with the weights in a folder or Hub id."""
    audio_config = getattr(config, "audio_config", config)
    if audio_config.model_type not in AUDIO_MODELS:
        raise ValueError(
            f"`model` {name!r} is of the type {config.model_type!r}, which has no audio encoder of this package. Give "
            f"a system, or one of the encoders {sorted(AUDIO_MODELS)}."
        )
    encoder = AUDIO_MODELS[audio_config.model_type].from_pretrained(
        name, config=audio_config, dtype=torch.float32, key_mapping=SYSTEM_PREFIX
    )
    return encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def _run_parts(run: Path) -> tuple[str, PreTrainedConfig, FeatureExtractionMixin]:
    """(name of the model, its config, its feature extractor): the run's exported model, else what it began with."""
    settings = run / "run.yaml"
    begun = yaml.safe_load(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    names = [str(run / "model"), begun.get("model_config"), begun.get("model")]
    name = next((name for name in names if name and _has(name, "config.json")), None)
    if name is None:
        raise FileNotFoundError(
            f"`run` {str(run)!r} has no exported model, and its run.yaml names no model that is there. Give the "
            "folder of a run, where it was trained."
        )
    places = [str(run / "processor"), name]
    extractor = next((place for place in places if any(_has(place, file) for file in EXTRACTOR_FILES)), None)
    if extractor is None:
        raise FileNotFoundError(
            f"`run` {str(run)!r} has no feature extractor: none of {list(EXTRACTOR_FILES)} is in {places}. Give the "
            "folder of a run, where it was trained."
        )
    return name, AutoConfig.from_pretrained(name), AutoFeatureExtractor.from_pretrained(extractor)


def _has(place: str, file: str) -> bool:
    """Whether a folder has the file; a Hub id is taken at its word."""
    folder = Path(place)
    return (folder / file).is_file() if folder.exists() or place.count("/") != 1 else True


def _folder_of(name_or_path: str | Path | None, plan: LabelPlan) -> str | Path:
    if name_or_path is None or str(name_or_path) == SCENES:
        raise ValueError(f"The plan {plan.name!r} needs the folder with its sounds, got {name_or_path}. Give it.")
    return name_or_path


def _write(report: dict[str, object], table: str, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "probe.json", folder / "probe.md"]
    paths[0].write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    paths[1].write_text(table, encoding="utf-8")
    return paths


__all__ = [
    "find_checkpoints",
    "load_encoder",
    "load_folds",
    "probe_checkpoints",
    "write_curve",
    "write_probe",
]

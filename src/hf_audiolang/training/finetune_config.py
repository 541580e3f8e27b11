# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Settings of a fine-tuning run: one flat YAML file plus command-line overrides, as for pre-training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from .config import PAIRS, POSITIVE, RANGES, OptimizationArguments, RunConfig, check_optimization, load_run_config
from .lora_arguments import LORA_RANGES, LoraArguments
from .outline import build_model_config
from .settings import RunSettings, Schema, option, read_key

HEAD_TASKS = ("classification", "tagging", "frames")
CONTINUED_TASKS = ("retrieval", "captioning")  # all losses of pre-training go on


@dataclass
class HeadArguments:
    """Which encoder is fine-tuned, and the head on it; the head's numbers overwrite those of the model's config."""

    model: str | None = option(
        None, "Folder or Hub id of a trained model: a system, an encoder, a converted model, a head to go on with."
    )
    from_scratch: bool = option(False, "Random weights in place of the model's: what a pre-training is worth.")
    task: Literal["classification", "tagging", "frames"] = option(
        "classification", "One class per clip, any number of classes per clip, or classes of every frame."
    )
    freeze: list[str] = option([], "Patterns of parameter names that are not trained, such as 'audio_model.*'.")
    max_frames: int | None = option(
        None, "Frames that M2D's positions cover, stretched from the model's; None: as it is."
    )
    classifier_pooling: str | None = option(
        None,
        "'mean' or 'attention' over time, or SLAP's 'pretrained' one (of 'tokens'); None keeps the model config's.",
    )
    classifier_input: str | None = option(None, "'frames' or 'tokens' are pooled; None keeps the model config's.")
    drop_path_rate: float | None = option(
        None, "Share of clips that skip the last block in training, less in those before; None keeps the config's."
    )
    classifier_dropout: float | None = option(None, "Dropout before the linear layer; None keeps the config's.")
    structured_patchout: float | None = option(
        None, "Share of patches left out in training, whole rows and columns (M2D); None keeps the config's."
    )
    time_patchout: float | None = option(None, "Share of patch columns left out (SLAP); None keeps the config's.")
    frequency_patchout: float | None = option(None, "Share of patch rows left out (SLAP); None keeps the config's.")


@dataclass
class LabelArguments:
    """What is learnt: labelled sounds of one's own, a plan of configs/evaluate, or the embedded scenes."""

    data: str = option("sound_scenes", "A folder per class, a CSV, a `datasets` folder, a Hub id, a plan's YAML file.")
    data_folder: str | None = option(None, "Where the sounds of a plan lie, in place of the Hub id it names.")
    audio_column: str | None = option(None, "Column of the file name or sound; None: the usual names are tried.")
    label_column: str | None = option(None, "Column of the label(s); None: the usual names are tried.")
    split_column: str | None = option(None, "Column of the split; None: 'split' is tried.")
    fold_column: str | None = option(None, "Column of the fold's number; None: 'fold' is tried.")
    fold: int | None = option(None, "The fold that is tested, of data that come in folds.")
    train_size: int = option(1000, "Number of training scenes made (sound_scenes only).")
    test_size: int = option(300, "Number of test scenes made (sound_scenes only).")
    max_seconds: float = option(10.0, "Longer clips are cropped at random in training, seconds.")
    pad_clips: bool = option(False, "All clips get max_seconds, short ones by silence, in the test too: EVAR.")
    balanced_sampling: Literal["none", "m2d", "ast"] = option(
        "none", "Clips of rare classes are drawn more often, by the weights of M2D or of AST and AudioMAE."
    )
    samples_per_epoch: int | None = option(None, "Clips drawn per epoch with balanced_sampling, fewer than there are.")
    mixup_alpha: float = option(0.0, "Clips are mixed with shares of Beta(alpha, alpha); 0: off.")
    mixup_share: float = option(1.0, "Share of the clips that are mixed.")
    roll: bool = option(False, "Waveforms are rolled and scaled at random (AudioMAE).")
    spec_augment_mel: int = option(0, "Widest masked band of mel bins; 0: off.")
    spec_augment_frames: int = option(0, "Widest masked stretch of frames; 0: off.")
    spec_augment_per_clip: bool = option(False, "Bands are drawn for each clip (AudioMAE), not for the batch (EVAR).")
    random_resize_crop: bool = option(False, "A random part of the log-mel is stretched to the whole (M2D).")
    on_bad_example: Literal["skip", "error"] = option("skip", "What a file that cannot be used does to the run.")
    num_workers: int = option(2, "Processes that decode and compute features; 0: none.")


@dataclass
class FinetuneArguments(OptimizationArguments):
    """The optimisation and the run's folder."""

    output_dir: str = option("runs/finetune", "Folder of the run: checkpoints, log, metrics, model.")
    batch_size: int = option(32, "Clips per process and forward pass.")


@dataclass
class HeadEvalArguments:
    """What is measured when, and which checkpoint is called the best."""

    eval_steps: int = option(0, "Steps between two evaluations on the validation clips; 0: only at the end.")
    best_metric: str | None = option(
        None, "Validation value whose maximum marks the best checkpoint; None: the task's."
    )
    export: Literal["best", "last"] = option("last", "Which weights are tested and exported at the end.")


_OF_FRAMES = ("mAP", "PSDS1", "PSDS2", "PSDS1_no_spread", "PSDS2_no_spread", "segment_F1", "event_F1")
METRICS = {  # task -> what the evaluation gives; the first says which checkpoint is the best
    "classification": ("classification/accuracy", "classification/balanced_accuracy"),
    "tagging": ("tagging/mAP",),
    "frames": tuple(f"frame_classification/{name}" for name in _OF_FRAMES),
}
_PARTS = {
    "model": HeadArguments,
    "data": LabelArguments,
    "train": FinetuneArguments,
    "lora": LoraArguments,
    "eval": HeadEvalArguments,
}
SCHEMA = Schema(
    "finetune.py",
    _PARTS,
    RANGES
    | LORA_RANGES
    | {
        **dict.fromkeys(
            ("classifier_dropout", "drop_path_rate", "structured_patchout", "time_patchout", "frequency_patchout"),
            (0, 0.99),
        ),
        **dict.fromkeys(("mixup_alpha", "spec_augment_mel", "spec_augment_frames"), (0, None)),
        **dict.fromkeys(("max_frames", "samples_per_epoch", "batch_size"), (1, None)),
        "mixup_share": (0, 1),
    },
    positive=POSITIVE,
    pairs=PAIRS,
    either_or=(("max_steps", "num_epochs"),),
)


@dataclass
class FinetuneConfig(RunSettings):
    """The checked settings of one fine-tuning run."""

    schema: ClassVar[Schema] = SCHEMA
    model: HeadArguments
    data: LabelArguments
    train: FinetuneArguments
    lora: LoraArguments
    eval: HeadEvalArguments


def load_finetune_config(arguments: Sequence[str]) -> FinetuneConfig:
    """The settings from a command line: an optional YAML path first, then `--key value` overrides.

    Raises:
        FileNotFoundError: if the YAML file does not exist.
        ValueError: for an unknown key (the nearest known one is named), a wrong type, a value out of range, or keys
            that exclude each other.
    """
    groups, _ = SCHEMA.read(arguments)
    config = FinetuneConfig(**groups)
    if config.model.model is None:
        raise ValueError("`model` is needed, got none. Name the trained model whose encoder is fine-tuned.")
    metrics = METRICS[config.model.task]
    config.eval.best_metric = config.eval.best_metric or metrics[0]
    if config.eval.best_metric not in metrics:
        raise ValueError(f"Unknown `best_metric` {config.eval.best_metric!r}. Choose one of {list(metrics)}.")
    check_optimization(config.train, config.eval.export, config.eval.eval_steps)
    if config.model.from_scratch and config.lora.lora:
        raise ValueError(
            "`from_scratch` and `lora` are both true: with adapters most weights would stay random. Choose one."
        )
    if config.model.max_frames is not None and config.lora.lora:
        raise ValueError(
            f"`max_frames` is {config.model.max_frames} with `lora`: the adapter would be put on a base whose "
            "positions are not stretched. Leave one of them out."
        )
    data = config.data
    if (data.samples_per_epoch is None) != (data.balanced_sampling == "none"):
        raise ValueError(
            f"`balanced_sampling` {data.balanced_sampling!r} draws `samples_per_epoch` clips per epoch, got "
            f"{data.samples_per_epoch}. Set both or none."
        )
    return _shrink_for_smoke(config) if config.train.smoke else config


def task_of(arguments: Sequence[str]) -> str:
    """The task that a command line or its YAML file names.

    Raises:
        ValueError: for an unknown one.
    """
    task = read_key(arguments, "task", HeadArguments.task)
    if task not in (*HEAD_TASKS, *CONTINUED_TASKS):
        raise ValueError(f"Unknown `task` {task!r}. Choose one of {[*HEAD_TASKS, *CONTINUED_TASKS]}.")
    return task


def load_continued_config(arguments: Sequence[str]) -> RunConfig:
    """The settings of a run that goes on with all losses of its model: those of pretrain.py, and the `task`.

    Raises:
        FileNotFoundError, OSError, ValueError: as `load_run_config`; also without a `model` to go on with, and for a
            task for which the model has no loss.
    """
    config = load_run_config(arguments, ignored=("task",))
    if config.model.model is None and not config.train.smoke:
        raise ValueError("`model` is needed, got none. Name the trained model that is fine-tuned.")
    task = task_of(arguments)
    weight = {"retrieval": "contrastive_weight", "captioning": "caption_weight"}[task]
    model_config = build_model_config(config)
    if not getattr(model_config, weight, 0):
        raise ValueError(
            f"`task` is {task!r}, but `{weight}` of the {type(model_config).__name__} is "
            f"{getattr(model_config, weight, 'missing')}. Give the model that was trained with it, or set the key."
        )
    return config


def _shrink_for_smoke(config: FinetuneConfig) -> FinetuneConfig:
    """Two steps on a few scenes with the model as it is, in a folder of its own so that no real run is touched."""
    data = replace(config.data, data="sound_scenes", data_folder=None, fold=None, train_size=48, test_size=48)
    data = replace(data, num_workers=0, max_seconds=min(config.data.max_seconds, 1.6))
    data = replace(data, samples_per_epoch=None if data.samples_per_epoch is None else 16)
    train = replace(config.train, max_steps=2, num_epochs=None, batch_size=4, warmup_steps=1, log_steps=1)
    train = replace(train, output_dir=f"{config.train.output_dir.rstrip('/')}_smoke", save_steps=1)
    train = replace(train, gradient_accumulation_steps=1, overwrite=not config.train.resume)
    return replace(
        config, data=data, train=train, eval=replace(config.eval, eval_steps=min(config.eval.eval_steps, 2))
    )


__all__ = [
    "CONTINUED_TASKS",
    "HEAD_TASKS",
    "METRICS",
    "SCHEMA",
    "FinetuneArguments",
    "FinetuneConfig",
    "HeadArguments",
    "HeadEvalArguments",
    "LabelArguments",
    "load_continued_config",
    "load_finetune_config",
    "task_of",
]

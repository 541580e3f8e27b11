# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""One run = one flat YAML file plus command-line overrides, read into five dataclasses and checked first of all.

YAML file ---- names, types --.
                               >-- HfArgumentParser (command line wins) -- ranges, pairs -- RunConfig
--learning_rate 5e-5 ---------'
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from .lora_arguments import LORA_RANGES, LoraArguments
from .settings import RunSettings, Schema, option

SCENES = "sound_scenes"


@dataclass
class ModelArguments:
    """Which model is trained; the objective's numbers overwrite the field of the same name in the model's config."""

    model_config: str | None = option(None, "Folder (or Hub id) with config.json and preprocessor_config.json.")
    model: str | None = option(
        None, "Folder or Hub id of a trained model to continue from; with its own config unless model_config is given."
    )
    text_model: str | None = option(None, "Hub id or folder whose weights the text tower starts from.")
    audio_model: str | None = option(
        None, "Folder or Hub id whose weights the audio tower starts from, and whose feature extractor is taken."
    )
    audio_projection: str | None = option(None, "Folder or Hub id whose audio projector is the start, not a new one.")
    freeze: list[str] = option([], "Patterns of parameter names that are not trained, such as 'audio_model.*'.")
    tokenizer: str = option("train", "'train' (byte-level BPE on the training captions), a Hub id or a folder.")
    max_text_tokens: int = option(128, "Longer captions are cut to this many tokens.")
    contrastive_weight: float | None = option(None, "Weight of the contrastive loss; None keeps the model config's.")
    masked_weight: float | None = option(None, "Weight of the masked-prediction loss; None keeps the config's.")
    caption_weight: float | None = option(None, "Weight of the caption loss; None keeps the model config's.")
    masking_ratio: float | None = option(None, "Share of tokens hidden from the student, in [0, 1); None: config's.")
    mask_style: str | None = option(None, "How the hidden tokens are drawn, a name the model knows; None: config's.")
    aggregation: str | None = option(None, "How frames and words become one similarity (MGA-CLAP); None: config's.")
    affinity_divisor: float | None = option(None, "Divides affinities to codewords (MGA-CLAP); None: config's.")
    hard_negative_gamma: float | None = option(None, "Weight of hard negatives (MGA-CLAP), 0: none; None: config's.")
    regularizer_weight: float | None = option(None, "Weight of the embedding regulariser; None: config's.")
    parallel_share: float | None = option(None, "Share of captions decoded in parallel (CaptionStew); None: config's.")
    label_smoothing: float | None = option(None, "Label smoothing of the caption loss; None: config's.")
    locality_blocks: int | None = option(None, "Last blocks of the audio tower without attention; None: config's.")


@dataclass
class DataArguments:
    """What is trained on: the embedded scenes, or a folder, `datasets` folder or Hub id of one's own."""

    train_data: str = option("sound_scenes", "'sound_scenes', a folder with metadata.csv or .jsonl, or a Hub id.")
    eval_data: str | None = option(None, "Held-out data like train_data; None: own split, or 10 % of the files.")
    audio_column: str | None = option(None, "Column of the file name or sound; None: the usual names are tried.")
    caption_column: str | None = option(None, "Column of the caption(s); None: the usual names are tried.")
    text_embeddings: str | None = option(
        None, "Folder with precomputed embeddings of all training captions, read in place of the captions."
    )
    train_size: int = option(3000, "Number of training scenes made (sound_scenes only).")
    min_seconds: float = option(2.0, "Shortest scene made, seconds (sound_scenes only).")
    max_seconds: float = option(8.0, "Longest scene made, and the longest crop of any clip, seconds.")
    num_events: list[int] = option([1, 3], "Fewest and most sound events per scene (sound_scenes only).")
    crop_step_seconds: float | None = option(None, "Crop lengths are multiples of this, seconds; None: any length.")
    on_bad_example: Literal["skip", "error"] = option("skip", "What a file that cannot be used does to the run.")
    num_workers: int = option(2, "Processes that decode and compute features; 0: none.")


@dataclass
class OptimizationArguments:
    """The optimisation and the run's folder, of every script that trains."""

    output_dir: str = option("runs/pretrain", "Folder of the run: checkpoints, log, metrics, figures, model.")
    max_steps: int | None = option(None, "Number of optimizer steps; give this or num_epochs.")
    num_epochs: float | None = option(None, "Passes over the training data; give this or max_steps.")
    batch_size: int = option(64, "Clips per process and forward pass: the negatives of the contrastive loss.")
    gradient_accumulation_steps: int = option(1, "Forward passes per optimizer step.")
    optimizer: Literal["adamw", "scaled_adam", "sgd", "lars"] = option(
        "adamw", "scaled_adam: icefall's, which clips by itself; sgd and lars: M2D's for fine-tuning."
    )
    learning_rate: float = option(1e-4, "Peak learning rate, after the warm-up; icefall's scaled_adam has 0.045.")
    lr_schedule: Literal["cosine", "cosine_from_start", "eden", "eden2", "eden3"] = option(
        "cosine", "What the learning rate follows; cosine_from_start: the cosine began with the warm-up (M2D)."
    )
    warmup_steps: float = option(
        0, "Steps of linear warm-up, from 0 (cosine) or half the peak (eden: 500); below 1: a share of all steps."
    )
    lr_end_ratio: float = option(0.01, "cosines: learning rate of the last step / peak; 1 keeps it constant.")
    lr_batches: float = option(7500, "eden: steps after which the learning rate begins to fall.")
    lr_epochs: float = option(3.5, "eden and eden3: epochs after which it begins to fall.")
    lr_steps_per_epoch: int | None = option(None, "eden and eden3: steps called an epoch; None: those of the data.")
    weight_decay: float = option(0.05, "AdamW weight decay of matrices; none on norms, embeddings, probes, scales.")
    adam_betas: list[float] = option([0.9, 0.98], "The optimizer's two averaging factors.")
    amsgrad: bool = option(False, "adamw: divide by the largest average of squared gradients so far (EVAR).")
    momentum: float = option(0.9, "sgd and lars: share of the last update that is kept.")
    layer_decay: float = option(1.0, "Factor on the learning rate from each block of the encoder to the one below it.")
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm; 0: not clipped.")
    clipping_scale: float = option(2.0, "scaled_adam: gradients are clipped to this times their median norm.")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto: bf16 autocast where the device gains by it.")
    num_threads: int | None = option(None, "CPU threads of torch per process; None: all cores, shared fairly.")
    seed: int = option(0, "Seed of initialisation, data order, crops and masks.")
    log_steps: int = option(10, "Steps between two refreshes of the log and the progress bar.")
    save_steps: int = option(1000, "Steps between two checkpoints; 0: only at the end.")
    keep_checkpoints: Literal["last", "all"] = option(
        "last", "last: and the best; all: for the curves of probe.py --every_checkpoint."
    )
    resume: bool = option(False, "Continue from the last complete checkpoint in output_dir, exactly.")
    overwrite: bool = option(False, "Start again in an output_dir that holds a run: deletes its checkpoints and log.")
    tensorboard: bool = option(False, "Also write TensorBoard logs (extra 'tensorboard').")
    smoke: bool = option(False, "Two steps of a tiny model on a few synthetic clips: does this configuration run?")


@dataclass
class TrainArguments(OptimizationArguments):
    """What pre-training adds: a text tower's own learning rate, and the teacher."""

    text_learning_rate_scale: float = option(1.0, "Factor on the learning rate of the text tower.")
    ema_decay: list[float] = option([0.994, 1.0], "Teacher's EMA decay at the first and last step.")
    ema_schedule: Literal["cosine", "linear"] = option("cosine", "What the teacher's EMA decay follows in between.")


@dataclass
class EvalArguments:
    """What is measured, when, and which checkpoint is called the best."""

    eval_steps: int = option(0, "Steps between two evaluations on the validation data; 0: only at the end.")
    eval_size: int = option(100, "Validation clips used for each of them.")
    best_metric: str = option("text_to_audio/R@10", "Validation value whose maximum marks the best checkpoint.")
    export: Literal["best", "last"] = option("last", "Which weights are evaluated and exported at the end.")
    test_size: int = option(300, "Clips of the final test; of own data, those captioned there.")
    composition_size: int = option(200, "Clips with held-out class pairs in the final test (sound_scenes only).")
    zero_shot_size: int = option(256, "Single-event clips of the final test (sound_scenes only).")
    probe_poolings: bool = option(False, "Also probe the encoder by mean and attention pooling (sound_scenes only).")


_PARTS = {
    "model": ModelArguments,
    "data": DataArguments,
    "train": TrainArguments,
    "lora": LoraArguments,
    "eval": EvalArguments,
}

# Lowest and highest allowed value, both included; None: open.
RANGES: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(("max_steps", "gradient_accumulation_steps", "log_steps", "train_size", "num_threads"), (1, None)),
    "lr_steps_per_epoch": (1, None),
    **dict.fromkeys(("warmup_steps", "save_steps", "eval_steps", "num_workers", "seed"), (0, None)),
    **dict.fromkeys(("contrastive_weight", "masked_weight", "caption_weight", "weight_decay"), (0, None)),
    **dict.fromkeys(("hard_negative_gamma", "regularizer_weight", "locality_blocks"), (0, None)),
    **dict.fromkeys(("test_size", "composition_size", "zero_shot_size", "eval_size"), (2, None)),
    **dict.fromkeys(("lr_end_ratio", "ema_decay", "parallel_share"), (0, 1)),
    "batch_size": (2, None),  # a contrastive loss needs a negative
    "max_text_tokens": (4, None),
    "num_events": (1, 5),
    "max_grad_norm": (0, None),
    "adam_betas": (0, 0.99999),
    "momentum": (0, 0.99999),
    "layer_decay": (0.01, 1),
    "masking_ratio": (0, 0.99),
    "label_smoothing": (0, 0.99),
}
_METRICS = [f"{way}/{name}" for way in ("text_to_audio", "audio_to_text") for name in ("R@1", "R@5", "R@10", "mAP@10")]
POSITIVE = (
    "num_epochs", "learning_rate", "min_seconds", "max_seconds", "crop_step_seconds", "affinity_divisor", "lr_batches",
    "lr_epochs", "text_learning_rate_scale", "clipping_scale", "lora_alpha",
)  # fmt: skip
PAIRS = ("ema_decay", "adam_betas", "num_events")
_EITHER_OR = (("max_steps", "num_epochs"), ("model_config", "model"))  # on the command line one puts out the other
_STARTS = ("text_model", "audio_model", "audio_projection")  # weights of parts of a new model
_FORWARD_KEYS = ("model_config", "aggregation", "affinity_divisor", "locality_blocks")  # what the weights compute
SCHEMA = Schema(
    "pretrain.py",
    _PARTS,
    RANGES | LORA_RANGES,
    positive=POSITIVE,
    pairs=PAIRS,
    either_or=_EITHER_OR,
    put_out={"model": _STARTS},
)


@dataclass
class RunConfig(RunSettings):
    """The checked settings of one run, in five groups; `to_dict` is flat as the YAML file is."""

    schema: ClassVar[Schema] = SCHEMA
    model: ModelArguments
    data: DataArguments
    train: TrainArguments
    lora: LoraArguments
    eval: EvalArguments

    @property
    def uses_scenes(self) -> bool:
        """True if scenes are made for training, validation or the final test."""
        return SCENES in (self.data.train_data, self.data.eval_data)

    @property
    def tests_on_scenes(self) -> bool:
        """True if the run is evaluated on the embedded data's own splits, with all their tasks."""
        return (self.data.eval_data or self.data.train_data) == SCENES


def load_run_config(arguments: Sequence[str], ignored: Sequence[str] = ()) -> RunConfig:
    """The run's settings from a command line: an optional YAML path first, then `--key value` overrides.

    `--key none` (or null) takes a key of the file back where it need not be set; lists may also be left empty.

    Args:
        arguments: for example `["configs/pretrain/slap_scenes.yaml", "--learning_rate", "5e-4", "--resume"]`.
        ignored: keys of one value that are for someone else.

    Raises:
        FileNotFoundError: if the YAML file does not exist.
        ValueError: for an unknown key (the nearest known one is named), a wrong type, a value out of range, or two
            keys that exclude each other.
    """
    groups, given = SCHEMA.read(arguments, ignored)
    config = RunConfig(**groups)
    _check(config)
    return _shrink_for_smoke(config, given) if config.train.smoke else config


def _check(config: RunConfig) -> None:
    """Ranges and combinations, each refused with the key, the value and what is allowed."""
    _check_model_keys(config.model)
    if config.lora.lora:
        _check_lora_base(config.model)
    if config.eval.best_metric not in _METRICS:
        raise ValueError(f"Unknown `best_metric` {config.eval.best_metric!r}. Choose one of {_METRICS}.")
    low, high = config.data.num_events
    if low > high:
        raise ValueError(f"`num_events` must be [fewest, most], got {[low, high]}. Swap the two numbers.")
    if config.uses_scenes and config.data.min_seconds > config.data.max_seconds:
        raise ValueError(
            f"`min_seconds` is {config.data.min_seconds}, above `max_seconds` = {config.data.max_seconds}. "
            "Lower the one or raise the other."
        )
    step = config.data.crop_step_seconds
    if step is not None and step > config.data.max_seconds:
        raise ValueError(f"`crop_step_seconds` is {step}, above `max_seconds` = {config.data.max_seconds}. Lower it.")
    check_optimization(config.train, config.eval.export, config.eval.eval_steps)


def check_optimization(settings: OptimizationArguments, export: str, eval_steps: int) -> None:
    """Refuses combinations that no run can have, of every script that trains; makes `warmup_steps` a whole number.

    Raises:
        ValueError: names the keys, their values and what is allowed.
    """
    lengths = {name: getattr(settings, name) for name in ("max_steps", "num_epochs")}
    lengths = {name: value for name, value in lengths.items() if value is not None}
    if len(lengths) != 1:
        raise ValueError(f"Exactly one of `max_steps` and `num_epochs` is needed, got {lengths or 'none'}. Set one.")
    if export == "best" and eval_steps == 0:
        raise ValueError(
            "`export` is 'best' but `eval_steps` is 0, so no step would be called the best. Set `eval_steps`, or use "
            "`export: last`."
        )
    if settings.resume and settings.overwrite:
        raise ValueError("`resume` and `overwrite` are both true. Continue the old run, or start anew: choose one.")
    _check_warmup(settings)
    _check_optimizer(settings)


def _check_model_keys(arguments: ModelArguments) -> None:
    if arguments.model is None and arguments.model_config is None:
        raise ValueError("`model_config` or `model` is needed, got none. Name the model to begin, or to continue.")
    starts = {name: getattr(arguments, name) for name in _STARTS if getattr(arguments, name) is not None}
    if arguments.model is not None and starts:
        raise ValueError(
            f"`model` {arguments.model!r} brings all of its weights, got {starts} beside it. Leave out `model` to put "
            "a new one together, or the other keys to continue it."
        )


def _check_lora_base(arguments: ModelArguments) -> None:
    """An adapter is worth nothing without its base, which must be a model as it is on disk."""
    if arguments.model is None:
        raise ValueError("`lora` needs `model`, got none: adapters are trained on a model that has been. Name one.")
    given = {name: getattr(arguments, name) for name in _FORWARD_KEYS if getattr(arguments, name) is not None}
    if given:
        raise ValueError(
            f"With `lora` the model stays what it is, got {given}: its adapter would be loaded on a base that "
            "computes something else. Remove the keys, or train all weights."
        )


def _check_warmup(settings: OptimizationArguments) -> None:
    warmup = settings.warmup_steps
    if warmup >= 1 and not float(warmup).is_integer():
        raise ValueError(f"`warmup_steps` must be a whole number, or a share of all steps below 1, got {warmup}.")
    if settings.max_steps and warmup >= settings.max_steps and warmup >= 1 and not settings.smoke:
        raise ValueError(
            f"`warmup_steps` is {warmup:g} but the run has {settings.max_steps} steps, so the learning rate would "
            "never reach its peak. Lower `warmup_steps` or raise `max_steps`."
        )
    if warmup >= 1:
        settings.warmup_steps = int(warmup)


def _check_optimizer(settings: OptimizationArguments) -> None:
    unused = {name: getattr(settings, name) for name in ("max_grad_norm", "weight_decay") if getattr(settings, name)}
    if settings.optimizer == "scaled_adam" and unused:
        raise ValueError(
            f"`optimizer` is 'scaled_adam', which clips by `clipping_scale` and bounds the weights by itself, but got "
            f"{unused}. Set {' and '.join(f'`{name}: 0`' for name in unused)}."
        )
    if settings.amsgrad and settings.optimizer != "adamw":
        raise ValueError(f"`amsgrad` is of 'adamw', got `optimizer` {settings.optimizer!r}. Leave it out.")
    if settings.lr_steps_per_epoch is not None and settings.lr_schedule not in ("eden", "eden3"):
        raise ValueError(
            f"`lr_steps_per_epoch` is {settings.lr_steps_per_epoch}, but `lr_schedule` {settings.lr_schedule!r} does "
            "not count epochs. Remove the key, or use 'eden' or 'eden3'."
        )


def _shrink_for_smoke(config: RunConfig, given: set[str]) -> RunConfig:
    """The same run in miniature, in a folder of its own so that no real run is touched.

    Weights to start from are left out, unless they are `given` on the command line: those of another smoke run fit.
    A text store is made in the run's folder.
    """
    if "model" not in given:
        config.model.model_config = config.model.model_config or config.model.model
    for name in {"model", *_STARTS} - given:
        setattr(config.model, name, None)
    config.model.tokenizer, config.model.max_text_tokens = "train", min(config.model.max_text_tokens, 32)
    data = dataclasses.replace(config.data, train_data="sound_scenes", eval_data=None, train_size=16, num_workers=0)
    data.min_seconds, data.max_seconds, data.crop_step_seconds = 1.0, 1.6, None
    train = dataclasses.replace(config.train, max_steps=2, num_epochs=None, batch_size=4, warmup_steps=1, log_steps=1)
    train.gradient_accumulation_steps, train.save_steps = 1, 1
    train.output_dir = f"{config.train.output_dir.rstrip('/')}_smoke"
    train.overwrite, train.resume = not config.train.resume, config.train.resume
    if data.text_embeddings is not None:
        data.text_embeddings = f"{train.output_dir}/text_embeddings"
    evaluation = dataclasses.replace(config.eval, eval_size=6, test_size=20, composition_size=4, zero_shot_size=32)
    evaluation.eval_steps = min(config.eval.eval_steps, 2)
    return RunConfig(config.model, data, train, config.lora, evaluation)


__all__ = [
    "PAIRS",
    "POSITIVE",
    "RANGES",
    "SCENES",
    "DataArguments",
    "EvalArguments",
    "ModelArguments",
    "OptimizationArguments",
    "RunConfig",
    "TrainArguments",
    "check_optimization",
    "load_run_config",
]

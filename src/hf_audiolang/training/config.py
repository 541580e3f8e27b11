# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""One run = one flat YAML file plus command-line overrides, read into four dataclasses and checked first of all.

YAML file ---- names, types --.
                               >-- HfArgumentParser (command line wins) -- ranges, pairs -- RunConfig
--learning_rate 5e-5 ---------'
"""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers import HfArgumentParser

SCENES = "sound_scenes"


def _option(default: Any, text: str) -> Any:
    """A dataclass field with a help text for the command line."""
    return field(default=default, metadata={"help": text.replace("%", "%%")})


@dataclass
class ModelArguments:
    """Which model is trained; the objective's numbers overwrite the field of the same name in the model's config."""

    model_config: str | None = _option(None, "Folder (or Hub id) with config.json and preprocessor_config.json.")
    model: str | None = _option(
        None, "Folder or Hub id of a trained model to continue from; with its own config unless model_config is given."
    )
    text_model: str | None = _option(None, "Hub id or folder whose weights the text tower starts from.")
    audio_model: str | None = _option(
        None, "Folder or Hub id whose weights the audio tower starts from, and whose feature extractor is taken."
    )
    audio_projection: str | None = _option(None, "Folder or Hub id whose audio projector is the start, not a new one.")
    freeze: list[str] = field(
        default_factory=list,
        metadata={"help": "Patterns of parameter names that are not trained, such as 'audio_model.*'."},
    )
    tokenizer: str = _option("train", "'train' (byte-level BPE on the training captions), a Hub id or a folder.")
    max_text_tokens: int = _option(128, "Longer captions are cut to this many tokens.")
    contrastive_weight: float | None = _option(None, "Weight of the contrastive loss; None keeps the model config's.")
    masked_weight: float | None = _option(None, "Weight of the masked-prediction loss; None keeps the config's.")
    caption_weight: float | None = _option(None, "Weight of the caption loss; None keeps the model config's.")
    masking_ratio: float | None = _option(None, "Share of tokens hidden from the student, in [0, 1); None: config's.")
    mask_style: str | None = _option(None, "How the hidden tokens are drawn, a name the model knows; None: config's.")
    aggregation: str | None = _option(None, "How frames and words become one similarity (MGA-CLAP); None: config's.")
    affinity_divisor: float | None = _option(None, "Divides affinities to codewords (MGA-CLAP); None: config's.")
    hard_negative_gamma: float | None = _option(None, "Weight of hard negatives (MGA-CLAP), 0: none; None: config's.")
    regularizer_weight: float | None = _option(None, "Weight of the embedding regulariser; None: config's.")
    parallel_share: float | None = _option(
        None, "Share of captions decoded in parallel (CaptionStew); None: config's."
    )
    label_smoothing: float | None = _option(None, "Label smoothing of the caption loss; None: config's.")
    locality_blocks: int | None = _option(None, "Last blocks of the audio tower without attention; None: config's.")


@dataclass
class DataArguments:
    """What is trained on: the embedded scenes, or a folder, `datasets` folder or Hub id of one's own."""

    train_data: str = _option("sound_scenes", "'sound_scenes', a folder with metadata.csv or .jsonl, or a Hub id.")
    eval_data: str | None = _option(None, "Held-out data like train_data; None: own split, or 10 % of the files.")
    audio_column: str | None = _option(None, "Column of the file name or sound; None: the usual names are tried.")
    caption_column: str | None = _option(None, "Column of the caption(s); None: the usual names are tried.")
    text_embeddings: str | None = _option(
        None, "Folder with precomputed embeddings of all training captions, read in place of the captions."
    )
    train_size: int = _option(3000, "Number of training scenes made (sound_scenes only).")
    min_seconds: float = _option(2.0, "Shortest scene made, seconds (sound_scenes only).")
    max_seconds: float = _option(8.0, "Longest scene made, and the longest crop of any clip, seconds.")
    num_events: list[int] = field(
        default_factory=lambda: [1, 3],
        metadata={"help": "Fewest and most sound events per scene (sound_scenes only)."},
    )
    crop_step_seconds: float | None = _option(None, "Crop lengths are multiples of this, seconds; None: any length.")
    on_bad_example: Literal["skip", "error"] = _option("skip", "What a file that cannot be used does to the run.")
    num_workers: int = _option(2, "Processes that decode and compute features; 0: none.")


@dataclass
class TrainArguments:
    """The optimisation and the run's folder."""

    output_dir: str = _option("runs/pretrain", "Folder of the run: checkpoints, log, metrics, figures, model.")
    max_steps: int | None = _option(None, "Number of optimizer steps; give this or num_epochs.")
    num_epochs: float | None = _option(None, "Passes over the training data; give this or max_steps.")
    batch_size: int = _option(64, "Clips per process and forward pass: the negatives of the contrastive loss.")
    gradient_accumulation_steps: int = _option(1, "Forward passes per optimizer step.")
    optimizer: Literal["adamw", "scaled_adam"] = _option("adamw", "scaled_adam: icefall's, which clips by itself.")
    learning_rate: float = _option(1e-4, "Peak learning rate, after the warm-up; icefall's scaled_adam has 0.045.")
    text_learning_rate_scale: float = _option(1.0, "Factor on the learning rate of the text tower.")
    lr_schedule: Literal["cosine", "eden", "eden2", "eden3"] = _option("cosine", "What the learning rate follows.")
    warmup_steps: float = _option(
        0, "Steps of linear warm-up, from 0 (cosine) or half the peak (eden: 500); below 1: a share of all steps."
    )
    lr_end_ratio: float = _option(0.01, "cosine: learning rate of the last step / peak; 1 keeps it constant.")
    lr_batches: float = _option(7500, "eden: steps after which the learning rate begins to fall.")
    lr_epochs: float = _option(3.5, "eden and eden3: epochs after which it begins to fall.")
    lr_steps_per_epoch: int | None = _option(None, "eden and eden3: steps called an epoch; None: those of the data.")
    weight_decay: float = _option(0.05, "AdamW weight decay of matrices; none on norms, embeddings, probes, scales.")
    adam_betas: list[float] = field(
        default_factory=lambda: [0.9, 0.98], metadata={"help": "The optimizer's two averaging factors."}
    )
    max_grad_norm: float = _option(1.0, "Gradients are clipped to this norm; 0: not clipped.")
    clipping_scale: float = _option(2.0, "scaled_adam: gradients are clipped to this times their median norm.")
    ema_decay: list[float] = field(
        default_factory=lambda: [0.994, 1.0],
        metadata={"help": "Teacher's EMA decay at the first and last step."},
    )
    ema_schedule: Literal["cosine", "linear"] = _option("cosine", "What the teacher's EMA decay follows in between.")
    precision: Literal["auto", "fp32", "bf16"] = _option("auto", "auto: bf16 autocast where the device gains by it.")
    num_threads: int | None = _option(None, "CPU threads of torch per process; None: all cores, shared fairly.")
    seed: int = _option(0, "Seed of initialisation, data order, crops and masks.")
    log_steps: int = _option(10, "Steps between two refreshes of the log and the progress bar.")
    save_steps: int = _option(1000, "Steps between two checkpoints; 0: only at the end.")
    resume: bool = _option(False, "Continue from the last complete checkpoint in output_dir, exactly.")
    overwrite: bool = _option(False, "Start again in an output_dir that holds a run: deletes its checkpoints and log.")
    tensorboard: bool = _option(False, "Also write TensorBoard logs (extra 'tensorboard').")
    smoke: bool = _option(False, "Two steps of a tiny model on a few synthetic clips: does this configuration run?")


@dataclass
class EvalArguments:
    """What is measured, when, and which checkpoint is called the best."""

    eval_steps: int = _option(0, "Steps between two evaluations on the validation data; 0: only at the end.")
    eval_size: int = _option(100, "Validation clips used for each of them.")
    best_metric: str = _option("text_to_audio/R@10", "Validation value whose maximum marks the best checkpoint.")
    export: Literal["best", "last"] = _option("last", "Which weights are evaluated and exported at the end.")
    test_size: int = _option(300, "Clips of the final test; of own data, those captioned there.")
    composition_size: int = _option(200, "Clips with held-out class pairs in the final test (sound_scenes only).")
    zero_shot_size: int = _option(256, "Single-event clips of the final test (sound_scenes only).")
    probe_poolings: bool = _option(False, "Also probe the encoder by mean and attention pooling (sound_scenes only).")


_PARTS = {"model": ModelArguments, "data": DataArguments, "train": TrainArguments, "eval": EvalArguments}
_HINTS = {name: hint for part in _PARTS.values() for name, hint in typing.get_type_hints(part).items()}

# Lowest and highest allowed value, both included; None: open.
_RANGES: dict[str, tuple[float | None, float | None]] = {
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
    "masking_ratio": (0, 0.99),
    "label_smoothing": (0, 0.99),
}
_METRICS = [f"{way}/{name}" for way in ("text_to_audio", "audio_to_text") for name in ("R@1", "R@5", "R@10", "mAP@10")]
_POSITIVE = (
    "num_epochs", "learning_rate", "min_seconds", "max_seconds", "crop_step_seconds", "affinity_divisor", "lr_batches",
    "lr_epochs", "text_learning_rate_scale", "clipping_scale",
)  # fmt: skip
_PAIRS = ("ema_decay", "adam_betas", "num_events")
_EITHER_OR = (("max_steps", "num_epochs"), ("model_config", "model"))  # on the command line one puts out the other
_STARTS = ("text_model", "audio_model", "audio_projection")  # weights of parts of a new model


@dataclass
class RunConfig:
    """The checked settings of one run, in four groups; `to_dict` is flat as the YAML file is."""

    model: ModelArguments
    data: DataArguments
    train: TrainArguments
    eval: EvalArguments

    @property
    def uses_scenes(self) -> bool:
        """True if scenes are made for training, validation or the final test."""
        return SCENES in (self.data.train_data, self.data.eval_data)

    @property
    def tests_on_scenes(self) -> bool:
        """True if the run is evaluated on the embedded data's own splits, with all their tasks."""
        return (self.data.eval_data or self.data.train_data) == SCENES

    def to_dict(self) -> dict[str, Any]:
        """All settings as one flat dictionary, in the order of the dataclasses."""
        return {name: value for part in _PARTS for name, value in dataclasses.asdict(getattr(self, part)).items()}

    def save(self, path: str | Path) -> None:
        """Writes the resolved settings as a YAML file that `load_run_config` reads back to equal values."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        settings = {name: value for name, value in self.to_dict().items() if value is not None}
        Path(path).write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")


def default_settings() -> dict[str, Any]:
    """The value of every key that is not set."""
    return {name: value for part in _PARTS.values() for name, value in dataclasses.asdict(part()).items()}


def load_run_config(arguments: list[str]) -> RunConfig:
    """The run's settings from a command line: an optional YAML path first, then `--key value` overrides.

    `--key none` (or null) takes a key of the file back where it need not be set; lists may also be left empty.

    Args:
        arguments: for example `["configs/pretrain/slap_scenes.yaml", "--learning_rate", "5e-4", "--resume"]`.

    Raises:
        FileNotFoundError: if the YAML file does not exist.
        ValueError: for an unknown key (the nearest known one is named), a wrong type, a value out of range, or two
            keys that exclude each other.
    """
    path = arguments[0] if arguments and not arguments[0].startswith("--") else None
    overrides = arguments[1:] if path else arguments
    settings = _read_yaml(path) if path else {}
    overrides, unset = _take_unset(overrides)
    settings = {name: value for name, value in settings.items() if name not in unset}
    given = {text[2:].split("=")[0].replace("-", "_") for text in overrides if text.startswith("--")}
    for pair in _EITHER_OR:
        for name, other in (pair, pair[::-1]):
            if name in given and other not in given:
                settings.pop(other, None)  # the command line chooses between the two
    if "model" in given:
        settings = {name: value for name, value in settings.items() if name not in _STARTS}
    parser = _Parser(list(_PARTS.values()), allow_abbrev=False, prog="pretrain.py [CONFIG.yaml]")
    parser.set_defaults(**settings)
    *parts, unknown = parser.parse_args_into_dataclasses(
        overrides, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        _refuse_unknown(unknown[0].split("=")[0], "on the command line", prefix="--")
    config = RunConfig(**dict(zip(_PARTS, parts, strict=True)))
    _check(config)
    if config.train.warmup_steps >= 1:
        config.train.warmup_steps = int(config.train.warmup_steps)
    return _shrink_for_smoke(config, given) if config.train.smoke else config


def _take_unset(overrides: list[str]) -> tuple[list[str], set[str]]:
    """(the command line without the keys that it takes back, these keys). Of a key given twice the last counts."""
    groups: list[list[str]] = []  # each key with its values
    for text in overrides:
        if text.startswith("--") or not groups:
            groups.append([text])
        else:
            groups[-1].append(text)
    kept, unset = [], set()
    for group in groups:
        key, *value = group[0].split("=", 1)
        name = key.removeprefix("--").replace("-", "_")
        if _is_unset(name, [*value, *group[1:]]):
            kept = [(other, texts) for other, texts in kept if other != name]
            unset.add(name)
        else:
            kept.append((name, group))
            unset.discard(name)
    return [text for _, group in kept for text in group], unset


def _is_unset(name: str, values: list[str]) -> bool:
    """Whether values of the command line take back a key that may be None, or a list that may be empty."""
    is_none = len(values) == 1 and values[0].lower() in ("none", "null")
    hint = _HINTS.get(name)
    if typing.get_origin(hint) is list:
        return default_settings()[name] == [] and (is_none or not values)
    return is_none and isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)


class _Parser(HfArgumentParser):
    """HfArgumentParser that raises instead of leaving the process."""

    def error(self, message: str) -> typing.NoReturn:
        raise ValueError(f"The command line cannot be read: {message}. Run the script with --help to see every key.")


def _read_yaml(path: str) -> dict[str, Any]:
    """The file's keys with values converted to the fields' types; keys set to null are left out."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"The run's configuration {path!r} does not exist. Pass the path of a YAML file first."
        )
    settings = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path!r} holds a {type(settings).__name__}, not `key: value` lines. See configs/pretrain.")
    for name in settings:
        if name not in _HINTS:
            _refuse_unknown(str(name), f"in {path!r}")
    return {name: _convert(name, value, path) for name, value in settings.items() if value is not None}


def _refuse_unknown(name: str, where: str, prefix: str = "") -> typing.NoReturn:
    near = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), _HINTS, n=1, cutoff=0.0)
    raise ValueError(f"Unknown key `{name}` {where}. The nearest known one is `{prefix}{near[0]}`.")


def _convert(name: str, value: Any, path: str) -> Any:
    """`value` as the field's type; YAML 1.1 reads 1e-4 as text, so text is accepted where it spells the number."""
    hint = _HINTS[name]
    if isinstance(hint, types.UnionType):
        hint = next(argument for argument in typing.get_args(hint) if argument is not type(None))
    if typing.get_origin(hint) is list:
        values = value if isinstance(value, list) else [value]
        return [_convert_scalar(name, item, typing.get_args(hint)[0], path) for item in values]
    if typing.get_origin(hint) is Literal:
        return value  # the choices are checked with those of the command line
    return _convert_scalar(name, value, hint, path)


def _convert_scalar(name: str, value: Any, kind: type, path: str) -> Any:
    numeric_text = isinstance(value, str) and kind in (int, float)
    whole = kind is int and isinstance(value, float) and value.is_integer()
    if type(value) is kind or numeric_text or whole or (kind is float and type(value) is int):
        try:
            return kind(value)
        except ValueError:
            pass
    raise ValueError(f"`{name}` in {path!r} must be of type {kind.__name__}, got {value!r}. Correct the file.")


def _check(config: RunConfig) -> None:
    """Ranges and combinations, each refused with the key, the value and what is allowed."""
    settings = config.to_dict()
    for name, value in settings.items():
        _check_range(name, value)
        choices = typing.get_args(_HINTS[name]) if typing.get_origin(_HINTS[name]) is Literal else None
        if choices and value not in choices:
            raise ValueError(f"Unknown `{name}` {value!r}. Choose one of {list(choices)}.")
    _check_model_keys(config.model)
    lengths = {name: settings[name] for name in ("max_steps", "num_epochs") if settings[name] is not None}
    if len(lengths) != 1:
        raise ValueError(f"Exactly one of `max_steps` and `num_epochs` is needed, got {lengths or 'none'}. Set one.")
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
    if config.eval.export == "best" and config.eval.eval_steps == 0:
        raise ValueError(
            "`export` is 'best' but `eval_steps` is 0, so no step would be called the best. Set `eval_steps`, or use "
            "`export: last`."
        )
    if config.train.resume and config.train.overwrite:
        raise ValueError("`resume` and `overwrite` are both true. Continue the old run, or start anew: choose one.")
    _check_warmup(config.train)
    _check_optimizer(config.train)


def _check_model_keys(arguments: ModelArguments) -> None:
    if arguments.model is None and arguments.model_config is None:
        raise ValueError("`model_config` or `model` is needed, got none. Name the model to begin, or to continue.")
    starts = {name: getattr(arguments, name) for name in _STARTS if getattr(arguments, name) is not None}
    if arguments.model is not None and starts:
        raise ValueError(
            f"`model` {arguments.model!r} brings all of its weights, got {starts} beside it. Leave out `model` to put "
            "a new one together, or the other keys to continue it."
        )


def _check_warmup(settings: TrainArguments) -> None:
    warmup = settings.warmup_steps
    if warmup >= 1 and not float(warmup).is_integer():
        raise ValueError(f"`warmup_steps` must be a whole number, or a share of all steps below 1, got {warmup}.")
    if settings.max_steps and warmup >= settings.max_steps and warmup >= 1 and not settings.smoke:
        raise ValueError(
            f"`warmup_steps` is {warmup:g} but the run has {settings.max_steps} steps, so the learning rate would "
            "never reach its peak. Lower `warmup_steps` or raise `max_steps`."
        )


def _check_optimizer(settings: TrainArguments) -> None:
    unused = {name: getattr(settings, name) for name in ("max_grad_norm", "weight_decay") if getattr(settings, name)}
    if settings.optimizer == "scaled_adam" and unused:
        raise ValueError(
            f"`optimizer` is 'scaled_adam', which clips by `clipping_scale` and bounds the weights by itself, but got "
            f"{unused}. Set {' and '.join(f'`{name}: 0`' for name in unused)}."
        )
    if settings.lr_steps_per_epoch is not None and settings.lr_schedule not in ("eden", "eden3"):
        raise ValueError(
            f"`lr_steps_per_epoch` is {settings.lr_steps_per_epoch}, but `lr_schedule` {settings.lr_schedule!r} does "
            "not count epochs. Remove the key, or use 'eden' or 'eden3'."
        )


def _check_range(name: str, value: Any) -> None:
    if value is None:
        return
    if name in _PAIRS and len(value) != 2:
        raise ValueError(f"`{name}` must be two numbers, got {value}. Write it as `{name}: [first, second]`.")
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(
                f"`{name}` must be a finite number, got {value}. Change it in the YAML file or as --{name}."
            )
    if name in _POSITIVE and not value > 0:
        raise ValueError(f"`{name}` must be above 0, got {value}. Choose a positive number.")
    low, high = _RANGES.get(name, (None, None))
    for number in value if isinstance(value, list) else [value]:
        if (low is not None and not number >= low) or (high is not None and not number <= high):
            allowed = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ValueError(f"`{name}` must be {allowed}, got {value}. Change it in the YAML file or as --{name}.")


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
    return RunConfig(config.model, data, train, evaluation)


__all__ = [
    "SCENES",
    "DataArguments",
    "EvalArguments",
    "ModelArguments",
    "RunConfig",
    "TrainArguments",
    "default_settings",
    "load_run_config",
]

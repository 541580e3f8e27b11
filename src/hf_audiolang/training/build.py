# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The parts of a run out of its settings: data, processor, model, batches."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForPreTraining,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_audiolang.data.audio_io import AudioError, record_waveform
from hf_audiolang.data.captions import split_held_out
from hf_audiolang.data.collate import Collator
from hf_audiolang.data.records import RecordDataset, dataset_captions
from hf_audiolang.data.registry import build_dataset
from hf_audiolang.data.sampling import EpochSampler, build_train_loader
from hf_audiolang.data.sound_scenes import SoundScenes
from hf_audiolang.models.feature_extraction_log_mel import measure_statistics
from hf_audiolang.models.processing_audiolang import AudioLangProcessor

from .config import SCENES, DataArguments, ModelArguments, RunConfig
from .devices import num_available_cores
from .interrupt import start_worker
from .objectives import override_objective
from .tokenizer import load_tokenizer, train_tokenizer

logger = logging.get_logger(__name__)

MAX_MEASURED_CLIPS = 5000  # clips whose features give mean and standard deviation; slap.md section 1
# Sizes of the smoke run's model, wherever a config of the family has a field of the name.
SMOKE_SIZES = {
    "hidden_size": 24,
    "encoder_hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "num_prototypes": 32,
    "prototype_hidden_size": 32,
    "prototype_bottleneck_size": 16,
}


def build_feature_extractor(arguments: ModelArguments) -> FeatureExtractionMixin:
    """The feature extractor that belongs to the model; the first look at the model's folder, before data are made.

    Raises:
        OSError: if the folder has none, or no config, or `model` is a folder without weights.
    """
    key, name = ("model", arguments.model) if arguments.model else ("model_config", arguments.model_config)
    folder = Path(name)
    if arguments.model and folder.is_dir() and not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        raise FileNotFoundError(
            f"`model` {name!r} has no weights (model.safetensors). Give the folder that a run exported, "
            "runs/NAME/model, or use --model_config to begin a new model of these sizes."
        )
    try:
        AutoConfig.from_pretrained(name)
        return AutoFeatureExtractor.from_pretrained(name)
    except OSError as error:
        raise OSError(
            f"`{key}` {name!r} has no preprocessor_config.json or no config.json. Give a folder with config.json and "
            "preprocessor_config.json such as configs/models/slap_scenes, or a Hub id that has both."
        ) from error


def build_datasets(config: RunConfig, sampling_rate: int) -> tuple[RecordDataset, RecordDataset | None]:
    """(training data, held-out data). Scenes are tested on their own splits: here only validation needs some.

    Own data without `eval_data` is split by file name: the same tenth is held out in every run.

    Raises:
        FileNotFoundError: if there is no such data.
        ValueError: if its rows, columns or files cannot be used; names them.
    """
    data = config.data
    if data.train_data == SCENES:
        train = build_scenes(data, "train", data.train_size, sampling_rate)
    else:
        train = _build_own(data.train_data, "train", data)
    if not config.tests_on_scenes:
        return (train, _build_own(data.eval_data, "test", data)) if data.eval_data else split_held_out(train)
    if config.eval.eval_steps == 0:
        return train, None
    return train, build_scenes(data, "validation", config.eval.eval_size, sampling_rate)


def build_scenes(data: DataArguments, split: str, size: int, sampling_rate: int) -> RecordDataset:
    """A rendered split of the embedded data set, of the run's kind of scenes."""
    options = {"sampling_rate": sampling_rate, "num_workers": num_available_cores(), **scene_options(data)}
    return build_dataset(SCENES, split, size=size, **options)


def check_final_test(config: RunConfig, sampling_rate: int) -> None:
    """Makes sure that the scenes of the final test can be made, without making a sound.

    Raises:
        ValueError: if the run's durations and numbers of events do not allow one of the splits.
    """
    if not config.tests_on_scenes:
        return
    data, sizes = config.data, config.eval
    splits = {"test": sizes.test_size, "composition": sizes.composition_size, "zero_shot": sizes.zero_shot_size}
    for split, size in splits.items():
        try:
            SoundScenes(split, size, sampling_rate=sampling_rate, **scene_options(data))
        except ValueError as error:
            raise ValueError(
                f"With `num_events` {data.num_events}, `min_seconds` {data.min_seconds} and `max_seconds` "
                f"{data.max_seconds} the final test cannot be made: {error}"
            ) from error


def scene_options(data: DataArguments) -> dict[str, tuple]:
    """What makes the run's kind of scenes: durations in seconds and numbers of events, each (lowest, highest)."""
    return {"duration": (data.min_seconds, data.max_seconds), "n_events": tuple(data.num_events)}


def build_processor(
    config: RunConfig, feature_extractor: FeatureExtractionMixin, train_data: RecordDataset
) -> ProcessorMixin:
    """Feature extractor and tokenizer in one; what is still open is taken from the training data.

    Open may be the tokenizer (`tokenizer: train`) and the extractor's mean and standard deviation. Both depend on the
    training data alone.

    Raises:
        OSError: if the tokenizer cannot be found.
    """
    arguments = config.model
    if arguments.model:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    elif arguments.tokenizer == "train":
        captions = (caption for captions in dataset_captions(train_data) for caption in captions)
        tokenizer = train_tokenizer(captions, max_length=arguments.max_text_tokens)
        logger.info(f"Trained a tokenizer of {len(tokenizer)} types on the captions.")
    else:
        tokenizer = load_tokenizer(arguments.tokenizer)
    if feature_extractor.std is None:
        clips = _waveforms(train_data, feature_extractor.sampling_rate, config.data.max_seconds)
        feature_extractor.set_statistics(*measure_statistics(feature_extractor, clips, MAX_MEASURED_CLIPS))
        logger.info(f"Measured features: mean {feature_extractor.mean:.3f}, divisor {feature_extractor.std:.3f}.")
    return AudioLangProcessor(feature_extractor, tokenizer)


def build_model(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The pre-training model: new from `model_config`, or a trained one to continue from `model`.

    Raises:
        OSError: if there is no such model or config.
        ValueError: if a run key of the objective is no field of the model's config, or the text weights do not fit.
    """
    arguments = config.model
    model_config = AutoConfig.from_pretrained(arguments.model or arguments.model_config)
    override_objective(model_config, arguments)
    if arguments.model:
        return _load("model", arguments.model, AutoModelForPreTraining, config=model_config)
    if config.train.smoke:
        model_config = type(model_config).from_dict(_shrunk(model_config.to_dict()))
    fit_vocabulary(model_config, tokenizer, is_exact=arguments.tokenizer == "train")
    model = AutoModelForPreTraining.from_config(model_config)
    if arguments.text_model:
        _load_text_tower(model, arguments.text_model)
    return model


def fit_vocabulary(model_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, *, is_exact: bool) -> None:
    """Sets vocabulary size and special token ids of every part of the config that reads or writes text, in place.

    Args:
        is_exact: the size becomes the tokenizer's own; otherwise a larger one stays (published models round it up).
    """
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id,
        "eos_token_id": tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    parts = [getattr(model_config, name) for name in model_config.sub_configs]
    for part in [model_config, *parts]:
        if not hasattr(part, "vocab_size"):
            continue
        part.vocab_size = len(tokenizer) if is_exact else max(part.vocab_size, len(tokenizer))
        for name, value in ids.items():
            if hasattr(part, name):
                setattr(part, name, value)


def plan_batches(config: RunConfig, train_data: RecordDataset, accelerator: Accelerator) -> tuple[EpochSampler, int]:
    """(sampler of this process, number of optimizer steps). A batch is never larger than the data.

    Raises:
        ValueError: if there are not two clips per process, or so few steps that the warm-up does not end or that there
            is no evaluation to choose the best weights by.
    """
    settings = config.train
    largest = len(train_data) // accelerator.num_processes
    if settings.batch_size > largest >= 2:
        logger.warning(
            f"`batch_size` is {settings.batch_size}, but each of {accelerator.num_processes} process(es) has only "
            f"{largest} of the {len(train_data)} training clips: the batch is {largest}."
        )
        settings.batch_size = largest
    sampler = EpochSampler(
        len(train_data), settings.batch_size, settings.seed, accelerator.process_index, accelerator.num_processes
    )
    num_steps = settings.max_steps
    if num_steps is None:
        num_batches = settings.num_epochs * sampler.steps_per_epoch
        num_steps = max(1, math.ceil(num_batches / settings.gradient_accumulation_steps))
    if settings.warmup_steps >= num_steps:
        raise ValueError(
            f"`warmup_steps` is {settings.warmup_steps} but the run has {num_steps} step(s) on {len(train_data)} "
            "clips, so the learning rate would never reach its peak. Lower `warmup_steps`, raise `num_epochs` or add "
            "data."
        )
    if config.eval.export == "best" and config.eval.eval_steps > num_steps:
        raise ValueError(
            f"`export` is 'best' but `eval_steps` is {config.eval.eval_steps} and the run has {num_steps} step(s): no "
            "step would be called the best. Lower `eval_steps`, or use `export: last`."
        )
    return sampler, num_steps


def loader_maker(
    config: RunConfig, processor: ProcessorMixin, train_data: RecordDataset, sampler: EpochSampler, num_steps: int
) -> Callable[[int], Iterable[dict]]:
    """The function the loop calls for its batches: number of batches used -> the remaining ones."""
    data = config.data
    collator = Collator(
        processor,
        max_seconds=data.max_seconds,
        max_text_tokens=config.model.max_text_tokens,
        crop_step_seconds=data.crop_step_seconds,
        on_bad_example=data.on_bad_example,
        seed=config.train.seed,
    )
    num_batches = num_steps * config.train.gradient_accumulation_steps

    def make_loader(num_used: int) -> Iterable[dict]:
        loader = build_train_loader(
            train_data, sampler, collator, num_used, num_batches - num_used, num_workers=data.num_workers
        )
        if data.num_workers > 0:
            loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
        return loader

    return make_loader


def _build_own(name: str, split: str, data: DataArguments) -> RecordDataset:
    return build_dataset(
        name,
        split,
        audio_column=data.audio_column,
        caption_column=data.caption_column,
        on_bad_example=data.on_bad_example,
    )


def _waveforms(dataset: RecordDataset, sampling_rate: int, max_seconds: float) -> Iterator[np.ndarray]:
    """(S,) waveforms of the readable clips, evenly spread over the data set."""
    num_clips = min(len(dataset), MAX_MEASURED_CLIPS)
    for number in range(num_clips):
        try:
            yield record_waveform(dataset[number * len(dataset) // num_clips], sampling_rate, 0.0, max_seconds)
        except AudioError:
            continue  # reported when it is drawn for a batch


def _load_text_tower(model: PreTrainedModel, name: str) -> None:
    """Copies the weights of a published text encoder into the text tower."""
    source = _load("text_model", name, AutoModel, dtype=torch.float32).state_dict()
    target = model.base_model.text_model
    expected = target.state_dict()
    misfits = [key for key, value in expected.items() if key not in source or source[key].shape != value.shape]
    if misfits:
        raise ValueError(
            f"`text_model` {name!r} does not fit the text tower: {len(misfits)} of its {len(expected)} tensors are "
            f"missing or of another shape, for instance {misfits[0]!r}. Use a `model_config` whose text_config is "
            "that model's, with its own `tokenizer`."
        )
    target.load_state_dict({key: source[key] for key in expected})


def _load(key: str, name: str, family: type, **options: object) -> PreTrainedModel:
    """`family.from_pretrained`, whose failure names the run's key in one line."""
    try:
        return family.from_pretrained(name, **options)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"`{key}` {name!r} cannot be loaded: {reason} Give a folder with config.json and model.safetensors, or a "
            "Hub id that has both, and check the network."
        ) from error


def _shrunk(numbers: dict) -> dict:
    """A config's dictionary with the smoke run's sizes, in all sub-configs."""
    small = {}
    for name, value in numbers.items():
        if isinstance(value, dict):
            small[name] = _shrunk(value)
        elif name == "layer_types" and value is not None:
            small[name] = value[-SMOKE_SIZES["num_hidden_layers"] :]
        else:
            small[name] = SMOKE_SIZES.get(name, value)
    return small


__all__ = [
    "MAX_MEASURED_CLIPS",
    "SCENES",
    "SMOKE_SIZES",
    "build_datasets",
    "build_feature_extractor",
    "build_model",
    "build_processor",
    "build_scenes",
    "check_final_test",
    "fit_vocabulary",
    "loader_maker",
    "plan_batches",
    "scene_options",
]

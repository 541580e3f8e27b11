# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The parts of a run out of its settings: data, processor, model, batches."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForPreTraining,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_audiolang.data.audio_io import AudioError, record_waveform
from hf_audiolang.data.caption_text import clean_caption
from hf_audiolang.data.captions import split_held_out
from hf_audiolang.data.collate import Collator
from hf_audiolang.data.collate_labels import LabelCollator
from hf_audiolang.data.records import RecordDataset, dataset_captions
from hf_audiolang.data.registry import build_dataset
from hf_audiolang.data.sampling import EpochSampler, build_train_loader
from hf_audiolang.data.sound_scenes import SoundScenes
from hf_audiolang.data.text_embeddings import TextStore
from hf_audiolang.evaluation.capabilities import AudioProcessor
from hf_audiolang.models.feature_extraction_log_mel import measure_statistics
from hf_audiolang.models.processing_audiolang import AudioLangProcessor

from .adapters import add_lora
from .config import SCENES, DataArguments, ModelArguments, RunConfig
from .devices import num_available_cores
from .interrupt import start_worker
from .objectives import freeze_parameters
from .outline import ModelOutline, build_model_config, exported_model, shrink
from .settings import RunSettings
from .start import check_architecture, check_exists, load_pretrained, load_start_weights
from .tokenizer import load_tokenizer, train_tokenizer

logger = logging.get_logger(__name__)

MAX_MEASURED_CLIPS = 5000  # clips whose features give mean and standard deviation; slap.md section 1


def build_feature_extractor(arguments: ModelArguments) -> FeatureExtractionMixin:
    """The feature extractor that belongs to the model; the first look at the model's folder, before data are made.

    It is that of the trained model, else of the audio tower's start, whose features these are, else the config's.

    Raises:
        OSError: if the folder does not exist, or has none, or no config, or `model` is a folder without weights.
    """
    key = next(name for name in ("model", "audio_model", "model_config") if getattr(arguments, name))
    name = getattr(arguments, key)
    folder = Path(name)
    if key != "model_config":
        check_exists(key, name)
    if key != "model_config" and folder.is_dir() and not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        raise FileNotFoundError(
            f"`{key}` {name!r} has no weights (model.safetensors). Give the folder that a run exported, "
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


def build_datasets(
    config: RunConfig, sampling_rate: int, needs_captions: bool = True
) -> tuple[RecordDataset, RecordDataset | None]:
    """(training data, held-out data). Scenes are tested on their own splits: here only validation needs some.

    Own data without `eval_data` is split by file name: the same tenth is held out in every run. A run that reads no
    captions takes sounds without any.

    Raises:
        FileNotFoundError: if there is no such data.
        ValueError: if its rows, columns or files cannot be used; names them.
    """
    data = config.data
    if data.train_data == SCENES:
        train = build_scenes(data, "train", data.train_size, sampling_rate)
    else:
        train = _build_own(data.train_data, "train", data, needs_captions)
    if not config.tests_on_scenes:
        if data.eval_data:
            return train, _build_own(data.eval_data, "test", data, needs_captions)
        return split_held_out(train)
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
    config: RunConfig,
    feature_extractor: FeatureExtractionMixin,
    train_data: RecordDataset,
    outline: ModelOutline | None = None,
) -> AudioProcessor:
    """Feature extractor and tokenizer in one; what is still open is taken from the training data.

    Open may be the tokenizer (`tokenizer: train`) and the extractor's mean and standard deviation. Both depend on the
    training data alone. A model that embeds no text, by its outline, has the feature extractor alone.

    Raises:
        OSError: if the tokenizer cannot be found.
    """
    measure_missing_statistics(feature_extractor, train_data, config.data.max_seconds)
    outline = outline or ModelOutline(needs_captions=True, needs_tokenizer=True)
    if not outline.needs_tokenizer:
        return feature_extractor
    arguments = config.model
    if arguments.model:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    elif arguments.tokenizer == "train":
        clean = clean_caption if outline.cleans_captions else str
        captions = (clean(caption) for captions in dataset_captions(train_data) for caption in captions)
        tokenizer = train_tokenizer(captions, max_length=arguments.max_text_tokens)
        logger.info(f"Trained a tokenizer of {len(tokenizer)} types on the captions.")
    else:
        tokenizer = load_tokenizer(arguments.tokenizer)
    return AudioLangProcessor(feature_extractor, tokenizer)


def measure_missing_statistics(
    feature_extractor: FeatureExtractionMixin, train_data: RecordDataset, max_seconds: float
) -> None:
    """Sets an extractor's mean and standard deviation to those of the training clips if they are still open."""
    if feature_extractor.std is None:
        clips = _waveforms(train_data, feature_extractor.sampling_rate, max_seconds)
        feature_extractor.set_statistics(*measure_statistics(feature_extractor, clips, MAX_MEASURED_CLIPS))
        logger.info(f"Measured features: mean {feature_extractor.mean:.3f}, divisor {feature_extractor.std:.3f}.")


def build_model(config: RunConfig, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedModel:
    """The pre-training model: new from `model_config`, or a trained one to continue from `model`.

    What `freeze` names is frozen. With `lora` what is left after training, the system, is frozen and gets adapters;
    heads of the objective beside it, such as a caption decoder, are trained in full.

    Args:
        config: the run's settings.
        tokenizer: its vocabulary becomes the model's; None for a model that embeds no text.

    Raises:
        OSError: if there is no such model or config.
        ValueError: if a run key of the objective is no field of the model's config, or weights to start from do not
            fit, or were trained with another architecture.
    """
    arguments = config.model
    model_config = build_model_config(config)
    if arguments.model:
        if arguments.model_config:
            there = load_pretrained("model", arguments.model, AutoConfig)
            advice = "Use a `model_config` that agrees with it, or leave `model_config` out."
            check_architecture("model", arguments.model, there, model_config, advice)
        model = load_pretrained("model", arguments.model, AutoModelForPreTraining, config=model_config)
        _warn_of_new_decoder(arguments.model, model)
    else:
        model_config = shrink(model_config) if config.train.smoke else model_config
        if tokenizer is not None:
            fit_vocabulary(model_config, tokenizer, is_exact=arguments.tokenizer == "train")
        model = AutoModelForPreTraining.from_config(model_config)
        load_start_weights(model, arguments)
    if arguments.freeze:
        share = freeze_parameters(model, arguments.freeze)
        logger.info(f"`freeze` {arguments.freeze} keeps {share:.1%} of the parameters as they are.")
    if config.lora.lora:
        add_lora(exported_model(model), config.lora)
    return model


def _warn_of_new_decoder(name: str, model: PreTrainedModel) -> None:
    folder = Path(name)
    captioner = folder.parent / "captioner"
    if folder.name == "model" and captioner.is_dir() and hasattr(model, "caption_decoder"):
        logger.warning(
            f"`model` {name!r} was exported without its caption decoder: a new one begins. Give {str(captioner)!r} to "
            "go on with the decoder that was trained."
        )


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
        "mask_token_id": tokenizer.mask_token_id,
    }
    parts = [getattr(model_config, name) for name in model_config.sub_configs]
    for part in [model_config, *parts]:
        if not hasattr(part, "vocab_size"):
            continue
        part.vocab_size = len(tokenizer) if is_exact else max(part.vocab_size, len(tokenizer))
        written = _caption_ends(tokenizer) if part.model_type == "caption_decoder" else {}
        for name, value in (ids | written).items():
            if hasattr(part, name):
                setattr(part, name, value)
    if hasattr(model_config, "special_token_ids"):  # of tokens that captions have
        del ids["mask_token_id"]
        model_config.special_token_ids = sorted({value for value in ids.values() if value is not None})


def _caption_ends(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """`bos_token_id` and `eos_token_id` of captions: what the tokenizer writes around words, not what it names."""
    around = tokenizer("a")["input_ids"]
    words = set(tokenizer("a", add_special_tokens=False)["input_ids"])
    first, last = (None if token in words else token for token in (around[0], around[-1]))
    return {"bos_token_id": first, "eos_token_id": last}


def plan_batches(
    config: RunSettings,
    train_data: RecordDataset,
    accelerator: Accelerator,
    make_sampler: Callable[..., EpochSampler] = EpochSampler,
) -> tuple[EpochSampler, int]:
    """(sampler of this process, number of optimizer steps). A batch is never larger than the data.

    Args:
        config: the settings of a run of any script.
        train_data: what is drawn from.
        accelerator: counts the processes.
        make_sampler: called with numbers of clips and of clips per batch, seed, number of the process and of all.

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
    sampler = make_sampler(
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
    config: RunConfig,
    processor: AudioProcessor,
    train_data: RecordDataset,
    sampler: EpochSampler,
    num_steps: int,
    *,
    text_store: TextStore | None = None,
    needs_captions: bool = True,
    cleans_captions: bool = False,
) -> Callable[[int], Iterable[dict]]:
    """The function the loop calls for the batches of pre-training, see `make_loaders`."""
    data = config.data
    collator = Collator(
        processor,
        max_seconds=data.max_seconds,
        max_text_tokens=config.model.max_text_tokens,
        crop_step_seconds=data.crop_step_seconds,
        on_bad_example=data.on_bad_example,
        seed=config.train.seed,
        text_store=text_store,
        needs_captions=needs_captions,
        cleans_captions=cleans_captions,
    )
    return make_loaders(config, collator, train_data, sampler, num_steps)


def make_loaders(
    config: RunSettings,
    collator: Collator | LabelCollator,
    train_data: RecordDataset,
    sampler: EpochSampler,
    num_steps: int,
) -> Callable[[int], Iterable[dict]]:
    """The function the loop calls for its batches: number of batches used -> the remaining ones."""
    num_workers, num_batches = config.data.num_workers, num_steps * config.train.gradient_accumulation_steps

    def make_loader(num_used: int) -> Iterable[dict]:
        loader = build_train_loader(
            train_data, sampler, collator, num_used, num_batches - num_used, num_workers=num_workers
        )
        if num_workers > 0:
            loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
        return loader

    return make_loader


def _build_own(name: str, split: str, data: DataArguments, needs_captions: bool) -> RecordDataset:
    return build_dataset(
        name,
        split,
        audio_column=data.audio_column,
        caption_column=data.caption_column,
        on_bad_example=data.on_bad_example,
        needs_captions=needs_captions,
    )


def _waveforms(dataset: RecordDataset, sampling_rate: int, max_seconds: float) -> Iterator[np.ndarray]:
    """(S,) waveforms of the readable clips, evenly spread over the data set."""
    num_clips = min(len(dataset), MAX_MEASURED_CLIPS)
    for number in range(num_clips):
        try:
            yield record_waveform(dataset[number * len(dataset) // num_clips], sampling_rate, 0.0, max_seconds)
        except AudioError:
            continue  # reported when it is drawn for a batch


__all__ = [
    "MAX_MEASURED_CLIPS",
    "SCENES",
    "build_datasets",
    "build_feature_extractor",
    "build_model",
    "build_processor",
    "build_scenes",
    "check_final_test",
    "fit_vocabulary",
    "loader_maker",
    "make_loaders",
    "measure_missing_statistics",
    "plan_batches",
    "scene_options",
]

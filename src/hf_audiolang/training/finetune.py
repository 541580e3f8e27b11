# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Fine-tuning from settings to a shareable classifier: of clips, with one label or several, or of frames.

FinetuneConfig -> labelled data -> encoder and head -> train -> test -> runs/x/{model, adapter, metrics.json, figures}
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_audiolang.data.balanced import WeightedEpochSampler, sample_weights
from hf_audiolang.data.collate_labels import Augmentation, LabelCollator, TargetKind
from hf_audiolang.data.label_plans import place_and_plan
from hf_audiolang.data.labels import LabelledData, load_labelled
from hf_audiolang.data.records import RecordDataset
from hf_audiolang.data.sampling import EpochSampler
from hf_audiolang.evaluation import heads
from hf_audiolang.evaluation.clip_cuts import UnitLength
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.report import collect, write_report
from hf_audiolang.evaluation.results import TaskResult
from hf_audiolang.model_card import public_data_name

from .adapters import add_lora
from .build import make_loaders, measure_missing_statistics, plan_batches
from .checkpoint import Progress, checkpoint_path, load_checkpoint
from .config import SCENES
from .devices import build_accelerator
from .finetune_config import FinetuneConfig
from .finetune_finish import describe_classifier, export_classifier, write_losses
from .finetune_model import build_classifier, build_extractor
from .finish import write_bad_examples
from .loop import checkpoint_folder, train
from .run import describe, refuse_changes, refuse_overwriting, remove_old_run, save_start

logger = logging.get_logger(__name__)

KINDS: dict[str, TargetKind] = {"classification": "single", "tagging": "multi", "frames": "frames"}


@dataclass(frozen=True)
class FinetuneResult:
    """What a run leaves behind.

    Attributes:
        output_dir: its folder.
        progress: steps, times, best validation value.
        report: metric name -> value with `chance` and `records`; empty on other processes than the main one and after
            a signal.
        classes: names in the order of the logits.
        signal_number: the signal that ended training early, or None.
    """

    output_dir: Path
    progress: Progress
    report: dict[str, object] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    signal_number: int | None = None


def finetune(config: FinetuneConfig) -> FinetuneResult:
    """Trains, tests and exports as the settings say; `resume` takes up an interrupted run, exactly.

    Raises:
        FileExistsError: if the folder holds a run and neither `resume` nor `overwrite` is set.
        FileNotFoundError, OSError, ValueError: for data and models that cannot be used, and for a `resume` with other
            settings, before training.
        FloatingPointError: at a loss that is not finite; the last checkpoint is from before it.
    """
    accelerator = build_accelerator(config.train)
    refuse_overwriting(config)
    extractor = build_extractor(config.model)
    data = load_data(config, extractor.sampling_rate)
    sampler, num_steps = plan_batches(config, data.train, accelerator, _sampler_of(config, data.train))
    refuse_changes(config)
    measure_missing_statistics(extractor, data.train, config.data.max_seconds)
    torch.manual_seed(config.train.seed)
    model = build_classifier(config.model, data.classes, data.fold)
    if config.lora.lora:
        model = add_lora(model, config.lora)
    collator = _collator(config, extractor, data.classes)
    reading = AudioOptions(on_bad_example=config.data.on_bad_example)
    cut = UnitLength(config.data.max_seconds) if config.data.pad_clips else None  # tested as trained

    def measure(classifier: nn.Module, clips: RecordDataset) -> TaskResult:
        return heads.evaluate(classifier, extractor, clips, options=reading, cut=cut)

    evaluate_model = _validation(config, data, measure)
    remove_old_run(config, accelerator)  # not before everything else has been checked
    describe(model, data.train, num_steps)
    save_start(config, accelerator)

    torch.manual_seed(config.train.seed + 1000 * accelerator.process_index)  # patchout and dropout differ by process
    result = train(
        model,
        make_loaders(config, collator, data.train, sampler, num_steps),
        config,
        accelerator,
        num_steps=num_steps,
        batches_per_epoch=sampler.steps_per_epoch,
        evaluate_model=evaluate_model,
    )
    run = FinetuneResult(Path(config.train.output_dir), result.progress, {}, data.classes, result.signal_number)
    if accelerator.is_main_process:
        write_bad_examples(run.output_dir, [*getattr(data.train, "skipped", ()), *result.progress.bad_examples])
    if result.signal_number is None:
        if config.eval.export == "best" and result.progress.best_step not in (None, result.progress.step):
            load_checkpoint(accelerator, checkpoint_path(checkpoint_folder(config), result.progress.best_step))
        run = _finish(run, config, accelerator, accelerator.unwrap_model(model), extractor, data, measure)
    accelerator.end_training()
    return run


def load_data(config: FinetuneConfig, sampling_rate: int) -> LabelledData:
    """Training, validation and test clips with their classes.

    Raises:
        FileNotFoundError, OSError: if there is no such data.
        ValueError: if labels, splits or folds do not fit; names them.
    """
    data, task = config.data, config.model.task
    place, plan = place_and_plan(data.data, data.data_folder)
    scenes = {}
    if data.data == SCENES:
        scenes = {"train_size": data.train_size, "test_size": data.test_size, "sampling_rate": sampling_rate}
    loaded = load_labelled(
        place,
        plan=plan,
        task=task,
        fold=data.fold,
        audio_column=data.audio_column,
        label_column=data.label_column,
        split_column=data.split_column,
        fold_column=data.fold_column,
        on_bad_example=data.on_bad_example,
        **scenes,
    )
    for note in loaded.notes:
        logger.info(note)
    loaded.train_and_test()  # neither is missing
    for part, clips in loaded.parts.items():
        if part != "validation" or config.eval.eval_steps:
            heads.check_clips(clips, f"{loaded.name}, {part}", loaded.classes, of_frames=task == "frames")
    return loaded


def _sampler_of(config: FinetuneConfig, train_data: RecordDataset) -> Callable[..., EpochSampler]:
    data = config.data
    if data.balanced_sampling == "none":
        return EpochSampler
    weights = sample_weights(train_data.labels, data.balanced_sampling)
    return lambda num_clips, *rest: WeightedEpochSampler(weights, data.samples_per_epoch, *rest)


def _collator(config: FinetuneConfig, extractor: FeatureExtractionMixin, classes: list[str]) -> LabelCollator:
    data = config.data
    names = Augmentation.__dataclass_fields__
    return LabelCollator(
        extractor,
        classes,
        KINDS[config.model.task],
        max_seconds=data.max_seconds,
        pads=data.pad_clips,
        augmentation=Augmentation(**{name: getattr(data, name) for name in names}),
        on_bad_example=data.on_bad_example,
        seed=config.train.seed,
    )


def _validation(
    config: FinetuneConfig, data: LabelledData, measure: Callable[[nn.Module, RecordDataset], TaskResult]
) -> Callable[[nn.Module], dict[str, float]] | None:
    if config.eval.eval_steps == 0:
        return None
    if data.validation is None:
        raise ValueError(
            f"`eval_steps` is {config.eval.eval_steps}, but {data.name} has no validation clips. Set it to 0, or add "
            "a validation split."
        )
    return lambda model: measure(model, data.validation)


def _finish(
    run: FinetuneResult,
    config: FinetuneConfig,
    accelerator: Accelerator,
    model: PreTrainedModel,
    extractor: FeatureExtractionMixin,
    data: LabelledData,
    measure: Callable[[nn.Module, RecordDataset], TaskResult],
) -> FinetuneResult:
    """Export and test, on the main process; the others wait."""
    if accelerator.is_main_process:
        classifier = export_classifier(config, model.eval(), extractor)
        tested = measure(classifier, data.test).labelled(public_data_name(data.name), **data.fold_record())
        report = collect([tested])
        write_report(report, run.output_dir)
        describe_classifier(config, classifier, extractor, report, run.progress)
        write_losses(run.output_dir)
        run = replace(run, report=report)
    accelerator.wait_for_everyone()
    return run


__all__ = ["FinetuneResult", "finetune", "load_data"]

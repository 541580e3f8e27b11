# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Pre-training from settings to a shareable model: the whole of training_scripts/pretrain.py as one call.

RunConfig -> data -> processor -> model -> train -> evaluate -> runs/x/{model, metrics.json, figures, examples}, and
adapter where adapters were trained
"""

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from torch import nn
from transformers import AutoFeatureExtractor, AutoProcessor, PreTrainedModel
from transformers.utils import logging

from hf_audiolang.data.records import RecordDataset
from hf_audiolang.evaluation import retrieval
from hf_audiolang.evaluation.capabilities import AudioProcessor, why_no_text
from hf_audiolang.evaluation.embed import AudioOptions

from .build import (
    build_datasets,
    build_feature_extractor,
    build_model,
    build_processor,
    check_final_test,
    loader_maker,
    plan_batches,
)
from .captions import open_text_store, ready_text_store, training_captions
from .checkpoint import Progress, checkpoint_path, find_last_checkpoint, load_checkpoint
from .config import RunConfig
from .devices import build_accelerator
from .finish import (
    describe_model,
    evaluate_run,
    export_adapter,
    export_captioner,
    export_model,
    labels_of,
    readable_clips,
    write_bad_examples,
    write_examples,
    write_figures,
)
from .log import LOG_FILE
from .loop import checkpoint_folder, train
from .outline import exported_model, outline_model
from .settings import RunSettings

logger = logging.get_logger(__name__)

# Keys that may change between a run and its continuation without changing a single number of it.
FREE_KEYS = {
    "resume",
    "overwrite",
    "output_dir",
    "num_workers",
    "num_threads",
    "log_steps",
    "save_steps",
    "keep_checkpoints",
    "tensorboard",
}
# What a finished run has in its folder beside the log and the checkpoints.
RESULTS = (
    "processor", "model", "adapter", "captioner", "examples", "figures", "bad_examples.txt", "metrics.json",
    "metrics.md",
)  # fmt: skip


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind.

    Attributes:
        output_dir: its folder.
        progress: steps, times, best validation value.
        report: metric name -> value with `chance`, `ceiling` and `records` (see `evaluation.report`); empty on other
            processes than the main one and after a signal.
        examples: sound files of held-out clips, to try the model on.
        labels: words for what is heard in the first of them, each from another file.
        embeds_text: the exported model can be asked with words.
        writes_captions: there is a captioner beside it.
        signal_number: the signal that ended training early, or None.
    """

    output_dir: Path
    progress: Progress
    report: dict[str, object] = field(default_factory=dict)
    examples: list[Path] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    embeds_text: bool = True
    writes_captions: bool = False
    signal_number: int | None = None


def pretrain(config: RunConfig) -> RunResult:
    """Trains, evaluates and exports as the settings say; `resume` takes up an interrupted run, exactly.

    Raises:
        FileExistsError: if the folder holds a run and neither `resume` nor `overwrite` is set.
        FileNotFoundError, OSError, ValueError: for data, models and tokenizers that cannot be used, and for a `resume`
            with other settings, before training.
        FloatingPointError: at a loss that is not finite; the last checkpoint is from before it.
    """
    accelerator = build_accelerator(config.train)
    refuse_overwriting(config)
    feature_extractor = build_feature_extractor(config.model)
    outline = outline_model(config)
    text_store = open_text_store(config, outline)
    check_final_test(config, feature_extractor.sampling_rate)
    train_data, held_out = build_datasets(config, feature_extractor.sampling_rate, outline.needs_captions)
    _check_held_out(held_out, feature_extractor.sampling_rate)
    if text_store is not None:
        text_store.check_covers(training_captions(train_data))
    sampler, num_steps = plan_batches(config, train_data, accelerator)
    refuse_changes(config)
    remove_old_run(config, accelerator)  # not before everything else has been checked
    processor = _shared_processor(
        config,
        accelerator,
        lambda: build_processor(config, feature_extractor, train_data, outline),
        outline.needs_tokenizer,
    )
    model = build_model(config, getattr(processor, "tokenizer", None))
    text_store = ready_text_store(config, text_store, model, processor, train_data, accelerator)
    describe(model, train_data, num_steps)
    save_start(config, accelerator)

    torch.manual_seed(config.train.seed + 1000 * accelerator.process_index)  # masks and dropout differ by process
    text = {"text_store": text_store, "needs_captions": outline.needs_captions}
    text["cleans_captions"] = outline.cleans_captions
    result = train(
        model,
        loader_maker(config, processor, train_data, sampler, num_steps, **text),
        config,
        accelerator,
        num_steps=num_steps,
        batches_per_epoch=sampler.steps_per_epoch,
        evaluate_model=_validation(config, processor, held_out),
    )
    run = RunResult(Path(config.train.output_dir), result.progress, signal_number=result.signal_number)
    if accelerator.is_main_process:
        write_bad_examples(run.output_dir, [*getattr(train_data, "skipped", ()), *result.progress.bad_examples])
    if result.signal_number is None:
        if config.eval.export == "best" and result.progress.best_step not in (None, result.progress.step):
            load_checkpoint(accelerator, checkpoint_path(checkpoint_folder(config), result.progress.best_step))
        run = _finish(run, config, accelerator, accelerator.unwrap_model(model), processor, held_out)
    accelerator.end_training()
    return run


def refuse_overwriting(config: RunSettings) -> None:
    """Makes sure that no run is overwritten by accident.

    Raises:
        FileExistsError: if the folder holds a run and neither `resume` nor `overwrite` is set.
    """
    if _has_run(config) and not config.train.resume and not config.train.overwrite:
        raise FileExistsError(
            f"`output_dir` {config.train.output_dir!r} already holds a run. Add --resume to continue it, --overwrite "
            "to delete it and start again, or choose another --output_dir."
        )


def remove_old_run(config: RunSettings, accelerator: Accelerator) -> None:
    """With `overwrite`, removes what the old run in the folder left, so that it is not mixed with the new one."""
    is_doomed = config.train.overwrite and _has_run(config)
    accelerator.wait_for_everyone()
    if is_doomed and accelerator.is_main_process:
        folder = Path(config.train.output_dir)
        for path in [checkpoint_folder(config), *(folder / name for name in (*RESULTS, LOG_FILE))]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    accelerator.wait_for_everyone()


def _has_run(config: RunSettings) -> bool:
    is_logged = (Path(config.train.output_dir) / LOG_FILE).is_file()
    return is_logged or find_last_checkpoint(checkpoint_folder(config)) is not None


def environment(accelerator: Accelerator) -> dict[str, object]:
    """Versions and hardware that a result depends on."""
    packages = ("hf-audiolang", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy")
    return {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        "num_processes": accelerator.num_processes,
        "num_threads": torch.get_num_threads(),
        "precision": "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision,
    }


def changed_settings(config: RunSettings, path: Path) -> list[str]:
    """`key: old -> new` for each setting, apart from `FREE_KEYS`, that differs from those of a run.yaml."""
    # a key that is newer than the run had its default
    old = config.schema.defaults() | yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        f"{name}: {old[name]} -> {value}"
        for name, value in config.to_dict().items()
        if name not in FREE_KEYS and old[name] != value
    ]


def refuse_changes(config: RunSettings) -> None:
    """Makes sure that a continued run has the settings it began with, apart from `FREE_KEYS`.

    Raises:
        ValueError: if it has not; names each key with its old and new value.
    """
    checkpoint = _continued_checkpoint(config)
    if checkpoint is None or not (checkpoint / "run.yaml").is_file():
        return
    changed = changed_settings(config, checkpoint / "run.yaml")
    if changed:
        raise ValueError(
            f"`resume` with other settings than the run in {config.train.output_dir!r} began with "
            f"({'; '.join(changed)}). Set them back, or start again with --overwrite or another --output_dir."
        )


def _check_held_out(held_out: RecordDataset | None, sampling_rate: int) -> None:
    if held_out is not None and not readable_clips(held_out, 1, sampling_rate):
        raise ValueError(
            f"`eval_data`: none of the {len(held_out)} held-out clips can be used, so the model could not be tested. "
            "Repair the files (a warning above names each), or give others as --eval_data."
        )


def _continued_checkpoint(config: RunSettings) -> Path | None:
    return find_last_checkpoint(checkpoint_folder(config)) if config.train.resume else None


def _shared_processor(
    config: RunConfig, accelerator: Accelerator, build: Callable[[], AudioProcessor], has_tokenizer: bool
) -> AudioProcessor:
    """The processor in the run's folder, which the main process builds unless a checkpoint is continued.

    One vocabulary and one pair of statistics for all processes, and for all of the run.
    """
    folder = Path(config.train.output_dir) / "processor"
    is_kept = _continued_checkpoint(config) is not None and folder.is_dir()
    if accelerator.is_main_process and not is_kept:
        unfinished = folder.with_name("processor.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        build().save_pretrained(unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    accelerator.wait_for_everyone()
    return (AutoProcessor if has_tokenizer else AutoFeatureExtractor).from_pretrained(folder)


def save_start(config: RunSettings, accelerator: Accelerator) -> None:
    """Settings and environment into the run's folder, before the first step."""
    if accelerator.is_main_process:
        folder = Path(config.train.output_dir)
        config.save(folder / "run.yaml")
        facts = json.dumps(environment(accelerator), indent=1)
        (folder / "environment.json").write_text(facts + "\n", encoding="utf-8")
    accelerator.wait_for_everyone()


def _validation(
    config: RunConfig, processor: AudioProcessor, held_out: RecordDataset | None
) -> Callable[[nn.Module], dict[str, float]] | None:
    """What the loop calls every `eval_steps`: retrieval on (some of) the held-out data."""
    if config.eval.eval_steps == 0 or held_out is None:
        return None
    clips = [held_out[index] for index in range(min(config.eval.eval_size, len(held_out)))]
    options = AudioOptions(on_bad_example=config.data.on_bad_example)
    return lambda model: retrieval.evaluate(exported_model(model), processor, clips, options=options)


def describe(model: PreTrainedModel, train_data: RecordDataset, num_steps: int) -> None:
    """Logs what a person would ask afterwards."""
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    frozen = sum(value.numel() for value in model.parameters() if not value.requires_grad)
    logger.info(
        f"{type(model).__name__}: {trained / 1e6:.2f} M trained and {frozen / 1e6:.2f} M frozen parameters; "
        f"{len(train_data)} training clips; {num_steps} steps."
    )


def _finish(
    run: RunResult,
    config: RunConfig,
    accelerator: Accelerator,
    model: nn.Module,
    processor: AudioProcessor,
    held_out: RecordDataset | None,
) -> RunResult:
    """Evaluation, export, figures and examples, on the main process; the others wait."""
    if accelerator.is_main_process:
        system = exported_model(model).eval()
        export_adapter(config, system, processor)
        export_model(config, system, processor)  # first: nothing that follows can take it away
        captioner = export_captioner(config, model.eval(), processor)
        report, clips = evaluate_run(config, system, processor, held_out, captioner)
        describe_model(config, system, processor, report, run.progress, captioner)
        write_figures(config, system, processor, clips)
        examples, embeds_text = write_examples(clips, run.output_dir), why_no_text(system, processor) is None
        found = {"report": report, "examples": examples, "labels": labels_of(clips), "embeds_text": embeds_text}
        run = replace(run, **found, writes_captions=captioner is not None)
    accelerator.wait_for_everyone()
    return run


__all__ = [
    "FREE_KEYS",
    "RESULTS",
    "RunResult",
    "changed_settings",
    "describe",
    "environment",
    "pretrain",
    "refuse_changes",
    "refuse_overwriting",
    "remove_old_run",
    "save_start",
]

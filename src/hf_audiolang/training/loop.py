# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The only training loop: any model whose forward returns `loss` and, if it has several, `loss_terms`.

    for every optimizer step
        forward_backward   `gradient_accumulation_steps` batches -> gradients
        optimizer_step     clip, optimizer, learning rate; after_optimizer_step() and update_teacher(decay)
        log                every log_steps: train_log.jsonl, progress bar; stops on a non-finite loss
        evaluate           every eval_steps: validation values, which checkpoint is the best
        save               every save_steps, at the best value, at the end, on SIGTERM and Ctrl-C (which leave a due
                           evaluation out), and before an error of the data ends the run

Optional methods of the model: `set_progress(step, num_steps)` before a step, of its parts, too, such as an encoder;
`after_optimizer_step()` and `update_teacher(decay)` after it. Optional property: `exported_model`, what is left of it
after training, all of which then has a gradient.
"""

import gc
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from transformers.utils import logging

from .checkpoint import (
    Progress,
    checkpoint_path,
    find_last_checkpoint,
    load_checkpoint,
    read_progress,
    save_checkpoint,
)
from .config import RunConfig
from .interrupt import StopRequest, garbage_collection_paused
from .log import TrainLog
from .objectives import has_unused_parameters, read_terms
from .optim import build_optimizer
from .schedule import build_lr_schedule, ema_decay, restore_schedule, schedule_state

logger = logging.get_logger(__name__)

_GARBAGE_STEPS = 100  # steps between two runs of Python's cyclic collector


@dataclass
class TrainState:
    """What the steps work with and change."""

    config: RunConfig
    accelerator: Accelerator
    model: nn.Module  # as prepared by accelerate: wrapped when there are several processes
    bare_model: nn.Module  # the same without wrapper
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    log: TrainLog
    progress: Progress
    num_steps: int


@dataclass(frozen=True)
class TrainResult:
    """How training ended.

    Attributes:
        progress: steps, times, best validation value.
        signal_number: the signal that ended it early, or None when all steps are done.
    """

    progress: Progress
    signal_number: int | None


def train(
    model: nn.Module,
    make_loader: Callable[[int], Iterable[dict]],
    config: RunConfig,
    accelerator: Accelerator,
    *,
    num_steps: int,
    batches_per_epoch: int | None = None,
    evaluate_model: Callable[[nn.Module], dict[str, float]] | None = None,
) -> TrainResult:
    """Trains `model` for `num_steps` optimizer steps; with `resume`, from the last checkpoint, exactly.

    Args:
        make_loader: called with the number of batches already used; gives this process's further batches, each a
            dictionary of forward's tensors plus `audio_seconds` (a number) and, optionally, `skipped` (messages).
        batches_per_epoch: of this process, for the learning-rate schedules that count epochs.
        evaluate_model: validation, metric name -> value; called with the bare model on the main process only.

    Raises:
        FloatingPointError: at a loss or gradient that is not finite; the last checkpoint is from before it.
        OSError, RuntimeError, ValueError: as reading the data says; one process saves the steps done before it ends,
            several fall back to their last checkpoint, for they cannot agree on one when some of them wait.
        ValueError: if `best_metric` is not among the validation's metrics.
    """
    state, batches = _start(model, make_loader, config, accelerator, num_steps, batches_per_epoch)
    signal_number = None
    with StopRequest(accelerator) as stop, garbage_collection_paused(), state.log.bar:
        for step in range(state.progress.step, num_steps):
            terms, notes = forward_backward(state, next_batches(state, batches), step)
            optimizer_step(state, terms, notes, step)
            state.progress.step = step + 1
            signal_number = stop.requested()
            is_end = signal_number is not None or step + 1 == num_steps
            if is_end or _is_due(step + 1, config.train.log_steps):
                state.log.flush()
            is_evaluated = evaluate_model is not None and _is_due(step + 1, config.eval.eval_steps)
            # After a signal there may be seconds left before the process is killed: they belong to the checkpoint.
            is_best = is_evaluated and signal_number is None and evaluate(state, evaluate_model)
            if is_end or is_best or _is_due(step + 1, config.train.save_steps):
                save(state)
            if signal_number is not None:
                break
            if _is_due(step + 1, _GARBAGE_STEPS):
                gc.collect()
    if signal_number is not None:
        logger.warning(
            f"Stopped by {signal.Signals(signal_number).name} after step {state.progress.step} of {num_steps}; all of "
            "it is saved. Run the same command with --resume to continue."
        )
    return TrainResult(state.progress, signal_number)


def next_batches(state: TrainState, batches: Iterator[dict]) -> list[dict]:
    """The batches of one optimizer step, all of them before the first is used; saves the steps done if there are none.

    Raises:
        OSError, RuntimeError, ValueError: as reading the data says.
    """
    try:
        return [next(batches) for _ in range(state.config.train.gradient_accumulation_steps)]
    except (OSError, RuntimeError, ValueError):
        step = state.progress.step
        is_saved = step == 0 or checkpoint_path(checkpoint_folder(state.config), step).is_dir()
        if state.accelerator.num_processes == 1 and not is_saved:
            save(state)
            logger.warning(f"The data end the run after step {step}; all steps are saved. Use --resume to continue.")
        raise


def forward_backward(state: TrainState, batches: list[dict], step: int) -> tuple[dict[str, Tensor], dict]:
    """Gradients of one optimizer step; returns its mean loss terms (on the device) and what is known on the host."""
    for module in state.bare_model.modules():
        if hasattr(module, "set_progress"):
            module.set_progress(step, state.num_steps)
    terms: dict[str, Tensor] = {}
    notes = {"step": step + 1, "audio_seconds": 0.0}
    for batch in batches:
        notes["audio_seconds"] += batch["audio_seconds"]
        state.progress.note_bad_examples(batch.get("skipped", []))
        inputs = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        inputs = {name: value.to(state.accelerator.device, non_blocking=True) for name, value in inputs.items()}
        with state.accelerator.accumulate(state.model):
            outputs = state.model(**inputs, return_loss=True)
            state.accelerator.backward(outputs.loss)
        state.log.shown = ["loss", *(getattr(outputs, "loss_terms", None) or {})]
        for name, value in read_terms(outputs).items():
            terms[name] = terms.get(name, 0.0) + value / len(batches)
    return terms, notes


def optimizer_step(state: TrainState, terms: dict[str, Tensor], notes: dict[str, float], step: int) -> None:
    """One update of the weights and of the teacher; the step's values go to the log."""
    settings = state.config.train
    max_norm = settings.max_grad_norm or math.inf
    terms["grad_norm"] = state.accelerator.clip_grad_norm_(state.model.parameters(), max_norm)
    notes["learning_rate"] = state.schedule.get_last_lr()[0]
    state.optimizer.step()
    state.schedule.step()
    state.optimizer.zero_grad(set_to_none=True)
    if hasattr(state.bare_model, "after_optimizer_step"):
        state.bare_model.after_optimizer_step()
    if hasattr(state.bare_model, "update_teacher"):
        notes["ema_decay"] = ema_decay(step, state.num_steps, *settings.ema_decay, settings.ema_schedule)
        state.bare_model.update_teacher(notes["ema_decay"])
    state.log.add(terms, notes)


def evaluate(state: TrainState, evaluate_model: Callable[[nn.Module], dict[str, float]]) -> bool:
    """Validation values into the log; True (in all processes) if `best_metric` is the highest so far."""
    state.log.flush()
    values: list[dict[str, float] | None] = [None]
    if state.accelerator.is_main_process:
        state.bare_model.eval()
        with torch.no_grad():
            values = [dict(evaluate_model(state.bare_model))]
        state.bare_model.train()
    metrics = broadcast_object_list(values)[0]
    name = state.config.eval.best_metric
    if name not in metrics:
        raise ValueError(f"Unknown `best_metric` {name!r}. Choose one of {sorted(metrics)}.")
    state.log.measure_time()
    state.log.write_metrics({f"validation/{key}": value for key, value in metrics.items()})
    is_best = state.progress.best_value is None or metrics[name] > state.progress.best_value
    if is_best:
        state.progress.best_value, state.progress.best_step = metrics[name], state.progress.step
    return is_best


def save(state: TrainState) -> None:
    """A complete checkpoint of this step. The log is flushed first, so non-finite weights are never written."""
    state.log.flush()
    state.progress.schedule = schedule_state(state.schedule)
    state.progress.bad_examples = sorted(set(gather_object(state.progress.bad_examples)))
    keeps_all = state.config.train.keep_checkpoints == "all"
    save_checkpoint(state.accelerator, checkpoint_folder(state.config), state.progress, keeps_all=keeps_all)
    state.log.measure_time()


def checkpoint_folder(config: RunConfig) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(config.train.output_dir) / "checkpoints"


def _start(
    model: nn.Module,
    make_loader: Callable[[int], Iterable[dict]],
    config: RunConfig,
    accelerator: Accelerator,
    num_steps: int,
    batches_per_epoch: int | None,
) -> tuple[TrainState, Iterator[dict]]:
    """The state at the first step or at the last checkpoint, and the batches from there."""
    settings = config.train
    # DDP has to look for parameters without gradient where there may be some, and only there: that costs time.
    accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=has_unused_parameters(model))
    model.to(accelerator.device).train()
    optimizer = build_optimizer(model, settings)
    schedule = build_lr_schedule(optimizer, settings, num_steps=num_steps, batches_per_epoch=batches_per_epoch)
    # The schedule is neither prepared nor registered: accelerate would step it once per process, and unpickle it.
    prepared_model, optimizer = accelerator.prepare(model, optimizer)
    checkpoint = find_last_checkpoint(checkpoint_folder(config)) if settings.resume else None
    progress = read_progress(checkpoint) if checkpoint else Progress(num_processes=accelerator.num_processes)
    # Before the random states are restored, in case making a loader draws a number. What runs later, at the first
    # batch (workers start, generators), must leave the global random states alone.
    batches = iter(make_loader(progress.step * settings.gradient_accumulation_steps))
    if checkpoint:
        progress = load_checkpoint(accelerator, checkpoint)
        restore_schedule(schedule, progress.schedule)
        logger.info(f"Continuing after step {progress.step} of {num_steps}, from {checkpoint}.")
    if settings.gradient_accumulation_steps > 1:
        logger.info(
            f"Gradients of {settings.gradient_accumulation_steps} batches are averaged per step. This does not add "
            f"negatives: a clip is still compared with its own batch of {settings.batch_size} per process only."
        )
    bare_model = accelerator.unwrap_model(prepared_model)
    log = TrainLog(accelerator, Path(settings.output_dir), progress, num_steps)
    state = TrainState(config, accelerator, prepared_model, bare_model, optimizer, schedule, log, progress, num_steps)
    return state, batches


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


__all__ = [
    "TrainResult",
    "TrainState",
    "checkpoint_folder",
    "evaluate",
    "forward_backward",
    "next_batches",
    "optimizer_step",
    "save",
    "train",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Where and how a run computes: processes, precision, threads, seed."""

import os
from datetime import timedelta
from importlib.util import find_spec

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, set_seed
from transformers.utils import logging

from .config import OptimizationArguments

logger = logging.get_logger(__name__)


def build_accelerator(settings: OptimizationArguments) -> Accelerator:
    """Devices, precision, accumulation and trackers of the run; sets threads and the seed.

    Raises:
        ImportError: if TensorBoard is asked for and not installed.
    """
    if settings.tensorboard and find_spec("tensorboard") is None:
        raise ImportError("`tensorboard` is true but not installed. Run `pip install hf-audiolang[tensorboard]`.")
    # Validation runs on the main process, for which the others wait longer than the usual ten minutes.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=3))
    # Without saying so, several processes on a machine without GPU would each take themselves for the only one.
    is_cpu_only = not torch.accelerator.is_available()
    device = PartialState(cpu=is_cpu_only, timeout=patience.timeout).device
    accelerator = Accelerator(
        cpu=is_cpu_only,
        mixed_precision=choose_precision(settings.precision, device),
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        log_with="tensorboard" if settings.tensorboard else None,
        project_dir=settings.output_dir,
        kwargs_handlers=[patience],
    )
    set_threads(settings.num_threads, accelerator)
    set_seed(settings.seed)
    if settings.tensorboard:
        accelerator.init_trackers("tensorboard")
    return accelerator


def choose_precision(precision: str, device: torch.device) -> str:
    """Accelerate's name for the arithmetic: "bf16" (autocast, weights stay float32) or "no".

    "auto" takes bf16 where it is faster: on GPUs that have it and on CPUs with bf16 instructions (a step of the small
    SLAP: 1.25 times with AVX512_BF16, more with AMX); other CPUs emulate it. A launcher's `--mixed_precision bf16`
    counts as a wish for it.
    """
    if precision != "auto":
        return "bf16" if precision == "bf16" else "no"
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16":
        return "bf16"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    tell_capabilities = getattr(torch.cpu, "get_capabilities", dict)  # older torch does not tell
    capabilities = tell_capabilities() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "no"


def set_threads(num_threads: int | None, accelerator: Accelerator) -> None:
    """Sets torch's CPU threads: the number asked for, or this process's share of the cores under a launcher.

    `accelerate launch` sets OMP_NUM_THREADS=1 when it finds no GPU, which would leave all cores but one idle.
    """
    is_forced = "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
    if num_threads is None and is_forced and accelerator.device.type == "cpu":
        num_local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        num_threads = max(1, num_available_cores() // num_local)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    precision = "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    logger.info(
        f"{accelerator.num_processes} process(es) on {accelerator.device.type} in {precision}, each with "
        f"{torch.get_num_threads()} CPU thread(s)."
    )


def num_available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["build_accelerator", "choose_precision", "num_available_cores", "set_threads"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writes timm_outputs.json: what timm's LARS and cosine schedule do on the problem below.

    python tests/training/record_timm.py FOLDER

FOLDER holds the unpacked wheel of https://pypi.org/project/timm (recorded with 1.0.31). Only its files for LARS and
the cosine schedule are read; torchvision and the rest of what timm imports are not needed.
"""

import importlib
import json
import sys
import types
from pathlib import Path

import torch

OUTPUT = Path(__file__).with_name("timm_outputs.json")
SHOWN_STEPS = (1, 2, 3, 20)  # steps done
SHAPES = {"matrix": (3, 2), "vector": (5,), "scalar": ()}
SIZES = {"matrix": 0.7, "vector": 2.0, "scalar": 0.3}
# name -> (weight decay, always_adapt), each in a group of its own rate
FORMS = {"decayed": (0.05, False), "plain": (0.0, False), "adapted": (0.0, True)}
RATES = {"decayed": 2.0, "plain": 0.1, "adapted": 5.0}
# (peak, epochs, epochs of warm-up) of M2D-CLAP's Table IV: AS2M, AS20K and VC1
SCHEDULES = {"as2m": (2.0, 70, 15), "as20k": (0.5, 200, 5), "vc1": (5e-4, 50, 5)}
STEPS_PER_EPOCH = 13
LOWEST_RATE = 1e-7


def start_values() -> list[torch.nn.Parameter]:
    """The parameters of a group, made by a formula, and one that is zero."""
    values = [wave(shape, number + 1.0) * SIZES[name] for number, (name, shape) in enumerate(SHAPES.items())]
    return [torch.nn.Parameter(value) for value in (*values, torch.zeros(4, dtype=torch.float64))]


def put_gradients(parameters: list[torch.nn.Parameter], step: int) -> None:
    """A pull to a target and noise that changes with the step; the second gradient is 0 at the first step."""
    for number, parameter in enumerate(parameters):
        target, noise = wave(parameter.shape, 5.0 - number), wave(parameter.shape, 3.7 * number + 1.3 * step)
        parameter.grad = 0.4 * (parameter.detach() - target) + 0.5 * noise
        if number == 1 and step == 0:
            parameter.grad = torch.zeros_like(parameter)


def wave(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """Numbers from -1 to 1 that no two entries share."""
    count = torch.Size(shape).numel()
    return torch.sin(phase + 1.9 * torch.arange(count, dtype=torch.float64)).reshape(shape)


def steps_of_schedule(epochs: int) -> list[int]:
    """Steps of a run, warm-up, its end and the end of the run among them."""
    return [0, 1, 7, 5 * STEPS_PER_EPOCH - 1, 5 * STEPS_PER_EPOCH, 15 * STEPS_PER_EPOCH - 1, 15 * STEPS_PER_EPOCH,
            20 * STEPS_PER_EPOCH + 3, epochs * STEPS_PER_EPOCH - 1]  # fmt: skip


def main(folder: str) -> None:
    for name in ("timm", "timm.optim", "timm.scheduler"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(folder, *name.split(".")))]
        sys.modules[name] = package
    lars = importlib.import_module("timm.optim.lars").Lars
    cosine = importlib.import_module("timm.scheduler.cosine_lr").CosineLRScheduler
    recorded = {"lars": {name: record_lars(lars, name) for name in FORMS}}
    recorded["cosine"] = {name: record_schedule(cosine, *numbers) for name, numbers in SCHEDULES.items()}
    OUTPUT.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


def record_lars(build, name: str) -> dict[int, list[float]]:
    """Steps done -> all values of all parameters."""
    decay, always = FORMS[name]
    parameters = start_values()
    optimizer = build(parameters, lr=RATES[name], momentum=0.9, weight_decay=decay, always_adapt=always)
    found = {}
    for step in range(max(SHOWN_STEPS)):
        put_gradients(parameters, step)
        optimizer.step()
        if step + 1 in SHOWN_STEPS:
            found[step + 1] = [value for parameter in parameters for value in parameter.detach().flatten().tolist()]
    return found


def record_schedule(build, peak: float, epochs: int, warmup: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = build(optimizer, t_initial=epochs, lr_min=LOWEST_RATE, warmup_t=warmup, warmup_lr_init=0)
    rates = []
    for step in steps_of_schedule(epochs):
        schedule.step(step / STEPS_PER_EPOCH)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


if __name__ == "__main__":
    main(*sys.argv[1:])

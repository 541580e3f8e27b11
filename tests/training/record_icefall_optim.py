# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writes icefall_optim_outputs.json: what the authors' optimizer and schedules do on the problem below.

    python tests/training/record_icefall_optim.py ICEFALL_CHECKOUT AUDEN_CHECKOUT

Needs egs/librispeech/ASR/zipformer/optim.py of https://github.com/k2-fsa/icefall and src/auden/optim/scheduler.py of
https://github.com/AudenAI/Auden. Of lhotse, which the former imports, nothing is used. Its state is float32 whatever
the parameters are: for the numbers in double precision that name of torch means float64 while it runs.
"""

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch

OUTPUT = Path(__file__).with_name("icefall_optim_outputs.json")
NUM_STEPS = 240  # past 227, after which the mean square is no longer corrected
SHOWN_STEPS = (1, 4, 11, 24, 48, 102, 240)  # steps done
SPIKES = {15: 40.0, 22: 25.0, 47: 15.0, 101: 30.0, 217: 50.0}  # step -> factor on its gradients: these are clipped
# name -> (shape, root mean square at the start, size of the noise, constant pull)
SLOW = {
    "scalar": ((), 0.4, 0.3, 0.0),
    "scalar_at_its_limit": ((1,), 9.8, 0.1, -30.0),
    "vector": ((7,), 0.3, 0.5, 0.2),
    "vector_of_the_same_shape": ((7,), 1.1, 2.0, 0.0),
    "tiny_vector": ((5,), 3e-6, 1.0, 0.0),
    "matrix": ((5, 3), 0.2, 0.1, 0.0),
    "matrix_at_its_limit": ((5, 3), 2.9, 0.02, 0.0),
    "kernel": ((3, 1, 2), 0.05, 4.0, 0.0),
}
FAST = {"fast_matrix": ((2, 3), 0.7, 0.01, 0.0), "fast_scalar": ((1, 1), 0.2, 0.3, 0.5)}
GROUPS = ((SLOW, 0.045), (FAST, 0.6))  # (tensors, learning rate); the second one's sizes take the largest steps
EDEN = [(b, e) for b in (0, 1, 250, 499, 500, 501, 7500, 20000, 100000, 400000) for e in (0, 1, 3, 12)]
BATCHES = (0, 1, 3, 250, 499, 500, 7500, 20000, 35000, 100000, 400000)
EDEN_SETTINGS = {"lr_batches": 7500, "lr_epochs": 3.5}
STEPS_PER_EPOCH = 10000
BASE_RATE = 0.045


def start_values(dtype: torch.dtype) -> list[list[torch.nn.Parameter]]:
    """The parameters of both groups, made by a formula."""
    groups = []
    for tensors, _ in GROUPS:
        group = []
        for number, (shape, size, _, _) in enumerate(tensors.values()):
            values = wave(shape, number + 1.0)
            group.append(torch.nn.Parameter((values * size / values.square().mean().sqrt()).to(dtype)))
        groups.append(group)
    return groups


def put_gradients(groups: list[list[torch.nn.Parameter]], step: int) -> None:
    """A pull to a target, a constant and noise that changes with the step."""
    for (tensors, _), group in zip(GROUPS, groups, strict=True):
        for number, (parameter, settings) in enumerate(zip(group, tensors.values(), strict=True)):
            shape, size, noise, pull = settings
            target = 3 * size * wave(shape, 5.0 - number)
            moved = noise * wave(shape, 11.0 + 3.7 * number + 1.3 * step)
            gradient = 0.4 * (parameter.detach().double() - target) + moved + pull
            parameter.grad = (gradient * SPIKES.get(step, 1.0)).to(parameter.dtype)


def wave(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """Numbers from -1 to 1 that no two entries share."""
    count = torch.Size(shape).numel()
    return torch.sin(phase + 1.9 * torch.arange(count, dtype=torch.float64)).reshape(shape)


def trajectory(build: Callable[[list[dict]], torch.optim.Optimizer], dtype: torch.dtype) -> dict[int, list[float]]:
    """Steps done -> all values of all parameters, while the optimizer that `build` makes of groups runs."""
    groups = start_values(dtype)
    rates = [rate for _, rate in GROUPS]
    optimizer = build([{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=True)])
    found = {}
    for step in range(NUM_STEPS):
        put_gradients(groups, step)
        optimizer.step()
        if step + 1 in SHOWN_STEPS:
            found[step + 1] = [value for group in groups for p in group for value in p.detach().flatten().tolist()]
    return found


def main(icefall: str, auden: str) -> None:
    stub = types.ModuleType("lhotse.utils")
    stub.fix_random_seed = torch.manual_seed
    sys.modules |= {"lhotse": types.ModuleType("lhotse"), "lhotse.utils": stub}
    optim = load(Path(icefall) / "egs/librispeech/ASR/zipformer/optim.py")
    scheduler = load(Path(auden) / "src/auden/optim/scheduler.py")
    recorded = {"float32": record_optimizer(optim, torch.float32)}
    torch.set_default_dtype(torch.float64)
    torch.float = torch.float64
    recorded["float64"] = record_optimizer(optim, torch.float64)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE_RATE)
    recorded["eden"] = [rate_of(optim.Eden(optimizer, **EDEN_SETTINGS), batch, epoch) for batch, epoch in EDEN]
    lr_batches = EDEN_SETTINGS["lr_batches"]
    recorded["eden2"] = [rate_of(scheduler.Eden2(optimizer, lr_batches), batch) for batch in BATCHES]
    eden3 = {**EDEN_SETTINGS, "steps_per_epoch": STEPS_PER_EPOCH}
    recorded["eden3"] = [rate_of(scheduler.Eden3(optimizer, **eden3), batch) for batch in BATCHES]
    rows = [f'"{name}": {json.dumps(values)}' for name, values in recorded.items()]
    OUTPUT.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record_optimizer(optim: types.ModuleType, dtype: torch.dtype) -> dict[int, list[float]]:
    def build(groups: list[dict]) -> torch.optim.Optimizer:
        optimizer = optim.ScaledAdam(groups, clipping_scale=2.0)
        optimizer.show_dominant_parameters = False  # it has no names to show
        return optimizer

    return trajectory(build, dtype)


def rate_of(schedule, batch: int, epoch: int = 0) -> float:
    schedule.step_epoch(epoch)
    schedule.step_batch(batch)
    return schedule.get_last_lr()[0]


if __name__ == "__main__":
    main(*sys.argv[1:])

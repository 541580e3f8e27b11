# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The SLAP encoder on packed clips beside the same encoder on a padded batch: 16 clips of 1-30 s at base width.

Three layers are timed, one period of the sliding, sliding, full pattern. Memory is that of a process of its own, whose
allocator returns freed blocks at once, so that its reserves do not count.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..models.configuration_slap_audio import SlapAudioConfig
from ..models.modeling_slap_audio import SlapAudioModel
from .runner import Case, register_suite

NUM_CLIPS = 16
MODES = ("packed", "padded")


@register_suite("packing", rounds=3)
def packing(device: str = "cpu", is_tiny: bool = False) -> list[Case]:
    """Cases forward and forward + backward, float32; `work` counts seconds of real audio.

    Args:
        device: `"cpu"` or `"cuda"`.
        is_tiny: three clips of 1-3 s through a narrow encoder.
    """
    features, mask = _clips(device, is_tiny)
    packed, padded = (_encoder(mode, device, is_tiny) for mode in MODES)
    seconds = float(mask.sum()) / packed.config.feature_frame_rate_hz
    waste = {"padded frames per real frame": round(mask.numel() / float(mask.sum()), 3)}
    memory = {} if is_tiny or device != "cpu" else _peak_memory()
    return [
        Case(
            "padded batch, forward",
            work=seconds,
            unit="audio-s",
            ours=lambda: _forward(packed, features, mask),
            peer=lambda: _forward(padded, features, mask),
            error=_difference,
            tolerance=1e-4,
            notes=waste,
        ),
        Case(
            "padded batch, forward + backward",
            work=seconds,
            unit="audio-s",
            ours=lambda: _gradients(packed, features, mask),
            peer=lambda: _gradients(padded, features, mask),
            error=_difference,
            tolerance=1e-4,
            goal=1.7,
            notes=memory,
        ),
    ]


def _clips(device: str, is_tiny: bool) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(0)
    longest, number = (3.0, 3) if is_tiny else (30.0, NUM_CLIPS)
    frames = torch.tensor([int(100 * generator.uniform(1.0, longest)) - 2 for _ in range(number)])
    mask = torch.arange(int(frames.max())) < frames.unsqueeze(1)
    features = torch.randn(*mask.shape, 64, generator=torch.Generator().manual_seed(0))
    return features.to(device), mask.to(device)


def _encoder(mode: str, device: str, is_tiny: bool) -> SlapAudioModel:
    torch.manual_seed(0)
    size = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 64} if is_tiny else {}
    config = SlapAudioConfig(num_hidden_layers=3, use_packing=mode == "packed", **size)
    return SlapAudioModel(config).to(device).train()


def _forward(model: SlapAudioModel, features: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return model(features, mask).pooler_output


def _step(model: SlapAudioModel, features: Tensor, mask: Tensor) -> None:
    model.zero_grad()
    model(features, mask).pooler_output.square().mean().backward()


def _gradients(model: SlapAudioModel, features: Tensor, mask: Tensor) -> Tensor:
    _step(model, features, mask)
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat([(grad / grad.abs().max()).flatten() for grad in grads])


def _difference(ours: Tensor, peer: Tensor) -> float:
    return float((ours - peer).abs().max())


def _peak_memory() -> dict[str, float]:
    """Peak memory of one training step in MB above a process that has done a tiny one, per mode, and its ratio."""
    peaks = {}
    for mode in MODES:
        command = [sys.executable, "-m", __name__, mode]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peaks[mode] = float(done.stdout.split()[-1])
    megabytes = {f"peak memory of a training step, {mode}, MB": round(peaks[mode]) for mode in MODES}
    return megabytes | {"memory, packed / padded": round(peaks["packed"] / peaks["padded"], 3)}


def measure_memory(mode: str, write: Callable[[str], object] = sys.stdout.write) -> None:
    """Writes the megabytes that one training step adds to this process.

    Args:
        mode: `"packed"` or `"padded"`.
        write: receives the number as text.
    """
    torch.set_num_threads(1)
    _step(_encoder(mode, "cpu", is_tiny=True), *_clips("cpu", is_tiny=True))
    model, clips = _encoder(mode, "cpu", is_tiny=False), _clips("cpu", is_tiny=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _step(model, *clips)
    write(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.1f}\n")


if __name__ == "__main__":
    measure_memory(sys.argv[1])

__all__ = ["measure_memory", "packing"]

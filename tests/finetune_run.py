# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Tiny trained models and a folder of sounds in class sub-folders, for the tests of fine-tuning."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from tiny import tiny_m2d_clap_config, tiny_mga_clap_config, tiny_slap_config, tiny_zipformer_config

from hf_audiolang import (
    LogMelFeatureExtractor,
    M2dClapModel,
    MgaClapModel,
    SlapModel,
    ZipformerModel,
)

RATE = 16000
TONES = {"high tone": 3000, "low tone": 300, "noise": 0}
MODELS = {
    "slap": (SlapModel, tiny_slap_config, {"feature_size": 64}),
    "m2d_clap": (M2dClapModel, tiny_m2d_clap_config, {"feature_size": 80}),
    "mga_clap": (MgaClapModel, tiny_mga_clap_config, {"feature_size": 16, "max_seconds": 2.5}),
    "zipformer": (ZipformerModel, tiny_zipformer_config, {"feature_size": 80}),
}


def save_model(folder: Path, name: str = "slap") -> Path:
    """A model with random weights and its feature extractor, as a run exports them."""
    model_class, make_config, numbers = MODELS[name]
    torch.manual_seed(0)
    model_class(make_config()).save_pretrained(folder)
    LogMelFeatureExtractor.from_preset("slap", mean=-6.0, std=6.0, **numbers).save_pretrained(folder)
    return folder


def save_sounds(folder: Path, num_clips: int = 8, seconds: float = 0.6) -> Path:
    """`num_clips` wave files of each class in a sub-folder of its name, each another one."""
    rng = np.random.default_rng(0)
    at = np.arange(round(seconds * RATE)) / RATE
    for label, frequency in TONES.items():
        (folder / label).mkdir(parents=True)
        for number in range(num_clips):
            noise = rng.normal(0, 0.01 if frequency else 0.2, len(at))
            tone = 0.3 * np.sin(2 * np.pi * frequency * (1 + rng.uniform(-0.05, 0.05)) * at) if frequency else 0
            soundfile.write(folder / label / f"{number}.wav", tone + noise, RATE)
    return folder

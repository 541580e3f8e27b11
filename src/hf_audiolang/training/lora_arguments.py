# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Settings of low-rank adapters, for every script that trains."""

from dataclasses import dataclass

from .settings import option


@dataclass
class LoraArguments:
    """Whether and how small adapters are trained in place of the weights (peft's LoRA)."""

    lora: bool = option(False, "Train low-rank adapters and the heads; the model's other weights stay as they are.")
    lora_rank: int = option(8, "Rank of the adapters.")
    lora_alpha: float = option(16.0, "Scale of the adapters: alpha / rank, or with lora_rslora alpha / sqrt(rank).")
    lora_dropout: float = option(0.0, "Dropout before the adapters.")
    lora_targets: list[str] = option([], "Names of the layers that get adapters; none: those of the model's type.")
    lora_rslora: bool = option(False, "Rank-stabilised scale (rsLoRA).")
    lora_dora: bool = option(False, "Weights are split in magnitude and direction (DoRA).")


LORA_RANGES = {"lora_rank": (1, None), "lora_dropout": (0, 0.99)}

__all__ = ["LORA_RANGES", "LoraArguments"]

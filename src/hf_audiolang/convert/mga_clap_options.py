# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a user may tell the MGA-CLAP converter."""

from dataclasses import dataclass
from typing import Literal

from .options import ConverterOptions


@dataclass(frozen=True)
class MgaClapOptions(ConverterOptions):
    """Overrides of the converter.

    Attributes:
        tokenizer: folder, Hub id or vocab.txt, or "none" to save the feature extractor alone. Without it,
            bert-base-uncased is taken if it can be loaded.
        text_num_attention_heads: heads of the text encoder; 64 wide each if not given.
        locality_mlp: whether the last audio block skips its MLP, as in the authors' code, or applies it, as the paper
            reads: no tensor tells, and the weights are of no use with the wrong one.
    """

    tokenizer: str | None = None
    text_num_attention_heads: int | None = None
    locality_mlp: Literal["skip", "mlp"] = "skip"


__all__ = ["MgaClapOptions"]

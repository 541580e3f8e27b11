# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a user may tell the Zipformer converter."""

from dataclasses import dataclass

from .options import ConverterOptions


@dataclass(frozen=True)
class ZipformerOptions(ConverterOptions):
    """Overrides of the converter.

    Attributes:
        average: take `model_avg` of a training checkpoint, the running mean of the weights, rather than `model`.
        query_head_dim: width of queries and keys of a head; 32 in all official recipes.
        value_head_dim: width of the values of a head; 12 in all official recipes.
        pos_head_dim: width of the position queries of a head; 4 in all official recipes.
        num_mel_bins: of the front end, which several numbers fit; 80 in all official recipes.
        tokenizer: folder, Hub id or vocab.txt of the text side, or "none" to save the feature extractor alone.
        text_num_attention_heads: heads of the text encoder of a contrastive model; 64 wide each if not given.
        num_decoder_heads: heads of the decoder of a captioning model; 8 if not given, as its authors have.
    """

    average: bool = False
    query_head_dim: int | None = None
    value_head_dim: int | None = None
    pos_head_dim: int | None = None
    num_mel_bins: int | None = None
    tokenizer: str | None = None
    text_num_attention_heads: int | None = None
    num_decoder_heads: int | None = None


__all__ = ["ZipformerOptions"]

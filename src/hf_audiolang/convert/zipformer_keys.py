# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Key table of icefall's Zipformer: every official key, the parameters it becomes, or why it is not needed.

official key below the encoder's place in the file -> name in `ZipformerModel`
"""

import re
from collections.abc import Iterable

from hf_audiolang.models.configuration_zipformer import ZipformerConfig

from .weights import KeyTable, same_parts

EMBED_CONVOLUTIONS = {"0": "conv1", "4": "conv2", "7": "conv3"}  # places in the official sequence of layers
LINEAR = (
    "self_attn_weights.in_proj", "self_attn1.in_proj", "self_attn1.out_proj", "self_attn2.in_proj",
    "self_attn2.out_proj", "feed_forward1.in_proj", "feed_forward1.out_proj", "feed_forward2.in_proj",
    "feed_forward2.out_proj", "feed_forward3.in_proj", "feed_forward3.out_proj", "nonlin_attention.in_proj",
    "nonlin_attention.out_proj", "conv_module1.in_proj", "conv_module1.out_proj", "conv_module2.in_proj",
    "conv_module2.out_proj",
)  # fmt: skip
SINGLE = (
    "self_attn_weights.linear_pos.weight", "bypass.bypass_scale", "bypass_mid.bypass_scale", "norm.log_scale",
    "norm.bias",
)  # fmt: skip
HEAD_WEIGHT = "classifier.1.weight"  # (classes, width), on every frame, then the mean; 0 is a dropout
HEAD = {HEAD_WEIGHT: "linear.weight", "classifier.1.bias": "linear.bias"}
HEAD_ORDER = "index"  # of AudioSet's classes: class_labels_indices.csv
IGNORED = {
    r"(.*\.)?layers\.\d+\.bypass_scale": "scale that no official code reads",
    r"(.*\.)?model_batch_count": "number of training batches",
    r"decoder\..*|joiner\..*|simple_(am|lm)_proj\..*": "transducer of a speech recogniser",
    r"ctc_output\..*": "CTC output of a speech recogniser",
    r"attention_decoder\..*": "attention decoder of a speech recogniser",
}
SPEECH = "speech_encoder."  # the encoder's place in TTA, the authors' recogniser and aligner
IGNORED_BESIDE_SPEECH = {r"(text_encoder|encoder_align2text_proj)\..*": "alignment with a text encoder"}


def encoder_table(config: ZipformerConfig) -> KeyTable:
    """Official keys, without what stands before `encoder_embed` and `encoder` -> names in `ZipformerModel`."""
    table = _embed_table()
    for stack, (factor, depth) in enumerate(zip(config.downsampling_factor, config.num_encoder_layers, strict=True)):
        official, ours = f"encoder.encoders.{stack}", f"encoders.{stack}"
        inside = official if factor == 1 else f"{official}.encoder"
        for layer in range(depth):
            table |= _layer_table(f"{inside}.layers.{layer}", f"{ours}.layers.{layer}", is_causal=config.causal)
        if factor > 1:
            for name in ("downsample.bias", "out_combiner.bypass_scale"):
                table[f"{official}.{name}"] = (f"{ours}.{name}",)
    table["encoder.downsample_output.bias"] = ("downsample_output.bias",)
    return table


def reasons_to_ignore(keys: Iterable[str], used: Iterable[str], prefix: str) -> dict[str, str]:
    """Why each key that is not used is not converted.

    Args:
        keys: of the file.
        used: keys that become parameters or a head.
        prefix: what stands before the encoder's keys.

    Raises:
        ValueError: for keys that no official file has.
    """
    used, ignored, unknown = set(used), {}, []
    patterns = IGNORED | (IGNORED_BESIDE_SPEECH if prefix == SPEECH else {})
    for key in keys:
        if key in used:
            continue
        names = (key.removeprefix(prefix), key)
        reasons = (why for pattern, why in patterns.items() for name in names if re.fullmatch(pattern, name))
        reason = next(reasons, None)
        if reason is None:
            unknown.append(key)
        else:
            ignored[key] = reason
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys belong to no official Zipformer file, for instance {unknown[:3]}. Pass the authors' "
            "file, or remove them if you know that the model computes the same without them."
        )
    return ignored


def _embed_table() -> KeyTable:
    table: KeyTable = {}
    for place, name in EMBED_CONVOLUTIONS.items():
        table |= same_parts(f"encoder_embed.conv.{place}", f"encoder_embed.{name}")
    for name in ("convnext.depthwise_conv", "convnext.pointwise_conv1", "convnext.pointwise_conv2", "out"):
        table |= same_parts(f"encoder_embed.{name}", f"encoder_embed.{name}")
    return table | same_parts("encoder_embed.out_norm", "encoder_embed.out_norm", ("log_scale", "bias"))


def _layer_table(official: str, ours: str, *, is_causal: bool) -> KeyTable:
    table: KeyTable = {f"{official}.{name}": (f"{ours}.{name}",) for name in SINGLE}
    for name in LINEAR:
        table |= same_parts(f"{official}.{name}", f"{ours}.{name}")
    for module in ("conv_module1", "conv_module2"):
        name = f"{module}.depthwise_conv"
        if is_causal:
            for part in ("causal_conv", "chunkwise_conv"):
                table |= same_parts(f"{official}.{name}.{part}", f"{ours}.{name}.{part}")
            table[f"{official}.{name}.chunkwise_conv_scale"] = (f"{ours}.{name}.chunkwise_conv_scale",)
        else:
            table |= same_parts(f"{official}.{name}", f"{ours}.{name}")
    return table


__all__ = ["EMBED_CONVOLUTIONS", "HEAD", "HEAD_ORDER", "HEAD_WEIGHT", "encoder_table", "reasons_to_ignore"]

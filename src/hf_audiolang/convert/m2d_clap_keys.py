# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Key tables of M2D and M2D-CLAP: every official key, the parameters it becomes, or why it is not needed.

official key, prefixes of wrappers taken off -> (our names, how the tensor is re-arranged)
"""

import re
from collections.abc import Callable

from torch import Tensor

from .weights import PARTS, KeyTable, same_parts

WRAPPERS = ("module.ar.runtime.backbone.", "module.ar.runtime.", "backbone.")  # fine-tuned twice; stage 2
TEXT_ENCODER = "text_encoder.text_encoder."
NORM_STATS = "norm_stats"
MEL_FILTERS = "to_spec.mel_basis"  # (mel bins, n_fft / 2 + 1)
# Head of the evaluation platform: mean over time or tokens -> BatchNorm without affine (eps 1e-5) -> linear.
HEAD = {
    "module.head.norm.running_mean": "norm.running_mean",
    "module.head.norm.running_var": "norm.running_var",
    "module.head.mlp.mlp.0.weight": "linear.weight",
    "module.head.mlp.mlp.0.bias": "linear.bias",
}
HEAD_WEIGHT = "module.head.mlp.mlp.0.weight"  # (classes, features)
HEAD_ORDER = "mid"  # of AudioSet's classes: the platform sorts class ids
PREDICTOR_KEYS = r"decoder_.*|mask_token"
TEACHER_KEYS = r"target_.*"
IGNORED = {
    PREDICTOR_KEYS: "predictor of masked patches, only for pre-training",
    TEACHER_KEYS: "teacher network, only for pre-training",
    r"offline_predictor\..*": "second head of M2D-X, M2D-AS and M2D-S pre-training, which has no counterpart here",
    r"to_spec\..*": "front end, computed by the feature extractor",
    r"module\.head\.norm\.num_batches_tracked": "counter of training batches",
    r"text_encoder\.text_encoder\.pooler\..*": "BERT's pooling layer: captions are the state of the first token",
    r"text_encoder\.text_encoder\.embeddings\.(position_ids|token_type_ids)": "counters of old BERT files",
}
UNKNOWN = "unknown key, left out as asked by `ignore_unknown`"
BLOCK = {"norm1": "attn_norm", "norm2": "mlp_norm", "attn.proj": "attn.o_proj"} | {
    name: name for name in ("mlp.fc1", "mlp.fc2")
}


def without_wrapper(key: str) -> str:
    """A key of the file as it is called in the tables."""
    for wrapper in WRAPPERS:
        if key.startswith(wrapper):
            return key[len(wrapper) :]
    return key


def encoder_table(depth: int) -> KeyTable:
    """Keys of the audio encoder -> names in `M2dClapAudioModel`."""
    embeddings = {
        "cls_token": ("embeddings.class_token",),
        "pos_embed": ("embeddings.position_embeddings",),
        "patch_embed.proj.weight": ("embeddings.patch_proj.weight",),
        "patch_embed.proj.bias": ("embeddings.patch_proj.bias",),
    }
    return embeddings | _blocks("blocks", "layers", depth) | same_parts("norm", "norm")


def projector_table(kind: str, depth: int) -> KeyTable:
    """Keys of the audio projector -> names in `AudioProjector`; none for "mean"."""
    if kind == "transformer":
        blocks = _blocks("audio_proj.sem_blocks", "projector.layers", depth)
        return (
            {"audio_proj.sem_token": ("projector.semantic_token",)}
            | blocks
            | same_parts("audio_proj.norm", "projector.norm")
        )
    if kind == "mlp":
        return same_parts("audio_proj.0", "projector.fc1") | same_parts("audio_proj.2", "projector.fc2")
    return {}


def text_projector_table(kind: str) -> KeyTable:
    """Keys of the text projector -> names in `M2dClapModel.text_projection`; none for "none"."""
    if kind == "mlp":
        return same_parts("text_proj.0", "fc1") | same_parts("text_proj.2", "fc2")
    return same_parts("text_proj", "") if kind == "linear" else {}


def predictor_table(depth: int) -> KeyTable:
    """Keys of the predictor -> names in `M2dClapForPreTraining.predictor`."""
    tokens = {"mask_token": ("mask_token",), "decoder_pos_embed": ("position_embeddings",)}
    edges = (
        same_parts("decoder_embed", "in_proj")
        | same_parts("decoder_norm", "norm")
        | same_parts("decoder_pred", "out_proj")
    )
    return tokens | edges | _blocks("decoder_blocks", "layers", depth)


def teacher_table(depth: int) -> KeyTable:
    """Keys of the teacher -> names in `M2dClapForPreTraining`."""
    return _blocks("target_blocks", "teacher_layers", depth) | same_parts("target_norm", "teacher_norm")


def reason_to_ignore(key: str) -> str | None:
    """Why a key of an official layout is not converted, or None if it is no such key."""
    return next((reason for pattern, reason in IGNORED.items() if re.fullmatch(pattern, key)), None)


def rearranged(key: str, tensor: Tensor) -> tuple[Tensor, ...]:
    """The official tensor in our form: one tensor, or query, key and value of a fused projection."""
    if re.search(r"\.qkv\.(weight|bias)$", key):
        return tensor.chunk(3)
    change = REARRANGED.get(key)
    return (tensor if change is None else change(tensor),)


def _patch_rows(kernel: Tensor) -> Tensor:
    """(D, 1, mel bins, frames) convolution kernel -> (D, frames * mel bins), frames as rows."""
    return kernel.squeeze(1).transpose(1, 2).flatten(1)


REARRANGED: dict[str, Callable[[Tensor], Tensor]] = {
    "cls_token": Tensor.flatten,  # (1, 1, D) -> (D,)
    "mask_token": Tensor.flatten,
    "pos_embed": lambda table: table.squeeze(0),  # (1, 1 + N, D) -> (1 + N, D)
    "decoder_pos_embed": lambda table: table.squeeze(0),
    "audio_proj.sem_token": lambda token: token.squeeze(0),  # (1, 1, D) -> (1, D)
    "patch_embed.proj.weight": _patch_rows,
}


def _blocks(source: str, target: str, depth: int) -> KeyTable:
    table: KeyTable = {}
    for index in range(depth):
        here, there = f"{source}.{index}", f"{target}.{index}"
        for official, ours in BLOCK.items():
            table |= same_parts(f"{here}.{official}", f"{there}.{ours}")
        for part in PARTS:
            table[f"{here}.attn.qkv.{part}"] = tuple(f"{there}.attn.{name}_proj.{part}" for name in "qkv")
    return table


__all__ = [
    "HEAD",
    "MEL_FILTERS",
    "NORM_STATS",
    "PREDICTOR_KEYS",
    "TEACHER_KEYS",
    "TEXT_ENCODER",
    "UNKNOWN",
    "encoder_table",
    "predictor_table",
    "projector_table",
    "rearranged",
    "reason_to_ignore",
    "teacher_table",
    "text_projector_table",
    "without_wrapper",
]

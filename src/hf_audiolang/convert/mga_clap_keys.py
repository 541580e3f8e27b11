# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Key table of MGA-CLAP: every official key, the parameters it becomes, or why it is not needed.

official key -> (our names, how the tensor is re-arranged)
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from .weights import PARTS, KeyTable, same_parts, under

AUDIO = "audio_encoder.audio_enc."
TEXT = "text_encoder.text_encoder."
FRONT_END = f"{AUDIO}audio_feats_extractor."
MEL_FILTERS = f"{FRONT_END}log_trans.melW"  # (n_fft / 2 + 1, mel bins)
TRANSFORM = f"{FRONT_END}mel_trans.stft.conv_real.weight"  # (n_fft / 2 + 1, 1, n_fft)
IGNORED = {
    re.escape(FRONT_END) + r"(mel_trans\.stft\.conv_(real|imag)\.weight|log_trans\.melW)": (
        "front end, computed by the feature extractor"
    ),
    re.escape(AUDIO) + r"layers\.\d+\.blocks\.\d+\.attn_mask": "mask of shifted windows, computed by the model",
    re.escape(AUDIO) + r"(tscam_conv|head)\.(weight|bias)": "classifier of AudioSet, in which MGA-CLAP has no part",
    re.escape(TEXT) + r"embeddings\.position_ids": "counter of old BERT files",
}
BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
POSITIONS = ("relative_position_bias_table", "relative_position_index")
BATCH_NORM = (*PARTS, "running_mean", "running_var", "num_batches_tracked")
PROJECTION = {"0": "input_norm", "1": "fc1", "3": "hidden_norm", "4": "fc2"}


def system_table(depths: Sequence[int], text_names: Iterable[str], *, has_qkv_bias: bool) -> KeyTable:
    """Official keys -> names in `MgaClapModel`.

    Args:
        depths: blocks of each stage of HTS-AT.
        text_names: names of the parameters of the text encoder, which the file calls the same.
        has_qkv_bias: whether queries, keys and values have a bias.
    """
    table: KeyTable = {"temp": ("logit_scale.temperature",), "codebook": ("codebook.weight",)}
    table |= under("audio_model.audio_encoder", _htsat_table(depths, has_qkv_bias))
    table |= {TEXT + name: (f"text_model.{name}",) for name in text_names}
    for official, ours in {"frame_proj": "audio_projection", "word_proj": "text_projection"}.items():
        for number, name in PROJECTION.items():
            table |= same_parts(f"{official}.{number}", f"{ours}.{name}")
    return table


def reasons_to_ignore(tensors: Mapping[str, Tensor], table: KeyTable) -> dict[str, str]:
    """Why each key that is not in the table is not converted.

    Raises:
        ValueError: for keys that the table needs and the file lacks, and for keys that no official file has.
    """
    missing = [key for key in table if key not in tensors]
    if missing:
        raise ValueError(
            f"The file lacks {len(missing)} of the {len(table)} tensors of an MGA-CLAP, for instance {missing[:3]}. "
            "Download it again, or pass the complete file."
        )
    ignored, unknown = {}, []
    for key in tensors:
        if key in table:
            continue
        reason = next((reason for pattern, reason in IGNORED.items() if re.fullmatch(pattern, key)), None)
        if reason is None:
            unknown.append(key)
        else:
            ignored[key] = reason
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys belong to no official MGA-CLAP file, for instance {unknown[:3]}. Pass the authors' "
            "file, or remove them if you know that the model computes the same without them."
        )
    return ignored


def rearranged(key: str, tensor: Tensor) -> tuple[Tensor, ...]:
    """The official tensor in our form: one tensor, or query, key and value of a fused projection."""
    return tensor.chunk(3) if ".attn.qkv." in key else (tensor,)


def _htsat_table(depths: Sequence[int], has_qkv_bias: bool) -> KeyTable:
    """Keys of the audio encoder -> names in `HtsatEncoder`."""
    table = same_parts(f"{AUDIO}bn0", "batch_norm", BATCH_NORM)
    for name in ("patch_embed.proj", "patch_embed.norm", "norm"):
        table |= same_parts(AUDIO + name, name)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            table |= _block_table(f"layers.{stage}.blocks.{block}", has_qkv_bias)
        if stage < len(depths) - 1:
            merging = f"layers.{stage}.downsample"
            table |= same_parts(f"{AUDIO}{merging}.reduction", f"{merging}.reduction", ("weight",))
            table |= same_parts(f"{AUDIO}{merging}.norm", f"{merging}.norm")
    return table


def _block_table(name: str, has_qkv_bias: bool) -> KeyTable:
    table: KeyTable = {}
    for official, ours in BLOCK.items():
        table |= same_parts(f"{AUDIO}{name}.{official}", f"{name}.{ours}")
    for part in PARTS if has_qkv_bias else ("weight",):
        ours = tuple(f"{name}.attention.self.{one}.{part}" for one in ("query", "key", "value"))
        table[f"{AUDIO}{name}.attn.qkv.{part}"] = ours
    return table | same_parts(f"{AUDIO}{name}.attn", f"{name}.attention.self", POSITIONS)


__all__ = ["AUDIO", "MEL_FILTERS", "TEXT", "TRANSFORM", "rearranged", "reasons_to_ignore", "system_table"]

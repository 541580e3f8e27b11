# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What an official MGA-CLAP file is: all sizes from its tensors, files of other models and front ends refused.

tensors -> family checked -> HtsatConfig, BertConfig, sizes of codebook and projections -> MgaClapConfig
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import BertConfig
from transformers.audio_utils import mel_filter_bank

from hf_audiolang.models.configuration_htsat import HtsatConfig
from hf_audiolang.models.configuration_mga_clap import MgaClapConfig
from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor

from .bert import bert_config
from .mga_clap_keys import AUDIO, MEL_FILTERS, TEXT, TRANSFORM
from .mga_clap_options import MgaClapOptions
from .weights import matrix_shape, num_blocks

SYSTEM_KEYS = ("temp", "codebook", "frame_proj.1.weight", "word_proj.1.weight")
AUDIO_KEYS = ("bn0.weight", "patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight")
SPEC_SIZE = 256  # of the authors' code, for files without a mask of shifted windows
Numbers = dict[str, tuple[object, str]]  # name -> (value, where it comes from)


def system_config(tensors: Mapping[str, Tensor], options: MgaClapOptions) -> tuple[MgaClapConfig, Numbers]:
    """Configuration of the model in a file, and where numbers come from that shapes of weights do not say.

    Raises:
        ValueError: for another model, another text encoder than BERT, or tensors that contradict each other.
    """
    _check_family(tensors)
    audio, numbers = _htsat_config(tensors, options)
    text = _text_config(tensors, options)
    num_codewords, width = matrix_shape(tensors, "codebook")
    config = MgaClapConfig(audio_config=audio, text_config=text, num_codewords=num_codewords, projection_dim=width)
    return config, numbers


def check_front_end(tensors: Mapping[str, Tensor], extractor: LogMelFeatureExtractor) -> None:
    """Compares the front end in the file, if there is one, with the feature extractor that takes its place.

    Raises:
        ValueError: if window, mel bins or filters differ.
    """
    expected = torch.from_numpy(
        mel_filter_bank(
            num_frequency_bins=extractor.n_fft // 2 + 1,
            num_mel_filters=extractor.feature_size,
            min_frequency=extractor.f_min,
            max_frequency=extractor.f_max,
            sampling_rate=extractor.sampling_rate,
            norm=extractor.mel_norm,
            mel_scale=extractor.mel_scale,
        )
    ).float()
    window = (len(expected), 1, extractor.n_fft)
    if TRANSFORM in tensors and tuple(tensors[TRANSFORM].shape) != window:
        raise ValueError(
            f"The front end in the file transforms windows of another length: `{TRANSFORM}` has shape "
            f"{tuple(tensors[TRANSFORM].shape)}, expected {window}. Pass a file of the authors, at 32 kHz."
        )
    found = tensors.get(MEL_FILTERS)
    if found is None:
        return
    if found.shape != expected.shape or not torch.allclose(found.float(), expected, rtol=1e-3, atol=1e-7):
        raise ValueError(
            f"The front end in the file has other mel filters than the authors' ({extractor.feature_size} from "
            f"{extractor.f_min:g} to {extractor.f_max:g} Hz at {extractor.sampling_rate} Hz): `{MEL_FILTERS}` has "
            f"shape {tuple(found.shape)}. Pass a file that was trained with the authors' settings."
        )


def _check_family(tensors: Mapping[str, Tensor]) -> None:
    found = f"found {len(tensors)} keys such as {sorted(tensors)[:4]}"
    if "audio_proj.0.weight" in tensors and "codebook" not in tensors:
        raise ValueError(
            "This is a CLAP of WavCaps (HTSAT-BERT or CNN14-BERT), which embeds captions by their first token through "
            f"other projections and has no codebook: {found}. It is not supported; pass the `model.pt` of MGA-CLAP."
        )
    if any(key.startswith("sed_model.") for key in tensors):
        raise ValueError(
            f"This is an HTS-AT that was trained on AudioSet, without text side: {found}. Pass the `model.pt` of "
            "MGA-CLAP."
        )
    missing = [key for key in SYSTEM_KEYS if key not in tensors]
    if missing:
        raise ValueError(f"This is no checkpoint of MGA-CLAP: {missing} are missing; {found}. Pass its `model.pt`.")
    missing = [AUDIO + key for key in AUDIO_KEYS if AUDIO + key not in tensors]
    if missing:
        raise ValueError(
            f"The audio encoder in the file is no HTS-AT: {missing} are missing; {found}. Only HTS-AT is supported."
        )


def _htsat_config(tensors: Mapping[str, Tensor], options: MgaClapOptions) -> tuple[HtsatConfig, Numbers]:
    audio = {key.removeprefix(AUDIO): tensor for key, tensor in tensors.items() if key.startswith(AUDIO)}
    stages = [f"layers.{stage}" for stage in range(num_blocks(list(audio), "layers"))]
    depths = [num_blocks(list(audio), f"{stage}.blocks") for stage in stages]
    tables = [matrix_shape(tensors, f"{AUDIO}{stage}.blocks.0.attn.relative_position_bias_table") for stage in stages]
    kernel = audio["patch_embed.proj.weight"]
    if kernel.ndim != 4 or kernel.shape[1] != 1 or kernel.shape[2] != kernel.shape[3]:
        raise ValueError(
            f"`{AUDIO}patch_embed.proj.weight` must be (channels, 1, side, side), got {tuple(kernel.shape)}. Is it a "
            "file of the authors?"
        )
    inner, stem = matrix_shape(tensors, f"{AUDIO}layers.0.blocks.0.mlp.fc1.weight")
    window = (math.isqrt(tables[0][0]) + 1) // 2
    spec_size = _spec_size(audio, window, kernel.shape[-1])
    config = HtsatConfig(
        spec_size=spec_size or SPEC_SIZE,
        num_mel_bins=len(audio["bn0.weight"]),
        patch_size=kernel.shape[-1],
        patch_stride=[kernel.shape[-1]] * 2,
        patch_embeds_hidden_size=stem,
        hidden_size=stem * 2 ** (len(stages) - 1),
        depths=depths,
        num_attention_heads=[heads for _, heads in tables],
        window_size=window,
        mlp_ratio=inner / stem,
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in audio,
        locality_blocks=1,
        locality_mlp=options.locality_mlp,
        spec_augment_time_stripes=2,
        spec_augment_mel_stripes=2,
    )
    is_given = options.locality_mlp != MgaClapOptions.locality_mlp
    numbers: Numbers = {
        "spec_size": (config.spec_size, "masks in the file" if spec_size else "authors' code"),
        "locality_blocks": (1, "authors' code"),
        "locality_mlp": (config.locality_mlp, "override" if is_given else "authors' code"),
    }
    return config, numbers


def _spec_size(audio: Mapping[str, Tensor], window: int, patch: int) -> int | None:
    """Side of the folded spectrogram, from the number of windows that a mask counts; None without a mask."""
    for key, mask in audio.items():
        if key.endswith(".attn_mask"):
            stage = int(key.split(".")[1])
            return math.isqrt(len(mask)) * window * 2**stage * patch
    return None


def _text_config(tensors: Mapping[str, Tensor], options: MgaClapOptions) -> BertConfig:
    inside = {key.removeprefix(TEXT): tensor for key, tensor in tensors.items() if key.startswith(TEXT)}
    return bert_config(inside, options.text_num_attention_heads)


__all__ = ["Numbers", "check_front_end", "system_config"]

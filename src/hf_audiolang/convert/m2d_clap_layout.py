# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What an official M2D file is: sizes from its tensors, the rest from the folder name, contradictions refused.

tensors, folder name, overrides -> AudioLayout (encoder and front end) -> TextLayout (projectors and text side)
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from hf_audiolang.models.configuration_audio_projector import AudioProjectorConfig
from hf_audiolang.models.configuration_m2d_clap_audio import M2dClapAudioConfig

from .m2d_clap_keys import MEL_FILTERS, NORM_STATS, TEXT_ENCODER
from .m2d_clap_options import FRONT_ENDS, TEXT_TYPES, FolderName, M2dClapOptions, parse_folder_name
from .weights import head_count, matrix_shape, num_blocks

ENCODER_KEYS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
SYSTEM_KEYS = ("audio_proj.", "text_proj.", TEXT_ENCODER, "logit_scale")
OLD_STATISTICS = (-7.1, 4.2)  # of the weights before 2024, which do not carry their own (the authors' runtime)
ENCODER_HEAD_WIDTH = 64  # ViT-Base 768 / 12, ViT-Large 1024 / 16
Numbers = dict[str, tuple[object, str]]  # name -> (value, where it comes from)


@dataclass(frozen=True)
class AudioLayout:
    """Encoder and front end of a file.

    Attributes:
        config: of the encoder.
        sampling_rate: Hz.
        mean: of the log-mels the encoder was trained on.
        std: their standard deviation.
        numbers: what was inferred and from where.
        notes: defaults taken because the file says nothing.
    """

    config: M2dClapAudioConfig
    sampling_rate: int
    mean: float
    std: float
    numbers: Numbers
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TextLayout:
    """Projectors and text side of a file.

    Attributes:
        projector_config: of the audio projector.
        text_projector: "none", "linear" or "mlp".
        embedding_size: width of the caption embeddings it takes.
        embedding_model: whose embeddings they are; None with a text encoder in the file.
        pooling: how the text encoder's states become one vector; None if nothing determines it.
        has_text_encoder: whether the file holds one.
        named_model: text encoder that the folder name speaks of; None without an official name.
        numbers: what was inferred and from where.
    """

    projector_config: AudioProjectorConfig
    text_projector: str
    embedding_size: int
    embedding_model: str | None
    pooling: str | None
    has_text_encoder: bool
    named_model: str | None
    numbers: Numbers = field(default_factory=dict)


def folder_configuration(folder_name: str, options: M2dClapOptions) -> FolderName | None:
    """What the override `name`, else the folder's name, says; None if the folder's name is no official one.

    Raises:
        ValueError: if the override is no official name.
    """
    if options.name is None:
        return parse_folder_name(folder_name)
    parsed = parse_folder_name(options.name)
    if parsed is None:
        raise ValueError(
            f"`name` must be an official folder name such as 'm2d_vit_base-80x608p16x16-221006-mr7', got "
            f"{options.name!r}. Correct it, or pass `sampling_rate`, `num_mel_bins` and `max_frames` instead."
        )
    return parsed


def audio_layout(tensors: Mapping[str, Tensor], name: FolderName | None, options: M2dClapOptions) -> AudioLayout:
    """Encoder and front end from tensors, folder name and overrides.

    Args:
        tensors: key without wrapper -> tensor.
        name: what the folder name says, or None.
        options: the overrides.

    Raises:
        ValueError: if there is no M2D encoder, if tensors contradict name or overrides, or if nothing says a number.
    """
    _check_family(tensors)
    kernel = tensors["patch_embed.proj.weight"]  # (D, 1, mel bins, frames)
    if kernel.ndim != 4 or kernel.shape[1] != 1 or tensors["pos_embed"].ndim != 3:
        raise ValueError(
            "`patch_embed.proj.weight` and `pos_embed` must be (D, 1, mel bins, frames) and (1, 1 + patches, D), got "
            f"{tuple(kernel.shape)} and {tuple(tensors['pos_embed'].shape)}. Is this an audio model of M2D?"
        )
    width, _, patch_mel_bins, patch_frames = kernel.shape
    if name is not None and (name.patch_mel_bins, name.patch_frames) != (patch_mel_bins, patch_frames):
        raise _contradiction(
            "patches", f"{name.patch_mel_bins}x{name.patch_frames}", f"{patch_mel_bins}x{patch_frames}"
        )
    numbers = _numbers(tensors, name, options)
    num_patches = tensors["pos_embed"].shape[1] - 1
    _check_table(num_patches, numbers, patch_mel_bins, patch_frames)
    config = M2dClapAudioConfig(
        hidden_size=width,
        num_hidden_layers=num_blocks(list(tensors), "blocks"),
        num_attention_heads=head_count(width, ENCODER_HEAD_WIDTH, "num_attention_heads", options.num_attention_heads),
        intermediate_size=matrix_shape(tensors, "blocks.0.mlp.fc1.weight")[0],
        num_mel_bins=numbers["num_mel_bins"][0],
        patch_mel_bins=patch_mel_bins,
        patch_frames=patch_frames,
        max_frames=numbers["max_frames"][0],
        feature_frame_rate_hz=_frame_rate(numbers["sampling_rate"][0]),
    )
    statistics, notes = _statistics(tensors)
    numbers["mean, std"] = (statistics, "default of the years before 2024" if notes else "file")
    return AudioLayout(config, numbers["sampling_rate"][0], *statistics, numbers, notes)


def is_system(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the file holds anything of the text side: projectors, a text encoder, the scale of similarities."""
    return any(key.startswith(SYSTEM_KEYS) for key in tensors)


def text_layout(
    tensors: Mapping[str, Tensor], audio_width: int, name: FolderName | None, options: M2dClapOptions
) -> TextLayout:
    """Projectors and text side from tensors, folder name and overrides.

    Raises:
        ValueError: if tensors contradict the name, or if nothing says whose caption embeddings are expected.
    """
    text_projector, embedding_size = "none", audio_width
    for kind, key in (("linear", "text_proj.weight"), ("mlp", "text_proj.0.weight")):
        if key in tensors:
            text_projector, embedding_size = kind, matrix_shape(tensors, key)[1]
    has_text_encoder = any(key.startswith(TEXT_ENCODER) for key in tensors)
    _check_letter(name, options, embedding_size, has_text_encoder)
    text_type = None if name is None else TEXT_TYPES[name.text_letter]
    model = options.text_embedding_model
    numbers: Numbers = {}
    if model is not None:
        numbers["text_embedding_model"] = (model, "override")
    elif text_type is not None and not has_text_encoder:
        model = text_type.model
        numbers["text_embedding_model"] = (model, "folder name")
    elif not has_text_encoder and options.text_model is None:
        raise ValueError(
            f"The file takes caption embeddings of width {embedding_size} from a text encoder that it does not hold "
            "or name. Pass `text_embedding_model` (whose embeddings they are), `text_model` (to include the encoder), "
            "or `name` (the official folder name)."
        )
    pooling = options.text_pooling or ("cls" if has_text_encoder else text_type and text_type.pooling)
    return TextLayout(
        projector_config=_projector_config(tensors, audio_width),
        text_projector=text_projector,
        embedding_size=embedding_size,
        embedding_model=model,
        pooling=pooling,
        has_text_encoder=has_text_encoder,
        named_model=None if text_type is None else text_type.model,
        numbers=numbers,
    )


def _check_family(tensors: Mapping[str, Tensor]) -> None:
    missing = [key for key in ENCODER_KEYS if key not in tensors]
    if missing:
        raise ValueError(
            f"This is no checkpoint of M2D: expected keys such as {list(ENCODER_KEYS)}, of which {missing} are "
            f"missing; found {len(tensors)} keys such as {sorted(tensors)[:5]}. Pass an official M2D, M2D-CLAP or "
            "MSM-MAE file."
        )


def _numbers(tensors: Mapping[str, Tensor], name: FolderName | None, options: M2dClapOptions) -> Numbers:
    """The numbers that shapes do not determine, each from the override, the folder name or the file's front end."""
    in_file: dict[str, object] = {}
    if MEL_FILTERS in tensors:
        num_mel_bins, bins = matrix_shape(tensors, MEL_FILTERS)
        rates = {front_end["n_fft"] // 2 + 1: rate for rate, front_end in FRONT_ENDS.items()}
        in_file = {"num_mel_bins": num_mel_bins, "sampling_rate": rates.get(bins)}
    numbers: Numbers = {}
    for key in ("sampling_rate", "num_mel_bins", "max_frames"):
        sources = {
            "override": getattr(options, key),
            "folder name": getattr(name, key, None),
            "file": in_file.get(key),
        }
        known = {source: value for source, value in sources.items() if value is not None}
        if known:
            origin, value = next(iter(known.items()))
            numbers[key] = (value, origin)
            if known.get("file", value) != value:
                raise _contradiction(f"`{key}`", str(value), f"{known['file']} (its front end)", origin)
    missing = [key for key in ("sampling_rate", "num_mel_bins", "max_frames") if key not in numbers]
    if missing:
        patch_mel_bins, patch_frames = tensors["patch_embed.proj.weight"].shape[2:]
        raise ValueError(
            f"Nothing says {missing}: the folder has no official name, and the tensors only hold "
            f"{tensors['pos_embed'].shape[1] - 1} patches of {patch_mel_bins} mel bins x {patch_frames} frames. Pass "
            f"{', '.join(f'`{key}`' for key in missing)}, or `name` with the official folder name."
        )
    if numbers["sampling_rate"][0] not in FRONT_ENDS:
        raise ValueError(f"Unknown `sampling_rate` {numbers['sampling_rate'][0]}. Choose one of {list(FRONT_ENDS)}.")
    return numbers


def _check_table(num_patches: int, numbers: Numbers, patch_mel_bins: int, patch_frames: int) -> None:
    (num_mel_bins, mel_origin), (max_frames, frame_origin) = numbers["num_mel_bins"], numbers["max_frames"]
    if num_mel_bins % patch_mel_bins != 0:
        raise ValueError(
            f"`num_mel_bins` must be a multiple of the {patch_mel_bins} mel bins of a patch, got {num_mel_bins} "
            f"({mel_origin}). Correct it, or pass `name` with the official folder name of this file."
        )
    expected = (num_mel_bins // patch_mel_bins) * (max_frames // patch_frames)
    if expected != num_patches:
        says = f"{num_mel_bins}x{max_frames}, that is {expected} patches"
        origin = mel_origin if mel_origin == frame_origin else f"{mel_origin} and {frame_origin}"
        raise _contradiction("the input", says, f"a position table of {num_patches} patches", origin)


def _contradiction(what: str, said: str, found: str, origin: str = "folder name") -> ValueError:
    return ValueError(
        f"The {origin} says {what} {said}, the tensors of the file say {found}. Pass `name` with the official folder "
        "name of this file, or correct the override."
    )


def _frame_rate(sampling_rate: int) -> float:
    return sampling_rate / FRONT_ENDS[sampling_rate]["hop_length"]


def _statistics(tensors: Mapping[str, Tensor]) -> tuple[tuple[float, float], tuple[str, ...]]:
    """((mean, std), notes)."""
    if NORM_STATS not in tensors:
        mean, std = OLD_STATISTICS
        return OLD_STATISTICS, (f"the file has no `{NORM_STATS}`: mean {mean} and std {std} of the older weights",)
    found = tensors[NORM_STATS].flatten().tolist()
    if len(found) != 2 or not all(map(math.isfinite, found)) or found[1] <= 0:
        raise ValueError(
            f"`{NORM_STATS}` must be a mean and a positive standard deviation, both finite, got {found[:5]}. The file "
            "is damaged: download it again."
        )
    return (found[0], found[1]), ()


def _check_letter(
    name: FolderName | None, options: M2dClapOptions, embedding_size: int, has_text_encoder: bool
) -> None:
    if name is None:
        return
    if name.has_text_encoder != has_text_encoder:
        words = {True: "a text encoder", False: "no text encoder"}
        raise _contradiction("the file holds", words[name.has_text_encoder], words[has_text_encoder])
    if has_text_encoder and name.text_letter != "B":
        raise _contradiction("the text encoder is", TEXT_TYPES[name.text_letter].model, "BERT")
    expected = TEXT_TYPES[name.text_letter].embedding_size
    if not has_text_encoder and options.text_embedding_model is None and expected != embedding_size:
        said = f"are of {TEXT_TYPES[name.text_letter].model}, {expected} wide"
        raise _contradiction("caption embeddings", said, f"{embedding_size} wide")


def _projector_config(tensors: Mapping[str, Tensor], width: int) -> AudioProjectorConfig:
    """The audio projector: a semantic token, an MLP on the mean of the tokens, or the mean alone."""
    if "audio_proj.sem_token" in tensors:
        depth = num_blocks(list(tensors), "audio_proj.sem_blocks")
        hidden = matrix_shape(tensors, "audio_proj.sem_blocks.0.mlp.fc1.weight")[0]
        return AudioProjectorConfig(hidden_size=width, num_hidden_layers=depth, intermediate_size=hidden)
    if "audio_proj.0.weight" in tensors:
        hidden = matrix_shape(tensors, "audio_proj.0.weight")[0]
        return AudioProjectorConfig(projector_type="mlp", hidden_size=width, intermediate_size=hidden)
    return AudioProjectorConfig(projector_type="mean", hidden_size=width, intermediate_size=width)


__all__ = [
    "AudioLayout",
    "Numbers",
    "TextLayout",
    "audio_layout",
    "folder_configuration",
    "is_system",
    "text_layout",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a user may tell the M2D-CLAP converter, and what the name of an official folder says."""

import re
from dataclasses import dataclass
from typing import Literal

from .bert import BERT_NAME
from .options import ConverterOptions

# k of the folder name -> the front end's numbers (the authors' runtime); everything else is as at 16 kHz
FRONT_ENDS = {
    16000: {"sampling_rate": 16000, "n_fft": 400, "win_length": 400, "hop_length": 160, "f_max": 8000.0},
    32000: {"sampling_rate": 32000, "n_fft": 800, "win_length": 800, "hop_length": 320, "f_max": 16000.0},
}


@dataclass(frozen=True)
class TextType:
    """A text encoder that official folder names speak of.

    Attributes:
        model: its name on the Hub.
        embedding_size: width of its caption embeddings.
        pooling: how its states become one vector; None if it has a pooling of its own.
    """

    model: str
    embedding_size: int
    pooling: str | None


TEXT_TYPES = {
    "A": TextType("thenlper/gte-base", 768, "mean"),
    "B": TextType(BERT_NAME, 768, "cls"),
    "N": TextType("nvidia/NV-Embed-v2", 4096, None),
}


@dataclass(frozen=True)
class FolderName:
    """The configuration in an official folder name, `CLASS-MELSxFRAMESpMELSxFRAMES[pRATEk][pLETTER][pTI]-...`."""

    model_class: str
    num_mel_bins: int
    max_frames: int
    patch_mel_bins: int
    patch_frames: int
    sampling_rate: int
    text_letter: str
    has_text_encoder: bool


def parse_folder_name(name: str) -> FolderName | None:
    """The configuration in a folder name, or None if it is not an official one.

    A missing rate is 16 kHz and a missing text letter is A, as in the authors' runtime.

    Raises:
        ValueError: if the name is official but speaks of a rate or a text encoder that is not known.
    """
    sizes = r"(\d+)x(\d+)p(\d+)x(\d+)"
    match = re.fullmatch(rf"([a-z0-9_]+)-{sizes}((?:p[A-Za-z0-9]+)*)(?:-.*)?", name)
    if match is None:
        return None
    model_class, mels, frames, patch_mels, patch_frames, rest = match.groups()
    rate, letter, included = [*rest.split("p")[1:], "", "", ""][:3]
    rates = {"": 16000} | {f"{hertz // 1000}k": hertz for hertz in FRONT_ENDS}
    if rate not in rates or letter not in ("", *TEXT_TYPES) or included not in ("", "TI") or rest.count("p") > 3:
        raise ValueError(
            f"The folder name {name!r} ends its sizes with {rest!r}. Known are a rate ({', '.join(rates)[2:]}), then "
            f"the letter of a text encoder ({', '.join(TEXT_TYPES)}), then TI if it is in the file. Pass `name` with "
            "what is right."
        )
    return FolderName(
        model_class=model_class,
        num_mel_bins=int(mels),
        max_frames=int(frames),
        patch_mel_bins=int(patch_mels),
        patch_frames=int(patch_frames),
        sampling_rate=rates[rate],
        text_letter=letter or "A",
        has_text_encoder=included == "TI",
    )


@dataclass(frozen=True)
class M2dClapOptions(ConverterOptions):
    """Overrides of the converter; None lets it infer the value, or refuse when nothing determines it.

    Attributes:
        name: official folder name, for a renamed folder.
        sampling_rate: Hz, 16000 or 32000.
        num_mel_bins: mel bins of the input.
        max_frames: frames encoded in one piece.
        num_attention_heads: heads of the encoder; 64 wide each if not given.
        predictor_num_heads: heads of the predictor; 32 wide each if not given.
        text_num_attention_heads: heads of a text encoder in the file; 64 wide each if not given.
        text_embedding_model: whose caption embeddings the text side expects.
        text_pooling: "cls", "mean" or "last".
        text_model: folder or Hub id of a text encoder to include when the file holds none.
        tokenizer: folder or Hub id, or "none" to save the feature extractor alone.
        pretraining: also convert predictor and teacher, to train further.
        ignore_unknown: leave out keys that no official layout has, instead of refusing them.
    """

    name: str | None = None
    sampling_rate: int | None = None
    num_mel_bins: int | None = None
    max_frames: int | None = None
    num_attention_heads: int | None = None
    predictor_num_heads: int | None = None
    text_num_attention_heads: int | None = None
    text_embedding_model: str | None = None
    text_pooling: Literal["cls", "mean", "last"] | None = None
    text_model: str | None = None
    tokenizer: str | None = None
    pretraining: bool = False
    ignore_unknown: bool = False


__all__ = ["FRONT_ENDS", "TEXT_TYPES", "FolderName", "M2dClapOptions", "TextType", "parse_folder_name"]

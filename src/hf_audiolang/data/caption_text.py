# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Cleaning of captions, as WavCaps, MGA-CLAP and CaptionStew do it for training and retrieval (not for class names).

CaptionStew's code for captioning, other than that for its contrastive model, keeps a `*`.
"""

import re
from collections.abc import Sequence

# takes the space behind the mark too, so of two marks in a row only the first moves up, as in the authors' code
_SPACE_BEFORE = re.compile(r'\s([,.!?;:"])(\s|$)')
_PUNCTUATION = re.compile(r'[(,.!?;:|*")]')


def clean_caption(caption: str) -> str:
    """The caption in lower case, each of `( , . ! ? ; : | * " )` a space; double spaces become single ones, once.

    Spaces at the ends stay and a triple leaves two, as in the authors' code: "A dog barks, then a man speaks." becomes
    "a dog barks then a man speaks ".
    """
    joined = _SPACE_BEFORE.sub(r"\1\2", caption.lower()).replace("  ", " ")
    return _PUNCTUATION.sub(" ", joined).replace("  ", " ")


def clean_captions(captions: Sequence[str]) -> list[str]:
    """Cleaned captions; one of punctuation alone stays as it is."""
    return [cleaned if (cleaned := clean_caption(caption)).strip() else caption for caption in captions]


__all__ = ["clean_caption", "clean_captions"]

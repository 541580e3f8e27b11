# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""False captions that differ from a true one in a single fact: order, class, attribute or count.

Each function takes a caption of the synthetic scenes and gives a false one in the same grammar, or None where the
caption does not state such a fact. Captions name every event of their clip, so a class that a caption leaves out is
not in the clip.
"""

import zlib
from dataclasses import replace

import numpy as np

from .scene_text import ATTRIBUTES, Caption, Phrase, parse_caption, templates_for
from .scene_words import NUMERALS, WORDS

_OPPOSITES = {
    "long": "brief", "brief": "long", "loud": "soft", "soft": "loud",
    "fast": "slow", "slow": "fast", "high": "low", "low": "high",
}  # fmt: skip


def swap_order(caption: str) -> str | None:
    """The caption with its first two events exchanged in time; None if it states no sequence of different sounds."""
    parsed = parse_caption(caption)
    groups = parsed.template.groups
    if parsed.template.is_repeat or len(groups) < 2 or any(len(group) > 1 for group in groups):
        return None
    phrases = [parsed.phrases[1], parsed.phrases[0], *parsed.phrases[2:]]
    template = parsed.template
    if any(kind == "n" and phrases[slot].kind == "verb" for slot, kind in template.kinds().items()):
        template = templates_for(groups)[0]  # "... then ...", which takes phrases of both kinds
    return Caption(template, tuple(phrases)).text


def swap_class(caption: str, rng: np.random.Generator | None = None) -> str:
    """The caption with one sound replaced by a class that it does not name; everything else stays as it is."""
    parsed = parse_caption(caption)
    rng = _generator(caption, rng)
    slot = int(rng.integers(len(parsed.phrases)))
    named = {phrase.label for phrase in parsed.phrases}
    old = parsed.phrases[slot]
    others = [_reword(old, label) for label in WORDS if label not in named]
    # A rare mixture such as "three high pitched guitar notes" has no equal: then the attribute goes.
    others += [_reword(replace(old, pitch=None, speed=None), label) for label in WORDS if label not in named]
    usable = [phrase for phrase in others if phrase is not None]
    return _with_phrase(parsed, slot, usable[int(rng.integers(len(usable)))])


def swap_attribute(caption: str, rng: np.random.Generator | None = None) -> str | None:
    """The caption with one stated attribute turned into its opposite (loud, quiet); None if it states none."""
    parsed = parse_caption(caption)
    stated = [
        (slot, name) for slot, phrase in enumerate(parsed.phrases) for name in ATTRIBUTES if getattr(phrase, name)
    ]
    if not stated:
        return None
    slot, name = stated[int(_generator(caption, rng).integers(len(stated)))]
    phrase = parsed.phrases[slot]
    return _with_phrase(parsed, slot, replace(phrase, **{name: _OPPOSITES[getattr(phrase, name)]}))


def change_count(caption: str, rng: np.random.Generator | None = None) -> str | None:
    """The caption with one number replaced by another from one to eight; None if it states none."""
    parsed = parse_caption(caption)
    counted = [slot for slot, phrase in enumerate(parsed.phrases) if phrase.count]
    if not counted:
        return None
    rng = _generator(caption, rng)
    slot = counted[int(rng.integers(len(counted)))]
    phrase = parsed.phrases[slot]
    others = [number for number in range(1, len(NUMERALS) + 1) if number != phrase.count]
    return _with_phrase(parsed, slot, replace(phrase, count=others[int(rng.integers(len(others)))]))


HARD_NEGATIVES = {
    "swap_order": swap_order,
    "swap_class": swap_class,
    "swap_attribute": swap_attribute,
    "change_count": change_count,
}


def _generator(caption: str, rng: np.random.Generator | None) -> np.random.Generator:
    """The given generator, or one that depends on the caption alone."""
    return np.random.default_rng(zlib.crc32(caption.encode())) if rng is None else rng


def _reword(phrase: Phrase, label: str) -> Phrase | None:
    """The phrase about another class, with the same attributes, or None if that class cannot carry them."""
    if phrase.kind == "counted" and WORDS[label].counted is None:
        return None
    wordings = WORDS[label].verbs if phrase.kind == "verb" else WORDS[label].nouns
    for wording in range(len(wordings) - 1):
        reworded = replace(phrase, label=label, wording=0 if phrase.kind == "counted" else wording)
        if all(reworded.allows(name) for name in ATTRIBUTES if getattr(phrase, name)):
            return reworded
    return None


def _with_phrase(parsed: Caption, slot: int, phrase: Phrase) -> str:
    phrases = (*parsed.phrases[:slot], phrase, *parsed.phrases[slot + 1 :])
    return Caption(parsed.template, phrases).text


__all__ = ["HARD_NEGATIVES", "change_count", "swap_attribute", "swap_class", "swap_order"]

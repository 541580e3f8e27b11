# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The language of the synthetic scenes: phrases, caption templates, and the way back from a caption to its facts.

    Scene -> draw_captions -> ["three loud knocks then a siren", ...] + grounding phrases of the first caption
    caption -> parse_caption -> Caption(template, phrases): who, in which order, with which attributes

One table of templates serves both directions. A placeholder names the event in order of time; ":n" asks for a noun
phrase, ":v" for a verb phrase. Everything said is true of the annotation: attributes are stated with probability 0.4.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .scene_layout import Scene, SceneEvent, choose
from .scene_words import (
    LENGTH_ADJECTIVES,
    LOUDNESS_ADJECTIVES,
    LOUDNESS_ADVERBS,
    NUMERALS,
    PITCH_ADJECTIVES,
    SPEED_ADJECTIVES,
    SPEED_ADVERBS,
    WORDS,
    with_article,
)
from .sound_events import EVENT_CLASSES

ATTRIBUTES = ("length", "loudness", "speed", "pitch")  # also the order of adjectives
_ADJECTIVES = dict(
    zip(ATTRIBUTES, (LENGTH_ADJECTIVES, LOUDNESS_ADJECTIVES, SPEED_ADJECTIVES, PITCH_ADJECTIVES), strict=True)
)
_ADVERBS = {"loudness": LOUDNESS_ADVERBS, "speed": SPEED_ADVERBS}
_BACKGROUND_TENTHS_DB = 60  # how much softer a sound "in the background" is at least
_MAX_TRIES = 40


@dataclass(frozen=True)
class Phrase:
    """What a caption says about one event.

    Attributes:
        kind: "noun", "counted" ("three knocks") or "verb".
        wording: which noun or verb phrase of the class; the last one is held out.
        length, loudness, speed, pitch: stated value ("long", "soft", "fast", "high", ...) or None.
        adjective: which of the synonyms of the loudness is used.
        count: stated number, for kind "counted".
    """

    label: str
    kind: str
    wording: int = 0
    length: str | None = None
    loudness: str | None = None
    speed: str | None = None
    pitch: str | None = None
    adjective: int = 0
    count: int | None = None

    @property
    def text(self) -> str:
        """The words."""
        words = WORDS[self.label]
        if self.kind == "verb":
            adverbs = [_ADVERBS[name][getattr(self, name)] for name in _ADVERBS if getattr(self, name)]
            return " ".join([words.verbs[self.wording].replace("|", " "), *adverbs])
        adjectives = []
        for name in ATTRIBUTES:
            if value := getattr(self, name):
                synonyms = _ADJECTIVES[name][value]
                adjectives.append(synonyms[self.adjective % len(synonyms)])
        if self.kind == "counted":
            return " ".join([NUMERALS[self.count - 1], *adjectives, words.counted[self.count > 1]])
        noun = words.nouns[self.wording]
        text = " ".join([*adjectives, noun.core])
        return with_article(text) if noun.has_article else text

    @property
    def is_plural(self) -> bool:
        """Whether it names several grains without counting them ("guitar notes")."""
        return self.kind == "noun" and WORDS[self.label].nouns[self.wording].core.endswith("s")

    @property
    def predicate(self) -> str:
        """The verb phrase without its subject ("barks"), for kind "verb"."""
        return WORDS[self.label].verbs[self.wording].split("|")[1]

    def allows(self, attribute: str) -> bool:
        """Whether the wording may carry a word for this attribute."""
        spec = EVENT_CLASSES[self.label]
        if (attribute == "pitch" and not spec.has_pitch) or (attribute == "speed" and not spec.has_speed):
            return False
        if self.kind == "verb":
            return attribute in _ADVERBS
        if self.kind == "counted":
            return attribute != "length"
        takes = WORDS[self.label].nouns[self.wording].takes
        needed = {"length": "l", "speed": "s"}.get(attribute, "")
        return takes != "-" and needed in takes


def _stated_facts(scene: Scene, events: Sequence[SceneEvent]) -> dict[str, str | None]:
    """Attribute values that hold for all these events (several only in repetitions); neutral loudness is not said."""
    values = {
        "length": {scene.length_word(event) if len(events) == 1 else None for event in events},
        "loudness": {event.loudness if event.loudness != "neutral" else None for event in events},
        "speed": {event.speed for event in events},
        "pitch": {event.plan.pitch for event in events},
    }
    return {name: next(iter(found)) if len(found) == 1 else None for name, found in values.items()}


def _is_said(rng: np.random.Generator) -> bool:
    return bool(rng.integers(5) < 2)


def draw_phrase(
    rng: np.random.Generator, scene: Scene, events: Sequence[SceneEvent], *, kind: str, held_out: bool = False
) -> Phrase:
    """A random true phrase for an event (or for a repetition: for both events), of kind "noun" or "verb"."""
    label = events[0].label
    if kind == "verb":
        num_seen = len(WORDS[label].verbs) - 1
        phrase = Phrase(label, "verb", num_seen if held_out else int(rng.integers(num_seen)))
    else:
        phrase = _draw_noun(rng, label, {event.plan.count for event in events}, held_out)
    stated = {
        name: value
        for name, value in _stated_facts(scene, events).items()
        if value is not None and phrase.allows(name) and _is_said(rng)
    }
    if kind == "verb" and len(stated) > 1:  # one adverb is enough
        stated.pop(("loudness", "speed")[int(rng.integers(2))])
    return Phrase(label, phrase.kind, phrase.wording, **stated, adjective=int(rng.integers(6)), count=phrase.count)


def _draw_noun(rng: np.random.Generator, label: str, counts: set[int | None], held_out: bool) -> Phrase:
    """A noun phrase or a counted one, without attributes; a single grain is never called by a plural."""
    nouns = WORDS[label].nouns
    num_seen = len(nouns) - 1
    wording = num_seen if held_out else int(rng.integers(num_seen))
    is_wrong_plural = 1 in counts and Phrase(label, "noun", wording).is_plural
    if len(counts) == 1 and None not in counts and (is_wrong_plural or (not held_out and _is_said(rng))):
        return Phrase(label, "counted", count=next(iter(counts)))
    if is_wrong_plural:  # a repetition with different counts
        wording = next(k for k in range(len(nouns)) if not Phrase(label, "noun", k).is_plural)
    return Phrase(label, "noun", wording)


@dataclass(frozen=True)
class Template:
    """A caption pattern.

    Attributes:
        text: with placeholders {k}, {k:n} (noun phrase), {k:v} (verb phrase); k counts events in order of time. {p} is
            the predicate of event 0.
        groups: which events overlap, as in `Scene.groups`.
        background: index of the event that the caption puts in the background, if it does.
        held_out: whether training never uses it.
    """

    text: str
    groups: tuple[tuple[int, ...], ...]
    background: int | None = None
    held_out: bool = False
    is_repeat: bool = False

    @property
    def num_slots(self) -> int:
        """Number of phrases in the caption."""
        return 1 if self.is_repeat else sum(map(len, self.groups))

    def kinds(self) -> dict[int, str]:
        """Slot -> "n", "v" or "" (either)."""
        found: dict[int, str] = {}
        for slot, kind in re.findall(r"\{(\d)(?::(\w))?\}", self.text):
            found[int(slot)] = found.get(int(slot)) or kind
        return found

    def render(self, phrases: Sequence[Phrase]) -> str:
        """The caption."""
        text = self.text.replace("{p}", phrases[0].predicate) if "{p}" in self.text else self.text
        return re.sub(r"\{(\d)(?::\w)?\}", lambda match: phrases[int(match[1])].text, text)

    def pattern(self) -> re.Pattern:
        """A regular expression with one group `s<k>` per event."""
        seen: set[str] = set()

        def group(match: re.Match) -> str:
            if match[1] in seen:
                return f"(?P=s{match[1]})"
            seen.add(match[1])
            return f"(?P<s{match[1]}>.+?)"

        escaped = self.text.replace("{p}", "(?P<predicate>.+)")
        return re.compile(re.sub(r"\{(\d)(?::\w)?\}", group, escaped))


_SINGLE = ("{0}", "the sound of {0:n}", "{0:n} can be heard")
_TWO = ("{0} then {1}", "{0} followed by {1:n}", "{1} after {0}", "first {0} and then {1}", "before {1}, {0}")
_OVERLAP = (
    ("{1} while {0:v}", None),
    ("{0} with {1:n} in the background", 1),
    ("{1} with {0:n} in the background", 0),
    ("{0} and {1} at the same time", None),
)
_REPEAT = (
    "{0:v}, then {p} again",
    "{0:n}, then {0:n} again",
    "{0:n} twice with a pause in between",
    "the sound of {0:n} twice",
)
REPEAT_GROUPS = ((0,), (1,))


@lru_cache
def templates_for(groups: tuple[tuple[int, ...], ...], is_repeat: bool = False) -> tuple[Template, ...]:
    """All templates for scenes with these groups; the last of the two sequence lists is held out."""
    if is_repeat:
        return tuple(Template(text, groups, is_repeat=True) for text in _REPEAT)
    if len(groups) == 1:
        if len(groups[0]) == 1:
            return tuple(Template(text, groups) for text in _SINGLE)
        return tuple(Template(text, groups, background) for text, background in _OVERLAP)
    if any(len(group) == 2 for group in groups):
        return tuple(_mixed_templates(groups))
    if len(groups) == 2:
        return tuple(Template(text, groups, held_out=text == _TWO[-1]) for text in _TWO)
    slots = [f"{{{k}}}" for k in range(len(groups))]
    nouns = [f"{{{k}:n}}" for k in range(len(groups))]
    return (
        Template(f"{' then '.join(slots[:-1])} and finally {slots[-1]}", groups),
        Template(f"{slots[0]} followed by {', '.join(nouns[1:-1])} and {nouns[-1]}", groups),
        Template(f"first {', next '.join(slots[:-1])}, last {slots[-1]}", groups, held_out=True),
    )


def _mixed_templates(groups):
    """Templates such as "a then b while c then d and finally e", one for each way to say the pair."""
    for text, background in _OVERLAP:
        pair = next(group for group in groups if len(group) == 2)
        said = re.sub(r"\{(\d)", lambda match, pair=pair: f"{{{pair[int(match[1])]}", text)
        items = [said if len(group) == 2 else f"{{{group[0]}}}" for group in groups]
        joined = f"{' then '.join(items[:-1])} and finally {items[-1]}"
        yield Template(joined, groups, None if background is None else pair[background])


@lru_cache
def _all_templates() -> tuple[tuple[re.Pattern, Template], ...]:
    """Every template with its pattern, those with more words first."""
    sequences = [tuple((k,) for k in range(n)) for n in range(1, 6)]
    pairs = [((0, 1),)]
    for num_groups in (3, 4):
        for place in range(num_groups):
            indices = iter(range(5))
            pairs.append(tuple(tuple(next(indices) for _ in range(2 if k == place else 1)) for k in range(num_groups)))
    found = [*templates_for(REPEAT_GROUPS, is_repeat=True)]
    found += [template for groups in [*sequences, *pairs] for template in templates_for(groups)]
    found.sort(key=lambda template: -len(re.sub(r"\{.*?\}", "", template.text)))
    return tuple((template.pattern(), template) for template in found)


@dataclass(frozen=True)
class Caption:
    """A caption with its facts: phrase k of a template is about event k in order of time.

    Read from text, the two phrases of an overlap may be exchanged: "a and b at the same time" does not tell.
    """

    template: Template
    phrases: tuple[Phrase, ...]

    @property
    def text(self) -> str:
        """The caption itself."""
        return self.template.render(self.phrases)


def draw_caption(
    rng: np.random.Generator, scene: Scene, *, only_nouns: bool = False, held_out: bool = False
) -> Caption:
    """A random true caption of a scene.

    Args:
        only_nouns: use noun phrases for all events, as the first caption of a clip does.
        held_out: use the held-out wordings, and a held-out template where the scene has one.
    """
    is_repeat = scene.mode == "repeat"
    possible = [t for t in templates_for(scene.groups, is_repeat) if _fits(t, scene, only_nouns)]
    preferred = [t for t in possible if t.held_out == held_out] or [t for t in possible if not t.held_out]
    template = preferred[choose(rng, [1] * len(preferred))]
    phrases = []
    for slot in range(template.num_slots):
        kind = template.kinds()[slot] or ("n" if only_nouns else "nv"[int(rng.integers(2))])
        events = scene.events if is_repeat else scene.events[slot : slot + 1]
        phrases.append(draw_phrase(rng, scene, events, kind={"n": "noun", "v": "verb"}[kind], held_out=held_out))
    return Caption(template, tuple(phrases))


def _fits(template: Template, scene: Scene, only_nouns: bool) -> bool:
    """Whether the template says nothing untrue and, if asked for, leaves room for noun phrases everywhere."""
    if only_nouns and "v" in template.kinds().values():
        return False
    if template.background is None:
        return True
    pair = next(group for group in scene.groups if template.background in group)
    other = pair[1 - pair.index(template.background)]
    levels = [scene.events[k].level_tenths_db for k in (other, template.background)]
    return levels[0] - levels[1] >= _BACKGROUND_TENTHS_DB


def draw_captions(rng: np.random.Generator, scene: Scene, count: int, *, held_out: bool = False) -> list[Caption]:
    """`count` true captions, different as far as the grammar allows; the first has noun phrases only."""
    captions = [draw_caption(rng, scene, only_nouns=True, held_out=held_out)]
    texts = {captions[0].text}
    for _ in range(_MAX_TRIES):
        if len(captions) == count:
            return captions
        caption = draw_caption(rng, scene, held_out=held_out)
        if caption.text not in texts:
            texts.add(caption.text)
            captions.append(caption)
    while len(captions) < count:
        captions.append(draw_caption(rng, scene, held_out=held_out))
    return captions


@lru_cache
def _phrase_table() -> dict[str, Phrase]:
    """Bare words (no article, numeral, adjective or adverb) -> phrase."""
    table: dict[str, Phrase] = {}
    for label, words in WORDS.items():
        for number in words.counted or ():
            table[f"# {number}"] = Phrase(label, "counted")
        for k, noun in enumerate(words.nouns):
            table[noun.core] = Phrase(label, "noun", k)
        for k, verb in enumerate(words.verbs):
            table[verb.replace("|", " ")] = Phrase(label, "verb", k)
    return table


@lru_cache(maxsize=100_000)
def parse_phrase(text: str) -> Phrase | None:
    """The phrase that reads `text`, or None if there is none."""
    for words, found in _phrase_readings(text):
        phrase = _phrase_table().get(words)
        if phrase is None:
            continue
        for adjective in range(6):
            read = Phrase(phrase.label, phrase.kind, phrase.wording, **{"adjective": adjective, **found})
            if read.text == text:
                return read
    return None


def _phrase_readings(text: str):
    """(bare words, attributes) of a text read as a verb phrase and as a noun phrase."""
    for name, adverbs in _ADVERBS.items():
        for value, adverb in adverbs.items():
            if text.endswith(f" {adverb}"):
                yield text.removesuffix(f" {adverb}"), {name: value}
    yield text, {}
    rest, found = text.removeprefix("an ").removeprefix("a "), {}
    first, _, others = rest.partition(" ")
    if first in NUMERALS:
        rest, found["count"] = others, NUMERALS.index(first) + 1
    for name in ATTRIBUTES:
        for value, synonyms in _ADJECTIVES[name].items():
            for synonym in synonyms:
                if rest.startswith(f"{synonym} "):
                    rest, found[name] = rest.removeprefix(f"{synonym} "), value
    yield (f"# {rest}" if "count" in found else rest), found


@lru_cache(maxsize=100_000)
def parse_caption(text: str) -> Caption:
    """The facts of a caption of this grammar.

    Raises:
        ValueError: if the text is no caption of the synthetic scenes.
    """
    for pattern, template in _all_templates():
        match = pattern.fullmatch(text)
        if match is None:
            continue
        phrases = [parse_phrase(match[f"s{slot}"]) for slot in range(template.num_slots)]
        if all(phrases):
            caption = Caption(template, tuple(phrases))
            if _is_well_formed(caption) and caption.text == text:
                return caption
    raise ValueError(f"`text` {text!r} is no caption of the synthetic scenes. Pass one that `SoundScenes` made.")


def _is_well_formed(caption: Caption) -> bool:
    """Whether each slot holds the kind of phrase that its template asks for."""
    wanted = {"": ("n", "v"), "n": ("n",), "v": ("v",)}
    return all(
        ("v" if phrase.kind == "verb" else "n") in wanted[caption.template.kinds()[slot]]
        for slot, phrase in enumerate(caption.phrases)
    )


__all__ = [
    "ATTRIBUTES",
    "Caption",
    "Phrase",
    "Template",
    "draw_caption",
    "draw_captions",
    "draw_phrase",
    "parse_caption",
    "parse_phrase",
    "templates_for",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Questions about synthetic scenes, with answers balanced so that guessing without listening does not pay.

    scenes of a block -> candidates per type -> equally many of each answer -> questions per scene

Yes/no and two-way types have exactly as many of either answer in every block; counts have equally many of each answer
that the block can give; types whose answer is a sound have the right option equally often in each position.
"""

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from .scene_layout import Scene, SceneEvent
from .scene_words import NUMERALS, WORDS, zero_shot_text
from .sound_events import CLASSES

QUESTION_TYPES = (
    "presence", "count", "order", "overlap", "louder", "longer", "pitch", "speed", "loudness", "number", "half",
)  # fmt: skip
MIN_QUESTIONS = 3  # per scene
CONFUSABLE = (
    ("siren", "whistle", "rising_sweep", "falling_sweep", "bird", "laser"),
    ("clapping", "applause", "rain", "fire", "typing"),
    ("drum", "knocking", "footsteps", "heartbeat", "explosion"),
    ("beep", "telephone", "car_horn", "bell", "buzz"),
    ("wind", "thunder", "engine", "explosion"),
    ("hiss", "rain", "cricket", "water"),
    ("ticking", "typing", "cricket", "glass"),
    ("dog_bark", "humming", "plucked_string", "laser"),
)
_LEVEL_STEP = 60  # tenths of dB between two sounds one of which is called louder
_LENGTH_RATIO = 150  # percent of the shorter sound that the longer one lasts
_TWO_WAY = {
    "overlap": ("yes", "no"),
    "pitch": ("high", "low"),
    "speed": ("fast", "slow"),
    "loudness": ("loud", "quiet"),
    "half": ("the first half", "the second half"),
}


def draw_questions(rng: np.random.Generator, scenes: list[Scene]) -> list[list[dict[str, Any]]]:
    """Per scene a list of questions: {question, answer, type, options}; at least three each.

    Args:
        rng: the generator of the whole block.
        scenes: the block over which answers are balanced.
    """
    found: list[list[dict[str, Any]]] = [_presence_pair(rng, scene) for scene in scenes]
    for name in QUESTION_TYPES[1:]:
        drawn = [(index, _CANDIDATES[name](rng, scene)) for index, scene in enumerate(scenes)]
        candidates = [(index, entry) for index, entry in drawn if entry is not None]
        candidates = [candidates[k] for k in rng.permutation(len(candidates))]
        if name in ("order", "louder", "longer"):
            chosen = _balance_positions(rng, candidates)
        else:
            chosen = _balance_answers(name, candidates)
        for index, (question, answer, options) in chosen:
            found[index].append({"question": question, "answer": answer, "type": name, "options": list(options)})
    for index, scene in enumerate(scenes):
        while len(found[index]) < MIN_QUESTIONS:
            asked = {entry["question"] for entry in found[index]}
            found[index] += [
                entry for entry in _presence_pair(rng, scene, heard=True) if entry["question"] not in asked
            ]
    return found


def _balance_answers(name: str, candidates: list) -> list:
    """Equally many candidates of each answer; two-way types need both answers."""
    groups = defaultdict(list)
    for candidate in candidates:
        groups[candidate[1][1]].append(candidate)
    if name in _TWO_WAY and len(groups) < 2:
        return []
    each = min(map(len, groups.values()), default=0)
    return [candidate for answer in sorted(groups) for candidate in groups[answer][:each]]


def _balance_positions(rng: np.random.Generator, candidates: list) -> list:
    """The candidates with their options rearranged: the answer stands equally often in each position."""
    by_size = defaultdict(list)
    for candidate in candidates:
        by_size[len(candidate[1][2])].append(candidate)
    chosen = []
    for size, group in sorted(by_size.items()):
        for k, (index, (question, answer, options)) in enumerate(group[: len(group) // size * size]):
            others = [option for option in options if option != answer]
            others = [others[j] for j in rng.permutation(len(others))]
            others.insert(k % size, answer)
            chosen.append((index, (question.format(*others), answer, others)))
    return chosen


def _pick(rng: np.random.Generator, items: list):
    return items[int(rng.integers(len(items)))] if items else None


def _the(label: str) -> str:
    return f"the {zero_shot_text(label)}"


# Candidates: (question, answer, options) or None.


def _presence_pair(rng: np.random.Generator, scene: Scene, heard: bool = False) -> list[dict[str, Any]]:
    """One question with the answer yes and one with the answer no, about a class that is easily confused."""
    similar = {other for group in CONFUSABLE if set(group) & set(scene.labels) for other in group}
    absent = [label for label in CLASSES if label in similar and label not in scene.labels]
    pair = []
    for label, answer in ((_pick(rng, list(scene.labels)), "yes"), (_pick(rng, absent), "no")):
        words = WORDS[label]
        verb = "are" if words.is_plural else "is"
        question = f"can {words.nouns[0].text} be heard?" if heard else f"{verb} there {words.nouns[0].text}?"
        pair.append({"question": question, "answer": answer, "type": "presence", "options": ["yes", "no"]})
    return pair


def _unique_events(scene: Scene) -> list[SceneEvent]:
    """Events that "the ..." names without doubt."""
    return [] if scene.mode == "repeat" else list(scene.events)


def _ask_count(rng, scene):
    event = _pick(rng, [event for event in _unique_events(scene) if event.plan.count])
    if event is None:
        return None
    count = event.plan.count
    first = int(rng.integers(max(1, count - 3), min(count, len(NUMERALS) - 3) + 1))
    options = NUMERALS[first - 1 : first + 3]
    return f"how many {WORDS[event.label].counted[1]} are there?", NUMERALS[count - 1], options


def _ask_order(rng, scene):
    if len(scene.groups) < 2 or scene.mode == "repeat":
        return None
    labels = [scene.events[group[0]].label if len(group) == 1 else None for group in scene.groups]
    asked = [(f"what comes right after {_the(a)}?", b) for a, b in pairwise(labels) if a and b]
    if labels[0]:
        asked.append(("which sound is first?", labels[0]))
    picked = _pick(rng, asked)
    if picked is None:
        return None
    question, answer = picked
    others = [label for label in scene.labels if label != answer]
    absent = [label for label in CLASSES if label not in scene.labels]
    others = (others + [absent[k] for k in rng.permutation(len(absent))])[:3]
    return question, zero_shot_text(answer), [zero_shot_text(label) for label in (answer, *others)]


def _ask_overlap(rng, scene):
    if len(scene.events) < 2 or scene.mode == "repeat":
        return None
    pairs = [group for group in scene.groups if len(group) == 2]
    if pairs:
        first, second = pairs[0]
    else:
        first, second = (int(k) for k in rng.permutation(len(scene.events))[:2])
    names = [_the(scene.events[k].label) for k in (first, second)]
    if rng.integers(2):
        names.reverse()
    return f"do {names[0]} and {names[1]} sound at the same time?", "yes" if pairs else "no", ("yes", "no")


def _ask_more(word: str, measure: Callable[[SceneEvent], int], is_clear: Callable[[int, int], bool]):
    """A candidate maker for "which is louder / longer"; the options are put into the question later."""

    def ask(rng, scene):
        events = _unique_events(scene)
        pairs = [(a, b) for a in events for b in events if is_clear(measure(a), measure(b))]
        picked = _pick(rng, pairs)
        if picked is None:
            return None
        names = [zero_shot_text(event.label) for event in picked]
        return f"which is {word}, the {{0}} or the {{1}}?", names[0], names

    return ask


def _ask_value(question: str, get: Callable[[SceneEvent, Scene], str | None], name: str):
    """A candidate maker for a two-way attribute of one event."""

    def ask(rng, scene):
        asked = [(event, get(event, scene)) for event in _unique_events(scene)]
        picked = _pick(rng, [(event, value) for event, value in asked if value is not None])
        if picked is None:
            return None
        event, value = picked
        return question.format(_the(event.label)), value, _TWO_WAY[name]

    return ask


def _ask_number(rng, scene):
    number = len(scene.labels)
    first = int(rng.integers(max(1, number - 3), min(number, 2) + 1))
    return "how many different sounds are there?", NUMERALS[number - 1], NUMERALS[first - 1 : first + 3]


def _half_of(event: SceneEvent, scene: Scene) -> str | None:
    if 2 * event.offset_ms <= scene.duration_ms:
        return "the first half"
    return "the second half" if 2 * event.onset_ms >= scene.duration_ms else None


_CANDIDATES: dict[str, Callable] = {
    "count": _ask_count,
    "order": _ask_order,
    "overlap": _ask_overlap,
    "louder": _ask_more("louder", lambda event: event.level_tenths_db, lambda a, b: a - b >= _LEVEL_STEP),
    "longer": _ask_more("longer", lambda event: event.plan.length_ms, lambda a, b: 100 * a >= _LENGTH_RATIO * b),
    "pitch": _ask_value("is {} high or low in pitch?", lambda event, scene: event.plan.pitch, "pitch"),
    "speed": _ask_value("is {} fast or slow?", lambda event, scene: event.speed, "speed"),
    "loudness": _ask_value(
        "is {} loud or quiet?",
        lambda event, scene: {"loud": "loud", "soft": "quiet"}.get(event.loudness),
        "loudness",
    ),
    "number": _ask_number,
    "half": _ask_value("in which half of the clip is {}?", _half_of, "half"),
}


__all__ = ["CONFUSABLE", "MIN_QUESTIONS", "QUESTION_TYPES", "draw_questions"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What retrieval on synthetic scenes can reach at best, and which clips a caption is true of.

Captions are not unique: two clips with the same sounds may have captions that fit both. `oracle_ceilings` gives the
expected recall of an oracle that knows the labels and nothing else, to be printed next to measured values; `relevance`
gives every clip that a caption describes, for recall where any of them counts as found.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from math import comb
from typing import Any, Protocol

import numpy as np

from .scene_text import Caption, Phrase, parse_caption


class Structured(Protocol):
    """A data set of scenes whose rows can be had without audio: `SoundScenes` and `RenderedScenes`."""

    def __len__(self) -> int: ...

    def structure(self, index: int) -> dict[str, Any]:
        """The row without audio."""
        ...


def oracle_ceilings(dataset: Structured) -> dict[str, dict[str, float]]:
    """Expected recall of two oracles: `ordered` knows each clip's labels in order of onset, `bag` only which labels.

    Clips with equal labels are tied for an oracle. Ties count with their expectation over random orders: with g clips
    of equal labels, a caption finds its own clip among the first k with probability min(k, g) / g, and a clip finds
    one of its c captions among the g * c equally good ones as in drawing k of them without return.

    Returns:
        {"ordered": {"text_to_audio/R@1": ..., "text_to_audio/R@5", "text_to_audio/R@10", "audio_to_text/R@1", "@5",
        "@10"}, "bag": {...}}, values 0..1, for one gallery of all rows.
    """
    rows = [dataset.structure(index) for index in range(len(dataset))]
    num_captions = len(rows[0]["captions"])
    keys = {
        "ordered": [tuple(event["label"] for event in row["events"]) for row in rows],
        "bag": [tuple(sorted(event["label"] for event in row["events"])) for row in rows],
    }
    ceilings = {}
    for name, labels in keys.items():
        ties = Counter(labels)
        ties_of_row = [ties[key] for key in labels]
        ceilings[name] = {}
        for k in (1, 5, 10):
            found = [min(k, g) / g for g in ties_of_row]
            ceilings[name][f"text_to_audio/R@{k}"] = float(np.mean(found))
        for k in (1, 5, 10):
            found = [_probability_of_any(num_captions, num_captions * g, k) for g in ties_of_row]
            ceilings[name][f"audio_to_text/R@{k}"] = float(np.mean(found))
    return ceilings


def _probability_of_any(num_right: int, num_all: int, num_drawn: int) -> float:
    """Probability that some of the right items are among those drawn without return."""
    num_drawn = min(num_drawn, num_all)
    return 1 - comb(num_all - num_right, num_drawn) / comb(num_all, num_drawn)


def order_pairs(dataset: Structured) -> list[tuple[int, int]]:
    """Index pairs of the test part `order_pairs`: the same events in opposite order.

    Between the two clips only order tells the captions apart (chance 0.5).
    """
    indices = [k for k in range(len(dataset)) if dataset.structure(k)["part"] == "order_pairs"]
    return [(k, k + 1) for k in indices if k % 10 == 5 and k + 1 in indices]


def relevance(dataset: Structured, captions: Sequence[str] | None = None) -> list[list[int]]:
    """For each caption the indices of all clips that it describes completely.

    A caption describes a clip if it names each of its events and no other, in an order and overlap that is right, with
    attributes that the annotation confirms. The clip it was written for is always among them.

    Args:
        dataset: its rows are the gallery.
        captions: captions of this grammar; by default all captions of the data set, clip by clip.

    Raises:
        ValueError: for a caption that is not of this grammar.
    """
    rows = [dataset.structure(index) for index in range(len(dataset))]
    rows_of_bag = defaultdict(list)
    for index, row in enumerate(rows):
        rows_of_bag[tuple(sorted(event["label"] for event in row["events"]))].append(index)
    if captions is None:
        captions = [caption for row in rows for caption in row["captions"]]
    found = []
    for text in captions:
        caption = parse_caption(text)
        named = [phrase.label for phrase in caption.phrases]
        bag = tuple(sorted(named * 2 if caption.template.is_repeat else named))
        found.append([index for index in rows_of_bag[bag] if describes(caption, rows[index])])
    return found


def describes(caption: Caption, row: dict[str, Any]) -> bool:
    """Whether a caption is true of a row (its `events` and `duration`) and leaves no event out."""
    if caption.template.is_repeat:
        phrase = caption.phrases[0]
        return len(row["events"]) == 2 and all(_fits(phrase, event, row) for event in row["events"])
    events = {event["label"]: event for event in row["events"]}
    if len(row["events"]) != len(caption.phrases) or {phrase.label for phrase in caption.phrases} != set(events):
        return False
    named = [events[phrase.label] for phrase in caption.phrases]
    if not all(_fits(phrase, event, row) for phrase, event in zip(caption.phrases, named, strict=True)):
        return False
    groups = [[named[k] for k in group] for group in caption.template.groups]
    overlaps = all(max(e["onset"] for e in group) < min(e["offset"] for e in group) for group in groups)
    ordered = all(
        max(e["offset"] for e in before) <= min(e["onset"] for e in after) for before, after in pairwise(groups)
    )
    return overlaps and ordered and _background_is_softer(caption, named)


def _background_is_softer(caption: Caption, named: list[dict[str, Any]]) -> bool:
    background = caption.template.background
    if background is None:
        return True
    group = next(group for group in caption.template.groups if background in group)
    other = group[1 - group.index(background)]
    return named[background]["level_db"] < named[other]["level_db"]


def _fits(phrase: Phrase, event: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether every attribute stated in the phrase is that of the event."""
    if phrase.label != event["label"] or (phrase.count is not None and phrase.count != event["count"]):
        return False
    if phrase.is_plural and event["count"] == 1:
        return False
    share = (event["offset"] - event["onset"]) / row["duration"]
    length_is_right = {"long": share > 0.6, "brief": share < 0.15, None: True}[phrase.length]
    stated = ((phrase.loudness, event["loudness"]), (phrase.pitch, event["pitch"]), (phrase.speed, event["speed"]))
    return length_is_right and all(said is None or said == true for said, true in stated)


__all__ = ["Structured", "describes", "oracle_ceilings", "order_pairs", "relevance"]

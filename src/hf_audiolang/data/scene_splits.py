# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Which classes meet in which split of the synthetic scenes.

    split        code  scenes
    train          0   any class pairs except the held-out ones
    validation     1   likewise
    test           2   likewise, in blocks of ten rows: 5 collision_free, 2 order_pairs, 3 plain
    composition    3   each scene has at least one held-out pair
    zero_shot      4   single events, classes in turn
    long           5   20-30 s
    ood_level      6   levels outside the training range

Rows of `test`: a *bag* is the multiset of labels of a scene. Bags of the collision-free part occur once in the whole
test split, those of an order pair in its two rows only (same events, opposite order).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from .scene_layout import choose
from .sound_events import CLASSES

SPLIT_CODES = {
    "train": 0, "validation": 1, "test": 2, "composition": 3, "zero_shot": 4, "long": 5, "ood_level": 6,
}  # fmt: skip
TEST_PARTS = ("collision_free",) * 5 + ("order_pairs",) * 2 + ("plain",) * 3  # parts of a block of ten rows
EVENT_WEIGHTS = (30, 35, 20, 10, 5)  # how often a scene has 1, 2, ... 5 events
MAX_EVENTS = len(EVENT_WEIGHTS)
HELD_OUT_PERCENT = 15
_STREAMS = {"structure": 0, "audio": 1, "captions": 2, "questions": 3, "blocks": 4}
_MAX_TRIES = 500


@dataclass(frozen=True)
class Casting:
    """What the drawing of classes depends on: a scene's class pool and number of events."""

    classes: tuple[str, ...]
    n_events: tuple[int, int]
    version: int = 1


def generator(version: int, seed: int, split: str, index: int, stream: str) -> np.random.Generator:
    """The random generator of one row and purpose; nothing else decides what a row is."""
    entropy = [version, seed, SPLIT_CODES[split], index, _STREAMS[stream]]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


@lru_cache
def held_out_pairs(version: int = 1) -> frozenset[tuple[str, str]]:
    """The 74 of 496 class pairs (in the order of `CLASSES`) that never meet outside of the split `composition`."""
    pairs = list(combinations(CLASSES, 2))
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence([version, 74]))).permutation(len(pairs))
    return frozenset(pairs[k] for k in order[: len(pairs) * HELD_OUT_PERCENT // 100])


@lru_cache
def unseen_class_names(count: int, version: int = 1) -> tuple[str, ...]:
    """The `count` classes that `unseen_classes=count` removes from the split `train`, in the order of `CLASSES`."""
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence([version, 75]))).permutation(len(CLASSES))
    chosen = {CLASSES[k] for k in order[:count]}
    return tuple(label for label in CLASSES if label in chosen)


def is_held_out(first: str, second: str, version: int = 1) -> bool:
    """Whether these two classes form a held-out pair."""
    pairs = held_out_pairs(version)
    return (first, second) in pairs or (second, first) in pairs


def usable_held_out_pairs(casting: Casting) -> list[tuple[str, str]]:
    """Held-out pairs within the class pool, in the order of `CLASSES`."""
    return [
        pair
        for pair in combinations(sorted(casting.classes, key=CLASSES.index), 2)
        if pair in held_out_pairs(casting.version)
    ]


def draw_num_events(rng: np.random.Generator, fewest: int, most: int) -> int:
    """Number of events between two bounds, with the frequencies of `EVENT_WEIGHTS`."""
    return fewest + choose(rng, EVENT_WEIGHTS[fewest - 1 : most])


def draw_labels(
    rng: np.random.Generator, casting: Casting, num_events: int, *, with_repeats: bool = True
) -> tuple[str, ...]:
    """Distinct classes without held-out pair, in random order; two events are one class twice in one scene of seven.

    Fewer are returned if the pool has no more classes that may meet.
    """
    if num_events == 2 and (len(casting.classes) == 1 or (with_repeats and choose(rng, (6, 1)))):
        label = casting.classes[int(rng.integers(len(casting.classes)))]
        return (label, label)
    labels: list[str] = []
    pool = list(casting.classes)
    while pool and len(labels) < num_events:
        label = pool.pop(int(rng.integers(len(pool))))
        labels.append(label)
        pool = [other for other in pool if not is_held_out(label, other, casting.version)]
    return tuple(labels)


def draw_held_out_labels(rng: np.random.Generator, casting: Casting, num_events: int) -> tuple[str, ...]:
    """Distinct classes in random order, among them at least one held-out pair."""
    pairs = usable_held_out_pairs(casting)
    labels = list(pairs[int(rng.integers(len(pairs)))])
    pool = [label for label in casting.classes if label not in labels]
    while pool and len(labels) < num_events:
        labels.append(pool.pop(int(rng.integers(len(pool)))))
    return tuple(labels[k] for k in rng.permutation(len(labels)))


def bag_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Sorted labels: what remains of a scene when order is forgotten."""
    return tuple(sorted(labels))


@lru_cache(maxsize=8)
def cast_test_rows(casting: Casting, most: int, seed: int, num_blocks: int) -> tuple[tuple[str, ...], ...]:
    """Labels of the first `10 * num_blocks` rows of the test split; more blocks never change earlier ones.

    Args:
        most: largest number of events that the longest clip holds.

    Raises:
        ValueError: if the classes do not give enough different bags.
    """
    unique: set[tuple[str, ...]] = set()  # bags that no other row may have
    seen: set[tuple[str, ...]] = set()
    rows = []
    fewest, most = casting.n_events[0], min(most, casting.n_events[1])
    for block in range(num_blocks):
        rng = generator(casting.version, seed, "test", block, "blocks")
        for part in TEST_PARTS:
            if part == "order_pairs" and len(rows) % 10 == 6:
                rows.append(rows[-1][::-1])
                continue
            if part == "plain":
                labels = _draw_new(rng, casting, (fewest, most), unique, with_repeats=True)
            else:
                labels = _draw_new(rng, casting, (max(2, fewest), most), seen, with_repeats=False)
                unique.add(bag_of(labels))
            seen.add(bag_of(labels))
            rows.append(labels)
    return tuple(rows)


def _draw_new(rng, casting: Casting, bounds: tuple[int, int], taken: set, *, with_repeats: bool) -> tuple[str, ...]:
    """Labels whose bag is not yet taken."""
    for _ in range(_MAX_TRIES):
        labels = draw_labels(rng, casting, draw_num_events(rng, *bounds), with_repeats=with_repeats)
        if bag_of(labels) not in taken and len(labels) >= bounds[0]:
            return labels
    raise ValueError(
        f"`size` is too large: {len(casting.classes)} classes with {bounds[0]} to {bounds[1]} events give no more "
        f"than about {len(taken)} different label sets. Pass a smaller `size`, more `classes` or a wider `n_events`."
    )


__all__ = [
    "EVENT_WEIGHTS",
    "MAX_EVENTS",
    "SPLIT_CODES",
    "TEST_PARTS",
    "Casting",
    "bag_of",
    "cast_test_rows",
    "draw_held_out_labels",
    "draw_labels",
    "draw_num_events",
    "generator",
    "held_out_pairs",
    "is_held_out",
    "unseen_class_names",
    "usable_held_out_pairs",
]

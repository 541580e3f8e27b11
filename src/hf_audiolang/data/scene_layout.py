# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Composition of one synthetic scene: which event sounds when, and how loud, in whole milliseconds and tenths of dB.

    labels -> mode -> slots in time -> EventPlan per slot -> levels -> Scene

Nothing here looks at audio: only integers are drawn and compared, so a scene is the same on every machine. That every
event can be heard is ensured by construction (see `scene_audibility`): a combination of levels that would hide an
event is drawn again, up to 20 times, and then laid out one after the other instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .scene_audibility import is_audible
from .sound_events import EVENT_CLASSES, EventPlan
from .sound_plans import LOUDNESS_LEVELS_DB, MIN_EVENT_MS, draw_plan

MODES = ("single", "sequence", "overlap", "repeat", "mixed")
GAP_MS = 100
SLOT_MS = MIN_EVENT_MS + GAP_MS  # room that one event of a sequence needs
OVERLAP_MIN_MS = 1600  # shortest stretch that holds a long event with a short one inside
MAX_REDRAWS = 20
LEVEL_JITTER = 15  # tenths of dB
BACKGROUND_TENTHS_DB = (-600, -450)
OOD_GAINS_DB = (-24, -18, 14)  # scene gains of the split `ood_level`; training levels span -37.5 .. -14.5 dBFS


@dataclass(frozen=True)
class SceneEvent:
    """One event in a scene.

    `loudness` is "soft", "neutral" or "loud"; `level_tenths_db` the active level in tenths of dBFS. `speed` is None
    for trains of fewer than three grains, where nobody could tell.
    """

    plan: EventPlan
    onset_ms: int
    level_tenths_db: int
    loudness: str

    @property
    def label(self) -> str:
        """Class name."""
        return self.plan.label

    @property
    def offset_ms(self) -> int:
        """End of the event in the clip."""
        return self.onset_ms + self.plan.length_ms

    @property
    def speed(self) -> str | None:
        """Stated speed, "slow" or "fast"."""
        return self.plan.speed if len(self.plan.grain_starts_ms) >= 3 else None


@dataclass(frozen=True)
class Scene:
    """A scene without its audio.

    `groups` are indices into `events` in order of time: one index for an event on its own, (long, short) for a short
    event inside a long one.
    """

    duration_ms: int
    mode: str
    events: tuple[SceneEvent, ...]
    groups: tuple[tuple[int, ...], ...]
    background_tenths_db: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in order of onset, without repetition."""
        return tuple(dict.fromkeys(event.label for event in self.events))

    def length_word(self, event: SceneEvent) -> str | None:
        """The word for an event that takes over 60 % of the clip ("long"), under 15 % ("brief"), or None."""
        percent = 100 * event.plan.length_ms
        if percent > 60 * self.duration_ms:
            return "long"
        return "brief" if percent < 15 * self.duration_ms else None


def choose(rng: np.random.Generator, weights: Sequence[int]) -> int:
    """Index drawn with integer weights."""
    draw = int(rng.integers(sum(weights)))
    for index, weight in enumerate(weights):
        draw -= weight
        if draw < 0:
            return index
    raise AssertionError("weights must be positive")


def fitting_events(duration_ms: int) -> int:
    """How many events a sequence of this duration can hold."""
    return max(1, (duration_ms + GAP_MS) // SLOT_MS)


def needed_ms(num_events: int) -> int:
    """Shortest clip that holds a sequence of this many events, in milliseconds."""
    return num_events * SLOT_MS - GAP_MS


def compose(
    rng: np.random.Generator,
    labels: Sequence[str],
    duration_ms: int,
    *,
    only_sequence: bool = False,
    level_gain_db: int = 0,
) -> Scene:
    """A scene with exactly these events; two equal labels make a repetition.

    Args:
        labels: class names, in the order of the sequence.
        duration_ms: must hold them: `len(labels) <= fitting_events(duration_ms)`.
        only_sequence: never lay a short event inside a long one.
        level_gain_db: added to all levels, with no loudness words (split `ood_level`); 0 draws loudness per event.
    """
    background = int(rng.integers(BACKGROUND_TENTHS_DB[0], BACKGROUND_TENTHS_DB[1] + 1)) + 10 * level_gain_db
    groups = None
    if not only_sequence:
        groups = _overlapping_groups(rng, labels, duration_ms, level_gain_db)
    if groups is None:
        slots = _draw_slots(rng, len(labels), duration_ms, is_alone=len(labels) == 1)
        groups = [[_draw_event(rng, label, slot, level_gain_db)] for label, slot in zip(labels, slots, strict=True)]
    return _assemble(groups, duration_ms, background)


def mirror(scene: Scene) -> Scene:
    """The scene with its events in the opposite order: same events, levels and gaps, time mirrored."""
    groups = [
        [replace(scene.events[k], onset_ms=scene.duration_ms - scene.events[k].offset_ms) for k in group]
        for group in reversed(scene.groups)
    ]
    return _assemble(groups, scene.duration_ms, scene.background_tenths_db)


def _assemble(groups: list[list[SceneEvent]], duration_ms: int, background_tenths_db: int) -> Scene:
    events = tuple(event for group in groups for event in group)
    indices, start = [], 0
    for group in groups:
        indices.append(tuple(range(start, start + len(group))))
        start += len(group)
    if len(events) == 1:
        mode = "single"
    elif len({event.label for event in events}) < len(events):
        mode = "repeat"
    elif len(groups) == len(events):
        mode = "sequence"
    else:
        mode = "overlap" if len(groups) == 1 else "mixed"
    return Scene(duration_ms, mode, events, tuple(indices), background_tenths_db)


def _draw_slots(rng, num_slots: int, duration_ms: int, is_alone: bool) -> list[tuple[int, int]]:
    """Disjoint (start, room) slots of at least 0.6 s with gaps of at least 0.1 s, spread over the clip."""
    if is_alone:
        shortest, longest = ((8, 30), (30, 100))[choose(rng, (1, 4))]  # percent of the clip
        room = max(MIN_EVENT_MS, duration_ms * int(rng.integers(shortest, longest + 1)) // 100)
        return [(int(rng.integers(duration_ms - room + 1)), room)]
    spare = duration_ms - num_slots * SLOT_MS + GAP_MS
    weights = [int(w) for w in rng.integers(1, 101, 2 * num_slots + 1)]
    weights[1::2] = [4 * w for w in weights[1::2]]  # events take most of the spare time, gaps the rest
    shares = [spare * w // sum(weights) for w in weights]
    slots, time = [], shares[0]
    for k in range(num_slots):
        room = MIN_EVENT_MS + shares[2 * k + 1]
        slots.append((time, room))
        time += room + GAP_MS + shares[2 * k + 2]
    return slots


def _draw_event(rng, label: str, slot: tuple[int, int], level_gain_db: int) -> SceneEvent:
    """An event somewhere in its slot."""
    start, room = slot
    plan = draw_plan(rng, label, room)
    onset = start + int(rng.integers(room - plan.length_ms + 1))
    return SceneEvent(plan, onset, *_draw_level(rng, level_gain_db))


def _draw_level(rng, level_gain_db: int) -> tuple[int, str]:
    """(level in tenths of dBFS, loudness word)."""
    loudness = "neutral" if level_gain_db else ("neutral", "loud", "soft")[choose(rng, (2, 1, 1))]
    jitter = int(rng.integers(-LEVEL_JITTER, LEVEL_JITTER + 1))
    return 10 * (LOUDNESS_LEVELS_DB[loudness] + level_gain_db) + jitter, loudness


def _overlapping_groups(rng, labels, duration_ms: int, level_gain_db: int) -> list[list[SceneEvent]] | None:
    """Groups of an overlap (two events) or a mixed scene (four and more), or None for a plain sequence."""
    if len(labels) == 2 and labels[0] != labels[1] and duration_ms >= OVERLAP_MIN_MS and choose(rng, (2, 1)):
        span = duration_ms * int(rng.integers(75, 96)) // 100
        slot = (int(rng.integers(duration_ms - span + 1)), span)
        pair = _draw_pair(rng, labels, slot, level_gain_db, shortest_ms=duration_ms * 75 // 100)
        return [pair] if pair else None
    if len(labels) >= 4 and duration_ms >= SLOT_MS * len(labels) and choose(rng, (1, 1)):
        slots = _draw_slots(rng, len(labels) - 1, duration_ms, is_alone=False)
        widest = max(range(len(slots)), key=lambda k: (slots[k][1], -k))
        if slots[widest][1] < OVERLAP_MIN_MS:
            return None
        pair = _draw_pair(rng, labels[widest : widest + 2], slots[widest], level_gain_db)
        if pair is None:
            return None
        singles = [*labels[:widest], None, *labels[widest + 2 :]]
        return [
            pair if k == widest else [_draw_event(rng, label, slots[k], level_gain_db)]
            for k, label in enumerate(singles)
        ]
    return None


def _draw_pair(
    rng, labels: Sequence[str], slot: tuple[int, int], level_gain_db: int, shortest_ms: int = 0
) -> list[SceneEvent] | None:
    """[long event, short event inside it], both audible, or None after 20 vain draws."""
    start, room = slot
    for _ in range(MAX_REDRAWS):
        first = int(rng.integers(2))
        long_label, short_label = labels[first], labels[1 - first]
        long_plan = draw_plan(rng, long_label, room)
        inner_room = max(MIN_EVENT_MS, long_plan.length_ms * int(rng.integers(15, 56)) // 100)
        spare = long_plan.length_ms - inner_room
        if EVENT_CLASSES[long_label].max_ms < room or long_plan.length_ms < shortest_ms or spare < 4 * GAP_MS:
            continue
        long_event = SceneEvent(long_plan, start, *_draw_level(rng, level_gain_db))
        inner_start = start + GAP_MS + int(rng.integers(spare - 2 * GAP_MS + 1))
        short_event = _draw_event(rng, short_label, (inner_start, inner_room), level_gain_db)
        if is_audible(short_label, short_event.level_tenths_db, long_label, long_event.level_tenths_db):
            return [long_event, short_event]
    return None


__all__ = ["MODES", "SLOT_MS", "Scene", "SceneEvent", "choose", "compose", "fitting_events", "mirror", "needed_ms"]

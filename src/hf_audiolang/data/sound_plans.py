# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Single events: draw what they are, in whole milliseconds, and render one class on its own.

draw_plan(rng, label, room_ms)   -> EventPlan: length, pitch, speed, start of every grain (integers only)
render_event(label, seconds, seed, pitch="high", ...)   -> (S,) float32
"""

import numpy as np

from .sound_events import CLASSES, EVENT_CLASSES, EventClass, EventPlan, event_class, synthesize
from .sound_signals import SYNTHESIS_RATE, add_grain, limit, resample

PITCHES = ("low", "high")
SPEEDS = ("slow", "fast")
LOUDNESS_LEVELS_DB = {"soft": -36, "neutral": -26, "loud": -16}
MIN_EVENT_MS = 600  # every class fits into this many milliseconds
MAX_EVENT_MS = 120_000


def draw_plan(
    rng: np.random.Generator, label: str, room_ms: int, *, pitch: str | None = None, speed: str | None = None
) -> EventPlan:
    """An event of class `label` that fits into `room_ms` and fills it as far as the class allows.

    A train ends with its last grain. Pitch and speed are drawn where they are attributes of the class and not given.
    Only integers are drawn, so the plan is the same on every machine.
    """
    spec = event_class(label)
    room_ms = min(room_ms, spec.max_ms)
    if spec.has_pitch and pitch is None:
        pitch = PITCHES[int(rng.integers(2))]
    if not spec.period_ms:
        return EventPlan(label, room_ms, pitch)
    if spec.has_speed and speed is None:
        fits = [name for name in SPEEDS if spec.period_ms[name][0] + spec.grain_ms <= room_ms]
        speed = fits[int(rng.integers(len(fits)))] if fits else "fast"
    starts = _draw_grain_starts(rng, spec, room_ms, spec.period_ms[speed or ""])
    length_ms = starts[-1] + spec.grain_ms
    if label == "plucked_string":  # the last note rings on for up to 100 ms
        length_ms = min(room_ms, length_ms + 100)
    return EventPlan(label, length_ms, pitch, speed, tuple(starts))


def _draw_grain_starts(rng, spec: EventClass, room_ms: int, period_range: tuple[int, int]) -> list[int]:
    """Start times in ms: evenly spaced with jitter; typing pauses between bursts."""
    last_start = room_ms - spec.grain_ms
    low, high = period_range
    period = int(rng.integers(low, max(low, min(high, last_start)) + 1))
    shift = period * spec.jitter_percent // 100
    pause_after = int(rng.integers(5, 10)) if spec.label == "typing" else 0
    starts, offset = [0], 0
    for k in range(1, last_start // period + 1):
        if pause_after and k % pause_after == 0:
            offset += 2 * period
        start = k * period + offset + int(rng.integers(-shift, shift + 1))
        if start > last_start:
            break
        starts.append(start)
    return starts


def render_event(
    label: str,
    seconds: float,
    seed: int = 0,
    *,
    loudness: str = "neutral",
    pitch: str | None = None,
    speed: str | None = None,
    count: int | None = None,
    sampling_rate: int = SYNTHESIS_RATE,
) -> np.ndarray:
    """(S,) float32 of one class alone, S = round(seconds * sampling_rate); what the class does not fill is silent.

    Args:
        loudness: "soft", "neutral" or "loud": -36, -26 or -16 dBFS active level.
        pitch: "low" or "high", for classes with that attribute; drawn when None.
        speed: "slow" or "fast", likewise.
        count: keeps only the first `count` grains of a countable class.

    Raises:
        ValueError: for an unknown class or attribute value, an attribute the class lacks, less than 0.6 s, or more
            grains than fit.
    """
    spec = event_class(label)
    checks = (
        ("pitch", pitch, PITCHES if spec.has_pitch else ()),
        ("speed", speed, SPEEDS if spec.has_speed else ()),
        ("loudness", loudness, tuple(LOUDNESS_LEVELS_DB)),
    )
    for name, value, allowed in checks:
        if value is not None and value not in allowed:
            raise ValueError(f"`{name}` {value!r} does not exist for {label!r}. Allowed: {list(allowed) or [None]}.")
    if not MIN_EVENT_MS / 1000 <= seconds <= MAX_EVENT_MS / 1000:
        raise ValueError(f"`seconds` must be between {MIN_EVENT_MS / 1000} and {MAX_EVENT_MS // 1000}, got {seconds}.")
    rng = np.random.default_rng([seed, CLASSES.index(label)])
    plan = draw_plan(rng, label, round(seconds * 1000), pitch=pitch, speed=speed)
    if count is not None:
        plan = _keep_grains(plan, count)
    num_samples = round(seconds * SYNTHESIS_RATE)
    signal = np.zeros(num_samples, dtype=np.float32)
    add_grain(signal, 0, synthesize(plan, rng) * np.float32(10 ** (LOUDNESS_LEVELS_DB[loudness] / 20)))
    return resample(limit(signal), sampling_rate, round(seconds * sampling_rate))


def _keep_grains(plan: EventPlan, count: int) -> EventPlan:
    spec, starts = EVENT_CLASSES[plan.label], plan.grain_starts_ms
    if not spec.is_countable:
        countable = [name for name, other in EVENT_CLASSES.items() if other.is_countable]
        raise ValueError(f"`count` {count} does not exist for {plan.label!r}. Countable classes: {countable}.")
    if not 1 <= count <= len(starts):
        raise ValueError(
            f"`count` must be between 1 and the {len(starts)} that fit, got {count}. Pass more `seconds`."
        )
    return EventPlan(plan.label, starts[count - 1] + spec.grain_ms, plan.pitch, plan.speed, starts[:count])


__all__ = ["LOUDNESS_LEVELS_DB", "MAX_EVENT_MS", "MIN_EVENT_MS", "PITCHES", "SPEEDS", "draw_plan", "render_event"]

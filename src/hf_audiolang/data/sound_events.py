# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The 32 synthetic sound classes: what an event is (`EventPlan`, whole milliseconds) and how it sounds.

Repeated sounds ("trains": knocks, claps, chirps) are grains at times that belong to the plan, so their count is known
without any audio. Each class has a physical cue that shows in a log-mel picture, and similar classes exist on purpose.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from .sound_signals import (
    SAMPLES_PER_MS,
    SYNTHESIS_RATE,
    add_grain,
    band_gains,
    band_noise,
    damped_sine,
    decay,
    fade,
    filter_band,
    harmonic_wave,
    plucked_note,
    sawtooth,
    scatter_grains,
    seconds_axis,
    set_active_level,
    shape_noise,
    sine,
    square,
)

MAX_COUNT = 8
NO_LIMIT_MS = 120_000


@dataclass(frozen=True)
class EventPlan:
    """One event without its audio: everything that captions and questions may state about the sound itself.

    `grain_starts_ms` holds the start of every grain after the event's onset and is empty for steady sounds;
    `length_ms` ends with the last grain. `pitch` and `speed` are None where the class has no such attribute.
    """

    label: str
    length_ms: int
    pitch: str | None = None
    speed: str | None = None
    grain_starts_ms: tuple[int, ...] = ()

    @property
    def count(self) -> int | None:
        """Number of grains, if the class is countable and there are at most eight."""
        num_grains = len(self.grain_starts_ms)
        return num_grains if EVENT_CLASSES[self.label].is_countable and num_grains <= MAX_COUNT else None


@dataclass(frozen=True)
class EventClass:
    """What the composition needs to know of a class.

    Attributes:
        synthesize: (rng, plan) -> (S,) float32 of any level, S = samples of `plan.length_ms`.
        period_ms: for trains, the range of the time between grains, per speed (one key "" without that attribute).
        grain_ms: for trains, how long one grain sounds (>= 60).
        jitter_percent: for trains, largest shift of a grain, in percent of the period.
        min_ms, max_ms: shortest and longest sensible event.
    """

    label: str
    synthesize: Callable[[np.random.Generator, EventPlan], np.ndarray]
    period_ms: Mapping[str, tuple[int, int]]
    grain_ms: int = 0
    jitter_percent: int = 0
    is_countable: bool = False
    has_pitch: bool = False
    min_ms: int = 300
    max_ms: int = NO_LIMIT_MS

    @property
    def has_speed(self) -> bool:
        """Whether slow and fast variants exist."""
        return "fast" in self.period_ms


EVENT_CLASSES: dict[str, EventClass] = {}  # in the order of label ids


def _steady(label: str, **facts):
    """Registers `function(rng, plan, num_samples) -> (S,)` as a class that sounds continuously."""

    def register(function):
        def whole(rng, plan):
            return function(rng, plan, plan.length_ms * SAMPLES_PER_MS)

        EVENT_CLASSES[label] = EventClass(label, whole, {}, **facts)
        return function

    return register


def _train(label: str, period_ms, grain_ms: int, **facts):
    """Registers `function(rng, plan) -> grain maker`; the maker returns the samples of grain number k."""
    periods = period_ms if isinstance(period_ms, Mapping) else {"": period_ms}

    def register(function):
        def whole(rng, plan):
            signal = np.zeros(plan.length_ms * SAMPLES_PER_MS, dtype=np.float32)
            make_grain = function(rng, plan)
            for k, start_ms in enumerate(plan.grain_starts_ms):
                add_grain(signal, start_ms * SAMPLES_PER_MS, make_grain(k))
            return fade(signal, 0.0, 5.0)

        EVENT_CLASSES[label] = EventClass(label, whole, periods, grain_ms=grain_ms, **facts)
        return function

    return register


def _samples(milliseconds: float) -> int:
    return int(milliseconds * SAMPLES_PER_MS)


def _wobble(rng: np.random.Generator, num_samples: int, rate_hz: float) -> np.ndarray:
    """(S,) sine between -1 and 1 with a random starting phase."""
    return np.sin(2 * np.pi * (rate_hz * seconds_axis(num_samples) + rng.uniform())).astype(np.float32)


@_steady("beep", has_pitch=True)
def _beep(rng, plan, num_samples):
    return fade(sine(rng.uniform(*((350, 600) if plan.pitch == "low" else (1500, 2600))), num_samples))


def _sweep(rng, num_samples, rises: bool):
    low, high = rng.uniform(250, 400), rng.uniform(2500, 4500)
    start, end = (low, high) if rises else (high, low)
    return fade(sine(start * (end / start) ** np.linspace(0, 1, num_samples), num_samples))


@_steady("rising_sweep", max_ms=8000)
def _rising_sweep(rng, plan, num_samples):
    return _sweep(rng, num_samples, rises=True)


@_steady("falling_sweep", max_ms=8000)
def _falling_sweep(rng, plan, num_samples):
    return _sweep(rng, num_samples, rises=False)


@_steady("siren", min_ms=600)
def _siren(rng, plan, num_samples):
    frequency = rng.uniform(0.8, 1.2) * (1000 + 500 * _wobble(rng, num_samples, rng.uniform(0.8, 1.6)))
    return fade(harmonic_wave(frequency, num_samples, [1.0, 0.4]), 30, 30)


@_steady("buzz")
def _buzz(rng, plan, num_samples):
    tremor = 1 + 0.3 * _wobble(rng, num_samples, rng.uniform(8, 14))
    return fade(sawtooth(rng.uniform(100, 180), num_samples) * tremor)


@_steady("engine", min_ms=500)
def _engine(rng, plan, num_samples):
    frequency = rng.uniform(28, 55) * (1 + 0.15 * _wobble(rng, num_samples, rng.uniform(0.1, 0.4)))
    amplitudes = rng.uniform(0.4, 1.0, 11) / np.sqrt(np.arange(1, 12))
    tone = harmonic_wave(frequency, num_samples, amplitudes)
    return fade(filter_band(tone + 0.5 * band_noise(rng, num_samples, 60, 700), below_hz=1200), 60, 60)


@_train("clapping", {"slow": (385, 555), "fast": (167, 222)}, grain_ms=70, jitter_percent=4, is_countable=True)
def _clapping(rng, plan):
    def clap(k):
        burst = band_noise(rng, _samples(70), 900, 3500) * decay(rng.uniform(0.008, 0.014), _samples(70))
        return fade(burst, 0.5, 5) * rng.uniform(0.8, 1.0)

    return clap


@_train("ticking", {"slow": (455, 667), "fast": (167, 250)}, grain_ms=60, jitter_percent=1, is_countable=True)
def _ticking(rng, plan):
    frequencies = rng.uniform(3800, 4400, 2)

    def tick(k):
        return damped_sine(frequencies[k % 2], 0.002, _samples(20))

    return tick


@_train("plucked_string", (500, 500), grain_ms=500, is_countable=True, has_pitch=True, min_ms=500)
def _plucked_string(rng, plan):
    base = rng.uniform(*((100, 160) if plan.pitch == "low" else (400, 650)))

    def note(k):
        frequency = base * 2 ** (rng.choice([0, 2, 4, 7]) / 12)
        return fade(plucked_note(rng, frequency, _samples(600)), 0.5, 120)

    return note


@_steady("bell", min_ms=500, max_ms=5000)
def _bell(rng, plan, num_samples):
    base, ring = rng.uniform(350, 700), min(1.2, 0.35 * num_samples / SYNTHESIS_RATE)
    signal = np.zeros(num_samples, dtype=np.float32)
    for ratio, amplitude in zip(
        (0.5, 1, 1.19, 1.5, 2, 2.74, 3.76, 5.1), (0.5, 1, 0.7, 0.4, 0.8, 0.5, 0.3, 0.2), strict=True
    ):
        signal += amplitude * damped_sine(base * ratio, ring / ratio**0.5, num_samples)
    return fade(signal, 2, 50)


@_train("knocking", (250, 400), grain_ms=100, jitter_percent=4, is_countable=True)
def _knocking(rng, plan):
    base = rng.uniform(180, 260)

    def knock(k):
        thud = damped_sine(base, 0.02, _samples(100)) + 0.5 * damped_sine(2.3 * base, 0.015, _samples(100))
        return fade(thud + 0.15 * rng.standard_normal(_samples(100)) * decay(0.006, _samples(100)), 0.5, 10)

    return knock


@_steady("water", min_ms=500)
def _water(rng, plan, num_samples):
    num_bubbles = max(6, int(35 * num_samples / SYNTHESIS_RATE))
    axis = np.arange(_samples(50)) / SYNTHESIS_RATE
    start_hz, lifetime = rng.uniform(500, 1500, (num_bubbles, 1)), rng.uniform(0.015, 0.05, (num_bubbles, 1))
    bubbles = np.sin(2 * np.pi * start_hz * axis * (1 + 6 * axis)) * np.sin(np.pi * np.minimum(axis / lifetime, 1))
    starts = rng.integers(0, max(1, num_samples - _samples(50)), num_bubbles)
    splashes = scatter_grains(num_samples, starts, bubbles * rng.uniform(0.3, 1, (num_bubbles, 1)))
    return fade(0.22 * band_noise(rng, num_samples, 400, 2500) + 0.8 * splashes, 50, 50)


@_steady("wind", min_ms=600)
def _wind(rng, plan, num_samples):
    gusts = 1 + 0.7 * _wobble(rng, num_samples, rng.uniform(0.3, 0.8))
    return fade(band_noise(rng, num_samples, 40, 450) * gusts, 100, 100)


@_steady("applause", min_ms=500)
def _applause(rng, plan, num_samples):
    num_claps, grain = max(20, int(90 * num_samples / SYNTHESIS_RATE)), _samples(50)
    hands = [band_noise(rng, grain, 800, 3800) * decay(rng.uniform(0.006, 0.012), grain) for _ in range(12)]
    claps = np.stack(hands)[rng.integers(0, len(hands), num_claps)] * rng.uniform(0.3, 1, (num_claps, 1))
    starts = rng.integers(0, num_samples, num_claps)
    starts[0] = 0  # the onset is that of the first clap
    return fade(scatter_grains(num_samples, starts, claps), 100, 150)


@_train("heartbeat", (625, 1000), grain_ms=400, jitter_percent=2, is_countable=True)
def _heartbeat(rng, plan):
    def pulse(frequency):
        return sine(frequency, _samples(140)) * np.hanning(_samples(140)).astype(np.float32)

    def beat(k):
        signal = np.zeros(_samples(400), dtype=np.float32)
        add_grain(signal, 0, pulse(55))
        add_grain(signal, _samples(250), 0.8 * pulse(70))
        return signal

    return beat


@_steady("whistle")
def _whistle(rng, plan, num_samples):
    arch = 1 + 0.12 * np.sin(np.linspace(0, np.pi, num_samples))
    vibrato = 1 + 0.03 * _wobble(rng, num_samples, rng.uniform(5, 7))
    breath = 0.03 * band_noise(rng, num_samples, 1500, 6000)
    return fade(sine(rng.uniform(1500, 2600) * arch * vibrato, num_samples) + breath, 40, 60)


@_train("drum", {"slow": (455, 667), "fast": (200, 263)}, grain_ms=160, jitter_percent=3, is_countable=True)
def _drum(rng, plan):
    size = _samples(160)
    frequency = np.concatenate([np.linspace(180, 60, _samples(30)), np.full(size - _samples(30), 60.0)])

    def hit(k):
        stick = 0.4 * rng.standard_normal(_samples(15)) * decay(0.004, _samples(15))
        signal = sine(frequency, size) * decay(0.05, size)
        add_grain(signal, 0, stick)
        return fade(signal, 0.5, 20)

    return hit


@_steady("rain", min_ms=400)
def _rain(rng, plan, num_samples):
    num_drops, grain = max(4, int(12 * num_samples / SYNTHESIS_RATE)), _samples(12)
    axis = np.arange(grain) / SYNTHESIS_RATE
    drops = np.sin(2 * np.pi * rng.uniform(1200, 2600, (num_drops, 1)) * axis) * np.exp(-axis / 0.003)
    patter = scatter_grains(num_samples, rng.integers(0, max(1, num_samples - grain), num_drops), 3 * drops)
    return fade(band_noise(rng, num_samples, above_hz=2500) + patter, 100, 100)


@_train("bird", (180, 285), grain_ms=160, jitter_percent=8)
def _bird(rng, plan):
    base, direction = rng.uniform(3000, 3800), rng.choice([-1, 1])

    def chirp(k):
        size = _samples(rng.uniform(80, 160))
        bend = base + direction * 900 * np.cos(np.linspace(0, np.pi * rng.uniform(0.8, 1.6), size))
        return sine(bend, size) * np.hanning(size).astype(np.float32)

    return chirp


@_train("dog_bark", (455, 714), grain_ms=300, jitter_percent=6, is_countable=True)
def _dog_bark(rng, plan):
    base = rng.uniform(260, 340)

    def bark(k):
        size = _samples(250)
        frequency = base * (1 + 0.35 * np.sin(np.linspace(0, np.pi, size) ** 0.8))
        voice = sawtooth(frequency, size) + 0.25 * rng.standard_normal(size).astype(np.float32)
        envelope = np.minimum(1, np.arange(size) / _samples(15)) * decay(0.09, size)
        signal = np.zeros(_samples(300), dtype=np.float32)
        signal[:size] = fade(voice * envelope.astype(np.float32), 0, 40)
        return fade(filter_band(signal, 400, 2200), 1, 20)

    return bark


@_train("telephone", (800, 1100), grain_ms=500)
def _telephone(rng, plan):
    def ring(k):
        size = _samples(500)
        gate = 0.5 + 0.5 * np.tanh(8 * np.cos(2 * np.pi * 20 * seconds_axis(size)))
        return fade(((sine(792, size) + sine(864, size)) * gate).astype(np.float32), 10, 10)

    return ring


@_steady("thunder", min_ms=600, max_ms=12_000)
def _thunder(rng, plan, num_samples):
    seconds = num_samples / SYNTHESIS_RATE
    rumble = band_noise(rng, num_samples, 25, 220) * (1 + 0.6 * _wobble(rng, num_samples, rng.uniform(1.5, 3)))
    signal = rumble * decay(0.35 * seconds, num_samples)
    crack = band_noise(rng, _samples(150), 60, 1500) * decay(0.05, _samples(150))
    add_grain(signal, 0, 1.2 * fade(crack, 2, 20))
    return fade(signal, 5, 100)


@_train("footsteps", (435, 667), grain_ms=150, jitter_percent=4, is_countable=True)
def _footsteps(rng, plan):
    def step(k):
        signal = np.zeros(_samples(150), dtype=np.float32)
        add_grain(signal, 0, damped_sine(rng.uniform(75, 100), 0.03, _samples(100)) * 1.4)
        scrape = band_noise(rng, _samples(90), 2500, 6500) * np.hanning(_samples(90)).astype(np.float32)
        add_grain(signal, _samples(50), 0.25 * scrape)
        return fade(signal, 1, 5)

    return step


@_train("laser", (312, 500), grain_ms=70, jitter_percent=3, is_countable=True)
def _laser(rng, plan):
    size = _samples(60)
    frequency = 4500 * (300 / 4500) ** np.linspace(0, 1, size)
    # A square wave has odd harmonics; each is left out while it would lie above 7 kHz and fold back.
    zap = sum(sine(k * frequency, size) * (k * frequency < 7000) / k for k in (1, 3, 5)).astype(np.float32)

    def shot(k):
        return fade(zap.copy(), 2, 10)

    return shot


@_steady("humming")
def _humming(rng, plan, num_samples):
    vibrato = 1 + 0.02 * _wobble(rng, num_samples, 5)
    voice = sawtooth(rng.uniform(110, 220) * vibrato, num_samples)
    formants = ((rng.uniform(500, 750), 1.0), (rng.uniform(1000, 1400), 0.5), (2600, 0.15))
    return fade(sum(gain * filter_band(voice, 0.85 * hz, 1.15 * hz) for hz, gain in formants), 60, 80)


@_steady("fire", min_ms=600)
def _fire(rng, plan, num_samples):
    num_crackles, grain = max(6, int(14 * num_samples / SYNTHESIS_RATE)), _samples(20)
    axis = np.arange(grain) / SYNTHESIS_RATE
    crackles = rng.standard_normal((num_crackles, grain)) * np.exp(
        -axis / rng.uniform(0.001, 0.004, (num_crackles, 1))
    )
    starts = rng.integers(0, max(1, num_samples - grain), num_crackles)
    sparks = scatter_grains(num_samples, starts, crackles * rng.uniform(0.5, 2.5, (num_crackles, 1)))
    return fade(0.25 * band_noise(rng, num_samples, 40, 350) + 0.7 * filter_band(sparks, above_hz=900), 60, 60)


@_steady("car_horn")
def _car_horn(rng, plan, num_samples):
    base = rng.uniform(330, 420)
    horns = square(base, num_samples, 3500) + square(1.26 * base, num_samples, 3500)
    return fade(horns, 20, 40)


@_train("cricket", (500, 500), grain_ms=330)
def _cricket(rng, plan):
    frequency, gate_hz = rng.uniform(4200, 4900), rng.uniform(22, 32)
    size = _samples(330)
    gate = 0.5 + 0.5 * np.tanh(6 * np.sin(2 * np.pi * gate_hz * seconds_axis(size)))
    chirp = fade((sine(frequency, size) * gate).astype(np.float32), 5, 5)
    return lambda k: chirp


@_train("typing", {"slow": (166, 200), "fast": (111, 125)}, grain_ms=80, jitter_percent=25)
def _typing(rng, plan):
    def click(size, center):
        return band_noise(rng, size, center / 1.5, center * 1.5) * decay(0.003, size)

    def stroke(k):
        signal = np.zeros(_samples(80), dtype=np.float32)
        add_grain(signal, 0, rng.uniform(0.7, 1) * click(_samples(20), rng.uniform(2000, 3500)))
        add_grain(signal, _samples(rng.uniform(40, 55)), 0.5 * click(_samples(20), rng.uniform(2500, 4500)))
        return fade(signal, 0.3, 2)

    return stroke


@_steady("hiss")
def _hiss(rng, plan, num_samples):
    return fade(band_noise(rng, num_samples, above_hz=3000), 30, 30)


@_steady("explosion", min_ms=600, max_ms=3000)
def _explosion(rng, plan, num_samples):
    corners = (2000, 900, 350, 100)  # Hz; the low-pass slides through them within one second
    position = np.minimum(3.0, 3.0 * seconds_axis(num_samples)).astype(np.float32)
    signal = np.zeros(num_samples, dtype=np.float32)
    seed = int(rng.integers(2**32))
    for k, corner in enumerate(corners):
        noise = shape_noise(np.random.default_rng(seed), num_samples, lambda n, hz=corner: band_gains(n, 30, hz))
        signal += noise * np.maximum(0, 1 - np.abs(position - k))
    return fade(signal * decay(0.3 * num_samples / SYNTHESIS_RATE, num_samples), 5, 100)


@_steady("glass", min_ms=400, max_ms=800)
def _glass(rng, plan, num_samples):
    signal = np.zeros(num_samples, dtype=np.float32)
    for _ in range(rng.integers(12, 21)):
        start = int(rng.uniform(0, 0.2) * SYNTHESIS_RATE) if np.any(signal) else 0
        size = num_samples - start
        shard = damped_sine(rng.uniform(2000, 7000), rng.uniform(0.03, 0.12), size)
        add_grain(signal, start, rng.uniform(0.3, 1) * shard)
    crack = rng.standard_normal(_samples(30)) * decay(0.006, _samples(30))
    add_grain(signal, 0, 0.6 * crack.astype(np.float32))
    return fade(signal, 0.5, 50)


CLASSES: tuple[str, ...] = tuple(EVENT_CLASSES)


def event_class(label: str) -> EventClass:
    """The `EventClass` of a name.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if label not in EVENT_CLASSES:
        raise ValueError(f"Unknown class name {label!r}. Choose one of {list(EVENT_CLASSES)}.")
    return EVENT_CLASSES[label]


def synthesize(plan: EventPlan, rng: np.random.Generator) -> np.ndarray:
    """(S,) float32 sound of a plan at 16 kHz with an active level of 0 dB, S = 16 * `plan.length_ms`."""
    return set_active_level(EVENT_CLASSES[plan.label].synthesize(rng, plan), 0.0)


__all__ = [
    "CLASSES",
    "EVENT_CLASSES",
    "MAX_COUNT",
    "EventClass",
    "EventPlan",
    "event_class",
    "synthesize",
]

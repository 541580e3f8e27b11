# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Which short event is heard through which long one, decided from a table instead of from audio.

An event counts as audible if in one third-octave band it lies 6 dB above everything else during 100 ms (or during half
of its own active time, if that is shorter: two clock ticks do not last 100 ms). Measuring this on rendered audio would
make captions depend on the last bit of an FFT, so it was measured once per pair of classes: `NEEDED_DB[short][long]`
is the level by which the short event must exceed the long one (negative: it may be softer), for the worst of many
draws. The rule is then a comparison of integers. `measure_needed_db` is how the table was made.
"""

import numpy as np

from .sound_events import CLASSES, synthesize
from .sound_plans import draw_plan
from .sound_signals import SYNTHESIS_RATE

MARGIN_DB = 6
NEVER = 99
SOFTEST_DB, LOUDEST_DB = -9, 23  # level differences beyond these do not occur or are not used
FRAME, HOP = 640, 320  # samples: 40 ms windows every 20 ms
# Lower edges of the bands in Hz: one low band that 40 ms windows can resolve, then third octaves up to 7.1 kHz.
BAND_EDGES_HZ = (40, *(round(1000 * 2 ** ((k - 0.5) / 3)) for k in range(-9, 10)))


def band_levels_db(signal: np.ndarray) -> np.ndarray:
    """(frames, bands) power in dB of a 16 kHz signal in 40 ms Hann windows every 20 ms."""
    padded = np.concatenate([signal, np.zeros(FRAME, dtype=np.float32)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    power = np.square(np.abs(np.fft.rfft(windows * np.hanning(FRAME), 1024)))
    edges = [round(hz * 1024 / SYNTHESIS_RATE) for hz in BAND_EDGES_HZ]
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    return 10 * np.log10(bands + 1e-12)


def reached_levels_db(signal: np.ndarray) -> np.ndarray:
    """(bands,) level that the signal reaches during 100 ms, or half of its active frames if those are fewer."""
    levels = band_levels_db(signal)
    total = 10 * np.log10(np.sum(10 ** (levels / 10), axis=1))
    num_active = int(np.sum(total > total.max() - 20))
    return np.sort(levels, axis=0)[-max(1, min(5, num_active // 2))]


def measure_needed_db(short: str, long: str, num_draws: int = 16) -> int:
    """The entry of `NEEDED_DB` for one pair, measured on `num_draws` renderings of each class."""
    quiet, masked = [], []
    for k in range(num_draws):
        quiet.append(reached_levels_db(_render(short, (600, 1000, 1800)[k % 3], k)))
        masked.append(np.percentile(band_levels_db(_render(long, 4000, k)), 97, axis=0))
    worst = max(float(np.min(loud - soft)) for soft in quiet for loud in masked)
    needed = int(np.ceil(worst)) + MARGIN_DB + 1
    return max(SOFTEST_DB, needed) if needed <= LOUDEST_DB else NEVER


def _render(label: str, room_ms: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, CLASSES.index(label), room_ms])
    return synthesize(draw_plan(rng, label, room_ms), rng)


def is_audible(short: str, short_tenths_db: int, long: str, long_tenths_db: int) -> bool:
    """Whether a short event is heard inside a long one; levels in tenths of dBFS."""
    return short_tenths_db - long_tenths_db >= 10 * NEEDED_DB[short][long]


# Row: the short event; columns: the long one, in the order of the rows.
_TABLE = """
beep            7  9  9  9  0  3  4 -9 11 12  5  9  7  4 -9  8 -9  3  0  9 -9  4 -9  5  4  2  6 -9  3 -7  7  2
rising_sweep   -9 18 20 10 11  1  3 -9 21 -2  6  8 16  5 -9 -9  2 -6 -9 15 -9 11 -5 16 15 14 -9 -9 -5 -9 18 -9
falling_sweep  -9 16 19 10 11  6  2 -9 19 -1  4  9 12  6 -9 -9  3 -4 -9 15 -9  8 -6 12 14 13 -9 -9 -2 -9 21 -9
siren          -9 -9 -9  8 -6 -9 -4 -9  6 -9 -9  4 -6 -1 -9 -9 -9 -9 -9  2 -9 -9 -9  4 -3 -2 -9 -9 -9 -9  6 -9
buzz           -9 -9 -9 -9  7 -9 -9 -9  7 -9  0 -9 -3 -9 -9 -9  0 -9 -9 -9 -9 -6 -9 -9 -8  6 -9 -9 -9 -9  6 -9
engine         -9 -9 -9 -9 -1  9 -9 -9  2 -9  0 -9 11 -9 -9 -9  0 -9 -9 -9 -9 10 -9 -9 -9  8 -9 -9 -9 -9 10 -9
clapping       -9 -9 -9 -9  0 -9 14 -5 15 -9 -5  5 -9 16 -9 -9  0  6 -9  2 -9 -9 -5  7 -9 11 -9 -9  9 -9 10 -9
ticking        -9 -9 -9 -9 -8 -9  8 12 10 -9 -9 -3 -9  9 -9 -9 -5  5 -9 -4 -9 -9  2 -9 -9  7 -9 -9  9 -9  2  6
plucked_string -9 -9 -9 -9  2 -9 -1 -9 16 -9  1 13  6  2 -9 -9 -6 -9 -9 12 -9  2 -9  2  7  3 -9 -9 -8 -9 12 -9
bell           -9  9  9 -9 -1 -4 -9 -9  8 10 -8 -4  5 -5 -9 -9 -9 -9 -9  6 -9 -1 -9 -3  1  0 -9 -9 -9 -9  7 -9
knocking       -9 -9 -9 -9  4 -9 -9 -9 10 -9 14 -9 10 -9 -9 -9  2 -9 -9 -9 -9  7 -5 -9 -2 10 -9 -9 -9 -9 11 -9
water          -9 -9 -9 -9 -3 -9  2 -9  8 -9 -9  8 -7  4 -9 -9 -9 -4 -9  5 -9 -9 -9 -6 -8  2 -9 -9 -2 -9 10 -9
wind           -9 -9 -9 -9 -2 -9 -9 -9  2 -9 -3 -9 10 -9 -9 -9 -5 -9 -9 -9 -9  6 -9 -9 -8  7 -9 -9 -9 -9 10 -9
applause       -9 -9 -9 -9 -5 -9  7 -9  9 -9 -9 -2 -9  9 -9 -9 -6 -1 -9 -4 -9 -9 -9 -9 -9  6 -9 -9  2 -9  3 -9
heartbeat      -9 -9 -9 -9  3  5 -9 -9 -4 -9 -3 -9  5 -9  9 -9  9 -9 -9 -9 -9 12 11 -9 -9  3 -9 -9 -9 -9  6 -9
whistle        -9 -9 -9 -9 -8 -9  4 -9  6 -9 -9  9 -9  5 -9  7 -9  3 -9  1 -9 -9 -7  3 -5  1 -9 -9  4 -4  5  9
drum           -9 -9 -9 -9  7  8 -9 -9 -1 -9  1 -9  8 -9  1 -9 12 -9 -9 -9 -9 15 14 -9 -9  6 -9 -9 -9 -9  9 -9
rain           -9 -9 -9 -9 -9 -9  4 -4  9 -9 -9 -8 -9  5 -9 -9 -3  8 -9 -9 -9 -9  1 -2 -9  9 -9 -9  8 -9 -3 -4
bird           -9  9 12  1 -8 -9  7  7  8  1 -9 -2 -9  8 -9 -3 -5  5 11 -1 -9 -9  1  6 -9  7 -9 -9  9  5  4 13
dog_bark       -9 -9 -9 -9  4 -9 -8 -9 14 -9 -4 -1  2 -4 -9 -9 -3 -9 -9 13 -9 -3 -9  2  2  6 -9 -9 -9 -9 14 -9
telephone      -9  5  5  3 -6 -7 -5 -9  7  6 -9  6 -1 -3 -9 -9 -9 -9 -9  4  9 -7 -9  1 -1 -7 -9 -9 -9 -9  4 -9
thunder        -9 -9 -9 -9 -1 -9 -9 -9  3 -9  1 -9  8 -9 -9 -9  2 -9 -9 -9 -9  4 -6 -9 -9 10 -9 -9 -9 -9 11 -9
footsteps      -9 -9 -9 -9  1 -9 -9 -9  4 -9  0 -9 -9 -9 -9 -9  7 -9 -9 -9 -9 -9 12 -9 -9 11 -9 -9 -9 -9  9 -9
laser          -9 -9 -9 -9  3 -9  6 -9 16 -9 -3  8 -5  9 -9 -9  1 -2 -9  7 -9 -9 -8 11 -4 10 -9 -9  0 -9 13 -9
humming        -9 -9 -9 -9  3 -9 -9 -9  9 -9 -3 -8  6 -4 -9 -9 -7 -9 -9 -9 -9  2 -9 -9  6  4 -9 -9 -9 -9 11 -9
fire           -9 -9 -9 -9 -4 -9 -9 -9  3 -9 -3 -9 -9 -9 -9 -9 -2 -9 -9 -9 -9 -9 -9 -9 -9  9 -9 -9 -9 -9  6 -9
car_horn       -9 -9 -9 -9  2 -9 -9 -9 12 -9 -4 -5  2 -7 -9 -9 -7 -9 -9  8 -9 -2 -9  2  4  6  6 -9 -9 -9  9 -9
cricket        -9 -9 -9 -9 -9 -9  3  8  6 -9 -9 -9 -9  4 -9 -9 -7  3  9 -9 -9 -9 -1  1 -9  4 -9 10  6  3 -4  9
typing         -9 -9 -9 -9 -2 -9 11 -2 14 -9 -6 -1 -9 13 -9 -9  1  9 -9 -3 -9 -9  2  2 -9 11 -9 -9 15 -9  4 -1
hiss           -9 -9 -9 -9 -9 -9  3 -4  9 -9 -9 -9 -9  5 -9 -9 -3  8 -9 -9 -9 -9  2 -2 -9  9 -9 -9  7  8 -4  0
explosion      -9 -9 -9 -9 -3 -9 -9 -9  7 -9 -9 -9 -7 -6 -9 -9 -7 -9 -9 -9 -9 -9 -9 -9 -9  3 -9 -9 -9 -9 11 -9
glass          -9 -9 -9 -9 -9 -9  5 -6  7 -9 -9 -7 -9  6 -9 -9 -5  5 -9 -9 -9 -9 -1  0 -9  5 -9 -9  7 -9 -2 10
"""

NEEDED_DB: dict[str, dict[str, int]] = {
    short: dict(zip(CLASSES, map(int, levels), strict=True))
    for short, *levels in (line.split() for line in _TABLE.strip().splitlines())
}


__all__ = [
    "MARGIN_DB",
    "NEEDED_DB",
    "NEVER",
    "band_levels_db",
    "is_audible",
    "measure_needed_db",
    "reached_levels_db",
]

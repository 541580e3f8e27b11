from itertools import pairwise

import numpy as np
import pytest

from hf_audiolang.data.sound_events import CLASSES, EVENT_CLASSES, EventPlan, synthesize
from hf_audiolang.data.sound_plans import draw_plan, render_event
from hf_audiolang.data.sound_signals import filter_band, limit, plucked_note

RATE = 16_000
COUNTABLE = [
    "clapping", "ticking", "plucked_string", "knocking", "heartbeat", "drum", "dog_bark", "footsteps", "laser",
]  # fmt: skip


def active_level(signal: np.ndarray) -> float:
    """Mean power in dB of the 20 ms frames within 30 dB of the loudest, by a plain loop."""
    powers = [np.mean(signal[k : k + 320].astype(float) ** 2) for k in range(0, len(signal), 320)]
    active = [power for power in powers if power > max(powers) / 1000]
    return 10 * np.log10(np.mean(active))


def strongest_hz(signal: np.ndarray) -> float:
    return np.argmax(np.abs(np.fft.rfft(signal * np.hanning(len(signal))))) * RATE / len(signal)


def count_bursts(signal: np.ndarray, gap_ms: int) -> int:
    """Number of stretches of sound, where `gap_ms` below -25 dB of the peak separates two."""
    frame = RATE // 200
    envelope = np.array([np.max(np.abs(signal[k : k + frame])) for k in range(0, len(signal), frame)])
    loud = np.flatnonzero(envelope > envelope.max() * 10 ** (-25 / 20))
    return 1 + int(np.sum(np.diff(loud) > gap_ms // 5))


def test_there_are_the_32_classes_of_the_table():
    assert len(CLASSES) == 32
    assert CLASSES[:4] == ("beep", "rising_sweep", "falling_sweep", "siren")
    assert CLASSES[-4:] == ("typing", "hiss", "explosion", "glass")


@pytest.mark.parametrize("label", CLASSES)
def test_every_class_sounds_as_long_and_as_loud_as_planned(label):
    for seed, room_ms in ((0, 600), (1, 2500)):
        rng = np.random.default_rng(seed)
        plan = draw_plan(rng, label, room_ms)
        sound = synthesize(plan, rng)
        assert sound.dtype == np.float32
        assert len(sound) == 16 * plan.length_ms <= 16 * room_ms
        assert abs(active_level(sound)) < 0.15  # frames of another length at the end move it a little
        peak = np.abs(sound).max()
        assert np.abs(sound[: 16 * 60]).max() > 0.02 * peak  # it begins at its onset ...
        assert abs(sound[0]) < 0.35 * peak  # ... without a step
        assert abs(sound[-1]) < 0.02 * peak
    loud = render_event(label, 1.5, 3, loudness="loud")
    soft = render_event(label, 1.5, 3, loudness="soft")
    assert np.abs(loud).max() < 1
    assert active_level(loud) - active_level(soft) == pytest.approx(20, abs=0.7)  # the limiter takes some of a click


def test_no_sound_has_a_long_hole_or_a_step():
    for label in CLASSES:
        sound = render_event(label, 2.0, 5)
        spectrum = np.abs(np.fft.rfft(sound)) ** 2
        assert spectrum[-8000 // 40 :].sum() < 0.2 * spectrum.sum(), label  # nothing piles up at the Nyquist frequency
        assert abs(sound.mean()) < 0.05 * np.abs(sound).max(), label
        if not EVENT_CLASSES[label].period_ms and EVENT_CLASSES[label].max_ms > 8000 and label != "thunder":
            frames = np.abs(sound[1600:-1600]).reshape(-1, 800).max(axis=1)
            assert frames.min() > 0.01 * frames.max(), label


@pytest.mark.parametrize(
    ("label", "low", "high"), [("beep", (350, 600), (1500, 2600)), ("plucked_string", (90, 250), (390, 1000))]
)
def test_pitch_is_heard(label, low, high):
    for pitch, (bottom, top) in (("low", low), ("high", high)):
        for seed in range(4):
            sound = render_event(label, 1.0, seed, pitch=pitch)
            spectrum = np.abs(np.fft.rfft(sound)) ** 2
            hz = np.fft.rfftfreq(len(sound), 1 / RATE)
            lowest = hz[np.flatnonzero(spectrum > 0.05 * spectrum.max())[0]]
            assert bottom * 0.95 < lowest < top * 1.05


def test_sweeps_and_siren_move_as_named():
    rising, falling = render_event("rising_sweep", 2.0, 1), render_event("falling_sweep", 2.0, 1)
    assert strongest_hz(rising[:4000]) < 600 < 2000 < strongest_hz(rising[-4000:])
    assert strongest_hz(falling[:4000]) > 2000 > 600 > strongest_hz(falling[-4000:])
    siren = render_event("siren", 3.0, 1)
    track = [strongest_hz(siren[k : k + 800]) for k in range(0, 48_000, 800)]
    assert min(track) < 750
    assert max(track) > 1100


def test_fast_is_faster_than_slow():
    for label, gap_ms in (("clapping", 40), ("ticking", 40), ("drum", 20), ("typing", 30)):
        slow, fast = (count_bursts(render_event(label, 3.0, 2, speed=speed), gap_ms) for speed in ("slow", "fast"))
        assert fast > 1.3 * slow, label


@pytest.mark.parametrize("label", COUNTABLE)
def test_as_many_grains_are_heard_as_counted(label):
    gap_ms = {"heartbeat": 150, "footsteps": 100}.get(label, 20)
    for count in (1, 2, 4):
        sound = render_event(label, 4.2, count, count=count)
        if label == "plucked_string":  # notes ring into each other: count attacks in the treble instead
            sound = filter_band(sound, above_hz=5000)
            gap_ms = 250
        assert count_bursts(sound, gap_ms) == count


def test_countable_classes_are_those_of_the_table():
    assert [label for label in CLASSES if EVENT_CLASSES[label].is_countable] == COUNTABLE


def test_grains_stay_inside_and_overlap_at_most_by_half():
    for label in CLASSES:
        spec = EVENT_CLASSES[label]
        if not spec.period_ms:
            continue
        for seed in range(20):
            plan = draw_plan(np.random.default_rng(seed), label, 600 + 170 * seed)
            starts = plan.grain_starts_ms
            assert starts[0] == 0
            assert starts[-1] + max(60, spec.grain_ms) <= plan.length_ms <= 600 + 170 * seed
            assert all(after - before >= spec.grain_ms / 2 for before, after in pairwise(starts))
            is_counted = spec.is_countable and len(starts) <= 8
            assert plan.count == (len(starts) if is_counted else None)


def test_plans_draw_integers_only():
    class IntegersOnly:
        def __init__(self):
            self.rng = np.random.default_rng(0)

        def integers(self, *arguments):
            return self.rng.integers(*arguments)

    for label in CLASSES:
        assert isinstance(draw_plan(IntegersOnly(), label, 3000), EventPlan)


def test_render_event_depends_on_seed_and_nothing_else():
    for label in ("water", "clapping"):
        first = render_event(label, 1.0, 7)
        np.testing.assert_array_equal(first, render_event(label, 1.0, 7))
        assert not np.array_equal(first, render_event(label, 1.0, 8))


def test_other_sampling_rates_hold_the_same_sound():
    base = render_event("bird", 2.0, 3)
    for rate in (32_000, 44_100):
        other = render_event("bird", 2.0, 3, sampling_rate=rate)
        assert len(other) == 2 * rate
        spectrum, reference = np.abs(np.fft.rfft(other)) / rate, np.abs(np.fft.rfft(base)) / RATE
        np.testing.assert_allclose(spectrum[:14_000], reference[:14_000], atol=2e-3 * reference.max())
        assert spectrum[16_200:].max() < 1e-3 * reference.max()


def test_plucked_note_is_a_karplus_strong_loop():
    rng = np.random.default_rng(0)
    note = plucked_note(rng, 400.0, 400)
    period = np.random.default_rng(0).uniform(-1, 1, 40)
    period -= period.mean()
    expected = []
    for _ in range(10):  # the textbook loop, one period at a time
        expected.append(period)
        period = 0.998 * 0.5 * (period + np.roll(period, 1))
    np.testing.assert_allclose(note, np.concatenate(expected), atol=1e-6)


def test_limiter_leaves_quiet_samples_alone_and_stays_below_one():
    signal = np.linspace(-3, 3, 61, dtype=np.float32)
    limited = limit(signal)
    assert np.abs(limited).max() < 1
    np.testing.assert_array_equal(limited[np.abs(signal) <= 0.95], signal[np.abs(signal) <= 0.95])
    assert np.all(np.diff(limited) >= 0)


def test_filters_have_butterworth_gains():
    for hz in (200.0, 1000.0, 5000.0):
        tone = np.sin(2 * np.pi * hz * np.arange(16_000) / RATE).astype(np.float32)
        middle = slice(4000, 12_000)
        low = np.std(filter_band(tone, below_hz=1000)[middle]) / np.std(tone[middle])
        high = np.std(filter_band(tone, above_hz=1000)[middle]) / np.std(tone[middle])
        assert low == pytest.approx(1 / np.sqrt(1 + (hz / 1000) ** 4), abs=0.01)
        assert high == pytest.approx(1 / np.sqrt(1 + (1000 / hz) ** 4), abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("trumpet", 1.0), {}, r"Unknown class name 'trumpet'. Choose one of \['beep'"),
        (("siren", 1.0), {"pitch": "high"}, "`pitch` 'high' does not exist for 'siren'"),
        (("beep", 1.0), {"pitch": "medium"}, r"Allowed: \['low', 'high'\]"),
        (("siren", 1.0), {"count": 2}, "Countable classes"),
        (("knocking", 1.0), {"count": 50}, "Pass more `seconds`"),
        (("siren", 0.2), {}, "`seconds` must be between 0.6"),
        (("siren", 1.0), {"loudness": "deafening"}, "`loudness` 'deafening'"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        render_event(*arguments, **options)

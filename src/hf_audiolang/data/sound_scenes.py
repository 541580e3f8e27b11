# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SoundScenes: captioned, strongly labelled synthetic audio of any amount, on a machine without any download.

    (version, seed, split, index) -> structure (classes, times, levels) -> captions, questions, phrases
                                                                        -> audio

The data is synthetic and says so; results on it say nothing about real recordings. Export it from the command line:

    python -m hf_audiolang.data.sound_scenes --split train --size 2000 --out DIR
"""

import argparse
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .rendered_scenes import RenderedScenes, materialize
from .scene_export import dataset_card, export_scenes, to_hf_dataset
from .scene_layout import GAP_MS, OOD_GAINS_DB, Scene, compose, fitting_events, mirror, needed_ms
from .scene_negatives import change_count, swap_attribute, swap_class, swap_order
from .scene_questions import draw_questions
from .scene_render import Effects, render_scene, render_stems
from .scene_scores import oracle_ceilings, order_pairs, relevance
from .scene_splits import (
    MAX_EVENTS,
    SPLIT_CODES,
    TEST_PARTS,
    Casting,
    cast_test_rows,
    draw_held_out_labels,
    draw_labels,
    draw_num_events,
    generator,
    held_out_pairs,
    unseen_class_names,
    usable_held_out_pairs,
)
from .scene_text import draw_captions
from .scene_words import zero_shot_text
from .sound_events import CLASSES, event_class
from .sound_plans import render_event
from .sound_signals import SYNTHESIS_RATE

QUESTION_BLOCK = 50  # rows over which the answers of a question type are balanced
MIN_SECONDS, MAX_SECONDS = 1.0, 120.0
DEFAULT_SECONDS = {"long": (20.0, 30.0)}


@dataclass(frozen=True)
class SoundScenes:
    """A map-style data set of synthetic scenes; `ds[i]` depends only on (version, seed, split, i) and the options.

    Row columns: `id, audio {array (S,) float32, sampling_rate}, duration, captions, labels, label_ids, events,
    phrases, qa, mode, part, seed`. `events` hold label, onset, offset (seconds), level_db, loudness, pitch, speed,
    count; `phrases` ground the wording of `captions[0]`; `part` names the part of the test split.

    Attributes:
        split: train, validation, test (300 rows are 150 collision-free, 30 order pairs, 90 plain), composition
            (held-out class pairs), zero_shot (single events, classes in turn), long (20-30 s), ood_level.
        size: number of rows; more rows never change earlier ones.
        seed: another seed gives other data of the same kind.
        sampling_rate: Hz, at least 16000; the sounds stay below 8 kHz at any rate.
        duration: seconds, fixed or a range (log-uniform); None is (1.0, 30.0), and (20.0, 30.0) for `long`.
        n_events: fewest and most events of a scene, 1 to 5; scenes that are too short have fewer.
        classes: class names to use; all 32 by default.
        caption_count: captions per clip.
        version: of the generator.
        unseen_classes: removes that many classes from the split train (see `unseen_class_names`).
        paraphrase: "held_out" uses the wordings that training captions never contain.
        reverb, codec, lowpass: effects for robustness tests, see `scene_render.Effects`.

    Raises:
        ValueError: for an unknown split, class or paraphrase, durations outside of 1 to 120 s, event numbers outside
            of 1 to 5, or a combination that no scene can fulfil.

    Example:
        >>> from hf_audiolang.data.sound_scenes import SoundScenes
        >>> scenes = SoundScenes("train", 2000, duration=4.0, n_events=(1, 3))
        >>> row = scenes[0]
        >>> row["audio"]["array"].shape
        (64000,)
    """

    split: str
    size: int
    _: KW_ONLY
    seed: int = 0
    sampling_rate: int = SYNTHESIS_RATE
    duration: float | tuple[float, float] | None = None
    n_events: int | tuple[int, int] = (1, 5)
    classes: tuple[str, ...] | None = None
    caption_count: int = 5
    version: int = 1
    unseen_classes: int = 0
    paraphrase: str | None = None
    reverb: bool = False
    codec: str | None = None
    lowpass: float | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLIT_CODES:
            raise ValueError(f"Unknown `split` {self.split!r}. Choose one of {list(SPLIT_CODES)}.")
        seconds = DEFAULT_SECONDS.get(self.split, (1.0, 30.0)) if self.duration is None else self.duration
        self._set("duration", _as_pair(seconds, "duration", float))
        self._set("n_events", _as_pair(self.n_events, "n_events", int))
        self._set("classes", CLASSES if self.classes is None else tuple(self.classes))
        self._check_numbers()
        self._check_classes()
        Effects(self.reverb, self.codec, self.lowpass)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # normalises a field of the frozen dataclass

    def _check_numbers(self) -> None:
        checks = (
            ("size", self.size, 1, 10**9),
            ("seed", self.seed, 0, 2**63),
            ("sampling_rate", self.sampling_rate, SYNTHESIS_RATE, 192_000),
            ("caption_count", self.caption_count, 1, 20),
            ("version", self.version, 1, 1),
            ("unseen_classes", self.unseen_classes, 0, len(CLASSES) - MAX_EVENTS),
            ("duration", self.duration[0], MIN_SECONDS, self.duration[1]),
            ("duration", self.duration[1], self.duration[0], MAX_SECONDS),
            ("n_events", self.n_events[0], 1, self.n_events[1]),
            ("n_events", self.n_events[1], self.n_events[0], MAX_EVENTS),
        )
        for name, value, lowest, highest in checks:
            if not lowest <= value <= highest:
                given = getattr(self, name)
                raise ValueError(f"`{name}` must lie between {lowest} and {highest}, got {value} (in {given!r}).")
        if self.paraphrase not in (None, "held_out"):
            raise ValueError(f"Unknown `paraphrase` {self.paraphrase!r}. Choose 'held_out' or None.")

    def _check_classes(self) -> None:
        for label in self.classes:
            event_class(label)
        if len(set(self.classes)) < len(self.classes) or not self.classes:
            raise ValueError(f"`classes` must be different class names, got {list(self.classes)}.")
        if self.n_events[0] > max(2, len(self.pool)):
            raise ValueError(
                f"`n_events` {self.n_events} needs {self.n_events[0]} different classes, but `classes` has "
                f"{len(self.pool)}. Pass more classes or fewer events."
            )
        if self.split == "composition" and not usable_held_out_pairs(self._casting):
            raise ValueError(
                f"`classes` {list(self.classes)} contain no held-out pair, which the split 'composition' is made of. "
                "Pass more classes; `held_out_pairs()` lists the pairs."
            )
        needed = 2 if self.split in ("test", "composition") else self.n_events[0]
        if self.split != "zero_shot" and (self.n_events[1] < needed or self._most_events < needed):
            raise ValueError(
                f"The split {self.split!r} needs scenes with {needed} events, but `n_events` {self.n_events} and "
                f"`duration` {self.duration} hold at most {min(self._most_events, self.n_events[1])}. Pass at least "
                f"{(needed_ms(needed) + GAP_MS) / 1000} s and `n_events` up to {needed}."
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """All class names in the order of `label_ids`, whichever `classes` are used."""
        return CLASSES

    @property
    def pool(self) -> tuple[str, ...]:
        """The class names that scenes of this split draw from."""
        unseen = unseen_class_names(self.unseen_classes, self.version) if self.split == "train" else ()
        return tuple(label for label in self.classes if label not in unseen)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(self.size))

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.structure(index)
        audio = {"array": self.render(index), "sampling_rate": self.sampling_rate}
        return {"id": row.pop("id"), "audio": audio, **row}

    def render(self, index: int) -> np.ndarray:
        """(S,) float32 waveform of a row, |x| < 1."""
        index = self._checked(index)
        effects = Effects(self.reverb, self.codec, self.lowpass)
        return render_scene(self.scene(index), self._generator(index, "audio"), self.sampling_rate, effects)

    def stems(self, index: int) -> list[np.ndarray]:
        """[background, event 0, ...] of a row, each (S,) float32 at 16 kHz; their sum is the row before effects."""
        return render_stems(self.scene(index), self._generator(self._checked(index), "audio"))

    def structure(self, index: int) -> dict[str, Any]:
        """The row without its audio: all other columns, identical on every machine."""
        index = self._checked(index)
        scene = self.scene(index)
        rng = self._generator(index, "captions")
        captions = draw_captions(rng, scene, self.caption_count, held_out=self.paraphrase == "held_out")
        block, position = divmod(index, QUESTION_BLOCK)
        return {
            "id": f"scenes-v{self.version}-{self.split}-{self.seed}-{index:06d}",
            "duration": scene.duration_ms / 1000,
            "captions": [caption.text for caption in captions],
            "labels": list(scene.labels),
            "label_ids": [CLASSES.index(label) for label in scene.labels],
            "events": [_event_row(event) for event in scene.events],
            "phrases": [
                {"phrase": phrase.text, "segments": [[e["onset"], e["offset"]] for e in map(_event_row, events)]}
                for phrase, events in _grounded(captions[0], scene)
            ],
            "qa": _block_questions(self, block)[position],
            "mode": scene.mode,
            "part": TEST_PARTS[index % 10] if self.split == "test" else "",
            "seed": self.seed,
        }

    def scene(self, index: int) -> Scene:
        """The composition of a row, in milliseconds and tenths of dB."""
        return self._scene_at(self._checked(index))

    def to_hf(self, num_workers: int | None = None):
        """A `datasets.Dataset` with these rows and an `Audio` column (FLAC bytes, decoded on access by torchcodec)."""
        return to_hf_dataset(self, num_workers=num_workers)

    def export(self, folder, audio_format: str = "wav", num_workers: int | None = None):
        """Writes audio files, `metadata.jsonl` and `README.md`; the folder loads as a `datasets` audiofolder.

        Returns:
            The folder as a `pathlib.Path`.
        """
        return export_scenes(self, folder, audio_format=audio_format, num_workers=num_workers)

    @property
    def _casting(self) -> Casting:
        return Casting(self.pool, self.n_events, self.version)

    @property
    def _most_events(self) -> int:
        return fitting_events(round(self.duration[1] * 1000))

    def _generator(self, index: int, stream: str) -> np.random.Generator:
        return generator(self.version, self.seed, self.split, index, stream)

    def _checked(self, index: int) -> int:
        position = int(index)
        if position < 0:
            position += self.size
        if not 0 <= position < self.size:
            raise IndexError(f"`index` {index} is outside of the {self.size} rows of this data set.")
        return position

    def _scene_at(self, index: int) -> Scene:
        if self.split == "test" and index % 10 == 6:
            return mirror(self._compose(index - 1))
        return self._compose(index)

    def _compose(self, index: int) -> Scene:
        rng = self._generator(index, "structure")
        if self.split == "test":
            num_blocks = -(-self.size // QUESTION_BLOCK) * QUESTION_BLOCK // len(TEST_PARTS)
            labels = cast_test_rows(self._casting, self._most_events, self.seed, num_blocks)[index]
            duration_ms = self._draw_duration(rng, needed_ms(len(labels)))
            return compose(rng, labels, duration_ms, only_sequence=TEST_PARTS[index % 10] == "order_pairs")
        if self.split == "zero_shot":
            return compose(rng, (self.pool[index % len(self.pool)],), self._draw_duration(rng))
        fewest = max(2, self.n_events[0]) if self.split == "composition" else self.n_events[0]
        duration_ms = self._draw_duration(rng, needed_ms(fewest))
        num_events = draw_num_events(rng, fewest, self.n_events[1])
        num_events = min(num_events, fitting_events(duration_ms))
        draw = draw_held_out_labels if self.split == "composition" else draw_labels
        labels = draw(rng, self._casting, num_events)
        gain = OOD_GAINS_DB[int(rng.integers(len(OOD_GAINS_DB)))] if self.split == "ood_level" else 0
        return compose(rng, labels, duration_ms, level_gain_db=gain)

    def _draw_duration(self, rng: np.random.Generator, shortest_ms: int = 0) -> int:
        """Milliseconds: log-uniform in steps of 10 ms, or the fixed duration."""
        low, high = (round(seconds * 1000) for seconds in self.duration)
        low = max(low, shortest_ms)
        step = int(rng.integers(1001))
        # The one power in the structure: builds differ by 1e-16 of it, which rounding to 10 ms removes.
        return min(high, max(low, round(low * (high / low) ** (step / 1000) / 10) * 10))


def _as_pair(value, name: str, kind: type) -> tuple:
    """(low, high) of a number or of a sequence of two."""
    numbers = (value, value) if isinstance(value, int | float) else tuple(value)
    if len(numbers) != 2 or any(isinstance(n, bool | str) or kind(n) != n for n in numbers):
        raise ValueError(f"`{name}` must be a number or a pair (lowest, highest), got {value!r}.")
    return kind(numbers[0]), kind(numbers[1])


def _event_row(event) -> dict[str, Any]:
    """The public description of an event; times in seconds."""
    return {
        "label": event.label,
        "onset": event.onset_ms / 1000,
        "offset": event.offset_ms / 1000,
        "level_db": event.level_tenths_db / 10,
        "loudness": event.loudness,
        "pitch": event.plan.pitch,
        "speed": event.speed,
        "count": event.plan.count,
    }


def _grounded(caption, scene: Scene):
    """(phrase, its events) of the first caption, in order of time."""
    if scene.mode == "repeat":
        return [(caption.phrases[0], scene.events)]
    return [(phrase, [event]) for phrase, event in zip(caption.phrases, scene.events, strict=True)]


@lru_cache(maxsize=64)
def _block_questions(dataset: SoundScenes, block: int) -> list[list[dict[str, Any]]]:
    """Questions of the rows of one block, balanced over it; rows behind the end count, so that `size` has no say."""
    first = block * QUESTION_BLOCK
    scenes = [dataset._scene_at(index) for index in range(first, first + QUESTION_BLOCK)]
    return draw_questions(generator(dataset.version, dataset.seed, dataset.split, block, "questions"), scenes)


def main(arguments: list[str] | None = None) -> None:
    """Command line: renders a split into a folder."""
    parser = argparse.ArgumentParser(prog="hf_audiolang.data.sound_scenes", description="Export synthetic scenes.")
    parser.add_argument("--split", default="train", help=f"one of {', '.join(SPLIT_CODES)}")
    parser.add_argument("--size", type=int, required=True, help="number of clips")
    parser.add_argument("--out", required=True, help="folder to write; made if missing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--duration", type=float, nargs="+", default=None, help="seconds: one number, or two (range)")
    parser.add_argument("--n_events", type=int, nargs=2, default=(1, 5), help="fewest and most events per clip")
    parser.add_argument("--sampling_rate", type=int, default=SYNTHESIS_RATE)
    parser.add_argument("--format", default="wav", help="wav or flac")
    parser.add_argument("--num_workers", type=int, default=None, help="processes; default: one per core")
    options = parser.parse_args(arguments)
    seconds = options.duration[0] if options.duration and len(options.duration) == 1 else options.duration
    try:
        scenes = SoundScenes(
            options.split, options.size, seed=options.seed, duration=seconds, n_events=tuple(options.n_events),
            sampling_rate=options.sampling_rate,
        )  # fmt: skip
        scenes.export(options.out, audio_format=options.format, num_workers=options.num_workers)
    except (ValueError, OSError) as error:
        parser.error(str(error))


__all__ = [
    "CLASSES",
    "RenderedScenes",
    "SoundScenes",
    "change_count",
    "dataset_card",
    "held_out_pairs",
    "materialize",
    "oracle_ceilings",
    "order_pairs",
    "relevance",
    "render_event",
    "swap_attribute",
    "swap_class",
    "swap_order",
    "unseen_class_names",
    "zero_shot_text",
]

if __name__ == "__main__":
    main()

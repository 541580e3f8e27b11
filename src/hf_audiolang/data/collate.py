# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Records to one batch: caption and crop are drawn per item, then the processor makes features and tokens.

(Record, draw_seed) -> Collator.draw -> Example(waveform, caption) -> Collator.collate -> batch dict
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hf_audiolang.models.losses_caption import IGNORED

from .audio_io import AudioError, audio_info, record_waveform
from .captions_checks import ON_BAD_EXAMPLE
from .records import Record


class BadExampleError(ValueError):
    """A record that cannot be trained on; the message starts with its id in backticks."""


@dataclass(frozen=True)
class Example:
    """One drawn item of a batch.

    Attributes:
        waveform: (S,) float32 mono at the processor's sampling rate.
        audio_seconds: real audio in it, without the silence that fills a short clip up.
    """

    waveform: np.ndarray
    caption: str
    audio_seconds: float


class Collator:
    """Makes a batch of records; picklable, and a function of its items alone, so that workers do not matter.

    One caption and one crop per item are drawn from `numpy.random.default_rng((seed, draw_seed))`. A crop has
    min(duration, max_seconds) seconds, rounded down to a multiple of `crop_step_seconds` where that is given: few
    distinct lengths suit compiled models and patches of fixed width. A clip shorter than one step is
    taken whole and followed by silence up to that length.
    """

    def __init__(
        self,
        processor: Callable,
        *,
        max_seconds: float,
        max_text_tokens: int,
        crop_step_seconds: float | None = None,
        on_bad_example: str = "skip",
        seed: int = 0,
    ) -> None:
        """See the class.

        Args:
            processor: an `AudioLangProcessor`; its feature extractor names the sampling rate.
            max_text_tokens: longer captions are cut.
            on_bad_example: what `TrainDataset` does with a clip or caption that cannot be used: "error" raises,
                "skip" replaces it and says so in the batch.

        Raises:
            ValueError: for lengths that are not positive or contradict each other, or an unknown policy.
        """
        step_seconds = crop_step_seconds or 0.0
        if not (max_seconds > 0 and max_seconds + 1e-9 >= step_seconds):
            raise ValueError(
                f"`max_seconds` is {max_seconds}, with `crop_step_seconds` {crop_step_seconds}. It must be positive "
                "and at least as long as one step."
            )
        if step_seconds < 0:
            raise ValueError(
                f"`crop_step_seconds` is {crop_step_seconds}. Give a positive number of seconds, or None."
            )
        if max_text_tokens < 1:
            raise ValueError(f"`max_text_tokens` is {max_text_tokens}. Give a positive number of tokens.")
        if on_bad_example not in ON_BAD_EXAMPLE:
            raise ValueError(f"Unknown `on_bad_example` {on_bad_example!r}. Choose one of {list(ON_BAD_EXAMPLE)}.")
        self.processor = processor
        self.max_seconds = max_seconds
        self.max_text_tokens = max_text_tokens
        self.crop_step_seconds = step_seconds or None
        self.on_bad_example = on_bad_example
        self.seed = seed

    @property
    def sampling_rate(self) -> int:
        """Hz of the waveforms, from the feature extractor."""
        return self.processor.feature_extractor.sampling_rate

    def draw(self, record: Record, draw_seed: int) -> Example:
        """One caption and one crop of a record.

        Raises:
            BadExampleError: naming the record, for unusable audio, no caption, or an empty one.
        """
        generator = np.random.default_rng((self.seed, draw_seed))
        captions = [text for text in record.captions if text.strip()]
        if not captions:
            what = "an empty caption" if record.captions else "no caption"
            raise BadExampleError(f"`{record.id}` has {what}. Write one, or remove the row.")
        caption = captions[generator.integers(len(captions))]
        try:
            offset_seconds, crop_seconds, filled_seconds = self._draw_crop(record, generator)
            waveform = record_waveform(record, self.sampling_rate, offset_seconds, crop_seconds)
        except AudioError as error:
            named = str(error).startswith(f"`{record.id}`")
            raise BadExampleError(str(error) if named else f"`{record.id}`: {error}") from error
        audio_seconds = len(waveform) / self.sampling_rate
        missing_samples = round(filled_seconds * self.sampling_rate) - len(waveform)
        if missing_samples > 0:
            waveform = np.pad(waveform, (0, missing_samples))
        return Example(waveform, caption, audio_seconds)

    def collate(self, examples: Sequence[Example], skipped: Sequence[str] = ()) -> dict:
        """The batch of drawn examples.

        Returns:
            `input_features` (B, T, F), `input_features_mask` (B, T), `input_ids` (B, L), `attention_mask` (B, L),
            `labels` (B, L) = input_ids with -100 at padding, and `audio_seconds` (real seconds, a number),
            `skipped` (messages).
        """
        inputs = self.processor(
            text=[example.caption for example in examples],
            audio=[example.waveform for example in examples],
            sampling_rate=self.sampling_rate,
            padding=True,
            truncation=True,
            max_length=self.max_text_tokens,
            return_tensors="pt",
        )
        batch = dict(inputs)
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)  # (B, L)
        batch["audio_seconds"] = float(sum(example.audio_seconds for example in examples))
        batch["skipped"] = list(skipped)
        return batch

    def _draw_crop(self, record: Record, generator: np.random.Generator) -> tuple[float, float | None, float]:
        """(start, length to read, length to fill up to) in seconds; a length of None reads to the end."""
        duration = _duration(record)
        step_seconds = self.crop_step_seconds or 0.0
        if duration <= step_seconds:
            return 0.0, None, step_seconds
        crop_seconds = min(duration, self.max_seconds)
        if step_seconds:
            crop_seconds = int(crop_seconds / step_seconds + 1e-6) * step_seconds
        if crop_seconds >= duration:
            return 0.0, None, crop_seconds
        return float(generator.uniform(0.0, duration - crop_seconds)), crop_seconds, crop_seconds


def _duration(record: Record) -> float:
    """Seconds of a record: counted, or as its file's header says."""
    if isinstance(record.audio, np.ndarray) and record.sampling_rate:
        return len(record.audio) / record.sampling_rate
    if record.duration is not None:
        return record.duration
    if record.audio is None or isinstance(record.audio, np.ndarray):
        return 0.0  # record_waveform says what is wrong with it
    return audio_info(record.audio, name=None if not isinstance(record.audio, bytes) else record.id).duration


__all__ = ["BadExampleError", "Example", "Collator"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Records to one batch: caption and crop are drawn per item, then the processor makes features and tokens.

(Record, draw_seed) -> Collator.draw -> Example(waveform, caption) -> Collator.collate -> batch dict

The captions become tokens, rows of a store of precomputed embeddings, or nothing for a model that reads none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hf_audiolang.models.losses_caption import IGNORED

from .audio_io import AudioError, audio_info, record_waveform
from .caption_text import clean_captions
from .captions_checks import ON_BAD_EXAMPLE
from .records import Record

if TYPE_CHECKING:
    from .text_embeddings import TextStore


class BadExampleError(ValueError):
    """A record that cannot be trained on; the message starts with its id in backticks."""


@dataclass(frozen=True)
class Example:
    """One drawn item of a batch.

    Attributes:
        waveform: (S,) float32 mono at the processor's sampling rate.
        caption: "" for a record without one, where none is needed.
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
    taken whole and followed by silence up to that length. What is drawn does not depend on what captions become.
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
        text_store: TextStore | None = None,
        needs_captions: bool = True,
        cleans_captions: bool = False,
    ) -> None:
        """See the class.

        Args:
            processor: an `AudioLangProcessor`; its feature extractor names the sampling rate. A feature extractor
                alone is enough where captions do not become tokens.
            max_text_tokens: longer captions are cut.
            on_bad_example: what `TrainDataset` does with a clip or caption that cannot be used: "error" raises,
                "skip" replaces it and says so in the batch.
            text_store: embeddings of the captions, which stand in the batch instead of their tokens.
            needs_captions: False leaves text out of the batch, and takes records without captions.
            cleans_captions: captions go through `clean_captions` before they become tokens.

        Raises:
            ValueError: for lengths that are not positive or contradict each other, an unknown policy, or a
                `text_store` that nobody needs.
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
        if text_store is not None and not needs_captions:
            raise ValueError("`text_store` is given, but `needs_captions` is False. Leave one of them out.")
        self.processor = processor
        self.text_store = text_store
        self.needs_captions = needs_captions
        self.cleans_captions = cleans_captions
        self.max_seconds = max_seconds
        self.max_text_tokens = max_text_tokens
        self.crop_step_seconds = step_seconds or None
        self.on_bad_example = on_bad_example
        self.seed = seed

    @property
    def sampling_rate(self) -> int:
        """Hz of the waveforms, from the feature extractor."""
        return self._feature_extractor.sampling_rate

    def draw(self, record: Record, draw_seed: int) -> Example:
        """One caption and one crop of a record.

        Raises:
            BadExampleError: naming the record, for unusable audio, no caption, or an empty one.
        """
        generator = np.random.default_rng((self.seed, draw_seed))
        captions = [text for text in record.captions if text.strip()]
        if not captions and self.needs_captions:
            what = "an empty caption" if record.captions else "no caption"
            raise BadExampleError(f"`{record.id}` has {what}. Write one, or remove the row.")
        caption = captions[generator.integers(len(captions))] if captions else ""
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
            `input_features` (B, T, F), `input_features_mask` (B, T); `input_ids` (B, L), `attention_mask` (B, L) and
            `labels` (B, L) = input_ids with -100 at padding, or with a store `text_embeddings` (B, D), or no text;
            and `audio_seconds` (real seconds, a number), `skipped` (messages).

        Raises:
            ValueError: for a caption that the store does not have; names it.
        """
        batch = self._inputs([example.waveform for example in examples], [example.caption for example in examples])
        batch["audio_seconds"] = float(sum(example.audio_seconds for example in examples))
        batch["skipped"] = list(skipped)
        return batch

    def _inputs(self, waveforms: list[np.ndarray], captions: list[str]) -> dict:
        """The model's inputs."""
        if self.text_store is None and self.needs_captions:
            inputs = self.processor(
                text=clean_captions(captions) if self.cleans_captions else captions,
                audio=waveforms,
                sampling_rate=self.sampling_rate,
                padding=True,
                truncation=True,
                max_length=self.max_text_tokens,
                return_tensors="pt",
            )
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORED)  # (B, L)
            return {**inputs, "labels": labels}
        inputs = self._feature_extractor(
            waveforms, sampling_rate=self.sampling_rate, padding=True, return_tensors="pt"
        )
        return {**inputs} if self.text_store is None else {**inputs, "text_embeddings": self.text_store.rows(captions)}

    @property
    def _feature_extractor(self) -> Callable:
        return getattr(self.processor, "feature_extractor", self.processor)

    def _draw_crop(self, record: Record, generator: np.random.Generator) -> tuple[float, float | None, float]:
        """(start, length to read, length to fill up to) in seconds; a length of None reads to the end."""
        duration = duration_of(record)
        step_seconds = self.crop_step_seconds or 0.0
        if duration <= step_seconds:
            return 0.0, None, step_seconds
        crop_seconds = min(duration, self.max_seconds)
        if step_seconds:
            crop_seconds = int(crop_seconds / step_seconds + 1e-6) * step_seconds
        if crop_seconds >= duration:
            return 0.0, None, crop_seconds
        return float(generator.uniform(0.0, duration - crop_seconds)), crop_seconds, crop_seconds


def duration_of(record: Record) -> float:
    """Seconds of a record: counted, or as its file's header says."""
    if isinstance(record.audio, np.ndarray) and record.sampling_rate:
        return len(record.audio) / record.sampling_rate
    if record.duration is not None:
        return record.duration
    if record.audio is None or isinstance(record.audio, np.ndarray):
        return 0.0  # record_waveform says what is wrong with it
    return audio_info(record.audio, name=None if not isinstance(record.audio, bytes) else record.id).duration


__all__ = ["BadExampleError", "Example", "Collator", "duration_of"]

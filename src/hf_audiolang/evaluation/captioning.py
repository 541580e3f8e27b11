# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Captions of clips by a captioner, and how well they agree with the clips' own captions.

    clips -> pieces that fit -> feature extractor -> model.generate -> tokenizer -> a caption for each piece
          -> joined in order -> one caption per clip -> CIDEr-D, BLEU, ROUGE-L, diversity

Works with any model that has `generate` and takes what its feature extractor gives, and a processor with that feature
extractor and a tokenizer. Beam search, nothing random: a clip gets the same caption whatever its batch mates.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from hf_audiolang.data.records import Record, RecordDataset, dataset_captions

from .capabilities import AudioProcessor, feature_extractor_of
from .embed import (
    AudioOptions,
    RecordReader,
    audio_inputs,
    batches_by_length,
    evaluation_mode,
    longest_seconds,
    split_waveform,
)
from .metrics.caption_scores import TOKENIZER, caption_diversity, caption_scores, simple_words
from .results import TaskResult, task_record

NUM_BEAMS = 4  # SLAP's captioning decodes with it
MAX_NEW_TOKENS = 64  # our choice: three times the usual caption of AudioCaps or Clotho
# Clips of one `generate`, our choice: as many of 2 s fill the usual batch. The decoder's memory grows with clips times
# beams, however short the clips, and none of them has its caption before all have.
MAX_BATCH_CLIPS = 64
PREFIX = "captioning/"


@dataclass(frozen=True)
class CaptionPiece:
    """The caption of a piece of a clip, from `start` to `end` in seconds."""

    start: float
    end: float
    caption: str


@dataclass(frozen=True)
class CaptionedClip:
    """A clip with its generated caption.

    Attributes:
        index: position of the clip in the data set.
        record: the clip without its audio, with its duration.
        pieces: captions of its pieces in order; one unless the clip is longer than the model takes.
    """

    index: int
    record: Record
    pieces: tuple[CaptionPiece, ...]

    @property
    def caption(self) -> str:
        """The captions of the pieces as one."""
        return joined_caption([piece.caption for piece in self.pieces])


@dataclass(frozen=True)
class GeneratedCaptions:
    """Captions of the readable clips of a data set.

    Attributes:
        clips: in the order of the data set.
        skipped: one message per clip that was left out.
        audio_seconds: duration of the clips together.
    """

    clips: list[CaptionedClip]
    skipped: list[str]
    audio_seconds: float

    @property
    def captions(self) -> list[str]:
        """One caption per clip."""
        return [clip.caption for clip in self.clips]


def generate_captions(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: RecordDataset,
    *,
    num_beams: int = NUM_BEAMS,
    max_new_tokens: int | None = None,
    options: AudioOptions | None = None,
) -> GeneratedCaptions:
    """Captions of the clips of a data set, with the clips that were left out and why.

    Args:
        model: has `generate`; runs on the device it is on.
        processor: its feature extractor and tokenizer.
        dataset: map-style sequence of `Record`; each is read once.
        num_beams: hypotheses of the beam search; 1 takes the likeliest token each time.
        max_new_tokens: longest caption of a piece; None: 64, or what the model's generation config allows if less.
        options: batching (of at most `MAX_BATCH_CLIPS` clips), the rule for bad clips and the rule for long ones:
            "chunk_mean" has a caption for each of the equal pieces, joined by `joined_caption`; "crop" one for the
            beginning.

    Raises:
        AudioError: if a clip is bad and `options.on_bad_example` is "error".
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if the model writes no captions or no clip is readable.
    """
    check_captioner(model, processor)
    reader = RecordReader(dataset, feature_extractor_of(processor).sampling_rate, options or AudioOptions())
    generation = generation_settings(model, num_beams, max_new_tokens)
    clips = sorted(iter_captions(model, processor, reader, generation), key=lambda clip: clip.index)
    reader.check_any_read()
    return GeneratedCaptions(clips, reader.skipped, reader.audio_seconds)


def iter_captions(
    model: nn.Module, processor: AudioProcessor, reader: RecordReader, generation: Mapping[str, object]
) -> Iterator[CaptionedClip]:
    """Each clip as soon as it has its caption: those of a batch together, long before the last one is read.

    Args:
        model: has `generate`; in evaluation mode while it runs.
        processor: its feature extractor and tokenizer.
        reader: gives the waveforms, by its options; holds what was left out.
        generation: arguments of `generate`.
    """
    longest = longest_seconds(processor, reader.options)
    max_samples = None if longest is None else int(longest * reader.sampling_rate)
    owners: list[tuple[int, int]] = []  # of each piece its clip and its place in the clip
    bounds: dict[int, np.ndarray] = {}  # of each clip without caption yet the samples where its pieces start and end
    texts: dict[int, dict[int, str]] = {}  # of each such clip the captions by place

    def pieces() -> Iterator[tuple[int, np.ndarray]]:
        for index, waveform in reader:
            parts = split_waveform(waveform, max_samples, reader.options)
            bounds[index] = np.cumsum([0, *map(len, parts)])
            texts[index] = {}
            for place, part in enumerate(parts):
                owners.append((index, place))
                yield len(owners) - 1, part

    batch_samples = int(reader.options.batch_seconds * reader.sampling_rate)
    for batch in batches_by_length(pieces(), batch_samples, MAX_BATCH_CLIPS):
        captions = _captions_of_batch(model, processor, [piece for _, piece in batch], generation)
        for (number, _), caption in zip(batch, captions, strict=True):
            index, place = owners[number]
            texts[index][place] = caption
            if len(texts[index]) == len(bounds[index]) - 1:
                times, found = bounds.pop(index) / reader.sampling_rate, texts.pop(index)
                done = [CaptionPiece(float(times[i]), float(times[i + 1]), found[i]) for i in sorted(found)]
                yield CaptionedClip(index, reader.records[index], tuple(done))


def generation_settings(
    model: nn.Module, num_beams: int = NUM_BEAMS, max_new_tokens: int | None = None
) -> dict[str, object]:
    """Arguments of `generate` for captions that depend on nothing random, as `generate_captions` takes them.

    Raises:
        ValueError: if a number is below 1, or the decoder has no positions for so many tokens.
    """
    decoder = getattr(getattr(model, "config", None), "decoder_config", None)
    positions = getattr(decoder, "max_position_embeddings", None)  # for the start token and all but the last new one
    if max_new_tokens is None:
        limit = getattr(getattr(model, "generation_config", None), "max_new_tokens", None)
        max_new_tokens = min(MAX_NEW_TOKENS, limit or MAX_NEW_TOKENS, positions or MAX_NEW_TOKENS)
    for name, value, usual in (
        ("num_beams", num_beams, NUM_BEAMS),
        ("max_new_tokens", max_new_tokens, MAX_NEW_TOKENS),
    ):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}. The default is {usual}.")
    if positions is not None and max_new_tokens > positions:
        raise ValueError(
            f"`max_new_tokens` is {max_new_tokens}, but the decoder has {positions} positions "
            "(`max_position_embeddings`). Give at most as many."
        )
    return {"num_beams": num_beams, "max_new_tokens": max_new_tokens, "do_sample": False}


def joined_caption(captions: Sequence[str]) -> str:
    """Captions of consecutive pieces as one: "a dog barks then rain falls".

    A piece without words, or with the words of the piece before, adds nothing.
    """
    if len(captions) == 1:
        return captions[0]
    told: list[str] = []
    for caption in captions:
        caption = caption.rstrip(" .")
        if caption and caption != (told[-1] if told else ""):
            told.append(caption)
    return " then ".join(told)


def evaluate(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: RecordDataset,
    *,
    num_beams: int = NUM_BEAMS,
    max_new_tokens: int | None = None,
    options: AudioOptions | None = None,
) -> TaskResult:
    """`captioning/CIDEr-D`, `captioning/BLEU_1`, ..., `captioning/ROUGE_L` and the diversity of the captions.

    The chance level of a score is what the same captions reach when each stands for another clip, half of the data
    set away: as well written, and blind.

    Args:
        model: has `generate`.
        processor: its feature extractor and tokenizer.
        dataset: at least two records, each with at least one caption.
        num_beams: hypotheses of the beam search.
        max_new_tokens: longest caption of a piece; None: 64, or what the model's generation config allows if less.
        options: reading and batching of the clips, see `generate_captions`.

    Raises:
        ValueError: if a record has no caption with a word, there are fewer than two readable clips, or the model
            writes no captions.
    """
    start, options = time.perf_counter(), options or AudioOptions()
    generation = generation_settings(model, num_beams, max_new_tokens)
    _check_references(dataset)
    found = generate_captions(
        model, processor, dataset,
        num_beams=num_beams, max_new_tokens=generation["max_new_tokens"], options=options,
    )  # fmt: skip
    references = [clip.record.captions for clip in found.clips]
    values = _values(found.captions, references)
    record = task_record(
        "captioning", model, dataset, found.skipped, len(found.clips), time.perf_counter() - start,
        num_references=sum(map(len, references)), num_empty=round(values[f"{PREFIX}empty"] * len(references)),
        tokenizer=TOKENIZER, num_beams=num_beams, max_new_tokens=generation["max_new_tokens"],
        audio_seconds=round(found.audio_seconds, 2), max_seconds=longest_seconds(processor, options),
        long_audio=options.long_audio,
    )  # fmt: skip
    half = len(references) // 2
    elsewhere = caption_scores([*found.captions[half:], *found.captions[:half]], references)
    return TaskResult(values, {f"{PREFIX}{name}": value for name, value in elsewhere.corpus.items()}, record)


def reference_scores(references: Sequence[Sequence[str]]) -> dict[str, float]:
    """What people's own captions score by the same metrics: one caption of each clip against its others.

    The first caption of every clip is scored against the rest of the clip's captions, then the second, ...; the values
    are the means over these choices, as many as the clip with the fewest captions has. A captioner is compared with
    one reference more, which can only help it.

    Args:
        references: for each of at least two clips two captions or more.

    Returns:
        the metrics of `evaluate`.

    Raises:
        ValueError: if a clip has fewer than two captions, or there are fewer than two clips.
    """
    for index, captions in enumerate(references):
        if len(captions) < 2:
            raise ValueError(
                f"`references` of clip {index} are {len(captions)}, {list(captions)}. One caption is compared with "
                "the others of its clip: give at least two, or leave the clip out."
            )
    choices = range(min(map(len, references), default=0))
    found = [
        _values(
            [captions[i] for captions in references], [[*captions[:i], *captions[i + 1 :]] for captions in references]
        )
        for i in choices
    ] or [_values([], [])]  # raises: no clips
    return {name: float(np.mean([values[name] for values in found])) for name in found[0]}


def check_captioner(model: nn.Module, processor: AudioProcessor) -> None:
    """Raises ValueError, with what to do instead, if the model writes no captions."""
    family = type(model).__name__
    if not hasattr(model, "generate"):
        raise ValueError(
            f"`model` (a {family}) writes no captions: it has no caption decoder. Take a captioner, such as the "
            "folder captioner/ that a training run with a caption loss exports."
        )
    if getattr(processor, "tokenizer", None) is None:
        raise ValueError(
            f"`processor` of the {family} is a {type(processor).__name__} and has no tokenizer. Pass the whole "
            "processor, feature extractor and tokenizer, that the model was trained with."
        )


def _captions_of_batch(
    model: nn.Module, processor: AudioProcessor, waveforms: list[np.ndarray], generation: Mapping[str, object]
) -> list[str]:
    with evaluation_mode(model):
        token_ids = model.generate(**audio_inputs(model, processor, waveforms), **generation)  # (B, L)
    texts = processor.tokenizer.batch_decode(token_ids, skip_special_tokens=True)
    return [" ".join(text.split()) for text in texts]


def _values(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    values = {**caption_scores(captions, references).corpus, **caption_diversity(captions)}
    return {f"{PREFIX}{name}": value for name, value in values.items()}


def _check_references(dataset: RecordDataset) -> None:
    """Refuses what could not be scored, before anything is encoded."""
    if len(dataset) < 2:
        raise ValueError(
            f"`dataset` must have at least two clips, got {len(dataset)}. CIDEr-D weighs words by how few clips of "
            "the set have them: give more clips, or only call `generate_captions`."
        )
    for index, captions in enumerate(dataset_captions(dataset)):
        if not any(map(simple_words, captions)):
            raise ValueError(
                f"Clip {index} of `dataset` has no caption with a word to compare with, got {list(captions)}. Name "
                "the column with the texts, or leave the clip out."
            )


__all__ = [
    "MAX_BATCH_CLIPS",
    "MAX_NEW_TOKENS",
    "NUM_BEAMS",
    "CaptionPiece",
    "CaptionedClip",
    "GeneratedCaptions",
    "check_captioner",
    "evaluate",
    "generate_captions",
    "generation_settings",
    "iter_captions",
    "joined_caption",
    "reference_scores",
]

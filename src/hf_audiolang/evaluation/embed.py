# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Embeddings of the clips of a data set and of texts, batched by length, in the order they were given.

    records -> waveforms -> feature extractor -> model.get_audio_features -> (N, E) unit-norm, float32
    texts -> distinct texts, sorted by length -> tokenizer -> model.get_text_features -> (M, E) unit-norm, float32

Nothing here is random: a clip gets the same embedding whatever its batch mates (to float32 rounding). Works with any
model that has these two methods and any processor with a feature extractor and a tokenizer, such as CLAP's. An audio
encoder alone embeds sounds by its `pooler_output`, normalised like every embedding here; its processor may be the
feature extractor itself.
"""

import inspect
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ProcessorMixin
from transformers.utils import logging

from hf_audiolang.data.audio_io import AudioError, record_waveform
from hf_audiolang.data.records import MAX_BAD_FRACTION, Record, TooManyBadExamples

from .capabilities import AudioProcessor, check_text_input, feature_extractor_of
from .clip_cuts import Cut

logger = logging.get_logger(__name__)

LONG_AUDIO_RULES = ("chunk_mean", "crop")
BAD_EXAMPLE_RULES = ("skip", "error")
WINDOW_BATCHES = 8  # clips are read this many batches ahead, so that clips of one length meet in a batch


@dataclass(frozen=True)
class AudioOptions:
    """How clips are read and batched for an evaluation.

    Attributes:
        batch_seconds: audio of one forward pass, padding included; a longer clip is a batch of its own.
        max_seconds: clips longer than this follow `long_audio`. The feature extractor's own limit holds as well; None
            is that limit alone, and the whole clip when there is none.
        long_audio: "chunk_mean" cuts a long clip into the fewest equal pieces that fit, and takes the normalised mean
            of their embeddings; "crop" takes its first `max_seconds`.
        on_bad_example: "skip" leaves unreadable clips out and reports them; "error" raises at the first one.
        max_bad_fraction: share of the data set that may be left out under "skip", as in training, but always one
            clip: a small held-out part is no reason to end a run. 1 allows any, for files that a person names.
    """

    batch_seconds: float = 128.0
    max_seconds: float | None = None
    long_audio: str = "chunk_mean"
    on_bad_example: str = "skip"
    max_bad_fraction: float = MAX_BAD_FRACTION

    def __post_init__(self):
        if self.long_audio not in LONG_AUDIO_RULES:
            raise ValueError(f"Unknown `long_audio` {self.long_audio!r}. Choose one of {list(LONG_AUDIO_RULES)}.")
        if self.on_bad_example not in BAD_EXAMPLE_RULES:
            raise ValueError(
                f"Unknown `on_bad_example` {self.on_bad_example!r}. Choose one of {list(BAD_EXAMPLE_RULES)}."
            )
        for name in ("batch_seconds", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}. Give a number of seconds.")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"`max_bad_fraction` must lie in [0, 1], got {self.max_bad_fraction}. Give a share.")


@dataclass(frozen=True)
class RecordEmbeddings:
    """Embeddings of the readable clips of a data set.

    Attributes:
        embeds: (N, E) float32, unit-norm, in the order of the data set.
        indices: (N,) positions of these clips in the data set.
        records: N records without their audio: ids, captions, labels, events.
        skipped: one message per clip that was left out.
        audio_seconds: duration of the N clips together.
    """

    embeds: np.ndarray
    indices: np.ndarray
    records: list[Record]
    skipped: list[str]
    audio_seconds: float


@dataclass(frozen=True)
class PieceSums:
    """What a model gives for the readable clips of a data set, summed over the pieces that long clips are cut into.

    Attributes:
        indices: N positions of these clips in the data set.
        sums: (N, D) sum over the pieces of each clip.
        num_pieces: (N,) number of pieces of each clip.
        reader: holds the clips' records and what was left out.
    """

    indices: list[int]
    sums: np.ndarray
    num_pieces: np.ndarray
    reader: "RecordReader"


def embed_audio(
    model: nn.Module, processor: AudioProcessor, records: Sequence[Record], *, options: AudioOptions | None = None
) -> np.ndarray:
    """Unit-norm embeddings (N, E) of all records, float32, in their order; a bad record raises.

    Args:
        model: has `get_audio_features`, or is an audio encoder; runs on the device it is on.
        processor: holds the model's feature extractor, or is it.
        records: map-style sequence of `Record`.
        options: batching and the rule for long clips.

    Raises:
        AudioError: if a clip cannot be read, is empty or not finite.
        ValueError: if there are no records or an embedding is not finite.
    """
    options = replace(options or AudioOptions(), on_bad_example="error")
    return embed_records(model, processor, records, options=options).embeds


def embed_records(
    model: nn.Module, processor: AudioProcessor, dataset: Sequence[Record], *, options: AudioOptions | None = None
) -> RecordEmbeddings:
    """Embeddings of the clips of a data set, with the clips that were left out and why.

    Args:
        model: has `get_audio_features`, or is an audio encoder; runs on the device it is on.
        processor: holds the model's feature extractor, or is it.
        dataset: map-style sequence of `Record`; each is read once.
        options: batching, the rule for long clips and the rule for bad ones.

    Raises:
        AudioError: if a clip is bad and `options.on_bad_example` is "error".
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if no clip is readable or an embedding is not finite.
    """
    forward = getattr(model, "get_audio_features", model)
    found = sum_over_pieces(model, processor, dataset, lambda inputs: _unit_rows(_pooled(forward(**inputs))), options)
    records = [found.reader.records[index] for index in found.indices]
    embeds = _unit_rows(found.sums)
    return RecordEmbeddings(embeds, np.array(found.indices), records, found.reader.skipped, found.reader.audio_seconds)


def sum_over_pieces(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: Sequence[Record],
    forward: Callable[[dict[str, Tensor]], np.ndarray],
    options: AudioOptions | None = None,
    cut: Cut | None = None,
) -> PieceSums:
    """Sum over the pieces of each clip of what `forward` makes of them; clips in the order of the data set.

    Args:
        model: runs in evaluation mode, without gradient, on the device it is on.
        processor: holds the model's feature extractor, or is it.
        dataset: map-style sequence of `Record`; each is read once.
        forward: model inputs of B pieces -> (B, D).
        options: batching, the rule for long clips and the rule for bad ones.
        cut: what is done to the clips before; None leaves them as they are.

    Raises:
        AudioError: if a clip is bad and `options.on_bad_example` is "error".
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if no clip is readable.
    """
    options = options or AudioOptions()
    sampling_rate = feature_extractor_of(processor).sampling_rate
    reader = RecordReader(dataset, sampling_rate, options)
    pieces = reader.pieces(longest_seconds(processor, options), cut)
    totals: dict[int, np.ndarray] = {}  # dataset index -> sum over its pieces
    counts: dict[int, int] = {}
    with evaluation_mode(model):
        for batch in batches_by_length(pieces, int(options.batch_seconds * sampling_rate)):
            vectors = forward(audio_inputs(model, processor, [piece for _, piece in batch]))  # (B, D)
            for ((index, _), _), vector in zip(batch, vectors, strict=True):
                totals[index] = totals[index] + vector if index in totals else vector
                counts[index] = counts.get(index, 0) + 1
    reader.check_any_read()
    indices = sorted(totals)
    sums = np.stack([totals[index] for index in indices])
    return PieceSums(indices, sums, np.array([counts[index] for index in indices]), reader)


def embed_texts(
    model: nn.Module, processor: AudioProcessor, texts: Sequence[str], *, batch_size: int = 128
) -> np.ndarray:
    """Unit-norm embeddings (M, E) of texts, float32, in their order; equal texts are computed once.

    Args:
        model: has `get_text_features` and a text encoder; runs on the device it is on.
        processor: holds the model's tokenizer.
        texts: any number of texts, at least one.
        batch_size: distinct texts of one forward pass.

    Raises:
        ValueError: if there are no texts, one is empty, the model has no text encoder, or an embedding is not finite.
    """
    return map_texts(
        model, processor, texts, lambda inputs: _unit_rows(_pooled(model.get_text_features(**inputs))),
        batch_size=batch_size,
    )  # fmt: skip


def map_texts(
    model: nn.Module,
    processor: AudioProcessor,
    texts: Sequence[str],
    forward: Callable[[dict[str, Tensor]], np.ndarray],
    *,
    batch_size: int = 128,
) -> np.ndarray:
    """What `forward` makes of texts (M, D), in their order; equal texts are computed once.

    Args:
        model: has a text encoder; runs in evaluation mode, without gradient, on the device it is on.
        processor: holds the model's tokenizer.
        texts: any number of texts, at least one.
        forward: model inputs of B texts -> (B, D).
        batch_size: distinct texts of one forward pass.

    Raises:
        ValueError: if there are no texts, one is empty, or the model has no text encoder.
    """
    check_text_input(model, processor)
    empty = [position for position, text in enumerate(texts) if not text.strip()]
    if empty or len(texts) == 0:
        what = f"an empty text at position {empty[0]}" if empty else "no text"
        raise ValueError(f"`texts` holds {what}, of {len(texts)} in all. Give texts with at least one word.")
    distinct = sorted(dict.fromkeys(texts), key=len)  # stable: deterministic batches
    row_of_text = {text: row for row, text in enumerate(distinct)}
    parts = []
    with evaluation_mode(model):
        for start in range(0, len(distinct), batch_size):
            parts.append(forward(tokenized(model, processor, distinct[start : start + batch_size])))
    return np.concatenate(parts)[[row_of_text[text] for text in texts]]


def tokenized(model: nn.Module, processor: AudioProcessor, texts: Sequence[str]) -> dict[str, Tensor]:
    """What the tokenizer makes of texts, cut to the text encoder's limit, on the device of the model."""
    limits = _text_limits(model, processor)
    inputs = processor.tokenizer(list(texts), padding=True, return_tensors="pt", **limits)
    return {name: value.to(_device(model)) for name, value in inputs.items()}


class RecordReader:
    """Iterates over (index, waveform) of the readable clips of a data set and keeps what evaluation needs later.

    Attributes:
        records: index -> record without its audio, for the clips read so far.
        skipped: one message per clip that could not be read, here or when the data set was built.
        audio_seconds: duration of the clips read so far.
    """

    def __init__(self, dataset: Sequence[Record], sampling_rate: int, options: AudioOptions):
        self.dataset = dataset
        self.sampling_rate = sampling_rate
        self.options = options
        self.records: dict[int, Record] = {}
        self.skipped: list[str] = list(getattr(dataset, "skipped", ()))  # what its own checks left out
        self.audio_seconds = 0.0
        self._num_skipped_before = len(self.skipped)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        for index in range(len(self.dataset)):
            record = self.dataset[index]
            try:
                waveform = record_waveform(record, self.sampling_rate)  # (S,)
            except (AudioError, FileNotFoundError) as error:
                if self.options.on_bad_example == "error":
                    raise
                self.skipped.append(f"{record.id}: {error}")
                logger.warning("Left out clip %d: %s", index, error)
                self._check_share()
                continue
            self.audio_seconds += len(waveform) / self.sampling_rate
            self.records[index] = replace(record, audio=None, duration=len(waveform) / self.sampling_rate)
            yield index, waveform

    def _check_share(self) -> None:
        """Raises TooManyBadExamples at the first clip too many: what is left would not measure the data set."""
        unreadable = self.skipped[self._num_skipped_before :]
        if len(unreadable) > max(1, self.options.max_bad_fraction * len(self.dataset)):
            first = "\n  ".join(unreadable[:10])
            raise TooManyBadExamples(
                f"`dataset` has {len(self.dataset)} clips, of which at least {len(unreadable)} cannot be read, more "
                f"than {self.options.max_bad_fraction:.0%}. Repair or remove them. The first:\n  {first}"
            )

    def pieces(
        self, longest_seconds: float | None, cut: Cut | None = None
    ) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """((dataset index, number of the piece), piece (S,)) of all clips, after a cut and the rule for long ones."""
        max_samples = None if longest_seconds is None else int(longest_seconds * self.sampling_rate)
        for index, waveform in self:
            parts = [waveform] if cut is None else cut.pieces(waveform, index, self.sampling_rate)
            pieces = (piece for part in parts for piece in split_waveform(part, max_samples, self.options))
            yield from (((index, number), piece) for number, piece in enumerate(pieces))

    def check_any_read(self) -> None:
        """Raises ValueError if not a single clip could be read."""
        if not self.records:
            first = f" The first problem: {self.skipped[0]}" if self.skipped else ""
            raise ValueError(
                f"`dataset` has no readable clip, got {len(self.dataset)} records. Check its files.{first}"
            )


def split_waveform(waveform: np.ndarray, max_samples: int | None, options: AudioOptions) -> list[np.ndarray]:
    """The pieces (S_i,) of a waveform that are embedded: itself, its beginning, or equal pieces that fit.

    Args:
        waveform: (S,) samples.
        max_samples: longest piece, or None for no limit.
        options: its `long_audio` chooses the rule.
    """
    if max_samples is None or len(waveform) <= max_samples:
        return [waveform]
    if options.long_audio == "crop":
        return [waveform[:max_samples]]
    return np.array_split(waveform, -(-len(waveform) // max_samples))  # equal: no short rest with an equal say


def batches_by_length(
    items: Iterable[tuple[Hashable, np.ndarray]], batch_samples: int, max_clips: int | None = None
) -> Iterator[list[tuple[Hashable, np.ndarray]]]:
    """Groups (index, waveform) items into batches of similar lengths, holding only a few batches in memory.

    Args:
        items: indices with their (S_i,) waveforms.
        batch_samples: samples of a batch, padding included; a longer waveform is alone in its batch.
        max_clips: most waveforms of a batch, however short; None: as many as fit.
    """
    window: list[tuple[int, np.ndarray]] = []
    for item in items:
        window.append(item)
        if sum(len(waveform) for _, waveform in window) >= WINDOW_BATCHES * batch_samples:
            yield from _batches_of_window(window, batch_samples, max_clips)
            window = []
    yield from _batches_of_window(window, batch_samples, max_clips)


def _batches_of_window(
    window: list[tuple[int, np.ndarray]], batch_samples: int, max_clips: int | None
) -> Iterator[list[tuple[int, np.ndarray]]]:
    batch: list[tuple[int, np.ndarray]] = []
    for item in sorted(window, key=lambda item: len(item[1]), reverse=True):
        if batch and (len(batch[0][1]) * (len(batch) + 1) > batch_samples or len(batch) == max_clips):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Runs the block without dropout and gradients, then gives each sub-module its own training flag back.

    Uses `no_grad`, not `inference_mode`: a table that a model caches in the block can then serve in training.
    """
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, is_training in flags:
            module.training = is_training


def audio_inputs(model: nn.Module, processor: AudioProcessor, waveforms: list[np.ndarray]) -> dict[str, Tensor]:
    """What the feature extractor makes of waveforms (S_i,), on the device and in the precision of the model."""
    extractor, dtype = feature_extractor_of(processor), next(model.parameters()).dtype
    # not through the processor: there a tokenizer's saved `max_length` reaches CLAP's extractor and cuts the audio
    on_device = {"device": _device(model)} if "device" in inspect.signature(extractor.__call__).parameters else {}
    inputs = extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors="pt", **on_device)
    return {
        name: value.to(_device(model), dtype=dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def longest_seconds(processor: AudioProcessor, options: AudioOptions) -> float | None:
    """Longest piece of audio that is embedded at once: the smaller of the extractor's limit and `max_seconds`."""
    extractor = feature_extractor_of(processor)
    limit = getattr(extractor, "max_seconds", None) or getattr(extractor, "max_length_s", None)  # the latter: CLAP's
    if limit is None and hasattr(extractor, "n_samples"):  # Whisper's `chunk_length`; EnCodec's is in samples
        limit = extractor.n_samples / extractor.sampling_rate
    limits = [seconds for seconds in (options.max_seconds, limit) if seconds]
    return min(limits, default=None)


def _pooled(output: object) -> np.ndarray:
    return output.pooler_output.float().cpu().numpy()  # (B, E)


def _unit_rows(embeds: np.ndarray) -> np.ndarray:
    """Rows (N, E) of norm 1; raises ValueError at rows that cannot have one."""
    norms = np.linalg.norm(embeds, axis=-1, keepdims=True)
    bad = ~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0)
    if bad.any():
        raise ValueError(
            f"The model gave {int(bad.sum())} of {len(embeds)} embeddings that are not finite or are zero, the first "
            f"in row {int(bad.argmax())}. Check the weights: an embedding needs a direction."
        )
    return embeds / norms


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _text_limits(model: nn.Module, processor: ProcessorMixin) -> dict[str, object]:
    """Truncation arguments: the tokenizer's limit, or the text encoder's where the tokenizer states none."""
    limit = processor.tokenizer.model_max_length
    if limit > 1_000_000:  # transformers writes 1e30 for "not stated"
        limit = getattr(getattr(model.config, "text_config", None), "max_position_embeddings", None)
    return {} if limit is None else {"truncation": True, "max_length": int(limit)}


__all__ = [
    "AudioOptions",
    "PieceSums",
    "RecordEmbeddings",
    "RecordReader",
    "audio_inputs",
    "batches_by_length",
    "embed_audio",
    "embed_records",
    "embed_texts",
    "evaluation_mode",
    "longest_seconds",
    "map_texts",
    "split_waveform",
    "sum_over_pieces",
    "tokenized",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""When is which text heard: cosine of every frame of a recording of any length with texts.

    labels -> embed_labels -> (C, E)
    file -> windows on whole frames -> model.get_audio_frame_features -> (T', E) @ (E, C) -> mean where windows overlap
        -> FrameScores: scores (T, C), edges (T + 1,) in seconds

Only a few windows are in memory at a time. Frame k of the file covers [k, k + 1) / frame rate, the last one ends with
the file. A model with clip embeddings alone, such as transformers' `ClapModel`, is asked for a clip around each frame.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn
from transformers.utils import logging

from hf_audiolang.data.audio_io import AudioError, audio_info, record_waveform
from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor, check_text_input, feature_extractor_of
from .embed import AudioOptions, RecordReader, audio_inputs, batches_by_length, evaluation_mode, longest_seconds
from .frame_times import (
    TIME_TOLERANCE,
    edges_of_frames,
    frame_offset_of,
    frame_rate_of,
    num_frames_in,
    stretches_input,
)
from .metrics.psds import FrameScores
from .zero_shot import class_prompts, embed_classes

logger = logging.get_logger(__name__)

BARE_LABEL = ("{label}",)  # MGA-CLAP's detection script
WINDOW_SECONDS = 30.0  # our choice, for feature extractors without a limit


@dataclass(frozen=True)
class FrameScoreOptions:
    """How a recording is cut for frame scores.

    Attributes:
        window_seconds: longest piece encoded at once; None is the feature extractor's limit, else 30 s.
        overlap: share of a window that the next one repeats, in [0, 1), rounded to whole frames; scores of shared
            frames are averaged.
        clip_window_seconds: for models without frame embeddings, the width of the clip around each frame.
        clip_hop_seconds: for models without frame embeddings, the duration of a frame.
        reading: audio of one forward pass, and what happens to bad clips of a data set. Its `max_seconds` bounds a
            window too.

    Raises:
        ValueError: if a value is out of its range.
    """

    window_seconds: float | None = None
    overlap: float = 0.0
    clip_window_seconds: float = 1.0
    clip_hop_seconds: float = 0.25
    reading: AudioOptions = field(default_factory=AudioOptions)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for name in ("window_seconds", "clip_window_seconds", "clip_hop_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be positive, got {value}. Give a number of seconds.")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"`overlap` must lie in [0, 1), got {self.overlap}. Give a share of the window.")


@dataclass(frozen=True)
class ScoredRecords:
    """Frame scores of the readable clips of a data set.

    Attributes:
        frame_scores: N scores, in the order of the data set.
        records: N records without their audio; `duration` is what was read.
        frame_rates_hz: N numbers of frames per second.
        skipped: one message per clip that was left out.
    """

    frame_scores: list[FrameScores]
    records: list[Record]
    frame_rates_hz: list[float]
    skipped: list[str]


def score_frames(
    model: nn.Module,
    processor: AudioProcessor,
    record: Record,
    text_embeds: np.ndarray,
    options: FrameScoreOptions | None = None,
) -> FrameScores:
    """Cosine similarity (T, C) of every frame of one recording with texts, and the frames' edges.

    Args:
        model: has `get_audio_frame_features` and `config.audio_config.frame_rate_hz`, or `get_audio_features` alone.
        processor: holds the model's feature extractor, or is it.
        record: a recording of any length; a file is read window by window.
        text_embeds: (C, E) unit-norm, as `embed_labels` gives.
        options: windows and batches.

    Returns:
        `scores` (T, C) float32 with T = ceil(seconds * frame rate), and `edges` (T + 1,) from 0 to the duration.

    Raises:
        AudioError: if the recording cannot be read, is empty or not finite.
        ValueError: if `text_embeds` is not (C, E).
    """
    reading = replace((options or FrameScoreOptions()).reading, on_bad_example="error")
    found = score_records(model, processor, [record], lambda _: text_embeds, options=options, reading=reading)
    return found.frame_scores[0]


def score_records(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: Sequence[Record],
    text_embeds_of: Callable[[Record], np.ndarray],
    *,
    options: FrameScoreOptions | None = None,
    reading: AudioOptions | None = None,
) -> ScoredRecords:
    """Frame scores of every readable clip of a data set, each with its own texts.

    Args:
        model: as in `score_frames`.
        processor: holds the model's feature extractor, or is it.
        dataset: map-style sequence of `Record`; each is read once.
        text_embeds_of: record -> (C_i, E) unit-norm.
        options: windows, batches and the rule for bad clips.
        reading: instead of `options.reading`.

    Raises:
        AudioError: if a clip is bad and `reading.on_bad_example` is "error".
        TooManyBadExamples: if more than `reading.max_bad_fraction` of the clips are bad.
        ValueError: if no clip is readable.
    """
    options = options or FrameScoreOptions()
    reader = _PieceReader(model, processor, dataset, replace(options, reading=reading or options.reading))
    sums: dict[int, np.ndarray] = {}  # dataset index -> (T, C)
    counts: dict[int, np.ndarray] = {}  # dataset index -> (T, 1): pieces that hold the frame
    texts: dict[int, np.ndarray] = {}
    with evaluation_mode(model):
        for batch in batches_by_length(reader, reader.batch_samples):
            embeds = _embed_batch(model, processor, [piece for _, piece in batch])
            for ((index, start), _), frames in zip(batch, embeds, strict=True):  # frames (T', E)
                layout = reader.layouts[index]
                if index not in sums:
                    texts[index] = _checked_texts(text_embeds_of(reader.started[index]), frames.shape[-1])
                    sums[index] = np.zeros((layout.num_frames, len(texts[index])), dtype=np.float32)
                    counts[index] = np.zeros((layout.num_frames, 1), dtype=np.float32)
                frames = frames[: min(layout.window_frames, layout.num_frames - start)]
                sums[index][start : start + len(frames)] += frames @ texts[index].T
                counts[index][start : start + len(frames)] += 1
    reader.check_any_read()
    indices = sorted(reader.records)
    frame_scores = [
        FrameScores(_means(sums.pop(index), counts[index], reader.records[index]), reader.layouts[index].edges)
        for index in indices
    ]
    rates = [reader.layouts[index].frame_rate_hz for index in indices]
    return ScoredRecords(frame_scores, [reader.records[index] for index in indices], rates, reader.skipped)


def embed_labels(
    model: nn.Module,
    processor: AudioProcessor,
    labels: Sequence[str],
    templates: Sequence[str] | str = BARE_LABEL,
    label_text: Callable[[str], str] | None = None,
    *,
    name: str = "labels",
) -> np.ndarray:
    """One unit-norm vector (C, E) per label, after a check of the labels.

    Args:
        model: has `get_text_features`.
        processor: the model's processor.
        labels: different texts; by default the label itself, `_` as space, is the prompt.
        templates: sentences with `{label}`; several are averaged.
        label_text: label -> words in the prompt.
        name: what the caller calls the labels, for messages.

    Raises:
        ValueError: if the model has no text encoder, there is no label, one is blank, given twice, or longer than the
            text encoder reads; the message names it.
    """
    check_text_input(model, processor)
    if isinstance(labels, str) or len(labels) == 0:
        raise ValueError(f"`{name}` must be a list of texts, got {labels!r}. Give at least one, as ['dog', 'rain'].")
    blank = [position for position, label in enumerate(labels) if not label.strip()]
    if blank:
        raise ValueError(f"`{name}` holds a blank text at position {blank[0]}, got {labels[blank[0]]!r}. Remove it.")
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        raise ValueError(f"`{name}` must differ, got {repeated} more than once. Remove the repetitions.")
    prompts = {label: class_prompts(label, templates, label_text) for label in labels}
    check_lengths(model, processor, prompts, name)
    return embed_classes(model, processor, labels, templates, label_text=label_text)


def check_lengths(
    model: nn.Module, processor: AudioProcessor, prompts: Mapping[str, Sequence[str]], name: str = "labels"
) -> None:
    """Makes sure that no prompt would be cut.

    Args:
        model: with a text encoder.
        processor: holds the model's tokenizer.
        prompts: label -> what is embedded for it.
        name: what the caller calls the labels.

    Raises:
        ValueError: if one has more tokens than tokenizer and text encoder allow; names it, and both numbers.
    """
    limit = _max_tokens(model, processor)
    for label, texts in prompts.items():
        for prompt in texts:
            num_tokens = len(processor.tokenizer([prompt])["input_ids"][0])
            if limit is not None and num_tokens > limit:
                raise ValueError(
                    f"`{name}` holds {_shortened(label)!r}, which makes a prompt of {num_tokens} tokens. The text "
                    f"encoder reads at most {limit}: shorten it."
                )


def frame_embeddings(
    model: nn.Module, processor: AudioProcessor, waveforms: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[float]]:
    """Frame embeddings of a batch of clips, padding removed, and the frames per second of each.

    An encoder that stretches its input gets clips of one length at a time: batch mates must not change a clip.

    Args:
        model: has `get_audio_frame_features`; must be in evaluation mode.
        processor: holds the model's feature extractor, or is it.
        waveforms: B clips (S_i,) at the extractor's rate, filled to `min_samples_of(processor)`.

    Returns:
        B arrays (T'_i, E) float32, unit-norm, and B rates in Hz.
    """
    frames: list[np.ndarray] = []
    rates: list[float] = []
    for group in _groups_for(model, waveforms):
        inputs = audio_inputs(model, processor, group)
        output = model.get_audio_frame_features(**inputs)
        features = output.frame_features.float().cpu().numpy()  # (B', T', E)
        is_real = output.frame_mask.cpu().numpy().astype(bool)  # (B', T')
        frames += [row[kept] for row, kept in zip(features, is_real, strict=True)]
        rates += [frame_rate_of(model, inputs["input_features"].shape[1])] * len(group)
    return frames, rates


def min_samples_of(processor: AudioProcessor) -> int:
    """Samples to which the feature extractor fills shorter clips, counting the filling as real; 0: any length.

    For frames, such a clip is repeated instead (MGA-CLAP's detection and grounding), and those after its end dropped.
    """
    extractor = feature_extractor_of(processor)
    return round((getattr(extractor, "min_seconds", None) or 0.0) * extractor.sampling_rate)


def repeated_to(waveform: np.ndarray, num_samples: int) -> np.ndarray:
    """The waveform (S,) itself if it has `num_samples`, else as many copies of it as fill them: (num_samples,)."""
    return waveform if len(waveform) >= num_samples else np.resize(waveform, num_samples)


@dataclass(frozen=True)
class _Layout:
    """How a recording is cut.

    Attributes:
        seconds: its duration.
        frame_rate_hz: frames per second.
        window_frames: frames of a window.
        starts: first frame of each window.
        offset_seconds: where frame 0 begins.
    """

    seconds: float
    frame_rate_hz: float
    window_frames: int
    starts: Sequence[int]
    offset_seconds: float = 0.0

    @property
    def num_frames(self) -> int:
        return num_frames_in(self.seconds, self.frame_rate_hz, self.offset_seconds)

    @property
    def edges(self) -> np.ndarray:
        inner = edges_of_frames(self.num_frames, self.frame_rate_hz, self.offset_seconds, self.seconds)
        return np.append(inner[:-1], self.seconds)  # (T + 1,)

    @classmethod
    def of(
        cls, seconds: float, frame_rate_hz: float, window_seconds: float, overlap: float, offset_seconds: float = 0.0
    ) -> "_Layout":
        """Windows from the start; the last one is moved back so that it is full."""
        num_frames = num_frames_in(seconds, frame_rate_hz, offset_seconds)
        if seconds <= window_seconds + TIME_TOLERANCE:
            return cls(seconds, frame_rate_hz, num_frames, [0], offset_seconds)
        window_frames = max(1, math.floor(window_seconds * frame_rate_hz + TIME_TOLERANCE))
        step = max(1, window_frames - round(overlap * window_frames))
        last = max(0, num_frames - window_frames)
        return cls(seconds, frame_rate_hz, window_frames, [*range(0, last, step), last], offset_seconds)


class _PieceReader(RecordReader):
    """Iterates over ((index, first frame), piece) of the recordings of a data set.

    Attributes:
        layouts: index -> how the recording is cut.
        started: index -> record without its audio, also of those that turn out to be unreadable.
        batch_samples: samples of one forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: AudioProcessor,
        dataset: Sequence[Record],
        options: FrameScoreOptions,
    ) -> None:
        super().__init__(dataset, feature_extractor_of(processor).sampling_rate, options.reading)
        self.model = model
        self.extractor = feature_extractor_of(processor)
        self.cutting = options
        self.has_frames = hasattr(model, "get_audio_frame_features")
        self.min_samples = min_samples_of(processor)
        longest = longest_seconds(processor, options.reading)
        self.window_seconds = min(seconds for seconds in (longest, options.window_seconds, math.inf) if seconds)
        if math.isinf(self.window_seconds):
            self.window_seconds = WINDOW_SECONDS
        self.layouts: dict[int, _Layout] = {}
        self.started: dict[int, Record] = {}
        self.clip_seconds = min(options.clip_window_seconds, longest or math.inf)
        self.batch_samples = int(options.reading.batch_seconds * self.sampling_rate)
        if not self.has_frames and longest:  # CLAP's extractor fills every clip to its limit
            self.batch_samples = int(self.batch_samples * self.clip_seconds / longest)

    def __iter__(self) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        for index in range(len(self.dataset)):
            record = self.dataset[index]
            try:
                seconds = _seconds_of(record)
                self.layouts[index] = self._layout(seconds)
                self.started[index] = replace(record, audio=None, duration=seconds)
                for start in self.layouts[index].starts:
                    yield (index, start), self._piece(record, self.layouts[index], start)
            except (AudioError, FileNotFoundError) as error:
                if self.options.on_bad_example == "error":
                    raise
                self.skipped.append(f"{record.id}: {error}")
                logger.warning("Left out clip %d: %s", index, error)
                self._check_share()
                continue
            self.audio_seconds += seconds
            self.records[index] = self.started[index]

    def _layout(self, seconds: float) -> _Layout:
        if not self.has_frames:
            rate = 1 / self.cutting.clip_hop_seconds
            return _Layout(seconds, rate, 1, range(num_frames_in(seconds, rate)))
        if not stretches_input(self.model):
            rate = frame_rate_of(self.model, 0)
        else:
            num_samples = round(min(seconds, self.window_seconds) * self.sampling_rate)
            rate = frame_rate_of(self.model, self.extractor.num_frames(max(1, num_samples)))
        return _Layout.of(seconds, rate, self.window_seconds, self.cutting.overlap, frame_offset_of(self.model))

    def _piece(self, record: Record, layout: _Layout, start: int) -> np.ndarray:
        """(S,) samples of the window that begins with frame `start`, or of the clip around that frame."""
        if not self.has_frames:
            width = self.clip_seconds
            begin = (start + 0.5) / layout.frame_rate_hz - width / 2
            begin = max(0.0, min(begin, layout.seconds - width))
            return record_waveform(record, self.sampling_rate, begin, width)
        if len(layout.starts) == 1:
            piece = record_waveform(record, self.sampling_rate)
            return repeated_to(piece, self.min_samples)
        begin, width = start / layout.frame_rate_hz, layout.window_frames / layout.frame_rate_hz
        piece = record_waveform(record, self.sampling_rate, begin, width)
        if stretches_input(self.model):  # all windows of one length, the last one too: they share a frame rate
            num_samples = round(self.window_seconds * self.sampling_rate)
            piece = repeated_to(piece, num_samples)[:num_samples]
        return repeated_to(piece, self.min_samples)


def _embed_batch(model: nn.Module, processor: AudioProcessor, pieces: list[np.ndarray]) -> list[np.ndarray]:
    """(T'_i, E) frame embeddings of each piece; of a model with clip embeddings alone, (1, E)."""
    if not hasattr(model, "get_audio_frame_features"):
        embeds = model.get_audio_features(**audio_inputs(model, processor, pieces)).pooler_output.float().cpu().numpy()
        return list((embeds / np.linalg.norm(embeds, axis=-1, keepdims=True))[:, None])  # (B, 1, E)
    return frame_embeddings(model, processor, pieces)[0]


def _groups_for(model: nn.Module, waveforms: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The batch, or neighbours of one length where the encoder stretches its input."""
    if not stretches_input(model):
        yield list(waveforms)
        return
    for _, group in itertools.groupby(waveforms, key=len):
        yield list(group)


def _means(sums: np.ndarray, counts: np.ndarray, record: Record) -> np.ndarray:
    """(T, C) mean scores; a frame that no window gave takes the scores of the one before.

    An extractor that keeps whole analysis windows only gives a frame or two less than a piece's duration has.
    """
    has_score = counts[:, 0] > 0
    if not has_score[0]:
        raise ValueError(
            f"The model gave no frame for the beginning of {record.id!r}, {record.duration:.3f} s long. Pad the clip, "
            "or leave it out."
        )
    sums /= np.maximum(counts, 1)
    last_given = np.maximum.accumulate(np.where(has_score, np.arange(len(sums)), 0))
    return sums[last_given]


def _checked_texts(text_embeds: np.ndarray, width: int) -> np.ndarray:
    text_embeds = np.asarray(text_embeds, dtype=np.float32)
    if text_embeds.ndim != 2 or text_embeds.shape[1] != width:
        raise ValueError(
            f"`text_embeds` must be (C, {width}), got the shape {text_embeds.shape}. Pass what `embed_labels` gives "
            "for this model."
        )
    return text_embeds


def _seconds_of(record: Record) -> float:
    """Duration by the samples themselves or the file's header, whatever the record says."""
    name = record.id or "audio"
    if record.audio is None:
        raise AudioError(f"`{name}` has no audio, got None. Give a path, bytes or an array.")
    if isinstance(record.audio, np.ndarray):
        if not record.sampling_rate or not len(record.audio):
            record_waveform(record, 1)  # raises with the reason
        return len(record.audio) / record.sampling_rate
    return audio_info(record.audio, name=name if isinstance(record.audio, bytes) else None).duration


def _max_tokens(model: nn.Module, processor: AudioProcessor) -> int | None:
    """Tokens of a text that reach the text encoder: the tokenizer's limit or the encoder's, the smaller one."""
    stated = processor.tokenizer.model_max_length
    of_encoder = getattr(getattr(model.config, "text_config", None), "max_position_embeddings", None)
    limits = [stated if stated <= 1_000_000 else None, of_encoder]  # transformers writes 1e30 for "not stated"
    return min((int(limit) for limit in limits if limit), default=None)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


__all__ = [
    "BARE_LABEL",
    "FrameScoreOptions",
    "ScoredRecords",
    "check_lengths",
    "embed_labels",
    "frame_embeddings",
    "min_samples_of",
    "repeated_to",
    "score_frames",
    "score_records",
]

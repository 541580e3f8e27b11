# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What the codewords of a model with a shared codebook mean (MGA-CLAP 5.3.1).

    codeword z_k --> cosine with texts -------------> its names
                 --> cosine with a clip's frames ---> when it is heard
    corpus ------> weights of clips and captions ---> how much each codeword is used, which ones are dead
    clip, caption -> weights of both ---------------> codewords that both are sums of

The support of a clip or caption are the codewords with a weight above 0. Of a clip that is longer than the model's
limit the first part is taken. The report over all of this is `codewords_report.write_codewords_report`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ProcessorMixin
from transformers.utils import logging

from hf_audiolang.data.audio_io import record_waveform
from hf_audiolang.data.caption_text import clean_caption
from hf_audiolang.data.records import Record
from hf_audiolang.models.layers_codebook import MANY_DEAD

from .capabilities import feature_extractor_of
from .embed import (
    AudioOptions,
    RecordReader,
    audio_inputs,
    batches_by_length,
    embed_texts,
    evaluation_mode,
    longest_seconds,
    map_texts,
    split_waveform,
)
from .frame_scores import min_samples_of, repeated_to
from .frame_times import edges_of_frames, frame_offset_of, frame_rate_of, num_frames_in
from .metrics.detections import FrameScores
from .search import nearest

logger = logging.get_logger(__name__)

CAPTIONS_AT_ONCE = 1024  # whose weights are in memory together


@dataclass(frozen=True)
class CodewordNames:
    """The texts nearest to each of M codewords, best first.

    Attributes:
        texts: N different texts.
        positions: (M, K) positions in `texts`.
        similarities: (M, K) cosines.
    """

    texts: tuple[str, ...]
    positions: np.ndarray
    similarities: np.ndarray

    def of(self, codeword: int) -> list[tuple[str, float]]:
        """Texts of one codeword, each with its cosine."""
        pairs = zip(self.positions[codeword], self.similarities[codeword], strict=True)
        return [(self.texts[position], float(similarity)) for position, similarity in pairs]


@dataclass(frozen=True)
class CodewordUsage:
    """How a corpus uses M codewords.

    Attributes:
        num_clips: number of clips read.
        num_captions: number of captions.
        audio_counts: (M,) clips whose support holds the codeword.
        text_counts: (M,) captions whose support holds it.
        audio_weights: (M,) its weight summed over the clips; all together `num_clips`.
        text_weights: (M,) its weight summed over the captions.
        indices: positions of the clips in the data set.
        records: these clips without their audio; `duration` is that of the whole clip.
        skipped: one message per clip that could not be read.
        audio_seconds: duration of the clips together.
    """

    num_clips: int
    num_captions: int
    audio_counts: np.ndarray
    text_counts: np.ndarray
    audio_weights: np.ndarray
    text_weights: np.ndarray
    indices: list[int]
    records: list[Record]
    skipped: list[str]
    audio_seconds: float

    @property
    def num_codewords(self) -> int:
        """M."""
        return len(self.audio_counts)

    @property
    def active_per_clip(self) -> float:
        """Mean size of a clip's support."""
        return float(self.audio_counts.sum() / self.num_clips)

    @property
    def active_per_caption(self) -> float | None:
        """Mean size of a caption's support; None without captions."""
        return float(self.text_counts.sum() / self.num_captions) if self.num_captions else None

    @property
    def dead(self) -> np.ndarray:
        """Ids of the codewords that are in no support, ascending."""
        return np.flatnonzero(self.audio_counts + self.text_counts == 0)

    @property
    def dead_share(self) -> float:
        """Share of the codewords that are in no support."""
        return len(self.dead) / self.num_codewords

    def ranked(self) -> np.ndarray:
        """Ids (M,) by the mean weight in clips and captions, both with equal say, highest first."""
        shares = self.audio_weights / self.num_clips + self.text_weights / max(self.num_captions, 1)
        return np.argsort(-shares, kind="stable")


@dataclass(frozen=True)
class FrameActivations:
    """Codewords of every frame of a clip alone.

    Attributes:
        codewords: (T, K) ids, highest weight first; -1 where a frame has fewer.
        weights: (T, K) their weights; 0 where a frame has fewer.
        num_active: (T,) size of each frame's support.
        edges: (T + 1,) seconds; frame t covers [edges[t], edges[t + 1]).
    """

    codewords: np.ndarray
    weights: np.ndarray
    num_active: np.ndarray
    edges: np.ndarray


@dataclass(frozen=True)
class SharedCodewords:
    """What a clip and a caption are both sums of.

    Attributes:
        codewords: (K,) ids of the intersection of both supports, highest `shared_weights` first.
        shared_weights: (K,) the smaller one of both weights.
        audio_weights: (K,) weights in the clip.
        text_weights: (K,) weights in the caption.
        num_audio: size of the clip's support.
        num_text: size of the caption's support.
        num_shared: size of the intersection, of which the first K are listed.
        audio_share: how much of the clip's weight lies in the intersection, in [0, 1].
        text_share: how much of the caption's weight lies in it.
        overlap: sum of the smaller weights over the intersection; 1 = equal weights.
    """

    codewords: np.ndarray
    shared_weights: np.ndarray
    audio_weights: np.ndarray
    text_weights: np.ndarray
    num_audio: int
    num_text: int
    num_shared: int
    audio_share: float
    text_share: float
    overlap: float


@dataclass
class _Tally:
    """Sums over rows of codeword weights."""

    num_codewords: int
    num_rows: int = 0
    counts: np.ndarray = field(init=False)
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.num_codewords, dtype=np.int64)
        self.weights = np.zeros(self.num_codewords)

    def add(self, weights: np.ndarray) -> None:
        """Adds rows (B, M)."""
        self.num_rows += len(weights)
        self.counts += (weights > 0).sum(0)
        self.weights += weights.sum(0, dtype=np.float64)


def check_codebook(model: nn.Module) -> None:
    """Raises ValueError if the model has no codebook."""
    if getattr(model, "codebook", None) is not None:
        return
    aggregation = getattr(getattr(model, "config", None), "aggregation", None)
    found = f"`aggregation` {aggregation!r}" if aggregation else "another kind of model than MGA-CLAP"
    raise ValueError(
        f"`model` (a {type(model).__name__}) has no codebook, got {found}. Give an MGA-CLAP model that was trained "
        "with `aggregation` 'codebook'."
    )


def name_codewords(model: nn.Module, processor: ProcessorMixin, texts: Sequence[str], top_k: int = 5) -> CodewordNames:
    """For every codeword the texts whose embeddings have the highest cosine with it (5.3.1; there class names).

    Args:
        model: has `codebook` and `get_text_features`.
        processor: the model's processor.
        texts: any number, taken as they are; repeated ones count once.
        top_k: texts per codeword, fewer if there are not as many.

    Raises:
        ValueError: if the model has no codebook, there is no text, one is empty, or `top_k` is below 1.
    """
    check_codebook(model)
    distinct = tuple(dict.fromkeys(texts))
    text_embeds = embed_texts(model, processor, distinct)  # (N, E)
    similarities, positions = nearest(_unit_codewords(model), text_embeds, top_k)
    return CodewordNames(distinct, positions, similarities)


def codeword_usage(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    texts: Sequence[str] | None = None,
    *,
    options: AudioOptions | None = None,
) -> CodewordUsage:
    """In how many clips and captions of a corpus each codeword is, and with how much weight.

    Logs a warning if more than a tenth of the codewords are in no support.

    Args:
        model: has `codebook` and `get_codeword_weights`.
        processor: the model's processor.
        dataset: map-style sequence of `Record`; each is read once.
        texts: captions instead of those of the clips that could be read.
        options: reading and batching; of a long clip the first part is taken.

    Raises:
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if the model has no codebook or no clip is readable.
    """
    check_codebook(model)
    options = replace(options or AudioOptions(), long_audio="crop")
    sampling_rate, longest = feature_extractor_of(processor).sampling_rate, longest_seconds(processor, options)
    max_samples = None if longest is None else int(longest * sampling_rate)
    num_codewords = len(model.codebook.weight)
    reader, audio, text = RecordReader(dataset, sampling_rate, options), _Tally(num_codewords), _Tally(num_codewords)
    clips = ((index, split_waveform(waveform, max_samples, options)[0]) for index, waveform in reader)
    with evaluation_mode(model):
        for batch in batches_by_length(clips, int(options.batch_seconds * sampling_rate)):
            inputs = audio_inputs(model, processor, [clip for _, clip in batch])
            audio.add(model.get_codeword_weights(**inputs).float().cpu().numpy())
    reader.check_any_read()
    indices = sorted(reader.records)
    records = [reader.records[index] for index in indices]
    captions = list(texts) if texts is not None else [caption for record in records for caption in record.captions]
    for start in range(0, len(captions), CAPTIONS_AT_ONCE):
        text.add(_caption_weights(model, processor, captions[start : start + CAPTIONS_AT_ONCE]))
    usage = CodewordUsage(
        audio.num_rows, text.num_rows, audio.counts, text.counts, audio.weights, text.weights, indices,
        records, reader.skipped, reader.audio_seconds,
    )  # fmt: skip
    if usage.dead_share > MANY_DEAD:
        logger.warning(dead_note(usage))
    return usage


def dead_note(usage: CodewordUsage) -> str:
    """How many codewords are dead and what that means, in two sentences."""
    return (
        f"{usage.dead_share:.0%} of the {usage.num_codewords} codewords ({len(usage.dead)}) are in no support of "
        f"these {usage.num_clips} clips and {usage.num_captions} captions: the codebook is wider than the data can "
        "fill. Try more clips, or train with fewer `num_codewords` or a larger `affinity_divisor`."
    )


def codeword_frame_scores(
    model: nn.Module, processor: ProcessorMixin, record: Record, codeword_ids: Sequence[int]
) -> FrameScores:
    """Cosine (T, K) of codewords with the projected frames of a clip, and the frames' edges in seconds (5.3.1).

    Args:
        model: has `codebook` and `frame_embeddings`.
        processor: the model's processor.
        record: a clip; a short one is repeated for a model with a fixed input, frames after its end are dropped.
        codeword_ids: K ids.

    Raises:
        AudioError: if the clip cannot be read.
        ValueError: if the model has no codebook, or not so many codewords.
    """
    check_codebook(model)
    ids, num_codewords = np.asarray(codeword_ids, dtype=np.int64), len(model.codebook.weight)
    outside = ids[(ids < 0) | (ids >= num_codewords)]
    if len(outside):
        raise ValueError(
            f"`codeword_ids` holds {int(outside[0])}, but the codebook has {num_codewords} codewords. Give ids from 0 "
            f"to {num_codewords - 1}."
        )
    frames, edges = _projected_frames(model, processor, record)
    unit_frames = torch.nn.functional.normalize(frames.float(), dim=-1).cpu().numpy()  # (T, E)
    return FrameScores(unit_frames @ _unit_codewords(model)[ids].T, edges)


def frame_activations(
    model: nn.Module, processor: ProcessorMixin, record: Record, top_k: int = 10
) -> FrameActivations:
    """The codewords that every frame of a clip alone is a sum of, the heaviest `top_k` of each.

    Arguments and errors as in `codeword_frame_scores`.
    """
    check_codebook(model)
    frames, edges = _projected_frames(model, processor, record)
    with torch.no_grad():
        weights = model.codebook.frame_weights(frames.unsqueeze(0))[0].cpu()  # (T, M)
    top_weights, codewords = weights.topk(min(top_k, weights.shape[1]), dim=1)
    codewords = torch.where(top_weights > 0, codewords, -1)
    return FrameActivations(codewords.numpy(), top_weights.numpy(), (weights > 0).sum(1).numpy(), edges)


def clip_codewords(model: nn.Module, processor: ProcessorMixin, record: Record) -> np.ndarray:
    """Codeword weights (M,) of a whole clip, of sum 1; errors as in `codeword_frame_scores`."""
    check_codebook(model)
    with evaluation_mode(model):
        inputs = audio_inputs(model, processor, [first_part(processor, record)])
        return model.get_codeword_weights(**inputs)[0].float().cpu().numpy()


def shared_codewords(
    model: nn.Module, processor: ProcessorMixin, record: Record, caption: str, top_k: int = 10
) -> SharedCodewords:
    """The codewords that a clip and a caption are both sums of, weighted by the smaller one of the two weights.

    Args:
        model: has `codebook` and `get_codeword_weights`.
        processor: the model's processor.
        record: the clip.
        caption: the text, cleaned as in training where the model asks for it.
        top_k: number of codewords that are listed.

    Raises:
        AudioError: if the clip cannot be read.
        ValueError: if the model has no codebook or the caption is empty.
    """
    audio = clip_codewords(model, processor, record)  # (M,)
    text = _caption_weights(model, processor, [caption])[0]
    smaller = np.minimum(audio, text)
    is_shared = smaller > 0
    listed = np.argsort(-smaller, kind="stable")[: min(top_k, int(is_shared.sum()))]
    return SharedCodewords(
        codewords=listed,
        shared_weights=smaller[listed],
        audio_weights=audio[listed],
        text_weights=text[listed],
        num_audio=int((audio > 0).sum()),
        num_text=int((text > 0).sum()),
        num_shared=int(is_shared.sum()),
        audio_share=float(audio[is_shared].sum()),
        text_share=float(text[is_shared].sum()),
        overlap=float(smaller.sum()),
    )


def first_part(processor: ProcessorMixin, record: Record) -> np.ndarray:
    """Waveform (S,) of a clip up to the feature extractor's limit."""
    limit = longest_seconds(processor, AudioOptions())
    return record_waveform(record, feature_extractor_of(processor).sampling_rate, duration_seconds=limit)


def frame_edges(
    model: nn.Module, processor: ProcessorMixin, inputs: dict[str, Tensor], waveform: np.ndarray, num_frames: int
) -> np.ndarray:
    """Edges (T + 1,) in seconds of the frames that begin before the end of the clip, the last of which ends there."""
    seconds = len(waveform) / feature_extractor_of(processor).sampling_rate
    rate = frame_rate_of(model, inputs["input_features"].shape[1])
    offset = frame_offset_of(model)
    num_real = min(num_frames, num_frames_in(seconds, rate, offset))
    return edges_of_frames(num_real, rate, offset, seconds)


def _projected_frames(model: nn.Module, processor: ProcessorMixin, record: Record) -> tuple[Tensor, np.ndarray]:
    """Frames (T, E) in the shared space, not normalised, of the first part of a clip, and their edges (T + 1,)."""
    waveform = first_part(processor, record)
    with evaluation_mode(model):
        inputs = audio_inputs(model, processor, [repeated_to(waveform, min_samples_of(processor))])
        frames, frame_mask = model.frame_embeddings(**inputs)
    frames = frames[0][frame_mask[0].bool()]
    edges = frame_edges(model, processor, inputs, waveform, len(frames))
    return frames[: len(edges) - 1], edges


def _caption_weights(model: nn.Module, processor: ProcessorMixin, captions: Sequence[str]) -> np.ndarray:
    """Codeword weights (B, M) of captions, cleaned as in training where the model asks for it."""
    if getattr(model.config, "clean_captions", False):
        captions = [clean_caption(caption) for caption in captions]
    return map_texts(
        model, processor, captions, lambda inputs: model.get_codeword_weights(**inputs).float().cpu().numpy()
    )


def _unit_codewords(model: nn.Module) -> np.ndarray:
    """Codewords (M, E) of norm 1."""
    codewords = model.codebook.weight.detach().float()
    return torch.nn.functional.normalize(codewords, dim=-1).cpu().numpy()


__all__ = [
    "CodewordNames",
    "CodewordUsage",
    "FrameActivations",
    "SharedCodewords",
    "check_codebook",
    "clip_codewords",
    "codeword_frame_scores",
    "codeword_usage",
    "dead_note",
    "first_part",
    "frame_activations",
    "frame_edges",
    "name_codewords",
    "shared_codewords",
]

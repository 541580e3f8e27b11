# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""All that is reported on the codewords of one model and one corpus, gathered: what `codewords_report` writes.

    corpus -> usage; texts -> names; a few clips -> codewords shared with captions, curves over time, last block's maps

The clips that are shown are chosen by their annotation alone: the same ones for every model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import nn
from transformers import ProcessorMixin

from hf_audiolang.data.caption_text import clean_caption
from hf_audiolang.data.records import Record

from .block_maps import BlockMaps, last_block_maps
from .codewords import (
    CodewordNames,
    CodewordUsage,
    SharedCodewords,
    check_codebook,
    clip_codewords,
    codeword_frame_scores,
    codeword_usage,
    frame_activations,
    name_codewords,
    shared_codewords,
)
from .embed import AudioOptions
from .metrics.detections import FrameScores

MAX_TEXTS = 500  # captions by which codewords are named
NUM_PAIRS, NUM_MAPS, NUM_CURVES = 3, 2, 5  # that are shown
RATIO_CLIPS = 20  # over which the ratios of the last block are averaged
GIVEN = "given texts"


@dataclass(frozen=True)
class PairFindings:
    """What a clip and its first caption share.

    Attributes:
        clip: id of the clip.
        caption: the text.
        shared: their common codewords.
        other_overlaps: `overlap` of the clip with the captions of the other clips that are shown, to compare with.
    """

    clip: str
    caption: str
    shared: SharedCodewords
    other_overlaps: tuple[float, ...]


@dataclass(frozen=True)
class CurveFindings:
    """When the codewords of one clip are heard.

    Attributes:
        record: the clip.
        codewords: K ids, those that the clip has most more of than the corpus, no two of one first name.
        weights: (K,) their weights in the clip.
        scores: their cosines (T, K) with the frames.
        active_per_frame: mean number of codewords of a frame alone.
    """

    record: Record
    codewords: tuple[int, ...]
    weights: np.ndarray
    scores: FrameScores
    active_per_frame: float


@dataclass(frozen=True)
class BlockFindings:
    """How alike frames are in the last block.

    Attributes:
        clips: the clips that are shown, with their maps.
        num_clips: number of clips with events that the means are of.
        query_key_ratio: mean over them, see `block_maps.event_ratio`; None without events.
        value_value_ratio: the same of the other map.
        has_trained_queries: False if the block is locality-aware, so that nothing trains its queries and keys.
    """

    clips: list[tuple[Record, BlockMaps]]
    num_clips: int
    query_key_ratio: float | None
    value_value_ratio: float | None
    has_trained_queries: bool


@dataclass(frozen=True)
class CodewordFindings:
    """All findings on one model and one corpus.

    Attributes:
        model: its name.
        data: name of the corpus.
        codebook: `num_codewords`, `width`, `affinity_divisor` and `activation`.
        usage: of the corpus.
        names: of the codewords.
        named_by: what the naming texts are, "labels", "captions" or "given texts".
        pairs: a few clips with their captions.
        curves: of one clip.
        block: maps of the last block; None if the audio encoder does not show them.
        left_out: part of the report -> why it is missing.
    """

    model: str
    data: str
    codebook: dict[str, object]
    usage: CodewordUsage
    names: CodewordNames
    named_by: str
    pairs: list[PairFindings]
    curves: CurveFindings
    block: BlockFindings | None
    left_out: dict[str, str] = field(default_factory=dict)


def collect_codewords(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    *,
    texts: Sequence[str] | None = None,
    label_text: Callable[[str], str] | None = None,
    data: str = "your data",
    options: AudioOptions | None = None,
) -> CodewordFindings:
    """Findings on a model with a codebook.

    Args:
        model: an MGA-CLAP model.
        processor: its processor.
        dataset: map-style sequence of `Record`, best with captions and events.
        texts: by which codewords are named; by default the labels of the clips, or without any their captions.
        label_text: label -> its words, by default `_` as space.
        data: name of the corpus.
        options: reading and batching.

    Raises:
        TooManyBadExamples: if too many clips cannot be read.
        ValueError: if the model has no codebook, no clip is readable, or there is nothing to name codewords by.
    """
    check_codebook(model)
    usage = codeword_usage(model, processor, dataset, options=options)
    named_by, texts = (GIVEN, texts) if texts else naming_texts(usage.records, label_text)
    is_cleaned = named_by == "captions" and getattr(model.config, "clean_captions", False)
    names = name_codewords(model, processor, [clean_caption(text) for text in texts] if is_cleaned else texts)
    ranking = picture_ranking(usage.records)
    with_captions = [position for position in ranking if usage.records[position].captions][:NUM_PAIRS]
    left_out: dict[str, str] = {}
    block = None
    try:
        block = _block_findings(model, processor, dataset, usage, ranking)
    except ValueError as error:  # the encoder has no such block
        left_out["similarity_maps"] = str(error)
    return CodewordFindings(
        model="/".join(Path(model.config._name_or_path).parts[-2:]) or type(model).__name__,
        data=data,
        codebook={
            "num_codewords": usage.num_codewords,
            "width": model.codebook.weight.shape[1],
            "affinity_divisor": float(model.codebook.affinity_divisor),
            "activation": model.codebook.activation,
        },
        usage=usage,
        names=names,
        named_by=named_by,
        pairs=_pair_findings(model, processor, [dataset[usage.indices[position]] for position in with_captions]),
        curves=_curve_findings(model, processor, dataset[usage.indices[ranking[0]]], usage, names),
        block=block,
        left_out=left_out,
    )


def naming_texts(records: Sequence[Record], label_text: Callable[[str], str] | None = None) -> tuple[str, list[str]]:
    """What codewords are named by: "labels" with their words, or else "captions" with up to 500 different ones.

    Args:
        records: clips; labels are those of the clips and of their events.
        label_text: label -> its words, by default `_` as space.

    Raises:
        ValueError: if there is neither.
    """
    labels = dict.fromkeys(
        label for record in records for label in (*record.labels, *(event["label"] for event in record.events))
    )
    if labels:
        words = label_text or (lambda label: label.replace("_", " "))
        return "labels", list(dict.fromkeys(words(label) for label in sorted(labels)))
    captions = list(dict.fromkeys(caption for record in records for caption in record.captions))
    if not captions:
        raise ValueError(
            f"`dataset` has no labels and no captions to name codewords by, got {len(records)} clips without. Give "
            "texts of your own, such as names of sounds."
        )
    return "captions", captions[:MAX_TEXTS]


def picture_ranking(records: Sequence[Record]) -> list[int]:
    """Positions of the clips, first those that show best when things are heard.

    That is about three different sounds, one after the other; clips that are equal in this keep their order.
    """

    def key(position: int) -> tuple[bool, int]:
        events = sorted(records[position].events, key=lambda event: event["onset"])
        num_labels = len({event["label"] for event in events})
        follow = all(first["offset"] <= second["onset"] for first, second in pairwise(events))
        return not (follow and num_labels >= 2), abs(num_labels - 3)

    return sorted(range(len(records)), key=key)


def _pair_findings(model: nn.Module, processor: ProcessorMixin, records: Sequence[Record]) -> list[PairFindings]:
    pairs = []
    for record in records:
        others = [other.captions[0] for other in records if other.captions[0] != record.captions[0]]
        overlaps = tuple(shared_codewords(model, processor, record, caption).overlap for caption in others)
        shared = shared_codewords(model, processor, record, record.captions[0])
        pairs.append(PairFindings(record.id, record.captions[0], shared, overlaps))
    return pairs


def _curve_findings(
    model: nn.Module, processor: ProcessorMixin, record: Record, usage: CodewordUsage, names: CodewordNames
) -> CurveFindings:
    weights = clip_codewords(model, processor, record)  # (M,)
    order = np.argsort(-(weights - usage.audio_weights / usage.num_clips), kind="stable")
    chosen: dict[int, int] = {}  # first name -> codeword
    for codeword in order[weights[order] > 0].tolist():
        chosen.setdefault(int(names.positions[codeword, 0]), codeword)
        if len(chosen) == NUM_CURVES:
            break
    codewords = tuple(chosen.values())
    scores = codeword_frame_scores(model, processor, record, codewords)
    active = frame_activations(model, processor, record).num_active
    return CurveFindings(record, codewords, weights[list(codewords)], scores, float(active.mean()))


def _block_findings(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    usage: CodewordUsage,
    ranking: Sequence[int],
) -> BlockFindings:
    shown = [dataset[usage.indices[position]] for position in ranking[:NUM_MAPS]]
    clips = [(record, last_block_maps(model, processor, record)) for record in shown]
    with_events = [position for position, record in enumerate(usage.records) if record.events][:RATIO_CLIPS]
    maps = [last_block_maps(model, processor, dataset[usage.indices[position]]) for position in with_events]
    ratios = [(one.query_key_ratio, one.value_value_ratio) for one in maps if one.query_key_ratio is not None]
    ratios = [pair for pair in ratios if None not in pair]
    means = np.mean(ratios, axis=0).tolist() if ratios else [None, None]
    is_local = getattr(model.config.audio_config, "locality_blocks", 0) > 0
    return BlockFindings(clips, len(ratios), *means, has_trained_queries=not is_local)


__all__ = [
    "BlockFindings",
    "CodewordFindings",
    "CurveFindings",
    "PairFindings",
    "collect_codewords",
    "naming_texts",
    "picture_ranking",
]

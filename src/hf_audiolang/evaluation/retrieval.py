# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Retrieval between clips and captions, in both directions, for any number of captions per clip.

    clips -> (N, E)    captions of all clips -> (sum K_i, E)    cosine -> ranks -> R@k, mAP@10, MedR, MeanR

text_to_audio: each caption is a query over the N clips. audio_to_text: each clip is a query over all captions; it is
a hit at k if any of its own K_i captions is in the top k. Ties count against the model.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch import nn
from transformers import ProcessorMixin

from hf_audiolang.data.caption_text import clean_captions
from hf_audiolang.data.records import Record

from .embed import AudioOptions, RecordEmbeddings, embed_records, embed_texts, longest_seconds
from .metrics import RelevantRanks, chance_recall_at_k, relevant_ranks, retrieval_metrics
from .pair_scores import pair_similarities, scores_pairs
from .results import TaskResult, task_record


def evaluate(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    *,
    ks: Sequence[int] = (1, 5, 10),
    map_k: int = 10,
    divisor: str = "n_relevant",
    true_clips: Sequence[Sequence[Iterable[int]]] | None = None,
    order_pairs: Sequence[tuple[int, int]] = (),
    options: AudioOptions | None = None,
) -> TaskResult:
    """`text_to_audio/R@1`, ..., `audio_to_text/MeanR` over all readable clips and all of their captions.

    Args:
        model: has `get_audio_features` and `get_text_features`.
        processor: the model's processor.
        dataset: records with at least one caption each.
        ks: cut-offs of the recall.
        map_k: cut-off of the mean average precision.
        divisor: of the average precision, see `metrics.mean_average_precision_at_k`.
        true_clips: `true_clips[i][j]` are the positions of all clips of the data set that caption j of clip i
            describes truly; adds `text_to_audio/R@k_sem` and `audio_to_text/R@k_sem`, which count any of them.
        order_pairs: pairs of positions of clips with the same sounds in another order; adds `order_pairs/accuracy`,
            the share of their captions that are closer to their own clip than to its partner (chance 0.5).
        options: reading and batching of the clips.

    Raises:
        ValueError: if a record has no caption or an empty one, or an embedding is not finite.
    """
    start, options = time.perf_counter(), options or AudioOptions()
    embedded = embed_records(model, processor, dataset, options=options)
    captions = [caption for record in embedded.records for caption in _captions_of(record)]
    clip_of_caption = np.repeat(np.arange(len(embedded.records)), [len(r.captions) for r in embedded.records])
    if getattr(getattr(model, "config", None), "clean_captions", False):
        captions = clean_captions(captions)
    if scores_pairs(model):  # a clip stands for itself, a caption for its similarities to all clips
        text_embeds = pair_similarities(model, processor, dataset, captions, options=options)  # (sum K_i, N)
        embedded = replace(embedded, embeds=np.eye(len(embedded.records), dtype=text_embeds.dtype))
    else:
        text_embeds = embed_texts(model, processor, captions)  # (sum K_i, E)

    own_clip = [[clip] for clip in clip_of_caption]
    own_captions = _inverted(own_clip, len(embedded.records))
    found = {
        "text_to_audio": relevant_ranks(text_embeds, embedded.embeds, own_clip),
        "audio_to_text": relevant_ranks(embedded.embeds, text_embeds, own_captions),
    }
    values, chance = {}, {}
    for direction, ranks in found.items():
        for name, value in retrieval_metrics(ranks.ranks, ks, map_k, divisor).items():
            values[f"{direction}/{name}"] = value
        chance |= _chance_levels(direction, ranks, ks)
    if true_clips is not None:
        semantic_values, semantic_chance = _semantic_recalls(embedded, text_embeds, true_clips, ks)
        values |= semantic_values
        chance |= semantic_chance
    if order_pairs:
        values["order_pairs/accuracy"] = _order_accuracy(embedded, text_embeds, clip_of_caption, order_pairs)
        chance["order_pairs/accuracy"] = 0.5
    record = task_record(
        "retrieval", model, dataset, embedded.skipped, len(embedded.records), time.perf_counter() - start,
        num_captions=len(captions), audio_seconds=round(embedded.audio_seconds, 2), divisor=divisor,
        max_seconds=longest_seconds(processor, options), long_audio=options.long_audio,
        n_tied={direction: ranks.n_tied for direction, ranks in found.items()},
    )  # fmt: skip
    return TaskResult(values, chance, record)


def _captions_of(record: Record) -> tuple[str, ...]:
    if not record.captions:
        raise ValueError(
            f"Record {record.id!r} has no caption, got `captions` = {list(record.captions)}. Retrieval needs at least "
            "one caption per clip: name the column with the texts, or leave the clip out."
        )
    return record.captions


def _inverted(relevance: Sequence[Iterable[int]], num_targets: int) -> list[list[int]]:
    """For each target the queries it is relevant to."""
    queries: list[list[int]] = [[] for _ in range(num_targets)]
    for query, targets in enumerate(relevance):
        for target in targets:
            queries[target].append(query)
    return queries


def _chance_levels(direction: str, ranks: RelevantRanks, ks: Sequence[int], suffix: str = "") -> dict[str, float]:
    num_relevant = [len(item_ranks) for item_ranks in ranks.ranks]
    return {f"{direction}/R@{k}{suffix}": chance_recall_at_k(num_relevant, ranks.gallery_size, k) for k in ks}


def _semantic_recalls(
    embedded: RecordEmbeddings,
    text_embeds: np.ndarray,
    true_clips: Sequence[Sequence[Iterable[int]]],
    ks: Sequence[int],
) -> tuple[dict[str, float], dict[str, float]]:
    """(values, chance levels) of R@k where every clip that a caption describes truly is a right answer."""
    row_of_index = {int(index): row for row, index in enumerate(embedded.indices)}
    right_clips = [  # left-out clips are no answers; the caption's own clip always is
        {row} | {row_of_index[int(clip)] for clip in true_clips[index][position] if int(clip) in row_of_index}
        for row, index in enumerate(embedded.indices)
        for position in range(len(embedded.records[row].captions))
    ]
    to_audio = relevant_ranks(text_embeds, embedded.embeds, right_clips)
    to_text = relevant_ranks(embedded.embeds, text_embeds, _inverted(right_clips, len(embedded.records)))
    values, chance = {}, {}
    for direction, ranks in (("text_to_audio", to_audio), ("audio_to_text", to_text)):
        recalls = retrieval_metrics(ranks.ranks, ks)
        values |= {f"{direction}/R@{k}_sem": recalls[f"R@{k}"] for k in ks}
        chance |= _chance_levels(direction, ranks, ks, "_sem")
    return values, chance


def _order_accuracy(
    embedded: RecordEmbeddings,
    text_embeds: np.ndarray,
    clip_of_caption: np.ndarray,
    order_pairs: Sequence[tuple[int, int]],
) -> float:
    """Share of the captions of paired clips that are strictly closer to their clip than to its partner."""
    row_of_index = {int(index): row for row, index in enumerate(embedded.indices)}
    is_right = []
    for first, second in order_pairs:
        if first not in row_of_index or second not in row_of_index:
            continue  # one of the two was left out
        for own, other in ((first, second), (second, first)):
            captions = text_embeds[clip_of_caption == row_of_index[own]]  # (K, E)
            difference = embedded.embeds[row_of_index[own]] - embedded.embeds[row_of_index[other]]
            is_right.extend(captions @ difference > 0)
    if not is_right:
        raise ValueError(f"None of the {len(order_pairs)} `order_pairs` has two readable clips. Check the data set.")
    return float(np.mean(is_right))


__all__ = ["evaluate"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""How alike the frames of a clip are in the last block of an audio encoder (MGA-CLAP 3.3 and Figure 3).

    clip -> audio_model.last_block_similarities -> by queries and keys (T, T), by values and values (T, T)
                                                -> inside an event over across its borders: one number each

The paper's reason for its locality-aware block: values tell the events of a clip apart, queries and keys do not.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import nn
from transformers import ProcessorMixin

from hf_audiolang.data.records import Record

from .codewords import first_part, frame_edges
from .embed import audio_inputs, evaluation_mode
from .frame_scores import min_samples_of, repeated_to


@dataclass(frozen=True)
class BlockMaps:
    """How alike the T frames of a clip are in the last block of the audio encoder.

    Attributes:
        query_key: (T, T) softmax over queries and keys, rows of sum 1.
        value_value: (T, T) softmax over values and values, rows of sum 1.
        edges: (T + 1,) seconds of the frames.
        query_key_ratio: see `event_ratio`; None without events.
        value_value_ratio: the same of the other map.
    """

    query_key: np.ndarray
    value_value: np.ndarray
    edges: np.ndarray
    query_key_ratio: float | None
    value_value_ratio: float | None


def last_block_maps(model: nn.Module, processor: ProcessorMixin, record: Record) -> BlockMaps:
    """How alike the frames of a clip are in the audio encoder's last block: by queries and keys, by values (Figure 3).

    Args:
        model: its `audio_model` has `last_block_similarities`.
        processor: the model's processor.
        record: a clip; its `events` give the two ratios.

    Raises:
        AudioError: if the clip cannot be read.
        ValueError: if the audio encoder cannot show its last block.
    """
    tower = getattr(model, "audio_model", None)
    if not hasattr(tower, "last_block_similarities"):
        raise ValueError(
            f"The audio encoder {type(tower).__name__} does not show how alike frames are in its last block. Take a "
            "model with HTS-AT, AST or M2D as audio encoder."
        )
    waveform = first_part(processor, record)
    with evaluation_mode(model):
        inputs = audio_inputs(model, processor, [repeated_to(waveform, min_samples_of(processor))])
        maps = [one[0].float().cpu().numpy() for one in tower.last_block_similarities(inputs["input_features"])]
    edges = frame_edges(model, processor, inputs, waveform, len(maps[0]))
    maps = [one[: len(edges) - 1, : len(edges) - 1] for one in maps]
    query_key, value_value = (one / one.sum(1, keepdims=True) for one in maps)
    ratios = [event_ratio(one, edges, record.events) for one in (query_key, value_value)]
    return BlockMaps(query_key, value_value, edges, *ratios)


def event_ratio(similarities: np.ndarray, edges: np.ndarray, events: Iterable[dict]) -> float | None:
    """Mean similarity of two frames of one event over that of two frames with a border of an event between them.

    A frame is in the events that hold its centre. Left out are a frame with itself, two frames without any event, and
    two frames in different events of one label, which may well be alike. Frames of one event are also closer in time
    than others: compare ratios of several maps of the same clips, rather than one of them with 1.

    Args:
        similarities: (T, T).
        edges: (T + 1,) seconds.
        events: dicts with `label`, `onset`, `offset` in seconds.

    Returns:
        the ratio, or None if there are no such pairs of frames.
    """
    events = list(events)
    centres = (edges[:-1] + edges[1:]) / 2
    in_event = np.array([(centres >= event["onset"]) & (centres < event["offset"]) for event in events])
    if not in_event.any():
        return None
    labels = sorted({event["label"] for event in events})
    has_label = np.array([in_event[[event["label"] == label for event in events]].any(0) for label in labels])
    is_heard = in_event.any(0)
    is_inside = in_event.T @ in_event  # (T, T) bool: some event holds both
    is_across = (is_heard[:, None] | is_heard) & ~(has_label.T @ has_label)
    np.fill_diagonal(is_inside, False)
    if not is_inside.any() or not is_across.any():
        return None
    across = float(similarities[is_across].mean())
    return float(similarities[is_inside].mean()) / across if across > 0 else None


__all__ = ["BlockMaps", "event_ratio", "last_block_maps"]

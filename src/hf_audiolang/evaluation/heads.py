# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The values of a trained head on labelled clips: labels of clips or of frames, as its class says."""

from collections.abc import Sequence

from torch import nn

from hf_audiolang.data.records import Record
from hf_audiolang.models.modeling_audio_classification import AudioFrameClassificationModel

from . import classification, frame_classification
from .capabilities import AudioProcessor
from .clip_cuts import Cut
from .detection import check_events
from .embed import AudioOptions
from .frame_scores import FrameScoreOptions
from .results import TaskResult


def evaluate(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: Sequence[Record],
    *,
    options: AudioOptions | None = None,
    cut: Cut | None = None,
) -> TaskResult:
    """What `classification.evaluate` or `frame_classification.evaluate` gives.

    Args:
        model: an `...ForAudioClassification` or `...ForAudioFrameClassification`.
        processor: holds the model's feature extractor, or is it.
        dataset: records with `labels`, or with `events`.
        options: reading and batching of the clips.
        cut: of clips that are labelled as a whole, see `classification.evaluate`.

    Raises:
        ValueError: for labels or events that do not fit the model.
    """
    options = options or AudioOptions()
    if isinstance(model, AudioFrameClassificationModel):
        reading = FrameScoreOptions(reading=options)
        return frame_classification.evaluate(model, processor, dataset, options=reading)
    return classification.evaluate(model, processor, dataset, options=options, cut=cut)


def check_clips(dataset: Sequence[Record], name: str, classes: Sequence[str], *, of_frames: bool) -> None:
    """Makes sure that a head can be measured on clips before it is trained; reads no sound.

    Args:
        dataset: records with `labels`, or with `events`.
        name: of the clips, for messages.
        classes: names of all classes.
        of_frames: whether frames are labelled.

    Raises:
        ValueError: if no clip has a label, or an event is faulty or outside of its clip.
    """
    if of_frames:
        check_events(dataset, classes)
    if not any(dataset[index].events if of_frames else dataset[index].labels for index in range(len(dataset))):
        what = "event" if of_frames else "label"
        raise ValueError(f"None of the {len(dataset)} clips of {name} has {what}s. Give one at least that has some.")


__all__ = ["check_clips", "evaluate"]

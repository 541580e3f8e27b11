# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Frame-level score: does a frame of the encoder resemble the prompts of the sounds that are heard in it?

    clip -> model.get_audio_frame_features -> (T', E) -> cosine with class prompts -> (T', C) -> macro AP over classes

Frame k of an encoder with `frame_rate_hz` frames per second covers [k, k + 1) / frame_rate_hz seconds, counted from
its `frame_offset_seconds` if it has such. It counts as
positive for a class if its centre lies in [onset, offset) of one of the clip's events of that class. All frames of
all clips are pooled before the average precision of a class is taken.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from torch import Tensor, nn
from transformers import PreTrainedConfig, ProcessorMixin

from hf_audiolang.data.records import Record
from hf_audiolang.models.modeling_outputs import AudioFrameOutput

from .capabilities import AudioProcessor, feature_extractor_of
from .embed import AudioOptions, RecordReader, batches_by_length, evaluation_mode, longest_seconds
from .frame_scores import frame_embeddings, min_samples_of, repeated_to
from .frame_times import frame_offset_of, num_frames_in
from .metrics import mean_average_precision
from .results import TaskResult, task_record
from .zero_shot import DEFAULT_TEMPLATES, embed_classes, resolve_templates


@dataclass(frozen=True)
class FrameEmbeddings:
    """Frame embeddings of the readable clips of a data set, in its order.

    Attributes:
        frames: N arrays (T'_i, E) float32, unit-norm.
        records: N records without their audio.
        frame_rates_hz: N numbers of frames per second, different ones where the encoder stretches its input.
        skipped: one message per clip that was left out.
    """

    frames: list[np.ndarray]
    records: list[Record]
    frame_rates_hz: list[float]
    skipped: list[str]

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second, the mean over the clips."""
        return float(np.mean(self.frame_rates_hz))


def evaluate(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    labels: Sequence[str],
    templates: Sequence[str] | str = DEFAULT_TEMPLATES,
    *,
    label_text: Callable[[str], str] | None = None,
    options: AudioOptions | None = None,
) -> TaskResult:
    """`frame/mAP` and `frame/n_classes_scored` over all frames of the clips; chance is the mean positive rate.

    Args:
        model: has `get_audio_frame_features`, `get_text_features` and `config.audio_config.frame_rate_hz`.
        processor: the model's processor.
        dataset: records whose `events` have `label`, `onset`, `offset` in seconds.
        labels: all class names; those without an event in the data set are left out of the mean.
        templates: prompts of the classes, see `zero_shot.evaluate`.
        label_text: class name -> words in the prompt; by default `_` becomes a space.
        options: reading and batching; of a clip longer than the feature extractor's limit the first part is taken.

    Raises:
        ValueError: if an event has an unknown label, or no event is heard in any frame.
    """
    start, options = time.perf_counter(), options or AudioOptions()
    templates = resolve_templates(templates)
    class_embeds = embed_classes(model, processor, labels, templates, label_text=label_text)  # (C, E)
    embedded = embed_frames(model, processor, dataset, options=options)
    scores = np.concatenate([frames @ class_embeds.T for frames in embedded.frames])  # (all frames, C)
    positives = np.concatenate([
        frame_labels(record, labels, len(frames), rate, frame_offset_of(model))
        for record, frames, rate in zip(embedded.records, embedded.frames, embedded.frame_rates_hz, strict=True)
    ])  # fmt: skip
    found = mean_average_precision(scores, positives)
    record = task_record(
        "frame", model, dataset, embedded.skipped, len(embedded.frames), time.perf_counter() - start,
        templates=list(templates), num_frames=len(scores), frame_rate_hz=embedded.frame_rate_hz,
        max_seconds=longest_seconds(processor, AudioOptions()), long_audio="crop",
    )  # fmt: skip
    values = {"frame/mAP": found["mAP"], "frame/n_classes_scored": found["n_classes_scored"]}
    return TaskResult(values, {"frame/mAP": found["chance"]}, record)


def embed_frames(
    model: nn.Module, processor: AudioProcessor, dataset: Sequence[Record], *, options: AudioOptions | None = None
) -> FrameEmbeddings:
    """Frame embeddings in the shared space of every readable clip, padding removed.

    For a feature extractor with a fixed input a short clip is repeated, and its frames after its end are dropped.

    Args:
        model: has `get_audio_frame_features` and `config.audio_config.frame_rate_hz`.
        processor: the model's processor.
        dataset: map-style sequence of `Record`.
        options: reading and batching; of a clip longer than the feature extractor's limit the first part is taken.

    Raises:
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if no clip is readable.
    """
    options = options or AudioOptions()
    sampling_rate = feature_extractor_of(processor).sampling_rate
    reader = RecordReader(dataset, sampling_rate, options)
    min_samples = min_samples_of(processor)
    filled = ((index, repeated_to(waveform, min_samples)) for index, waveform in reader)
    found: dict[int, tuple[np.ndarray, float]] = {}
    with evaluation_mode(model):
        for batch in batches_by_length(filled, int(options.batch_seconds * sampling_rate)):
            frames, rates = frame_embeddings(model, processor, [clip for _, clip in batch])  # B arrays (T'_i, E)
            for (index, _), clip_frames, rate in zip(batch, frames, rates, strict=True):
                end = num_frames_in(reader.records[index].duration, rate) if min_samples else None
                found[index] = (clip_frames[:end], rate)
    reader.check_any_read()
    indices = sorted(found)
    frames, rates = zip(*(found[index] for index in indices), strict=True)
    return FrameEmbeddings(list(frames), [reader.records[i] for i in indices], list(rates), reader.skipped)


class FrameSurface(nn.Module):
    """A model with the surface of a system whose frames are one of its outputs, in no shared space."""

    def __init__(self, model: nn.Module, audio_config: PreTrainedConfig, name: str):
        """`name`: of the output (B, T', D) that stands for the frames."""
        super().__init__()
        self.model, self.name = model, name
        self.config = SimpleNamespace(audio_config=audio_config)

    def get_audio_frame_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None
    ) -> AudioFrameOutput:
        """The frames (B, T', D) with their mask."""
        output = self.model(input_features, input_features_mask)
        return AudioFrameOutput(frame_features=getattr(output, self.name), frame_mask=output.frame_mask)


def frame_labels(
    record: Record, labels: Sequence[str], num_frames: int, frame_rate_hz: float, offset_seconds: float = 0.0
) -> np.ndarray:
    """(T', C) bool: True where the centre of the frame lies in [onset, offset) of an event of the class.

    Args:
        record: its `events` have `label`, `onset`, `offset` in seconds.
        labels: C class names.
        num_frames: number of frames T'.
        frame_rate_hz: frames per second.
        offset_seconds: where frame 0 begins.

    Raises:
        ValueError: if an event's label is not in `labels`.
    """
    centres = (np.arange(num_frames) + 0.5) / frame_rate_hz + offset_seconds  # (T',)
    class_index = {label: index for index, label in enumerate(labels)}
    positives = np.zeros((num_frames, len(labels)), dtype=bool)
    for event in record.events:
        if event["label"] not in class_index:
            raise ValueError(
                f"Record {record.id!r} has an event labelled {event['label']!r}, which is not among the {len(labels)} "
                "`labels`. Add it to the class list or correct its spelling."
            )
        positives[:, class_index[event["label"]]] |= (centres >= event["onset"]) & (centres < event["offset"])
    return positives


__all__ = ["FrameEmbeddings", "FrameSurface", "embed_frames", "evaluate", "frame_labels"]

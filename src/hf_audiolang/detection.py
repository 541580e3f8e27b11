# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Python calls for what is heard when in sound files: sounds named by labels, or whatever a phrase says.

    labels, phrases -> (C, E), before a file is read
    files, folders -> windows -> frame scores (T, C) -> events with label, score, start, end in seconds

The functions take a model folder (or Hub id), or a loaded model with its processor: a system of this package, or
transformers' `ClapModel`, which is asked about a clip around each moment. Files of any length are read window by
window. Files that cannot be read are named in `failed` and do not stop the others.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from hf_audiolang.data.audio_files import find_audio_files
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.capabilities import AudioProcessor
from hf_audiolang.evaluation.events import DetectedEvent, EventRule, find_events
from hf_audiolang.evaluation.frame_scores import BARE_LABEL, FrameScoreOptions, embed_labels, score_records
from hf_audiolang.evaluation.metrics.psds import FrameScores
from hf_audiolang.inference import loaded_model


@dataclass(frozen=True)
class FileEvents:
    """What was found in one sound file.

    Attributes:
        file: path as text.
        duration: seconds.
        labels: C labels or phrases, as given.
        frame_scores: `scores` (T, C) cosine similarities and `edges` (T + 1,) in seconds, from which the events were
            made; `find_events` makes others of them by another rule.
        events: sorted by start, then by label.
    """

    file: str
    duration: float
    labels: list[str]
    frame_scores: FrameScores
    events: list[DetectedEvent]

    def highest_scores(self) -> dict[str, float]:
        """Label -> the highest score, max(cosine, 0), that one of its frames has; highest first."""
        highest = np.maximum(self.frame_scores.scores.max(axis=0), 0.0)  # (C,)
        return {self.labels[column]: float(highest[column]) for column in np.argsort(-highest, kind="stable")}


@dataclass(frozen=True)
class FileDetection:
    """What was found in sound files: one entry per readable file, in the order given, and a message per other one."""

    files: list[FileEvents]
    failed: tuple[str, ...] = ()


def detect_files(
    files: Iterable[str | Path],
    labels: Sequence[str],
    model: str | Path | PreTrainedModel,
    processor: AudioProcessor | None = None,
    *,
    templates: Sequence[str] | str = BARE_LABEL,
    rule: EventRule | None = None,
    options: FrameScoreOptions | None = None,
) -> FileDetection:
    """Which of the labels is heard in each sound file, from when to when.

    Args:
        files: sound files of any length, and folders that are searched for them.
        labels: different words for sounds, such as "dog"; `_` is read as a space.
        model: folder, Hub id, or a loaded model with its `processor`.
        processor: of a loaded model.
        templates: sentences with `{label}`, several are averaged, or the name of a set.
        rule: threshold and smoothing. Which threshold is right depends on the model.
        options: windows and batches.

    Raises:
        FileNotFoundError: if there are no files, or the model folder does not exist or has no weights.
        ValueError: if the model has no text encoder, a label is blank, given twice or too long, or not one file is
            readable.
    """
    return _find(files, labels, model, processor, templates=templates, label_text=None, rule=rule, options=options)


def ground_files(
    files: Iterable[str | Path],
    phrases: str | Sequence[str],
    model: str | Path | PreTrainedModel,
    processor: AudioProcessor | None = None,
    *,
    rule: EventRule | None = None,
    options: FrameScoreOptions | None = None,
) -> FileDetection:
    """When each phrase is heard in each sound file; the phrases are taken word for word.

    Args:
        files: sound files of any length, and folders that are searched for them.
        phrases: one description, such as "a dog barks twice", or several different ones.
        model: folder, Hub id, or a loaded model with its `processor`.
        processor: of a loaded model.
        rule: threshold and smoothing. Which threshold is right depends on the model.
        options: windows and batches.

    Raises:
        FileNotFoundError: if there are no files, or the model folder does not exist or has no weights.
        ValueError: if the model has no text encoder, a phrase is blank, given twice or too long, or not one file is
            readable.
    """
    phrases = [phrases] if isinstance(phrases, str) else phrases
    shared = {"rule": rule, "options": options, "name": "phrases"}
    return _find(files, phrases, model, processor, templates=BARE_LABEL, label_text=str, **shared)


def _find(
    files: Iterable[str | Path],
    labels: Sequence[str],
    model: str | Path | PreTrainedModel,
    processor: AudioProcessor | None,
    *,
    templates: Sequence[str] | str,
    label_text: Callable[[str], str] | None,
    rule: EventRule | None,
    options: FrameScoreOptions | None,
    name: str = "labels",
) -> FileDetection:
    records = [Record(id=str(path), audio=path) for path in find_audio_files(files)]
    model, processor = loaded_model(model, processor)
    text_embeds = embed_labels(model, processor, labels, templates, label_text, name=name)  # (C, E)
    options = options or FrameScoreOptions()  # the caller gets the failures, however many
    options = replace(options, reading=replace(options.reading, max_bad_fraction=1.0))
    scored = score_records(model, processor, records, lambda _: text_embeds, options=options)
    found = [
        FileEvents(record.id, record.duration, list(labels), scores, find_events(scores, labels, rule))
        for record, scores in zip(scored.records, scored.frame_scores, strict=True)
    ]
    return FileDetection(found, tuple(scored.skipped))


__all__ = ["FileDetection", "FileEvents", "detect_files", "ground_files"]

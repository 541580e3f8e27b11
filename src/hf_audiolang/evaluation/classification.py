# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Classification by a trained head: one label per clip (accuracy), or any number of labels (mAP).

clips -> ...ForAudioClassification -> logits (N, C) -> accuracy, balanced accuracy; or macro average precision

A clip over the limit is cut by `AudioOptions.long_audio`; its logits are the mean over the equal pieces.
"""

import time
from collections.abc import Sequence

import numpy as np
from torch import nn

from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor
from .clip_cuts import Cut
from .embed import AudioOptions, longest_seconds, sum_over_pieces
from .metrics import accuracy, balanced_accuracy, mean_average_precision
from .results import TaskResult, task_record


def evaluate(
    model: nn.Module,
    processor: AudioProcessor,
    dataset: Sequence[Record],
    *,
    is_multi_label: bool | None = None,
    options: AudioOptions | None = None,
    cut: Cut | None = None,
) -> TaskResult:
    """`classification/accuracy` and `classification/balanced_accuracy`, or `tagging/mAP`, all in [0, 1].

    Classes without a positive clip have no average precision: they are left out of the mean, and counted in the
    record (`num_classes_scored`).

    Args:
        model: has `config.id2label`; gives `logits` (B, C).
        processor: holds the model's feature extractor, or is it.
        dataset: records with `labels`, all of them names of the model's classes.
        is_multi_label: None asks the model's `problem_type`.
        options: reading and batching of the clips.
        cut: what is done to the clips before, such as `UnitLength`; None leaves them as they are.

    Raises:
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: for labels the model does not know, a clip without exactly one label in a single-label problem, or
            if no clip is readable or no class has a positive clip.
    """
    start, options = time.perf_counter(), options or AudioOptions()
    classes = class_names(model)
    if is_multi_label is None:
        is_multi_label = model.config.problem_type == "multi_label_classification"
    check_labels(dataset, classes, is_multi_label)
    found = sum_over_pieces(
        model, processor, dataset, lambda inputs: model(**inputs).logits.float().cpu().numpy(), options, cut
    )
    logits = found.sums / found.num_pieces[:, None]  # (N, C)
    records = [found.reader.records[index] for index in found.indices]
    targets = multi_hot([record.labels for record in records], classes)  # (N, C)
    if is_multi_label:
        values, chance, num_scored = _tagging_values(logits, targets)
    else:
        values, chance, num_scored = _accuracy_values(logits, targets.argmax(axis=1)), 1 / len(classes), len(classes)
    record = task_record(
        "tagging" if is_multi_label else "classification", model, dataset, found.reader.skipped, len(records),
        time.perf_counter() - start, num_classes=len(classes), num_classes_scored=num_scored,
        max_seconds=longest_seconds(processor, options), long_audio=options.long_audio,
        clip_seconds=getattr(cut, "seconds", None),
    )  # fmt: skip
    return TaskResult(values, dict.fromkeys(values, chance), record)


def class_names(model: nn.Module) -> list[str]:
    """The classes of a model's head in the order of its logits."""
    id2label = model.config.id2label
    return [id2label[index] for index in range(len(id2label))]


def check_labels(dataset: Sequence[Record], classes: Sequence[str], is_multi_label: bool) -> None:
    """Makes sure that every label of a data set is a class, before a sound is read.

    Raises:
        ValueError: for an unknown label, or with one label per clip for a clip without exactly one; names the record.
    """
    known = set(classes)
    for index in range(len(dataset)):
        record = dataset[index]
        unknown = sorted(set(record.labels) - known)
        if unknown:
            raise ValueError(
                f"Record {record.id!r} has the label {unknown[0]!r}, which is none of the model's {len(known)} "
                f"classes ({', '.join(list(classes)[:5])}, ...). Correct it, or train a head that knows it."
            )
        if not is_multi_label and len(record.labels) != 1:
            raise ValueError(
                f"Record {record.id!r} must have exactly one label, got {list(record.labels)}. Leave the clip out, or "
                "train a multi-label head."
            )


def multi_hot(labels: Sequence[Sequence[str]], classes: Sequence[str]) -> np.ndarray:
    """(N, C) float32: 1 at the classes of each clip."""
    place = {label: index for index, label in enumerate(classes)}
    targets = np.zeros((len(labels), len(classes)), dtype=np.float32)
    for row, names in zip(targets, labels, strict=True):
        row[[place[name] for name in names]] = 1
    return targets


def _accuracy_values(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    predictions = logits.argmax(axis=1)
    return {
        "classification/accuracy": accuracy(predictions, targets),
        "classification/balanced_accuracy": balanced_accuracy(predictions, targets),
    }


def _tagging_values(logits: np.ndarray, targets: np.ndarray) -> tuple[dict[str, float], float, int]:
    has_positive = targets.any(axis=0)
    if not has_positive.any():
        raise ValueError(f"None of the {len(targets)} clips has a label, got 0 positives. mAP needs one at least.")
    found = mean_average_precision(logits[:, has_positive], targets[:, has_positive])
    return {"tagging/mAP": found["mAP"]}, found["chance"], int(has_positive.sum())


__all__ = ["check_labels", "class_names", "evaluate", "multi_hot"]

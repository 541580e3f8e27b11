# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Zero-shot classification: the class whose prompt is nearest to the clip.

    labels x templates -> prompts -> text embeddings -> one unit vector per class -> cosine with the clip -> argmax

Several templates are an ensemble: the embeddings of a class's prompts are averaged and normalised again.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn
from transformers import ProcessorMixin

from hf_audiolang.data.records import Record

from .embed import AudioOptions, embed_records, embed_texts, longest_seconds
from .metrics import accuracy, balanced_accuracy, top_k_accuracy
from .results import TaskResult, task_record

DEFAULT_TEMPLATES = ("{label} can be heard",)  # M2D-CLAP Table VI, for environmental sounds
TEMPLATE_SETS = {
    "default7": (  # our choice: bare name and six common sentences
        "{label}",
        "{label} can be heard",
        "the sound of {label}",
        "a recording of {label}",
        "this is a sound of {label}",
        "an audio clip of {label}",
        "{label} in the background",
    )
}


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
    """`zero_shot/accuracy`, `zero_shot/top5_accuracy` and `zero_shot/balanced_accuracy` over single-label clips.

    Args:
        model: has `get_audio_features` and `get_text_features`.
        processor: the model's processor.
        dataset: records with exactly one label each, out of `labels`.
        labels: all class names, also those without a clip.
        templates: sentences with `{label}` (or `{}`), or the name of a set in `TEMPLATE_SETS`.
        label_text: class name -> words in the prompt; by default `_` becomes a space.
        options: reading and batching of the clips.

    Raises:
        ValueError: if a record does not have exactly one known label, or a template has no place for it.
    """
    start, options = time.perf_counter(), options or AudioOptions()
    templates = resolve_templates(templates)
    embedded = embed_records(model, processor, dataset, options=options)
    class_index = {label: index for index, label in enumerate(labels)}
    targets = np.array([_target(record, class_index) for record in embedded.records])  # (N,)
    class_embeds = embed_classes(model, processor, labels, templates, label_text=label_text)  # (C, E)
    scores = embedded.embeds @ class_embeds.T  # (N, C)
    predictions = scores.argmax(axis=1)
    values = {
        "zero_shot/accuracy": accuracy(predictions, targets),
        "zero_shot/top5_accuracy": top_k_accuracy(scores, targets, 5),
        "zero_shot/balanced_accuracy": balanced_accuracy(predictions, targets),
    }
    num_classes = len(labels)
    chance = dict(zip(values, (1 / num_classes, min(1.0, 5 / num_classes), 1 / num_classes), strict=True))
    record = task_record(
        "zero_shot", model, dataset, embedded.skipped, len(targets), time.perf_counter() - start,
        templates=list(templates), num_classes=num_classes,
        max_seconds=longest_seconds(processor, options), long_audio=options.long_audio,
    )  # fmt: skip
    return TaskResult(values, chance, record)


def embed_classes(
    model: nn.Module,
    processor: ProcessorMixin,
    labels: Sequence[str],
    templates: Sequence[str] | str = DEFAULT_TEMPLATES,
    *,
    label_text: Callable[[str], str] | None = None,
) -> np.ndarray:
    """One unit-norm vector (C, E) per class: the normalised mean of its prompts' embeddings.

    Args:
        model: has `get_text_features`.
        processor: the model's processor.
        labels: class names.
        templates: sentences with `{label}` (or `{}`), or the name of a set in `TEMPLATE_SETS`.
        label_text: class name -> words in the prompt; by default `_` becomes a space.

    Raises:
        ValueError: if there are no labels or a template has no place for the label.
    """
    templates = resolve_templates(templates)
    prompts = [prompt for label in labels for prompt in class_prompts(label, templates, label_text)]
    embeds = embed_texts(model, processor, prompts).reshape(len(labels), len(templates), -1)  # (C, templates, E)
    if len(templates) == 1:
        return embeds[:, 0]  # exactly the prompt's embedding
    mean = embeds.mean(axis=1)  # (C, E)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def class_prompts(
    label: str, templates: Sequence[str] | str = DEFAULT_TEMPLATES, label_text: Callable[[str], str] | None = None
) -> list[str]:
    """The prompts of one class, one per template: `class_prompts("car_horn")` is `["car horn can be heard"]`."""
    text = label_text(label) if label_text else label.replace("_", " ")
    return [template.replace("{label}", text).replace("{}", text) for template in resolve_templates(templates)]


def resolve_templates(templates: Sequence[str] | str) -> tuple[str, ...]:
    """The templates of a named set, or the given ones after a check.

    Raises:
        ValueError: if there is none, or one has neither `{label}` nor `{}`.
    """
    if isinstance(templates, str):
        templates = TEMPLATE_SETS.get(templates, (templates,))
    for template in templates:
        if "{label}" not in template and "{}" not in template:
            raise ValueError(
                f"`templates` holds {template!r}, which has no place for the label. Write `{{label}}` where the label "
                f"goes, as in {DEFAULT_TEMPLATES[0]!r}, or name one of the sets {sorted(TEMPLATE_SETS)}."
            )
    if not templates:
        raise ValueError(f"`templates` is empty, got {templates!r}. Give at least one, as {DEFAULT_TEMPLATES[0]!r}.")
    return tuple(templates)


def _target(record: Record, class_index: dict[str, int]) -> int:
    if len(record.labels) != 1 or record.labels[0] not in class_index:
        raise ValueError(
            f"Record {record.id!r} must have exactly one of the {len(class_index)} classes as label, got "
            f"{list(record.labels)}. Zero-shot accuracy needs single-label clips; check the spelling in `labels`."
        )
    return class_index[record.labels[0]]


__all__ = [
    "DEFAULT_TEMPLATES",
    "TEMPLATE_SETS",
    "class_prompts",
    "embed_classes",
    "evaluate",
    "resolve_templates",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official encoders that were fine-tuned for tagging: the encoder with its head as one of our classes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hf_audiolang.data.audioset import audioset_classes
from hf_audiolang.models.configuration_audio_head import AudioHeadConfig
from hf_audiolang.models.layers_audio_head import MULTI_LABEL
from hf_audiolang.models.modeling_audio_classification import AudioClassificationModel

from .weights import KeyTable, Plan, under

COUNTER = "classifier.norm.num_batches_tracked"  # of a batch norm: nothing depends on it


def head_plan(
    model_class: type[AudioClassificationModel],
    config: AudioHeadConfig,
    encoder: KeyTable,
    head: Mapping[str, str],
    num_labels: int,
    *,
    order: str,
) -> Plan:
    """The plan of an encoder with a multi-label head.

    Args:
        model_class: of the encoder's configuration.
        config: gets the head's numbers.
        encoder: official key -> names in the encoder.
        head: official key -> name in the head.
        num_labels: outputs of the head.
        order: of AudioSet's classes, see `audioset_classes`; heads of other sizes have unnamed classes.
    """
    config.num_labels, config.problem_type = num_labels, MULTI_LABEL
    classes = audioset_classes(order)
    if num_labels == len(classes):
        config.id2label = {index: item.display_name for index, item in enumerate(classes)}
        config.label2id = {name: index for index, name in config.id2label.items()}
    with torch.device("meta"):
        model = model_class(config)
    given: dict[str, Tensor] = {COUNTER: torch.tensor(0)} if config.classifier_norm else {}
    table = under("audio_model", encoder) | {key: (f"classifier.{name}",) for key, name in head.items()}
    return Plan(model, table, given)


def label_note(num_labels: int, order: str) -> str:
    """Which classes the outputs of a converted head are, in words."""
    if num_labels != len(audioset_classes()):
        return f"the file does not name its {num_labels} classes: set `id2label`"
    what = "the order of its table" if order == "index" else "their ids sorted as strings, not the order of its table"
    return f"the {num_labels} outputs are AudioSet's classes in {what}"


__all__ = ["head_plan", "label_note"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Nearest neighbours of frozen clip features: what an encoder says without any training (X-ARES).

    test clip -> cosine with every training clip -> the 10 nearest vote with softmax(cosine / 0.07) -> (C,) in [0, 1]

One label per clip: the class with most votes, accuracy; any number of labels: mAP of the votes.
"""

import numpy as np
from torch import nn

from hf_audiolang.data.labels_records import LabelledData

from .capabilities import AudioProcessor
from .linear_evaluation import unit_features
from .probe_data import label_targets
from .probe_protocol import ProbeScores, ProbeSettings
from .probe_training import probe_score

NUM_NEIGHBOURS, TEMPERATURE = 10, 0.07  # X-ARES, after DINO
BLOCK_ROWS = 512  # test clips compared at a time


def score_fold(
    model: nn.Module, processor: AudioProcessor, data: LabelledData, settings: ProbeSettings
) -> ProbeScores:
    """`knn/accuracy`, or `knn/mAP` of clips with any number of labels: one value, nothing is drawn.

    Args:
        model: a system or an audio encoder; weights and modes stay as they are.
        processor: holds the model's feature extractor, or is it.
        data: labelled clips; validation clips are not used.
        settings: length of the clips.

    Raises:
        TooManyBadExamples: if more clips are bad than `settings.reading` allows.
        ValueError: if training or test clips are missing, a label is no class, or a feature is zero.
    """
    sets = unit_features(model, processor, data, settings, ("train", "test"))
    train, test = sets["train"], sets["test"]
    known = label_targets(train.records, data.classes, is_multi_label=True)  # (N, C): a row of votes per clip
    votes = neighbour_votes(train.clip_means(), known, test.clip_means())
    found = probe_score(votes, label_targets(test.records, data.classes, data.is_multi_label))
    name = f"knn/{'mAP' if data.is_multi_label else 'accuracy'}"
    details = {
        "num_neighbours": min(NUM_NEIGHBOURS, len(known)),
        "temperature": TEMPERATURE,
        "clip_seconds": settings.clip_seconds,
        "num_classes_scored": found["n_classes_scored"],
    }
    skipped = [*train.skipped, *test.skipped]
    return ProbeScores({name: [found["score"]]}, {name: found["chance"]}, len(votes), skipped, details)


def neighbour_votes(
    train: np.ndarray,
    targets: np.ndarray,
    test: np.ndarray,
    num_neighbours: int = NUM_NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """Votes (M, C) of the nearest training clips, weighted by the softmax over them of cosine / temperature.

    Args:
        train: (N, D') features.
        targets: (N, C) 0 and 1.
        test: (M, D') features.
        num_neighbours: all training clips vote if there are fewer; of equally near ones the first.
        temperature: of the softmax.

    Raises:
        ValueError: if a feature is zero: it has no direction.
    """
    train, test = _unit_rows(train, "train"), _unit_rows(test, "test")
    votes = []
    for start in range(0, len(test), BLOCK_ROWS):
        cosines = test[start : start + BLOCK_ROWS] @ train.T  # (B, N)
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :num_neighbours]  # (B, K)
        logits = np.take_along_axis(cosines, nearest, axis=1) / temperature
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        votes.append((weights[..., None] * targets[nearest]).sum(axis=1))
    return np.concatenate(votes)


def _unit_rows(features: np.ndarray, name: str) -> np.ndarray:
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    is_zero = norms[:, 0] == 0
    if is_zero.any():
        raise ValueError(
            f"`{name}` has {int(is_zero.sum())} of {len(norms)} features that are zero, the first is row "
            f"{int(is_zero.argmax())}. Check the weights: a cosine needs a direction."
        )
    return features / norms


__all__ = ["neighbour_votes", "score_fold"]

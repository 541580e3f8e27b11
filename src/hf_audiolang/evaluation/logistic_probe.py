# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Linear probe: how well one linear layer on frozen features tells the classes apart (M2D-CLAP IV-B1, in small).

    train clips -> audio encoder -> pooler_output (N, D') -> standardise -> logistic regression
    test clips  -> audio encoder -> pooler_output (M, D') -> the same numbers -> predicted class -> accuracy

It needs no text and no shared space, so it compares any two audio encoders. Needs scikit-learn (the extra `eval`).
"""

import time
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from torch import nn

from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor
from .embed import AudioOptions, longest_seconds
from .frozen_features import clip_features
from .metrics import MissingResourceError, accuracy, balanced_accuracy
from .results import TaskResult, task_record

# Our choice: scikit-learn's default. Trained on 512 clips of the sound scenes it was within 3 points of the best of
# 0.001, 0.01, ..., 100, for mean and deviation of the log-mel bands and for features of an untrained encoder.
INVERSE_REGULARISATION = 1.0
MAX_ITERATIONS = 1000  # our choice; 150 to 270 were needed there


def evaluate(
    model: nn.Module,
    processor: AudioProcessor,
    train: Sequence[Record],
    test: Sequence[Record],
    *,
    options: AudioOptions | None = None,
) -> TaskResult:
    """`probe/accuracy` and `probe/balanced_accuracy` on `test` of a linear layer trained on `train`.

    Args:
        model: a system or an audio encoder; its weights stay as they are.
        processor: holds the model's feature extractor, or is it.
        train: records with exactly one label each, of at least two classes.
        test: records with exactly one label each, all of them labels of `train`; keep the clips of the two apart.
        options: reading and batching of the clips.

    Raises:
        MissingResourceError: if scikit-learn is not installed.
        ValueError: if a record does not have exactly one label, or `linear_probe` refuses features or labels.
    """
    check_installed()
    start, options = time.perf_counter(), options or AudioOptions()
    known, asked = (clip_features(model, processor, dataset, options) for dataset in (train, test))
    train_labels, test_labels = ([_label(record) for record in clips.records] for clips in (known, asked))
    values = linear_probe(known.clip_means(), train_labels, asked.clip_means(), test_labels)
    num_classes = len(set(train_labels))
    record = task_record(
        "probe", model, test, asked.skipped, len(test_labels), time.perf_counter() - start,
        num_train_clips=len(train_labels), train_skipped=known.skipped, num_classes=num_classes,
        num_features=known.rows.shape[1], inverse_regularisation=INVERSE_REGULARISATION,
        max_seconds=longest_seconds(processor, options), long_audio=options.long_audio,
    )  # fmt: skip
    values = {f"probe/{name}": value for name, value in values.items()}
    return TaskResult(values, dict.fromkeys(values, 1 / num_classes), record)


def linear_probe(
    train_features: np.ndarray, train_labels: Sequence[str], test_features: np.ndarray, test_labels: Sequence[str]
) -> dict[str, float]:
    """`accuracy` and `balanced_accuracy` of logistic regression on standardised features.

    The loss is convex and the solver (L-BFGS) starts from zero: nothing is drawn, the same features give the same
    values.

    Args:
        train_features: (N, D').
        train_labels: N class names, of at least two classes.
        test_features: (M, D').
        test_labels: M class names, all of them in `train_labels`.

    Raises:
        MissingResourceError: if scikit-learn is not installed.
        ValueError: if shapes do not fit, a feature is not finite, there are fewer than two classes, or a class of
            `test_labels` is not in `train_labels`.
    """
    check_installed()
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    _check_features(train_features, train_labels, "train")
    _check_features(test_features, test_labels, "test")
    classes = _check_classes(train_labels, test_labels)
    classifier = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS)
    probe = make_pipeline(StandardScaler(), classifier)
    with threadpool_limits(1, user_api="blas"):  # the products are small: two threads took ten times as long as one
        probe.fit(np.asarray(train_features, dtype=np.float64), train_labels)
        predicted = probe.predict(np.asarray(test_features, dtype=np.float64))
    index_of = {label: index for index, label in enumerate(classes)}
    predictions, targets = (np.array([index_of[label] for label in labels]) for labels in (predicted, test_labels))
    return {"accuracy": accuracy(predictions, targets), "balanced_accuracy": balanced_accuracy(predictions, targets)}


def check_installed() -> None:
    """Raises MissingResourceError, with the command that gets it, if scikit-learn is not installed."""
    if find_spec("sklearn") is None:
        raise MissingResourceError(
            "The linear probe needs the package 'scikit-learn', which is not installed. Run "
            "`pip install 'hf-audiolang[eval]'`; everything else works without it."
        )


def _label(record: Record) -> str:
    if len(record.labels) != 1:
        raise ValueError(
            f"Record {record.id!r} must have exactly one label, got {list(record.labels)}. The linear probe needs "
            "single-label clips: name the column with the labels, or leave the clip out."
        )
    return record.labels[0]


def _check_features(features: np.ndarray, labels: Sequence[str], side: str) -> None:
    if features.ndim != 2 or len(features) != len(labels) or len(labels) == 0:
        raise ValueError(
            f"`{side}_features` must be (N, D') with N labels and N > 0, got {features.shape} and {len(labels)} "
            "labels. Pass one row and one label per clip."
        )
    is_bad = ~np.isfinite(features).all(axis=1)  # (N,)
    if is_bad.any():
        raise ValueError(
            f"`{side}_features` has {int(is_bad.sum())} of {len(features)} rows that are not finite, the first is row "
            f"{int(is_bad.argmax())}. Check the weights: the encoder gave NaN or infinity."
        )


def _check_classes(train_labels: Sequence[str], test_labels: Sequence[str]) -> list[str]:
    """The classes of `train_labels` in their sorted order."""
    classes = sorted(set(train_labels))
    if len(classes) < 2:
        raise ValueError(f"`train_labels` has {len(classes)} class, got {classes}. A probe needs two classes or more.")
    unseen = sorted(set(test_labels) - set(classes))
    if unseen:
        raise ValueError(
            f"`test_labels` has {len(unseen)} classes that `train_labels` lacks, got {unseen[:5]}. Add training clips "
            "of them, or leave their test clips out."
        )
    return classes


__all__ = ["check_installed", "clip_features", "evaluate", "linear_probe"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Metrics in plain numpy, one file per family, and the same as `evaluate.Metric` objects through `load_metric`."""

from typing import TYPE_CHECKING

from .accuracy import accuracy, balanced_accuracy, top_k_accuracy
from .average_precision import average_precision, mean_average_precision
from .caption_scores import CaptionScores, caption_diversity, caption_scores
from .errors import MissingResourceError
from .regression import r2_score
from .retrieval_ranks import (
    RelevantRanks,
    chance_recall_at_k,
    mean_average_precision_at_k,
    mean_rank,
    median_rank,
    recall_at_k,
    relevant_ranks,
    retrieval_metrics,
)
from .roc_auc import mean_roc_auc, roc_auc

if TYPE_CHECKING:
    import evaluate


def load_metric(name: str, **options: object) -> "evaluate.Metric":
    """A metric object of the package `evaluate`, made here: no network, no copied script.

    Args:
        name: "accuracy", "caption_scores", "mean_average_precision" or "retrieval".
        options: passed to `evaluate.Metric`: `cache_dir`, `keep_in_memory`, `num_process`, `experiment_id`, ...

    Raises:
        MissingResourceError: if `evaluate` or `datasets` is not installed; the functions of this package work without.
        ValueError: if `name` is unknown.
    """
    try:
        from .modules import METRICS
    except ImportError as error:
        raise MissingResourceError(
            f"`load_metric({name!r})` needs the package {error.name!r}, which is not installed. Run "
            "`pip install evaluate datasets`, or call the numpy functions of `hf_audiolang.evaluation.metrics`, "
            "which need neither."
        ) from error
    if name not in METRICS:
        raise ValueError(f"Unknown metric `name` {name!r}. Choose one of {sorted(METRICS)}.")
    return METRICS[name](**options)


__all__ = [
    "CaptionScores",
    "MissingResourceError",
    "RelevantRanks",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "caption_diversity",
    "caption_scores",
    "chance_recall_at_k",
    "load_metric",
    "mean_average_precision",
    "mean_average_precision_at_k",
    "mean_rank",
    "mean_roc_auc",
    "median_rank",
    "r2_score",
    "recall_at_k",
    "relevant_ranks",
    "retrieval_metrics",
    "roc_auc",
    "top_k_accuracy",
]

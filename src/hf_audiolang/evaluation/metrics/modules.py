# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The metrics as `evaluate.Metric` classes, for those who collect batches with `add_batch` or combine metrics.

Needs the package `evaluate`, never the network: get one by `hf_audiolang.evaluation.metrics.load_metric(name)`.
Each is a thin shell around the numpy functions of its family.
"""

import datasets
import evaluate
import numpy as np

from .accuracy import accuracy, balanced_accuracy, top_k_accuracy
from .average_precision import mean_average_precision
from .caption_scores import caption_diversity, caption_scores
from .retrieval_ranks import retrieval_metrics

_CITATION = ""


class AccuracyMetric(evaluate.Metric):
    """`accuracy`, `balanced_accuracy` and, when scores are given, `top5_accuracy`.

    `predictions` are class indices, or one row of class scores per example; `references` are class indices.
    """

    def _info(self) -> evaluate.MetricInfo:
        target = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation=_CITATION,
            features=[
                datasets.Features({"predictions": target, "references": target}),
                datasets.Features({"predictions": datasets.Sequence(datasets.Value("float32")), "references": target}),
            ],
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        scores, targets = np.asarray(predictions), np.asarray(references)
        classes = scores if scores.ndim == 1 else scores.argmax(axis=1)
        values = {"accuracy": accuracy(classes, targets), "balanced_accuracy": balanced_accuracy(classes, targets)}
        return values if scores.ndim == 1 else {**values, "top5_accuracy": top_k_accuracy(scores, targets, 5)}


class MeanAveragePrecisionMetric(evaluate.Metric):
    """`mAP`, `n_classes_scored` and `chance`; `predictions` are class scores, `references` 0/1 per class."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float32")),
            "references": datasets.Sequence(datasets.Value("int8")),
        }
        return evaluate.MetricInfo(description=self.__doc__, citation=_CITATION, features=datasets.Features(features))

    def _compute(self, predictions: list, references: list, include_empty: bool = False) -> dict[str, float | int]:
        return mean_average_precision(np.asarray(predictions), np.asarray(references), include_empty)


class RetrievalMetric(evaluate.Metric):
    """`R@k`, `mAP@k`, `MedR`, `MeanR`; `predictions` are the 0-based ranks of each query's relevant items.

    Ranks come from `relevant_ranks`; similarities are never written to disk.
    """

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Sequence(datasets.Value("int64"))}
        return evaluate.MetricInfo(description=self.__doc__, citation=_CITATION, features=datasets.Features(features))

    def _compute(
        self, predictions: list, ks: tuple[int, ...] = (1, 5, 10), map_k: int = 10, divisor: str = "n_relevant"
    ) -> dict[str, float]:
        ranks = [np.sort(np.asarray(item_ranks)) for item_ranks in predictions]
        return retrieval_metrics(ranks, ks, map_k, divisor)


class CaptionScoresMetric(evaluate.Metric):
    """`CIDEr-D`, `BLEU_1` to `BLEU_4`, `ROUGE_L` and the values of `caption_diversity`, of simple words.

    `predictions` are captions, `references` lists of texts. CIDEr-D is a value of the set: collect all clips first.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = {"predictions": text, "references": datasets.Sequence(text)}
        return evaluate.MetricInfo(description=self.__doc__, citation=_CITATION, features=datasets.Features(features))

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {**caption_scores(predictions, references).corpus, **caption_diversity(predictions)}


METRICS = {
    "accuracy": AccuracyMetric,
    "caption_scores": CaptionScoresMetric,
    "mean_average_precision": MeanAveragePrecisionMetric,
    "retrieval": RetrievalMetric,
}

__all__ = ["METRICS", "AccuracyMetric", "CaptionScoresMetric", "MeanAveragePrecisionMetric", "RetrievalMetric"]

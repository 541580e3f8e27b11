"""Accuracy and average precision against scikit-learn, and the rules in which ours differ from it."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as reference

from hf_audiolang.evaluation import metrics
from hf_audiolang.evaluation.metrics import (
    MissingResourceError,
    accuracy,
    average_precision,
    balanced_accuracy,
    load_metric,
    mean_average_precision,
    relevant_ranks,
    retrieval_metrics,
    top_k_accuracy,
)


def scores_and_targets(seed, num_examples=61, num_classes=7):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, num_classes - 1, num_examples)  # the last class never occurs
    scores = generator.standard_normal((num_examples, num_classes))
    scores[np.arange(num_examples), targets] += 1
    return scores, targets


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_accuracies_equal_scikit_learn(seed):
    scores, targets = scores_and_targets(seed)
    predictions = scores.argmax(1)
    assert accuracy(predictions, targets) == pytest.approx(reference.accuracy_score(targets, predictions))
    known = predictions < 6  # scikit-learn warns about predicted classes that never occur as targets
    expected = reference.balanced_accuracy_score(targets[known], predictions[known])
    assert balanced_accuracy(predictions[known], targets[known]) == pytest.approx(expected)
    for k in (1, 2, 5):
        expected = reference.top_k_accuracy_score(targets, scores, k=k, labels=range(7))
        assert top_k_accuracy(scores, targets, k) == pytest.approx(expected)


def test_equal_scores_go_to_the_lowest_class_index():
    scores = np.zeros((6, 3))
    targets = np.array([0, 0, 1, 2, 2, 2])
    assert top_k_accuracy(scores, targets, 1) == pytest.approx(2 / 6)
    assert top_k_accuracy(scores, targets, 2) == pytest.approx(3 / 6)
    assert top_k_accuracy(scores, targets, 9) == 1.0


def test_balanced_accuracy_hand_case():
    assert balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx((1 + 0.5) / 2)
    assert balanced_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1])) == pytest.approx(0.5)


@pytest.mark.parametrize("decimals", [8, 1])  # 1: many equal scores
def test_average_precision_equals_scikit_learn_with_and_without_ties(decimals):
    generator = np.random.default_rng(4)
    for _ in range(20):
        scores = np.round(generator.standard_normal(37), decimals)
        positives = generator.random(37) < 0.3
        positives[0] = True
        expected = reference.average_precision_score(positives, scores)
        assert average_precision(scores, positives) == pytest.approx(expected)


def test_average_precision_hand_case_and_constant_scores():
    # ranking + - + -: precisions 1 and 2/3 at the two positives
    assert average_precision(np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 0])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.zeros(8), np.arange(8) == 0) == pytest.approx(1 / 8)


def test_classes_without_a_positive_are_left_out_of_the_map_with_a_warning():
    generator = np.random.default_rng(5)
    scores, positives = generator.standard_normal((53, 6)), generator.random((53, 6)) < 0.2
    positives[:, 2] = False
    kept = [0, 1, 3, 4, 5]
    with pytest.warns(UserWarning, match="1 of 6 classes have no positive"):
        values = mean_average_precision(scores, positives)
    assert values["mAP"] == pytest.approx(reference.average_precision_score(positives[:, kept], scores[:, kept]))
    assert values["n_classes_scored"] == 5
    assert values["chance"] == pytest.approx(positives[:, kept].mean())
    raw = mean_average_precision(scores, positives, include_empty=True)
    assert raw["mAP"] == pytest.approx(values["mAP"] * 5 / 6)  # scikit-learn's macro mean counts the class as 0
    assert raw["n_classes_scored"] == 6


def test_bad_scores_and_shapes_are_refused():
    with pytest.raises(ValueError, match="has 1 NaN"):
        average_precision(np.array([1.0, np.nan]), np.array([1, 0]))
    with pytest.raises(ValueError, match="no positive example"):
        average_precision(np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match="spelt alike"):
        mean_average_precision(np.ones((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"must both be \(N, C\)"):
        mean_average_precision(np.ones((3, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="has 1 NaN"):
        top_k_accuracy(np.array([[1.0, np.nan]]), np.array([0]))
    with pytest.raises(ValueError, match="with N > 0"):
        accuracy(np.array([]), np.array([]))


@pytest.fixture
def metric_options(tmp_path):
    return {"cache_dir": str(tmp_path), "keep_in_memory": True}


def test_loaded_metrics_give_what_the_functions_give(metric_options):
    scores, targets = scores_and_targets(7)
    metric = load_metric("accuracy", **metric_options)
    values = metric.compute(predictions=scores, references=targets)
    assert values["top5_accuracy"] == pytest.approx(top_k_accuracy(scores, targets, 5))
    assert values["accuracy"] == pytest.approx(accuracy(scores.argmax(1), targets))
    by_class = load_metric("accuracy", **metric_options)
    for start in (0, 40):
        part = slice(start, start + 40)
        by_class.add_batch(predictions=scores[part].argmax(1), references=targets[part])
    assert by_class.compute()["balanced_accuracy"] == pytest.approx(values["balanced_accuracy"])

    positives = np.random.default_rng(8).random(scores.shape) < 0.4
    tagging = load_metric("mean_average_precision", **metric_options)
    values = tagging.compute(predictions=scores, references=positives.astype(int))
    assert values["mAP"] == pytest.approx(reference.average_precision_score(positives, scores))

    vectors = np.random.default_rng(9).standard_normal((11, 5))
    ranks = relevant_ranks(vectors, vectors[::-1], [[i, (i + 3) % 11] for i in range(11)]).ranks
    retrieval = load_metric("retrieval", **metric_options)
    assert retrieval.compute(predictions=ranks, ks=(1, 2)) == retrieval_metrics(ranks, ks=(1, 2))


def test_an_unknown_metric_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'accuracy', 'caption_scores', 'mean_average_precision', 'retrieval'"):
        load_metric("bleu")


def test_functions_import_without_evaluate_and_load_metric_names_the_package(monkeypatch):
    code = (
        "import sys\n"
        "sys.modules['evaluate'] = sys.modules['datasets'] = None\n"
        "import numpy as np\n"
        "from hf_audiolang.evaluation import metrics\n"
        "print(metrics.accuracy(np.array([1]), np.array([1])))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "1.0"
    monkeypatch.setitem(sys.modules, "evaluate", None)
    monkeypatch.delitem(sys.modules, metrics.__name__ + ".modules", raising=False)
    with pytest.raises(MissingResourceError, match=r"needs the package 'evaluate'.*pip install evaluate"):
        load_metric("accuracy")

"""Zero-shot accuracy, prompts and ensembles on a model whose right answers are known by construction."""

import numpy as np
import pytest
from evaluation_fakes import TableModel, TableProcessor, record, unit

from hf_audiolang.evaluation import zero_shot

LABELS = ["class_0", "class_1", "class_2", "class_3", "class_4", "class_5", "class_6"]


def test_accuracy_is_exactly_the_share_of_clips_at_their_class():
    table = np.eye(7, dtype=np.float32)
    audio = table[[0, 1, 2, 3, 4, 5, 5, 0, 0, 0]]  # clip 6 resembles class 5, clips 7 to 9 class 0
    records = [record(row, labels=(f"class_{min(row, 6)}",)) for row in range(10)]
    result = zero_shot.evaluate(TableModel(audio, table), TableProcessor(), records, LABELS)
    assert result["zero_shot/accuracy"] == pytest.approx(0.6)
    assert result["zero_shot/balanced_accuracy"] == pytest.approx(6 / 7)
    assert result.chance["zero_shot/accuracy"] == pytest.approx(1 / 7)
    assert result.chance["zero_shot/top5_accuracy"] == pytest.approx(5 / 7)
    assert result["zero_shot/top5_accuracy"] == pytest.approx(0.6)  # class 6 is last of the equal scores
    assert result.record["templates"] == ["{label} can be heard"]
    assert result.record["num_clips"] == 10


def test_prompts_of_labels_and_named_sets():
    assert zero_shot.class_prompts("car_horn") == ["car horn can be heard"]
    assert zero_shot.class_prompts("beep", "a {}", lambda label: "electronic " + label) == ["a electronic beep"]
    seven = zero_shot.class_prompts("dog_bark", "default7")
    assert seven[:3] == ["dog bark", "dog bark can be heard", "the sound of dog bark"]
    assert len(set(seven)) == 7


def test_an_ensemble_is_the_normalised_mean_and_one_template_is_exactly_itself():
    text = unit(20, 6, seed=0)
    model, processor = TableModel(text, text), TableProcessor()
    single = zero_shot.embed_classes(model, processor, ["3", "8"], ["sound {label}"])
    ensemble = zero_shot.embed_classes(model, processor, ["3", "8"], ["sound {label}", "{label} and 5"])
    mean = text[[3, 8]] + text[5]
    np.testing.assert_allclose(ensemble, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    same = zero_shot.embed_classes(model, processor, ["3", "8"], ["sound {label}", "a sound {label}"])
    np.testing.assert_allclose(same, single, atol=1e-6)
    np.testing.assert_allclose(single, text[[3, 8]], atol=1e-6)


def test_labels_and_templates_that_cannot_be_used_are_refused():
    model, processor = TableModel(np.eye(3), np.eye(3)), TableProcessor()
    with pytest.raises(ValueError, match=r"'a sound', which has no place.*sets \['default7'\]"):
        zero_shot.evaluate(model, processor, [record(0, labels=("class_0",))], LABELS[:3], ["a sound"])
    with pytest.raises(ValueError, match="`templates` is empty"):
        zero_shot.resolve_templates([])
    for labels in ((), ("class_0", "class_1"), ("dog",)):
        with pytest.raises(ValueError, match=r"'clip 0' must have exactly one of the 3 classes as label, got \["):
            zero_shot.evaluate(model, processor, [record(0, labels=labels)], LABELS[:3])

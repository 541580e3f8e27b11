import numpy as np
import pytest

from hf_audiolang.data.labels import load_labelled
from hf_audiolang.data.sound_scenes import SoundScenes

SIZES = {"train_size": 70, "validation_size": 10, "test_size": 40, "duration": (1.0, 2.0), "num_workers": 0}


def test_single_events_have_one_label_and_the_test_clips_are_those_of_every_evaluation():
    data = load_labelled("sound_scenes", **SIZES)
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 70, "validation": 10, "test": 40}
    scenes = SoundScenes("zero_shot", 40, duration=(1.0, 2.0), n_events=(1, 3))
    assert data.classes == list(scenes.labels)
    assert data.is_multi_label is False
    for index in (0, 7, 39):
        row = scenes[index]
        record = data.test[index]
        assert record.id == row["id"]
        assert record.labels == tuple(row["labels"])
        np.testing.assert_allclose(record.audio / 32767, row["audio"]["array"], atol=1e-4)  # kept as int16
    ids = [set(part.ids) for part in data.parts.values()]
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]
    assert not np.array_equal(data.train[0].audio, data.test[0].audio)  # control: another seed
    assert data.notes == []
    assert data.test.name == "sound_scenes zero_shot, 40 clips, seed 0"


@pytest.mark.parametrize("task", ["tagging", "frames"])
def test_mixtures_have_labels_and_events(task):
    data = load_labelled("sound_scenes", task=task, n_events=(1, 3), **{**SIZES, "duration": (3.0, 4.0)})
    assert data.is_multi_label is True
    assert max(len(labels) for labels in data.train.labels) > 1
    for record in data.test:
        assert set(record.labels) == {event["label"] for event in record.events}
        assert len(set(record.labels)) == len(record.labels)
        assert all(0 <= event["onset"] < event["offset"] <= record.duration for event in record.events)
    assert data.train.ids[0].startswith("scenes-v1-train-1-")
    assert data.validation.ids[0].startswith("scenes-v1-validation-2-")
    assert data.test.ids[0].startswith("scenes-v1-test-0-")


def test_few_clips_are_allowed_and_what_they_lack_is_noted():
    data = load_labelled(
        "sound_scenes", train_size=4, validation_size=0, test_size=0, duration=1.0, num_workers=0, seed=5
    )
    assert data.validation is None
    assert data.test is None
    assert len(data.classes) == 32
    assert data.notes[0].startswith("28 of 32 classes have no train clip and cannot be learnt")
    assert data.train.ids[0].startswith("scenes-v1-zero_shot-6-")


def test_chosen_classes_keep_their_order():
    names = ("siren", "bell", "clapping")
    data = load_labelled("sound_scenes", classes=names, **SIZES)
    assert data.classes == list(names)
    assert {label for labels in data.train.labels for (label,) in [labels]} == set(names)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "retrieval"}, ValueError, r"Unknown `task` 'retrieval'\. Choose one of \['classification'"),
        ({"sizes": 3}, TypeError, r"has no option \['sizes'\]\. Its options are \['train_size'"),
        ({"fold": 1}, ValueError, r"'sound_scenes' has no \['fold'\], got.*Leave them out"),
        ({"label_column": "x"}, ValueError, r"'sound_scenes' has no \['label'\]"),
        ({"train_size": 0, "validation_size": 0, "test_size": 0}, ValueError, "sizes of all parts are 0"),
    ],
)
def test_what_scenes_do_not_have_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        load_labelled("sound_scenes", **options)

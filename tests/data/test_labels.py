import pickle

import pytest
from labels_helpers import all_clips, write_sounds, write_table

from hf_audiolang.data.labels import load_labelled


@pytest.fixture
def sounds(tmp_path):
    return write_sounds(tmp_path / "sounds", [f"{label}/{n}.wav" for label in ("dog", "cat") for n in range(15)])


def test_parts_are_the_same_in_every_call_and_do_not_overlap(sounds):
    data, again = load_labelled(sounds), load_labelled(str(sounds))
    assert len(all_clips(data)) == 30
    assert all_clips(data) == all_clips(again)
    assert all_clips(load_labelled(sounds, seed=3)) != all_clips(data)


def test_new_files_move_none(sounds):
    before = all_clips(load_labelled(sounds))
    write_sounds(sounds, [f"dog/new{n}.wav" for n in range(9)])
    after = all_clips(load_labelled(sounds))
    assert len(after) == 39
    moved = [name for name in before if before[name] != after[name]]
    assert len(moved) <= 2  # a class that had no clip below the border gave its nearest one to a part


def test_labelled_clips_pickle_and_are_a_sequence(sounds):
    train = load_labelled(sounds).train
    copy = pickle.loads(pickle.dumps(train))
    assert [record.id for record in copy] == train.ids
    assert (copy.labels, copy.name, copy[0].duration) == (train.labels, train.name, train[0].duration)
    assert train[-1].id == train.ids[-1]
    assert train[-1].labels == train.labels[-1]
    with pytest.raises(IndexError):
        train[len(train)]


def test_the_task_decides_whether_clips_may_have_several_labels(sounds):
    assert load_labelled(sounds).is_multi_label is False
    assert load_labelled(sounds, task="classification").is_multi_label is False
    assert load_labelled(sounds, task="tagging").is_multi_label is True


def test_commas_between_labels_are_noticed(tmp_path):
    names = [f"{n}.wav" for n in range(12)]
    labels = ["dog", "siren", '"dog, siren"', '"rain, heavy"'] * 3
    rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    data = load_labelled(write_table(write_sounds(tmp_path / "tags", names), "file_name,label", *rows), task="tagging")
    assert [note for note in data.notes if "comma" in note] == [
        "1 labels hold a comma and others of the classes, and count as one class each: ['dog, siren']. Several labels "
        "of a clip are written with `;` between them."
    ]


def test_one_class_is_enough_for_tags_but_no_label_is_not(tmp_path):
    names = [f"{n}.wav" for n in range(6)]
    folder = write_table(write_sounds(tmp_path / "tags", names), "file_name,label", *(f"{name},dog" for name in names))
    with pytest.raises(
        ValueError, match=r"The train part of .* has 1 classes, got \['dog'\]\. Give clips of 2 or more"
    ):
        load_labelled(folder)
    assert load_labelled(folder, task="tagging").classes == ["dog"]
    write_table(folder, "file_name,label", *(f"{name}," for name in names))
    with pytest.raises(ValueError, match=r"has 0 classes, got \[\]\. Give clips of 1 or more"):
        load_labelled(folder, task="tagging")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"task": "retrieval"},
            ValueError,
            r"Unknown `task` 'retrieval'\. Choose one of \['classification', 'tagging'",
        ),
        ({"on_bad_example": "ignore"}, ValueError, r"Unknown `on_bad_example` 'ignore'\. Choose one of"),
        ({"train_size": 3}, TypeError, r"has no option \['train_size'\], only 'sound_scenes' has"),
        ({"fold": 1}, ValueError, r"`fold` is 1, but .* has no folds"),
        ({"task": "frames"}, ValueError, r"has no strong labels\. Give the columns `onset`, `offset`"),
    ],
)
def test_options_that_do_not_fit_are_refused(sounds, options, error, message):
    with pytest.raises(error, match=message):
        load_labelled(sounds, **options)

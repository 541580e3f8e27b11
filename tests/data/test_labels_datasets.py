import pytest
from labels_helpers import all_clips, write_sounds

from hf_audiolang.data.captions_datasets import TableRecords
from hf_audiolang.data.labels import load_labelled

datasets = pytest.importorskip("datasets")
NAMES = ["rain", "dog", "cat"]  # not in alphabetical order


@pytest.fixture
def files(tmp_path):
    names = [f"s{n}.wav" for n in range(12)]
    write_sounds(tmp_path / "files", names)
    return [str(tmp_path / "files" / name) for name in names]


def _table(files, labels, feature, **columns):
    table = datasets.Dataset.from_dict({"audio": files, "label": labels, **columns})
    return table.cast_column("audio", datasets.Audio(decode=False)).cast_column("label", feature)


def test_class_numbers_become_names_in_the_order_of_the_feature(files, tmp_path):
    feature = datasets.ClassLabel(names=NAMES)
    tables = {
        "train": _table(files[:6], [0, 1, 2] * 2, feature),
        "validation": _table(files[6:9], [1, 1, 0], feature),
        "test": _table(files[9:], [2, 0, 0], feature),
    }
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    data = load_labelled(tmp_path / "saved")
    assert data.classes == NAMES
    assert data.test.labels == [("cat",), ("rain",), ("rain",)]
    assert [record.labels for record in data.test] == data.test.labels
    assert all(name.startswith("test/") for name in data.test.ids)
    assert len(all_clips(data)) == 12
    assert data.train[0].audio is not None
    assert data.notes == [
        "1 of 3 classes have no test clip and cannot be tested. Metrics leave them out and count them: ['dog']."
    ]


def test_labels_are_known_without_reading_a_sound(files, tmp_path, monkeypatch):
    _table(files, [0, 1, 2] * 4, datasets.ClassLabel(names=NAMES)).save_to_disk(tmp_path / "saved")
    data = load_labelled(tmp_path / "saved")
    monkeypatch.setattr(TableRecords, "__getitem__", lambda self, index: pytest.fail("read a sound"))
    assert len(data.train.ids) == len(data.train.labels) == len(data.train)


def test_a_list_of_class_numbers_is_several_labels(files, tmp_path):
    feature = datasets.List(datasets.ClassLabel(names=NAMES))
    _table(files, [[0, 2], [1], [], [2, 2]] * 3, feature).save_to_disk(tmp_path / "saved")
    data = load_labelled(tmp_path / "saved")
    labels = {labels for _, labels in all_clips(data).values()}
    assert labels == {("rain", "cat"), ("dog",), (), ("cat",)}
    assert data.is_multi_label is True


def test_texts_and_plain_numbers_are_names_by_themselves(files, tmp_path):
    _table(files, ["dog; or wolf", "cat"] * 6, datasets.Value("string")).save_to_disk(tmp_path / "texts")
    assert load_labelled(tmp_path / "texts").classes == ["cat", "dog; or wolf"]
    _table(files, [9, 10] * 6, datasets.Value("int64")).save_to_disk(tmp_path / "numbers")
    assert load_labelled(tmp_path / "numbers").classes == ["9", "10"]


def test_a_hidden_label_is_a_bad_row(files, tmp_path):
    table = _table(files, [0, 1, -1] * 4, datasets.ClassLabel(names=NAMES))
    table.save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"4 of 12 examples cannot be used(.|\n)*row 2 .* has no label"):
        load_labelled(tmp_path / "saved")


def test_numbers_that_are_no_classes_are_refused(files, tmp_path):
    _table(files, [0.5] * 12, datasets.Value("float32")).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"row 0 has 0\.5 in column 'label', which is no label\. Pass `label_column`"):
        load_labelled(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"columns \['audio', 'label'\]"):
        load_labelled(tmp_path / "saved", label_column="target")


def test_other_splits_are_left_out_and_a_table_without_splits_has_folds(files, tmp_path):
    feature = datasets.ClassLabel(names=NAMES)
    tables = {"train": _table(files[:9], [0, 1, 2] * 3, feature), "extra": _table(files[9:], [0, 1, 2], feature)}
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "saved")
    data = load_labelled(tmp_path / "saved")
    assert data.notes[0].endswith("that are left out: ['extra'].")
    assert len(all_clips(data)) == 9
    table = _table(files, [0, 1, 2] * 4, feature, fold=[1, 1, 1, 2, 2, 2] * 2)
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "folds")
    folds = load_labelled(tmp_path / "folds", fold=2)
    assert len(folds.test) == 6
    assert folds.folds == (1, 2)
    datasets.DatasetDict({"val": table, "dev": table}).save_to_disk(tmp_path / "twice")
    with pytest.raises(ValueError, match=r"has the splits \['val', 'dev'\]\. Call them train, validation and test"):
        load_labelled(tmp_path / "twice")


def test_events_of_a_table_are_strong_labels(files, tmp_path):
    events = [[{"label": "dog", "onset": 0.0, "offset": 0.05}], [], [{"label": "cat", "onset": 0.02, "offset": 0.09}]]
    table = datasets.Dataset.from_dict({"audio": files, "events": events * 4})
    table.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(tmp_path / "saved")
    data = load_labelled(tmp_path / "saved", task="frames")
    assert data.classes == ["cat", "dog"]
    heard = [record for record in data.train if record.labels == ("cat",)]
    assert heard[0].events[0]["offset"] == 0.09


def test_a_hub_data_set_is_asked_for_all_splits_by_its_id(files, monkeypatch):
    table = _table(files, [0, 1, 2] * 4, datasets.ClassLabel(names=NAMES))
    asked = []

    def load(name, split=None):
        asked.append((name, split))
        return datasets.DatasetDict({"train": table})

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = load_labelled("someone/sounds")
    assert asked == [("someone/sounds", None)]
    assert data.name == "someone/sounds"
    assert len(all_clips(data)) == 12


def test_a_name_on_neither_disk_nor_hub_says_both(monkeypatch):
    def refuse(name, split=None):
        raise FileNotFoundError("not there")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"`someone/sounds` is no folder here.*cannot be loaded: not there"):
        load_labelled("someone/sounds")
    with pytest.raises(FileNotFoundError, match="There is no folder `sounds`"):
        load_labelled("sounds")

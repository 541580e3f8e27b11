import pytest
from labels_helpers import all_clips, labels_by_id, write_sounds

from hf_audiolang.data.labels import load_labelled


def test_the_sub_folder_is_the_label_at_any_depth_and_hidden_files_do_not_count(tmp_path):
    names = [f"{label}/{place}{n}.wav" for label in ("rain", "dog") for n in range(6) for place in ("", "old/2020/")]
    write_sounds(tmp_path, names)
    (tmp_path / "dog" / "._1.wav").write_bytes(b"not a sound")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.wav").write_bytes(b"not a sound")
    (tmp_path / ".cache" / "metadata.csv").write_text("file_name,label\nx.wav,dog\n")
    (tmp_path / "dog" / "notes.txt").write_text("no sound")
    (tmp_path / "papers").mkdir()
    data = load_labelled(tmp_path)
    clips = all_clips(data)
    assert {name: labels for name, (_, labels) in clips.items()} == {name: (name.split("/")[0],) for name in names}
    assert data.train.skipped == []
    assert data.classes == ["dog", "rain"]
    assert data.is_multi_label is False
    assert data.name == str(tmp_path)
    assert set(data.parts) == {"train", "validation", "test"}
    assert data.train[0].duration == pytest.approx(0.1)
    assert data.train.labels == [record.labels for record in data.train]
    assert data.train.ids == [record.id for record in data.train]
    assert data.train.name == f"{tmp_path}, train"


def test_split_folders_are_splits_by_any_of_their_names(tmp_path):
    write_sounds(tmp_path, ["train/dog/a.wav", "train/cat/b.wav", "Val/dog/c.wav", "test/cat/d.wav", "test/dog/e.wav"])
    write_sounds(tmp_path, [".cache/x.wav", "test/.trash/y.wav"])
    data = load_labelled(tmp_path)
    assert labels_by_id(data.train) == {"train/dog/a.wav": ("dog",), "train/cat/b.wav": ("cat",)}
    assert labels_by_id(data.validation) == {"Val/dog/c.wav": ("dog",)}
    assert labels_by_id(data.test) == {"test/dog/e.wav": ("dog",), "test/cat/d.wav": ("cat",)}
    assert data.notes == []


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "eval"])
def test_validation_has_five_names(tmp_path, name):
    write_sounds(tmp_path, ["train/dog/a.wav", "train/cat/b.wav", f"{name}/dog/c.wav", "test/cat/d.wav"])
    assert load_labelled(tmp_path).validation.ids == [f"{name}/dog/c.wav"]


def test_a_linked_class_folder_is_followed(tmp_path):
    write_sounds(tmp_path, ["elsewhere/a.wav", "sounds/cat/b.wav", "elsewhere/c.wav"])
    (tmp_path / "sounds" / "dog").symlink_to(tmp_path / "elsewhere")
    assert set(all_clips(load_labelled(tmp_path / "sounds"))) == {"cat/b.wav", "dog/a.wav", "dog/c.wav"}


def test_splits_with_other_labels_are_refused_or_noted(tmp_path):
    write_sounds(tmp_path, ["train/dog/a.wav", "train/cat/b.wav", "train/rain/c.wav", "test/cat/d.wav"])
    data = load_labelled(tmp_path)
    assert data.classes == ["cat", "dog", "rain"]  # of the training clips, whatever the test clips have
    assert data.notes[-1].startswith("2 of 3 classes have no test clip and cannot be tested")
    assert data.notes[-1].endswith("['dog', 'rain'].")
    write_sounds(tmp_path, ["test/frog/e.wav", "test/frog/f.wav"])
    with pytest.raises(
        ValueError,
        match=r"1 labels of the test clips are not among the training clips of .*: \['frog'\] \(in 2 clips, first "
        r"`test/frog/e.wav`\)\. Correct the spelling, add them there, or leave",
    ):
        load_labelled(tmp_path)


def test_classes_txt_gives_the_order_and_refuses_other_labels(tmp_path):
    write_sounds(tmp_path, [f"{label}/{n}.wav" for label in ("dog", "cat") for n in range(4)])
    (tmp_path / "classes.txt").write_text("rain\ndog\n\ncat\n")
    data = load_labelled(tmp_path)
    assert data.classes == ["rain", "dog", "cat"]
    assert data.notes[2] == (
        "1 of 3 classes have no train clip and cannot be learnt. They keep their places, so that label ids do not "
        "move: ['rain']."
    )
    (tmp_path / "classes.txt").write_text("dog\nfrog\n")
    with pytest.raises(ValueError, match=r"labels of the train clips are not among the 2 classes of .*\['cat'\]"):
        load_labelled(tmp_path)
    (tmp_path / "classes.txt").write_text("dog\ncat\ndog\n")
    with pytest.raises(ValueError, match=r"names \['dog'\] more than once"):
        load_labelled(tmp_path)


def test_numbers_are_in_order_of_their_value(tmp_path):
    write_sounds(tmp_path, [f"{label}/{n}.wav" for label in ("10", "9", "100") for n in range(3)])
    assert load_labelled(tmp_path).classes == ["9", "10", "100"]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], FileNotFoundError, "has no sub-folder with sound files. Give a folder per class"),
        (["dog/a.wav", "dog/b.wav"], ValueError, r"has 1 classes, got \['dog'\]\. Give clips of 2 or more"),
        (["train/dog/a.wav", "cat/b.wav"], ValueError, r"has the splits \['train'\] beside the folders \['cat'\]"),
        (
            ["train/dog/a.wav", "val/dog/b.wav", "dev/dog/b.wav"],
            ValueError,
            r"has `dev` and `val`, which are one split\. Join them",
        ),
        (["a.wav", "b.wav"], ValueError, "lies in no sub-folder, so its class is not known"),
    ],
)
def test_folders_that_give_no_classes_are_refused(tmp_path, names, error, message):
    write_sounds(tmp_path, names)
    with pytest.raises(error, match=message):
        load_labelled(tmp_path, on_bad_example="error")


def test_unreadable_sounds_are_skipped_and_counted_up_to_a_limit(tmp_path):
    write_sounds(tmp_path, [f"{label}/{n:02}.wav" for label in ("dog", "cat") for n in range(15)])
    (tmp_path / "dog" / "00.wav").write_bytes(b"no sound at all")
    data = load_labelled(tmp_path)
    assert "dog/00.wav" not in all_clips(data)
    assert len(all_clips(data)) == 29
    assert len(data.train.skipped) == 1
    assert data.train.skipped[0].startswith("`dog/00.wav`: ")
    assert "not a readable sound file" in data.train.skipped[0]
    with pytest.raises(ValueError, match="not a readable sound file"):
        load_labelled(tmp_path, on_bad_example="error")
    (tmp_path / "dog" / "01.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="2 of 30 examples cannot be used, more than 5%"):
        load_labelled(tmp_path)

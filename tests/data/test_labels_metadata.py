import json
import os

import pytest
from labels_helpers import all_clips, write_sounds, write_table

from hf_audiolang.data.labels import load_labelled
from hf_audiolang.data.labels_columns import cell_labels

NAMES = [f"s{n}.wav" for n in range(8)]


@pytest.fixture
def sounds(tmp_path):
    return write_sounds(tmp_path / "sounds", NAMES)


def _rows(values, names=NAMES):
    return [f"{name},{value}" for name, value in zip(names, values, strict=True)]


def test_a_csv_gives_labels_splits_and_the_order_of_names(sounds):
    splits = ["train", "TRAIN", "train", "val", "dev", "test", "test", "train"]
    rows = [f"{name},{'dog' if n % 2 else 'cat'},{splits[n]}" for n, name in enumerate(NAMES)]
    data = load_labelled(write_table(sounds, "file_name,label,split", *rows))
    clips = all_clips(data)
    assert {name: part for name, (part, _) in clips.items()} == {
        **dict.fromkeys(("s0.wav", "s1.wav", "s2.wav", "s7.wav"), "train"),
        **dict.fromkeys(("s3.wav", "s4.wav"), "validation"),
        **dict.fromkeys(("s5.wav", "s6.wav"), "test"),
    }
    assert clips["s5.wav"][1] == ("dog",)
    assert data.classes == ["cat", "dog"]
    assert data.notes == []
    assert data.name == os.path.realpath(sounds)
    assert data.train[0].audio == str(sounds / "s0.wav")
    assert data.train[0].duration == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("dog", ("dog",)),
        (" dog ; cat;dog;", ("dog", "cat")),
        ('["dog", "Bark, howl"]', ("dog", "Bark, howl")),
        ("[]", ()),
        ("[unclear]", ("[unclear]",)),
        ("Bark, howl", ("Bark, howl",)),
        (["dog", None, "cat"], ("dog", "cat")),
        (3, ("3",)),
        (None, ()),
        ("", ()),
    ],
)
def test_labels_of_a_cell(cell, expected):
    assert cell_labels(cell) == expected


def test_several_labels_and_several_rows_of_a_file_are_joined(sounds):
    rows = ["s0.wav,dog;cat", "s1.wav,dog", "./s1.wav,rain", *_rows(["cat", "dog", "rain"] * 2, NAMES[2:])]
    data = load_labelled(write_table(sounds, "file_name,labels", *rows))
    clips = all_clips(data)
    assert clips["s0.wav"][1] == ("dog", "cat")
    assert clips["s1.wav"][1] == ("dog", "rain")
    assert len(clips) == 8
    assert data.is_multi_label is True
    with pytest.raises(
        ValueError,
        match=r"`task` is 'classification', but 2 of 8 clips of .* have several labels, first metadata\.csv line 2 "
        r"\(`s0\.wav`\): \['dog', 'cat'\]\. Leave one, or choose 'tagging'",
    ):
        load_labelled(sounds, task="classification")


def test_a_clip_without_label_is_a_bad_row_or_a_clip_in_which_no_class_is_heard(sounds):
    write_sounds(sounds, [f"more{n}.wav" for n in range(12)])
    names = [*NAMES, *(f"more{n}.wav" for n in range(12))]
    write_table(sounds, "file_name,label", *_rows(["", *(["dog", "cat"] * 10)[1:]], names))
    data = load_labelled(sounds)
    assert data.train.skipped == ["metadata.csv line 2 (`s0.wav`) has no label. Write one, or remove the row."]
    assert len(all_clips(data)) == 19
    assert data.is_multi_label is False
    tagging = load_labelled(sounds, task="tagging")
    assert all_clips(tagging)["s0.wav"][1] == ()
    assert tagging.is_multi_label is True


def test_columns_of_0_and_1_are_classes_in_their_order(sounds):
    rows = [f"{name},{int(n % 2 == 0)},{int(n % 3 == 0)},0,train" for n, name in enumerate(NAMES)]
    data = load_labelled(write_table(sounds, "file_name,rain,dog,frog,split", *rows))
    clips = all_clips(data)
    assert clips["s0.wav"][1] == ("rain", "dog")
    assert clips["s2.wav"][1] == ("rain",)
    assert clips["s5.wav"][1] == ()
    assert data.classes == ["rain", "dog", "frog"]
    assert data.is_multi_label is True
    assert any("no train clip and cannot be learnt" in note and "['frog']" in note for note in data.notes)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file_name,dog,cat", "s0.wav,1,0", "s1.wav,1"], r"metadata\.csv line 3 has 2 cells but the header has 3"),
        (["file_name,dog,cat", "s0.wav,1,0,1"], r"metadata\.csv line 2 has 4 cells but the header has 3"),
        (
            ["file_name,dog,cat", "s0.wav,1,0", "s1.wav,2,0"],
            r"metadata\.csv line 3 \(`s1\.wav`\) has '2' in column 'dog'.* other 2 columns are classes with 0 or 1",
        ),
        (["file_name", "s0.wav"], r"columns \['file_name'\], none of which holds labels\. Add `label`"),
        (["label,split", "dog,train"], r"none of which is one of \['file_name', 'filename', 'audio'\]"),
        (["file_name,label", "../x.wav,dog"], r"line 2 \(`\.\./x\.wav`\) leaves"),
        (["file_name,label", "/x.wav,dog"], r"leaves .*Write the path relative to it"),
        (["file_name,label,split", "s0.wav,dog,later"], r"has the split 'later'\. Write one of \['train'"),
        (["file_name,label,fold", "s0.wav,dog,a"], r"has the fold 'a'\. Write its number"),
        (
            ["file_name,label,split", "s0.wav,dog,train", "s0.wav,dog,test"],
            r"line 3 \(`s0\.wav`\) and metadata\.csv line 2 \(`s0\.wav`\) are the same file but differ in split",
        ),
        (["file_name,label"], "has 0 rows. Write one row per sound"),
        (
            ["file_name,label,split", "s0.wav,dog,train", "s1.wav,cat,train", "s2.wav,frog,test"],
            r"1 labels of the test clips are not among the training clips of .*\['frog'\] \(in 1 clips, first "
            r"metadata\.csv line 4",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_their_line(sounds, lines, message):
    write_table(sounds, *lines)
    with pytest.raises(ValueError, match=message):
        load_labelled(sounds)


def test_a_table_of_any_name_a_tsv_and_named_columns(sounds):
    rows = [f"{name}\t{'dog' if n % 2 else 'cat'}\tx" for n, name in enumerate(NAMES)]
    write_table(sounds, "path\tspecies\tlabel", *rows, name="animals.tsv")
    data = load_labelled(sounds / "animals.tsv", audio_column="path", label_column="species")
    assert data.classes == ["cat", "dog"]
    assert data.name == str(sounds / "animals.tsv")
    assert len(all_clips(data)) == 8
    with pytest.raises(ValueError, match=r"`label_column` 'kind' is missing: .* has the columns \['path', 'species'"):
        load_labelled(sounds / "animals.tsv", audio_column="path", label_column="kind")
    with pytest.raises(ValueError, match=r"is no table\. Give a folder, or a file that ends in"):
        load_labelled(sounds / "s0.wav")


def test_a_table_per_split_folder(tmp_path):
    write_sounds(tmp_path, [f"{split}/{n}.wav" for split in ("train", "test") for n in range(4)])
    for split in ("train", "test"):
        write_table(tmp_path / split, "file_name,label", "0.wav,dog", "1.wav,cat", "2.wav,dog")
    data = load_labelled(tmp_path)
    assert set(all_clips(data)) == {f"{split}/{n}.wav" for split in ("train", "test") for n in range(3)}
    assert data.test.ids == ["test/0.wav", "test/1.wav", "test/2.wav"]


def test_folds_are_read_and_a_fold_out_of_range_is_refused(sounds):
    rows = [f"{name},{'dog' if n % 2 else 'cat'},{1 + n // 4}" for n, name in enumerate(NAMES)]
    write_table(sounds, "file_name,label,fold", *rows)
    data = load_labelled(sounds, fold=2)
    assert data.test.ids == NAMES[4:]
    assert (data.folds, data.fold) == ((1, 2), 2)
    with pytest.raises(ValueError, match=r"`fold` is 0, but .* has the folds \[1, 2\]\. Choose one of them"):
        load_labelled(sounds, fold=0)


def test_strong_labels_become_events_and_clips_without_events_stay(sounds):
    rows = ["s0.wav\t0.01\t0.05\tdog", "s0.wav\t0.02\t0.09\train", "s0.wav\t0.06\t0.08\tdog", "s1.wav\t0\t0.1\train"]
    write_table(sounds, "filename\tonset\toffset\tevent_label", *rows, "s2.wav\t\t\t", name="metadata.tsv")
    data = load_labelled(sounds, task="frames")
    records = {record.id: record for part in data.parts.values() for record in part}
    assert records["s0.wav"].events == (
        {"label": "dog", "onset": 0.01, "offset": 0.05},
        {"label": "rain", "onset": 0.02, "offset": 0.09},
        {"label": "dog", "onset": 0.06, "offset": 0.08},
    )
    assert records["s0.wav"].labels == ("dog", "rain")
    assert (records["s2.wav"].labels, records["s2.wav"].events) == ((), ())
    assert data.is_multi_label is True
    assert data.classes == ["dog", "rain"]


@pytest.mark.parametrize("row", ["0.5\t0.5\tdog", "-1\t2\tdog", "0\t\tdog", "0\t1\t", "nan\t1\tdog", "a\tb\tdog"])
def test_times_that_are_no_event_are_refused(sounds, row):
    write_table(sounds, "filename\tonset\toffset\tevent_label", f"s0.wav\t{row}", name="metadata.tsv")
    with pytest.raises(ValueError, match=r"metadata\.tsv line 2 \(`s0\.wav`\) is no event.*0 <= onset < offset"):
        load_labelled(sounds)


def test_a_jsonl_with_events_is_read_and_weak_labels_are_refused_for_frames(sounds):
    events = [{"label": "dog", "onset": 0.0, "offset": 0.04, "level_db": -20}]
    rows = [
        json.dumps({"file_name": name, "events": events if n else [], "split": "train"})
        for n, name in enumerate(NAMES)
    ]
    data = load_labelled(write_table(sounds, *rows, name="metadata.jsonl"), task="frames")
    clips = {record.id: record for part in data.parts.values() for record in part}
    assert clips["s1.wav"].events == tuple(events)
    assert clips["s1.wav"].labels == ("dog",)
    assert clips["s0.wav"].events == ()
    (sounds / "metadata.jsonl").unlink()
    write_table(sounds, "file_name,label", *_rows(["dog", "cat"] * 4))
    with pytest.raises(
        ValueError, match=r"`task` is 'frames', but .* has no strong labels\. Give the columns `onset`"
    ):
        load_labelled(sounds, task="frames")


def test_two_tables_are_refused_and_missing_files_counted(sounds):
    write_table(sounds, "file_name,label", *_rows(["dog", "cat"] * 4), "gone.wav,dog")
    with pytest.raises(ValueError, match=r"1 of 9 examples cannot be used(.|\n)*`gone\.wav`\): .*does not exist"):
        load_labelled(sounds)
    write_table(sounds, "{}", name="metadata.jsonl")
    with pytest.raises(ValueError, match=r"has \['metadata\.csv', 'metadata\.jsonl'\]\. Keep one"):
        load_labelled(sounds)

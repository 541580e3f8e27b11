import json
import os
import pickle

import numpy as np
import pytest
from data_helpers import RATE, tone, write_sound

from hf_audiolang.data import captions as captions_module
from hf_audiolang.data.audio_io import record_waveform
from hf_audiolang.data.captions import load_captions, split_held_out
from hf_audiolang.data.captions_datasets import TableRecords
from hf_audiolang.data.records import Record, RecordSubset, TooManyBadExamples, dataset_captions

datasets = pytest.importorskip("datasets")


@pytest.fixture
def folder(tmp_path):
    """Thirty sounds, s00.wav ... s29.wav, of 0.1 s and a bit; the rows are for each test to write."""
    folder = tmp_path / "sounds"
    for number in range(30):
        write_sound(folder / f"s{number:02}.wav", tone(0.1 + number / 100, frequency=200 + number))
    return folder


def _names(count=30):
    return [f"s{number:02}.wav" for number in range(count)]


def _write_csv(folder, *lines, header="file_name,caption"):
    folder.mkdir(exist_ok=True)
    (folder / "metadata.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


def _write_jsonl(folder, *rows):
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return folder


def test_a_csv_folder_gives_records_with_durations(folder):
    _write_csv(folder, *(f'{name},"sound {name}, once"' for name in _names()))
    dataset = load_captions(folder)
    assert len(dataset) == 30
    assert dataset[7] == Record(
        id="s07.wav",
        audio=str((folder / "s07.wav").resolve()),
        duration=pytest.approx(0.17),
        captions=("sound s07.wav, once",),
    )
    assert dataset.skipped == []
    np.testing.assert_allclose(record_waveform(dataset[7], RATE), tone(0.17, frequency=207), atol=1e-4)


def test_rows_of_one_file_become_one_record_with_several_captions(folder):
    (folder / "link.wav").symlink_to("s01.wav")
    _write_csv(folder, "s01.wav,one", "s00.wav,zero", "./s01.wav,uno", "s01.wav,one", "link.wav,eins")
    dataset = load_captions(folder)
    assert [record.id for record in dataset] == ["s01.wav", "s00.wav"]
    assert dataset[0].captions == ("one", "uno", "eins")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"captions": ["a dog", " a cat "]}, ("a dog", "a cat")),
        ({"captions": '["a dog", "a cat"]'}, ("a dog", "a cat")),
        ({"caption": "[music] plays"}, ("[music] plays",)),
        ({"caption": "a dog", "text": "transcript"}, ("a dog",)),
        ({"text": "a dog"}, ("a dog",)),
        ({"caption_2": "a cat", "caption_1": "a dog", "caption_3": ""}, ("a dog", "a cat")),
    ],
)
def test_caption_columns_are_recognised(folder, row, expected):
    dataset = load_captions(_write_jsonl(folder, {"file_name": "s03.wav", **row}))
    assert dataset[0].captions == expected


def test_columns_can_be_named(folder):
    _write_jsonl(folder, {"path": "s03.wav", "words": "a dog", "caption": "wrong"})
    assert load_captions(folder, audio_column="path", caption_column="words")[0].captions == ("a dog",)


def test_jsonl_rows_keep_labels_and_phrases(folder):
    phrases = [{"phrase": "a dog", "segments": [[0.0, 0.1]]}]
    _write_jsonl(folder, {"file_name": "s03.wav", "caption": "a dog", "labels": ["dog"], "phrases": phrases})
    record = load_captions(folder)[0]
    assert (record.labels, record.phrases) == (("dog",), tuple(phrases))


def test_a_folder_per_split_is_understood(folder):
    for split, name in (("train", "s00.wav"), ("test", "s01.wav")):
        _write_csv(folder / split, f"{name},a sound")
        (folder / name).rename(folder / split / name)
    assert load_captions(folder, "test")[0].id == "s01.wav"
    with pytest.raises(FileNotFoundError, match=r"no metadata\.csv"):
        load_captions(folder, "validation")


def test_bad_rows_are_skipped_and_listed(folder):
    for number in range(30, 60):
        write_sound(folder / f"s{number}.wav", tone(0.1))
    (folder / "s04.wav").unlink()
    lines = [f"{name},sound" for name in _names(60) if name not in ("s11.wav", "s12.wav")]
    _write_csv(folder, *lines, "s11.wav,", "s11.wav,eleven", "s12.wav,  ")
    dataset = load_captions(folder, on_bad_example="skip")
    assert [record.id for record in dataset if record.captions == ("eleven",)] == ["s11.wav"]
    assert set(_names(60)) - {record.id for record in dataset} == {"s04.wav", "s12.wav"}
    first, second, third = dataset.skipped
    assert "metadata.csv line 60 (`s11.wav`) has an empty caption" in first
    assert "metadata.csv line 62 (`s12.wav`) has an empty caption" in second
    assert "metadata.csv line 6 (`s04.wav`): " in third
    assert "does not exist" in third


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("s01.wav,", r"metadata\.csv line 22 \(`s01\.wav`\) has an empty caption"),
        ("gone.wav,a sound", r"metadata\.csv line 22 \(`gone\.wav`\): .*gone\.wav` does not exist"),
        ("empty.wav,a sound", r"line 22 \(`empty\.wav`\): .*is empty \(0 bytes\)"),
        ("text.wav,a sound", r"line 22 \(`text\.wav`\): .*not a readable sound file"),
        (",a sound", r"line 22 \(``\) has an empty `file_name`"),
    ],
)
def test_under_error_the_first_bad_row_is_named(folder, line, message):
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_bytes(b"no sound " * 99)
    _write_csv(folder, *(f"{name},sound" for name in _names(20)), line)
    assert len(load_captions(folder, on_bad_example="skip")) == 20
    with pytest.raises(ValueError, match=message):
        load_captions(folder, on_bad_example="error")


def test_more_than_five_percent_bad_rows_stop(folder):
    good = [f"{name},sound" for name in _names(19)]
    assert len(load_captions(_write_csv(folder, *good, "gone.wav,sound"))) == 19  # 5 % exactly
    with pytest.raises(TooManyBadExamples, match=r"2 of 20 examples cannot be used, more than 5%(.|\n)*gone\.wav"):
        load_captions(_write_csv(folder, *good[:18], "gone.wav,sound", "away.wav,sound"))
    with pytest.raises(TooManyBadExamples, match="1 of 10 examples"):  # many rows per file do not dilute the share
        load_captions(_write_csv(folder, *good[:9] * 5, *["gone.wav,sound"] * 5))


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/s.wav", "a/../../s.wav", "C:\\sounds\\a.wav", "leave.wav"])
@pytest.mark.parametrize("policy", ["skip", "error"])
def test_paths_that_leave_the_folder_are_refused_even_under_skip(folder, name, policy):
    outside = write_sound(folder.parent / "other" / "s.wav", tone(0.1))
    os.symlink(outside, folder / "leave.wav")
    _write_csv(folder, *(f"{good},sound" for good in _names()), f"{name},sound")
    with pytest.raises(ValueError, match=r"line 32 .*(leaves|outside) "):
        load_captions(folder, on_bad_example=policy)


def test_a_linked_folder_is_one_folder(folder, tmp_path):
    _write_csv(folder, "s01.wav,one")
    (tmp_path / "linked").symlink_to(folder)
    assert load_captions(tmp_path / "linked")[0].id == "s01.wav"


@pytest.mark.parametrize(
    ("header", "line", "options", "message"),
    [
        ("file_name,words", "s01.wav,one", {}, r"\['file_name', 'words'\](.|\n)*`caption_column`"),
        ("name,caption", "s01.wav,one", {}, r"\['name', 'caption'\](.|\n)*`audio_column`"),
        ("file_name,caption", "s01.wav,one", {"caption_column": "words"}, r"`caption_column` 'words' is missing"),
        ("file_name,caption", "s01.wav,one", {"audio_column": "clip"}, r"`audio_column` 'clip' is missing"),
        ("file_name,caption", "s01.wav,a dog, a cat", {}, r"line 2 has 3 cells but the header has 2(.|\n)*quotes"),
        ("file_name,caption,caption", "s01.wav,a,b", {}, r"column name twice(.|\n)*caption_1"),
    ],
)
def test_a_malformed_csv_is_refused_with_what_to_do(folder, header, line, options, message):
    with pytest.raises(ValueError, match=message):
        load_captions(_write_csv(folder, line, header=header), **options)


def test_malformed_jsonl_and_text_that_is_not_utf8_are_refused(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "s01.wav", "caption": "one"}\n{"file_name": \n')
    with pytest.raises(ValueError, match=r"metadata\.jsonl line 2 is not JSON"):
        load_captions(folder)
    (folder / "metadata.jsonl").write_text("[1, 2]\n")
    with pytest.raises(ValueError, match="line 1 is list, not an object"):
        load_captions(folder)
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_bytes("file_name,caption\ns01.wav,ein Vögelchen\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        load_captions(folder)


def test_rows_of_one_file_may_not_contradict_each_other(folder):
    rows = [{"file_name": "s01.wav", "caption": text, "labels": [text]} for text in ("dog", "cat")]
    with pytest.raises(ValueError, match=r"same file but differ in `labels`: \['cat'\] and \['dog'\]"):
        load_captions(_write_jsonl(folder, *rows))


def test_what_is_no_data_set_is_said_with_an_example(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Write a metadata\.csv(.|\n)*door\.wav"):
        load_captions(folder)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        load_captions(tmp_path / "nowhere" / "deeper")
    with pytest.raises(ValueError, match=r"is a file\. Pass the folder"):
        load_captions(folder / "s01.wav")
    with pytest.raises(ValueError, match="has 0 rows"):
        load_captions(_write_csv(folder))
    _write_jsonl(folder, {"file_name": "s01.wav", "caption": "one"})
    with pytest.raises(ValueError, match="has both"):
        load_captions(folder)
    with pytest.raises(ValueError, match=r"Unknown `on_bad_example` 'stop'"):
        load_captions(folder, on_bad_example="stop")


def test_a_name_on_neither_disk_nor_hub_says_both(monkeypatch):
    def refuse(name, split):
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=r"`someone/sounds` is no folder here, .*split 'test' cannot be loaded"):
        load_captions("someone/sounds", "test")


def test_a_hub_data_set_is_read_like_one_on_disk(folder, monkeypatch):
    table = datasets.Dataset.from_dict({"audio": [str(folder / "s05.wav")], "text": ["five"]})
    table = table.cast_column("audio", datasets.Audio())
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: {("someone/sounds", "test"): table}[name, split])
    record = load_captions("someone/sounds", "test")[0]
    assert record.captions == ("five",)
    assert len(record_waveform(record, RATE)) == 2400


def _table(folder, names, texts, **columns):
    table = datasets.Dataset.from_dict({"audio": [str(folder / name) for name in names], "captions": texts, **columns})
    return table.cast_column("audio", datasets.Audio(sampling_rate=48000))


@pytest.mark.parametrize("away", [False, True])
def test_a_datasets_folder_keeps_its_sounds_encoded(folder, tmp_path, away):
    texts = [[f"sound {name}", "a sound"] for name in _names()]
    _table(folder, _names(), texts, labels=[["x"]] * 30).save_to_disk(tmp_path / "table")
    if away:  # the sounds travel inside the table
        folder.rename(tmp_path / "moved")
    dataset = load_captions(tmp_path / "table")
    record = pickle.loads(pickle.dumps(dataset))[7]
    assert isinstance(record.audio, bytes)
    assert record.id.endswith("s07.wav")
    assert (record.captions, record.labels) == (("sound s07.wav", "a sound"), ("x",))
    assert record.duration == pytest.approx(0.17)
    np.testing.assert_allclose(record_waveform(record, RATE), tone(0.17, frequency=207), atol=1e-4)


def test_splits_of_a_datasets_folder_are_chosen_by_name(folder, tmp_path):
    parts = {"train": _table(folder, ["s01.wav"], [["one"]]), "test": _table(folder, ["s02.wav"], [["two"]])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "table")
    assert load_captions(tmp_path / "table", "test")[0].captions == ("two",)
    with pytest.raises(ValueError, match=r"no split 'validation'. Choose one of \['test', 'train'\]"):
        load_captions(tmp_path / "table", "validation")


def test_rows_with_one_sound_are_merged_and_namesakes_are_not(folder, tmp_path):
    twin = write_sound(folder / "deep" / "s01.wav", tone(0.3, frequency=999))
    names = ["s01.wav", "s02.wav", "s01.wav", str(twin)]
    _table(folder, names, [["one"], ["two"], ["uno"], ["other"]]).save_to_disk(tmp_path / "table")
    dataset = load_captions(tmp_path / "table")
    assert [record.captions for record in dataset] == [("one", "uno"), ("two",), ("other",)]
    assert len({record.id for record in dataset}) == 3


def test_a_table_whose_format_names_its_columns_is_read(folder, tmp_path):
    table = datasets.Dataset.from_dict({"audio": [str(folder / "s05.wav")], "text": ["five"]})
    table = table.cast_column("audio", datasets.Audio()).with_format("numpy", columns=["audio", "text"])
    table.save_to_disk(tmp_path / "saved")
    dataset = load_captions(tmp_path / "saved")
    assert (dataset[0].captions, dataset[0].duration) == (("five",), pytest.approx(0.15))


def test_captions_of_a_table_are_known_without_reading_its_sounds(folder, tmp_path, monkeypatch):
    _table(folder, _names(4), [["one", "uno"], ["two"], ["three"], ["four"]]).save_to_disk(tmp_path / "table")
    dataset = load_captions(tmp_path / "table")
    monkeypatch.setattr(TableRecords, "__getitem__", lambda self, index: pytest.fail("read a sound"))
    assert list(dataset_captions(dataset)) == [("one", "uno"), ("two",), ("three",), ("four",)]
    kept = RecordSubset(dataset, [2, 0])
    assert list(dataset_captions(kept)) == [("three",), ("one", "uno")]


def test_a_table_of_paths_is_read_from_its_folder(folder, tmp_path):
    def save(names):
        table = datasets.Dataset.from_dict({"file_name": names, "caption": ["a sound"] * len(names)})
        table.save_to_disk(folder / "table" / str(len(names)))
        return folder / "table" / str(len(names))

    target = save(["s01.wav", "sub/s02.wav"])
    for name in ("s01.wav", "sub/s02.wav"):
        write_sound(target / name, tone(0.2))
    assert [record.id for record in load_captions(target)] == ["s01.wav", "sub/s02.wav"]
    with pytest.raises(ValueError, match=r"row 2 .*leaves"):
        load_captions(save(["s01.wav", "s02.wav", "../s03.wav"]))


def test_tables_name_columns_rows_and_bad_sounds(folder, tmp_path):
    table = _table(folder, _names(), [["x"]] * 12 + [[""]] + [["x"]] * 17)
    table.save_to_disk(tmp_path / "table")
    assert "row 12 has an empty caption" in load_captions(tmp_path / "table").skipped[0]
    with pytest.raises(ValueError, match="row 12 has an empty caption"):
        load_captions(tmp_path / "table", on_bad_example="error")
    table.rename_column("captions", "words").save_to_disk(tmp_path / "renamed")
    with pytest.raises(ValueError, match=r"\['audio', 'words'\](.|\n)*`caption_column`"):
        load_captions(tmp_path / "renamed")
    (folder / "s20.wav").write_bytes(b"no sound " * 99)
    _table(folder, _names(), [["x"]] * 30).save_to_disk(tmp_path / "broken")
    dataset = load_captions(tmp_path / "broken")
    assert len(dataset) == 29
    assert "row 20 " in dataset.skipped[0]
    numbers = datasets.Dataset.from_dict({"audio": [1, 2], "caption": ["a", "b"]})
    numbers.save_to_disk(tmp_path / "numbers")
    with pytest.raises(ValueError, match=r"not sounds\. Cast it"):
        load_captions(tmp_path / "numbers")


def test_only_so_many_headers_are_opened(folder, monkeypatch):
    opened = []
    original = captions_module.audio_info
    monkeypatch.setattr(
        captions_module, "audio_info", lambda source, name=None: opened.append(source) or original(source, name=name)
    )
    _write_csv(folder, *(f"{name},sound" for name in _names()))
    dataset = load_captions(folder, max_header_checks=4)
    assert (len(opened), len(dataset)) == (4, 30)
    assert [record.duration is None for record in dataset] == [False] * 4 + [True] * 26


def _records(count, start=0):
    return [Record(id=f"sub/{number}.wav", audio=None) for number in range(start, start + count)]


def test_about_a_tenth_is_held_out_by_name_alone():
    records = _records(2000)
    train, held_out = split_held_out(records)
    assert 150 < len(held_out) < 250
    assert sorted(train.ids + held_out.ids) == sorted(record.id for record in records)
    assert not set(train.ids) & set(held_out.ids)
    shuffled = [records[index] for index in np.random.default_rng(0).permutation(2000)]
    assert set(split_held_out(shuffled)[1].ids) == set(held_out.ids)
    more_train, more_held_out = split_held_out(_records(2500))
    assert set(train.ids) <= set(more_train.ids)
    assert set(held_out.ids) <= set(more_held_out.ids)
    assert set(held_out.ids) < set(split_held_out(records, fraction=0.2)[1].ids)


@pytest.mark.parametrize("count", [2, 3, 5, 20])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.999])
def test_neither_side_of_a_small_data_set_is_empty(count, fraction):
    for start in range(0, 200, 20):
        train, held_out = split_held_out(_records(count, start), fraction)
        assert len(train) >= 1
        assert len(held_out) >= 1
        assert len(train) + len(held_out) == count


def test_rows_of_one_id_stay_together():
    records = [record for record in _records(50) for _ in range(3)]
    train, held_out = split_held_out(records)
    assert len(held_out) % 3 == 0
    assert not set(train.ids) & set(held_out.ids)
    with pytest.raises(ValueError, match="1 distinct record"):
        split_held_out(records[:3])
    with pytest.raises(ValueError, match=r"`fraction` is 1\.5"):
        split_held_out(records, 1.5)

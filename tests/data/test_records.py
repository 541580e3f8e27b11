import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_audiolang.data.records import (
    Record,
    RecordSubset,
    RecordView,
    dataset_captions,
    find_caption_columns,
    record_ids,
)
from hf_audiolang.data.sound_scenes import SoundScenes

WAVE = np.linspace(-0.5, 0.5, 7, dtype=np.float32)


def test_a_sound_scenes_row_keeps_every_field():
    event = {"label": "beep", "onset": 0.1, "offset": 0.4, "level_db": -3}
    phrase = {"phrase": "a beep", "segments": [[0.1, 0.4]]}
    row = {
        "id": "train-3",
        "audio": {"array": WAVE, "sampling_rate": 14},
        "duration": 0.5,
        "captions": ["a beep", "beeping"],
        "labels": ["beep"],
        "label_ids": [4],
        "events": [event],
        "phrases": [phrase],
        "mode": "plain",
    }
    record = Record.from_row(row)
    assert record.audio is WAVE
    assert (record.id, record.sampling_rate, record.duration, record.mode) == ("train-3", 14, 0.5, "plain")
    assert (record.captions, record.labels) == (("a beep", "beeping"), ("beep",))
    assert (record.events, record.phrases) == ((event,), (phrase,))


@pytest.mark.parametrize(
    ("value", "audio", "record_id"),
    [
        ("a/b.wav", "a/b.wav", "a/b.wav"),
        (Path("a/b.wav"), Path("a/b.wav"), "a/b.wav"),
        ({"bytes": b"RIFF", "path": "b.wav"}, b"RIFF", "b.wav"),
        ({"bytes": None, "path": "b.wav"}, "b.wav", "b.wav"),
        ({"bytes": b"RIFF", "path": None}, b"RIFF", "row 5"),
        (b"RIFF", b"RIFF", "row 5"),
        (None, None, "row 5"),
    ],
)
def test_undecoded_audio_stays_undecoded(value, audio, record_id):
    record = Record.from_row({"audio": value, "caption": " a door "}, default_id="row 5")
    assert record.audio == audio
    assert (record.id, record.sampling_rate, record.duration) == (record_id, None, None)
    assert record.captions == ("a door",)


def test_a_decoder_gives_the_mean_of_its_channels():
    channels = torch.tensor([[0.0, 0.5, -1.0, 0.25, 0.0], [1.0, 0.5, 0.0, 0.25, 0.0]])
    decoder = SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=channels, sample_rate=10))
    record = Record.from_row({"audio": decoder, "id": 8})
    np.testing.assert_array_equal(record.audio, np.float32([0.5, 0.5, -0.5, 0.25, 0.0]))
    assert (record.id, record.sampling_rate, record.duration) == ("8", 10, 0.5)


def test_arrays_are_mono_int16_or_float32():
    stereo = np.array([[1000, -1000, 7, 5, 9], [3000, -3000, 8, 5, 9]], dtype=np.int16)
    record = Record.from_row({"audio": {"array": stereo, "sampling_rate": 5}})
    assert record.audio.dtype == np.int16
    np.testing.assert_array_equal(record.audio, [2000, -2000, 8, 5, 9])
    transposed = Record.from_row({"audio": stereo.T, "sampling_rate": 5})
    np.testing.assert_array_equal(transposed.audio, record.audio)
    from_list = Record.from_row({"audio": {"array": [0.5, 0.25], "sampling_rate": 2}})
    assert from_list.audio.dtype == np.float32
    assert from_list.duration == 1.0


def test_audio_of_no_known_form_is_refused():
    with pytest.raises(TypeError, match="int, which is no known form"):
        Record.from_row({"audio": 3})
    with pytest.raises(TypeError, match="no known form"):
        Record.from_row({"audio": WAVE})  # an array without its sampling rate
    with pytest.raises(KeyError, match=r"sound.*audio_column"):
        Record.from_row({"sound": "a.wav"})
    with pytest.raises(KeyError, match=r"text.*caption_column"):
        Record.from_row({"audio": "a.wav", "text": "x"}, caption_column="words")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["text", "caption", "captions"], ["captions"]),
        (["text", "caption", "caption_1"], ["caption"]),
        (["caption_10", "caption_2", "text", "caption_1"], ["caption_1", "caption_2", "caption_10"]),
        (["text", "file_name"], ["text"]),
        (["caption_x", "title"], []),
    ],
)
def test_caption_columns_are_found_by_their_usual_names(columns, expected):
    assert find_caption_columns(columns) == expected


def test_a_named_caption_column_wins():
    row = {"audio": "a.wav", "caption": "wrong", "words": ["one", "two"]}
    assert Record.from_row(row, caption_column="words").captions == ("one", "two")


def test_a_view_is_lazy_and_counts_rows_without_id():
    class Rows:
        read = []

        def __len__(self):
            return 3

        def __getitem__(self, index):
            self.read.append(index)
            return {"sound": {"array": WAVE * index, "sampling_rate": 7}, "text": f"text {index}"}

    view = RecordView(Rows(), audio_column="sound")
    assert (len(view), Rows.read) == (3, [])
    assert (view[-1].id, view[-1].captions) == ("2", ("text 2",))
    assert Rows.read == [2, 2]
    assert [record.id for record in view] == ["0", "1", "2"]
    with pytest.raises(IndexError, match="3 is outside a data set of 3"):
        view[3]


def test_a_subset_keeps_order_and_adds_durations_only_where_unknown():
    known = {"a": None, "b": 2.0, "c": None}
    records = [Record(id=name, audio=f"{name}.wav", duration=seconds) for name, seconds in known.items()]
    subset = RecordSubset(records, [2, 1], durations={1: 9.0, 2: 3.5}, skipped=["`a`: gone"])
    assert [(record.id, record.duration) for record in subset] == [("c", 3.5), ("b", 2.0)]
    assert record_ids(RecordSubset(subset, [1])) == ["b"]
    assert pickle.loads(pickle.dumps(subset))[0] == subset[0]
    assert subset.skipped == ["`a`: gone"]


def test_captions_of_scenes_are_read_without_rendering_them(monkeypatch):
    view = RecordView(SoundScenes("train", 7, duration=(1.0, 1.5), n_events=(1, 2)))
    expected = [record.captions for record in view]
    assert len(set(expected)) == 7  # control: each scene has its own
    monkeypatch.setattr(SoundScenes, "render", lambda self, index: pytest.fail("rendered"))
    assert list(dataset_captions(view)) == expected
    assert list(dataset_captions(RecordSubset(RecordSubset(view, [5, 0, 2]), [2, 0]))) == [expected[2], expected[5]]


def test_captions_of_any_other_data_set_are_read_from_its_records():
    records = [Record(id=name, audio=None, captions=(name, f"a {name}")) for name in ("horn", "bell", "door")]
    assert list(dataset_captions(records)) == [("horn", "a horn"), ("bell", "a bell"), ("door", "a door")]
    rows = [{"audio": None, "words": " one "}, {"audio": None, "words": ["two", "three"]}]
    assert list(dataset_captions(RecordView(rows, caption_column="words"))) == [("one",), ("two", "three")]

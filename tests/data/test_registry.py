import numpy as np
import pytest
from data_helpers import tone, write_sound

from hf_audiolang.data import registry
from hf_audiolang.data.audio_io import record_waveform
from hf_audiolang.data.records import Record
from hf_audiolang.data.registry import build_dataset, register
from hf_audiolang.data.sound_scenes import SoundScenes


@pytest.fixture
def builders(monkeypatch):
    monkeypatch.setattr(registry, "BUILDERS", dict(registry.BUILDERS))
    return registry.BUILDERS


def test_a_registered_builder_gets_split_and_options(builders):
    @register("three")
    def build(split, *, level=1):
        return [Record(id=f"{split} {number} {level}", audio=None) for number in range(3)]

    assert build_dataset("three", "test", level=7)[2].id == "test 2 7"
    with pytest.raises(TypeError, match=r"no option \['levl'\]. Its options are \['level'\]"):
        build_dataset("three", "test", levl=7)
    with pytest.raises(ValueError, match="'three' is registered already"):
        register("three")(build)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'sound_scenes'\? (.|\n)*metadata\.csv"):
        build_dataset("sound_scene")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        build_dataset("./nowhere")


def test_a_folder_goes_to_your_own_data(tmp_path):
    write_sound(tmp_path / "a.wav", tone(0.2))
    (tmp_path / "metadata.csv").write_text("file_name,words\na.wav,a tone\n")
    dataset = build_dataset(str(tmp_path), "train", caption_column="words")
    assert (dataset[0].id, dataset[0].captions) == ("a.wav", ("a tone",))
    with pytest.raises(TypeError, match=r"no option \['size'\]. Its options are \['audio_column'"):
        build_dataset(tmp_path, "train", size=4)


def test_exported_scenes_come_back_as_your_own_data(tmp_path):
    scenes = SoundScenes("test", 4, duration=(1.0, 1.5))
    scenes.export(tmp_path / "folder", num_workers=1)
    scenes.to_hf(num_workers=1).save_to_disk(tmp_path / "table")
    direct = build_dataset("sound_scenes", "test", size=4, duration=(1.0, 1.5), num_workers=1)
    for name in ("folder", "table"):
        loaded = build_dataset(str(tmp_path / name), "test")
        for record, expected in zip(loaded, direct, strict=True):
            for field in ("captions", "labels", "events", "phrases", "mode"):
                assert getattr(record, field) == getattr(expected, field), field
            assert record.duration == pytest.approx(expected.duration)
            waves = record_waveform(record, 16000), record_waveform(expected, 16000)
            np.testing.assert_allclose(*waves, atol=1.01 / 32768)  # both are rounded to 16 bits


def test_sound_scenes_are_rendered_with_the_options_given():
    dataset = build_dataset("sound_scenes", "validation", size=3, duration=(1.0, 1.5), seed=5)
    assert len(dataset) == 3
    records = list(dataset)
    assert len({record.id for record in records}) == 3
    for record in records:
        assert record.audio.dtype == np.int16
        assert 1.0 <= record.duration <= 1.5
        assert len(record.audio) == pytest.approx(record.duration * record.sampling_rate, abs=1)
        assert len(record.captions) == 5
        assert record.labels
        assert np.abs(record_waveform(record, 16000)).max() > 0.01
    again = build_dataset("sound_scenes", "validation", size=3, duration=(1.0, 1.5), seed=5, num_workers=0)
    np.testing.assert_array_equal(again[1].audio, records[1].audio)
    other = build_dataset("sound_scenes", "validation", size=3, duration=(1.0, 1.5), seed=6)
    assert [record.captions for record in other] != [record.captions for record in records]

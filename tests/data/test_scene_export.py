import io
import json
import pickle

import numpy as np
import pytest
import soundfile
from datasets import Audio, load_dataset

from hf_audiolang.data import rendered_scenes
from hf_audiolang.data.sound_scenes import SoundScenes, dataset_card, materialize

SCENES = SoundScenes("test", 10, duration=(1.5, 2.5), n_events=(1, 2))


def test_to_hf_keeps_every_column_and_sample():
    table = SCENES.to_hf()
    assert isinstance(table.features["audio"], Audio)
    assert table.features["audio"].sampling_rate == 16_000
    undecoded = table.cast_column("audio", Audio(decode=False))
    for index in (0, 6):
        row, plain = undecoded[index], SCENES[index]
        samples, rate = soundfile.read(io.BytesIO(row.pop("audio")["bytes"]), dtype="int16")
        assert rate == 16_000
        np.testing.assert_allclose(samples / 32767, plain.pop("audio")["array"], atol=0.51 / 32767)
        assert row == plain


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_export_writes_what_the_rows_hold(tmp_path, audio_format):
    folder = SCENES.export(tmp_path / "scenes", audio_format=audio_format)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    for index, line in enumerate(lines):
        samples, _ = soundfile.read(folder / line.pop("file_name"), dtype="int16")
        np.testing.assert_allclose(samples / 32767, SCENES.render(index), atol=0.51 / 32767)
        assert line == SCENES.structure(index)


def test_datasets_decodes_table_and_folder(tmp_path):
    pytest.importorskip("torchcodec", reason="`datasets` reads audio folders and decodes with torchcodec only")
    folder = SCENES.export(tmp_path / "scenes", audio_format="flac")
    loaded = load_dataset("audiofolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[3]["captions"] == SCENES.structure(3)["captions"]
    for decoder in (loaded[3]["audio"], SCENES.to_hf()[3]["audio"]):
        samples = decoder.get_all_samples()
        assert samples.sample_rate == 16_000
        np.testing.assert_allclose(samples.data.numpy()[0], SCENES.render(3), atol=2 / 32767)


def test_export_refuses_unknown_formats_and_full_folders(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown `audio_format` 'mp3'. Choose one of \['wav', 'flac'\]"):
        SCENES.export(tmp_path, audio_format="mp3")
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(FileExistsError, match=r"already holds a metadata\.jsonl"):
        SCENES.export(tmp_path)


def test_card_says_synthetic_and_states_the_ceilings():
    card = dataset_card(SCENES)
    assert "**All audio here is synthetic**" in card
    assert "synthetic-scenes v1" in card
    assert "- part collision_free: 5 clips" in card
    assert "| ordered |" in card
    assert "electronic beep (`beep`)" in card
    assert card == dataset_card(materialize(SCENES))


def test_rendered_scenes_are_light_and_picklable():
    rendered = materialize(SCENES)
    num_samples = sum(len(row["audio"]["array"]) for row in rendered)
    data = pickle.dumps(rendered)
    assert len(data) < 2 * num_samples + 60_000
    copy = pickle.loads(data)
    np.testing.assert_array_equal(copy[4]["audio"]["array"], rendered[4]["audio"]["array"])
    assert copy.structure(4) == rendered.structure(4)


def test_a_failing_worker_is_reported(monkeypatch):
    monkeypatch.setattr(rendered_scenes, "_WORKER", "raise SystemExit('no numpy here')")
    with pytest.raises(RuntimeError, match=r"failed with code 1: no numpy here\. Pass `num_workers=1`"):
        materialize(SoundScenes("train", 60, duration=1.0), num_workers=2)


def test_workers_import_numpy_and_the_scene_modules_alone(monkeypatch):
    check = "\nassert not {'torch', 'transformers', 'soundfile'} & set(sys.modules)\n"
    monkeypatch.setattr(rendered_scenes, "_WORKER", rendered_scenes._WORKER + check)
    assert len(materialize(SoundScenes("train", 60, duration=1.0), num_workers=2)) == 60

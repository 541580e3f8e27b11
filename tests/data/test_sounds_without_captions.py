# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sounds without captions, for training that reads none: plain folders, metadata and tables without a caption."""

import datasets
import numpy as np
import pytest
import soundfile

from hf_audiolang.data.captions import load_captions


@pytest.fixture
def sounds(tmp_path):
    for name in ("b.wav", "deep/a.flac", "c.wav"):
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.sin(np.arange(1600) / 9), 16000)
    (tmp_path / "sounds" / "notes.txt").write_text("not a sound")
    return tmp_path / "sounds"


def test_a_plain_folder_gives_all_its_sounds(sounds):
    records = load_captions(sounds, needs_captions=False)
    assert [record.id for record in records] == ["b.wav", "c.wav", "deep/a.flac"]
    assert [record.captions for record in records] == [(), (), ()]
    assert [record.duration for record in records] == pytest.approx([0.1, 0.1, 0.1])


def test_a_plain_folder_is_refused_where_captions_are_read(sounds):
    with pytest.raises(FileNotFoundError, match=r"has no metadata\.csv"):
        load_captions(sounds)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="names no sound file"):
        load_captions(tmp_path, needs_captions=False)


@pytest.mark.parametrize("header", ["file_name", "file_name,caption"])
def test_metadata_needs_no_caption(sounds, header):
    empty = "," * header.count(",")
    (sounds / "metadata.csv").write_text(f"{header}\nb.wav{empty}\ndeep/a.flac{empty}\n")
    records = load_captions(sounds, needs_captions=False)
    assert [(record.id, record.captions) for record in records] == [("b.wav", ()), ("deep/a.flac", ())]


def test_captions_that_are_there_are_kept(sounds):
    (sounds / "metadata.csv").write_text("file_name,caption\nb.wav,a tone\nc.wav,\n")
    assert [record.captions for record in load_captions(sounds, needs_captions=False)] == [("a tone",), ()]


def test_a_table_needs_no_caption_column(sounds, tmp_path):
    table = datasets.Dataset.from_dict({"audio": [str(sounds / "b.wav"), str(sounds / "c.wav")]})
    table.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(tmp_path / "table")
    records = load_captions(tmp_path / "table", needs_captions=False)
    assert [record.captions for record in records] == [(), ()]
    with pytest.raises(ValueError, match="No caption column"):
        load_captions(tmp_path / "table")


def test_unreadable_sounds_are_left_out_and_named(sounds):
    for number in range(60):
        soundfile.write(sounds / f"more_{number}.wav", np.zeros(160), 16000)
    (sounds / "broken.wav").write_bytes(b"RIFF nothing")
    records = load_captions(sounds, needs_captions=False)
    assert len(records) == 63
    assert "broken.wav" in records.skipped[0]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Numbers beside sounds: columns of a plan as labels, parts, and what is refused."""

import numpy as np
import pytest
import soundfile

from hf_audiolang.data.label_plans import LabelPlan
from hf_audiolang.data.labels_numbers import load_numbers
from hf_audiolang.data.records import TooManyBadExamples

PLAN = LabelPlan("emomusic", task="regression", class_order=("arousal", "valence"), metric="r2")


def music(folder, header, rows, num_files=6):
    folder.mkdir(exist_ok=True)
    for n in range(num_files):
        soundfile.write(folder / f"{n}.wav", np.full(800, 0.1), 16000)
    (folder / "metadata.csv").write_text("\n".join([header, *rows]))
    return folder


def test_columns_of_the_plan_are_labels_in_its_order(tmp_path):
    rows = [f"{n}.wav,{n},{-n / 10},{'test' if n > 3 else 'valid' if n == 3 else 'train'}" for n in range(6)]
    data = load_numbers(music(tmp_path / "m", "file_name,valence,arousal,split", rows), PLAN)
    assert data.classes == ["arousal", "valence"]
    assert data.train[1].labels == ("-0.1", "1")
    assert {name: part.ids for name, part in data.parts.items()} == {
        "train": ["0.wav", "1.wav", "2.wav"],
        "validation": ["3.wav"],
        "test": ["4.wav", "5.wav"],
    }
    assert data.test[0].duration == 0.05


def test_a_tenth_is_held_out_whatever_its_numbers_are(tmp_path):
    rows = [f"{n}.wav,{n / 100},{n}" for n in range(60)]
    data = load_numbers(music(tmp_path / "m", "file_name,arousal,valence", rows, num_files=60), PLAN)
    assert 2 <= len(data.test) <= 12
    assert 2 <= len(data.validation) <= 12
    assert len({name for part in data.parts.values() for name in part.ids}) == 60


def test_folds_and_splits_in_folders(tmp_path):
    rows = [f"{n}.wav,0.{n},1,{1 + n % 3}" for n in range(6)]
    data = load_numbers(music(tmp_path / "m", "file_name,arousal,valence,fold", rows), PLAN, fold=2)
    assert data.test.ids == ["1.wav", "4.wav"]
    assert (data.folds, data.fold) == ((1, 2, 3), 2)
    (tmp_path / "s").mkdir()
    for part in ("train", "test"):
        music(tmp_path / "s" / part, "file_name,arousal,valence", [f"{n}.wav,0.{n},1" for n in range(6)])
    data = load_numbers(tmp_path / "s", PLAN)
    assert data.test.ids == [f"test/{n}.wav" for n in range(6)]
    assert len(data.train) + len(data.validation or []) == 6


def test_what_is_no_number_is_named(tmp_path):
    folder = tmp_path / "m"
    for cell in ("", "loud", "nan", "inf"):
        music(folder, "file_name,arousal,valence", ["0.wav,1,2", f"1.wav,{cell},2"])
        with pytest.raises(ValueError, match=rf"line 3 \(`1.wav`\) has '{cell}' in the column 'arousal'\. Write"):
            load_numbers(folder, PLAN)
    music(folder, "file_name,arousal", ["0.wav,1"])
    with pytest.raises(ValueError, match=r"columns \['file_name', 'arousal'\], without \['valence'\]\. Add a column"):
        load_numbers(folder, PLAN)
    music(folder, "file_name,arousal,valence", ["0.wav,1,2", "0.wav,3,2"])
    with pytest.raises(ValueError, match=r"1 files with several rows, got \['0.wav'\]\. Write one per file"):
        load_numbers(folder, PLAN)
    music(folder, "file_name,arousal,valence", ["../0.wav,1,2"])
    with pytest.raises(ValueError, match=r"leaves `.*Write the path relative to it"):
        load_numbers(folder, PLAN)
    with pytest.raises(FileNotFoundError, match=r"no metadata.csv, .tsv or .jsonl\. Write one with the columns"):
        load_numbers(tmp_path / "nowhere", PLAN)
    music(folder, "file_name,arousal,valence", ["0.wav,1,2", "missing.wav,1,2"])
    with pytest.raises(TooManyBadExamples, match="Repair or remove them"):
        load_numbers(folder, PLAN)

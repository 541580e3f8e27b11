# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""`hf-audiolang convert` on small official files, and the commands on what it writes without a tokenizer."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from m2d_official import (
    Official,
    bert_state,
    encoder_state,
    pretraining_state,
    stage_2_state,
    transformer_projector_state,
)
from tiny import tiny_tokenizer

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor
from hf_audiolang.cli import main

SMALL = Official()


@pytest.fixture
def sounds(tmp_path):
    """Two classes of three sounds."""
    generator = np.random.default_rng(0)
    for name in ("dog/a.wav", "dog/b.wav", "dog/c.wav", "rain/a.wav", "rain/b.wav", "rain/c.wav"):
        path = tmp_path / "sounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * generator.standard_normal(6400), 16000)
    return tmp_path / "sounds"


@pytest.fixture
def official_file(tmp_path):
    """A small system of 2025 with BERT and predictor, 5 x 6 patches, width 128, without its front end."""
    backbone = encoder_state(SMALL) | pretraining_state(SMALL) | transformer_projector_state(128, 128)
    path = tmp_path / "m2d_clap_vit_base-80x100p16x16p16kpBpTI-2025" / "checkpoint-30.pth"
    path.parent.mkdir()
    state = stage_2_state(backbone, bert_state())
    torch.save({key: value for key, value in state.items() if not key.startswith("to_spec.")}, path)
    return path


def converted(file, folder, *settings):
    """Exit code of `convert` without tokenizer."""
    words = [word for setting in ("tokenizer=none", *settings) for word in ("--set", setting)]
    return main(["convert", "m2d_clap", str(file), str(folder), *words])


def test_convert_prints_the_account_and_no_bars(official_file, tmp_path):
    words = ["convert", "m2d_clap", str(official_file), str(tmp_path / "out"), "--set", "tokenizer=none"]
    command = [sys.executable, "-m", "hf_audiolang.cli", *words]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "M2dClapModel written to" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sampling_rate=44100", "`sampling_rate` 44100"),
        ("sampling_rate=-16000", "`sampling_rate` must be a positive whole number, got -16000"),
        ("num_mel_bins=81", "`num_mel_bins` must be a multiple of the 16 mel bins of a patch, got 81"),
        ("num_mel_bins=3", "`num_mel_bins` must be a multiple of the 16 mel bins of a patch, got 3"),
        ("num_mel_bins=0", "`num_mel_bins` must be a positive whole number, got 0"),
        ("max_frames=7", "80x7, that is 0 patches"),
        ("max_frames=1e3", "`max_frames` must be a positive whole number, got 1000.0"),
        ("num_attention_heads=7", "`num_attention_heads` must divide the width 128, got 7"),
        ("predictor_num_heads=7", "`predictor_num_heads` must divide the width 64, got 7"),
        ("text_num_attention_heads=7", "`text_num_attention_heads` must divide the width 128, got 7"),
        ("text_num_attention_heads=[2]", "`text_num_attention_heads` must be a positive whole number, got [2]"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_its_name(official_file, tmp_path, capsys, setting, message):
    assert converted(official_file, tmp_path / "out", "pretraining=true", setting) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_tokenizer_takes_sounds_and_says_what_words_need(official_file, sounds, tmp_path, capsys):
    folder = str(tmp_path / "out")
    assert converted(official_file, folder) == 0
    assert main(["embed", str(sounds), "--model", folder, "--output", str(tmp_path / "e.npz")]) == 0
    with np.load(tmp_path / "e.npz") as stored:
        assert stored["embeddings"].shape == (6, 128)
    sound, picture = str(sounds / "dog" / "a.wav"), str(tmp_path / "a.png")
    assert main(["explain", sound, "--model", folder, "--output", picture]) == 0
    assert main(["map", str(sounds), "--model", folder, "--output", str(tmp_path / "map.png")]) == 0
    capsys.readouterr()
    asking = (
        ["classify", sound, "--labels", "a dog, rain"],
        ["search", "a dog", str(sounds)],
        ["explain", sound, "--captions", "a dog", "--output", picture],
    )
    for words in asking:
        assert main([*words, "--model", folder]) == 2, words
        err = capsys.readouterr().err
        assert "has no tokenizer. Pass the whole processor" in err
        assert err.count("\n") == 1
    AudioLangProcessor(LogMelFeatureExtractor.from_pretrained(folder), tiny_tokenizer()).save_pretrained(folder)
    assert main([*asking[0], "--model", folder]) == 0  # control: what the message advises

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""`caption` and the Python call behind it: answers, manifests to train on, continued runs, long files, refusals."""

import json

import numpy as np
import pytest
import soundfile
import torch
from caption_fakes import CAPTIONS, CaptionProcessor, TableCaptioner
from evaluation_fakes import SAMPLING_RATE, waveform
from tiny import tiny_captionstew_config, tiny_m2d_clap_config, tiny_processor, tiny_slap_config

from hf_audiolang import (
    CaptionStewForConditionalGeneration,
    M2dClapModel,
    SlapModel,
    commands_captions,
)
from hf_audiolang.captioning import caption_files, load_captioner
from hf_audiolang.cli import main
from hf_audiolang.data.audio_io import record_waveform
from hf_audiolang.data.registry import build_dataset
from hf_audiolang.evaluation.captioning import CaptionPiece
from hf_audiolang.evaluation.embed import AudioOptions, RecordReader

ROWS = {"a.wav": (1, 0.7), "b.wav": (2, 3.0), "inner/c.wav": (4, 1.4), "inner/d.wav": (5, 0.3)}  # caption, seconds
EXPECTED = {name: CAPTIONS[row] for name, (row, _) in ROWS.items()}
ONE_BY_ONE = AudioOptions(batch_seconds=0.1)


def write_sound(path, row, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform(row, seconds), SAMPLING_RATE, subtype="FLOAT")


@pytest.fixture
def sounds(tmp_path):
    for name, (row, seconds) in ROWS.items():
        write_sound(tmp_path / "sounds" / name, row, seconds)
    return tmp_path / "sounds"


@pytest.fixture
def known(monkeypatch):
    """Makes the command load a captioner whose captions are known."""
    model = TableCaptioner()
    monkeypatch.setattr(commands_captions, "load_captioner", lambda name, device: (model, CaptionProcessor(5.0)))
    return model


@pytest.fixture(scope="module")
def captioner_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("captions") / "captioner"
    CaptionStewForConditionalGeneration(tiny_captionstew_config(text_config=None)).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def lines_of(manifest):
    if not manifest.exists():
        return []
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def captions_in(manifest):
    return {row["file_name"]: row["caption"] for row in lines_of(manifest)}


def caption(files, model=None, **given):
    return caption_files(files, model or TableCaptioner(), CaptionProcessor(5.0), **given)


def test_captions_are_printed_under_their_files(known, sounds, capsys):
    assert main(["caption", str(sounds / "inner"), str(sounds / "a.wav"), "--model", "known"]) == 0
    lines = capsys.readouterr().out.splitlines()
    asked = ["inner/c.wav", "inner/d.wav", "a.wav"]
    assert lines == [line for name in asked for line in (str(sounds / name), f"  {EXPECTED[name]}")]
    assert known.calls == [
        {"shape": (3, 140), "training": False, "num_beams": 4, "max_new_tokens": 64, "do_sample": 0}
    ]


def test_the_options_reach_generate_and_the_rule_for_long_files(known, sounds, capsys):
    write_sound(sounds / "long.wav", 2, 2.0)
    words = ["caption", str(sounds / "long.wav"), "--model", "known", "--json", "--num_beams", "2"]
    assert main([*words, "--max_new_tokens", "9", "--max_seconds", "0.8"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    times = [(piece["start"], piece["end"]) for piece in file["pieces"]]
    assert times == [
        (0.0, pytest.approx(0.67)),
        (pytest.approx(0.67), pytest.approx(1.34)),
        (pytest.approx(1.34), 2.0),
    ]
    assert (file["file"], file["duration"], file["caption"]) == (str(sounds / "long.wav"), 2.0, CAPTIONS[2])
    assert (known.calls[-1]["num_beams"], known.calls[-1]["max_new_tokens"]) == (2, 9)
    assert main([*words, "--max_seconds", "0.8", "--long_audio", "crop"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert [(piece["start"], piece["end"]) for piece in file["pieces"]] == [(0.0, 0.8)]


def test_a_manifest_is_training_data(known, sounds, capsys):
    manifest = sounds / "metadata.jsonl"
    assert main(["caption", str(sounds), "--model", "known", "--manifest", str(manifest)]) == 0
    assert capsys.readouterr().out == f"{manifest}: 4 captions written\n"
    assert captions_in(manifest) == EXPECTED
    dataset = build_dataset(sounds)
    assert {dataset[i].id: dataset[i].captions for i in range(4)} == {name: (text,) for name, text in EXPECTED.items()}
    for index in range(4):
        row, seconds = ROWS[dataset[index].id]
        np.testing.assert_allclose(record_waveform(dataset[index], SAMPLING_RATE), waveform(row, seconds))
        assert dataset[index].duration == pytest.approx(seconds)


def test_a_manifest_above_the_sounds_names_them_from_there(sounds):
    manifest = sounds.parent / "metadata.jsonl"
    assert len(caption([sounds / "inner"], manifest=manifest).files) == 2
    assert captions_in(manifest) == {f"sounds/{name}": EXPECTED[name] for name in ("inner/c.wav", "inner/d.wav")}
    assert len(build_dataset(sounds.parent)) == 2


def test_links_count_by_where_they_lie(sounds, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("a.wav", "b.wav"):
        (linked / f"my_{name}").symlink_to(sounds / name)
    assert len(caption([linked], manifest=linked / "metadata.jsonl").files) == 2
    assert captions_in(linked / "metadata.jsonl") == {f"my_{name}": EXPECTED[name] for name in ("a.wav", "b.wav")}
    for path in linked.glob("*.wav"):  # training reads no links that lead out of its folder
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert {row.id: row.captions[0] for row in build_dataset(linked)} == captions_in(linked / "metadata.jsonl")
    (tmp_path / "other_name").symlink_to(sounds)  # the same folder by two names: its target says where the sounds are
    found = caption([sounds / "a.wav", tmp_path / "other_name" / "a.wav"], manifest=sounds / "metadata.jsonl")
    assert len(found.files) == 1
    assert captions_in(sounds / "metadata.jsonl") == {"a.wav": EXPECTED["a.wav"]}


def test_a_sound_that_is_named_twice_is_one_line(sounds, monkeypatch):
    monkeypatch.chdir(sounds)
    files = ["b.wav", str(sounds / "b.wav"), "inner/../b.wav", "a.wav"]
    found = caption(files, manifest="metadata.jsonl")
    assert [file.file for file in found.files] == ["b.wav", "a.wav"]
    assert sorted(row["file_name"] for row in lines_of(sounds / "metadata.jsonl")) == ["a.wav", "b.wav"]
    assert caption(files, manifest=sounds / "metadata.jsonl").num_known == 2


def test_letters_of_every_language_survive(tmp_path):
    write_sound(tmp_path / "Vögel \u2028 «1».wav", 1, 1.0)
    caption([tmp_path], manifest=tmp_path / "metadata.jsonl")
    assert build_dataset(tmp_path)[0].id == "Vögel \u2028 «1».wav"
    again = TableCaptioner()
    assert caption([tmp_path], again, manifest=tmp_path / "metadata.jsonl").num_known == 1
    assert again.calls == []


def test_a_second_call_captions_only_what_is_new(known, sounds, capsys):
    manifest, words = sounds / "metadata.jsonl", ["caption", str(sounds), "--model", "known", "--manifest"]
    main([*words, str(manifest)])
    before = manifest.read_bytes()
    write_sound(sounds / "e.wav", 0, 0.4)
    assert main([*words, str(manifest)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{manifest}: 1 captions written, 4 were there already"
    assert [call["shape"] for call in known.calls] == [(4, 300), (1, 40)]
    assert manifest.read_bytes() == before + b'{"file_name": "e.wav", "caption": "a dog barks"}\n'
    assert main([*words, str(manifest), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": [], "failed": [], "known": 5}


def test_an_interrupted_run_keeps_its_captions_and_is_continued(known, sounds, monkeypatch):
    manifest, words = sounds / "metadata.jsonl", ["caption", str(sounds), "--model", "known", "--manifest"]
    original = TableCaptioner.generate

    def stop_at_the_third(model, **inputs):
        if len(model.calls) == 2:
            raise KeyboardInterrupt
        return original(model, **inputs)

    monkeypatch.setattr(commands_captions, "AudioOptions", lambda **given: AudioOptions(batch_seconds=0.1, **given))
    monkeypatch.setattr(TableCaptioner, "generate", stop_at_the_third)
    assert main([*words, str(manifest)]) == 2
    done = captions_in(manifest)
    assert len(done) == 2
    assert done.items() <= EXPECTED.items()
    monkeypatch.setattr(TableCaptioner, "generate", original)
    assert main([*words, str(manifest)]) == 0
    assert captions_in(manifest) == EXPECTED
    assert len(lines_of(manifest)) == len(known.calls) == 4


def test_a_line_is_on_the_disk_before_the_next_caption_is_made(sounds):
    manifest, lengths = sounds / "metadata.jsonl", []

    class Watching(TableCaptioner):
        def generate(self, **inputs):
            lengths.append(len(lines_of(manifest)))
            return super().generate(**inputs)

    caption([sounds], Watching(), manifest=manifest, options=ONE_BY_ONE)
    assert lengths == [0, 1, 2, 3]


def test_a_line_that_was_cut_off_is_written_again_and_a_whole_one_is_kept(sounds):
    manifest = sounds / "metadata.jsonl"
    caption([sounds], manifest=manifest, options=ONE_BY_ONE)
    content = manifest.read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(content)):
        manifest.write_bytes(content[:end])
        model = TableCaptioner()
        found = caption([sounds], model, manifest=manifest, options=ONE_BY_ONE)
        is_whole = end == len(content) - 1  # only the end of the line is missing
        assert (found.num_known, len(model.calls)) == ((4, 0) if is_whole else (3, 1)), content[start:end]
        assert manifest.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b"my notes",
        b'{"file_name": "a.wav", "captions": ["a dog"]}',  # of another form, and without an end of the line
        b'{"file_name": ["a.wav"], "caption": "a dog"}\n',
        b'{"file_name": "a.wav", "caption": "a dog"}\n{"file_name": "b.w\n',
        b"[1, 2]\n",
        b"\xff\xfe\n",
    ],
)
def test_a_file_that_is_no_manifest_is_refused_and_left_as_it_is(sounds, content):
    path, model = sounds / "metadata.jsonl", TableCaptioner()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is none: line \d is no JSON.*Give another name, or remove the file"):
        caption([sounds], model, manifest=path)
    assert path.read_bytes() == content
    assert model.calls == []


def test_captions_written_by_hand_count(sounds):
    manifest, model = sounds / "metadata.jsonl", TableCaptioner()
    manifest.write_text('{"caption": "my own words", "file_name": "b.wav", "label": "rain"}\n\n', encoding="utf-8-sig")
    assert caption([sounds], model, manifest=manifest).num_known == 1
    dataset = build_dataset(sounds)
    assert {dataset[i].id: dataset[i].captions[0] for i in range(4)} == EXPECTED | {"b.wav": "my own words"}


def test_other_manifests_are_refused_before_anything_is_captioned(known, sounds, tmp_path, capsys):
    for manifest, message in (
        (sounds / "metadata.csv", "must end in .jsonl"),
        (sounds / "inner" / "metadata.jsonl", "put the manifest beside the sounds, or above them"),
    ):
        assert main(["caption", str(sounds), "--model", "known", "--manifest", str(manifest)]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, err.count("\n"), manifest.exists(), known.calls) == ("", 1, False, [])


def test_bad_files_are_named_and_tried_again(known, sounds, tmp_path, capsys):
    manifest = sounds / "metadata.jsonl"
    (sounds / "broken.wav").write_bytes(b"RIFF no sound")
    words = ["caption", str(sounds), "--model", "known", "--manifest", str(manifest)]
    for num_known in (0, 4):  # the second time the bad file is all there is
        assert main([*words, "--json"]) == 1
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert (answer["known"], len(answer["files"]), len(answer["failed"])) == (num_known, 4 - num_known, 1)
        assert err.splitlines() == [f"left out: {answer['failed'][0]}"]
        assert "broken.wav" in err
    assert captions_in(manifest) == EXPECTED
    write_sound(sounds / "broken.wav", 2, 0.5)
    assert main(words) == 0
    assert captions_in(manifest)["broken.wav"] == CAPTIONS[2]
    assert main(["caption", str(tmp_path / "absent.wav"), "--model", "known"]) == 2
    assert "no readable clip" in capsys.readouterr().err


def test_a_call_without_a_single_caption_leaves_no_manifest(sounds, tmp_path):
    (tmp_path / "bad" / "broken.wav").parent.mkdir()
    (tmp_path / "bad" / "broken.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(ValueError, match="no readable clip"):
        caption([tmp_path / "bad"], manifest=tmp_path / "bad" / "metadata.jsonl")
    write_sound(sounds / "mute.wav", 3, 0.9)
    assert len(caption([sounds / "mute.wav"], manifest=sounds / "metadata.jsonl").failed) == 1
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_file_without_words_is_no_pair(known, sounds, capsys):
    write_sound(sounds / "mute.wav", 3, 0.9)
    manifest = sounds / "metadata.jsonl"
    assert main(["caption", str(sounds), "--model", "known", "--manifest", str(manifest)]) == 1
    assert capsys.readouterr().err == f"left out: {sounds / 'mute.wav'}: the model wrote no words.\n"
    assert captions_in(manifest) == EXPECTED
    assert len(build_dataset(sounds, on_bad_example="error")) == 4
    assert main(["caption", str(sounds / "mute.wav"), "--model", "known"]) == 1
    assert capsys.readouterr().out == ""


def test_files_are_in_the_order_given_whatever_the_batches(sounds):
    asked = [sounds / name for name in ("inner/d.wav", "b.wav", "a.wav", "inner/c.wav")]
    for options in (None, ONE_BY_ONE):
        found = caption(asked, options=options)
        assert [file.file for file in found.files] == [str(path) for path in asked]
        assert [file.caption for file in found.files] == [CAPTIONS[row] for row in (5, 2, 1, 4)]
        assert [file.duration for file in found.files] == [0.3, 3.0, 0.7, 1.4]


def test_the_command_runs_a_saved_captioner_on_five_minutes(captioner_folder, tmp_path, capsys):
    generator = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", generator.standard_normal(300 * 8000) / 10, 8000)
    soundfile.write(tmp_path / "short.flac", generator.standard_normal((9000, 2)) / 10, 44100)
    words = ["caption", str(tmp_path), "--model", str(captioner_folder), "--device", "cpu", "--json"]
    words += ["--num_beams", "2", "--max_new_tokens", "5"]
    assert main([*words, "--manifest", str(tmp_path / "metadata.jsonl")]) == 0
    out, err = capsys.readouterr()
    long, short = json.loads(out)["files"]
    assert err == ""
    assert [piece["start"] for piece in long["pieces"]] == [30.0 * number for number in range(10)]  # its limit
    assert long["pieces"][-1]["end"] == long["duration"] == 300
    assert [len(piece["caption"].split()) <= 5 for piece in long["pieces"]] == [True] * 10
    model, processor = load_captioner(captioner_folder, "cpu")
    (alone,) = caption_files([tmp_path / "short.flac"], model, processor, num_beams=2, max_new_tokens=5).files
    assert alone.pieces == (CaptionPiece(0.0, short["duration"], short["caption"]),)
    assert {row.id: row.captions for row in build_dataset(tmp_path)} == {
        "long.wav": (long["caption"],), "short.flac": (short["caption"],)
    }  # fmt: skip


def test_a_caption_longer_than_the_decoder_is_refused_before_a_file_is_read(sounds, monkeypatch):
    config = tiny_captionstew_config(text_config=None, decoder_config={"max_position_embeddings": 7})
    model, processor = CaptionStewForConditionalGeneration(config).eval(), tiny_processor()
    model.generation_config.min_new_tokens = 7  # none ends early: the last token needs no position
    assert len(caption_files([sounds], model, processor, max_new_tokens=7, num_beams=2).files) == 4
    monkeypatch.setattr(RecordReader, "__iter__", lambda reader: pytest.fail("a file was read"))
    with pytest.raises(ValueError, match="`max_new_tokens` is 8, but the decoder has 7 positions"):
        caption_files([sounds], model, processor, max_new_tokens=8)


def test_models_that_write_no_captions_are_refused(sounds, tmp_path, capsys):
    for name, model in (("slap", SlapModel(tiny_slap_config())), ("m2d", M2dClapModel(tiny_m2d_clap_config()))):
        model.save_pretrained(tmp_path / name)
        tiny_processor().save_pretrained(tmp_path / name)
        capsys.readouterr()
        assert main(["caption", str(sounds), "--model", str(tmp_path / name)]) == 2
        out, err = capsys.readouterr()
        assert "is no captioner" in err
        assert "Give the folder captioner/ that a training run with a caption loss writes" in err
        assert (out, err.count("\n")) == ("", 1)
    assert main(["caption", str(sounds), "--model", str(tmp_path / "absent")]) == 2
    assert "is not a folder. Give the folder that a training run exported (runs/NAME/cap" in capsys.readouterr().err
    tiny_slap_config().save_pretrained(tmp_path / "run" / "captioner")
    assert main(["caption", str(sounds), "--model", str(tmp_path / "run")]) == 2
    assert f"Did you mean '{tmp_path / 'run' / 'captioner'}'?" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"a SlapModel\) writes no captions.*folder captioner/"):
        caption_files([sounds], SlapModel(tiny_slap_config()), tiny_processor())
    with pytest.raises(ValueError, match=r"`processor` is missing beside a loaded TableCaptioner\. Pass it too"):
        caption_files([sounds], TableCaptioner())
    with pytest.raises(ValueError, match="`num_beams` must be at least 1, got 0"):
        caption([sounds], num_beams=0)
    with pytest.raises(FileNotFoundError, match="`files` names no sound file"):
        caption([])

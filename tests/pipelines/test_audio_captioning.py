# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The pipeline on a captioner whose captions are known, on every form of audio, and on saved captioners."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from caption_fakes import CAPTIONS, CaptionProcessor, TableCaptioner
from evaluation_fakes import SAMPLING_RATE, waveform
from tiny import tiny_captionstew_config, tiny_m2d_clap_config, tiny_processor, tiny_slap_config
from transformers import GenerationConfig, pipeline

from hf_audiolang import (
    AudioLangProcessor,
    CaptionStewForConditionalGeneration,
    LogMelFeatureExtractor,
    M2dClapModel,
    SlapForConditionalGeneration,
    SlapModel,
)
from hf_audiolang.captioning import caption_files
from hf_audiolang.data.audio_io import AudioError
from hf_audiolang.pipelines import AudioCaptioningPipeline

TASK = "audio-captioning"
WAVEFORM = waveform(2, 0.7)
TEXT = {"text": "rain falls"}
MODELS = {
    "slap": lambda: SlapForConditionalGeneration(tiny_slap_config()),
    "captionstew": lambda: CaptionStewForConditionalGeneration(tiny_captionstew_config(text_config=None)),
}


class PipelineCaptioner(TableCaptioner):
    """The captioner of known captions with what transformers asks of a model that generates."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.generation_config = GenerationConfig(max_new_tokens=127)

    def can_generate(self):
        return True


def make_captioner(**defaults):
    processor = CaptionProcessor(max_seconds=2.0)
    for part in (processor.tokenizer, processor.feature_extractor):  # transformers wants to know before it batches
        part.pad_token_id, part.padding_value, part.padding_side = 0, 0.0, "right"
    return AudioCaptioningPipeline(model=PipelineCaptioner(), processor=processor, task=TASK, device="cpu", **defaults)


@pytest.fixture
def captioner():
    return make_captioner()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    folders = {name: tmp_path_factory.mktemp("captioners") / name for name in MODELS}
    for name, folder in folders.items():
        MODELS[name]().save_pretrained(folder)
        tiny_processor().save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).standard_normal(24000).astype(np.float32) / 10  # 1.5 s at 16 kHz


def settings_of(call):
    return {name: value for name, value in call.items() if name not in ("shape", "training")}


def as_file(path):
    soundfile.write(path, WAVEFORM, SAMPLING_RATE, subtype="FLOAT")
    return path


def as_bytes():
    file = io.BytesIO()
    soundfile.write(file, WAVEFORM, SAMPLING_RATE, subtype="FLOAT", format="WAV")
    return file.getvalue()


def as_decoder():
    samples = SimpleNamespace(data=torch.from_numpy(WAVEFORM)[None], sample_rate=SAMPLING_RATE)
    return SimpleNamespace(get_all_samples=lambda: samples)


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp: WAVEFORM,
        lambda tmp: torch.from_numpy(WAVEFORM),
        lambda tmp: str(as_file(tmp / "a.wav")),
        lambda tmp: as_file(tmp / "a.wav"),
        lambda tmp: as_bytes(),
        lambda tmp: {"array": WAVEFORM, "sampling_rate": SAMPLING_RATE},
        lambda tmp: {"array": np.stack([WAVEFORM, WAVEFORM]), "sampling_rate": SAMPLING_RATE},
        lambda tmp: {"bytes": as_bytes(), "path": None},
        lambda tmp: as_decoder(),
    ],
    ids=["array", "tensor", "path", "Path", "bytes", "dict", "stereo", "row", "decoder"],
)
def test_each_form_of_audio_gives_its_caption(captioner, tmp_path, make):
    assert captioner(make(tmp_path)) == TEXT
    assert [call["shape"] for call in captioner.model.calls] == [(1, 70)]


def test_another_rate_is_resampled(captioner):
    captioner({"array": np.zeros(400, dtype=np.float32), "sampling_rate": 4 * SAMPLING_RATE})
    assert captioner.model.calls[0]["shape"] == (1, 100)


def test_a_list_gives_a_caption_for_each_alone_or_in_batches(captioner, tmp_path):
    rows = [4, 0, 3, 2, 5]
    sounds = [waveform(row, 0.3 + 0.2 * place) for place, row in enumerate(rows)]
    sounds[3] = as_file(tmp_path / "a.wav")
    expected = [{"text": CAPTIONS[row]} for row in rows]
    assert captioner(sounds) == expected
    assert len(captioner.model.calls) == 5
    assert captioner(sounds, batch_size=2) == expected
    assert [call["shape"][0] for call in captioner.model.calls[5:]] == [2, 2, 1]
    assert list(captioner((sound for sound in sounds), batch_size=3)) == expected
    assert captioner([WAVEFORM]) == [TEXT]
    assert not any(call["training"] for call in captioner.model.calls)


def test_parameters_of_a_call_reach_generate_and_count_more_than_those_of_the_pipeline(captioner):
    usual = {"num_beams": 4, "max_new_tokens": 64}
    captioner(WAVEFORM)
    assert settings_of(captioner.model.calls[-1]) == usual
    sampled = {"num_beams": 1, "do_sample": True, "temperature": 0.7, "max_new_tokens": 5}
    captioner([WAVEFORM], **sampled)
    assert settings_of(captioner.model.calls[-1]) == sampled
    captioner(WAVEFORM)
    assert settings_of(captioner.model.calls[-1]) == usual  # nothing stays of the call before
    captioner(WAVEFORM, max_length=12)
    assert settings_of(captioner.model.calls[-1]) == {"num_beams": 4, "max_length": 12}
    captioner(WAVEFORM, max_length=None)
    assert captioner.model.calls[-1]["max_new_tokens"] == 64
    captioner.model.generation_config.max_new_tokens = 11  # a model that can write no more
    captioner(WAVEFORM)
    assert settings_of(captioner.model.calls[-1]) == {"num_beams": 4, "max_new_tokens": 11}
    given = make_captioner(num_beams=2, max_new_tokens=7)
    given(WAVEFORM, num_beams=3)
    assert settings_of(given.model.calls[-1]) == {"num_beams": 3, "max_new_tokens": 7}
    given(WAVEFORM, max_length=12)  # counts more than the pipeline's new tokens, which `generate` would prefer
    assert settings_of(given.model.calls[-1]) == {"num_beams": 2, "max_length": 12}
    given(WAVEFORM, generation_config=GenerationConfig(max_new_tokens=6, num_beams=5))
    config = given.model.calls[-1]["generation_config"]
    assert (config.max_new_tokens, config.num_beams) == (6, 5)


def test_a_long_recording_has_the_captions_of_its_pieces(captioner):
    long = np.concatenate([waveform(row, 1.5) for row in (2, 4, 4)])  # 4.5 s, the extractor takes 2.0
    assert captioner(long) == {"text": "rain falls then a bell rings then a dog barks"}
    found = captioner([WAVEFORM, long], return_timestamps=True, batch_size=2)
    assert found[0] == TEXT | {"chunks": [{"timestamp": (0.0, 0.7), **TEXT}]}
    assert [chunk["timestamp"] for chunk in found[1]["chunks"]] == [(0.0, 1.5), (1.5, 3.0), (3.0, 4.5)]
    assert [chunk["text"] for chunk in found[1]["chunks"]] == [CAPTIONS[row] for row in (2, 4, 4)]
    assert captioner(long, long_audio="crop", max_seconds=1.0) == TEXT
    assert captioner.model.calls[-1]["shape"] == (1, 100)
    cropping = make_captioner(long_audio="crop")
    assert cropping(long[150:]) == {"text": CAPTIONS[4]}
    assert cropping.model.calls[-1]["shape"] == (1, 200)


def test_what_cannot_be_done_is_refused_with_what_to_do(captioner):
    with pytest.raises(TypeError, match=r"Unknown parameter `num_beam` .*'return_timestamps'.*such as `num_beams`"):
        captioner("absent.wav", num_beam=2)
    with pytest.raises(TypeError, match="`beams`"):
        make_captioner(beams=2)
    for name in ("num_return_sequences", "return_dict_in_generate"):
        for refused in (lambda given: captioner("absent.wav", **given), lambda given: make_captioner(**given)):
            with pytest.raises(ValueError, match=rf"`{name}` is 3, but .* call `model.generate`"):
                refused({name: 3})
    assert captioner(WAVEFORM, num_return_sequences=1) == TEXT
    with pytest.raises(ValueError, match="`max_seconds` must be positive, got -1"):
        captioner("absent.wav", max_seconds=-1)
    with pytest.raises(ValueError, match=r"Unknown `long_audio` 'mean'\. Choose one of"):
        captioner("absent.wav", long_audio="mean")
    with pytest.raises(AudioError, match=r"`absent.wav` does not exist"):
        captioner("absent.wav")
    with pytest.raises(TypeError, match="no known form"):
        captioner(7)


def test_models_that_write_no_captions_are_refused(tmp_path):
    parts = {"processor": tiny_processor(), "device": "cpu"}
    with pytest.raises(ValueError, match=r"a SlapModel\) writes no captions.*folder captioner/"):
        pipeline(TASK, model=SlapModel(tiny_slap_config()), **parts)
    M2dClapModel(tiny_m2d_clap_config()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="AutoModelForSpeechSeq2Seq"):
        pipeline(TASK, model=str(tmp_path), **parts)
    with pytest.raises(ValueError, match="Pass `feature_extractor` and `tokenizer`, or `processor`"):
        pipeline(TASK, model=MODELS["slap"](), device="cpu")


@pytest.mark.parametrize("family", list(MODELS))
def test_a_folder_gives_what_its_parts_its_files_and_generate_give(folders, family, noise, tmp_path):
    folder = folders[family]
    given = {"num_beams": 3, "max_new_tokens": 8}
    found = pipeline(TASK, model=str(folder), device="cpu")(noise, **given)
    assert 0 < len(found["text"].split()) <= 8
    model, processor = type(MODELS[family]()).from_pretrained(folder).eval(), tiny_processor()
    inputs = processor.feature_extractor([noise], sampling_rate=16000, return_tensors="pt")
    ids = model.generate(**inputs, **given)
    assert processor.tokenizer.batch_decode(ids, skip_special_tokens=True) == [found["text"]]
    parts = {"tokenizer": processor.tokenizer, "feature_extractor": processor.feature_extractor}
    for passed in (parts, {"processor": processor}, {"processor": str(folder)}):
        assert pipeline(TASK, model=model, device="cpu", **passed)(noise, **given) == found
    soundfile.write(tmp_path / "noise.wav", noise, 16000, subtype="FLOAT")
    (file,) = caption_files([tmp_path], folder).files  # both by their defaults
    assert pipeline(TASK, model=str(folder), device="cpu")(tmp_path / "noise.wav") == {"text": file.caption}
    other = AudioLangProcessor(LogMelFeatureExtractor.from_preset("slap", mean=3.0, std=1.0), processor.tokenizer)
    # said by the caller, it counts more than the one in the folder
    assert pipeline(TASK, model=str(folder), processor=other, device="cpu")(noise, **given) != found


def test_a_batch_of_different_lengths_gives_what_each_gives_alone(folders, noise):
    captioner = pipeline(TASK, model=str(folders["captionstew"]), device="cpu", max_new_tokens=6)
    sounds = [noise, noise[:3001], noise[5000:16000]]
    together = captioner(sounds, batch_size=3)
    assert together == [captioner(sound) for sound in sounds]
    assert len({found["text"] for found in together}) > 1


@pytest.mark.parametrize("family", list(MODELS))
def test_max_length_is_the_longest_caption(folders, family, noise, monkeypatch):
    captioner, written = pipeline(TASK, model=str(folders[family]), device="cpu", max_new_tokens=11), []
    generate = captioner.model.generate

    def watched(**given):
        written.append(generate(**given))
        return written[-1]

    monkeypatch.setattr(captioner.model, "generate", watched)
    found = captioner(noise, max_length=4)
    usual = captioner(noise)
    assert [ids.shape[1] for ids in written] == [4, 12]  # the start token first
    assert len(found["text"].split()) < 4 < len(usual["text"].split())
    by_default = pipeline(TASK, model=str(folders[family]), device="cpu", max_length=4)
    assert by_default(noise) == found


def test_sampling_follows_the_seed(folders, noise):
    captioner = pipeline(TASK, model=str(folders["captionstew"]), device="cpu")

    def sample(seed):
        torch.manual_seed(seed)
        return captioner(noise, do_sample=True, num_beams=1, max_new_tokens=12)

    assert sample(1) == sample(1)
    assert len({sample(seed)["text"] for seed in range(4)}) > 1


def test_a_saved_pipeline_is_a_captioner_folder_without_code(folders, noise, tmp_path):
    captioner = pipeline(TASK, model=str(folders["slap"]), device="cpu")
    captioner.save_pretrained(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("*.py"))
    again = pipeline(TASK, model=str(tmp_path / "saved"), device="cpu")
    assert isinstance(again, AudioCaptioningPipeline)
    assert again(noise, max_new_tokens=9) == captioner(noise, max_new_tokens=9)

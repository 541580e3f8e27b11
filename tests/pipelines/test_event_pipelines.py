"""The two pipelines on a model whose frames are known, on every form of audio, and on saved folders."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableModel, TableProcessor
from test_clap_surface import clap  # noqa: F401 - a fixture
from tiny import tiny_processor, tiny_slap_audio_config, tiny_slap_config, tiny_tokenizer
from transformers import pipeline

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, SlapAudioModel, SlapModel
from hf_audiolang.data.audio_io import AudioError
from hf_audiolang.detection import detect_files
from hf_audiolang.evaluation.events import EventRule
from hf_audiolang.evaluation.frame_scores import FrameScoreOptions
from hf_audiolang.pipelines import AudioGroundingPipeline, ZeroShotSoundEventDetectionPipeline

DETECTION, GROUNDING = "zero-shot-sound-event-detection", "audio-grounding"
WAVEFORM = np.repeat(np.array([1, 1, 3, 3, 3, 1, 2], dtype=np.float32) / 100, FRAME_SAMPLES)  # a frame is 0.1 s
EVENTS = [
    {"label": "sound 3", "score": 1.0, "start": 0.2, "end": 0.5},
    {"label": "sound 2", "score": 1.0, "start": 0.6, "end": 0.7},
]


class OrthogonalModel(TableModel):
    """A frame of value k / 100 has cosine 1 with a text that ends in k, and 0 with all others."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__(np.eye(9), np.eye(9))


def make_detector(**defaults):
    processor = TableProcessor()
    for part in (processor.tokenizer, processor.feature_extractor):  # transformers wants to know before it batches
        part.pad_token_id, part.padding_value, part.padding_side = 0, 0.0, "right"
    return ZeroShotSoundEventDetectionPipeline(
        model=OrthogonalModel(), processor=processor, task=DETECTION, device="cpu", **defaults
    )


@pytest.fixture(scope="module")
def detector():
    return make_detector(join_seconds=0.05)


@pytest.fixture(scope="module")
def grounder():
    return AudioGroundingPipeline(model=OrthogonalModel(), processor=TableProcessor(), task=GROUNDING, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pipelines") / "slap"
    SlapModel(tiny_slap_config()).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).standard_normal(24000).astype(np.float32) / 10  # 1.5 s at 16 kHz


def as_file(path):
    soundfile.write(path, WAVEFORM, SAMPLING_RATE, subtype="FLOAT")
    return str(path)


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
        lambda tmp: as_file(tmp / "a.wav"),
        lambda tmp: tmp / "a.wav" if as_file(tmp / "a.wav") else None,
        lambda tmp: as_bytes(),
        lambda tmp: {"array": WAVEFORM, "sampling_rate": SAMPLING_RATE},
        lambda tmp: {"array": np.stack([WAVEFORM, WAVEFORM]), "sampling_rate": SAMPLING_RATE},
        lambda tmp: {"array": np.repeat(WAVEFORM, 2), "sampling_rate": 2 * SAMPLING_RATE},
        lambda tmp: {"bytes": as_bytes(), "path": None},
        lambda tmp: as_decoder(),
    ],
    ids=["array", "tensor", "path", "Path", "bytes", "dict", "stereo", "resampled", "row", "decoder"],
)
def test_each_form_of_audio_gives_events_in_seconds(detector, tmp_path, make):
    assert detector(make(tmp_path), candidate_labels=["sound 2", "sound 3", "sound 8"]) == EVENTS


def test_a_list_gives_a_list_for_each_and_its_texts_are_embedded_once(detector, tmp_path):
    sounds = [WAVEFORM[:50], as_file(tmp_path / "a.wav"), np.full(30, 0.05, dtype=np.float32)]
    before = len(detector.model.text_batches)
    found = detector(sounds, candidate_labels=["sound 2", "sound 3"])
    assert found == [EVENTS[:1], EVENTS, []]
    assert len(detector.model.text_batches) == before + 1
    assert detector(sounds, candidate_labels=["sound 2", "sound 3"], batch_size=2) == found
    streamed = detector((sound for sound in sounds), candidate_labels=["sound 2", "sound 3"])
    assert list(streamed) == found


def test_parameters_of_a_call_count_more_than_those_of_the_pipeline():
    detector = make_detector(candidate_labels=["sound 3", "sound 1"], min_seconds=0.25, join_seconds=0.0)
    assert [(event["label"], event["end"]) for event in detector(WAVEFORM)] == [("sound 3", 0.5)]
    assert len(detector(WAVEFORM, min_seconds=0.0)) == 3
    assert len(detector(WAVEFORM)) == 1  # the defaults are still there
    joined = detector(WAVEFORM, min_seconds=0.0, join_seconds=0.5, candidate_labels=["sound 1"])
    assert [(event["start"], event["end"]) for event in joined] == [(0.0, 0.6)]
    smooth = detector(WAVEFORM, median_seconds=0.3, min_seconds=0.0)
    assert smooth[-1]["label"] == "sound 3"  # the single frame of sound 1 is smoothed away


def test_windows_reach_the_model(detector, monkeypatch):
    lengths, model = [], detector.model
    original = model.get_audio_frame_features

    def remember(input_features, input_features_mask):
        lengths.append(input_features.shape[1] // FRAME_SAMPLES)
        return original(input_features, input_features_mask)

    monkeypatch.setattr(model, "get_audio_frame_features", remember)
    words = ["sound 2", "sound 3"]
    assert detector(WAVEFORM, candidate_labels=words) == EVENTS
    assert lengths == [7]
    assert detector(WAVEFORM, candidate_labels=words, window_seconds=0.3, overlap=0.34) == EVENTS
    assert lengths[1:] == [3]  # one batch of windows of three frames


def test_grounding_takes_phrases_word_for_word(grounder):
    (event,) = grounder(WAVEFORM, text="a sound_of 3")
    assert event == EVENTS[0] | {"label": "a sound_of 3"}
    assert grounder.model.text_batches[-1] == (1, 3)  # two blanks in it: `_` is no third one
    events = grounder([WAVEFORM], text=["first 3", "then 2"])
    assert [[event["label"] for event in found] for found in events] == [["first 3", "then 2"]]


def test_detection_reads_underscores_as_blanks_and_fills_the_template(detector):
    assert detector(WAVEFORM, candidate_labels=["sound_of_3"])[0]["label"] == "sound_of_3"
    assert detector.model.text_batches[-1] == (1, 3)
    detector(WAVEFORM, candidate_labels=["sound_of_3"], hypothesis_template="this is {}")
    assert detector.model.text_batches[-1] == (1, 5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"`candidate_labels` is missing\. Give what to listen for"),
        ({"candidate_labels": []}, "Give at least one"),
        ({"candidate_labels": "dog 1"}, "must be a list of texts, got 'dog 1'"),
        ({"candidate_labels": ["dog 1", " "]}, "blank text at position 1"),
        ({"candidate_labels": ["dog 1", "dog 1"]}, r"\['dog 1'\] more than once"),
        ({"candidate_labels": ["dog " * 70 + "1"]}, "tokens"),
        ({"candidate_labels": ["dog 1"], "threshold": 1.5}, r"similarity in \(0, 1\), got 1.5"),
        ({"candidate_labels": ["dog 1"], "overlap": 1}, r"`overlap` must lie in \[0, 1\)"),
        ({"candidate_labels": ["dog 1"], "hypothesis_template": "a sound"}, "no place for the label"),
    ],
)
def test_faulty_parameters_are_refused_before_audio_is_read(detector, parameters, message):
    with pytest.raises(ValueError, match=message):
        detector("absent.wav", **parameters)


def test_other_refusals_say_what_to_do(detector):
    with pytest.raises(TypeError, match=r"Unknown parameter `treshold` .*'threshold', 'median_seconds'"):
        detector(WAVEFORM, candidate_labels=["dog 1"], treshold=0.2)
    with pytest.raises(TypeError, match="`treshold`"):
        make_detector(treshold=0.2)
    with pytest.raises(ValueError, match="got 0"):
        make_detector(threshold=0)
    with pytest.raises(AudioError, match=r"`absent.wav` does not exist"):
        detector("absent.wav", candidate_labels=["dog 1"])
    with pytest.raises(TypeError, match="no known form"):
        detector(7, candidate_labels=["dog 1"])
    with pytest.raises(ValueError, match="Pass `feature_extractor` and `tokenizer`, or `processor`"):
        pipeline(DETECTION, model=SlapModel(tiny_slap_config()), device="cpu")


def test_a_folder_gives_what_its_parts_give_and_what_files_give(folder, noise, tmp_path):
    words = {"candidate_labels": ["dog", "rain"], "threshold": 0.05}
    found = pipeline(DETECTION, model=str(folder), device="cpu")(noise, **words)
    assert found
    model, processor = SlapModel.from_pretrained(folder), tiny_processor()
    parts = {"tokenizer": processor.tokenizer, "feature_extractor": processor.feature_extractor}
    for given in (parts, {"processor": processor}, {"processor": str(folder)}):
        assert pipeline(DETECTION, model=model, device="cpu", **given)(noise, **words) == found
    soundfile.write(tmp_path / "noise.wav", noise, 16000, subtype="FLOAT")
    (file,) = detect_files([tmp_path], ["dog", "rain"], folder, rule=EventRule(0.05)).files
    assert [event.to_dict() for event in file.events] == found
    other = AudioLangProcessor(LogMelFeatureExtractor.from_preset("slap", mean=3.0, std=1.0), tiny_tokenizer())
    # said by the caller, it counts more than the one in the folder
    assert pipeline(DETECTION, model=str(folder), processor=other, device="cpu")(noise, **words) != found


def test_a_saved_pipeline_is_a_model_folder_without_code(folder, noise, tmp_path):
    grounder = pipeline(GROUNDING, model=str(folder), device="cpu")
    grounder.save_pretrained(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("*.py"))
    again = pipeline(GROUNDING, model=str(tmp_path / "saved"), device="cpu")
    assert isinstance(again, AudioGroundingPipeline)
    assert again(noise, text="a dog", threshold=0.05) == grounder(noise, text="a dog", threshold=0.05)


def test_precision_follows_the_pipeline(folder, noise):
    words = {"candidate_labels": ["dog"], "threshold": 0.05}
    exact = pipeline(DETECTION, model=str(folder), device="cpu")(noise, **words)
    rough_pipeline = pipeline(DETECTION, model=str(folder), device="cpu", dtype=torch.bfloat16)
    assert next(rough_pipeline.model.parameters()).dtype == torch.bfloat16
    rough = rough_pipeline(noise, **words)
    assert rough != exact
    assert max(event["score"] for event in rough) == pytest.approx(max(event["score"] for event in exact), abs=0.05)


def test_a_model_without_text_is_refused(tmp_path):
    SlapAudioModel(tiny_slap_audio_config()).save_pretrained(tmp_path)
    tiny_processor().feature_extractor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no text encoder"):
        pipeline(DETECTION, model=str(tmp_path), device="cpu")


def test_clap_of_transformers_is_asked_about_clips(clap, tmp_path):  # noqa: F811
    model, processor = clap
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    noise = {"array": np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 10, "sampling_rate": 16000}
    detector = pipeline(DETECTION, model=str(tmp_path), device="cpu")
    found = detector(noise, candidate_labels=["a dog", "rain"], threshold=0.01, join_seconds=0, clip_hop_seconds=0.4)
    times = {event[name] for event in found for name in ("start", "end")}
    assert times
    assert times <= {0.0, 0.4, 0.8, 1.0}
    options = FrameScoreOptions(clip_hop_seconds=0.4)
    soundfile.write(tmp_path / "noise.wav", noise["array"], 16000, subtype="FLOAT")
    (file,) = detect_files([tmp_path / "noise.wav"], ["a dog", "rain"], model, processor, options=options).files
    best = max(file.highest_scores(), key=file.highest_scores().get)
    assert best in {event["label"] for event in found}

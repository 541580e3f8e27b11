"""Explanations: axes in seconds and Hz, what is cut off, refusals; and the picture of one."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny import tiny_ast_config, tiny_m2d_clap_config, tiny_slap_config, tiny_tokenizer
from torch import nn
from transformers.audio_utils import mel_filter_bank

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, M2dClapModel, SlapModel
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.explain import explain, explain_files
from hf_audiolang.evaluation.figures_attention import plot_attention
from hf_audiolang.evaluation.figures_style import mel_centres_hz

RATE = 16000


def record(waveform, name="clip"):
    return Record(id=name, audio=np.asarray(waveform, dtype=np.float32), sampling_rate=RATE)


def noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def processor():
    return AudioLangProcessor(LogMelFeatureExtractor.from_preset("m2d_clap"), tiny_tokenizer())


@pytest.fixture(scope="module")
def model():
    """Positions for 112 frames, 1.12 s; weights so wide that attention is far from even."""
    torch.manual_seed(0)
    model = M2dClapModel(tiny_m2d_clap_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


class LoudnessModel(nn.Module):
    """Looks where it is loud: attention is the softmax of the mean level of each patch of 16 x 16."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.config = SimpleNamespace(
            audio_config=SimpleNamespace(
                max_frames=112, patch_frames=16, patch_mel_bins=16, feature_frame_rate_hz=100.0
            )
        )

    def get_projector_attention(self, input_features, input_features_mask=None):
        columns = input_features.shape[1] // 16
        patches = input_features[:, : 16 * columns].unflatten(1, (columns, 16)).unflatten(3, (5, 16))
        levels = patches.mean((2, 4)).transpose(1, 2)  # (B, bands, columns)
        return (self.scale * levels).flatten(1).softmax(1).view_as(levels)


def test_times_and_frequencies_are_those_of_the_sound(processor):
    waveform = 0.001 * noise(1.1)
    burst = slice(round(0.66 * RATE), round(0.78 * RATE))
    waveform[burst] += np.sin(2 * np.pi * 3000 * np.arange(waveform.size)[burst] / RATE)
    found = explain(LoudnessModel(), processor, record(waveform))
    band, column = np.unravel_index(found.attention.argmax(), found.attention.shape)
    assert found.column_seconds[column] == pytest.approx(0.72)  # frames 64 to 80
    assert found.band_hz[band] == pytest.approx(3171, abs=2)  # mel 31.79 on Slaney's scale, between bins 55 and 56
    frame, mel_bin = np.unravel_index(found.log_mel_db.argmax(), found.log_mel_db.shape)
    assert 0.66 <= found.frame_seconds[frame] <= 0.78
    assert found.mel_hz[mel_bin] == pytest.approx(3000, rel=0.03)
    assert found.attention.shape == (5, 6)
    assert len(found.frame_seconds) == 111


def test_level_is_in_decibels(processor):
    found = explain(LoudnessModel(), processor, record(np.zeros(8000)))
    np.testing.assert_allclose(found.log_mel_db, 10 * np.log10(np.finfo(np.float32).eps), atol=1e-4)


def test_mel_centres_are_the_peaks_of_the_filters():
    for preset in ("m2d_clap", "slap", "clap"):
        extractor = LogMelFeatureExtractor.from_preset(preset)
        numbers = {"min_frequency": extractor.f_min, "max_frequency": extractor.f_max}
        filters = mel_filter_bank(
            20001, extractor.feature_size, sampling_rate=extractor.sampling_rate, mel_scale=extractor.mel_scale,
            **numbers,
        )  # fmt: skip
        peaks = filters.argmax(0) * extractor.sampling_rate / 2 / 20000
        np.testing.assert_allclose(mel_centres_hz(extractor, extractor.feature_size), peaks, atol=3)


def test_attention_is_that_of_the_model(model, processor):
    waveform = noise(0.9)
    found = explain(model, processor, record(waveform))
    inputs = processor.feature_extractor([waveform], sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_projector_attention(**inputs)[0].numpy()
    np.testing.assert_allclose(found.attention, expected, atol=1e-6)
    assert found.attention.sum() == pytest.approx(1, abs=1e-5)
    assert found.attention.max() > 1.5 / found.attention.size  # control: not even


def test_long_clips_show_what_fits_into_the_model_and_say_so(model, processor):
    waveform = noise(2.5)
    found = explain(model, processor, record(waveform), captions=["a dog", "rain"])
    assert found.attention.shape == (5, 7)
    assert len(found.log_mel_db) == 112
    assert found.part == "first 1.12 s of 2.50 s"
    alone = explain(model, processor, record(waveform[: 112 * 160 - 1]), captions=["a dog", "rain"])
    assert alone.part == "1.12 s"
    np.testing.assert_allclose(found.attention, alone.attention, atol=1e-6)
    np.testing.assert_allclose(found.similarities, alone.similarities, atol=1e-6)
    shorter = explain(model, processor, record(waveform), max_seconds=0.5)
    assert shorter.part == "first 0.50 s of 2.50 s"
    assert shorter.attention.shape == (5, 4)
    with pytest.raises(ValueError, match="`max_seconds` must be positive, got -1"):
        explain(model, processor, record(waveform), max_seconds=-1)


def test_similarities_are_cosines_of_the_part_that_is_shown(model, processor):
    waveform, texts = noise(0.9), ["a dog barking", "siren"]
    found = explain(model, processor, record(waveform), captions=texts)
    with torch.no_grad():
        inputs = processor.feature_extractor([waveform], sampling_rate=RATE, return_tensors="pt")
        audio = model.get_audio_features(**inputs).pooler_output
        text = model.get_text_features(**processor.tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
    np.testing.assert_allclose(found.similarities, (audio @ text.T)[0].numpy(), atol=1e-5)
    assert abs(found.similarities[0] - found.similarities[1]) > 1e-3  # control


def test_models_without_such_attention_are_refused(processor):
    clip = record(noise(0.5))
    with pytest.raises(ValueError, match=r"`model` is a SlapModel, which has no projector attention.*M2D-CLAP"):
        explain(SlapModel(tiny_slap_config()), processor, clip)
    mean = M2dClapModel(tiny_m2d_clap_config(projector_config={"projector_type": "mean", "hidden_size": 24}))
    with pytest.raises(ValueError, match="Only the 'transformer' projector attends"):
        explain(mean, processor, clip)
    other = tiny_m2d_clap_config(audio_config=tiny_ast_config(), masked_weight=0.0, masking_ratio=0.0)
    with pytest.raises(ValueError, match=r"encoder 'native_audio' has no place.*M2D's encoder"):
        explain(M2dClapModel(other), processor, clip)
    no_text = M2dClapModel(tiny_m2d_clap_config(text_config=None))
    assert explain(no_text, processor.feature_extractor, clip).attention.shape == (5, 4)  # an extractor alone will do
    with pytest.raises(ValueError, match="has no text encoder"):
        explain(no_text, processor, clip, captions=["a dog"])


def test_unreadable_files_are_named_and_the_others_explained(model, processor, tmp_path):
    soundfile.write(tmp_path / "good.wav", noise(3.0), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF no sound")
    found, failed = explain_files(
        [tmp_path / "broken.wav", tmp_path / "good.wav", tmp_path / "absent.wav"], model, processor
    )
    assert [explanation.name for explanation in found] == [str(tmp_path / "good.wav")]
    assert found[0].total_seconds == pytest.approx(3.0)
    assert [message.split(":")[0] for message in failed] == [str(tmp_path / f"{n}.wav") for n in ("broken", "absent")]
    with pytest.raises(ValueError, match=r"no readable file, got 1.*broken\.wav"):
        explain_files([tmp_path / "broken.wav"], model, processor)


def test_arrays_come_back_from_the_file(model, processor, tmp_path):
    found = explain(model, processor, record(noise(0.7)), captions=["rain"])
    found.save_arrays(tmp_path / "new" / "clip.npz")
    with np.load(tmp_path / "new" / "clip.npz", allow_pickle=False) as stored:
        assert stored["shown_seconds"] == pytest.approx(0.7)
        for name in ("attention", "band_hz", "column_seconds", "log_mel_db", "mel_hz", "frame_seconds"):
            np.testing.assert_array_equal(stored[name], getattr(found, name))
    values = found.to_json()
    assert values["captions"] == [{"caption": "rain", "similarity": found.similarities[0]}]
    np.testing.assert_allclose(values["attention"], found.attention)
    assert len(values["column_seconds"]) == found.attention.shape[1]


def test_the_picture_shows_attention_over_the_log_mel(model, processor, tmp_path, drawn):
    texts = ["a dog", "rain", "siren"]
    found = explain(model, processor, record(noise(2.0), "folder/sound.wav"), captions=texts)
    assert plot_attention(found, tmp_path / "new" / "p.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    level_axes, attention_axes = (axes for axes in drawn[0].axes if axes.get_label() != "<colorbar>")
    (level,) = level_axes.images
    np.testing.assert_allclose(level.get_array(), found.log_mel_db.T - found.log_mel_db.max(), rtol=1e-5, atol=1e-4)
    assert level.get_extent() == [0, 1.12, -0.5, 79.5]
    attention = attention_axes.images[1]
    np.testing.assert_allclose(attention.get_array(), 100 * found.attention, rtol=1e-5)
    assert attention.get_extent() == pytest.approx([0, 1.12, -0.5, 79.5])
    alpha = attention.get_cmap()(np.array([0.0, 1.0]))[:, 3]
    assert alpha[0] == 0 < alpha[1] < 1  # the log-mel below stays visible
    assert attention_axes.get_xlabel() == "time (seconds)"
    assert attention_axes.get_xlim() == (0, 1.12)
    assert level_axes.get_title(loc="left") == "sound.wav"
    lines = [text.get_text() for text in level_axes.texts]
    ranked = [texts[i] for i in np.argsort(found.similarities)]  # drawn from below
    assert [line.split("“")[-1].rstrip("”") for line in lines[:-1]] == ranked
    assert lines[-1] == "first 1.12 s of 2.00 s"
    ticks = dict(zip([t.get_text() for t in level_axes.get_yticklabels()], level_axes.get_yticks(), strict=True))
    assert found.mel_hz[round(ticks["2"])] == pytest.approx(2000, rel=0.03)  # kHz on the mel axis


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("waveform", [np.zeros(8000), noise(0.02), noise(0.95)], ids=["silent", "short", "ragged"])
def test_pictures_of_unusual_clips(model, processor, tmp_path, drawn, waveform):
    found = explain(model, processor, record(waveform, "a name of many words " * 12), captions=["dog"] * 9)
    plot_attention(found, tmp_path / "p.png")
    axes = drawn[0].axes[1]
    assert axes.get_xlim()[1] == pytest.approx(len(found.log_mel_db) / 100)
    assert len(drawn[0].axes[0].get_title(loc="left")) <= 100
    assert drawn[0].axes[0].texts[0].get_text() == "and 3 more captions"

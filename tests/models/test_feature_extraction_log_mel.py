"""The front end against torchaudio, transformers and its definition in float64, and against itself in batches."""

import copy
import json
import logging
import re
import warnings

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from transformers import ASTFeatureExtractor, AutoFeatureExtractor, ClapFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from hf_audiolang.data import audio_io
from hf_audiolang.models import layers_log_mel
from hf_audiolang.models.feature_extraction_log_mel import PRESETS, LogMelFeatureExtractor, measure_statistics
from hf_audiolang.models.layers_log_mel import log_mel_batch, resample

SILENCE = float(np.log(np.float32(1.1920929e-07)))
LENGTHS = (16001, 5003, 401, 23999)
MEASURED = {"mean": -4.3, "std": 9.1}
MOSTLY = {"chirp": 5e-4}  # a loud tone leaves more bins nearly empty


def sound(kind: str, num_samples: int = 12345, rate: int = 16000, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=num_samples)
    times = np.arange(num_samples) / rate
    kinds = {
        "noise": 0.1 * noise,
        "offset": 0.3 + 0.01 * noise,
        "quiet": 1e-4 * noise,
        "chirp": 0.5 * np.sin(2 * np.pi * (150 + 900 * times) * times) + 1e-2 * noise,
        "silence": 0 * noise,
    }
    return kinds[kind].astype(np.float32)


def clips(lengths=LENGTHS, seed: int = 0) -> list[np.ndarray]:
    return [sound("noise", length, seed=seed + index) for index, length in enumerate(lengths)]


def features(extractor: LogMelFeatureExtractor, waveforms, **options) -> torch.Tensor:
    batch = extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
    return batch["input_features"]


def assert_log_mel_close(ours: torch.Tensor, reference: torch.Tensor, at_most: float = 1e-3, mostly: float = 1e-4):
    """Logarithms of nearly empty bins magnify float32 rounding: the bound on all values is wider than on 99.9 %."""
    assert ours.shape == reference.shape
    error = (ours.double() - torch.as_tensor(reference).double()).abs()
    assert float(error.max()) < at_most
    assert float(error.flatten().quantile(0.999)) < mostly


def naive(extractor: LogMelFeatureExtractor, waveform: np.ndarray) -> torch.Tensor:
    """(T, F) float64, frame by frame, straight from the definition."""
    e, x = extractor, waveform.astype(np.float64)
    if e.edges in ("reflect", "zeros"):
        x = np.pad(x, e.n_fft // 2, mode="reflect" if e.edges == "reflect" else "constant")
        start, num_frames = (e.n_fft - e.win_length) // 2, 1 + len(waveform) // e.hop_length
    elif e.edges == "mirror":
        x = np.pad(x, ((e.win_length - e.hop_length) // 2, e.win_length), mode="symmetric")
        start, num_frames = 0, (len(waveform) + e.hop_length // 2) // e.hop_length
    else:
        start, num_frames = 0, 1 + (len(waveform) - e.win_length) // e.hop_length
    is_symmetric = e.window_type.endswith("symmetric") or e.window_type == "povey"
    phase = 2 * np.pi * np.arange(e.win_length) / (e.win_length - is_symmetric)
    window = 0.54 - 0.46 * np.cos(phase) if "hamming" in e.window_type else 0.5 - 0.5 * np.cos(phase)
    window = np.abs(window) ** 0.85 if e.window_type == "povey" else window
    filters = mel_filter_bank(
        e.n_fft // 2 + 1,
        e.feature_size,
        e.f_min,
        e.f_max,
        e.sampling_rate,
        e.mel_norm,
        e.mel_scale,
        e.mel_scale == "kaldi",
    )
    rows = []
    for k in range(num_frames):
        frame = x[k * e.hop_length + start :][: e.win_length]
        frame = frame - frame.mean() if e.remove_dc else frame
        frame = frame - e.preemphasis * np.concatenate([frame[:1], frame[:-1]])
        mel = np.abs(np.fft.rfft(frame * window, e.n_fft)) ** 2 @ filters
        mel = mel + e.log_floor if e.log_rule == "add" else np.maximum(mel, e.log_floor)
        rows.append({"ln": np.log(mel), "log10": np.log10(mel), "db": 10 * np.log10(mel)}[e.log])
    return torch.from_numpy(np.stack(rows))


# --- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "offset", "quiet", "chirp", "silence"])
def test_slap_equals_kaldi_fbank(kind):
    waveform = sound(kind)
    reference = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(waveform)[None], num_mel_bins=64, sample_frequency=16000, window_type="hanning", dither=0.0
    )
    assert_log_mel_close(features(LogMelFeatureExtractor(), waveform)[0], reference, mostly=MOSTLY.get(kind, 1e-4))
    normalised = features(LogMelFeatureExtractor(**MEASURED), waveform)[0]
    torch.testing.assert_close(normalised, (reference + 4.3) / 9.1, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["noise", "offset", "quiet", "chirp"])
def test_captionstew_equals_kaldi_fbank_without_snipped_edges(kind):
    extractor = LogMelFeatureExtractor.from_preset("captionstew")
    for num_samples in (1360, 12345, 12400, 12479, 12480):
        waveform = sound(kind, num_samples)
        reference = torchaudio.compliance.kaldi.fbank(
            torch.from_numpy(waveform)[None],
            num_mel_bins=80,
            sample_frequency=16000,
            dither=0.0,
            snip_edges=False,
            low_freq=20.0,
            high_freq=-400.0,
        )
        assert len(reference) == (num_samples + 80) // 160
        assert_log_mel_close(features(extractor, waveform)[0], reference, mostly=MOSTLY.get(kind, 1e-4))


@pytest.mark.parametrize("num_samples", [15999, 16079, 16080, 24001, 33333])
def test_captionstew_equals_kaldi_fbank_on_tones_and_silence(num_samples):
    """A tone leaves many bins nearly empty: there both differ by about 5e-4 from float64."""
    extractor = LogMelFeatureExtractor.from_preset("captionstew")
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / 16000)).astype(np.float32)
    for waveform, at_most in ((tone, 1e-3), (0 * tone, 1e-6)):
        reference = torchaudio.compliance.kaldi.fbank(
            torch.from_numpy(waveform)[None],
            num_mel_bins=80,
            sample_frequency=16000,
            dither=0.0,
            snip_edges=False,
            low_freq=20.0,
            high_freq=-400.0,
        )
        ours = features(extractor, waveform)[0]
        assert ours.shape == ((num_samples + 80) // 160, 80)
        assert (ours - reference).abs().max() < at_most
        assert (ours - naive(extractor, waveform)).abs().max() < at_most


@pytest.mark.parametrize("num_samples", [1, 119, 399, 400, 1359, 1360])
def test_captionstew_fills_short_clips_to_the_nine_frames_of_its_encoder(num_samples):
    """Also below one window of 400 samples, where torchaudio gives up; batch mates and their padding do not matter."""
    extractor = LogMelFeatureExtractor.from_preset("captionstew")
    clip, other = sound("noise", num_samples), sound("noise", 5003, seed=1)
    batch = extractor([clip, other], sampling_rate=16000, return_tensors="pt")
    assert batch["input_features_mask"].sum(1).tolist() == [9, 31]
    exact = naive(extractor, np.pad(clip, (0, 1360 - num_samples)))
    torch.testing.assert_close(batch["input_features"][0, :9].double(), exact, rtol=0, atol=3e-4)
    assert (batch["input_features"][0, 9:] == np.float32(np.log(1e-10))).all()
    assert extractor.num_frames(num_samples) == 9


def test_hamming_windows_get_the_first_sample_of_kaldi():
    waveform = sound("noise")
    reference = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(waveform)[None], num_mel_bins=64, sample_frequency=16000, window_type="hamming", dither=0.0
    )
    ours = features(LogMelFeatureExtractor(window_type="hamming_symmetric"), waveform)[0]
    assert_log_mel_close(ours, reference)
    plain = features(LogMelFeatureExtractor(window_type="hann_symmetric"), waveform)[0]
    assert (plain - reference).abs().max() > 0.1  # control: another window is far off


@pytest.mark.parametrize("kind", ["noise", "quiet", "chirp"])
def test_m2d_clap_equals_torchaudio_mel_spectrogram(kind):
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap")
    transform = torchaudio.transforms.MelSpectrogram(
        16000, 400, 400, 160, f_min=50.0, f_max=8000.0, n_mels=80, norm="slaney", mel_scale="slaney"
    )
    waveform = torch.from_numpy(sound(kind))
    reference = (transform(waveform) + 1.1920929e-07).log().T
    ours = features(extractor, waveform)[0]
    assert_log_mel_close(ours * extractor.std + extractor.mean, reference)
    torch.testing.assert_close(ours, (reference + 7.261779308319092) / 4.3511505126953125, rtol=0, atol=3e-4)


@pytest.mark.parametrize(("preset", "rate", "hop", "f_min"), [("clap", 48000, 480, 0), ("mga_clap", 32000, 320, 50)])
def test_db_presets_equal_clap_feature_extractor(preset, rate, hop, f_min):
    clap = ClapFeatureExtractor(
        sampling_rate=rate, hop_length=hop, frequency_min=f_min, truncation="rand_trunc", padding="pad", max_length_s=1
    )
    waveform = sound("chirp", rate // 2, rate)
    extractor = LogMelFeatureExtractor.from_preset(preset, min_seconds=1.0)
    reference = clap(waveform, sampling_rate=rate, return_tensors="pt")["input_features"][0, 0]
    # 1e-2 dB is 1e-3 in natural logarithms times 4.34, doubled for the float32 floor of a pure tone
    assert_log_mel_close(features(extractor, waveform)[0], reference, at_most=1e-2, mostly=1e-3)


def test_ast_numbers_equal_ast_feature_extractor():
    ast = ASTFeatureExtractor(max_length=98)
    waveform = sound("noise", 16000)
    extractor = LogMelFeatureExtractor(feature_size=128, mean=ast.mean, std=2 * ast.std)
    reference = ast(waveform, sampling_rate=16000, return_tensors="pt")["input_values"]
    torch.testing.assert_close(features(extractor, waveform), reference, rtol=0, atol=2e-4)


@pytest.mark.parametrize("edges", ["snip", "mirror", "reflect", "zeros"])
@pytest.mark.parametrize("window_type", ["hann", "hann_symmetric", "hamming", "hamming_symmetric", "povey"])
@pytest.mark.parametrize("is_kaldi", [True, False])
def test_all_combinations_follow_their_definition(edges, window_type, is_kaldi):
    kaldi = {"preemphasis": 0.9, "remove_dc": True, "mel_scale": "kaldi", "mel_norm": None, "log_rule": "clamp"}
    other = {"preemphasis": 0.0, "remove_dc": False, "mel_scale": "htk", "mel_norm": "slaney", "log_rule": "add"}
    extractor = LogMelFeatureExtractor(
        feature_size=23,
        n_fft=300,
        win_length=251,
        hop_length=97,
        window_type=window_type,
        edges=edges,
        log="log10",
        f_max=7000.0,
        **(kaldi if is_kaldi else other),
    )
    waveform = sound("noise", 2345) + np.float32(0.05)
    assert_log_mel_close(features(extractor, waveform)[0], naive(extractor, waveform))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_follow_their_definition(preset):
    extractor = LogMelFeatureExtractor.from_preset(preset, mean=None, std=None)
    waveform = sound("noise", round(max(0.5, extractor.min_seconds) * extractor.sampling_rate) + 77)
    waveform = (
        waveform[: round(extractor.max_seconds * extractor.sampling_rate)] if extractor.max_seconds else waveform
    )
    scale = 10 / np.log(10) if extractor.log == "db" else 1.0
    assert_log_mel_close(features(extractor, waveform)[0], naive(extractor, waveform), 1e-3 * scale, 1e-4 * scale)


def test_silence_has_the_stated_values():
    for preset, value in (("slap", SILENCE), ("m2d_clap", SILENCE), ("captionstew", SILENCE), ("mga_clap", -100.0)):
        extractor = LogMelFeatureExtractor.from_preset(preset, mean=None, std=None)
        silent = features(extractor, np.zeros(16000, dtype=np.float32))
        torch.testing.assert_close(silent, torch.full_like(silent, value), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("preset", "seconds", "frames"),
    [
        *(("slap", 1, 98), ("slap", 5, 498), ("slap", 10, 998), ("slap", 15, 1498), ("slap", 30, 2998)),
        *(("m2d_clap", 1, 101), ("m2d_clap", 5, 501), ("m2d_clap", 6, 601), ("m2d_clap", 10, 1001)),
        *(("mga_clap", 10, 1001), ("mga_clap", 2, 1001), ("captionstew", 10, 1000), ("clap", 10, 1001)),
        ("slap", 31, 2998),
    ],
)
def test_num_frames_of_the_papers(preset, seconds, frames):
    extractor = LogMelFeatureExtractor.from_preset(preset)
    assert extractor.num_frames(seconds * extractor.sampling_rate) == frames


def test_num_frames_is_what_a_call_returns():
    for preset in ("slap", "m2d_clap", "captionstew"):
        extractor = LogMelFeatureExtractor.from_preset(preset, max_seconds=0.5)
        for num_samples in (1, 199, 200, 201, 399, 400, 401, 559, 560, 1359, 1361, 7999, 8001, 9000):
            frames = features(extractor, sound("noise", num_samples)).shape[1]
            assert frames == extractor.num_frames(num_samples), (preset, num_samples)


# --- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["slap", "m2d_clap", "mga_clap", "captionstew"])
def test_batch_mates_change_nothing_to_the_bit(preset):
    extractor = LogMelFeatureExtractor.from_preset(preset, min_seconds=0.085)
    waveforms = clips((16001, 5003, 401, 23999, 1, 8000, 8160, 40000))
    batch = extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    for index, waveform in enumerate(waveforms):
        alone = features(extractor, waveform)[0]
        own = batch["input_features"][index, : len(alone)]
        assert batch["input_features_mask"][index].tolist() == [True] * len(alone) + [False] * (
            len(batch["input_features_mask"][index]) - len(alone)
        )
        assert torch.equal(own, alone)
        assert (batch["input_features"][index, len(alone) :] == extractor.padding_value).all()
    order = [3, 0, 7, 1]
    shuffled = features(extractor, [waveforms[index] for index in order])
    assert torch.equal(shuffled, batch["input_features"][order])


def test_padding_the_waveform_would_change_the_last_frames():
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap")
    waveform = sound("noise", 8000)
    alone = features(extractor, waveform)[0]
    padded = features(extractor, np.pad(waveform, (0, 4000)))[0, : len(alone)]
    assert (padded - alone)[-1].abs().max() > 0.1  # the control of the test above: edges are not the batch's
    torch.testing.assert_close(padded[:-2], alone[:-2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["slap", "m2d_clap", "captionstew"])
def test_the_batched_computation_of_accelerators_equals_the_one_by_clip(preset, monkeypatch):
    extractor = LogMelFeatureExtractor.from_preset(preset, **MEASURED)
    waveforms = clips((16001, 5003, 1403, 23999, 8000))
    by_clip = features(extractor, waveforms)
    monkeypatch.setattr(layers_log_mel, "_each_clip", layers_log_mel._whole_batch)
    torch.testing.assert_close(features(extractor, waveforms), by_clip, rtol=0, atol=1e-5)
    monkeypatch.setattr(layers_log_mel, "MAX_BATCH_VALUES", 2 * by_clip.shape[1] * extractor.n_fft)
    torch.testing.assert_close(features(extractor, waveforms), by_clip, rtol=0, atol=1e-5)
    as_int16 = [(waveform * 32767).astype(np.int16) for waveform in waveforms]
    torch.testing.assert_close(features(extractor, as_int16), by_clip, rtol=0, atol=2e-2)
    with pytest.raises(ValueError, match=r"`waveforms\[1\]` holds 1 NaN"):
        features(extractor, [waveforms[0], np.append(waveforms[1], np.float32(np.nan))])


@pytest.mark.parametrize("compute", ["_each_clip", "_whole_batch"])
def test_nan_in_one_clip_stays_in_it(compute, monkeypatch):
    monkeypatch.setattr(layers_log_mel, "_each_clip", getattr(layers_log_mel, compute))
    numbers = LogMelFeatureExtractor().numbers
    waveforms = [torch.from_numpy(clip) for clip in clips((6000, 4000, 5000))]
    clean, poisoned = torch.empty(3, 36, 64), torch.empty(3, 36, 64)
    assert torch.isfinite(log_mel_batch(waveforms, numbers, clean)).all()
    waveforms[1] = waveforms[1].index_fill(0, torch.tensor([2000]), float("nan"))
    checksums = log_mel_batch(waveforms, numbers, poisoned)
    assert torch.isfinite(checksums).tolist() == [True, False, True]
    assert torch.equal(poisoned[[0, 2]], clean[[0, 2]])


@pytest.mark.gpu
def test_cuda_equals_cpu():
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap")
    waveforms = clips()
    cpu = features(extractor, waveforms)
    for source in (waveforms, [torch.from_numpy(clip).cuda() for clip in waveforms]):
        cuda = features(extractor, source, device="cuda")
        assert cuda.is_cuda
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=0, atol=3e-4)


def test_autocast_and_reduced_precision_products_do_not_reach_the_front_end():
    extractor, waveforms = LogMelFeatureExtractor.from_preset("m2d_clap"), clips()
    expected = features(extractor, waveforms)
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    try:
        products.fp32_precision = "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = features(extractor, waveforms)
        assert products.fp32_precision == "bf16"  # given back as it was
    finally:
        products.fp32_precision = before
    assert torch.equal(got, expected)
    assert got.dtype == torch.float32


def test_nothing_is_random_and_inputs_are_left_alone():
    extractor, waveform = LogMelFeatureExtractor(**MEASURED, max_seconds=0.5), sound("noise", 20000)
    kept = waveform.copy()
    first = features(extractor, waveform)
    assert torch.equal(first, features(extractor, waveform))
    assert torch.equal(first, features(extractor, waveform[:8000]))  # the first half second, not a random one
    assert np.array_equal(waveform, kept)


# --- inputs --------------------------------------------------------------------------------------------------------


class Decoder:
    """What torchcodec's AudioDecoder offers."""

    def __init__(self, data: torch.Tensor, sample_rate: int):
        self.data, self.sample_rate = data, sample_rate

    def get_all_samples(self) -> "Decoder":
        return self


def test_all_input_forms_agree(tmp_path):
    extractor = LogMelFeatureExtractor(**MEASURED)
    samples = np.round(sound("noise", 5003) * 32768).astype(np.int16)  # representable in every form
    waveform = samples.astype(np.float32) / 32768
    soundfile.write(tmp_path / "clip.wav", waveform, 16000, subtype="FLOAT")
    read_only = waveform.copy()
    read_only.flags.writeable = False
    expected = features(extractor, waveform)
    forms = {
        "float64": waveform.astype(np.float64),
        "list": waveform.tolist(),
        "list of lists": [waveform.tolist()],
        "tuple": tuple(waveform.tolist()),
        "batch": waveform[None],
        "tensor": torch.from_numpy(waveform),
        "tensor batch": torch.from_numpy(waveform)[None],
        "tensor with gradient": torch.from_numpy(waveform).clone().requires_grad_(),
        "int16": samples,
        "int16 tensor": torch.from_numpy(samples),
        "int32": samples.astype(np.int32) * 65536,
        "big endian": waveform.astype(">f4"),
        "reversed view": waveform[::-1].copy()[::-1],
        "read only": read_only,
        "stereo (S, C)": np.stack([waveform * 0.5, waveform * 1.5], axis=1),
        "stereo (C, S)": [np.stack([waveform * 0.5, waveform * 1.5])],
        "stereo int16": [np.stack([samples, samples], axis=1)],
        "batch of stereo": torch.from_numpy(np.stack([waveform * 0.5, waveform * 1.5]))[None],
        "dict": {"array": waveform, "sampling_rate": 16000},
        "raw dict": [{"raw": waveform, "sampling_rate": 16000}],
        "bytes": {"bytes": (tmp_path / "clip.wav").read_bytes(), "path": None},
        "path in a dict": {"bytes": None, "path": str(tmp_path / "clip.wav")},
        "string": str(tmp_path / "clip.wav"),
        "path": [tmp_path / "clip.wav"],
        "decoder": Decoder(torch.from_numpy(np.stack([waveform * 0.5, waveform * 1.5])), 16000),
    }
    for name, form in forms.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.testing.assert_close(features(extractor, form), expected, rtol=0, atol=1e-5, msg=name)


def test_several_kinds_of_clips_in_one_batch():
    extractor = LogMelFeatureExtractor(**MEASURED)
    first, second, third = clips((5003, 4001, 3001))
    mixed = [first.tolist(), {"array": second, "sampling_rate": 16000}, torch.from_numpy(third)]
    assert torch.equal(features(extractor, mixed), features(extractor, [first, second, third]))


@pytest.mark.parametrize(("from_rate", "to_rate"), [(44100, 16000), (8000, 16000), (22050, 32000), (48000, 16000)])
def test_resampling_equals_torchaudio(from_rate, to_rate):
    waveform = torch.from_numpy(sound("chirp", 5003, from_rate))
    reference = torchaudio.transforms.Resample(from_rate, to_rate, lowpass_filter_width=32)(waveform)
    torch.testing.assert_close(resample(waveform, from_rate, to_rate), reference, rtol=0, atol=2e-6)
    of_the_data = audio_io.resample(waveform.numpy(), from_rate, to_rate)
    torch.testing.assert_close(
        resample(waveform, from_rate, to_rate), torch.from_numpy(of_the_data), rtol=0, atol=2e-6
    )


@pytest.mark.filterwarnings("error")
def test_ragged_batches_reuse_their_buffers():
    extractor = LogMelFeatureExtractor(**MEASURED)
    batch = [sound("noise", samples) for samples in (61040, 91440, 122000)]
    joined = features(extractor, batch)
    for row, clip in enumerate(batch):
        alone = features(extractor, clip)
        assert torch.equal(joined[row, : alone.shape[1]], alone[0])


def test_files_and_decoders_of_another_rate_are_resampled(tmp_path):
    extractor = LogMelFeatureExtractor(**MEASURED, max_seconds=0.3)
    stereo = np.stack([sound("chirp", 44100, 44100), sound("noise", 44100)], axis=1)
    soundfile.write(tmp_path / "stereo.flac", stereo, 44100)
    soundfile.write(tmp_path / "stereo.wav", stereo, 44100, subtype="FLOAT")
    mono = resample(torch.from_numpy(stereo).mean(1), 44100, 16000)
    expected = features(extractor, mono[:4800])
    for source in (tmp_path / "stereo.wav", Decoder(torch.from_numpy(stereo.T), 44100)):
        torch.testing.assert_close(features(extractor, source), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(features(extractor, tmp_path / "stereo.flac"), expected, rtol=0, atol=0.05)


def test_short_clips_are_filled_to_one_window():
    extractor = LogMelFeatureExtractor(**MEASURED)
    waveform = sound("noise", 37)
    zeros = np.pad(waveform, (0, 363))
    assert torch.equal(features(extractor, waveform), features(extractor, zeros))
    repeated = LogMelFeatureExtractor(**MEASURED, padding="repeat")
    assert torch.equal(features(repeated, waveform), features(extractor, np.tile(waveform, 11)[:400]))
    assert features(extractor, waveform).shape == (1, 1, 64)


def test_repeat_padding_is_the_rule_of_clap():
    clap = ClapFeatureExtractor(sampling_rate=32000, hop_length=320, frequency_min=50, truncation="rand_trunc")
    waveform = sound("noise", 77777, 32000)
    extractor = LogMelFeatureExtractor.from_preset("mga_clap", padding="repeat")
    reference = clap(waveform, sampling_rate=32000, padding="repeat", return_tensors="pt")["input_features"][0, 0]
    assert_log_mel_close(features(extractor, waveform)[0], reference, at_most=1e-2, mostly=1e-3)


# --- outputs -------------------------------------------------------------------------------------------------------


def test_padding_options():
    extractor = LogMelFeatureExtractor(**MEASURED, max_seconds=2.0)
    waveforms = clips((16001, 5003))
    longest = extractor(waveforms, sampling_rate=16000, return_tensors="np")
    assert longest["input_features"].shape == (2, 98, 64)
    assert longest["input_features_mask"].sum(1).tolist() == [98, 29]
    assert longest["input_features"].dtype == np.float32
    assert longest["input_features_mask"].dtype == bool
    assert (longest["input_features"][1, 29:] == 0).all()
    full = extractor(waveforms, sampling_rate=16000, padding="max_length", return_tensors="pt")
    assert full["input_features"].shape == (2, 198, 64)
    assert (full["input_features"][0, 98:] == 0).all()
    assert torch.equal(full["input_features"][:, :98], torch.from_numpy(longest["input_features"]))
    multiple = extractor(waveforms, sampling_rate=16000, pad_to_multiple_of=16, return_tensors="pt")
    assert multiple["input_features"].shape == (2, 112, 64)
    listed = extractor(waveforms, sampling_rate=16000, padding=False)
    assert [row.shape for row in listed["input_features"]] == [(98, 64), (29, 64)]
    assert np.array_equal(listed["input_features"][1], longest["input_features"][1, :29])
    equal = extractor([waveforms[0]] * 2, sampling_rate=16000, padding=False, return_tensors="pt")
    assert equal["input_features"].shape == (2, 98, 64)
    with pytest.raises(ValueError, match="Pass `padding=True`"):
        extractor(waveforms, sampling_rate=16000, padding=False, return_tensors="pt")
    with pytest.raises(ValueError, match="needs a limit"):
        LogMelFeatureExtractor(max_seconds=None)(waveforms, sampling_rate=16000, padding="max_length")


def test_limits_of_a_call():
    extractor, waveform = LogMelFeatureExtractor(**MEASURED, max_seconds=0.5), sound("noise", 16000)
    assert features(extractor, waveform).shape[1] == extractor.num_frames(8000)
    assert torch.equal(features(extractor, waveform, max_seconds=0.25), features(extractor, waveform[:4000]))
    assert torch.equal(features(extractor, waveform, max_length=4000), features(extractor, waveform[:4000]))
    assert features(extractor, waveform, truncation=False).shape[1] == 98


def test_keys_never_include_attention_mask():
    extractor = LogMelFeatureExtractor(**MEASURED)
    batch = extractor(sound("noise"), sampling_rate=16000)
    assert list(batch) == extractor.model_input_names == ["input_features", "input_features_mask"]
    assert list(extractor(sound("noise"), sampling_rate=16000, return_attention_mask=False)) == ["input_features"]
    padded = extractor.pad({"input_features": [np.ones((3, 64)), np.ones((5, 64))]}, return_tensors="np")
    assert list(padded) == ["input_features"]
    assert padded["input_features"].shape == (2, 5, 64)


# --- statistics ----------------------------------------------------------------------------------------------------


def test_measured_statistics_are_those_of_all_frames():
    extractor = LogMelFeatureExtractor(mean=3.0, std=7.0)  # its own statistics must not matter
    waveforms = clips(seed=3)
    values = torch.cat([naive(extractor, waveform) for waveform in waveforms]).flatten()
    mean, std = measure_statistics(extractor, iter(waveforms))
    assert mean == pytest.approx(float(values.mean()), abs=1e-5)
    assert std == pytest.approx(float(values.std(unbiased=False)), abs=1e-5)
    assert extractor.mean == 3.0
    first = measure_statistics(extractor, iter(waveforms), max_clips=1)
    assert first == pytest.approx(measure_statistics(extractor, waveforms[:1]), abs=1e-12)
    assert abs(first[0] - mean) > 1e-4  # control: the other clips do count


def test_set_statistics_normalises_and_keeps_the_scale_of_the_paper():
    extractor, waveforms = LogMelFeatureExtractor(), clips()
    assert not extractor.is_measured
    mean, std = measure_statistics(extractor, waveforms)
    extractor.set_statistics(mean, std)
    assert extractor.is_measured
    assert extractor.std == 2 * std
    batch = extractor(waveforms, sampling_rate=16000, return_tensors="pt")
    values = batch["input_features"][batch["input_features_mask"]].double()
    assert float(values.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(values.std(unbiased=False)) == pytest.approx(0.5, abs=1e-5)
    plain = LogMelFeatureExtractor.from_preset("m2d_clap")
    plain.set_statistics(1.0, 2.0)
    assert (plain.mean, plain.std) == (1.0, 2.0)


def test_statistics_of_nothing_are_refused():
    with pytest.raises(ValueError, match="not all silent"):
        measure_statistics(LogMelFeatureExtractor(), [])
    with pytest.raises(ValueError, match="not all silent"):
        measure_statistics(LogMelFeatureExtractor(), [np.zeros(1000, dtype=np.float32)])


# --- saving --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_saving_is_an_identity_and_small(preset, tmp_path):
    extractor = LogMelFeatureExtractor.from_preset(preset)
    features(extractor, sound("noise"))  # nothing computed may end in the file
    extractor.save_pretrained(tmp_path)
    text = (tmp_path / "preprocessor_config.json").read_text()
    assert len(text) < 4000
    assert json.loads(text)["edges"] == extractor.edges
    AutoFeatureExtractor.register("LogMelFeatureExtractor", LogMelFeatureExtractor, exist_ok=True)
    for loaded in (LogMelFeatureExtractor.from_pretrained(tmp_path), copy.deepcopy(extractor)):
        assert loaded.to_dict() == extractor.to_dict()
        assert torch.equal(features(loaded, sound("noise")), features(extractor, sound("noise")))


def test_changed_numbers_take_effect():
    extractor = LogMelFeatureExtractor(**MEASURED)
    before = features(extractor, sound("noise"))
    extractor.f_max = 4000.0
    assert not torch.equal(before, features(extractor, sound("noise")))  # no stale filter bank


def test_default_is_slap():
    assert LogMelFeatureExtractor().to_dict() == LogMelFeatureExtractor.from_preset("slap").to_dict()
    with pytest.raises(ValueError, match=r"Choose one of .*'slap'"):
        LogMelFeatureExtractor.from_preset("salp")


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"window_type": "kaiser"}, "Unknown `window_type` 'kaiser'"),
        ({"edges": "center"}, "Unknown `edges` 'center'"),
        ({"padding": "repeatpad"}, "Unknown `padding`"),
        ({"win_length": 600}, "600 and 512. Enlarge `n_fft`"),
        ({"f_max": 9000.0}, "up to half the `sampling_rate`"),
        ({"mean": 1.0}, "Measure them with `measure_statistics`"),
        ({"mean": 1.0, "std": 0.0}, "std > 0, got 1.0 and 0.0"),
        ({"min_seconds": 40.0}, "`min_seconds` must lie between 0 and `max_seconds` = 30.0, got 40.0"),
    ],
)
def test_contradicting_numbers_are_refused(numbers, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LogMelFeatureExtractor(**numbers)


def test_wrong_rates_are_refused():
    extractor, waveform = LogMelFeatureExtractor(), sound("noise")
    with pytest.raises(ValueError, match=r"`sampling_rate` must be 16000 Hz.*got 44100\. Resample"):
        extractor(waveform, sampling_rate=44100)
    with pytest.raises(ValueError, match=r"of `waveforms\[1\]` must be 16000 Hz, got 8000. Resample"):
        extractor([waveform, {"array": waveform, "sampling_rate": 8000}], sampling_rate=16000)


def test_missing_rate_warns_once_and_only_where_it_is_missing(tmp_path):
    extractor, waveform = LogMelFeatureExtractor(), sound("noise")
    soundfile.write(tmp_path / "clip.wav", waveform, 16000)
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger(LogMelFeatureExtractor.__module__)
    logger.addHandler(handler)
    try:
        type(logger).warning_once.cache_clear()
        extractor({"array": waveform, "sampling_rate": 16000})
        extractor(tmp_path / "clip.wav")
        assert not records
        extractor(waveform)
        extractor(waveform)
    finally:
        logger.removeHandler(handler)
    assert len(records) == 1
    assert "wrong without any error" in records[0].getMessage()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 2500, -1])  # the last sample lies in no window
def test_bad_samples_are_refused_by_index(bad, position):
    waveforms = clips((5003, 4999, 3001))
    waveforms[1][position] = bad
    with pytest.raises(
        ValueError, match=r"`waveforms\[1\]` holds 1 NaN or infinite samples of 4999. Leave the clip out"
    ):
        features(LogMelFeatureExtractor(**MEASURED), waveforms)


def test_other_bad_clips_are_refused_by_index():
    extractor, good = LogMelFeatureExtractor(), sound("noise")
    with pytest.raises(ValueError, match=r"`waveforms\[1\]` is empty: 0 samples"):
        features(extractor, [good, good[:0]])
    with pytest.raises(ValueError, match=r"`waveforms\[1\]` is too loud for float32.*e\+29. Scale it"):
        features(extractor, [good, good * np.float32(1e30)])
    with pytest.raises(ValueError, match=r"`waveforms\[0\]` must be a mono clip.*got shape \(20, 12345\)"):
        features(extractor, [np.stack([good] * 20)])
    with pytest.raises(TypeError, match=r"`waveforms\[1\]` must hold float, int16 or int32 samples, got torch.int64"):
        features(extractor, [good, np.arange(1000)])
    with pytest.raises(ValueError, match="at least one clip"):
        features(extractor, [])
    with pytest.raises(TypeError, match="`waveforms` must be audio or a list of audio, got int"):
        features(extractor, 3)
    with pytest.raises(ValueError, match=r"got the keys \['audio'\]"):
        features(extractor, {"audio": good})


def test_bad_files_are_refused_by_name(tmp_path):
    extractor = LogMelFeatureExtractor()
    with pytest.raises(FileNotFoundError, match=r"none\.wav' does not exist"):
        features(extractor, tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(ValueError, match=r"text\.wav' cannot be decoded.*Convert it"):
        features(extractor, tmp_path / "text.wav")
    (tmp_path / "nothing.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"nothing\.wav' cannot be decoded"):
        features(extractor, tmp_path / "nothing.wav")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, dtype=np.float32), 16000)
    with pytest.raises(ValueError, match=r"empty\.wav' is empty"):
        features(extractor, str(tmp_path / "empty.wav"))
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan] * 400, dtype=np.float32), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan\.wav' holds 400 NaN"):
        features(extractor, [tmp_path / "nan.wav"])


@pytest.mark.parametrize("name", ["cut.wav", "cut.aiff", "cut.ogg", "cut.mp3"])
def test_a_truncated_file_is_refused_by_name(tmp_path, name):
    extractor = LogMelFeatureExtractor()
    soundfile.write(tmp_path / name, sound("noise", 48000), 16000)
    whole = (tmp_path / name).read_bytes()
    features(extractor, tmp_path / name)  # control: it can be read before it is cut
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    for source in (tmp_path / name, {"bytes": whole[: len(whole) // 2], "path": name}):
        with pytest.raises(ValueError, match=r"cut\.\w+' is truncated.*got \d+ samples\. Copy it again"):
            features(extractor, source)

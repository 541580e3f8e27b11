import math
import shutil
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from data_helpers import RATE, tone, write_sound

from hf_audiolang.data.audio_io import (
    RESAMPLE_FILTER_WIDTH,
    AudioError,
    audio_info,
    check_waveform,
    load_audio,
    record_waveform,
    resample,
)
from hf_audiolang.data.records import Record

RAMP = (np.arange(-8000, 8000) * 2).astype(np.int16)  # every sample differs: a crop shows where it begins


def _channels(seconds, rate, count):
    """(S, count): sines of the same frequency with levels 1..count, whose mean has level (count + 1) / 2."""
    return tone(seconds, rate, amplitude=0.1)[:, None] * np.arange(1, count + 1)


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate", "channels", "seconds", "tolerance"),
    [
        ("wav", "PCM_16", 8000, 1, 1.3, 1e-4),
        ("wav", "PCM_24", 44100, 2, 0.7, 1e-6),
        ("wav", "FLOAT", 48000, 5, 0.5, 1e-6),
        ("wav", "PCM_16", 96000, 1, 0.06, 1e-4),
        ("flac", "PCM_16", 22050, 2, 2.1, 1e-4),
        ("flac", "PCM_24", 96000, 1, 0.4, 1e-6),
        ("ogg", "VORBIS", 44100, 2, 3.2, 0.03),
        ("ogg", "VORBIS", 8000, 1, 0.06, 0.03),
        ("mp3", None, 48000, 1, 1.7, 0.03),
    ],
)
def test_every_format_rate_and_channel_count_gives_the_same_mono_sine(
    tmp_path, suffix, subtype, rate, channels, seconds, tolerance
):
    path = write_sound(tmp_path / f"sound.{suffix}", _channels(seconds, rate, channels), rate, subtype)
    info = audio_info(path)
    assert (info.sampling_rate, info.num_channels, info.num_samples) == (rate, channels, round(seconds * rate))
    waveform = load_audio(path, RATE)
    assert (waveform.dtype, waveform.ndim) == (np.float32, 1)
    assert abs(len(waveform) - seconds * RATE) <= 1
    expected = tone(seconds, RATE, amplitude=0.1 * (channels + 1) / 2)
    inner = slice(200, len(expected) - 200)  # the filter hears silence at both ends
    np.testing.assert_allclose(waveform[inner], expected[inner], atol=tolerance + (2e-4 if rate != RATE else 0))


def test_two_minutes_of_ogg_are_read_in_full_and_in_part(tmp_path):
    path = write_sound(tmp_path / "long.ogg", tone(120, 22050), 22050)
    assert audio_info(path).duration == 120.0
    assert len(load_audio(path, RATE)) == 120 * RATE
    piece = load_audio(path, RATE, offset_seconds=100.0, duration_seconds=2.0)
    expected = tone(102.0, RATE)[100 * RATE :]
    np.testing.assert_allclose(piece[200:-200], expected[200:-200], atol=0.03)  # Vorbis is lossy


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_crop_is_the_same_as_cutting_the_whole(tmp_path, suffix):
    path = write_sound(tmp_path / f"ramp.{suffix}", RAMP)
    whole = load_audio(path, RATE)
    np.testing.assert_array_equal(whole, RAMP / np.float32(32768))
    piece = load_audio(path, RATE, offset_seconds=0.25, duration_seconds=0.125)
    np.testing.assert_array_equal(piece, whole[4000:6000])
    np.testing.assert_array_equal(load_audio(path, RATE, offset_seconds=0.9), whole[14400:])
    np.testing.assert_array_equal(load_audio(path, RATE, offset_seconds=0.9, duration_seconds=5.0), whole[14400:])


def test_a_crop_decodes_only_its_own_samples(tmp_path, monkeypatch):
    path = write_sound(tmp_path / "ramp.wav", RAMP)
    counts = []
    read = soundfile.SoundFile.read

    def counted_read(file, frames=-1, **options):
        counts.append(frames)
        return read(file, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counted_read)
    load_audio(path, RATE, offset_seconds=0.5, duration_seconds=0.0625)
    assert counts == [1000]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize("offset", [0.0, 0.1003, 0.37])
def test_a_crop_has_exactly_the_asked_number_of_samples(tmp_path, rate, offset):
    path = write_sound(tmp_path / "tone.wav", tone(1.0, rate), rate)
    for seconds in (0.16, 0.613, 1.0 - offset):
        piece = load_audio(path, RATE, offset_seconds=offset, duration_seconds=seconds)
        assert len(piece) == round(seconds * RATE)


def test_resampling_agrees_with_torchaudio_and_keeps_aliases_down():
    for source_rate, frequencies in ((44100, (9000, 12000, 20000)), (48000, (9000, 16000)), (22050, (9000, 10900))):
        passed = tone(1.0, source_rate, 3000).astype(np.float32)
        reference = torchaudio.functional.resample(
            torch.from_numpy(passed), source_rate, RATE, lowpass_filter_width=RESAMPLE_FILTER_WIDTH
        )
        resampled = resample(passed, source_rate, RATE)
        np.testing.assert_allclose(resampled, reference.numpy(), atol=1e-5)  # its filter has another precision
        np.testing.assert_allclose(resampled[300:-300], tone(1.0, RATE, 3000)[300:-300], atol=2e-4)
        for frequency in frequencies:
            alias = resample(tone(1.0, source_rate, frequency).astype(np.float32), source_rate, RATE)[300:-300]
            level_db = 10 * math.log10(float((alias**2).mean()) / 0.125)
            assert level_db < -60, (source_rate, frequency, level_db)


def test_upsampling_adds_nothing_above_the_old_nyquist():
    spectrum = np.abs(np.fft.rfft(resample(tone(1.0, 8000, 3000).astype(np.float32), 8000, RATE) * np.hanning(RATE)))
    assert 20 * math.log10(spectrum[4300:].max() / spectrum.max()) < -60


def test_the_filter_of_a_pair_of_rates_is_built_once(monkeypatch):
    built = []
    original = torchaudio.transforms.Resample
    monkeypatch.setattr(
        torchaudio.transforms, "Resample", lambda *args, **rest: built.append(args) or original(*args, **rest)
    )
    for _ in range(3):
        resample(np.zeros(370, dtype=np.float32), 37 * 10, 11 * 10)
    assert built == [(37, 11)]


def test_bytes_are_read_like_the_file(tmp_path):
    path = write_sound(tmp_path / "tone.flac", tone(0.5, 22050), 22050)
    np.testing.assert_array_equal(load_audio(path.read_bytes(), RATE), load_audio(path, RATE))
    assert audio_info(path.read_bytes()) == audio_info(path)


def _nan_wav(path):
    waveform = tone(0.5)
    waveform[4000] = np.nan
    return write_sound(path, waveform, subtype="FLOAT")


def _broken(path, kind):
    """A broken file of the kind, with the name of the path."""
    if kind == "missing":
        return path
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"this is no sound" * 99)
    elif kind == "no samples":
        write_sound(path, np.zeros(0))
    elif kind == "nan":
        _nan_wav(path)
    elif kind == "folder":
        path.mkdir()
    else:  # the first part of a whole file
        write_sound(path, np.random.default_rng(0).normal(0, 0.1, 30000))
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    return path


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.wav", "missing", "does not exist"),
        ("a.wav", "folder", "is a folder"),
        ("a.wav", "empty", "is empty .0 bytes"),
        ("a.wav", "text", "not a readable sound file"),
        ("a.ogg", "text", "not a readable sound file"),
        ("a.wav", "no samples", "holds 0 samples"),
        ("a.wav", "nan", "NaN or infinite"),
        ("a.wav", "cut", "truncated"),
        ("a.flac", "cut", "truncated"),
        ("a.ogg", "cut", "truncated"),
        ("a.mp3", "cut", "truncated"),
        ("a.aiff", "cut", "truncated"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, name, kind, message):
    path = _broken(tmp_path / name, kind)
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(path, RATE)
    assert str(path) in str(caught.value)
    assert any(word in str(caught.value) for word in ("remove it", "again", "Correct", "Give"))


def test_a_wav_written_to_a_pipe_is_not_called_truncated(tmp_path):
    path = write_sound(tmp_path / "pipe.wav", RAMP)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(load_audio(path, RATE)) == len(RAMP)


def test_pieces_outside_the_file_are_refused(tmp_path):
    path = write_sound(tmp_path / "tone.wav", tone(0.5))
    with pytest.raises(AudioError, match=r"tone.wav` is 0.500 s long but `offset_seconds` is 0.5"):
        load_audio(path, RATE, offset_seconds=0.5)
    with pytest.raises(ValueError, match=r"`offset_seconds` is -0\.1"):
        load_audio(path, RATE, offset_seconds=-0.1)
    with pytest.raises(ValueError, match="`duration_seconds` is 0"):
        load_audio(path, RATE, duration_seconds=0)


def test_arrays_are_scaled_checked_and_cropped_like_files(tmp_path):
    path = write_sound(tmp_path / "ramp.wav", RAMP)
    in_memory = Record(id="ramp", audio=RAMP, sampling_rate=RATE)
    on_disk = Record(id="ramp", audio=path)
    for rate in (RATE, 8000):
        np.testing.assert_array_equal(
            record_waveform(in_memory, rate, 0.3, 0.2), record_waveform(on_disk, rate, 0.3, 0.2)
        )
    encoded = Record(id="ramp", audio=path.read_bytes())
    np.testing.assert_array_equal(record_waveform(encoded, RATE), record_waveform(in_memory, RATE))
    np.testing.assert_array_equal(check_waveform(np.array([-(2**31), 2**30], dtype=np.int32), "x"), [-1.0, 0.5])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record(id="clip 7", audio=None), "`clip 7` has no audio"),
        (Record(id="clip 7", audio=RAMP), "`sampling_rate` of the array of `clip 7`"),
        (Record(id="clip 7", audio=RAMP[:0], sampling_rate=RATE), "`clip 7` holds 0 samples"),
        (Record(id="clip 7", audio=np.float32([0, np.inf]), sampling_rate=RATE), "`clip 7` holds NaN or infinite"),
        (Record(id="clip 7", audio=np.array([True, False]), sampling_rate=RATE), "`clip 7` has samples of type bool"),
        (Record(id="clip 7", audio=np.zeros((3, 2)), sampling_rate=RATE), r"`clip 7` has shape \(3, 2\)"),
        (Record(id="clip 7", audio=b"", sampling_rate=None), "`clip 7` is empty"),
    ],
)
def test_a_bad_record_is_named(record, message):
    with pytest.raises(AudioError, match=message):
        record_waveform(record, RATE)


def test_m4a_without_the_extra_says_how_to_get_it(tmp_path, monkeypatch):
    path = tmp_path / "voice.m4a"
    path.write_bytes(b"\0\0\0 ftypM4A " + b"\0" * 99)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    for source in (path, path.read_bytes()):
        with pytest.raises(AudioError, match=r"hf-audiolang\[codecs\]"):
            load_audio(source, RATE)
    with pytest.raises(AudioError, match=r"voice.m4a` needs a decoder"):
        audio_info(path)


def test_m4a_goes_through_torchcodec_and_is_cropped_by_it(tmp_path, monkeypatch):
    path = tmp_path / "voice.m4a"
    path.write_bytes(b"\0\0\0 ftypM4A " + b"\0" * 99)
    source = torch.from_numpy(tone(2.0, 32000).astype(np.float32))

    class Decoder:  # the two members of torchcodec's AudioDecoder that are used
        metadata = SimpleNamespace(sample_rate=32000, num_channels=2, duration_seconds=2.0)

        def __init__(self, name, num_channels):
            assert (name, num_channels) == (str(path), 1)

        def get_samples_played_in_range(self, start, stop):
            last = None if stop is None else round(stop * 32000)
            return SimpleNamespace(data=source[None, round(start * 32000) : last])

    module = ModuleType("torchcodec.decoders")
    module.AudioDecoder = Decoder
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    assert audio_info(path).duration == 2.0
    piece = load_audio(path, RATE, offset_seconds=0.5, duration_seconds=0.25)
    np.testing.assert_allclose(piece[100:-100], tone(0.75)[8100:-100], atol=2e-4)
    assert len(load_audio(path, RATE)) == 2 * RATE


def _installed_sounds():
    return [path for path in Path("/usr/share/sounds").rglob("*.*") if path.suffix in (".wav", ".oga", ".ogg")]


@pytest.mark.skipif(not _installed_sounds(), reason="needs Debian's alsa-utils or sound-theme-freedesktop")
def test_sounds_of_the_system_load_whole_and_in_part():
    for path in _installed_sounds():
        duration = audio_info(path).duration
        waveform = load_audio(path, RATE)
        assert abs(len(waveform) - duration * RATE) <= 1
        assert 0.001 < np.abs(waveform).max() <= 1.5, path
        half = load_audio(path, RATE, offset_seconds=duration / 2, duration_seconds=duration / 4)
        assert len(half) == max(1, round(duration / 4 * RATE))


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg to write an m4a file")
def test_a_real_m4a_file_loads(tmp_path):
    pytest.importorskip("torchcodec")
    import subprocess

    wav = write_sound(tmp_path / "tone.wav", tone(1.0, 44100), 44100)
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", str(wav), str(tmp_path / "tone.m4a")], check=True)
    waveform = load_audio(tmp_path / "tone.m4a", RATE, offset_seconds=0.25, duration_seconds=0.5)
    assert len(waveform) == RATE // 2
    np.testing.assert_allclose(np.abs(waveform[500:-500]).max(), 0.5, atol=0.05)

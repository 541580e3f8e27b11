"""Frozen frames: as the encoder gives them, stored and found again, and what makes a stored file outdated."""

import os
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from evaluation_fakes import SAMPLING_RATE, unit
from probe_fakes import FrameEncoder, FrameExtractor, System, clip, frames_of
from tiny import tiny_captionstew_config, tiny_m2d_clap_config, tiny_slap_config, tiny_zipformer_config
from transformers import AutoModel

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.data.records import Record, TooManyBadExamples
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.feature_cache import FrozenFeatures
from hf_audiolang.evaluation.frozen_features import frame_features

TABLE = 3 * unit(40, 5, seed=0)
ROWS = ([7, 3, 9], [4], [1, 2, 3, 4, 5, 6, 8, 10], [30, 31])


def captionstew_config():
    return tiny_captionstew_config(audio_config=tiny_zipformer_config())


def clips():
    return [clip(rows, labels=(f"{rows[0]}",)) for rows in ROWS]


@pytest.mark.parametrize("batch_seconds", [0.1, 1000.0])
def test_frames_are_the_encoders_own_without_padding_and_leave_it_as_it_was(batch_seconds):
    encoder = FrameEncoder(TABLE).train()
    encoder.dropout.eval()
    encoder.dropout.train()
    before = encoder.table.detach().clone()
    for model in (encoder, System(encoder)):
        found = frame_features(model, FrameExtractor(), clips(), AudioOptions(batch_seconds=batch_seconds))
        np.testing.assert_array_equal(found.rows, TABLE[np.concatenate(ROWS)])
        np.testing.assert_array_equal(found.lengths, [3, 1, 8, 2])
        np.testing.assert_array_equal(found.starts, [0, 3, 4, 12])
        assert [record.labels for record in found.records] == [("7",), ("4",), ("1",), ("30",)]
        np.testing.assert_allclose(found.clip_means(), [TABLE[rows].mean(0) for rows in ROWS], atol=1e-6)
    assert encoder.training
    assert encoder.dropout.training
    assert encoder.table.grad is None
    torch.testing.assert_close(encoder.table, before, rtol=0, atol=0)
    dropped = encoder(torch.zeros(1, 200), torch.ones(1, 200)).frame_features
    assert (dropped == 0).any()  # control: its mode is training again


def test_a_long_clip_is_its_pieces_in_order():
    long = clip([*range(12), *range(20, 32)])
    found = frame_features(FrameEncoder(TABLE), FrameExtractor(max_seconds=0.8), [clip([9]), long])
    np.testing.assert_array_equal(found.rows, TABLE[[9, *range(12), *range(20, 32)]])
    np.testing.assert_array_equal(found.lengths, [1, 24])
    cropped = frame_features(
        FrameEncoder(TABLE), FrameExtractor(max_seconds=0.8), [long], AudioOptions(long_audio="crop")
    )
    np.testing.assert_array_equal(cropped.rows, TABLE[:8])


@pytest.mark.parametrize(
    ("build", "preset"),
    [(tiny_slap_config, "slap"), (tiny_m2d_clap_config, "m2d_clap"), (captionstew_config, "captionstew")],
)
def test_every_family_gives_each_clip_the_frames_it_has_alone(build, preset, tmp_path):
    torch.manual_seed(0)
    model = AutoModel.from_config(build()).eval()
    extractor = LogMelFeatureExtractor.from_preset(preset, mean=-7.0, std=9.0)
    rng = np.random.default_rng(0)
    waveforms = [rng.standard_normal(round(seconds * 16000)).astype(np.float32) / 10 for seconds in (0.7, 1.1, 0.4)]
    records = [Record(id=str(n), audio=samples, sampling_rate=16000) for n, samples in enumerate(waveforms)]
    found = frame_features(model, extractor, records, cache_dir=tmp_path)
    for samples, start, num_frames in zip(waveforms, found.starts, found.lengths, strict=True):
        with torch.no_grad():
            output = model.audio_model(**extractor([samples], sampling_rate=16000, return_tensors="pt"))
        assert num_frames == output.frame_mask.sum()
        expected = output.frame_features[0][output.frame_mask[0]].numpy()
        np.testing.assert_allclose(found.rows[start : start + num_frames], expected, atol=2e-5)
    alone = frame_features(model.audio_model, extractor, records, cache_dir=tmp_path)
    np.testing.assert_array_equal(alone.rows, found.rows)
    assert len(list(tmp_path.iterdir())) == 1  # a system and its encoder share what is stored


def test_a_second_call_reads_what_is_stored_and_changes_make_a_new_file(tmp_path):
    encoder, extractor, records = FrameEncoder(TABLE), FrameExtractor(), clips()
    records[1] = replace(records[1], audio=np.full(10, np.nan, dtype=np.float32))  # a bad one
    plain = frame_features(encoder, extractor, records)

    def ask(records=records, extractor=extractor, **options):
        """(what is found, how many clips the encoder was given)."""
        encoder.num_clips = 0
        found = frame_features(encoder, extractor, records, AudioOptions(**options), tmp_path)
        return found, encoder.num_clips

    first, second = ask(), ask(batch_seconds=0.2)
    assert [first[1], second[1]] == [3, 0]
    for found in (first[0], second[0]):
        for field in ("rows", "lengths", "indices"):
            np.testing.assert_array_equal(getattr(found, field), getattr(plain, field))
        assert (found.records, found.skipped) == (plain.records, plain.skipped)
    np.testing.assert_array_equal(plain.indices, [0, 2, 3])
    assert plain.skipped[0].startswith("clip [4]: ")

    relabelled = [replace(record, labels=("new",)) for record in records]
    again, num_clips = ask(relabelled)
    assert num_clips == 0
    assert {record.labels for record in again.records} == {("new",)}  # labels are not what is stored

    louder = [*records[:3], replace(records[3], audio=records[3].audio + 0.01)]
    assert ask(louder)[1] == 3
    assert ask(extractor=FrameExtractor(max_seconds=0.5))[1] == 4  # one clip in two pieces
    assert ask(extractor=FrameExtractor(max_seconds=0.5), long_audio="crop")[1] == 3
    assert ask(max_seconds=0.5)[1] == 4
    other_numbers = FrameExtractor()
    other_numbers.mean = -7.0
    assert ask(extractor=other_numbers)[1] == 3
    with torch.no_grad():
        encoder.table[-1, -1] += 1e-3
    assert ask()[1] == 3
    assert ask()[1] == 0


def test_files_are_told_apart_by_size_and_time_of_change(tmp_path):
    path = tmp_path / "a.wav"
    encoder, extractor = FrameEncoder(TABLE), FrameExtractor()

    def ask():
        encoder.num_clips = 0
        record = Record(id="a", audio=path)
        found = frame_features(encoder, extractor, [record], cache_dir=tmp_path / "stored")
        return found.rows, encoder.num_clips

    for row, times in ((3, (1, 1)), (8, (2, 2))):  # as many bytes
        soundfile.write(path, np.full(20, row / 100), SAMPLING_RATE, "FLOAT")
        os.utime(path, times)
        for num_clips in (1, 0):
            frames, encoded = ask()
            assert encoded == num_clips
            np.testing.assert_array_equal(frames, TABLE[[row, row]])


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # it is refused
def test_half_precision_halves_the_file_and_rounds(tmp_path):
    records = [clip(rows * 50) for rows in ROWS]
    plain = frame_features(FrameEncoder(TABLE), FrameExtractor(), records, None, tmp_path / "32")
    for _ in range(2):  # computed, then read
        half = frame_features(
            FrameEncoder(TABLE), FrameExtractor(), records, None, tmp_path / "16", half_precision=True
        )
        np.testing.assert_array_equal(half.rows, plain.rows.astype(np.float16))
    sizes = [next((tmp_path / name).iterdir()).stat().st_size for name in ("16", "32")]
    assert sizes[0] < 0.6 * sizes[1]
    with pytest.raises(ValueError, match=r"not finite.*Check the weights.*beyond half precision"):
        frame_features(FrameEncoder(TABLE * 1e5), FrameExtractor(), records, half_precision=True)


def test_what_cannot_be_used_is_refused(tmp_path):
    bad = [replace(record, audio=np.full(10, np.nan, dtype=np.float32)) for record in clips()]
    with pytest.raises(TooManyBadExamples, match="Repair or remove them"):
        frame_features(FrameEncoder(TABLE), FrameExtractor(), bad)
    with pytest.raises(ValueError, match=r"no readable clip, got 4 records\. Check its files"):
        frame_features(FrameEncoder(TABLE), FrameExtractor(), bad, AudioOptions(max_bad_fraction=1.0))
    table = TABLE.copy()
    table[3, 2] = np.inf  # in the first clip and in the third
    message = r"2 of 14 rows that are not finite, the first belongs to clip 'clip \[7, 3, 9\]'\. Check the weights"
    with pytest.raises(ValueError, match=message):
        frame_features(FrameEncoder(table), FrameExtractor(), clips(), cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"Clip '1' has no frame, got 0\. Leave it out"):
        frames_of([TABLE[:2], TABLE[:0]], [("a",), ("b",)])
    with pytest.raises(ValueError, match=r"got \(40, 5\), lengths that sum to 3, .* Pass all rows of all clips"):
        FrozenFeatures(TABLE, np.array([3]), np.array([0]), [Record(id="a", audio=None)], [])
    frame_features(FrameEncoder(TABLE), FrameExtractor(), clips(), cache_dir=tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"cannot be read.*Delete this file"):
        frame_features(FrameEncoder(TABLE), FrameExtractor(), clips(), cache_dir=tmp_path)

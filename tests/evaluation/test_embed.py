"""Embeddings in input order whatever the batching, long clips, bad clips, and the state of the model afterwards."""

import numpy as np
import pytest
import torch
from evaluation_fakes import SAMPLING_RATE, TableModel, TableProcessor, record, unit, waveform

from hf_audiolang.data.audio_io import AudioError
from hf_audiolang.data.records import Record, RecordSubset, TooManyBadExamples
from hf_audiolang.evaluation.clip_cuts import UnitLength
from hf_audiolang.evaluation.embed import AudioOptions, embed_audio, embed_records, embed_texts, sum_over_pieces
from hf_audiolang.evaluation.frames import embed_frames

TABLE = unit(40, 7, seed=0)


@pytest.fixture
def model():
    return TableModel(TABLE, unit(40, 7, seed=1)).train()


@pytest.mark.parametrize("batch_seconds", [0.1, 3.7, 1000.0])
def test_rows_are_in_input_order_whatever_the_batching(model, batch_seconds):
    rows = [5, 31, 2, 17, 8, 5, 26]
    records = [record(row, seconds) for row, seconds in zip(rows, (1, 0.4, 3, 0.2, 2, 5, 0.3), strict=True)]
    embeds = embed_audio(model, TableProcessor(), records, options=AudioOptions(batch_seconds=batch_seconds))
    np.testing.assert_allclose(embeds, TABLE[rows], atol=1e-6)
    assert embeds.dtype == np.float32
    assert all(
        count * samples <= batch_seconds * SAMPLING_RATE or count == 1 for count, samples in model.audio_batches
    )
    assert len(model.audio_batches) == {0.1: 7, 3.7: 5, 1000.0: 1}[batch_seconds]


def test_clips_of_one_length_meet_in_a_batch_within_a_bounded_window(model):
    read = []

    class Watched:
        def __len__(self):
            return 64

        def __getitem__(self, index):
            read.append((index, len(model.audio_batches)))
            return record(index % 40, 1.0 if index % 2 else 0.1)

    embeds = embed_audio(model, TableProcessor(), Watched(), options=AudioOptions(batch_seconds=2))
    np.testing.assert_allclose(embeds, TABLE[np.arange(64) % 40], atol=1e-6)
    assert [index for index, _ in read] == list(range(64))  # each clip is read once
    assert read[-1][1] > 0  # and not all of them before the first forward pass
    real = sum(1.0 if index % 2 else 0.1 for index in range(64)) * SAMPLING_RATE
    assert real / sum(count * samples for count, samples in model.audio_batches) > 0.9  # hardly any padding


def test_a_long_clip_is_the_mean_of_equal_pieces_or_its_beginning(model):
    processor = TableProcessor(max_seconds=1.0)
    long = np.concatenate([waveform(3, 0.8), waveform(9, 0.8), waveform(4, 0.8)])  # 2.4 s: three pieces of 0.8 s
    records = [record(6, 1.0), Record(id="long", audio=long, sampling_rate=SAMPLING_RATE)]
    embeds = embed_audio(model, processor, records)
    mean = TABLE[[3, 9, 4]].mean(0)
    np.testing.assert_allclose(embeds, [TABLE[6], mean / np.linalg.norm(mean)], atol=1e-6)
    records[1] = Record(id="long", audio=np.concatenate([waveform(3, 1.0), long]), sampling_rate=SAMPLING_RATE)
    cropped = embed_audio(model, processor, records, options=AudioOptions(long_audio="crop"))
    np.testing.assert_allclose(cropped[1], TABLE[3], atol=1e-6)
    limited = embed_audio(model, TableProcessor(), records, options=AudioOptions(max_seconds=1, long_audio="crop"))
    np.testing.assert_array_equal(limited, cropped)  # an explicit limit where the extractor has none


def test_bad_clips_are_left_out_and_named_or_raise(model, tmp_path):
    broken = waveform(1)
    broken[3] = np.nan
    (tmp_path / "text.wav").write_text("no sound")
    records = [
        record(4, captions=("a caption",)),
        Record(id="broken", audio=broken, sampling_rate=SAMPLING_RATE),
        Record(id="text.wav", audio=tmp_path / "text.wav"),
        record(7),
    ]
    any_share = AudioOptions(max_bad_fraction=1.0)
    found = embed_records(model, TableProcessor(), records, options=any_share)
    np.testing.assert_allclose(found.embeds, TABLE[[4, 7]], atol=1e-6)
    assert list(found.indices) == [0, 3]
    assert found.records[0].captions == ("a caption",)
    assert found.records[0].audio is None
    assert [message.split(":")[0] for message in found.skipped] == ["broken", "text.wav"]
    assert "text.wav" in found.skipped[1]
    assert found.audio_seconds == pytest.approx(2)
    with pytest.raises(AudioError, match="broken"):
        embed_audio(model, TableProcessor(), records)
    with pytest.raises(ValueError, match=r"no readable clip, got 2 records.*The first problem: broken"):
        embed_records(model, TableProcessor(), records[1:3], options=any_share)


def test_more_than_five_percent_unreadable_clips_stop_an_evaluation(model):
    def records(num_bad):
        bad = [Record(id=f"bad {n}", audio=None) for n in range(num_bad)]
        return [record(n, 0.1) for n in range(40)][num_bad:] + bad

    found = embed_records(model, TableProcessor(), records(2))
    assert (len(found.embeds), len(found.skipped)) == (38, 2)
    message = r"40 clips, of which at least 3 cannot be read, more than 5%\. Repair(.|\n)*bad 0(.|\n)*bad 2"
    with pytest.raises(TooManyBadExamples, match=message):
        embed_records(model, TableProcessor(), records(3))
    with pytest.raises(TooManyBadExamples, match="at least 3"):
        embed_frames(model, TableProcessor(), records(3))
    assert len(embed_records(model, TableProcessor(), records(1)[-5:]).skipped) == 1  # one alone stops nothing
    with pytest.raises(TooManyBadExamples, match="5 clips, of which at least 2"):
        embed_records(model, TableProcessor(), records(2)[-5:])
    before = RecordSubset(records(2), range(40), skipped=["`x`: gone", "`y`: gone"])  # judged when it was loaded
    assert len(embed_records(model, TableProcessor(), before).skipped) == 4


def test_equal_texts_are_computed_once_and_rows_follow_the_texts(model):
    texts = ["a long text about sound 11", "sound 3", "a long text about sound 11", "sound 12", "a text 3", "sound 3"]
    embeds = embed_texts(model, TableProcessor(), texts, batch_size=3)
    np.testing.assert_allclose(embeds, model.text_table.detach().numpy()[[11, 3, 11, 12, 3, 3]], atol=1e-6)
    assert model.text_batches == [(3, 3), (1, 6)]  # four distinct texts, short ones first
    with pytest.raises(ValueError, match="empty text at position 1, of 2"):
        embed_texts(model, TableProcessor(), ["sound 1", " "])
    with pytest.raises(ValueError, match="`texts` holds no text"):
        embed_texts(model, TableProcessor(), [])


def test_the_model_keeps_its_training_flags_and_learns_afterwards(model):
    model.dropout.eval()
    embed_audio(model, TableProcessor(), [record(1)])
    assert model.training
    assert not model.dropout.training  # a sub-module that was frozen on purpose stays frozen
    features = model.get_audio_features(torch.full((1, 3), 0.02), torch.ones(1, 3, dtype=torch.bool))
    features.pooler_output.sum().backward()
    assert model.audio_table.grad[2].eq(1).all()


def test_embeddings_without_a_direction_are_refused(model):
    with torch.no_grad():
        model.audio_table[3] = 0
        model.audio_table[5] = float("nan")
    for row in (3, 5):
        with pytest.raises(ValueError, match="1 of 2 embeddings that are not finite or are zero, the first in row"):
            embed_audio(model, TableProcessor(), [record(row), record(1)])


def test_unknown_rules_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"`long_audio` 'drop'. Choose one of \['chunk_mean', 'crop'\]"):
        AudioOptions(long_audio="drop")
    with pytest.raises(ValueError, match="`on_bad_example` 'ignore'"):
        AudioOptions(on_bad_example="ignore")
    with pytest.raises(ValueError, match="`batch_seconds` must be positive, got 0"):
        AudioOptions(batch_seconds=0)
    with pytest.raises(ValueError, match=r"`max_bad_fraction` must lie in \[0, 1\], got 5"):
        AudioOptions(max_bad_fraction=5)


def test_clips_are_cut_before_the_rule_for_long_ones(model):
    records = [record(5, 1.0), record(31, 3.0), record(2, 0.5)]
    options = AudioOptions(max_seconds=1.0, long_audio="chunk_mean")

    def lengths(cut):
        count = lambda inputs: inputs["input_features_mask"].sum(1, keepdim=True).numpy()  # noqa: E731
        found = sum_over_pieces(model, TableProcessor(), records, count, options, cut)
        return (found.sums[:, 0] / SAMPLING_RATE).tolist(), found.num_pieces.tolist()

    assert lengths(None) == ([1.0, 3.0, 0.5], [1, 3, 1])
    assert lengths(UnitLength(2.0)) == ([2.0, 2.0, 2.0], [2, 2, 2])  # silence after the short ones

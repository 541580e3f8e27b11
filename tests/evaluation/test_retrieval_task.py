"""Retrieval on a model whose right answers are known by construction."""

import numpy as np
import pytest
from evaluation_fakes import TableModel, TableProcessor, record, unit, waveform

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import retrieval
from hf_audiolang.evaluation.embed import AudioOptions


def test_recall_is_exactly_the_share_of_captions_that_point_at_their_clip():
    # captions of the clips 0..6 are their clips' vectors; those of 7..9 point at the clip after them
    audio = np.eye(10, dtype=np.float32)
    text = audio[[0, 1, 2, 3, 4, 5, 6, 8, 9, 7]]
    records = [record(row, captions=(f"caption {row}",), seconds=0.5 + row / 10) for row in range(10)]
    result = retrieval.evaluate(TableModel(audio, text), TableProcessor(), records)
    assert result["text_to_audio/R@1"] == pytest.approx(0.7)
    assert result["audio_to_text/R@1"] == pytest.approx(0.7)
    # the right clips of the other three tie at 0 with eight irrelevant ones: rank 9 of 0..9
    assert result["text_to_audio/R@5"] == pytest.approx(0.7)
    assert result["text_to_audio/R@10"] == 1.0
    assert result["text_to_audio/mAP@10"] == pytest.approx(0.7 + 0.3 / 10)
    assert result["text_to_audio/MedR"] == 1
    assert result["text_to_audio/MeanR"] == pytest.approx(0.7 + 3)
    assert result.chance["text_to_audio/R@5"] == pytest.approx(0.5)
    assert result.record["n_tied"] == {"text_to_audio": 3, "audio_to_text": 3}
    assert result.record["num_clips"] == 10


def test_clips_with_unequal_caption_counts_in_both_directions():
    audio = np.eye(4, dtype=np.float32)[:3]
    text = np.stack([audio[0], audio[1], (audio[1] + 2 * audio[0]), audio[2], (audio[2] + 0.1 * audio[0])])
    counts = (("one 0",), ("two 1", "two 2"), ("three 3", "three 4"))
    records = [record(row, captions=captions) for row, captions in enumerate(counts)]
    result = retrieval.evaluate(TableModel(audio, text), TableProcessor(), records, ks=(1, 2), map_k=10)
    assert result["text_to_audio/R@1"] == pytest.approx(4 / 5)  # caption 2 is nearer to clip 0
    assert result["text_to_audio/R@2"] == 1.0
    assert result["audio_to_text/R@1"] == 1.0
    assert result["audio_to_text/mAP@10"] == 1.0
    assert result.chance["audio_to_text/R@1"] == pytest.approx(np.mean([1, 2, 2]) / 5)
    assert result.record["num_captions"] == 5


def test_a_model_with_constant_output_is_below_chance_everywhere():
    constant = np.repeat(unit(1, 5, seed=0), 12, axis=0)
    records = [record(row, captions=(f"text {row}", f"other words {row}")) for row in range(12)]
    result = retrieval.evaluate(
        TableModel(constant, constant), TableProcessor(), records, order_pairs=[(0, 1), (2, 3)]
    )
    assert result["text_to_audio/R@10"] == result["audio_to_text/R@10"] == 0.0
    assert result["order_pairs/accuracy"] == 0.0
    assert result.record["n_tied"] == {"text_to_audio": 24, "audio_to_text": 24}


def test_semantic_recall_counts_every_clip_that_the_caption_describes():
    # caption 0 points at clip 1, which it describes truly as well; caption 2 points at clip 0, which it does not
    audio = np.eye(3, dtype=np.float32)
    text = np.stack([audio[1] + 0.2 * audio[0], audio[1], audio[0] + 0.5 * audio[2]])
    records = [record(row, captions=(f"caption {row}",)) for row in range(3)]
    true_clips = [[{0, 1}], [{0}], [{2}]]  # the clip of a caption counts even if it is not listed
    result = retrieval.evaluate(TableModel(audio, text), TableProcessor(), records, ks=(1,), true_clips=true_clips)
    assert result["text_to_audio/R@1"] == pytest.approx(1 / 3)
    assert result["text_to_audio/R@1_sem"] == pytest.approx(2 / 3)
    assert result["audio_to_text/R@1"] == pytest.approx(2 / 3)  # clip 0 is nearest to caption 2
    assert result["audio_to_text/R@1_sem"] == pytest.approx(2 / 3)  # which is not true of it
    assert result.chance["text_to_audio/R@1_sem"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)


def test_order_accuracy_compares_a_caption_with_the_two_clips_of_its_pair_only():
    audio = unit(6, 9, seed=1)
    text = audio.copy()
    text[2], text[3] = audio[3], audio[3]  # both captions of the second pair say the same order
    text[5] = audio[0]  # clip 0 is far from the third pair: no effect
    records = [record(row, captions=(f"caption {row}",)) for row in range(6)]
    pairs = [(0, 1), (2, 3)]
    result = retrieval.evaluate(TableModel(audio, text), TableProcessor(), records, order_pairs=pairs)
    assert result["order_pairs/accuracy"] == pytest.approx(3 / 4)
    assert result.chance["order_pairs/accuracy"] == 0.5


def test_left_out_clips_move_no_answer():
    audio, text = np.eye(5, dtype=np.float32), np.eye(5, dtype=np.float32)
    broken = waveform(1)
    broken[0] = np.inf
    records = [record(row, captions=(f"caption {row}",)) for row in range(5)]
    records[1] = Record(id="clip 1", audio=broken, sampling_rate=100, captions=("caption 1",))
    true_clips = [[{0}], [{1}], [{2, 1}], [{3}], [{4}]]
    result = retrieval.evaluate(
        TableModel(audio, text), TableProcessor(), records, true_clips=true_clips, order_pairs=[(0, 1), (2, 3)]
    )
    assert result["text_to_audio/R@1"] == result["text_to_audio/R@1_sem"] == result["order_pairs/accuracy"] == 1.0
    assert result.record["num_clips"] == 4
    assert result.record["num_skipped"] == 1
    assert "clip 1" in result.record["skipped"][0]
    options = AudioOptions(on_bad_example="error")
    with pytest.raises(ValueError, match="clip 1"):
        retrieval.evaluate(TableModel(audio, text), TableProcessor(), records, options=options)


def test_a_clip_without_caption_is_named():
    records = [record(0, captions=("caption 0",)), record(1)]
    with pytest.raises(ValueError, match="'clip 1' has no caption"):
        retrieval.evaluate(TableModel(np.eye(2), np.eye(2)), TableProcessor(), records)

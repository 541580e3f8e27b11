# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Captioning with a captioner whose captions are known: order, long and bad clips, scores, the references' ceiling."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from caption_fakes import CAPTIONS, CaptionProcessor, TableCaptioner
from evaluation_fakes import SAMPLING_RATE, TableProcessor, record, waveform
from tiny import tiny_captionstew_config, tiny_processor, tiny_slap_config
from transformers import EncodecFeatureExtractor, WhisperFeatureExtractor

from hf_audiolang import CaptionStewForConditionalGeneration, SlapForConditionalGeneration
from hf_audiolang.data.audio_io import AudioError
from hf_audiolang.data.records import Record, RecordSubset, TooManyBadExamples
from hf_audiolang.evaluation import captioning
from hf_audiolang.evaluation.captioning import (
    generate_captions,
    generation_settings,
    iter_captions,
    joined_caption,
    reference_scores,
)
from hf_audiolang.evaluation.embed import AudioOptions, RecordReader, longest_seconds
from hf_audiolang.evaluation.metrics import caption_scores

REFERENCES = [
    ("a dog barks", "a dog is barking"),
    ("a dog barks two times", "two barks"),
    ("it rains", "rain falls on a roof", "rain falls"),
    ("silence", "nothing"),
    ("first a bell rings, then a dog barks",),
    ("the wind blows", "wind"),
]


def all_records():
    return [record(row, 0.4 + 0.3 * row, captions=captions) for row, captions in enumerate(REFERENCES)]


@pytest.mark.parametrize("batch_seconds", [0.1, 2.0, 1000.0])
def test_captions_are_in_input_order_whatever_the_batching(batch_seconds):
    rows, seconds = [4, 0, 2, 3, 1, 0], [1, 0.4, 3, 0.2, 2, 0.3]
    model = TableCaptioner().train()
    records = [record(*clip) for clip in zip(rows, seconds, strict=True)]
    found = generate_captions(model, CaptionProcessor(), records, options=AudioOptions(batch_seconds=batch_seconds))
    assert found.captions == [CAPTIONS[row] for row in rows]
    assert [clip.index for clip in found.clips] == list(range(6))
    assert [clip.record.id for clip in found.clips] == [f"clip {row}" for row in rows]
    assert all(clip.record.audio is None for clip in found.clips)
    assert found.audio_seconds == pytest.approx(sum(seconds))
    assert len(model.calls) == {0.1: 6, 2.0: 4, 1000.0: 1}[batch_seconds]
    assert not any(call["training"] for call in model.calls)
    assert model.training


def test_the_settings_reach_generate():
    model = TableCaptioner()
    generate_captions(model, CaptionProcessor(), [record(1)], num_beams=3, max_new_tokens=7)
    (call,) = model.calls
    assert {name: call[name] for name in ("num_beams", "max_new_tokens", "do_sample")} == {
        "num_beams": 3,
        "max_new_tokens": 7,
        "do_sample": False,
    }
    for limit, longest in ((5, 5), (100, 64), (None, 64)):  # of the model's own generation config
        model.generation_config = SimpleNamespace(max_new_tokens=limit)
        assert generation_settings(model)["max_new_tokens"] == longest
    model.config.decoder_config = SimpleNamespace(max_position_embeddings=30)
    assert generation_settings(model)["max_new_tokens"] == 30
    assert generation_settings(model, max_new_tokens=30)["max_new_tokens"] == 30
    with pytest.raises(ValueError, match=r"`max_new_tokens` is 31, but the decoder has 30 positions.*at most as many"):
        generation_settings(model, max_new_tokens=31)
    with pytest.raises(ValueError, match="`num_beams` must be at least 1, got 0"):
        generation_settings(model, num_beams=0)
    with pytest.raises(ValueError, match="`max_new_tokens` must be at least 1, got -2"):
        generation_settings(model, max_new_tokens=-2)


def test_a_long_clip_has_the_captions_of_its_pieces_or_of_its_beginning():
    processor = CaptionProcessor(max_seconds=1.0)
    parts = [waveform(row, 0.9) for row in (2, 4, 4, 3, 5)]  # 4.5 s: the model takes pieces of 0.9 s
    records = [record(0, 1.0), Record(id="long", audio=np.concatenate(parts), sampling_rate=SAMPLING_RATE)]
    long = generate_captions(TableCaptioner(), processor, records, options=AudioOptions(batch_seconds=1.9)).clips[1]
    assert [piece.caption for piece in long.pieces] == [CAPTIONS[row] for row in (2, 4, 4, 3, 5)]
    assert [(piece.start, piece.end) for piece in long.pieces] == [
        (pytest.approx(0.9 * i), pytest.approx(0.9 * i + 0.9)) for i in range(5)
    ]
    assert long.caption == "rain falls then a bell rings then a dog barks then wind blows"
    records[1] = Record(id="long", audio=np.concatenate([waveform(2, 1.0), *parts]), sampling_rate=SAMPLING_RATE)
    found = generate_captions(TableCaptioner(), processor, records, options=AudioOptions(long_audio="crop"))
    assert found.captions == ["a dog barks", "rain falls"]
    assert found.clips[1].pieces[0].end == 1.0
    assert found.clips[1].record.duration == 5.5


def test_short_clips_are_captioned_in_batches_of_a_limited_number():
    model, rows = TableCaptioner(), [number % 3 for number in range(2 * captioning.MAX_BATCH_CLIPS + 5)]
    found = generate_captions(model, CaptionProcessor(), [record(row, 0.1) for row in rows])
    assert found.captions == [CAPTIONS[row] for row in rows]
    assert [call["shape"] for call in model.calls] == [(64, 10), (64, 10), (5, 10)]


def test_a_feature_extractor_of_whisper_says_how_long_a_piece_may_be():
    extractor = WhisperFeatureExtractor(feature_size=5, chunk_length=2)  # it cuts what is longer
    assert longest_seconds(extractor, AudioOptions()) == 2.0
    assert longest_seconds(extractor, AudioOptions(max_seconds=1.5)) == 1.5
    assert longest_seconds(EncodecFeatureExtractor(chunk_length_s=1.0, overlap=0.01), AudioOptions()) is None


def test_pieces_are_joined_in_order_without_repeats():
    assert joined_caption(["A dog barks."]) == "A dog barks."
    assert joined_caption(["A dog barks.", "A dog barks.", "", "A dog barks", "Rain."]) == "A dog barks then Rain"
    assert joined_caption(["a", "b", "a"]) == "a then b then a"
    assert joined_caption(["", " "]) == ""


def test_clips_come_as_soon_as_their_batch_is_done():
    read = []

    class Watched:
        def __len__(self):
            return 60

        def __getitem__(self, index):
            read.append(index)
            return record(index % len(CAPTIONS))

    reader, model = RecordReader(Watched(), SAMPLING_RATE, AudioOptions(batch_seconds=2)), TableCaptioner()
    clips = iter_captions(model, CaptionProcessor(), reader, generation_settings(model))
    first = next(clips)
    assert first.caption == CAPTIONS[first.index % len(CAPTIONS)]
    assert len(read) < 20
    assert torch.is_grad_enabled()  # nothing stays switched off between two clips
    assert sorted([first.index, *(clip.index for clip in clips)]) == list(range(60))


@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (SlapForConditionalGeneration, tiny_slap_config()),
        (CaptionStewForConditionalGeneration, tiny_captionstew_config(text_config=None)),
    ],
)
def test_a_clip_has_the_same_caption_whatever_its_batch_mates(model_class, config):
    torch.manual_seed(0)
    model, generator = model_class(config).eval(), np.random.default_rng(0)
    records = [
        Record(id=str(size), audio=generator.standard_normal(size).astype(np.float32) / 10, sampling_rate=16000)
        for size in (16000, 3001, 41000)
    ]
    given = {"max_new_tokens": 9, "num_beams": 3}
    together = generate_captions(model, tiny_processor(), records, **given).captions
    alone = [generate_captions(model, tiny_processor(), [one], **given).captions[0] for one in records]
    assert together == alone
    assert all(0 < len(caption.split()) <= 9 for caption in together)
    greedy = generate_captions(model, tiny_processor(), records, max_new_tokens=9, num_beams=1).captions
    assert greedy != together  # control: the beams are searched


def test_bad_clips_are_left_out_and_named_or_raise(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    bad = Record(id="text.wav", audio=tmp_path / "text.wav", captions=("a caption",))
    records = [record(4), bad, record(2)]
    found = generate_captions(TableCaptioner(), CaptionProcessor(), records)
    assert found.captions == [CAPTIONS[4], CAPTIONS[2]]
    assert [clip.index for clip in found.clips] == [0, 2]
    assert len(found.skipped) == 1
    assert "text.wav" in found.skipped[0]
    with pytest.raises(AudioError, match=r"text\.wav"):
        generate_captions(TableCaptioner(), CaptionProcessor(), records, options=AudioOptions(on_bad_example="error"))
    with pytest.raises(TooManyBadExamples, match="of which at least 2 cannot be read"):
        generate_captions(TableCaptioner(), CaptionProcessor(), [bad, bad, record(1)])
    with pytest.raises(ValueError, match="no readable clip, got 1"):
        generate_captions(TableCaptioner(), CaptionProcessor(), [bad])


def test_scores_are_those_of_the_captions_against_the_records_own_with_the_record_of_how():
    result = captioning.evaluate(TableCaptioner(), CaptionProcessor(max_seconds=9.0), all_records(), num_beams=2)
    expected = caption_scores(CAPTIONS, REFERENCES).corpus
    assert {name: result[f"captioning/{name}"] for name in expected} == pytest.approx(expected)
    assert result["captioning/empty"] == pytest.approx(1 / 6)
    assert result["captioning/vocabulary_size"] == 11  # a dog barks twice rain falls bell rings then wind blows
    assert result["captioning/duplicates"] == 0
    elsewhere = caption_scores([*CAPTIONS[3:], *CAPTIONS[:3]], REFERENCES).corpus
    assert result.chance == pytest.approx({f"captioning/{name}": value for name, value in elsewhere.items()})
    about = {
        "task": "captioning", "model": "captions", "num_clips": 6, "num_skipped": 0, "num_references": 12,
        "num_empty": 1, "tokenizer": "simple", "num_beams": 2, "max_new_tokens": 64, "max_seconds": 9.0,
        "long_audio": "chunk_mean",
    }  # fmt: skip
    assert {name: result.record[name] for name in about} == about
    shuffled = captioning.evaluate(
        TableCaptioner(),
        CaptionProcessor(),
        [record(row, captions=REFERENCES[(row + 2) % 6]) for row in range(6)],
    )
    assert shuffled["captioning/CIDEr-D"] < result["captioning/CIDEr-D"] / 3
    assert result.chance["captioning/CIDEr-D"] < result["captioning/CIDEr-D"] / 3


def test_left_out_clips_move_no_reference():
    records = all_records()
    broken = waveform(1)
    broken[0] = np.inf
    records[1] = Record(id="clip 1", audio=broken, sampling_rate=SAMPLING_RATE, captions=REFERENCES[1])
    result = captioning.evaluate(TableCaptioner(), CaptionProcessor(), records)
    kept = [0, 2, 3, 4, 5]
    expected = caption_scores([CAPTIONS[i] for i in kept], [REFERENCES[i] for i in kept]).corpus
    assert {name: result[f"captioning/{name}"] for name in expected} == pytest.approx(expected)
    assert (result.record["num_clips"], result.record["num_skipped"]) == (5, 1)


def test_reference_scores_are_the_mean_over_the_choices_of_the_held_out_caption():
    texts = [("a dog barks", "a dog is barking", "barks"), ("rain", "it rains", "rain falls", "water")]
    found = reference_scores(texts)
    choices = [
        caption_scores([clip[i] for clip in texts], [clip[:i] + clip[i + 1 :] for clip in texts]).corpus
        for i in range(3)  # the clip with the fewest has three
    ]
    for name in choices[0]:
        assert found[f"captioning/{name}"] == pytest.approx(np.mean([choice[name] for choice in choices]))
    assert found["captioning/mean_words"] == pytest.approx(np.mean([4 / 2, 6 / 2, 3 / 2]))
    agreeing = reference_scores([("a dog barks loudly",) * 3, ("it rains all day",) * 3])
    assert agreeing["captioning/CIDEr-D"] == pytest.approx(10)
    assert [agreeing["captioning/BLEU_4"], agreeing["captioning/ROUGE_L"]] == pytest.approx([1, 1])


def test_what_cannot_be_scored_is_refused_before_anything_is_encoded():
    model, processor = TableCaptioner(), CaptionProcessor()
    with pytest.raises(ValueError, match=r"at least two clips, got 1.*only call `generate_captions`"):
        captioning.evaluate(model, processor, all_records()[:1])
    with pytest.raises(ValueError, match=r"Clip 2 of `dataset` has no caption.*leave the clip out"):
        captioning.evaluate(model, processor, [*all_records()[:2], record(3)])
    with pytest.raises(ValueError, match=r"Clip 2 of `dataset` has no caption with a word .* got \['', ' \.'\]"):
        captioning.evaluate(model, processor, [*all_records()[:2], record(3, captions=("", " ."))])
    unreadable = RecordSubset([*all_records()[:2], record(3)], [0, 1, 2])
    with pytest.raises(ValueError, match="Clip 2 of `dataset` has no caption"):
        captioning.evaluate(model, processor, unreadable)
    with pytest.raises(ValueError, match=r"clip 1 are 1, \['b'\].*give at least two"):
        reference_scores([("a", "c"), ("b",)])
    with pytest.raises(ValueError, match="two clips at least, got 0"):
        reference_scores([])
    with pytest.raises(ValueError, match=r"a Linear\) writes no captions.*folder captioner/"):
        captioning.evaluate(torch.nn.Linear(2, 3), processor, all_records())
    with pytest.raises(ValueError, match=r"has no tokenizer\. Pass the whole processor"):
        captioning.evaluate(model, TableProcessor().feature_extractor, all_records())
    assert model.calls == []

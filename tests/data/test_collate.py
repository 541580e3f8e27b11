import pickle

import numpy as np
import pytest
import torch
from data_helpers import RATE, TinyProcessor, tone, write_sound
from tiny import tiny_processor

from hf_audiolang.data.collate import BadExampleError, Collator
from hf_audiolang.data.records import Record
from hf_audiolang.data.text_embeddings import TextEmbedderSettings, TextStore, TextStoreError, precompute

RAMP = np.arange(48000, dtype=np.int16) - 24000  # 3 s in which every sample is different


def _collator(**options):
    return Collator(TinyProcessor(), **{"max_seconds": 1.0, "max_text_tokens": 6, **options})


def _record(seconds=3.0, captions=("one",), name="clip"):
    return Record(id=name, audio=RAMP[: round(seconds * RATE)], sampling_rate=RATE, captions=captions)


def _batch(collator, items):
    return collator.collate([collator.draw(*item) for item in items])


def _first_sample(waveform):
    return round(float(waveform[0]) * 32768) + 24000


def test_a_batch_has_features_tokens_labels_and_numbers():
    items = [(_record(0.35, ("abc",)), 5), (_record(0.6, ("longer text",)), 6), (_record(0.11, ("d",)), 7)]
    batch = _batch(_collator(), items)
    torch.testing.assert_close(batch["input_features_mask"].sum(1), torch.tensor([35, 60, 11]))
    expected = RAMP[:5600].reshape(35, 160) / np.float32(32768)
    torch.testing.assert_close(batch["input_features"][0, :35, 1], torch.from_numpy(expected.max(1)))
    assert batch["input_ids"].tolist() == [
        [1, 97, 98, 99, 0, 0],
        [1, 108, 111, 110, 103, 101],  # cut at six tokens
        [1, 100, 0, 0, 0, 0],
    ]
    assert batch["labels"].tolist()[0] == [1, 97, 98, 99, -100, -100]
    assert batch["labels"].tolist()[1] == batch["input_ids"].tolist()[1]
    assert batch["audio_seconds"] == pytest.approx(1.06)
    assert batch["skipped"] == []


def test_a_draw_depends_on_its_seeds_alone():
    record = _record(captions=tuple("abcdefgh"))
    collator = _collator()
    first = collator.draw(record, 11)
    collator.draw(record, 12)
    again = pickle.loads(pickle.dumps(collator)).draw(record, 11)
    np.testing.assert_array_equal(first.waveform, again.waveform)
    assert first.caption == again.caption
    draws = [collator.draw(record, seed) for seed in range(200)]
    assert {draw.caption for draw in draws} == set("abcdefgh")
    starts = [_first_sample(draw.waveform) for draw in draws]
    assert min(starts) < 2000
    assert 30000 < max(starts) <= 32000
    assert all(len(draw.waveform) == RATE for draw in draws)
    other = [_first_sample(_collator(seed=1).draw(record, seed).waveform) for seed in range(20)]
    assert other != starts[:20]


def test_a_crop_is_a_piece_of_the_clip_in_memory_and_on_disk(tmp_path):
    path = write_sound(tmp_path / "ramp.wav", RAMP)
    for seed in range(20):
        waveform = _collator().draw(_record(), seed).waveform
        start = _first_sample(waveform)
        np.testing.assert_array_equal(waveform, RAMP[start : start + RATE] / np.float32(32768))
        from_file = _collator().draw(Record("clip", path, captions=("one",)), seed).waveform
        np.testing.assert_array_equal(from_file, waveform)


@pytest.mark.parametrize(
    ("seconds", "options", "real_seconds", "filled_seconds"),
    [
        (0.99, {}, 0.99, 0.99),
        (3.0, {}, 1.0, 1.0),
        (0.99, {"crop_step_seconds": 0.16}, 0.96, 0.96),
        (3.0, {"crop_step_seconds": 0.16}, 0.96, 0.96),
        (0.95, {"crop_step_seconds": 0.16}, 0.8, 0.8),
        (0.48, {"crop_step_seconds": 0.16}, 0.48, 0.48),
        (0.06, {"crop_step_seconds": 0.16}, 0.06, 0.16),
        (0.06, {}, 0.06, 0.06),
    ],
)
def test_crop_lengths(seconds, options, real_seconds, filled_seconds):
    example = _collator(**options).draw(_record(seconds), 3)
    assert len(example.waveform) == round(filled_seconds * RATE)
    assert example.audio_seconds == pytest.approx(real_seconds)
    real_samples = round(real_seconds * RATE)
    assert example.waveform[:real_samples].any()
    assert not example.waveform[real_samples:].any()  # what a short clip lacks is silence


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_every_rate_gives_whole_steps(tmp_path, rate):
    path = write_sound(tmp_path / "tone.wav", tone(1.357, rate), rate)
    record = Record("tone", path, captions=("x",))
    for seed in range(10):
        waveform = _collator(max_seconds=2.0, crop_step_seconds=0.16).draw(record, seed).waveform
        assert len(waveform) == 8 * 2560
        assert np.abs(waveform[-100:]).max() > 0.1  # real sound up to the end


def test_a_bad_record_is_named_with_what_is_wrong(tmp_path):
    bad = {
        "`gone`: .*does not exist": Record("gone", tmp_path / "gone.wav", captions=("x",)),
        "`nan` holds NaN": Record("nan", np.float32([0, np.nan]), sampling_rate=RATE, captions=("x",)),
        "`mute` has no caption": _record(name="mute", captions=()),
        "`blank` has an empty": _record(name="blank", captions=("  ", "")),
        "`nothing` has no audio": Record("nothing", None, captions=("x",)),
    }
    for message, record in bad.items():
        with pytest.raises(BadExampleError, match=f"^{message}"):
            _collator().draw(record, 2)


@pytest.fixture
def store(tmp_path) -> TextStore:
    """Captions a to h, embedded as the code of their letter and a one."""
    embed = lambda captions: torch.tensor([[float(ord(text)), 1.0, 0.5] for text in captions])  # noqa: E731
    return precompute("abcdefgh", tmp_path / "store", TextEmbedderSettings("m", pooling="mean"), embed=embed)


def test_a_store_replaces_the_tokens_of_the_same_draws(store):
    processor = tiny_processor()
    records = [_record(3.0, tuple("abcdefgh")), _record(0.7, tuple("hgf")), _record(0.05, ("c",))]
    options = {"max_seconds": 1.0, "max_text_tokens": 6}
    collators = [Collator(processor, **options), Collator(processor, **options, text_store=store)]
    drawn = set()
    for seed in range(0, 30, 3):
        items = [(record, seed + number) for number, record in enumerate(records)]
        examples = [collators[0].draw(*item) for item in items]
        tokens, stored = (_batch(collator, items) for collator in collators)
        assert set(stored) == {"input_features", "input_features_mask", "text_embeddings", "audio_seconds", "skipped"}
        for name in ("input_features", "input_features_mask"):
            assert torch.equal(stored[name], tokens[name]), name
        assert stored["audio_seconds"] == tokens["audio_seconds"]
        codes = [ord(example.caption) for example in examples]
        assert stored["text_embeddings"].tolist() == [[code, 1.0, 0.5] for code in codes]
        drawn |= set(codes)
    assert len(drawn) > 4


def test_a_collator_with_a_store_travels_to_a_worker_and_needs_no_tokenizer(store):
    extractor = tiny_processor().feature_extractor
    collator = Collator(extractor, max_seconds=1.0, max_text_tokens=6, text_store=store)
    items = [(_record(2.0, tuple("abcdefgh")), seed) for seed in range(5)]
    first, second = _batch(collator, items), _batch(pickle.loads(pickle.dumps(collator)), items)
    assert torch.equal(first["text_embeddings"], second["text_embeddings"])
    assert torch.equal(first["input_features"], second["input_features"])


def test_a_caption_without_embedding_is_named(store):
    collator = _collator(text_store=store)
    collator.processor = tiny_processor()
    with pytest.raises(TextStoreError, match=r"lacks 1 caption.*'unknown'"):
        _batch(collator, [(_record(captions=("a",)), 1), (_record(captions=("unknown",)), 2)])


def test_without_need_for_captions_sounds_alone_are_batched_and_cropped_as_with_them(store):
    extractor = tiny_processor().feature_extractor
    collator = Collator(extractor, max_seconds=1.0, max_text_tokens=6, needs_captions=False)
    batch = _batch(collator, [(_record(captions=()), 1), (_record(captions=(" ",)), 2)])
    assert set(batch) == {"input_features", "input_features_mask", "audio_seconds", "skipped"}
    assert collator.draw(_record(captions=()), 1).caption == ""
    record = _record(captions=("one", "two"))
    for seed in range(5):  # where there are captions the crop is that of a run which reads them
        np.testing.assert_array_equal(collator.draw(record, seed).waveform, _collator().draw(record, seed).waveform)
    with pytest.raises(ValueError, match="`text_store` is given, but `needs_captions` is False"):
        Collator(extractor, max_seconds=1.0, max_text_tokens=6, needs_captions=False, text_store=store)


def test_one_blank_caption_among_good_ones_is_never_drawn():
    record = _record(captions=("", "good", " "))
    assert {_collator().draw(record, seed).caption for seed in range(30)} == {"good"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_seconds": 0}, "`max_seconds` is 0"),
        ({"max_seconds": 0.1, "crop_step_seconds": 0.16}, "at least as long"),
        ({"crop_step_seconds": -1.0}, "`crop_step_seconds` is -1.0"),
        ({"max_text_tokens": 0}, "`max_text_tokens` is 0"),
        ({"on_bad_example": "ignore"}, r"'ignore'. Choose one of \['error', 'skip'\]"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _collator(**options)


def test_real_files_through_the_real_processor_give_the_features_of_each_clip_alone(tmp_path):
    sounds = {"a.wav": (1.3, 44100), "b.ogg": (0.06, 22050), "c.flac": (0.55, 8000), "d.mp3": (2.5, 48000)}
    records = []
    captions = ("a dog barking", "a cat", "the bird and a bell", "rain")
    for number, (name, (seconds, rate)) in enumerate(sounds.items()):
        path = write_sound(tmp_path / name, tone(seconds, rate, 300 + 100 * number), rate)
        records.append(Record(name, path, captions=captions[number : number + 1]))
    processor = tiny_processor()
    collator = Collator(processor, max_seconds=1.0, max_text_tokens=6)
    batch = _batch(collator, [(record, 70 + number) for number, record in enumerate(records)])
    for number, record in enumerate(records):
        waveform = collator.draw(record, 70 + number).waveform
        alone = processor.feature_extractor(waveform, sampling_rate=RATE, return_tensors="pt")
        num_frames = int(alone["input_features_mask"].sum())
        assert num_frames == int(batch["input_features_mask"][number].sum())
        torch.testing.assert_close(
            batch["input_features"][number, :num_frames], alone["input_features"][0, :num_frames], rtol=0, atol=1e-5
        )
    tokens = processor.tokenizer(records[2].captions[0], truncation=True, max_length=6)["input_ids"]
    assert batch["input_ids"][2].tolist() == tokens
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == -100).all()
    assert torch.equal(batch["labels"][~padding], batch["input_ids"][~padding])
    assert batch["audio_seconds"] == pytest.approx(1.0 + 0.06 + 0.55 + 1.0, abs=1e-3)


def test_captions_lose_their_punctuation_where_the_model_wants_it():
    items = [(_record(0.35, ("A b.",)), 5)]
    assert _batch(_collator(), items)["input_ids"].tolist() == [[1, 65, 32, 98, 46]]
    assert _batch(_collator(cleans_captions=True), items)["input_ids"].tolist() == [[1, 97, 32, 98, 32]]

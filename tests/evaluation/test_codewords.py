"""Names, usage, times and shared codewords, on codebooks whose geometry is known by construction."""

import logging

import numpy as np
import pytest
import torch
from codeword_fakes import CodebookModel, CodebookProcessor, clip
from tiny import tiny_ast_config, tiny_mga_clap_config, tiny_processor, tiny_tokenizer

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, MgaClapModel
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import codewords
from hf_audiolang.evaluation.block_maps import event_ratio, last_block_maps
from hf_audiolang.evaluation.codewords import (
    clip_codewords,
    codeword_frame_scores,
    codeword_usage,
    frame_activations,
    name_codewords,
    shared_codewords,
)

# Four one-hot codewords of different lengths in five dimensions; row r of the table points along them as written.
CODEWORDS = np.diag([2.0, 1.0, 3.0, 1.5])[:, [0, 1, 2, 3, 3]] * [1, 1, 1, 1, 0]
TABLE = np.zeros((12, 5))
TABLE[1:5, :4] = 9 * np.eye(4)  # row r: far along codeword r - 1 alone
TABLE[5] = [0.5, 1.0, 0, 0, 0]  # scores 1 and 1 of codewords 0 and 1
TABLE[6] = [0.5, 1.4, 0, 0, 0]  # scores 1 and 1.4: sparsemax gives .3 and .7
TABLE[7] = [0, 3.0, 1.0, 0, 4.0]  # no unit vector, partly outside of what the codewords span
TABLE[9] = [0, 0, 0, 9, 0]  # what the fake extractor fills with


@pytest.fixture(autouse=True)
def warnings_are_seen(caplog, monkeypatch):
    monkeypatch.setattr(codewords.logger, "propagate", False)
    monkeypatch.setattr(codewords.logger, "handlers", [caplog.handler])
    caplog.set_level(logging.WARNING)


def model_of(codebook=CODEWORDS, **options):
    return CodebookModel(TABLE, codebook, **options).train()  # the functions must switch dropout off


def test_codewords_are_named_by_the_texts_nearest_to_them():
    found = name_codewords(model_of(), CodebookProcessor(), ["3", "6", "1", "3", "2"], top_k=2)
    assert found.texts == ("3", "6", "1", "2")
    length = np.hypot(0.3 * 2, 0.7 * 1)  # "6" is .3 of the first codeword and .7 of the second
    assert found.of(0) == [("1", pytest.approx(1)), ("6", pytest.approx(0.6 / length))]
    assert found.of(1) == [("2", pytest.approx(1)), ("6", pytest.approx(0.7 / length))]
    assert found.of(2)[0] == ("3", pytest.approx(1))
    assert found.of(3)[0][1] == pytest.approx(0, abs=1e-6)
    assert found.similarities.shape == (4, 2)
    assert name_codewords(model_of(), CodebookProcessor(), ["1", "2"], top_k=5).positions.shape == (4, 2)


def test_usage_counts_supports_and_sums_weights_over_clips_and_captions(caplog):
    records = [
        clip(1, 1, 1, name="a", captions=("2", "1 5")),
        clip(6, 6, name="b", captions=("2",)),
        clip(1, name="c"),
    ]
    usage = codeword_usage(model_of(), CodebookProcessor(), records)
    assert (usage.num_clips, usage.num_captions, usage.num_codewords) == (3, 3, 4)
    np.testing.assert_array_equal(usage.audio_counts, [3, 1, 0, 0])
    np.testing.assert_allclose(usage.audio_weights, [2.3, 0.7, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(usage.text_counts, [1, 2, 0, 0])
    np.testing.assert_allclose(usage.text_weights, [1, 2, 0, 0], atol=1e-6)
    assert usage.active_per_clip == pytest.approx(4 / 3)
    assert usage.active_per_caption == 1
    np.testing.assert_array_equal(usage.dead, [2, 3])
    assert usage.dead_share == 0.5
    np.testing.assert_array_equal(usage.ranked()[:2], [0, 1])  # 2.3 / 3 + 1 / 3 against 0.7 / 3 + 2 / 3
    assert usage.indices == [0, 1, 2]
    (warning,) = caplog.records
    assert "50% of the 4 codewords (2) are in no support of these 3 clips and 3 captions" in warning.getMessage()
    assert "wider than the data can fill" in warning.getMessage()


def test_there_is_no_warning_up_to_a_tenth_of_dead_codewords(caplog):
    table, eye = np.zeros((12, 10)), np.eye(10)
    table[1:11] = 9 * eye
    records = [clip(row, name=str(row), captions=(f"{row}",)) for row in range(1, 10)]  # nobody uses the tenth
    model = CodebookModel(table, eye)
    assert codeword_usage(model, CodebookProcessor(), records).dead_share == 0.1
    assert not caplog.records
    assert codeword_usage(model, CodebookProcessor(), records[:8]).dead_share == 0.2
    assert len(caplog.records) == 1
    texts = codeword_usage(model, CodebookProcessor(), records[:8], texts=["9", "10"])
    assert texts.dead_share == 0  # a caption alone keeps a codeword alive
    assert texts.num_captions == 2


def test_a_corpus_without_captions_has_no_number_per_caption():
    usage = codeword_usage(model_of(), CodebookProcessor(), [clip(1), clip(4)])
    assert usage.active_per_caption is None
    np.testing.assert_array_equal(usage.dead, [1, 2])
    assert usage.ranked()[0] == 0


def test_usage_takes_the_first_part_of_a_long_clip_and_names_what_it_cannot_read():
    records = [clip(4, 4, 1, 3, name="long"), Record(id="gone", audio=None)]
    usage = codeword_usage(model_of(), CodebookProcessor(max_seconds=0.3), records)
    np.testing.assert_array_equal(usage.audio_counts, [1, 0, 0, 0])  # the strongest one of the first three frames
    assert usage.indices == [0]
    assert len(usage.skipped) == 1
    assert "gone" in usage.skipped[0]


def test_captions_are_cleaned_where_the_model_asks_for_it():
    records = [clip(1, captions=("2, 5",))]
    raw = codeword_usage(model_of(), CodebookProcessor(), records).text_weights
    np.testing.assert_allclose(raw, [0.5, 0.5, 0, 0], atol=1e-6)  # "2," is no word that the tokenizer knows
    cleaned = codeword_usage(model_of(clean_captions=True), CodebookProcessor(), records).text_weights
    np.testing.assert_allclose(cleaned, [0, 1, 0, 0], atol=1e-6)
    assert shared_codewords(model_of(clean_captions=True), CodebookProcessor(), clip(2), "2, 5").text_share == 1


def test_frame_scores_are_cosines_with_true_times():
    record = clip(1, 7, 2, 5)
    found = codeword_frame_scores(model_of(), CodebookProcessor(), record, [2, 0])
    length = np.linalg.norm(TABLE[7])
    wanted = [[0, 1], [1 / length, 0], [0, 0], [0, 0.5 / np.hypot(0.5, 1)]]
    np.testing.assert_allclose(found.scores, wanted, atol=1e-6)
    np.testing.assert_allclose(found.edges, [0, 0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match=r"`codeword_ids` holds 4, but the codebook has 4 codewords\. Give ids from"):
        codeword_frame_scores(model_of(), CodebookProcessor(), record, [0, 4])
    with pytest.raises(ValueError, match="holds -1"):
        codeword_frame_scores(model_of(), CodebookProcessor(), record, [-1])


def test_frames_after_the_end_of_a_filled_clip_are_dropped():
    processor = CodebookProcessor(min_seconds=1.0, max_seconds=1.0)
    short = Record(id="short", audio=clip(1, 2, 4).audio[:26], sampling_rate=100)  # 2.6 frames
    found = codeword_frame_scores(model_of(), processor, short, [0, 1, 2])
    np.testing.assert_allclose(found.edges, [0, 0.1, 0.2, 0.26])
    # the last frame has six samples of .04 and, as the clip is repeated, four of .01: their mean names row 3
    np.testing.assert_allclose(found.scores, np.eye(3), atol=1e-6)
    long = codeword_frame_scores(model_of(), processor, clip(*[1] * 10, 4, 4), [0, 3])
    np.testing.assert_allclose(long.scores, [[1, 0]] * 10, atol=1e-6)  # its first second alone
    assert long.edges[-1] == 1


def test_frame_activations_are_the_weights_of_every_frame_alone():
    found = frame_activations(model_of(), CodebookProcessor(), clip(1, 6, 4), top_k=3)
    np.testing.assert_array_equal(found.codewords, [[0, -1, -1], [1, 0, -1], [3, -1, -1]])
    np.testing.assert_allclose(found.weights, [[1, 0, 0], [0.7, 0.3, 0], [1, 0, 0]], atol=1e-6)
    np.testing.assert_array_equal(found.num_active, [1, 2, 1])
    np.testing.assert_allclose(found.edges, [0, 0.1, 0.2, 0.3])
    assert frame_activations(model_of(), CodebookProcessor(), clip(6), top_k=1).num_active[0] == 2


def test_weights_of_a_clip_leave_its_filling_to_the_extractor():
    np.testing.assert_allclose(
        clip_codewords(model_of(), CodebookProcessor(), clip(6, 6)), [0.3, 0.7, 0, 0], atol=1e-6
    )
    filled = clip_codewords(model_of(), CodebookProcessor(min_seconds=1.0), clip(6, 6))
    np.testing.assert_allclose(filled, [0, 0, 0, 1], atol=1e-6)  # the filling counts as sound, as in training


def test_shared_codewords_are_the_intersection_weighted_by_the_smaller_weight():
    model = model_of(divisor=10.0)
    model.table.data[10] = torch.tensor([4.5 / 2, 3.0, 2.0 / 3, 0, 0])  # scores .45 .3 .2 0, of sum .95
    model.table.data[11] = torch.tensor([0, 1.5, 1.0, 1.0, 0])  # scores 0 .15 .3 .15, of sum .6
    audio = clip_codewords(model, CodebookProcessor(), clip(10))
    np.testing.assert_allclose(audio, np.array([0.45, 0.3, 0.2, 0]) + 0.0125, atol=1e-6)
    found = shared_codewords(model, CodebookProcessor(), clip(10), "11")
    text = np.array([0, 0.15, 0.3, 0.15]) + 0.1
    smaller = np.minimum(audio, text)
    np.testing.assert_array_equal(found.codewords, [1, 2, 0, 3])
    np.testing.assert_allclose(found.shared_weights, smaller[[1, 2, 0, 3]], atol=1e-6)
    np.testing.assert_allclose(found.audio_weights, audio[[1, 2, 0, 3]], atol=1e-6)
    np.testing.assert_allclose(found.text_weights, text[[1, 2, 0, 3]], atol=1e-6)
    assert found.overlap == pytest.approx(smaller.sum(), abs=1e-6)


def test_the_shares_say_how_much_of_each_side_lies_in_the_intersection():
    found = shared_codewords(model_of(), CodebookProcessor(), clip(6), "1", top_k=5)
    np.testing.assert_array_equal(found.codewords, [0])
    assert (found.num_audio, found.num_text, found.num_shared) == (2, 1, 1)
    assert found.audio_share == pytest.approx(0.3, abs=1e-6)
    assert found.text_share == pytest.approx(1.0, abs=1e-6)
    assert found.overlap == pytest.approx(0.3, abs=1e-6)
    none = shared_codewords(model_of(), CodebookProcessor(), clip(6), "4")
    assert (len(none.codewords), none.num_shared, none.audio_share, none.overlap) == (0, 0, 0, 0)
    two = shared_codewords(model_of(divisor=10.0), CodebookProcessor(), clip(6), "6", top_k=1)
    assert len(two.codewords) == 1
    assert two.num_shared > 1
    assert two.audio_share == pytest.approx(1, abs=1e-6)  # of all shared ones, not only those listed
    assert two.overlap == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("aggregation", ["mean", "wstag"])
def test_a_model_without_codebook_is_refused(aggregation):
    model = MgaClapModel(tiny_mga_clap_config(aggregation=aggregation, audio_config=tiny_ast_config()))
    for ask in (
        lambda: name_codewords(model, tiny_processor(), ["dog"]),
        lambda: codeword_usage(model, tiny_processor(), [clip(1)]),
        lambda: codeword_frame_scores(model, tiny_processor(), clip(1), [0]),
        lambda: frame_activations(model, tiny_processor(), clip(1)),
        lambda: shared_codewords(model, tiny_processor(), clip(1), "dog"),
    ):
        with pytest.raises(ValueError, match=rf"no codebook, got `aggregation` '{aggregation}'\. Give an MGA-CLAP"):
            ask()


# ---- real models -------------------------------------------------------------------------------------------------


def noise(seconds, rate, seed=0, **fields):
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32)
    return Record(id=f"noise {seed}", audio=samples, sampling_rate=rate, **fields)


def real_model(**overrides):
    torch.manual_seed(0)
    return MgaClapModel(tiny_mga_clap_config(affinity_divisor=2.0, **overrides))


def test_a_real_model_gives_what_its_own_methods_give():
    model = real_model(audio_config=tiny_ast_config())
    extractor = LogMelFeatureExtractor.from_preset("slap", feature_size=36, mean=-7.0, std=9.0, max_seconds=1.1)
    processor = AudioLangProcessor(extractor, tiny_tokenizer())
    record = noise(0.7, 16000, captions=("a dog barking, loud", "rain"))
    usage = codeword_usage(model, processor, [record, noise(1.0, 16000, seed=1)])
    assert usage.audio_weights.sum() == pytest.approx(2, abs=1e-4)
    assert usage.text_weights.sum() == pytest.approx(2, abs=1e-4)
    batch = extractor([record.audio], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        model.eval()
        np.testing.assert_allclose(
            clip_codewords(model, processor, record), model.get_codeword_weights(**batch)[0], atol=1e-6
        )
        frames = model.get_audio_frame_features(**batch)
    unit = torch.nn.functional.normalize(model.codebook.weight, dim=1)
    wanted = (frames.frame_features @ unit[[3, 5]].T)[0][frames.frame_mask[0]].detach().numpy()
    found = codeword_frame_scores(model, processor, record, [3, 5])
    np.testing.assert_allclose(found.scores, wanted[: len(found.scores)], atol=1e-5)
    assert len(found.scores) == 7  # frames of 0.1 s that begin in 0.7 s
    assert found.edges[-1] == pytest.approx(0.7)


def test_htsat_frames_are_cut_at_the_end_of_a_short_clip():
    """The tower stretches every clip to 32 frames, of which a clip of 0.9 s in 2.5 s has 12."""
    model = real_model()
    extractor = LogMelFeatureExtractor.from_preset("mga_clap", feature_size=16, min_seconds=2.5, max_seconds=2.5)
    processor = AudioLangProcessor(extractor, tiny_tokenizer())
    found = codeword_frame_scores(model, processor, noise(0.9, 32000), [0, 1, 2])
    assert found.scores.shape == (12, 3)
    assert found.edges[1] == pytest.approx(2.5 / 32)
    assert found.edges[-1] == pytest.approx(0.9)
    assert codeword_frame_scores(model, processor, noise(4.0, 32000), [0]).scores.shape == (32, 1)
    maps = last_block_maps(model, processor, noise(0.9, 32000))
    assert maps.value_value.shape == (12, 12)
    np.testing.assert_allclose(maps.edges, found.edges)
    np.testing.assert_allclose(maps.query_key.sum(1), 1, atol=1e-5)


# ---- similarity maps of the last block ---------------------------------------------------------------------------


def test_the_event_ratio_by_hand():
    """Five frames of 1 s: dog, dog, cat, cat, nothing."""
    events = [{"label": "dog", "onset": 0.0, "offset": 2.0}, {"label": "cat", "onset": 2.0, "offset": 4.4}]
    similarities = np.arange(25.0).reshape(5, 5) + 1
    inside = (similarities[0, 1] + similarities[1, 0] + similarities[2, 3] + similarities[3, 2]) / 4
    pairs = [(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 4), (3, 4)]
    across = np.mean([similarities[a, b] + similarities[b, a] for a, b in pairs]) / 2
    edges = np.arange(6.0)
    assert event_ratio(similarities, edges, events) == pytest.approx(inside / across)
    events[1]["label"] = "dog"  # both dogs may sound alike: only pairs with the last frame are across
    across = np.mean([similarities[a, 4] + similarities[4, a] for a in range(4)]) / 2
    assert event_ratio(similarities, edges, events) == pytest.approx(inside / across)


def test_overlapping_events_share_their_frames_and_no_events_give_no_ratio():
    edges = np.arange(4.0)
    both = [{"label": "dog", "onset": 0, "offset": 2}, {"label": "rain", "onset": 1, "offset": 3}]
    similarities = np.array([[9, 2, 5], [2, 9, 4], [5, 4, 9.0]])
    assert event_ratio(similarities, edges, both) == pytest.approx(3 / 5)
    assert event_ratio(similarities, edges, []) is None
    assert event_ratio(similarities, edges, [{"label": "rain", "onset": 0, "offset": 3}]) is None  # no border
    assert event_ratio(similarities, edges, [{"label": "rain", "onset": 9, "offset": 10}]) is None


def test_maps_of_the_last_block_cover_the_clip_and_its_rows_sum_to_one():
    model = real_model(audio_config=tiny_ast_config())
    extractor = LogMelFeatureExtractor.from_preset(
        "slap", feature_size=36, mean=-7.0, std=9.0, min_seconds=1.1, max_seconds=1.1
    )
    processor = AudioLangProcessor(extractor, tiny_tokenizer())
    events = ({"label": "dog", "onset": 0.0, "offset": 0.3}, {"label": "cat", "onset": 0.3, "offset": 0.6})
    found = last_block_maps(model, processor, noise(0.6, 16000, events=events))
    for one in (found.query_key, found.value_value):
        assert one.shape == (6, 6)
        np.testing.assert_allclose(one.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found.edges, np.arange(7) / 10)
    assert found.value_value_ratio == pytest.approx(event_ratio(found.value_value, found.edges, events))
    assert found.query_key_ratio != found.value_value_ratio
    waveform = np.resize(noise(0.6, 16000).audio, 17600)
    batch = extractor([waveform], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        whole = model.eval().audio_model.last_block_similarities(batch["input_features"])[1][0, :6, :6].numpy()
    np.testing.assert_allclose(found.value_value, whole / whole.sum(1, keepdims=True), atol=1e-6)
    assert last_block_maps(model, processor, noise(0.6, 16000)).query_key_ratio is None


def test_a_tower_that_cannot_show_its_last_block_is_refused():
    with pytest.raises(ValueError, match=r"does not show how alike frames are in its last block\. Take a model"):
        last_block_maps(model_of(), CodebookProcessor(), clip(1))

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Caption scores against recorded values of pycocoevalcap, closed forms, and changes that must or must not matter."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from hf_audiolang.evaluation.metrics import load_metric
from hf_audiolang.evaluation.metrics.caption_scores import (
    bleu,
    caption_diversity,
    caption_scores,
    cider_d,
    rouge_l,
    simple_words,
)

RECORDED = json.loads(Path(__file__).with_name("caption_scores.json").read_text(encoding="utf-8"))
CLIPS = (RECORDED["cases"]["all"]["captions"], RECORDED["cases"]["all"]["references"])
NAMES = ["CIDEr-D", "BLEU_1", "BLEU_2", "BLEU_3", "BLEU_4", "ROUGE_L"]


def words(*texts):
    return [text.split() for text in texts]


@pytest.mark.parametrize("case", RECORDED["cases"])
def test_scores_equal_those_of_pycocoevalcap(case):
    recorded = RECORDED["cases"][case]
    scores = caption_scores(recorded["captions"], recorded["references"])
    assert list(scores.corpus) == NAMES
    assert scores.corpus == pytest.approx(recorded["corpus"], rel=1e-10, abs=1e-12)
    for name in NAMES:
        np.testing.assert_allclose(scores.per_clip[name], recorded["per_clip"][name], rtol=1e-10, atol=1e-12)


def test_the_recorded_cases_reach_every_branch():
    cases = RECORDED["cases"]
    assert cases["all"]["per_clip"]["CIDEr-D"][0] == pytest.approx(10.0)
    assert cases["all"]["per_clip"]["BLEU_4"][3] == 0.0  # empty
    assert cases["no match"]["corpus"] == pytest.approx(dict.fromkeys(NAMES, 0.0), abs=1e-6)
    long = cases["long captions"]
    assert long["corpus"]["BLEU_1"] > 0.4  # and no brevity penalty
    assert sum(len(text.split()) for text in long["captions"]) > 30


@pytest.mark.parametrize("text", RECORDED["tokens"])
def test_simple_words_are_those_of_the_penn_treebank_tokenizer(text):
    assert len(RECORDED["tokens"]) == 50
    assert simple_words(text) == RECORDED["tokens"][text].split()
    assert simple_words(RECORDED["tokens"][text]) == simple_words(text)  # text that is split already


def test_simple_words_of_what_is_no_caption():
    assert simple_words(" ... !? -- ") == []
    assert simple_words("snake_case well-known 3.5kHz") == ["snake", "case", "well", "known", "3", "5khz"]
    assert simple_words("Ça été «là»") == ["ça", "été", "là"]


def test_cider_closed_form_with_one_reference_each():
    # N = 2; every n-gram of the references is in one clip, so that its idf is log 2, which cancels in the cosine
    captions, references = words("a b c", "x y"), [words("a b d"), words("x y")]
    # words: 2 of 3 shared, both norms sqrt(3): 2/3; pairs: one of 2 and 2: 1/2; triples: 0; none of four words
    expected = [10 * (2 / 3 + 1 / 2) / 4, 10 * (1 + 1) / 4]
    np.testing.assert_allclose(cider_d(captions, references), expected)


def test_cider_weighs_rare_words_higher_and_words_of_every_clip_not_at_all():
    captions = words("a dog", "a cat", "a cat")
    references = [words("a dog"), words("a cat"), words("a cat purrs")]
    both, rare, common = (cider_d([caption, *captions[1:]], references)[0] for caption in words("a dog", "dog", "a"))
    assert common == 0.0
    assert 0 < rare < both  # `a` has weight 0, `a dog` is another n-gram
    penalty = math.exp(-1 / 72)  # one word less
    assert rare == pytest.approx(10 / 4 * penalty)


def test_cider_length_penalty_and_clipping():
    filler = (words("q r s"), [words("q r s t")])
    reference = words("u v")
    once, thrice = (cider_d([text.split(), *filler[0]], [reference, *filler[1]])[0] for text in ("u v", "u v u v u v"))
    assert once == pytest.approx(10 * 2 / 4)
    # six words: norm of (3, 3) is 3 sqrt(2), clipped to (1, 1): 2 / (3 sqrt(2) sqrt(2)) = 1/3; pairs: u v x 3, v u x 2
    assert thrice == pytest.approx(10 * (1 / 3 + 1 / math.sqrt(13)) / 4 * math.exp(-16 / 72))


def test_bleu_closed_forms():
    corpus, per_clip = bleu(words("a b c d", "a b"), [words("a b c e"), words("a b x y", "c")])
    np.testing.assert_allclose(
        per_clip[0], [3 / 4, (3 / 4 * 2 / 3) ** 0.5, (3 / 4 * 2 / 3 / 2) ** (1 / 3), 0], atol=1e-3
    )
    # of the references with 4 and 1 words the one with 1 is closer to 2
    np.testing.assert_allclose(per_clip[1, :2], [1, 1], rtol=1e-8)
    np.testing.assert_allclose(corpus[:2], [5 / 6, (5 / 6 * 3 / 4) ** 0.5], rtol=1e-8)  # sums, no means: 6 words for 5
    short, _ = bleu(words("a b"), [words("a b c d")])
    np.testing.assert_allclose(short[:2], [math.exp(1 - 4 / 2)] * 2, rtol=1e-8)
    tie, _ = bleu(words("a b c"), [words("a b", "a b c d")])  # equally close: the shorter, so no penalty
    assert tie[0] == pytest.approx(1.0)


def test_rouge_closed_form():
    # precision 3/4 and recall 3/3, from the same reference; the second has the better of neither
    score = rouge_l(words("a x b c"), [words("a b c", "q x")])[0]
    assert score == pytest.approx((1 + 1.44) * 0.75 * 1 / (1 + 1.44 * 0.75))
    # of the reversed order only one word is a common subsequence
    assert rouge_l(words("c b a"), [words("a b c")])[0] == pytest.approx(1 / 3)
    assert rouge_l([[]], [words("a b", "c")])[0] == 0.0


def test_order_of_clips_and_of_references_does_not_matter_but_their_pairing_does():
    captions, references = CLIPS
    before = caption_scores(captions, references)
    order = np.random.default_rng(0).permutation(len(captions))
    after = caption_scores([captions[i] for i in order], [references[i][::-1] for i in order])
    assert after.corpus == pytest.approx(before.corpus)
    np.testing.assert_allclose(after.per_clip["CIDEr-D"], before.per_clip["CIDEr-D"][order])
    shifted = caption_scores([*captions[1:], captions[0]], references)
    assert shifted.corpus["CIDEr-D"] < before.corpus["CIDEr-D"] / 3


def test_case_and_punctuation_do_not_matter():
    captions, references = CLIPS
    dressed = [f"  {caption.upper()} ." for caption in captions]
    assert caption_scores(dressed, references).corpus == pytest.approx(caption_scores(captions, references).corpus)


def test_an_empty_caption_scores_zero_and_an_empty_reference_matches_nothing():
    captions, references = ["", "?!", "a dog barks"], [["a dog"], ["a cat"], ["a dog barks", "..."]]
    scores = caption_scores(captions, references)
    assert all(list(values[:2]) == [0, 0] for values in scores.per_clip.values())
    assert scores.per_clip["ROUGE_L"][2] == 1.0
    alone = caption_scores(captions, [*references[:2], ["a dog barks"]])
    assert scores.per_clip["CIDEr-D"][2] == pytest.approx(alone.per_clip["CIDEr-D"][2] / 2)  # mean over references


def test_diversity_closed_form():
    found = caption_diversity(["A dog barks.", "a dog barks", "a cat", "!"])
    assert found == pytest.approx(
        {
            "vocabulary_size": 4,  # a dog barks cat
            "distinct_1": 4 / 8,
            "distinct_2": 3 / 5,
            "mean_words": 2,
            "duplicates": 1 / 4,
            "empty": 1 / 4,
        }
    )
    constant = caption_diversity(["a sound"] * 10)
    assert constant["duplicates"] == pytest.approx(0.9)
    silent = caption_diversity(["", ""])
    assert (silent["distinct_1"], silent["distinct_2"], silent["empty"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("captions", "references", "error", "message"),
    [
        (["a dog"], [["a dog"]], ValueError, "two clips at least, got 1.*Score more clips together"),
        (["a", "b"], [["a"]], ValueError, "got 1 for 2 captions. Give the references of each clip"),
        (["a", None], [["a"], ["b"]], TypeError, "got NoneType for clip 1. Give strings"),
        (["a", "b"], [["a"], [3]], TypeError, "`references` must be texts, got int for clip 1"),
        (["a", "b"], ["a", "b"], TypeError, "clip 0 is one text, got 'a'. Give a list"),
        (["a", "b"], [["a"], []], ValueError, "clip 1 has no text with a word, got .*leave the clip out"),
        (["a", "b"], [["a"], ["!"]], ValueError, "clip 1 has no text with a word"),
    ],
)
def test_what_cannot_be_scored_is_refused(captions, references, error, message):
    with pytest.raises(error, match=message):
        caption_scores(captions, references)


def test_diversity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="Give at least one"):
        caption_diversity([])


def test_the_metric_object_collects_batches_and_equals_the_functions(tmp_path):
    captions, references = CLIPS
    metric = load_metric("caption_scores", cache_dir=str(tmp_path))
    metric.add_batch(predictions=captions[:5], references=references[:5])
    metric.add_batch(predictions=captions[5:], references=references[5:])
    expected = {**caption_scores(captions, references).corpus, **caption_diversity(captions)}
    assert metric.compute() == pytest.approx(expected)


def test_four_hundred_clips_are_scored_at_once():
    generator = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in generator.zipf(1.4, size=11) % 600) for _ in range(2400)]
    start = time.process_time()
    caption_scores(texts[:400], [texts[400 + 5 * i : 405 + 5 * i] for i in range(400)])
    assert time.process_time() - start < 2  # a quarter of a second on a free core

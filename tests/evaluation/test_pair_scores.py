# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Retrieval by pair scores is retrieval by the model's own logits."""

import numpy as np
import pytest
import torch
from tiny import PAD, tiny_mga_clap_config, tiny_slap_audio_config, tiny_tokenizer

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, MgaClapModel
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation import retrieval
from hf_audiolang.evaluation.pair_scores import pair_similarities, scores_pairs

TEXTS = [("a dog barking", "loud rain"), ("a siren",), ("the low bell in the rain",)]


@pytest.fixture(scope="module")
def processor():
    return AudioLangProcessor(LogMelFeatureExtractor.from_preset("slap", mean=-7.0, std=9.0), tiny_tokenizer())


def make_model(aggregation):
    torch.manual_seed(0)
    config = tiny_mga_clap_config(aggregation=aggregation, audio_config=tiny_slap_audio_config())
    return MgaClapModel(config).eval()


def make_records():
    generator = np.random.default_rng(0)
    lengths = (16000, 9000, 12345)
    return [
        Record(str(index), generator.normal(0, 0.1, length).astype(np.float32), 16000, captions=texts)
        for index, (length, texts) in enumerate(zip(lengths, TEXTS, strict=True))
    ]


@pytest.mark.parametrize("aggregation", ["uaca", "wstag", "attention"])
def test_similarities_are_the_logits_of_the_model(processor, aggregation):
    model, records = make_model(aggregation), make_records()
    assert scores_pairs(model)
    texts = [text for captions in TEXTS for text in captions]
    got = pair_similarities(model, processor, records, texts)
    audio = processor.feature_extractor([r.audio for r in records], sampling_rate=16000, return_tensors="pt")
    tokens = processor.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**audio, **tokens)
    wanted = outputs.logits_per_text * model.logit_scale.temperature
    np.testing.assert_allclose(got, wanted.detach().numpy(), atol=1e-5)
    assert (tokens["input_ids"] == PAD).any()


def test_retrieval_ranks_by_pair_scores(processor):
    model, records = make_model("wstag"), make_records()
    result = retrieval.evaluate(model, processor, records, ks=(1, 2))
    scores = pair_similarities(model, processor, records, [text for captions in TEXTS for text in captions])
    own = np.array([0, 0, 1, 2])
    ranks = (scores > scores[np.arange(4), own][:, None]).sum(1)
    assert result["text_to_audio/R@1"] == pytest.approx((ranks < 1).mean())
    assert result["text_to_audio/R@2"] == pytest.approx((ranks < 2).mean())
    best = [max(scores[own == clip, clip]) for clip in range(3)]
    better = [(scores[own != clip, clip] > best[clip]).sum() for clip in range(3)]
    assert result["audio_to_text/R@1"] == pytest.approx(np.mean(np.array(better) < 1))


def test_other_models_have_embeddings():
    assert not scores_pairs(make_model("codebook"))
    assert not scores_pairs(torch.nn.Linear(2, 3))

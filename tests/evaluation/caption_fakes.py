# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""A captioner whose captions are known by construction: a clip of constant value 0.03 gets `CAPTIONS[3]`."""

from types import SimpleNamespace

import torch
from evaluation_fakes import TableExtractor
from torch import nn

CAPTIONS = ("a dog barks", "a dog barks twice", "rain falls", "", "a bell rings then a dog barks", "wind blows .")
WORDS = sorted({word for caption in CAPTIONS for word in caption.split()})
PAD, START, END, FIRST = 0, 1, 2, 3


class TableCaptioner(nn.Module):
    """`generate` alone: token ids with start, end and padding, as encoder-decoder models of transformers give them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.config = SimpleNamespace(_name_or_path="captions")
        self.calls = []

    def generate(self, input_features, input_features_mask, **generation):
        self.calls.append({"shape": tuple(input_features.shape), "training": self.training, **generation})
        mean = (input_features * input_features_mask).sum(1) / input_features_mask.sum(1)  # (B,)
        rows = (mean * 100).round().long()
        ids = [[START, *(FIRST + WORDS.index(word) for word in CAPTIONS[row].split()), END] for row in rows]
        longest = max(map(len, ids))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in ids])


class CaptionTokenizer:
    model_max_length = 64

    def batch_decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join(WORDS[token - FIRST] for token in row if token >= FIRST) for row in ids.tolist()]


class CaptionProcessor:
    def __init__(self, max_seconds=None):
        self.feature_extractor = TableExtractor(max_seconds)
        self.tokenizer = CaptionTokenizer()

"""A model with a real codebook of known codewords, and frames and words that are rows of a table.

The sample values of a waveform and the numbers in a text name rows of the table: ten samples of value 0.05 are a frame
with the projected feature `table[5]`, the text "5 7" has the words `table[5]` and `table[7]`.
"""

from types import SimpleNamespace

import numpy as np
import torch
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableExtractor
from torch import nn

from hf_audiolang.data.records import Record
from hf_audiolang.models.layers_codebook import SharedCodebook

END = 99  # the token behind every text


class CodebookModel(nn.Module):
    """The surface of `MgaClapModel` that the codeword functions use."""

    def __init__(self, table, codewords, *, divisor=1.0, clean_captions=False):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(np.asarray(table), dtype=torch.float32))
        self.codebook = SharedCodebook(*np.shape(codewords), affinity_divisor=divisor)
        self.codebook.weight.data = torch.as_tensor(np.asarray(codewords), dtype=torch.float32)
        self.config = SimpleNamespace(
            _name_or_path="somewhere/tiny",
            aggregation="codebook",
            codebook_activation="sparsemax",
            clean_captions=clean_captions,
            audio_config=SimpleNamespace(frame_rate_hz=SAMPLING_RATE / FRAME_SAMPLES),
        )
        self.dropout = nn.Dropout(0.5)  # shows in the numbers unless evaluation mode is on

    def frame_embeddings(self, input_features, input_features_mask):
        rows = (input_features.unflatten(1, (-1, FRAME_SAMPLES)).mean(-1) * 100).round().long()  # (B, T')
        return self.dropout(self.table[rows]), input_features_mask.unflatten(1, (-1, FRAME_SAMPLES)).all(-1)

    def get_codeword_weights(self, input_ids=None, attention_mask=None, input_features=None, input_features_mask=None):
        if input_ids is None:
            return self.codebook(*self.frame_embeddings(input_features, input_features_mask), "neg_inf")[1]
        return self.codebook(*self._words(input_ids, attention_mask))[1]

    def get_text_features(self, input_ids, attention_mask):
        pooled = self.codebook(*self._words(input_ids, attention_mask))[0]
        return SimpleNamespace(pooler_output=nn.functional.normalize(pooled, dim=-1))

    def _words(self, input_ids, attention_mask):
        is_word = attention_mask.bool() & (input_ids != END)
        return self.dropout(self.table[input_ids.masked_fill(~is_word, 0)]), is_word


class CodebookProcessor:
    """Samples as features, with the numbers in a text as tokens; a fixed input of `min_seconds`, a limit."""

    def __init__(self, max_seconds=None, min_seconds=0.0):
        self.feature_extractor = FillingExtractor(max_seconds)
        self.feature_extractor.min_seconds = min_seconds
        self.tokenizer = NumberTokenizer()


class FillingExtractor(TableExtractor):
    """Fills clips to `min_seconds` with a sound of its own, row 9; with `return_tensors="np"` noise for pictures."""

    std, mean, log, mel_scale, f_min, f_max = 2.0, -5.0, "ln", "htk", 20.0, 8000.0
    hop_length = FRAME_SAMPLES

    def __call__(self, waveforms, sampling_rate, return_tensors):
        if return_tensors == "np":
            num_frames = len(waveforms[0]) // FRAME_SAMPLES
            return {"input_features": np.random.default_rng(0).standard_normal((1, num_frames, 13))}
        least = round(self.min_seconds * SAMPLING_RATE)
        filled = [np.append(clip, np.full(max(0, least - len(clip)), 0.09, dtype=np.float32)) for clip in waveforms]
        return super().__call__(filled, sampling_rate, return_tensors)


class NumberTokenizer:
    model_max_length = 64

    def __call__(self, texts, padding=False, truncation=False, max_length=None, return_tensors=None):
        ids = [[int(word) for word in text.split() if word.isdigit()] + [END] for text in texts]
        longest = max(map(len, ids))
        return {
            "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
        }


def clip(*rows, name="clip", **fields):
    """A record whose frames of 0.1 s are rows of the table."""
    waveform = np.repeat(np.array(rows, dtype=np.float32) / 100, FRAME_SAMPLES)
    return Record(id=name, audio=waveform, sampling_rate=SAMPLING_RATE, **fields)

"""An encoder whose frames are known: ten samples of value 0.03 are a frame with row 3 of its table."""

from types import SimpleNamespace

import numpy as np
import torch
from evaluation_fakes import FRAME_SAMPLES, SAMPLING_RATE, TableExtractor
from torch import nn

from hf_audiolang.data.labels_records import LabelledData
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.feature_cache import FrozenFeatures
from hf_audiolang.models.layers_pooling import masked_mean


class FrameEncoder(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(np.asarray(table), dtype=torch.float32))
        self.dropout = nn.Dropout(0.5)  # shows in the frames unless evaluation mode is on
        self.config = SimpleNamespace(_name_or_path="frames", to_dict=lambda: {"_name_or_path": "any", "width": 5})
        self.num_clips = 0

    def forward(self, input_features, input_features_mask):
        self.num_clips += len(input_features)
        rows = (input_features.unflatten(1, (-1, FRAME_SAMPLES)).mean(-1) * 100).round().long()  # (B, T')
        frame_mask = input_features_mask.unflatten(1, (-1, FRAME_SAMPLES)).any(-1)
        frames = self.dropout(self.table[rows]).masked_fill(~frame_mask.unsqueeze(-1), 1e3)
        return SimpleNamespace(frame_features=frames, frame_mask=frame_mask)


class LayerEncoder(FrameEncoder):
    """The same with clip features and, if asked, hidden states: one table for each layer, the last that of frames."""

    def __init__(self, tables):
        super().__init__(tables[-1])
        self.lower = nn.ParameterList(torch.as_tensor(np.asarray(table), dtype=torch.float32) for table in tables[:-1])
        self.config.frame_feature_size = self.table.shape[1]
        self.config.frame_rate_hz = SAMPLING_RATE / FRAME_SAMPLES

    def forward(self, input_features, input_features_mask, output_hidden_states=False):
        output = super().forward(input_features, input_features_mask)
        rows = (input_features.unflatten(1, (-1, FRAME_SAMPLES)).mean(-1) * 100).round().long()
        output.token_mask = output.frame_mask
        output.pooler_output = masked_mean(output.frame_features, output.frame_mask)
        lower = [table[rows].masked_fill(~output.token_mask.unsqueeze(-1), 1e3) for table in self.lower]
        output.hidden_states = (*lower, output.frame_features) if output_hidden_states else None
        return output


class System(nn.Module):
    """A system around an encoder: the probe asks the encoder, not the shared space."""

    def __init__(self, encoder):
        super().__init__()
        self.audio_model, self.config = encoder, encoder.config


class FrameExtractor(TableExtractor):
    def to_dict(self):
        return dict(vars(self))


def clip(rows, **fields):
    """A record whose frames are these rows of the encoder's table."""
    samples = np.repeat(np.asarray(rows, dtype=np.float32) / 100, FRAME_SAMPLES)
    return Record(**{"id": f"clip {rows}", "audio": samples, "sampling_rate": SAMPLING_RATE, **fields})


def frames_of(clips, labels):
    """Frame features made by hand of arrays (T', D'), with a tuple of labels for each."""
    records = [Record(id=f"{n}", audio=None, labels=tuple(of_clip)) for n, of_clip in enumerate(labels)]
    lengths = np.array([len(frames) for frames in clips])
    return FrozenFeatures(np.concatenate(clips), lengths, np.arange(len(clips)), records, [])


def labelled(train, test, validation=None, classes=("class 0", "class 1", "class 2"), **fields):
    """Labelled data out of lists of records."""
    fields = {"is_multi_label": False, "name": "fakes", **fields}
    return LabelledData(train, validation, test, list(classes), **fields)


def features_of(rows, labels, lengths=None):
    """Features made by hand: rows (M, ...) with a tuple of labels for each clip."""
    records = [Record(id=f"{n}", audio=None, labels=tuple(of_clip)) for n, of_clip in enumerate(labels)]
    lengths = np.ones(len(records), dtype=np.int64) if lengths is None else np.asarray(lengths)
    return FrozenFeatures(rows, lengths, np.arange(len(records)), records, [])

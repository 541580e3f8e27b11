# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What probes are trained on: frames, clip features and the layers of a frozen audio encoder, cached on disk.

records -> waveforms -> (cut to a length, cut into windows) -> feature extractor -> encoder in evaluation mode
    frame_features  frame_features (T'_i, D') of each clip, padding left out
    timed_frames    the same in windows, with the times of the frames
    clip_features   pooler_output (D') of each piece
    layer_features  hidden_states, each averaged over time: (L, D') of each piece
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_audiolang.data.records import Record, record_ids
from hf_audiolang.models.layers_pooling import masked_mean
from hf_audiolang.models.modeling_outputs import AudioEncoderOutput

from .capabilities import AudioProcessor, feature_extractor_of
from .clip_cuts import Cut
from .embed import (
    AudioOptions,
    RecordReader,
    audio_inputs,
    batches_by_length,
    evaluation_mode,
    longest_seconds,
)
from .feature_cache import FrozenFeatures, stored_features
from .frame_scores import FrameScoreOptions, score_records
from .frames import FrameSurface


def encoder_of(model: nn.Module) -> nn.Module:
    """The audio encoder of a system, a captioner or a classifier; an encoder itself."""
    system = getattr(model, "base_model", model)
    return getattr(system, "audio_model", system)


def frame_features(
    model: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    options: AudioOptions | None = None,
    cache_dir: str | Path | None = None,
    *,
    half_precision: bool = False,
) -> FrozenFeatures:
    """Final frames that the audio encoder gives for each clip, before any projection, padding left out.

    A clip over the limit is cut by the rule of `options.long_audio`; the frames of its pieces follow each other. What
    the feature extractor fills a short clip up with counts as real where the encoder's `frame_mask` says so.

    Args:
        model: a system, a captioner or a classifier, whose `audio_model` is asked, or an audio encoder; weights and
            modes stay as they are.
        processor: holds the model's feature extractor, or is it.
        records: map-style sequence of `Record`.
        options: batching, the rule for long clips and the rule for bad ones.
        cache_dir: folder of stored features; made if missing. None stores nothing.
        half_precision: round to float16, in memory and on disk: half the space, three digits.

    Raises:
        TooManyBadExamples: if more than `options.max_bad_fraction` of the clips are bad.
        ValueError: if no clip is readable, a row is not finite, or a stored file cannot be read.
    """
    dtype = np.float16 if half_precision else np.float32
    about = {"precision": np.dtype(dtype).name}
    return _features("frames", model, processor, records, options, cache_dir, partial(_frame_rows, dtype), about)


def clip_features(
    model: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    options: AudioOptions | None = None,
    cache_dir: str | Path | None = None,
    *,
    cut: Cut | None = None,
) -> FrozenFeatures:
    """What the audio encoder makes of each clip: its `pooler_output` (D'), before any projection, not normalised.

    A clip that is cut has a row per piece; its feature is their mean, `clip_means()`.

    Args:
        model: see `frame_features`, as the next four.
        processor: holds the model's feature extractor, or is it.
        records: map-style sequence of `Record`.
        options: batching, the rule for long clips and the rule for bad ones.
        cache_dir: folder of stored features.
        cut: what is done to the clips before; None leaves them as they are.

    Raises:
        TooManyBadExamples, ValueError: as `frame_features`.
    """
    return _features("clips", model, processor, records, options, cache_dir, _clip_rows, {}, cut)


def layer_features(
    model: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    options: AudioOptions | None = None,
    cache_dir: str | Path | None = None,
    *,
    cut: Cut | None = None,
) -> FrozenFeatures:
    """The mean over time of each of the encoder's `hidden_states`: rows (L, D'), L - 1 layers and their input.

    Layers narrower than the widest are filled up with zeros, as Zipformer does between its stacks.

    Args:
        model: see `frame_features`, as the next four.
        processor: holds the model's feature extractor, or is it.
        records: map-style sequence of `Record`.
        options: batching, the rule for long clips and the rule for bad ones.
        cache_dir: folder of stored features.
        cut: what is done to the clips before; None leaves them as they are.

    Raises:
        TooManyBadExamples, ValueError: as `frame_features`; also if the encoder gives no hidden states, or some whose
            tokens fit neither its tokens nor a finer grid of them.
    """
    return _features("layers", model, processor, records, options, cache_dir, _layer_rows, {}, cut)


def timed_frames(
    model: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    options: FrameScoreOptions | None = None,
    cache_dir: str | Path | None = None,
) -> FrozenFeatures:
    """Final frames of each clip from its beginning to its end, and the frames per second of each clip.

    Clips are cut, repeated and put together as for detection, see `frame_scores`: row k of a clip is heard at the
    k-th frame of it, however long it is.

    Args:
        model: see `frame_features`, as the next two.
        processor: holds the model's feature extractor, or is it.
        records: map-style sequence of `Record`.
        options: windows, batches and the rule for bad clips.
        cache_dir: folder of stored features.

    Raises:
        TooManyBadExamples, ValueError: as `frame_features`.
    """
    options, encoder = options or FrameScoreOptions(), encoder_of(model)
    about = {name: value for name, value in asdict(options).items() if name != "reading"}

    def compute() -> FrozenFeatures:
        surface = FrameSurface(encoder, encoder.config, "frame_features")  # in no shared space
        every_feature = np.eye(encoder.config.frame_feature_size, dtype=np.float32)
        found = score_records(surface, processor, records, lambda _: every_feature, options=options)
        frames = [item.scores for item in found.frame_scores]
        lengths, indices = np.array([len(of_clip) for of_clip in frames]), _positions(records, found.records)
        rates_hz = np.array(found.frame_rates_hz, dtype=np.float64)
        return FrozenFeatures(np.concatenate(frames), lengths, indices, found.records, found.skipped, rates_hz)

    return stored_features(
        "timed", encoder, processor, records, options.reading, compute, cache_dir=cache_dir, about=about
    )


def _features(
    kind: str,
    model: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    options: AudioOptions | None,
    cache_dir: str | Path | None,
    rows_of: Callable[[nn.Module, dict[str, Tensor]], list[np.ndarray]],
    about: dict[str, object],
    cut: Cut | None = None,
) -> FrozenFeatures:
    """What `rows_of` makes of the encoder and the inputs of each piece, stored under `kind`."""
    options, encoder = options or AudioOptions(), encoder_of(model)
    about = about if cut is None else {**about, "cut": [type(cut).__name__, asdict(cut)]}

    def compute() -> FrozenFeatures:
        sampling_rate = feature_extractor_of(processor).sampling_rate
        reader = RecordReader(records, sampling_rate, options)
        found: dict[tuple[int, int], np.ndarray] = {}  # (dataset index, number of the piece) -> rows
        with evaluation_mode(encoder):
            pieces = reader.pieces(longest_seconds(processor, options), cut)
            for batch in batches_by_length(pieces, int(options.batch_seconds * sampling_rate)):
                inputs = audio_inputs(encoder, processor, [piece for _, piece in batch])
                found.update(zip([place for place, _ in batch], rows_of(encoder, inputs), strict=True))
        return _joined(found, reader)

    return stored_features(kind, encoder, processor, records, options, compute, cache_dir=cache_dir, about=about)


def _joined(found: dict[tuple[int, int], np.ndarray], reader: RecordReader) -> FrozenFeatures:
    """The rows of all pieces, clip after clip."""
    reader.check_any_read()
    indices = sorted(reader.records)
    lengths = dict.fromkeys(indices, 0)
    for (index, _), rows in found.items():
        lengths[index] += len(rows)
    return FrozenFeatures(
        np.concatenate([found[place] for place in sorted(found)]), np.array(list(lengths.values())),
        np.array(indices), [reader.records[index] for index in indices], reader.skipped,
    )  # fmt: skip


def _frame_rows(dtype: type, encoder: nn.Module, inputs: dict[str, Tensor]) -> list[np.ndarray]:
    output = encoder(**inputs)
    features = output.frame_features.float().cpu().numpy()  # (B, T', D')
    is_real = output.frame_mask.cpu().numpy().astype(bool)  # (B, T')
    return [frames[kept].astype(dtype) for frames, kept in zip(features, is_real, strict=True)]


def _clip_rows(encoder: nn.Module, inputs: dict[str, Tensor]) -> list[np.ndarray]:
    return list(encoder(**inputs).pooler_output.float().cpu().numpy()[:, None])  # B arrays (1, D')


def _layer_rows(encoder: nn.Module, inputs: dict[str, Tensor]) -> list[np.ndarray]:
    output = encoder(**inputs, output_hidden_states=True)
    states = output.hidden_states
    if not states:
        raise ValueError(
            "`model` gives no `hidden_states`, got None. Probe its clip features instead (`layer` 'clip'), or choose "
            "another encoder."
        )
    width = max(state.shape[-1] for state in states)
    means = [masked_mean(state.float(), _state_mask(state, output)) for state in states]
    layers = torch.stack([F.pad(mean, (0, width - mean.shape[-1])) for mean in means], dim=1)  # (B, L, D')
    return list(layers.cpu().numpy()[:, None])  # B arrays (1, L, D')


def _state_mask(state: Tensor, output: AudioEncoderOutput) -> Tensor:
    """(B, N) True at the real tokens of a layer, which may be finer than the last one (HTS-AT).

    A finer layer has `factor` times as many rows and columns, row after row.
    """
    num_tokens, num_frames = output.token_mask.shape[1], output.frame_mask.shape[1]
    factor = math.isqrt(state.shape[1] // num_tokens)
    if state.shape[1] != num_tokens * factor**2:
        raise ValueError(
            f"A layer of `model` has {state.shape[1]} tokens where the last one has {num_tokens}: which of them are "
            "padding is not known. Probe its clip features instead (`layer` 'clip')."
        )
    if factor == 1:
        return output.token_mask
    columns = output.frame_mask.repeat_interleave(factor, dim=1)
    return columns.repeat(1, num_tokens // num_frames * factor)


def _positions(records: Sequence[Record], kept: Sequence[Record]) -> np.ndarray:
    """Positions in the data set of the records that were kept, in its order."""
    ids, positions = record_ids(records), []
    for record in kept:
        positions.append(ids.index(record.id, positions[-1] + 1 if positions else 0))
    return np.array(positions)


__all__ = [
    "clip_features",
    "encoder_of",
    "frame_features",
    "layer_features",
    "timed_frames",
]

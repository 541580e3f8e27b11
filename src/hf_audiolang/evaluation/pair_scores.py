# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Similarities of models that score a clip and a caption together, from frames and words (MGA-CLAP's `scores_pairs`).

clips -> unit-norm frames (N, T', E) \
                                       the model's pair score -> similarities (texts, N)
texts -> unit-norm words (M, L, E)    /
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin

from hf_audiolang.data.records import Record
from hf_audiolang.models.layers_pair_scores import PAIR_SCORES

from .embed import AudioOptions, evaluation_mode, tokenized
from .frames import embed_frames

CLIPS_PER_BLOCK, TEXTS_PER_BLOCK = 128, 64  # our choice: a block of wstag scores takes 100 MB with 80 frames, 40 words


def scores_pairs(model: nn.Module) -> bool:
    """Whether the model's similarity is no product of two embeddings."""
    return bool(getattr(getattr(model, "config", None), "scores_pairs", False))


def pair_similarities(
    model: nn.Module,
    processor: ProcessorMixin,
    dataset: Sequence[Record],
    texts: Sequence[str],
    *,
    options: AudioOptions | None = None,
) -> np.ndarray:
    """Similarity (texts, N) of every text to every readable clip of a data set, in its order.

    Args:
        model: has `get_audio_frame_features`, `get_word_features` and a `config.aggregation` that scores pairs.
        processor: the model's processor.
        dataset: map-style sequence of `Record`; of a clip longer than the extractor's limit the first part is taken.
        texts: M texts.
        options: reading and batching of the clips.

    Raises:
        ValueError: if no clip is readable.
    """
    score = PAIR_SCORES[model.config.aggregation]
    clips = embed_frames(model, processor, dataset, options=options).frames
    columns = [_padded(clips[start : start + CLIPS_PER_BLOCK]) for start in range(0, len(clips), CLIPS_PER_BLOCK)]
    rows = []
    with evaluation_mode(model):
        for start in range(0, len(texts), TEXTS_PER_BLOCK):
            inputs = tokenized(model, processor, texts[start : start + TEXTS_PER_BLOCK])
            words = model.get_word_features(**inputs)
            captions = (words.word_features.float().cpu(), words.word_mask.cpu())
            rows.append(torch.cat([score(*block, *captions) for block in columns]).T)
    return torch.cat(rows).numpy()


def _padded(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Frames (A, T, E) of some clips, and their mask (A, T)."""
    frames = pad_sequence([torch.from_numpy(clip) for clip in clips], batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    return frames, torch.arange(frames.shape[1]) < lengths.unsqueeze(1)


__all__ = ["pair_similarities", "scores_pairs"]

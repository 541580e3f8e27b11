# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a model can be asked.

    system                get_audio_features, get_text_features, get_audio_frame_features
    without text tower    the same methods, `text_model` is None: sounds only
    audio encoder         forward -> pooler_output: sounds only, no shared space

The processor of the last two may be a feature extractor alone.
"""

from torch import nn
from transformers import FeatureExtractionMixin, ProcessorMixin

AudioProcessor = ProcessorMixin | FeatureExtractionMixin


def why_no_text(model: nn.Module, processor: AudioProcessor) -> str | None:
    """Why texts cannot be embedded, in one sentence or two with what to do instead; None if they can."""
    family = type(model).__name__  # no path: the sentence is part of public reports
    if not has_text_encoder(model):
        other = getattr(getattr(model, "config", None), "text_embedding_model", None)
        trained = f", it was trained with caption embeddings of {other!r}" if other else ""
        return (
            f"`model` (a {family}) has no text encoder{trained}: it embeds sounds (`hf-audiolang embed`, linear "
            "probe) but not words. To compare sounds with words, take a model with a text encoder."
        )
    if getattr(processor, "tokenizer", None) is None:
        return (
            f"`processor` of the {family} is a {type(processor).__name__} and has no tokenizer. Pass the whole "
            "processor, feature extractor and tokenizer, that the model was trained with, or save that tokenizer into "
            "the model's folder."
        )
    return None


def check_text_input(model: nn.Module, processor: AudioProcessor) -> None:
    """Raises ValueError, with what to do instead, if texts cannot be embedded."""
    reason = why_no_text(model, processor)
    if reason is not None:
        raise ValueError(reason)


def has_text_encoder(model: nn.Module) -> bool:
    """Whether the model makes embeddings of texts: a system, and not one that was built without its text tower."""
    return hasattr(model, "get_text_features") and getattr(model, "text_model", model) is not None


def feature_extractor_of(processor: AudioProcessor) -> FeatureExtractionMixin:
    """The feature extractor of a processor, or the feature extractor itself."""
    return getattr(processor, "feature_extractor", processor)


__all__ = ["AudioProcessor", "check_text_input", "feature_extractor_of", "has_text_encoder", "why_no_text"]

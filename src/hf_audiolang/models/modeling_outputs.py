# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What encoders, systems and pre-training models return: one set of fields for every family."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling, TokenClassifierOutput
from transformers.utils import ModelOutput


@dataclass
class AudioEncoderOutput(BaseModelOutputWithPooling):
    """Output of every audio encoder.

    Attributes:
        last_hidden_state: (B, N, D) tokens in native order, class token left out, zeros at padding.
        pooler_output: (B, D') masked mean over time, or the encoder's own pooling.
        hidden_states: `num_hidden_layers + 1` tensors (B, N, D), the first is the input of layer 0; only when asked.
        attentions: `num_hidden_layers` tensors (B, H, N, N); only when asked, and only with eager attention.
        token_mask: (B, N) bool, True at real tokens.
        frame_features: (B, T', D') one vector per output frame, in time order.
        frame_mask: (B, T') bool, True at real output frames.
    """

    token_mask: torch.BoolTensor | None = None
    frame_features: torch.FloatTensor | None = None
    frame_mask: torch.BoolTensor | None = None


@dataclass
class AudioFrameOutput(ModelOutput):
    """Frames in the shared space: `frame_features @ text_embeds.T` is detection and grounding for any system.

    Attributes:
        frame_features: (B, T', E) unit-norm frame embeddings, zeros at padding.
        frame_mask: (B, T') bool, True at real output frames.
    """

    frame_features: torch.FloatTensor | None = None
    frame_mask: torch.BoolTensor | None = None


@dataclass
class FrameClassifierOutput(TokenClassifierOutput):
    """Output of every `...ForAudioFrameClassification`.

    Attributes:
        loss: () mean over the real frames; only with labels.
        logits: (B, T', C), zeros at padding.
        frame_mask: (B, T') bool, True at real output frames.
    """

    frame_mask: torch.BoolTensor | None = None


@dataclass
class WordFeatureOutput(ModelOutput):
    """Words in the shared space, the counterpart of `AudioFrameOutput`.

    Attributes:
        word_features: (B, L, E) unit-norm word embeddings, zeros where there is no word.
        word_mask: (B, L) bool, True at words and parts of words; False at special tokens and padding.
    """

    word_features: torch.FloatTensor | None = None
    word_mask: torch.BoolTensor | None = None


@dataclass
class AudioTextOutput(ModelOutput):
    """Output of every audio-text system; the field names are those of transformers' `ClapOutput`.

    Attributes:
        loss: () weighted sum of `loss_terms`; only with `return_loss=True`.
        loss_terms: name -> () unweighted loss term, in nats.
        logits_per_audio: (B_audio, B_text) scaled cosine similarities.
        logits_per_text: (B_text, B_audio), the transpose.
        text_embeds: (B_text, E) unit-norm caption embeddings.
        audio_embeds: (B_audio, E) unit-norm clip embeddings.
        text_model_output: what the text encoder returned.
        audio_model_output: what the audio encoder returned.
        metrics: name -> () detached value worth logging; only with `return_loss=True`, and only of some systems.
    """

    loss: torch.FloatTensor | None = None
    loss_terms: dict[str, torch.FloatTensor] | None = None
    logits_per_audio: torch.FloatTensor | None = None
    logits_per_text: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None
    audio_embeds: torch.FloatTensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    audio_model_output: AudioEncoderOutput | None = None
    metrics: dict[str, torch.FloatTensor] | None = None

    def to_tuple(self) -> tuple:
        """Returns the fields that are set, nested outputs flattened to tuples of their own."""
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


@dataclass
class PreTrainingOutput(ModelOutput):
    """Output of every `...ForPreTraining` class.

    Attributes:
        loss: () weighted sum of `loss_terms`.
        loss_terms: name -> () unweighted loss term, in nats, with gradient.
        metrics: name -> () detached value worth logging, such as the agreement of student and teacher.
        audio_embeds: (B, E) unit-norm clip embeddings of this process.
        text_embeds: (B, E) unit-norm caption embeddings of this process.
    """

    loss: torch.FloatTensor | None = None
    loss_terms: dict[str, torch.FloatTensor] | None = None
    metrics: dict[str, torch.FloatTensor] | None = None
    audio_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None


__all__ = [
    "AudioEncoderOutput",
    "AudioFrameOutput",
    "AudioTextOutput",
    "FrameClassifierOutput",
    "PreTrainingOutput",
    "WordFeatureOutput",
]

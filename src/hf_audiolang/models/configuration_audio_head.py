# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What every configuration of an audio encoder or a system says about a classification head on the encoder."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class AudioHeadConfig(PreTrainedConfig):
    """Numbers of the head of `...ForAudioClassification` and `...ForAudioFrameClassification`.

    Beside them count transformers' own `num_labels`, `id2label` and `problem_type`: "single_label_classification" or
    "multi_label_classification". Section numbers are those of the M2D-CLAP paper, EVAR is its evaluation code.
    """

    # over time; mean: IV-B1, Eq. 2; pretrained: the attention pooling that SLAP's contrastive loss has trained
    classifier_pooling: Literal["mean", "attention", "pretrained"] = "mean"
    # frames: what `frame_features` holds, M2D's bands side by side (IV-B1); tokens: `last_hidden_state`
    classifier_input: Literal["frames", "tokens"] = "frames"
    classifier_heads: int = 8  # of the attention pooling; our choice
    classifier_norm: bool = True  # batch normalisation without parameters before the linear layer; EVAR
    tested_fold: int | None = None  # of labelled data in folds: the one that the head was not trained on
    classifier_dropout: float | int = 0.0  # before the linear layer; EVAR has none
    # In training whole rows and columns of patches are left out. M2D's encoder: a share of all patches; Table IV: 0.5
    structured_patchout: float | int = 0.0
    time_patchout: float | int = 0.0  # SLAP's encoder: share of the columns; AudioMAE, whose recipe SLAP follows: 0.2
    frequency_patchout: float | int = 0.0  # and of the rows; AudioMAE: 0.2

    def validate_head(self):
        """Raises for shares outside 0..1, and for patchout with frames, which it leaves incomplete."""
        patchout = ("structured_patchout", "time_patchout", "frequency_patchout")
        for name in ("classifier_dropout", *patchout):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie between 0 and 1 (excluded), got {getattr(self, name)}.")
        given = {name: getattr(self, name) for name in patchout if getattr(self, name) > 0}
        if given and self.classifier_input != "tokens":
            raise ValueError(
                f"Patchout leaves frames incomplete, got {given} with `classifier_input` {self.classifier_input!r}. "
                "Set it to 'tokens'."
            )


__all__ = ["AudioHeadConfig"]

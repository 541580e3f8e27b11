# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Classification head: pooling over time, batch normalisation, one linear layer; and its losses.

(B, T', D) frames or (B, N, D) tokens -> mean or attention pooling (B, D) -> BatchNorm -> dropout -> Linear -> (B, C)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers_packing import PackedLayout, pack
from .layers_pooling import AttentionPooling, masked_mean

SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"
IGNORED_FRAME = -100  # label of a frame that counts in no loss; torch's own number


class AudioHead(nn.Module):
    """Logits of pooled clips or of single frames.

    The batch normalisation has no parameters (EVAR's fine-tuning head): it makes features of any scale train alike.
    In training it uses the statistics of the batch, of a batch of one row those it has gathered so far.
    """

    def __init__(
        self,
        input_size: int,
        num_labels: int,
        *,
        pooling_heads: int | None = None,
        normalises: bool = True,
        dropout: float = 0.0,
    ):
        """`pooling_heads`: of attention pooling; None: the mean."""
        super().__init__()
        self.pooling = None if pooling_heads is None else AttentionPooling(input_size, pooling_heads)
        self.norm = nn.BatchNorm1d(input_size, affine=False) if normalises else None
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(input_size, num_labels)

    def pool(self, features: Tensor, mask: Tensor) -> Tensor:
        """One vector per clip: (B, T', D) with bool mask (B, T') -> (B, D)."""
        if self.pooling is None:
            return masked_mean(features, mask)
        layout = PackedLayout.from_mask(mask)
        return self.pooling(pack(features, layout), layout)

    def forward(self, features: Tensor) -> Tensor:
        """Returns (N, C) logits of (N, D) features."""
        if self.norm is not None:
            features = self._normalised(features)
        return self.linear(self.dropout(features))

    def _normalised(self, features: Tensor) -> Tensor:
        if self.training and len(features) == 1:
            return F.batch_norm(features, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)
        return self.norm(features)


def label_loss(logits: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """Loss of clips or frames.

    Args:
        logits: (N, C).
        labels: (N,) class ids, `IGNORED_FRAME` where there is none, or (N, C) shares in 0..1: of classes that exclude
            each other (after mixup) with "single_label_classification", else each class by itself.
        problem_type: None takes class ids for single and rows for multi label.

    Returns:
        () mean in nats: cross-entropy per row, or binary cross-entropy per row and class.

    Raises:
        ValueError: for another `problem_type`, and for labels that do not fit the logits.
    """
    if problem_type is None:
        problem_type = SINGLE_LABEL if labels.ndim == 1 else MULTI_LABEL
    if problem_type not in (SINGLE_LABEL, MULTI_LABEL):
        raise ValueError(f"`problem_type` is {problem_type!r}. The head knows {SINGLE_LABEL!r} and {MULTI_LABEL!r}.")
    is_ids = labels.ndim == 1
    if labels.shape[0] != logits.shape[0] or (not is_ids and labels.shape != logits.shape):
        raise ValueError(
            f"`labels` have the shape {tuple(labels.shape)} for logits {tuple(logits.shape)}. Give one class id per "
            "row, or rows as wide as there are classes (`num_labels`)."
        )
    logits = logits.float()
    if problem_type == SINGLE_LABEL:
        if not is_ids:
            return F.cross_entropy(logits, labels.to(logits.dtype))
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():  # a look at another device waits
            _check_ids(labels, logits.shape[1])
        num_labelled = (labels != IGNORED_FRAME).sum().clamp(min=1)  # none: a loss of 0, not NaN
        return F.cross_entropy(logits, labels, ignore_index=IGNORED_FRAME, reduction="sum") / num_labelled
    if is_ids:
        raise ValueError(
            f"`labels` are class ids of the shape {tuple(labels.shape)}, but `problem_type` {MULTI_LABEL!r} needs "
            f"rows of 0 and 1, ({len(logits)}, {logits.shape[1]})."
        )
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def _check_ids(labels: Tensor, num_classes: int) -> None:
    wrong = labels[(labels != IGNORED_FRAME) & ((labels < 0) | (labels >= num_classes))]
    if len(wrong):
        raise ValueError(
            f"`labels` has the class id {int(wrong[0])}, but there are {num_classes} classes. Give ids of 0 to "
            f"{num_classes - 1}, or a head for more classes (`num_labels`)."
        )


def frame_centres(num_frames: int, rate_hz: float, offset_seconds: float, input_rate_hz: float) -> Tensor:
    """(T',) int64 number of the input frame at the centre of each output frame."""
    centres = (torch.arange(num_frames, dtype=torch.float64) + 0.5) / rate_hz + offset_seconds
    return (centres * input_rate_hz + 1e-6).floor().long()  # a border is not missed by rounding


__all__ = ["IGNORED_FRAME", "MULTI_LABEL", "SINGLE_LABEL", "AudioHead", "frame_centres", "label_loss"]

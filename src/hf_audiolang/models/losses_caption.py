# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Captioning loss: cross-entropy of the next token, or of all tokens at once (CapPa), and what is asked of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .losses_distributed import global_mean

IGNORED = -100  # target of padding, transformers' convention


@dataclass(frozen=True)
class CaptionTask:
    """Inputs and targets of a caption decoder.

    Attributes:
        decoder_input_ids: (B, L) token ids, padding on the right.
        decoder_attention_mask: (B, L) bool, True at real tokens.
        targets: (B, L) token ids, -100 where nothing is asked.
        is_parallel: (B,) bool, True at rows whose inputs are all mask tokens and which see no causal mask; None: none.
    """

    decoder_input_ids: Tensor
    decoder_attention_mask: Tensor
    targets: Tensor
    is_parallel: Tensor | None = None


def caption_task(labels: Tensor, pad_token_id: int) -> CaptionTask:
    """Teacher forcing: from `<s> y1 .. yn </s>` the inputs `<s> y1 .. yn` and the targets `y1 .. yn </s>`.

    Args:
        labels: (B, L) whole captions, -100 at padding, which lies on the right.
        pad_token_id: what stands for padding in the inputs.
    """
    inputs, targets = labels[:, :-1], labels[:, 1:]
    is_real = inputs != IGNORED
    return CaptionTask(inputs.masked_fill(~is_real, pad_token_id), is_real & (targets != IGNORED), targets)


def mixed_caption_task(
    labels: Tensor, pad_token_id: int, mask_token_id: int, parallel_share: float, eos_token_id: int
) -> CaptionTask:
    """`caption_task` with some rows for parallel decoding (CapPa): inputs `<mask>` times n, targets `y1 .. yn`.

    The number of parallel rows is the rounded share of the batch; which ones is drawn. The number of mask tokens tells
    the decoder how long the caption is, so its end is not asked for.

    Args:
        labels: see `caption_task`.
        pad_token_id: see there.
        mask_token_id: the input token of parallel rows.
        parallel_share: from 0 to 1.
        eos_token_id: the end of a caption, which parallel rows leave out.
    """
    task = caption_task(labels, pad_token_id)
    num_parallel = round(len(labels) * parallel_share)
    if num_parallel == 0:
        return task
    chosen = torch.randperm(len(labels), device=labels.device)[:num_parallel]
    is_parallel = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    is_parallel[chosen] = True
    rows = is_parallel.unsqueeze(1)
    is_word = (task.targets != IGNORED) & (task.targets != eos_token_id)  # (B, L - 1)
    inputs = torch.where(is_word, mask_token_id, pad_token_id)
    return CaptionTask(
        decoder_input_ids=torch.where(rows, inputs, task.decoder_input_ids),
        decoder_attention_mask=torch.where(rows, is_word, task.decoder_attention_mask),
        targets=torch.where(rows & ~is_word, IGNORED, task.targets),
        is_parallel=is_parallel,
    )


def caption_loss(
    hidden_states: Tensor, output_embedding: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy over the real target tokens of all processes (SLAP Eq. 6), in nats.

    The vocabulary is scored at real targets only.

    Args:
        hidden_states: (B, L, D) decoder states.
        output_embedding: (V, D).
        targets: (B, L) token ids, -100 at padding.
        label_smoothing: share of the target that is spread evenly over the vocabulary.
    """
    is_real = targets != IGNORED
    logits = hidden_states[is_real] @ output_embedding.T.to(hidden_states.dtype)  # (real tokens, V)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    total = F.cross_entropy(wide, targets[is_real], reduction="sum", label_smoothing=label_smoothing)
    return global_mean(total, torch.count_nonzero(is_real))


__all__ = ["IGNORED", "CaptionTask", "caption_loss", "caption_task", "mixed_caption_task"]

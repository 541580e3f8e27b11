# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Packing: many sequences joined into one without padding, so that no linear layer computes on padding.

    padded (B, L, D) + mask  --pack-->  packed (N, D), N = number of real tokens  --unpack-->  padded (B, L, D)

Inside the packed tensor the sequences lie ordered by their length, so that sequences of equal length are neighbours
and attention runs over them as one batch without copying.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor


@dataclass
class PackedLayout:
    """Where each token of a packed tensor belongs.

    Attributes:
        token_mask: (B, L) bool, the padded form; True at real tokens.
        token_index: (N,) index of each packed token in the flattened padded form.
        seq_ids: (N,) batch row of each packed token.
        cu_seqlens: (B + 1,) int32 boundaries of the sequences in packed order, starting at 0.
        groups: (number of sequences, their length) in packed order; lengths ascend.
    """

    token_mask: Tensor
    token_index: Tensor
    seq_ids: Tensor
    cu_seqlens: Tensor
    groups: list[tuple[int, int]]
    cached_masks: dict = field(default_factory=dict, repr=False)

    @property
    def num_sequences(self) -> int:
        """Number of sequences B."""
        return self.token_mask.shape[0]

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence."""
        return self.groups[-1][1]

    @classmethod
    def from_mask(cls, token_mask: Tensor) -> PackedLayout:
        """Layout of a padded batch; costs one transfer of the mask to the host and no other synchronisation.

        Args:
            token_mask: (B, L) bool or 0/1, nonzero at real tokens, which may lie anywhere in a row.

        Raises:
            ValueError: if a row has no real token.
        """
        device = token_mask.device
        host_mask = token_mask.detach().to("cpu", torch.bool)
        lengths = host_mask.sum(1)
        if (empty := (lengths == 0).nonzero()).numel():
            raise ValueError(
                f"`token_mask` has no real token in rows {empty.flatten().tolist()}. Every sequence needs at least "
                "one; check the masks of the processor."
            )
        order = torch.argsort(lengths, stable=True)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        rows, columns = host_mask.nonzero(as_tuple=True)
        by_rank = torch.argsort(rank[rows], stable=True)
        rows, columns = rows[by_rank], columns[by_rank]
        cu_seqlens = torch.zeros(len(order) + 1, dtype=torch.int32)
        cu_seqlens[1:] = lengths[order].cumsum(0)
        return cls(
            token_mask=token_mask.to(torch.bool),
            token_index=(rows * host_mask.shape[1] + columns).to(device, non_blocking=True),
            seq_ids=rows.to(device, non_blocking=True),
            cu_seqlens=cu_seqlens.to(device, non_blocking=True),
            groups=[(len(list(same)), length) for length, same in groupby(lengths[order].tolist())],
        )

    def with_leading_token(self) -> PackedLayout:
        """Layout of the same sequences with one more token at the start of each, see `prepend_token`."""
        batch, length = self.token_mask.shape
        first_of = self.cu_seqlens[:-1].long()  # packed index of each sequence's first token
        rows = self.seq_ids.index_select(0, first_of)  # (B,)
        at = first_of + torch.arange(batch, device=rows.device)  # where the new tokens stand
        is_new = torch.zeros(len(self.token_index) + batch, dtype=torch.bool, device=rows.device)
        is_new[at] = True
        shifted = torch.arange(len(is_new), device=rows.device) - is_new.cumsum(0)  # index of the old tokens
        shifted = shifted.clamp(min=0, max=max(len(self.token_index) - 1, 0))
        seq_ids = self.seq_ids.index_select(0, shifted).index_copy(0, at, rows)
        old_index = self.token_index + torch.div(self.token_index, length, rounding_mode="floor") + 1
        token_index = old_index.index_select(0, shifted).index_copy(0, at, rows * (length + 1))
        return PackedLayout(
            token_mask=torch.cat([torch.ones_like(self.token_mask[:, :1]), self.token_mask], dim=1),
            token_index=token_index,
            seq_ids=seq_ids,
            cu_seqlens=self.cu_seqlens + torch.arange(len(self.cu_seqlens), device=rows.device, dtype=torch.int32),
            groups=[(count, tokens + 1) for count, tokens in self.groups],
        )


def pack(padded: Tensor, layout: PackedLayout) -> Tensor:
    """Real tokens of a padded tensor: (B, L, ...) -> (N, ...) in packed order."""
    return padded.flatten(0, 1).index_select(0, layout.token_index)


def unpack(packed: Tensor, layout: PackedLayout) -> Tensor:
    """Padded form with zeros at padding: (N, ...) -> (B, L, ...)."""
    batch, length = layout.token_mask.shape
    padded = packed.new_zeros(batch * length, *packed.shape[1:])
    return padded.index_copy(0, layout.token_index, packed).unflatten(0, (batch, length))


def prepend_token(packed: Tensor, token: Tensor, layout: PackedLayout) -> Tensor:
    """Puts `token` (D,) before each sequence: (N, D) -> (N + B, D), in the order of `layout.with_leading_token()`."""
    parts = []
    for part, (count, length) in zip(packed.split(_sizes(layout)), layout.groups, strict=True):
        leading = token.to(part.dtype).expand(count, 1, -1)
        parts.append(torch.cat([leading, part.unflatten(0, (count, length))], dim=1).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def drop_leading_token(packed: Tensor, layout: PackedLayout) -> Tensor:
    """Undoes `prepend_token`: (N + B, D) -> (N, D), `layout` being the one without the leading tokens."""
    sizes = [size + count for size, (count, _) in zip(_sizes(layout), layout.groups, strict=True)]
    parts = [
        part.unflatten(0, (count, length + 1))[:, 1:].flatten(0, 1)
        for part, (count, length) in zip(packed.split(sizes), layout.groups, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _sizes(layout: PackedLayout) -> list[int]:
    """Packed tokens of each group."""
    return [count * length for count, length in layout.groups]


__all__ = ["PackedLayout", "drop_leading_token", "pack", "prepend_token", "unpack"]

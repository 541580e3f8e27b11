# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sums and gathers across processes that losses need; without a process group they do nothing."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class _GatherRows(torch.autograd.Function):
    """All-gather whose backward sums the gradients of all processes and keeps the local rows."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(dist.get_world_size() * rows.shape[0], *rows.shape[1:])
        # torch 2.14 renames all_gather_into_tensor
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        gather(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def world_size() -> int:
    """Number of processes of the default group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """Rank of this process in the default group, 0 without one."""
    return dist.get_rank() if world_size() > 1 else 0


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes, with gradient: (B, E) -> (world size * B, E). Every process must hold the same B."""
    return _GatherRows.apply(rows) if world_size() > 1 else rows


def gather_unequal_rows(rows: Tensor) -> tuple[Tensor, int]:
    """Rows of all processes, of which each may hold another number, with gradient; and where one's own begin.

    (B, E) -> (sum of all B, E), in the order of the processes. Every process must hold at least one row.
    """
    if world_size() == 1:
        return rows, 0
    counts = gather_rows(torch.tensor([len(rows)], device=rows.device)).tolist()
    padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, max(counts) - len(rows)))
    parts = gather_rows(padded).split(max(counts))
    kept = [part[:count] for part, count in zip(parts, counts, strict=True)]
    return torch.cat(kept), sum(counts[: process_rank()])


def gather_padded(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Rows of all processes of tensors (B, L, ...) whose length L differs between processes, with gradient.

    Shorter ones are filled with zeros (False) up to the longest. Every process must hold the same B.
    """
    if world_size() == 1:
        return parts
    longest = int(max_over_processes(torch.tensor(parts[0].shape[1], device=parts[0].device)))
    gathered = []
    for part in parts:
        padded = F.pad(part, (0, 0) * (part.ndim - 2) + (0, longest - part.shape[1]))
        is_mask = part.dtype == torch.bool  # which not every back end sends
        gathered.append(gather_rows(padded.byte()).bool() if is_mask else gather_rows(padded))
    return tuple(gathered)


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of a detached tensor over all processes."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def max_over_processes(value: Tensor) -> Tensor:
    """Elementwise maximum of a detached tensor over all processes."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """Local share of a mean over the items of all processes.

    Averaged over processes, as DDP averages gradients, it is `sum of all totals / sum of all counts`.

    Args:
        total: () local sum, with gradient.
        count: () number of local items; 0 on all processes gives 0.
    """
    return total * world_size() / sum_over_processes(count.float()).clamp(min=1)


__all__ = [
    "gather_padded",
    "gather_rows",
    "gather_unequal_rows",
    "global_mean",
    "max_over_processes",
    "process_rank",
    "sum_over_processes",
    "world_size",
]

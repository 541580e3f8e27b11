# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Packing: where each token goes, and that nothing is lost or mixed."""

import pytest
import torch

from hf_audiolang.models.layers_packing import PackedLayout, pack, unpack

# lengths 3, 1, 3, 2
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], dtype=torch.bool)


def test_layout_of_a_small_batch_by_hand():
    layout = PackedLayout.from_mask(MASK)
    assert layout.num_sequences == 4
    assert layout.max_length == 3
    assert layout.groups == [(1, 1), (1, 2), (2, 3)]
    assert layout.seq_ids.tolist() == [1, 3, 3, 0, 0, 0, 2, 2, 2]  # ordered by length, ties in batch order
    assert layout.token_index.tolist() == [5, 15, 16, 0, 1, 2, 10, 11, 12]
    assert layout.cu_seqlens.tolist() == [0, 1, 3, 6, 9]
    assert layout.cu_seqlens.dtype == torch.int32


def test_pack_and_unpack_by_hand():
    layout = PackedLayout.from_mask(MASK)
    padded = torch.arange(40.0).view(4, 5, 2)
    packed = pack(padded, layout)
    assert packed[:, 0].tolist() == [10, 30, 32, 0, 2, 4, 20, 22, 24]
    assert torch.equal(unpack(packed, layout), padded * MASK.unsqueeze(-1))


def test_tokens_may_lie_anywhere_in_a_row_and_keep_their_order():
    mask = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 1]])  # 0/1 as tokenizers give it
    layout = PackedLayout.from_mask(mask)
    padded = torch.arange(10).view(2, 5)
    assert pack(padded, layout).tolist() == [5, 9, 1, 3, 4]
    assert unpack(pack(padded, layout), layout).tolist() == [[0, 1, 0, 3, 4], [5, 0, 0, 0, 9]]


def test_gradient_returns_to_the_place_it_came_from():
    layout = PackedLayout.from_mask(MASK)
    padded = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1))
    (unpack(pack(padded, layout), layout) * weights).sum().backward()
    assert torch.equal(padded.grad, weights * MASK.unsqueeze(-1))


def test_padding_of_any_value_stays_out():
    layout = PackedLayout.from_mask(MASK)
    padded = torch.full((4, 5), float("nan")).masked_fill(MASK, 2.0)
    assert unpack(pack(padded, layout), layout).sum() == 18


def test_sequence_without_tokens_is_refused_with_its_row():
    mask = MASK.clone()
    mask[[1, 3]] = False
    with pytest.raises(ValueError, match=r"rows \[1, 3\].*check the masks of the processor"):
        PackedLayout.from_mask(mask)

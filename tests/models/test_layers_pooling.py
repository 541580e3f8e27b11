# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Poolers against torch's multi-head attention."""

import pytest
import torch

from hf_audiolang.models.layers_packing import PackedLayout, pack
from hf_audiolang.models.layers_pooling import AttentionPooling, masked_mean

MASK = torch.arange(11) < torch.tensor([[11], [1], [2], [7]])


def make_pooling(seed=0, width=12, heads=3):
    torch.manual_seed(seed)
    pooling = AttentionPooling(width, heads)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return pooling


def make_tokens(width=12):
    return torch.randn(4, 11, width, generator=torch.Generator().manual_seed(1))


def torch_pooling(pooling, tokens, mask):
    """The same from `torch.nn.MultiheadAttention` on a padded batch."""
    width = tokens.shape[-1]
    twin = torch.nn.MultiheadAttention(width, pooling.num_heads, bias=False, batch_first=True)
    twin.in_proj_weight = torch.nn.Parameter(
        torch.cat([pooling.q_proj.weight, pooling.k_proj.weight, pooling.v_proj.weight]).detach()
    )
    twin.out_proj.weight = torch.nn.Parameter(pooling.o_proj.weight.detach().clone())
    query = pooling.query.detach().clone().requires_grad_()
    pooled, _ = twin(query.expand(len(tokens), 1, width), tokens, tokens, key_padding_mask=~mask)
    pooled = pooled[:, 0]
    normed = pooled / (pooled.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * pooling.norm.weight
    inner = torch.nn.functional.gelu(normed @ pooling.mlp.fc1.weight.T)
    return pooled + inner @ pooling.mlp.fc2.weight.T, twin, query


def test_packed_pooling_equals_torch_with_a_padding_mask():
    pooling = make_pooling()
    layout = PackedLayout.from_mask(MASK)
    tokens, other_tokens = make_tokens().requires_grad_(), make_tokens().requires_grad_()
    probes = torch.randn(4, 12, generator=torch.Generator().manual_seed(2))
    got = pooling(pack(tokens, layout), layout)
    (got * probes).sum().backward()
    wanted, twin, query = torch_pooling(pooling, other_tokens, MASK)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    unmasked, _, _ = torch_pooling(pooling, other_tokens, torch.ones_like(MASK))
    assert (unmasked - got).abs().max() > 1e-2  # control: padding would be seen
    (wanted * probes).sum().backward()
    torch.testing.assert_close(tokens.grad, other_tokens.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pooling.query.grad, query.grad, rtol=1e-5, atol=1e-5)
    joined = torch.cat([pooling.q_proj.weight.grad, pooling.k_proj.weight.grad, pooling.v_proj.weight.grad])
    torch.testing.assert_close(joined, twin.in_proj_weight.grad, rtol=1e-4, atol=1e-5)


def test_order_of_tokens_does_not_matter_but_their_clip_does():
    pooling = make_pooling()
    layout = PackedLayout.from_mask(MASK)
    tokens = make_tokens()
    base = pooling(pack(tokens, layout), layout)
    shuffled = tokens.clone()
    shuffled[0] = tokens[0, torch.randperm(11, generator=torch.Generator().manual_seed(3))]
    torch.testing.assert_close(pooling(pack(shuffled, layout), layout), base, rtol=1e-5, atol=1e-5)
    swapped = tokens.clone()
    swapped[0, 0], swapped[3, 0] = tokens[3, 0], tokens[0, 0]
    assert not torch.allclose(pooling(pack(swapped, layout), layout), base, atol=1e-3)


def test_one_token_is_its_own_pool():
    pooling = make_pooling()
    token = torch.randn(1, 12, generator=torch.Generator().manual_seed(4))
    value = token @ pooling.v_proj.weight.T @ pooling.o_proj.weight.T
    wanted = value + pooling.mlp(pooling.norm(value))
    torch.testing.assert_close(pooling(token, PackedLayout.from_mask(torch.ones(1, 1))), wanted)


def test_large_scores_neither_overflow_nor_lose_the_maximum():
    pooling = make_pooling()
    layout = PackedLayout.from_mask(MASK)
    tokens = (1e4 * make_tokens()).requires_grad_()
    got = pooling(pack(tokens, layout), layout)
    wanted, _, _ = torch_pooling(pooling, tokens.detach(), MASK)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1.0)  # values of 1e4
    got.sum().backward()
    assert torch.isfinite(tokens.grad).all()


def test_there_is_no_bias_and_one_query():
    names = dict(make_pooling().named_parameters())
    assert not [name for name in names if name.endswith("bias")]
    assert names["query"].shape == (1, 12)
    assert names["mlp.fc1.weight"].shape == (48, 12)


def test_size_at_the_paper_width():
    number = sum(p.numel() for p in AttentionPooling(768, 12).parameters())
    assert number == pytest.approx(7.08e6, rel=1e-3)


def test_masked_mean_by_hand_and_against_poison():
    frames = torch.tensor([[[1.0, 10.0], [3.0, 20.0], [99.0, float("nan")]], [[5.0, 7.0], [2.0, 2.0], [5.0, 0.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert masked_mean(frames, mask).tolist() == [[2.0, 15.0], [4.0, 3.0]]
    assert frames.mean(1).isnan().any()  # control: a plain mean sees the padding

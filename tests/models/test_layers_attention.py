# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Attention back ends against plain loops, their windows, and the attention layers against torch's own."""

import math
from types import SimpleNamespace

import pytest
import torch

from hf_audiolang.models import layers_attention
from hf_audiolang.models.layers_attention import (
    CrossAttention,
    SelfAttention,
    choose_backend,
    packed_attention,
    padded_attention,
)
from hf_audiolang.models.layers_packing import PackedLayout, pack, unpack

HEADS, SIZE = 3, 4
LENGTHS = {
    "ragged": (19, 1, 7, 40, 7, 3),
    "one clip": (23,),
    "one token": (1,),
    "equal": (9, 9, 9),
    "blocks only": (41, 37, 39),
}


def make_layout(lengths):
    return PackedLayout.from_mask(torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1))


def make_parts(layout, seed=0, heads=HEADS, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, len(layout.seq_ids), heads, size)
    return [part.requires_grad_() for part in (1.5 * torch.randn(shape, generator=generator)).unbind()]


def naive_attention(query, key, value, seq_ids, window):
    """Token by token: every key of the same sequence at most `window` places away."""
    rows = []
    for i in range(len(query)):
        keys = [
            j for j in range(len(key)) if seq_ids[j] == seq_ids[i] and (window is None or abs(i - j) <= window)
        ]  # tokens of a sequence lie side by side in packed order
        scores = torch.einsum("hd,khd->hk", query[i], key[keys]) / math.sqrt(query.shape[-1])
        rows.append(torch.einsum("hk,khd->hd", scores.softmax(-1), value[keys]))
    return torch.stack(rows)


def values_and_gradients(attend, parts):
    probes = torch.randn(parts[0].shape, generator=torch.Generator().manual_seed(9))
    output = attend(*parts)
    return [output.detach(), *torch.autograd.grad((output * probes).sum(), parts)]


@pytest.mark.parametrize("backend", ["loop", "mask"])
@pytest.mark.parametrize("window", [None, 0, 1, 5, 18, 39])
@pytest.mark.parametrize("case", LENGTHS)
def test_back_ends_equal_plain_loops(monkeypatch, case, window, backend):
    monkeypatch.setattr(layers_attention, "BLOCK_TOKENS", 5)
    layout = make_layout(LENGTHS[case])
    parts = make_parts(layout)
    got = values_and_gradients(
        lambda q, k, v: packed_attention(q, k, v, layout, window=window, backend=backend)[0], parts
    )
    wanted = values_and_gradients(lambda q, k, v: naive_attention(q, k, v, layout.seq_ids, window), parts)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window", [None, 48])
def test_loop_equals_mask_at_real_lengths(window):
    layout = make_layout((752, 28, 252, 128, 4))
    parts = make_parts(layout, heads=2, size=8)
    results = [
        values_and_gradients(
            lambda q, k, v, backend=backend: packed_attention(q, k, v, layout, window=window, backend=backend)[0],
            parts,
        )
        for backend in ("loop", "mask")
    ]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["loop", "mask"])
@pytest.mark.parametrize("window", [None, 3])
def test_nan_stays_in_its_clip(monkeypatch, backend, window):
    monkeypatch.setattr(layers_attention, "BLOCK_TOKENS", 5)
    layout = make_layout((41, 12, 39, 12, 5))
    poisoned = [part.detach().clone() for part in make_parts(layout)]
    clean = packed_attention(*poisoned, layout, window=window, backend=backend)[0]
    for clip in (0, 1):  # a long clip, computed in blocks, and a short one
        for part in poisoned:
            part[layout.seq_ids == clip] = float("nan")
    output = packed_attention(*poisoned, layout, window=window, backend=backend)[0]
    others = layout.seq_ids > 1
    assert torch.equal(output[others], clean[others])
    assert output[~others].isnan().any()


def test_another_window_is_another_result():
    layout = make_layout(LENGTHS["ragged"])
    parts = make_parts(layout)
    outputs = [packed_attention(*parts, layout, window=window)[0] for window in (4, 5, 6, None)]
    for i in range(4):
        for j in range(i):
            assert (outputs[i] - outputs[j]).abs().max() > 1e-2


@pytest.mark.parametrize("backend", ["loop", "mask"])
def test_no_gradient_crosses_clips_or_the_edge_of_the_window(monkeypatch, backend):
    monkeypatch.setattr(layers_attention, "BLOCK_TOKENS", 7)
    layout = make_layout((40, 23, 11))
    parts = make_parts(layout)
    output, _ = packed_attention(*parts, layout, window=6, backend=backend)
    for i in (0, 5, 11, 20, 33, 34, 60, len(output) - 1):
        grads = torch.autograd.grad(output[i].sum(), parts[1:], retain_graph=True)
        for grad in grads:
            seen = grad.abs().sum((1, 2)).nonzero().flatten().tolist()
            near = [j for j in range(len(output)) if layout.seq_ids[j] == layout.seq_ids[i] and abs(i - j) <= 6]
            assert seen == near


def test_masks_are_kept_by_window():
    """Two windows on one layout, in either order, do not take each other's masks."""
    layout = make_layout(LENGTHS["ragged"])
    parts = make_parts(layout)
    first = packed_attention(*parts, layout, window=2)[0]
    second = packed_attention(*parts, layout, window=7)[0]
    fresh = packed_attention(*parts, make_layout(LENGTHS["ragged"]), window=7)[0]
    assert torch.equal(second, fresh)
    assert torch.equal(packed_attention(*parts, layout, window=2)[0], first)


def test_unknown_back_end_is_refused():
    layout = make_layout((3,))
    with pytest.raises(ValueError, match=r"Unknown `backend` 'ring'.*'flash', 'loop', 'mask', 'varlen'"):
        packed_attention(*make_parts(layout), layout, backend="ring")


def test_back_end_follows_implementation_device_and_dtype():
    def query(dtype, is_cuda):
        return SimpleNamespace(dtype=dtype, is_cuda=is_cuda)

    assert choose_backend("eager", query(torch.bfloat16, True)) == "mask"
    assert choose_backend("sdpa", query(torch.float32, False)) == "loop"
    assert choose_backend("sdpa", query(torch.bfloat16, False)) == "loop"
    assert choose_backend("sdpa", query(torch.float32, True)) == "loop"
    assert choose_backend("sdpa", query(torch.bfloat16, True)) == "varlen"
    assert choose_backend("sdpa", query(torch.float16, True)) == "varlen"
    assert choose_backend("flash_attention_2", query(torch.bfloat16, True)) == "flash"


def layer_config(implementation="sdpa", **numbers):
    return SimpleNamespace(
        hidden_size=12,
        num_attention_heads=3,
        encoder_hidden_size=8,
        use_bias=False,
        _attn_implementation=implementation,
        **numbers,
    )


def torch_twin(layer, key_size):
    """`torch.nn.MultiheadAttention` with the weights of one of our layers."""
    twin = torch.nn.MultiheadAttention(12, 3, bias=False, kdim=key_size, vdim=key_size, batch_first=True)
    with torch.no_grad():
        if key_size == 12:
            twin.in_proj_weight.copy_(torch.cat([layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight]))
        else:
            for name in "qkv":
                getattr(twin, f"{name}_proj_weight").copy_(getattr(layer, f"{name}_proj").weight)
        twin.out_proj.weight.copy_(layer.o_proj.weight)
    return twin.eval()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_self_attention_equals_torch_with_a_causal_mask(implementation):
    torch.manual_seed(0)
    layer = SelfAttention(layer_config(implementation))
    states = torch.randn(2, 7, 12)
    keep = torch.ones(7, 7, dtype=torch.bool).tril()
    got, weights = layer(states, None, None, keep)
    wanted, shares = torch_twin(layer, 12)(
        states, states, states, attn_mask=~keep, average_attn_weights=False, need_weights=True
    )
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert (weights is None) == (implementation == "sdpa")
    if weights is not None:
        torch.testing.assert_close(weights, shares, rtol=1e-5, atol=1e-6)


def test_packed_self_attention_equals_torch_with_a_padding_mask():
    torch.manual_seed(0)
    layer = SelfAttention(layer_config())
    layout = make_layout((5, 2, 7))
    states = torch.randn(3, 7, 12)
    got, _ = layer(pack(states, layout), None, layout, None)
    wanted, _ = torch_twin(layer, 12)(states, states, states, key_padding_mask=~layout.token_mask)
    torch.testing.assert_close(unpack(got, layout)[layout.token_mask], wanted[layout.token_mask], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_cross_attention_equals_torch_with_a_padding_mask(implementation):
    torch.manual_seed(0)
    layer = CrossAttention(layer_config(implementation))
    layout = make_layout((5, 2, 7))
    text, audio = torch.randn(3, 4, 12), torch.randn(3, 7, 8)
    poisoned = torch.where(layout.token_mask.unsqueeze(-1), audio, float("nan"))
    got = layer(text, pack(poisoned, layout), layout)
    wanted, _ = torch_twin(layer, 8)(text, audio, audio, key_padding_mask=~layout.token_mask)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    unmasked, _ = torch_twin(layer, 8)(text, audio, audio)
    assert (unmasked - got).abs().max() > 1e-3  # control: padding would be seen


def test_biases_are_there_when_asked_for():
    config = layer_config()
    assert SelfAttention(config).q_proj.bias is None
    assert SelfAttention(config, use_bias=True).o_proj.bias is not None


def test_eager_weights_sum_to_one_and_vanish_where_not_kept():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 6, HEADS, SIZE, generator=generator).unbind()
    keep = torch.rand(2, 1, 6, 6, generator=generator) < 0.6
    keep |= torch.eye(6, dtype=torch.bool)
    output, weights = padded_attention(query, key, value, keep, "eager")
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, 6))
    assert torch.equal(weights > 0, keep.expand_as(weights))
    torch.testing.assert_close(output, padded_attention(query, key, value, keep, "sdpa")[0], rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["varlen", "flash", "loop"])
@pytest.mark.parametrize("window", [None, 48])
def test_cuda_back_ends_equal_the_mask_in_bf16(backend, window):
    if backend == "flash":
        pytest.importorskip("flash_attn")
    lengths = (752, 28, 252, 128, 4, 49, 50)
    layout = make_layout(lengths)
    device_layout = PackedLayout.from_mask(layout.token_mask.cuda())
    parts = make_parts(layout, heads=4, size=64)
    wanted = values_and_gradients(
        lambda q, k, v: packed_attention(q, k, v, layout, window=window, backend="mask")[0], parts
    )
    module = SimpleNamespace(
        config=SimpleNamespace(_attn_implementation="flash_attention_2"), is_causal=False, training=False
    )

    def attend(query, key, value):
        half = (part.to("cuda", torch.bfloat16) for part in (query, key, value))
        output, _ = packed_attention(*half, device_layout, window=window, backend=backend, module=module)
        return output.float().cpu()

    for one, other in zip(values_and_gradients(attend, parts), wanted, strict=True):
        assert (one - other).norm() < 0.01 * other.norm()  # bf16

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Positions against transformers' own rotary code, and the property they exist for."""

import math

import torch
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from hf_audiolang.models.layers_position import (
    apply_rotary,
    resize_table_2d,
    rotary_angles_1d,
    rotary_angles_2d,
    sinusoidal_positions,
)

CPU = torch.device("cpu")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_two_axes_are_laid_out_as_in_qwen_2_5_vl():
    size, theta = 16, 10000.0
    steps, bands = torch.arange(28) // 4, torch.arange(28) % 4
    query, key = random(28, 3, size), random(28, 3, size, seed=1)
    inverse = 1.0 / theta ** (torch.arange(0, size // 2, 2).float() / (size // 2))
    halves = torch.cat([torch.outer(steps.float(), inverse), torch.outer(bands.float(), inverse)], -1)
    whole = torch.cat([halves, halves], -1)
    wanted = apply_rotary_pos_emb_vision(query, key, whole.cos(), whole.sin())
    angles = rotary_angles_2d(steps, bands, size, theta)
    assert angles[0].shape == (28, size // 2)
    for one, other in zip((query, key), wanted, strict=True):
        torch.testing.assert_close(apply_rotary(one, *angles), other, rtol=1e-6, atol=1e-6)


def test_one_axis_equals_llama():
    size, theta, length = 10, 500.0, 13
    config = LlamaConfig(
        hidden_size=3 * size,
        num_attention_heads=3,
        head_dim=size,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    query, key = random(2, length, 3, size), random(2, length, 3, size, seed=1)
    cos, sin = LlamaRotaryEmbedding(config)(query, torch.arange(length).unsqueeze(0))
    wanted, _ = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), cos, sin)
    angles = rotary_angles_1d(length, size, theta, CPU)
    torch.testing.assert_close(apply_rotary(query, *angles).transpose(1, 2), wanted, rtol=1e-5, atol=1e-6)


def test_scores_depend_on_differences_of_time_and_band_only():
    size = 24
    query, key = random(5, size), random(5, size, seed=1)

    def scores(step, band, key_step, key_band):
        turned = [
            apply_rotary(heads.unsqueeze(0), *rotary_angles_2d(torch.tensor([t]), torch.tensor([f]), size, 10000.0))
            for heads, t, f in ((query, step, band), (key, key_step, key_band))
        ]
        return (turned[0] * turned[1]).sum(-1)

    base = scores(3, 1, 7, 0)
    torch.testing.assert_close(scores(103, 1, 107, 0), base, rtol=1e-4, atol=1e-4)  # angles up to 107 in float32
    torch.testing.assert_close(scores(3, 3, 7, 2), base, rtol=1e-4, atol=1e-4)
    for other in ((4, 1, 7, 0), (3, 2, 7, 0), (7, 1, 3, 0), (3, 1, 7, 2)):
        assert (scores(*other) - base).abs().max() > 0.1
    torch.testing.assert_close(scores(5, 2, 5, 2), (query * key).sum(-1).unsqueeze(0), rtol=1e-5, atol=1e-5)


def test_rotation_keeps_the_norm_and_the_dtype():
    heads = random(7, 2, 12)
    angles = rotary_angles_2d(torch.arange(7), torch.arange(7) % 4, 12, 10000.0)
    turned = apply_rotary(heads, *angles)
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))
    assert not torch.allclose(turned[1:], heads[1:])
    assert apply_rotary(heads.bfloat16(), *angles).dtype == torch.bfloat16
    assert angles[0].dtype == torch.float32


def test_sine_table_by_its_formula():
    table = sinusoidal_positions(7, 6, CPU)
    for position in range(7):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert math.isclose(table[position, 2 * pair], math.sin(angle), abs_tol=1e-6)
            assert math.isclose(table[position, 2 * pair + 1], math.cos(angle), abs_tol=1e-6)


def test_a_table_is_interpolated_over_time_by_hand():
    """Two columns become four: they lie at -0.25, 0.25, 0.75 and 1.25 of the old ones, the edges repeated.

    The cubic kernel with a = -0.75 is 0.26171875 at 0.75, -0.10546875 at 1.25 and -0.03515625 at 1.75.
    """
    table = torch.tensor([[9.0, 9.0], [0.0, 4.0], [1.0, 4.0], [2.0, 4.0], [4.0, 4.0]])  # class token, two bands
    steps = [-0.10546875, 0.2265625, 0.7734375, 1.10546875]
    wanted = [[9.0, 9.0], *([step, 4.0] for step in steps), *([2 + 2 * step, 4.0] for step in steps)]
    torch.testing.assert_close(resize_table_2d(table, 2, 4), torch.tensor(wanted))


def test_a_shorter_table_is_cut_at_the_end_of_each_band():
    table = torch.arange(7.0).unsqueeze(1)  # class token, two bands of three columns
    assert resize_table_2d(table, 2, 2).flatten().tolist() == [0, 1, 2, 4, 5]
    assert torch.equal(resize_table_2d(table, 2, 3), table)

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The caption decoder against a second implementation, and what each state may see."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import tiny_decoder_config

from hf_audiolang import CaptionDecoder

AUDIO_LENGTHS = (7, 1, 4)
TEXT_LENGTH = 6
FORMS = {
    "slap": {},
    "post norm": {"norm_position": "post"},
    "sine": {"position_type": "sinusoidal"},
    "gelu with bias": {"mlp_type": "gelu", "use_bias": True},
    "all other": {"norm_position": "post", "position_type": "sinusoidal", "mlp_type": "gelu", "use_bias": True},
}


def make_decoder(**overrides):
    torch.manual_seed(0)
    decoder = CaptionDecoder(tiny_decoder_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def make_inputs():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, 32, (3, TEXT_LENGTH), generator=generator)
    audio = torch.randn(3, max(AUDIO_LENGTHS), 24, generator=generator)
    mask = torch.arange(max(AUDIO_LENGTHS)) < torch.tensor(AUDIO_LENGTHS).unsqueeze(1)
    return tokens, audio, mask


def reference_states(config, weights, tokens, audio):
    """States of one caption over the real audio tokens of one clip, position by position: (L, D)."""
    states = torch.stack([weights["embed_tokens.weight"][token] for token in tokens.tolist()])
    if config.position_type == "sinusoidal":
        states = states + torch.tensor([_sines(place, config.hidden_size) for place in range(len(tokens))])
    for layer in range(config.num_hidden_layers):
        part = {n.split(".", 2)[2]: w for n, w in weights.items() if n.startswith(f"layers.{layer}.")}
        blocks = (
            ("self_attn_norm", lambda x, part=part: _attend(config, part, "self_attn", x, x, is_causal=True)),
            ("cross_attn_norm", lambda x, part=part: _attend(config, part, "cross_attn", x, audio, is_causal=False)),
            ("mlp_norm", lambda x, part=part: _mlp(config, part, x)),
        )
        for norm, block in blocks:
            weight = part[f"{norm}.weight"]
            if config.norm_position == "pre":
                states = states + block(_rms_norm(config, states, weight))
            else:
                states = _rms_norm(config, states + block(states), weight)
    return _rms_norm(config, states, weights["norm.weight"]) if config.norm_position == "pre" else states


def _sines(place, size):
    angles = [place / 10000 ** (2 * pair / size) for pair in range(size // 2)]
    return [wave(angle) for angle in angles for wave in (math.sin, math.cos)]


def _rms_norm(config, states, weight):
    return states / torch.sqrt((states**2).mean(-1, keepdim=True) + config.rms_norm_eps) * weight


def _linear(part, name, states):
    bias = part.get(f"{name}.bias")
    product = states @ part[f"{name}.weight"].T
    return product if bias is None else product + bias


def _mlp(config, part, states):
    if config.mlp_type == "gelu":
        inner = _linear(part, "mlp.fc1", states)
        return _linear(part, "mlp.fc2", inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))
    gate = _linear(part, "mlp.gate_proj", states)
    return _linear(part, "mlp.down_proj", gate * torch.sigmoid(gate) * _linear(part, "mlp.up_proj", states))


def _attend(config, part, name, states, seen, is_causal):
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    query = _linear(part, f"{name}.q_proj", states).view(-1, heads, size)
    key = _linear(part, f"{name}.k_proj", seen).view(-1, heads, size)
    value = _linear(part, f"{name}.v_proj", seen).view(-1, heads, size)
    if is_causal and config.position_type == "rope":
        query, key = _turn(query, config.rope_theta), _turn(key, config.rope_theta)
    rows = []
    for i in range(len(states)):
        until = i + 1 if is_causal else len(seen)
        scores = torch.einsum("hs,khs->hk", query[i], key[:until]) / math.sqrt(size)
        rows.append(torch.einsum("hk,khs->hs", scores.softmax(-1), value[:until]).reshape(-1))
    return _linear(part, f"{name}.o_proj", torch.stack(rows))


def _turn(heads, theta):
    half = heads.shape[-1] // 2
    turned = []
    for place, row in enumerate(heads):
        angle = torch.tensor([place * theta ** (-pair / half) for pair in range(half)])
        first, second = row[:, :half], row[:, half:]
        turned.append(
            torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)
        )
    return torch.stack(turned)


@pytest.mark.parametrize("form", FORMS)
def test_states_and_gradients_equal_the_reference(form):
    decoder = make_decoder(**FORMS[form])
    tokens, audio, mask = make_inputs()
    poisoned = torch.where(mask.unsqueeze(-1), audio, float("nan")).requires_grad_()
    states = decoder(tokens, poisoned, mask)
    probes = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    (states * probes).sum().backward()
    weights = {name: p.detach().clone().requires_grad_() for name, p in decoder.named_parameters()}
    clean = audio.clone().requires_grad_()
    total = 0.0
    for row, length in enumerate(AUDIO_LENGTHS):
        expected = reference_states(decoder.config, weights, tokens[row], clean[row, :length])
        torch.testing.assert_close(states[row], expected, rtol=1e-5, atol=1e-5)
        total = total + (expected * probes[row]).sum()
    total.backward()
    torch.testing.assert_close(poisoned.grad[mask], clean.grad[mask], rtol=1e-4, atol=1e-5)
    for name, parameter in decoder.named_parameters():
        wanted = weights[name].grad
        # a bias of the keys moves all scores alike: its gradient is rounding around zero
        assert (parameter.grad - wanted).abs().max() <= 1e-5 * max(wanted.abs().max(), 0.2), name


def test_a_state_sees_the_past_and_its_own_clip_only():
    decoder = make_decoder()
    tokens, audio, mask = make_inputs()
    base = decoder(tokens, audio, mask)
    later = tokens.clone()
    later[:, 3] = (later[:, 3] - 5 + 1) % 27 + 5
    changed = decoder(later, audio, mask)
    torch.testing.assert_close(changed[:, :3], base[:, :3])
    assert (changed[:, 3:] - base[:, 3:]).abs().amin(dim=(0, 1)).max() > 1e-4
    others = audio.clone()
    others[1] += 1.0
    changed = decoder(tokens, others, mask)
    torch.testing.assert_close(changed[[0, 2]], base[[0, 2]])
    assert (changed[1] - base[1]).abs().max() > 1e-2


def test_eager_equals_sdpa():
    decoder = make_decoder()
    inputs = make_inputs()
    fast = decoder(*inputs)
    decoder.set_attn_implementation("eager")
    torch.testing.assert_close(decoder(*inputs), fast, rtol=1e-5, atol=1e-5)


def test_no_audio_mask_means_all_tokens():
    decoder = make_decoder()
    tokens, audio, mask = make_inputs()
    assert torch.equal(decoder(tokens, audio), decoder(tokens, audio, torch.ones_like(mask)))


def test_dropout_is_active_in_training_only():
    decoder = make_decoder(dropout=0.3)
    inputs = make_inputs()
    assert torch.equal(decoder(*inputs), decoder(*inputs))
    decoder.train()
    torch.manual_seed(0)
    first, second = decoder(*inputs), decoder(*inputs)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(decoder(*inputs), first)


def test_initial_weights_follow_the_stated_scales():
    torch.manual_seed(0)
    config = tiny_decoder_config(hidden_size=96, intermediate_size=96, initializer_range=0.02)
    for layer in CaptionDecoder(config).layers:
        for linear in (layer.self_attn.q_proj, layer.cross_attn.q_proj, layer.mlp.up_proj):
            assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        for linear in (layer.self_attn.o_proj, layer.cross_attn.o_proj, layer.mlp.down_proj):
            assert linear.weight.std().item() == pytest.approx(0.02 / (3 * 2) ** 0.5, rel=0.1)


def test_width_that_gives_a_head_an_odd_size_is_refused():
    with pytest.raises(StrictDataclassError, match="even multiple of `num_attention_heads`, got 18 and 2"):
        tiny_decoder_config(hidden_size=18)

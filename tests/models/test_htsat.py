# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""HTS-AT against transformers' CLAP encoder, MGA-CLAP's locality-aware block restated, frames, masks and loading."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_htsat_config
from torch import nn
from transformers import AutoModel, ClapAudioConfig, ClapAudioModel, ClapConfig, ClapModel, ClapTextConfig

from hf_audiolang import HtsatConfig, HtsatModel
from hf_audiolang.models.layers_packing import unpack
from hf_audiolang.models.layers_swin import attend_by_products, attend_fused, reorder, window_order

# unshifted and shifted windows of 2 x 2; three stages with windows of 4 x 4, the last stage of 2 x 2 windows
SIZES = {
    "plain windows": {"depths": [1, 1], "num_attention_heads": [2, 3]},
    "shifted windows": {"depths": [2, 3], "num_attention_heads": [2, 3]},
    "three stages": {
        "spec_size": 128,
        "num_mel_bins": 32,
        "window_size": 4,
        "depths": [2, 1, 2],
        "num_attention_heads": [2, 3, 4],
        "hidden_size": 48,
    },
}
BASE = {"spec_size": 64, "num_mel_bins": 16, "window_size": 2, "patch_embeds_hidden_size": 12, "hidden_size": 24}


def clap_config(**sizes) -> ClapAudioConfig:
    return ClapAudioConfig(**(BASE | sizes), hidden_dropout_prob=0.0)


def perturbed(model: nn.Module, seed: int) -> nn.Module:
    """Weights, biases, norms and running statistics away from their initial values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def tiny_model(seed: int = 2, **overrides) -> HtsatModel:
    torch.manual_seed(seed)
    return perturbed(HtsatModel(tiny_htsat_config(**overrides)), seed)


def clips(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def as_tokens(clap_map: torch.Tensor) -> torch.Tensor:
    """CLAP's map (B, D, rows, frames) as tokens (B, rows * frames, D)."""
    return clap_map.flatten(2).transpose(1, 2)


# parity


@pytest.mark.parametrize("name", SIZES)
def test_values_and_gradients_equal_those_of_clap(name):
    torch.manual_seed(0)
    peer = perturbed(ClapAudioModel(clap_config(**SIZES[name])), seed=1)
    ours = HtsatModel(HtsatConfig(**(BASE | SIZES[name]))).eval()
    ours.load_state_dict(peer.state_dict())
    config = ours.config
    for frames in (config.max_frames, 101, 9):
        features = clips(3, frames, config.num_mel_bins, seed=frames)
        expected = as_tokens(peer(features.unsqueeze(1)).last_hidden_state)
        output = ours(features).last_hidden_state
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
        weights = clips(*expected.shape, seed=7)
        peer.zero_grad()
        ours.zero_grad()
        (expected * weights).sum().backward()
        (output * weights).sum().backward()
        for key, parameter in ours.named_parameters():
            other = peer.get_parameter(key)
            scale = other.grad.abs().max().clamp(min=1).item()  # softmax cancels the gradient of key biases
            torch.testing.assert_close(parameter.grad, other.grad, rtol=0, atol=3e-5 * scale, msg=key)


def test_training_mode_updates_batch_norm_as_clap_does():
    torch.manual_seed(0)
    peer = perturbed(ClapAudioModel(clap_config(**SIZES["shifted windows"])), seed=1).train()
    ours = HtsatModel(HtsatConfig(**(BASE | SIZES["shifted windows"]), drop_path_rate=0.0)).train()
    ours.load_state_dict(peer.state_dict())
    features = clips(3, 101, 16)
    expected = as_tokens(peer(features.unsqueeze(1)).last_hidden_state)
    torch.testing.assert_close(ours(features).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
    for key, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, peer.get_buffer(key), msg=key)


def test_hidden_states_are_those_of_clap_unfolded():
    torch.manual_seed(0)
    sizes = SIZES["shifted windows"]
    peer = perturbed(ClapAudioModel(clap_config(**sizes)), seed=1)
    ours = HtsatModel(HtsatConfig(**(BASE | sizes))).eval()
    ours.load_state_dict(peer.state_dict())
    features = clips(2, 77, 16)
    with torch.no_grad():
        stages = peer(features.unsqueeze(1), output_hidden_states=True).hidden_states
        states = ours(features, output_hidden_states=True).hidden_states
    assert len(states) == 2 + 3 + 1
    for state, stage in (
        (states[0], stages[0]),
        (states[2], stages[1]),
    ):  # inputs of the stages, (B, C, rows, columns)
        unfolded = torch.cat(stage.chunk(4, 2), 3)  # four segments of time, one after the other
        torch.testing.assert_close(state, as_tokens(unfolded), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_real_size_equals_clap_on_ten_seconds():
    torch.manual_seed(0)
    peer = ClapAudioModel(ClapAudioConfig(hidden_dropout_prob=0.0)).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    ours = HtsatModel(HtsatConfig()).eval()
    ours.load_state_dict(peer.state_dict())
    for frames in (1001, 701):
        features = clips(2, frames, 64)
        with torch.no_grad():
            expected = peer(features.unsqueeze(1)).last_hidden_state
            output = ours(features)
        torch.testing.assert_close(output.last_hidden_state, as_tokens(expected), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(output.frame_features, expected.mean(2).transpose(1, 2), rtol=1e-5, atol=1e-5)


# attention


@pytest.mark.parametrize("bias_heads", [3, 6])  # one bias for all windows, or one for each of two windows
def test_fused_attention_equals_products_in_values_and_gradients(bias_heads):
    parts = [clips(12, 5, 7, seed=seed) for seed in range(3)]
    bias, weights = clips(bias_heads, 5, 5, seed=3), clips(12, 5, 7, seed=4)
    results = []
    for attend in (attend_by_products, attend_fused):
        leaves = [tensor.clone().requires_grad_() for tensor in (*parts, bias)]
        context, _ = attend(*leaves, 0.0)
        results.append([context, *torch.autograd.grad((context * weights).sum(), leaves)])
    for ours, fused in zip(*results, strict=True):
        torch.testing.assert_close(ours, fused, rtol=1e-5, atol=1e-5)


def test_attentions_come_with_eager_attention_alone():
    model = tiny_model()
    features = clips(2, 98, 16)
    with torch.no_grad():
        assert model(features, output_attentions=True).attentions is None
        model.set_attn_implementation("eager")
        attentions = model(features, output_attentions=True).attentions
    # windows of 2 x 2 on grids of 16 x 16 and 8 x 8
    assert [tuple(a.shape) for a in attentions] == [(2 * 64, 2, 4, 4)] * 2 + [(2 * 16, 3, 4, 4)] * 2
    for weights in attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    plain, shifted = attentions[:2]
    corner = shifted.view(2, 64, 2, 4, 4)[:, -1]  # its four tokens are the four corners of the image
    torch.testing.assert_close(corner, torch.eye(4).expand_as(corner))
    assert plain.view(2, 64, 2, 4, 4)[:, -1].amax() < 0.99  # control
    local = tiny_model(locality_blocks=1)
    local.set_attn_implementation("eager")
    with torch.no_grad():
        assert len(local(features, output_attentions=True).attentions) == 3  # such a block has none


def test_a_layer_in_the_place_of_a_projection_is_used():
    class Doubled(nn.Linear):
        def forward(self, hidden_states):
            return 2 * super().forward(hidden_states)

    model, features = tiny_model(), clips(2, 98, 16)
    doubled, expected = copy.deepcopy(model), copy.deepcopy(model)
    for one, other in zip(doubled.audio_encoder.layers, expected.audio_encoder.layers, strict=True):
        attention = one.blocks[0].attention.self
        layer = Doubled(*attention.query.weight.shape)
        layer.load_state_dict(attention.query.state_dict())
        attention.query = layer
        with torch.no_grad():
            for parameter in other.blocks[0].attention.self.query.parameters():
                parameter.mul_(2)
    with torch.no_grad():
        output = doubled(features).last_hidden_state
        torch.testing.assert_close(output, expected(features).last_hidden_state, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(output, model(features).last_hidden_state, atol=1e-3)


def test_windows_list_each_token_once_and_wrap_when_shifted():
    device = torch.device("cpu")
    assert window_order(4, 2, 0, device).view(4, 4).tolist()[:2] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    shifted = window_order(4, 2, 1, device).view(4, 4)
    assert shifted.tolist() == [[5, 6, 9, 10], [7, 4, 11, 8], [13, 14, 1, 2], [15, 12, 3, 0]]
    tokens = clips(2, 16, 3).requires_grad_()
    weights = clips(2, 16, 3, seed=1)
    gradients = [
        torch.autograd.grad((moved * weights).sum(), tokens)[0]
        for moved in (reorder(tokens, shifted.flatten()), tokens[:, shifted.flatten()])
    ]
    assert torch.equal(*gradients)


# locality-aware blocks


def locality_restated(model: HtsatModel, block: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """MGA-CLAP 3.3 on each token by itself: the values in place of the attention output."""

    def norm(x, layer):
        return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, 1e-5)

    attention = block.attention
    values = F.linear(norm(tokens, block.layernorm_before), attention.self.value.weight, attention.self.value.bias)
    tokens = tokens + F.linear(values, attention.output.dense.weight, attention.output.dense.bias)
    update = norm(tokens, block.layernorm_after)
    if model.config.locality_mlp == "mlp":
        inner = F.gelu(F.linear(update, block.intermediate.dense.weight, block.intermediate.dense.bias))
        update = F.linear(inner, block.output.dense.weight, block.output.dense.bias)
    return tokens + update


@pytest.mark.parametrize("locality_mlp", ["skip", "mlp"])
@pytest.mark.parametrize("locality_blocks", [1, 2])
def test_locality_aware_blocks_follow_the_formula(locality_mlp, locality_blocks):
    model = tiny_model(locality_blocks=locality_blocks, locality_mlp=locality_mlp)
    with torch.no_grad():
        output = model(clips(3, 98, 16), output_hidden_states=True)
        tokens = output.hidden_states[-1 - locality_blocks]
        for block in model.audio_encoder.layers[-1].blocks[-locality_blocks:]:
            tokens = locality_restated(model, block, tokens)
        expected = F.layer_norm(tokens, (24,), model.audio_encoder.norm.weight, model.audio_encoder.norm.bias)
    torch.testing.assert_close(output.last_hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_locality_changes_the_last_block_alone():
    plain = tiny_model()
    local = tiny_model(locality_blocks=1)
    local.load_state_dict(plain.state_dict())
    features = clips(2, 98, 16)
    with torch.no_grad():
        before = plain(features, output_hidden_states=True).hidden_states
        after = local(features, output_hidden_states=True).hidden_states
    for ours, other in zip(before[:-1], after[:-1], strict=True):
        assert torch.equal(ours, other)
    assert (before[-1] - after[-1]).abs().max() > 0.1


DEAD_ATTENTION = {
    "attention.self.relative_position_bias_table",
    *(f"attention.self.{part}.{kind}" for part in ("query", "key") for kind in ("weight", "bias")),
}
DEAD_MLP = {f"{part}.dense.{kind}" for part in ("intermediate", "output") for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("locality_mlp", "dead"), [("skip", DEAD_ATTENTION | DEAD_MLP), ("mlp", DEAD_ATTENTION)], ids=["skip", "mlp"]
)
def test_weights_that_a_locality_aware_block_ignores_stay_without_gradient(locality_mlp, dead, tmp_path):
    model = tiny_model(locality_blocks=1, locality_mlp=locality_mlp)
    last = "audio_encoder.layers.1.blocks.1."
    model.save_pretrained(tmp_path)
    loaded = HtsatModel.from_pretrained(tmp_path)
    unfrozen = copy.deepcopy(loaded).requires_grad_(True).train()
    for frozen in (model, loaded, unfrozen):
        names = {name for name, parameter in frozen.named_parameters() if not parameter.requires_grad}
        assert names == {last + name for name in dead}
    assert set(ClapAudioModel(clap_config(depths=[2, 2], num_attention_heads=[2, 3])).state_dict()) == set(
        loaded.state_dict()
    )
    features = clips(2, 98, 16)
    with torch.no_grad():
        before = loaded(features).last_hidden_state
        for name, parameter in loaded.named_parameters():
            if not parameter.requires_grad:
                parameter.add_(clips(*parameter.shape, seed=len(name)))
        assert torch.equal(loaded(features).last_hidden_state, before)
        loaded.get_parameter(last + "attention.self.value.weight").add_(0.1)  # control
        assert not torch.allclose(loaded(features).last_hidden_state, before, atol=1e-3)


@pytest.mark.parametrize("locality_blocks", [0, 1])
def test_similarities_of_the_last_block_are_maps_between_frames(locality_blocks):
    """The official geometry in small: the last stage is one window, of 8 x 8 tokens in 4 segments."""
    sizes = {"window_size": 8, "depths": [1, 2], "locality_blocks": locality_blocks}
    model = tiny_model(**sizes)
    features = clips(3, 98, 16)
    with torch.no_grad():
        tokens = model(features, output_hidden_states=True).hidden_states[-2]  # (B, 2 rows * 32 frames, D)
        block = model.audio_encoder.layers[1].blocks[1]
        attention = block.attention.self
        hidden = block.layernorm_before(tokens)
        query, key, value = (
            layer(hidden).view(3, 64, 3, 8).transpose(1, 2)
            for layer in (attention.query, attention.key, attention.value)
        )
        row = torch.tensor([2 * (frame // 8) + band for band in range(2) for frame in range(32)])
        column = torch.tensor([frame % 8 for _ in range(2) for frame in range(32)])
        offset = 15 * (row[:, None] - row + 7) + column[:, None] - column + 7  # of the folded image
        bias = attention.relative_position_bias_table[offset].permute(2, 0, 1)
        for ours, scores in zip(
            model.last_block_similarities(features),
            (query @ key.mT / 8**0.5 + bias, value @ value.mT / 8**0.5),
            strict=True,
        ):
            between = scores.softmax(-1).mean(1).view(3, 2, 32, 2, 32).sum((1, 3)) / 2
            assert ours.shape == (3, 32, 32)
            torch.testing.assert_close(ours, between, rtol=1e-5, atol=1e-6)


def test_similarities_inside_shifted_windows_stay_there_and_sum_to_one():
    model = tiny_model()  # the last block has shifted windows of 2 x 2 on a grid of 8 x 8
    with torch.no_grad():
        maps = model.last_block_similarities(clips(2, 98, 16))
    for between in maps:
        torch.testing.assert_close(between.sum(-1), torch.ones(2, 32))
        assert (between[:, 0, 2:8] < 1e-6).all()  # frame 0 stands at the border of the image, alone in its column


# frames and masks


def test_frames_are_the_mean_of_the_frequency_rows_and_time_runs_along_them():
    model = tiny_model()
    with torch.no_grad():
        output = model(clips(3, 256, 16))
    torch.testing.assert_close(output.frame_features, output.last_hidden_state.view(3, 2, 32, 24).mean(1))
    torch.testing.assert_close(output.pooler_output, output.frame_features.mean(1))
    # an impulse moves through the frames with its place in the clip
    loudest = []
    for frame in (20, 100, 180, 250):
        features = torch.zeros(2, 256, 16)
        features[1, frame] = 5.0
        with torch.no_grad():
            silence, impulse = model(features).frame_features
        loudest.append((impulse - silence).norm(dim=-1).argmax().item())
    assert all(abs(found - frame // 8) <= 1 for found, frame in zip(loudest, (20, 100, 180, 250), strict=True))


@pytest.mark.parametrize(("real", "expected"), [(256, 32), (249, 32), (248, 31), (9, 2), (8, 1), (1, 1)])
def test_an_output_frame_is_real_if_one_of_its_input_frames_is(real, expected):
    model = tiny_model()
    mask = (torch.arange(256) < real).unsqueeze(0)
    with torch.no_grad():
        output = model(clips(1, 256, 16), mask)
    assert output.frame_mask[0].tolist() == [frame < expected for frame in range(32)]
    assert torch.equal(output.token_mask[0], output.frame_mask[0].repeat(2))
    torch.testing.assert_close(output.pooler_output, output.frame_features[:, :expected].mean(1))


def test_masks_of_stretched_clips_follow_the_stretching():
    model = tiny_model()
    for frames, real in ((101, 37), (9, 4), (9, 1)):
        mask = (torch.arange(frames) < real).unsqueeze(0)
        with torch.no_grad():
            frame_mask = model(clips(1, frames, 16), mask).frame_mask[0]
        # frame t covers stretched frames 8 t ... 8 t + 7; their nearest input frames decide
        source = [[round(at * (frames - 1) / 255) for at in range(8 * t, 8 * t + 8)] for t in range(32)]
        assert frame_mask.tolist() == [any(at < real for at in covered) for covered in source]
    alone = (torch.arange(101) == 50).unsqueeze(0)
    with torch.no_grad():
        assert model(clips(1, 101, 16), alone).frame_mask[0].nonzero().flatten().tolist() in ([15], [15, 16], [16])


def test_the_mask_changes_no_feature_and_mates_change_no_clip():
    model, features = tiny_model(), clips(4, 98, 16)
    mask = torch.arange(98) < torch.tensor([[98], [60], [7], [33]])
    with torch.no_grad():
        plain, masked = model(features), model(features, mask)
        assert torch.equal(plain.last_hidden_state, masked.last_hidden_state)
        assert torch.equal(plain.frame_features, masked.frame_features)
        assert not torch.allclose(plain.pooler_output, masked.pooler_output, atol=1e-3)
        for row in range(4):
            alone = model(features[row : row + 1], mask[row : row + 1])
            torch.testing.assert_close(alone.pooler_output[0], masked.pooler_output[row], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(alone.frame_features[0], masked.frame_features[row], rtol=1e-5, atol=1e-5)


def test_frame_rates_are_those_of_the_padded_length():
    config = HtsatConfig()
    assert (config.max_frames, config.num_frames, config.frame_feature_size) == (1024, 32, 768)
    assert config.frame_rate_hz == pytest.approx(3.2)
    assert config.frame_rate_of(1001) == pytest.approx(3.2)  # ten seconds of a centred STFT
    assert config.frame_rate_of(501) == pytest.approx(6.4)


# training


def test_drop_path_leaves_out_both_residuals_clip_by_clip():
    model = tiny_model(drop_path_rate=0.5)
    stages = model.audio_encoder.layers
    assert [block.drop_path_rate for stage in stages for block in stage.blocks] == pytest.approx(
        [0, 1 / 6, 1 / 3, 0.5]
    )
    block = stages[-1].blocks[-1].train()
    tokens = clips(1, 64, 24).expand(64, -1, -1).contiguous()
    torch.manual_seed(0)
    with torch.no_grad():
        output, _ = block(tokens, None)
        block.drop_path_rate = 0.0
        attention, _ = block.attention.self(block.layernorm_before(tokens[:1]).view(1, 16, 4, 24), None)
        update = 2 * block.attention.output(attention.flatten(1, 2))
        expected = []
        for middle in (tokens[:1], tokens[:1] + update):
            mlp = block.output(F.gelu(block.intermediate(block.layernorm_after(middle))))
            expected += [middle, middle + 2 * mlp]
    kinds = [[torch.allclose(clip, kind[0], atol=1e-5) for kind in expected].index(True) for clip in output]
    assert set(kinds) == {0, 1, 2, 3}


def test_drop_path_and_dropout_are_for_training_alone():
    model = tiny_model(drop_path_rate=0.5, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    features = clips(3, 98, 16)
    with torch.no_grad():
        assert torch.equal(model(features).last_hidden_state, model(features).last_hidden_state)
        model.train()
        assert not torch.allclose(model(features).last_hidden_state, model(features).last_hidden_state, atol=1e-3)


def test_spec_augment_hides_stripes_after_batch_norm_in_training_alone():
    model = tiny_model(spec_augment_time_stripes=2, spec_augment_time_width=9, spec_augment_mel_stripes=1)
    encoder, features = model.audio_encoder, clips(64, 256, 16)
    encoder.batch_norm.bias.data.add_(10)  # nothing else is near 0, the value of hidden bins
    torch.manual_seed(0)
    with torch.no_grad():
        assert not (encoder.stretched(features) == 0).any()
        encoder.train()
        encoder.batch_norm.eval()
        hidden = encoder.stretched(features) == 0  # 256 frames are not stretched
    time, mel = hidden.all(2), hidden.all(1)
    assert torch.equal(hidden, time.unsqueeze(2) | mel.unsqueeze(1))
    assert 1 < time.sum(1).max() <= 2 * 8
    assert 1 < mel.sum(1).max() <= 7
    assert len({tuple(row.tolist()) for row in time}) > 32  # every clip has its own


def test_spec_augment_comes_before_stretching():
    model = tiny_model(spec_augment_time_stripes=2, spec_augment_time_width=40)
    encoder = model.audio_encoder.train()
    encoder.batch_norm.eval()
    features = clips(8, 100, 16)
    torch.manual_seed(0)
    with torch.no_grad():
        stretched = encoder.stretched(features)
        # were the stripes drawn after stretching, no frame beside them would be mixed with the fill value
        model.config.spec_augment_time_stripes = 0
        plain = encoder.stretched(features)
    is_zero, is_changed = (stretched == 0).all(2), (stretched != plain).any(2)
    assert is_zero.any()
    assert (is_changed & ~is_zero).any()


# loading and refusals


def clap_folder(tmp_path, kind: str):
    torch.manual_seed(0)
    audio = clap_config(**SIZES["shifted windows"])
    if kind == "audio":
        model = perturbed(ClapAudioModel(audio), seed=1)
    else:
        text = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        text = ClapTextConfig(**text, intermediate_size=16, projection_dim=8)
        model = ClapModel(ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=8))
        perturbed(model, seed=1)
    model.save_pretrained(tmp_path)
    return getattr(model, "audio_model", model)


@pytest.mark.parametrize("kind", ["audio", "audio and text"])
def test_clap_folders_load(kind, tmp_path):
    peer = clap_folder(tmp_path, kind)
    ours, info = HtsatModel.from_pretrained(tmp_path, output_loading_info=True, locality_blocks=0)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    features = clips(2, 98, 16)
    with torch.no_grad():
        expected = as_tokens(peer(features.unsqueeze(1)).last_hidden_state)
        torch.testing.assert_close(ours(features).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
    ours.save_pretrained(tmp_path / "ours")
    again = AutoModel.from_pretrained(tmp_path / "ours")
    assert type(again) is HtsatModel
    assert again.config.depths == [2, 3]
    assert not {"num_classes", "aff_block_r", "enable_fusion", "num_hidden_layers"} & set(again.config.to_dict())
    assert torch.equal(again(features).last_hidden_state, ours(features).last_hidden_state)


def test_a_checkpoint_without_encoder_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path, state_dict={"text_model.weight": torch.ones(2)})
    with pytest.raises(ValueError, match="allow_random_encoder=True"):
        HtsatModel.from_pretrained(tmp_path)


def test_feature_fusion_is_refused(tmp_path):
    clap_config(enable_fusion=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="without feature fusion"):
        HtsatConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("shape", "mask_shape", "message"),
    [
        ((2, 257, 16), None, r"at most 256 frames, got 257. Cut clips to 10.0 s"),
        ((2, 98, 15), None, r"16 mel bins\) with a frame, got \(2, 98, 15\). Use the model's own feature extractor"),
        ((2, 0, 16), None, r"with a frame, got \(2, 0, 16\)"),
        ((98, 16), None, r"must be \(batch, frames, 16 mel bins\)"),
        ((2, 98, 16), (2, 97), r"`input_features_mask` must be \(2, 98\).*got \(2, 97\)"),
    ],
)
def test_input_that_does_not_fit_is_refused(shape, mask_shape, message):
    mask = None if mask_shape is None else torch.ones(mask_shape, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        tiny_model()(torch.zeros(shape), mask)


def test_tokens_cannot_be_hidden():
    model, features, hidden = tiny_model(), torch.zeros(2, 98, 16), torch.ones(2, 64, dtype=torch.bool)
    for call in (model, model.encode):
        with pytest.raises(ValueError, match=r"`masked_positions` is \(2, 64\), but HTS-AT cannot hide tokens"):
            call(features, masked_positions=hidden)


def test_packed_tokens_are_the_real_ones():
    model, features = tiny_model(), clips(2, 98, 16)
    mask = torch.arange(98) < torch.tensor([[98], [40]])
    with torch.no_grad():
        output, (tokens, layout) = model(features, mask), model.encode(features, mask)
    assert len(tokens) == int(output.token_mask.sum())
    assert torch.equal(unpack(tokens, layout), output.last_hidden_state * output.token_mask.unsqueeze(-1))
    assert torch.equal(layout.token_mask, output.token_mask)
    assert 0 < int((~output.token_mask).sum()) < 64  # control


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"patch_stride": (4, 2)}, "Overlapping or oblong patches"),
        ({"num_mel_bins": 20}, "`spec_size` must be a multiple of `num_mel_bins`"),
        ({"num_attention_heads": [2]}, "one number per stage"),
        ({"hidden_size": 48}, "Set it to 24"),
        ({"num_attention_heads": [2, 5]}, "must divide the stage widths"),
        ({"window_size": 3}, "`window_size` must divide"),
        ({"window_size": 16}, "`window_size` must divide"),
        ({"locality_blocks": 3}, "between 0 and the depth of the last stage, 2, got 3"),
        ({"locality_mlp": "none"}, "locality_mlp"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(Exception, match=message):  # transformers wraps what the validators raise
        tiny_htsat_config(**overrides)


def test_a_frozen_batch_norm_keeps_its_statistics_in_training():
    torch.manual_seed(0)
    features = torch.randn(2, 98, 16) - 40.0
    for is_frozen in (True, False):
        model = HtsatModel(tiny_htsat_config())
        model.requires_grad_(not is_frozen)
        before = model.train().audio_encoder.batch_norm.running_mean.clone()
        model(features)
        assert torch.equal(model.audio_encoder.batch_norm.running_mean, before) == is_frozen

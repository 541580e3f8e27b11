# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The Zipformer's masks, frame times, chunks, sizes and training; its numbers are tested where it is converted."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from tiny import tiny_zipformer_config
from transformers import AutoModel

from hf_audiolang import ZipformerConfig, ZipformerModel
from hf_audiolang.models.configuration_zipformer import ZIPFORMER_PRESETS, num_zipformer_frames
from hf_audiolang.models.layers_zipformer import (
    ChunkCausalConv,
    Downsample,
    layer_skip_rates,
    relative_positions,
)
from hf_audiolang.models.layers_zipformer_regularizers import Whiten

LENGTHS = (101, 64, 30, 9)
CAUSAL = {"causal": True, "chunk_size": (8, 16, -1), "left_context_frames": (16, -1)}


def clips(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 6


def model_of(seed: int = 1, **overrides) -> ZipformerModel:
    """A model whose every branch counts: weights, norms, bypasses and edge scales away from their start."""
    torch.manual_seed(seed)
    model = ZipformerModel(tiny_zipformer_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def batch(seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return clips(len(LENGTHS), max(LENGTHS), 80, seed=seed), mask_of(LENGTHS)


def mask_of(lengths) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


# padding


@pytest.mark.parametrize(("options", "chunk_size"), [({}, -1), (CAUSAL, -1), (CAUSAL, 8), (CAUSAL, 16)])
def test_a_clip_is_the_same_alone_and_in_a_batch_with_poisoned_padding(options, chunk_size):
    model, (features, mask) = model_of(**options).double(), batch()
    features = features.double()
    poisoned = features.masked_fill(~mask.unsqueeze(-1), 300.0)
    with torch.no_grad():
        together = model(poisoned, mask, chunk_size=chunk_size)
        for row, length in enumerate(LENGTHS):
            alone = model(features[row : row + 1, :length], chunk_size=chunk_size)
            frames = num_zipformer_frames(length)
            assert alone.frame_features.shape[1] == frames == together.frame_mask[row].sum()
            torch.testing.assert_close(together.frame_features[row, :frames], alone.frame_features[0])
            torch.testing.assert_close(together.pooler_output[row], alone.pooler_output[0])
    assert (together.frame_features[~together.frame_mask] == 0).all()


def test_official_padding_lets_batch_mates_change_a_clip():
    model, (features, mask) = model_of(exact_padding=False), batch()
    with torch.no_grad():
        together = model(features, mask).frame_features[2, : num_zipformer_frames(30)]
        alone = model(features[2:3, :30]).frame_features[0]
    assert (together - alone).abs().max() > 1e-3


def test_without_padding_both_modes_agree():
    features = clips(2, 77, 80)
    exact, official = model_of(), model_of(exact_padding=False)
    with torch.no_grad():
        assert torch.equal(exact(features).frame_features, official(features).frame_features)
        full = exact(features, torch.ones(2, 77, dtype=torch.bool)).frame_features
    torch.testing.assert_close(full, exact(features).frame_features.detach(), rtol=1e-6, atol=1e-6)


def test_fewer_than_nine_frames_are_filled_with_silence():
    model, features = model_of(), clips(1, 5, 80)
    with torch.no_grad():
        short = model(features).frame_features
        filled = F.pad(features, (0, 0, 0, 4), value=math.log(1e-10))
        torch.testing.assert_close(short, model(filled).frame_features)
        beside = model(F.pad(features, (0, 0, 0, 40), value=7.0), mask_of((45, 5))[1:]).frame_features
    assert short.shape == (1, 1, 24)
    torch.testing.assert_close(beside[:, :1], short)


def test_a_clip_without_frames_has_no_output_frame():
    model, (features, mask) = model_of(), batch()
    mask[1] = False
    with torch.no_grad():
        output = model(features, mask)
    assert output.frame_mask.sum(1).tolist() == [24, 0, 6, 1]
    assert (output.frame_features[1] == 0).all()
    assert torch.isfinite(output.pooler_output).all()


@pytest.mark.parametrize(("length", "frames"), [(1, 1), (9, 1), (10, 1), (13, 2), (101, 24), (1000, 248)])
def test_number_of_frames(length, frames):
    assert num_zipformer_frames(length) == frames
    features = clips(1, length, 80)
    assert model_of()(features).frame_features.shape[1] == frames


# frame times


def test_the_middle_of_a_frame_is_where_it_looks():
    """With equal downsampling weights, and layers that see one frame."""
    config = ZipformerConfig()
    assert config.frame_rate_hz == 25
    for frame in (0, 1, 7):
        read = [2 * (2 * frame + i) + j for i in range(2) for j in range(9)]  # input frames of its two embed frames
        centre = (sum(read) / len(read) + 0.5) / 100
        assert centre == pytest.approx(0.055 + 0.04 * frame)
        assert centre == pytest.approx(config.frame_offset_seconds + (frame + 0.5) / config.frame_rate_hz)


def test_clicks_move_the_frames_around_them():
    model = model_of()
    for layer in (module for stack in model.encoders for module in stack.layers):
        layer.bypass.bypass_scale.data.zero_()  # frames do not see each other
    for stack in list(model.encoders)[1:]:
        stack.out_combiner.bypass_scale.data.zero_()
    model.encoder_embed.convnext.pointwise_conv2.weight.data.zero_()
    model.downsample_output.bias.data.zero_()
    for convolution in (model.encoder_embed.conv1, model.encoder_embed.conv2, model.encoder_embed.conv3):
        convolution.weight.data += convolution.weight.data.flip(2)  # symmetric in time
    clicked = range(30, 70)
    features = torch.full((len(clicked) + 1, 101, 80), -15.9)
    for row, frame in enumerate(clicked):
        features[row, frame] = 0.0
    with torch.no_grad():
        frames = model(features).frame_features
    moved = (frames[:-1] - frames[-1]).norm(dim=-1)  # (clicks, T')
    times = model.config.frame_offset_seconds + (torch.arange(moved.shape[1]) + 0.5) / model.config.frame_rate_hz
    centres = (moved * times).sum(1) / moved.sum(1)
    seconds = (torch.tensor(clicked) + 0.5) / 100
    assert abs((centres - seconds).mean()) < 0.005
    assert abs((centres - model.config.frame_offset_seconds - seconds).mean()) > 0.02  # control: without the offset


# chunks


@pytest.mark.parametrize("chunk_size", [8, 16])
def test_a_chunk_sees_nothing_of_the_next_ones(chunk_size):
    model, features = model_of(**CAUSAL), clips(1, 135, 80)  # 64 frames of 20 ms
    changed = features.clone()
    begin = 2 * chunk_size * 2 + 7 + 6  # behind what the second chunk and the ConvNeXt block's look-ahead read
    changed[:, begin:] = 3.0
    seen = chunk_size  # output frames of the first two chunks
    with torch.no_grad():
        first = model(features, chunk_size=chunk_size).frame_features
        second = model(changed, chunk_size=chunk_size).frame_features
        whole = model(changed).frame_features - model(features).frame_features
    torch.testing.assert_close(first[:, :seen], second[:, :seen])
    assert (first[:, seen:] - second[:, seen:]).abs().max() > 1e-2
    assert whole[:, :seen].abs().max() > 1e-3  # control: as one chunk it does see it


def test_left_context_limits_what_a_chunk_sees():
    model, features = model_of(**CAUSAL), clips(1, 343, 80)  # 21 chunks
    for module in model.modules():
        if isinstance(module, ChunkCausalConv):  # what convolutions pass on reaches further than attention
            module.causal_conv.weight.data[..., :-1] = 0.0
            module.chunkwise_conv.weight.data.zero_()
    for stack in model.encoders:
        del stack.layers[1:]  # one layer each, which mixes frames three times: nine hops of two chunks
    changed = features.clone()
    changed[:, :5] = 3.0
    with torch.no_grad():

        def last(inputs, context):
            return model(inputs, chunk_size=8, left_context_frames=context).frame_features[:, -4:]

        torch.testing.assert_close(last(features, 16), last(changed, 16))
        assert not torch.allclose(last(features, -1), last(changed, -1))


def test_causal_convolution_equals_its_definition():
    """Output t: the past through the causal kernel, plus the chunk alone through the other, scaled near the edges."""
    torch.manual_seed(0)
    channels, kernel, length, chunk = 3, 5, 17, 4
    layer = ChunkCausalConv(channels, kernel)
    layer.chunkwise_conv_scale.data.normal_()
    values = torch.randn(2, channels, length)
    scale = layer.chunkwise_conv_scale
    for size in (chunk, 9, -1, 30):
        width = length if size < 0 or size > length else size
        expected = torch.empty_like(values)
        for start in range(0, length, width):
            inside = values[..., start : start + width]
            padded = F.pad(inside, (0, width - inside.shape[-1]))
            alone = layer.chunkwise_conv(padded)
            for place in range(width):
                factor = 1.0
                if place < kernel:
                    factor = factor + scale[0, :, place]
                if width - 1 - place < kernel:
                    factor = factor + scale[1, :, kernel - 1 - (width - 1 - place)]
                if start + place < length:
                    past = layer.causal_conv(
                        F.pad(values, (kernel // 2, 0))[..., start + place :][..., : kernel // 2 + 1]
                    )
                    expected[..., start + place] = past[..., 0] + alone[..., place] * factor
        torch.testing.assert_close(layer(values, size), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "chunk", "message"),
    [
        ({}, {"chunk_size": 8}, "`causal` is False.*load a causal model"),
        (CAUSAL, {"chunk_size": 6}, "multiple of every `downsampling_factor`"),
        (CAUSAL, {"chunk_size": 4, "left_context_frames": 4}, "Raise it to at least 6"),
    ],
)
def test_impossible_chunks_are_refused(options, chunk, message):
    with pytest.raises(ValueError, match=message):
        model_of(**options)(clips(1, 60, 80), **chunk)


# parts


def test_relative_positions_are_those_of_the_formula():
    table, width = relative_positions(5, 12, torch.device("cpu")), 12
    for row, offset in enumerate(range(-4, 5)):
        squeezed = (
            math.sqrt(width) * math.copysign(1, offset) * math.log((abs(offset) + math.sqrt(width)) / math.sqrt(width))
        )
        angle = math.atan(squeezed * 2 * math.pi / width)
        waves = [(math.cos(k * angle), math.sin(k * angle)) for k in range(1, width // 2 + 1)]
        expected = [value for pair in waves for value in pair]
        expected[-1] = 1.0
        torch.testing.assert_close(table[row], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_downsampling_fills_the_last_group_with_the_clips_own_last_frame():
    layer = Downsample(3)
    layer.bias.data = torch.tensor([0.0, 1.0, 2.0])
    weights = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    frames = torch.arange(10.0).view(2, 5, 1)
    expected = torch.tensor([[0.0, 1, 2], [3, 4, 4]]) @ weights
    torch.testing.assert_close(layer(frames)[0, :, 0], expected)
    own = layer(frames, torch.tensor([5, 4]))
    torch.testing.assert_close(own[0, :, 0], expected)
    torch.testing.assert_close(own[1, :, 0], torch.tensor([[5.0, 6, 7], [8, 8, 8]]) @ weights)


@pytest.mark.parametrize(
    ("name", "number"),  # icefall's and Auden's, without the scales that nothing reads
    [
        ("zipformer-s", 21_989_779 - 2_944),
        ("zipformer-m", 63_994_103 - 5_760),
        ("zipformer-l", 146_625_594 - 9_344),
        ("zipformer-m-auden", 65_913_719 - 5_760),
        ("zipformer-l-auden", 152_675_514 - 9_344),
    ],
)
def test_presets_have_the_official_number_of_parameters(name, number):
    with torch.device("meta"):
        model = ZipformerModel(ZipformerConfig.from_preset(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == number


def test_default_is_the_size_of_captionstew_and_unknown_presets_are_refused():
    numbers = ZipformerConfig().to_dict()
    preset = ZipformerConfig.from_preset("zipformer-m-auden").to_dict()
    assert numbers == preset
    with pytest.raises(ValueError, match="Choose one of"):
        ZipformerConfig.from_preset("zipformer-xl")
    assert set(ZIPFORMER_PRESETS) == {
        "zipformer-s", "zipformer-m", "zipformer-l", "zipformer-m-auden", "zipformer-l-auden",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"encoder_dim": (18, 24)}, "one number per stack"),
        ({"cnn_module_kernel": (5, 6, 3)}, "must be odd"),
        ({"pos_dim": 9}, "`pos_dim` must be even"),
        ({"encoder_unmasked_dim": (19, 2, 2)}, "must not exceed"),
        ({"embed_channels": (2, 4)}, "three numbers"),
        ({"downsampling_factor": (0, 2, 4)}, "at least 1"),
        ({"causal": True, "chunk_size": (6,)}, "multiple of every"),
        ({"causal": True, "chunk_size": (4,), "left_context_frames": (4,)}, "Raise it"),
    ],
)
def test_contradicting_sizes_are_refused(numbers, message):
    with pytest.raises(StrictDataclassError) as caught:
        tiny_zipformer_config(**numbers)
    assert message in str(caught.value.__cause__ or caught.value)


@pytest.mark.parametrize(
    ("features", "more", "message"),
    [
        (clips(2, 30, 64), {}, "80 mel bins"),
        (clips(2, 0, 80), {}, "with a frame"),
        (clips(2, 30, 80), {"input_features_mask": torch.ones(2, 29)}, "Pass the mask"),
        (clips(2, 30, 80), {"masked_positions": torch.ones(2, 6)}, "has no mask token"),
    ],
)
def test_other_inputs_are_refused(features, more, message):
    with pytest.raises(ValueError, match=message):
        model_of()(features, **more)


def test_padding_is_on_the_right_and_its_mask_of_any_type():
    features, mask = batch()
    model = model_of().eval()
    with torch.no_grad():
        expected = model(features, mask).frame_features
        assert torch.equal(model(features, mask.float()).frame_features, expected)
    with pytest.raises(ValueError, match=r"padding before real frames in [1-9]\d* clips. Pad on the right"):
        model(features, mask.flip(1))


def test_missing_weights_are_refused_but_not_the_state_of_whitening(tmp_path):
    model = ZipformerModel(tiny_zipformer_config())
    model.save_pretrained(tmp_path)
    config = tiny_zipformer_config(activation_regularizers=True)
    loaded = ZipformerModel.from_pretrained(tmp_path, config=config)
    assert any(isinstance(module, Whiten) for module in loaded.modules())
    loaded.save_pretrained(tmp_path / "trained")
    plain = AutoModel.from_pretrained(tmp_path / "trained", config=tiny_zipformer_config())
    assert not dict(plain.named_buffers())
    with pytest.raises(ValueError, match="they would be random"):
        ZipformerModel.from_pretrained(tmp_path, config=tiny_zipformer_config(num_encoder_layers=(2, 2, 1)))


def test_initial_attention_is_scaled_and_branches_start_small():
    torch.manual_seed(0)
    model = ZipformerModel(ZipformerConfig.from_preset("zipformer-s", num_encoder_layers=[1] * 6))
    layer = model.encoders[0].layers[0]
    for linear, scale in (
        (layer.self_attn_weights.in_proj, 32**-0.25),
        (layer.self_attn_weights.linear_pos, 0.05),
        (layer.self_attn1.out_proj, 0.05),
        (layer.nonlin_attention.out_proj, 0.05),
        (layer.conv_module2.out_proj, 0.05),
        (layer.feed_forward3.out_proj, 0.1),
        (layer.feed_forward3.in_proj, 1.0),
    ):
        bound = scale / math.sqrt(linear.in_features)
        assert linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert layer.self_attn1.out_proj.bias.abs().max() <= 0.005
    assert layer.norm.log_scale == 1.0
    assert (layer.bypass.bypass_scale == 0.5).all()


# training


def test_training_draws_and_evaluation_does_not():
    model, (features, mask) = model_of(), batch()
    with torch.no_grad():
        assert torch.equal(model(features, mask).frame_features, model(features, mask).frame_features)
        model.train()
        torch.manual_seed(4)
        first = model(features, mask).frame_features
        second = model(features, mask).frame_features
        torch.manual_seed(4)
        assert torch.equal(first, model(features, mask).frame_features)
    assert not torch.allclose(first, second)


def test_progress_moves_all_schedules_and_its_absence_is_their_end():
    model = model_of(reference_batches_per_step=2.5)
    dropout = model.encoders[1].layers[0].feed_forward1.dropout
    assert model.clock.value(dropout) == 0.1
    for step, expected in ((0, 0.3), (4000, 0.2), (8000, 0.1), (9000, 0.1)):
        model.set_progress(step, 10_000)
        assert model.clock.value(dropout) == pytest.approx(expected)


def test_skipped_layers_leave_a_clip_as_it_came_in():
    model = model_of().train()
    layer = model.encoders[0].layers[0]
    layer.bypass.skip_rate = 1.0  # always
    states = clips(3, 11, 18)
    positions = relative_positions(11, 10, torch.device("cpu"))
    assert torch.equal(layer(states, positions, None, None), states)


def test_stacks_are_warmed_up_one_after_the_other():
    config = ZipformerConfig()
    first, last = layer_skip_rates(config, 0), layer_skip_rates(config, 5)
    assert [rate.at(0) for rate in (*first, *last)] == [0.5] * 4
    assert first[0].points[0][0] == pytest.approx(4000 / 7)
    assert last[-1].points[-1][0] == pytest.approx(4000)
    assert last[-1].at(None) == pytest.approx(0.035 * math.sqrt(2))


def test_dropped_channels_are_dropped_for_all_frames_of_a_clip_and_nest():
    model = model_of(feature_mask_rate=0.5).train()
    torch.manual_seed(2)
    masks = model._channel_masks(clips(400, 1, 18))
    for mask, unmasked, width in zip(masks, (10, 15, 9), (18, 24, 14), strict=True):
        middle = unmasked + (width - unmasked) // 2
        assert (mask[..., :unmasked] == 1).all()
        lower, upper = mask[:, 0, unmasked:middle], mask[:, 0, middle:]
        assert (lower == lower[:, :1]).all()
        assert (upper == upper[:, :1]).all()
        assert (upper[:, 0] <= lower[:, 0]).all()  # the upper half goes with the lower one, or alone
        assert lower[:, 0].mean() == pytest.approx(0.5, abs=0.08)
        assert upper[:, 0].mean() == pytest.approx(0.25, abs=0.08)
    assert all(torch.equal(mask[:, 0, -1], masks[0][:, 0, -1]) for mask in masks)  # one draw for all stacks


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_repeats_every_draw(use_reentrant):
    model = model_of(activation_regularizers=True).train()
    model.set_progress(10, 1000)
    features, mask = batch()
    gradients = []
    for is_checkpointed in (False, True):
        twin = copy.deepcopy(model)
        if is_checkpointed:
            twin.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        torch.manual_seed(9)
        twin(features, mask).frame_features.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in twin.named_parameters()})
    for name, grad in gradients[0].items():
        torch.testing.assert_close(grad, gradients[1][name], msg=name)


def test_regularizers_change_gradients_and_not_values():
    features, mask = batch()
    switched_off = {"feature_mask_rate": 0.0, "dropout_start": 0.0, "dropout": 0.0, "layer_drop": 0.0}
    plain, pushed = (model_of(activation_regularizers=on, **switched_off).eval() for on in (False, True))
    pushed.load_state_dict(plain.state_dict(), strict=False)
    for module in pushed.modules():
        if type(module).__name__ in ("Balancer", "Whiten"):
            module.train()  # these alone
    outputs = [model(features, mask).frame_features for model in (plain, pushed)]
    assert torch.equal(*outputs)
    grads = []
    for model, output in zip((plain, pushed), outputs, strict=True):
        output.square().sum().backward()
        grads.append(model.encoder_embed.conv1.weight.grad)
    assert not torch.allclose(*grads)


def test_low_precision_is_finite_and_near():
    model, (features, mask) = model_of(), batch()
    with torch.no_grad():
        exact = model(features, mask).frame_features
        half = copy.deepcopy(model).to(torch.bfloat16)(features, mask).frame_features
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() / exact.norm() < 0.05

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The audio encoder against a second implementation, and what its outputs may depend on."""

import pytest
import torch
from slap_reference import reference_tokens
from tiny import tiny_batch, tiny_slap_audio_config, tiny_slap_config

from hf_audiolang import SlapAudioConfig, SlapAudioModel
from hf_audiolang.models import layers_attention

# frames per clip: several patch columns, one column, one frame, equal lengths, shorter than the window
RAGGED = (98, 9, 55, 33, 1, 55)
ONE_CLIP = (71,)
EQUAL = (49, 49, 49)
SHORT = (9, 16, 5)


def make_model(seed=0, **overrides) -> SlapAudioModel:
    """A model whose every weight matters: norms away from 1, the mask token away from 0."""
    torch.manual_seed(seed)
    model = SlapAudioModel(tiny_slap_audio_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_clips(frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clips = [torch.randn(number, 64, generator=generator) for number in frames]
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    return clips, padded, torch.arange(max(frames)) < torch.tensor(frames).unsqueeze(1)


def weights_like(states, seed=5):
    return torch.randn(states.shape, generator=torch.Generator().manual_seed(seed))


def gradients_of(model, states, token_mask, probes):
    """Gradients of a random linear function of the real tokens; `probes` are its weights, (B, N, D)."""
    model.zero_grad()
    (states * probes)[token_mask].sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(got, wanted, rtol=1e-5):
    """Equal within `rtol` of each parameter's largest gradient."""
    assert got.keys() == wanted.keys()
    for name, grad in wanted.items():
        difference = (got[name] - grad).abs().max()
        assert difference <= rtol * grad.abs().max(), f"{name}: {difference} of {grad.abs().max()}"


@pytest.mark.parametrize("frames", [RAGGED, ONE_CLIP, EQUAL, SHORT], ids=["ragged", "one clip", "equal", "short"])
@pytest.mark.parametrize("use_packing", [True, False], ids=["packed", "padded"])
def test_batch_equals_the_reference_clip_by_clip(frames, use_packing):
    model = make_model(use_packing=use_packing)
    clips, padded, mask = make_clips(frames)
    output = model(padded, mask)
    probes = weights_like(output.last_hidden_state)
    got = gradients_of(model, output.last_hidden_state, output.token_mask, probes)

    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    total = 0.0
    for row, clip in enumerate(clips):
        expected = reference_tokens(model.config, weights, clip)[-1]
        torch.testing.assert_close(
            output.last_hidden_state[row, : len(expected)], expected, rtol=1e-5, atol=1e-5
        )  # another order of summation
        total = total + (expected * probes[row, : len(expected)]).sum()
    total.backward()
    wanted = {name: w.grad for name, w in weights.items() if w.grad is not None}
    assert_same_gradients(got, wanted)


def test_packed_equals_padded_equals_one_by_one_with_blocks(monkeypatch):
    monkeypatch.setattr(layers_attention, "BLOCK_TOKENS", 5)
    packed, padded_model = make_model(), make_model(use_packing=False)
    clips, features, mask = make_clips(RAGGED)
    # the two long clips run as blocks, the others as batches
    assert max(RAGGED) / 16 * 4 > 5 + 2 * packed.config.sliding_window
    one, other = packed(features, mask), padded_model(features, mask)
    torch.testing.assert_close(one.last_hidden_state, other.last_hidden_state, rtol=1e-5, atol=1e-5)
    probes = weights_like(one.last_hidden_state)
    got = gradients_of(packed, one.last_hidden_state, one.token_mask, probes)
    wanted = gradients_of(padded_model, other.last_hidden_state, other.token_mask, probes)
    assert_same_gradients(got, wanted)
    with torch.no_grad():
        for row, clip in enumerate(clips):
            alone = packed(clip.unsqueeze(0)).last_hidden_state[0]
            torch.testing.assert_close(one.last_hidden_state[row, : len(alone)], alone, rtol=1e-5, atol=1e-5)


def test_long_clips_run_as_blocks_and_equal_the_padded_form():
    torch.manual_seed(1)
    packed, padded_model = make_model(num_hidden_layers=2), make_model(num_hidden_layers=2, use_packing=False)
    clips, features, mask = make_clips((900, 31, 1203, 640))  # up to 304 tokens, a block has 96
    with torch.no_grad():
        one, other = packed(features, mask), padded_model(features, mask)
        torch.testing.assert_close(one.last_hidden_state, other.last_hidden_state, rtol=1e-5, atol=1e-5)
        alone = packed(clips[2].unsqueeze(0)).last_hidden_state[0]
        torch.testing.assert_close(one.last_hidden_state[2, : len(alone)], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [3, 5])
def test_another_window_gives_another_output(frames):
    """Control of the tests above: half a patch column more or less is seen."""
    _, features, mask = make_clips(RAGGED)
    with torch.no_grad():
        base = make_model()(features, mask).last_hidden_state
        other = make_model(sliding_window_frames=frames)(features, mask).last_hidden_state
    assert (base - other)[0].abs().max() > 1e-3
    torch.testing.assert_close(base[1], other[1])  # one column: shorter than any window


@pytest.mark.parametrize("use_packing", [True, False], ids=["packed", "padded"])
def test_padding_and_other_clips_change_nothing(use_packing):
    model = make_model(use_packing=use_packing)
    clips, features, mask = make_clips(RAGGED)
    clean = features.clone().requires_grad_()
    expected = model(clean, mask)
    row = 2
    num_tokens = int(expected.token_mask[row].sum())
    poisoned = torch.full((len(RAGGED), 131, 64), float("nan"))  # longer padding, NaN in it
    poisoned[row, : RAGGED[row]] = clips[row]
    for other in set(range(len(RAGGED))) - {row}:
        poisoned[other, :7] = float("nan")  # NaN in real frames of the other clips too
    longer = torch.nn.functional.pad(mask, (0, 131 - mask.shape[1]))
    poisoned.requires_grad_()
    got = model(poisoned, longer)
    torch.testing.assert_close(
        got.last_hidden_state[row, :num_tokens], expected.last_hidden_state[row, :num_tokens], rtol=1e-5, atol=1e-5
    )
    assert torch.equal(got.frame_mask[row, : num_tokens // 4], expected.frame_mask[row, : num_tokens // 4])
    torch.testing.assert_close(got.pooler_output[row], expected.pooler_output[row], rtol=1e-5, atol=1e-5)
    # gradient: only the clip's own real frames, the same as before
    probe = weights_like(got.last_hidden_state[row, :num_tokens])
    (got.last_hidden_state[row, :num_tokens] * probe).sum().backward()
    (expected.last_hidden_state[row, :num_tokens] * probe).sum().backward()
    torch.testing.assert_close(poisoned.grad[row, : RAGGED[row]], clean.grad[row, : RAGGED[row]], rtol=1e-4, atol=1e-5)
    assert torch.count_nonzero(poisoned.grad[row, RAGGED[row] :]) == 0
    assert clean.grad[row, : RAGGED[row]].abs().amin(dim=(1,)).max() > 0
    assert torch.count_nonzero(clean.grad[[r for r in range(len(RAGGED)) if r != row]]) == 0


def test_finite_changes_of_other_clips_do_not_cross_blocks(monkeypatch):
    monkeypatch.setattr(layers_attention, "BLOCK_TOKENS", 5)
    model = make_model()
    _, features, mask = make_clips(RAGGED)
    changed = torch.where(torch.arange(len(RAGGED)).view(-1, 1, 1) == 2, features, 1e3 * features + 7)
    with torch.no_grad():
        one, other = model(features, mask).last_hidden_state, model(changed, mask).last_hidden_state
    torch.testing.assert_close(one[2], other[2], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(one[0], other[0], atol=1e-2)


def test_window_reaches_48_tokens_and_no_further():
    """One sliding layer of the paper's window: gradient of one token with respect to the input patches."""
    config = {"num_hidden_layers": 1, "layer_types": ["sliding_attention"], "sliding_window_frames": 24}
    model = make_model(**config)
    assert model.config.sliding_window == 48
    features = torch.randn(1, 16 * 40, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    query = 70
    model(features).last_hidden_state[0, query].sum().backward()
    tiles = features.grad[0].view(40, 16, 4, 16).abs().sum(dim=(1, 3)).flatten()  # (160,) by token
    seen = tiles.nonzero().flatten()
    assert seen.tolist() == list(range(query - 48, query + 49))


def test_full_layer_sees_the_whole_clip():
    model = make_model(num_hidden_layers=1, layer_types=["full_attention"])
    features = torch.randn(1, 16 * 40, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model(features).last_hidden_state[0, 3].sum().backward()
    assert features.grad[0].view(40, 16, 4, 16).abs().sum(dim=(1, 3)).gt(0).all()


def test_shifting_the_time_steps_changes_nothing(monkeypatch):
    """Rotary positions are relative; a shift of the band axis by one is seen only through absolute patches."""
    from hf_audiolang.models import modeling_slap_audio

    model = make_model()
    _, features, mask = make_clips(RAGGED)
    rotary = modeling_slap_audio.rotary_angles_2d
    results = {}
    for name, change in {
        "none": lambda t, f: (t, f),
        "time shift": lambda t, f: (t + 37, f),
        "band shift": lambda t, f: (t, f + 2),
        "time scale": lambda t, f: (2 * t, f),
        "no bands": lambda t, f: (t, 0 * f),
    }.items():
        monkeypatch.setattr(
            modeling_slap_audio,
            "rotary_angles_2d",
            lambda t, f, *rest, change=change: rotary(*change(t, f), *rest),
        )
        with torch.no_grad():
            results[name] = model(features, mask).last_hidden_state
    for name in ("time shift", "band shift"):
        torch.testing.assert_close(results[name], results["none"], rtol=1e-4, atol=2e-5)  # angles of larger numbers
    for name in ("time scale", "no bands"):
        assert (results[name] - results["none"]).abs().max() > 1e-2  # control: positions do matter


def test_hidden_states_are_the_inputs_of_the_layers():
    model = make_model()
    clips, features, mask = make_clips(RAGGED)
    with torch.no_grad():
        output = model(features, mask, output_hidden_states=True)
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1
    weights = {name: p.detach() for name, p in model.named_parameters()}
    for row, clip in enumerate(clips):
        for got, expected in zip(output.hidden_states, reference_tokens(model.config, weights, clip), strict=True):
            torch.testing.assert_close(got[row, : len(expected)], expected, rtol=1e-5, atol=1e-5)
            assert torch.count_nonzero(got[row, len(expected) :]) == 0
    assert model(features, mask).hidden_states is None


@pytest.mark.parametrize("use_packing", [True, False], ids=["packed", "padded"])
def test_attention_weights_stay_in_the_clip_and_the_window(use_packing):
    model = make_model(use_packing=use_packing)
    model.set_attn_implementation("eager")
    _, features, mask = make_clips(RAGGED)
    with torch.no_grad():
        output = model(features, mask, output_attentions=True)
    at = torch.arange(output.token_mask.shape[1])
    near = (at.unsqueeze(0) - at.unsqueeze(1)).abs() <= model.config.sliding_window
    assert not near.all()
    for kind, weights in zip(model.config.layer_types, output.attentions, strict=True):
        real = output.token_mask
        sums = weights.sum(-1).transpose(1, 2)[real]
        torch.testing.assert_close(sums, torch.ones_like(sums))
        pairs = real.unsqueeze(1) & real.unsqueeze(2) & (near if kind == "sliding_attention" else True)
        heads_last = weights.permute(0, 2, 3, 1)
        assert (heads_last[pairs] > 0).all()
        rows = real.unsqueeze(2) & ~pairs  # real queries, keys outside
        assert torch.count_nonzero(heads_last[rows]) == 0
    assert model(features, mask).attentions is None


def test_packed_and_padded_attention_weights_are_equal():
    _, features, mask = make_clips(RAGGED)
    results = []
    for use_packing in (True, False):
        model = make_model(use_packing=use_packing)
        model.set_attn_implementation("eager")
        with torch.no_grad():
            output = model(features, mask, output_attentions=True)
        results.append([w.transpose(1, 2)[output.token_mask] for w in output.attentions])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("use_packing", [True, False], ids=["packed", "padded"])
def test_masked_positions_hide_patches_but_not_places(use_packing):
    model = make_model(use_packing=use_packing)
    clips, features, mask = make_clips(RAGGED)
    num_tokens = model(features, mask).token_mask.shape[1]
    hidden = torch.rand(len(RAGGED), num_tokens, generator=torch.Generator().manual_seed(2)) < 0.5
    weights = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        got = model(features, mask, masked_positions=hidden).last_hidden_state
        for row, clip in enumerate(clips):
            expected = reference_tokens(model.config, weights, clip, hidden[row])[-1]
            torch.testing.assert_close(got[row, : len(expected)], expected, rtol=1e-5, atol=1e-5)
        # what lies under the mask token is not seen, what does not is
        tile = features[0].clone()
        first = int(hidden[0].nonzero()[0])
        step, band = divmod(first, 4)
        tile[16 * step : 16 * step + 16, 16 * band : 16 * band + 16] = 99.0
        changed = torch.cat([tile.unsqueeze(0), features[1:]])
        assert torch.equal(model(changed, mask, masked_positions=hidden).last_hidden_state, got)
        assert not torch.allclose(model(changed, mask).last_hidden_state, model(features, mask).last_hidden_state)


def test_output_fields_are_means_of_the_tokens():
    model = make_model()
    _, features, mask = make_clips(RAGGED)
    with torch.no_grad():
        output = model(features, mask)
    for row, frames in enumerate(RAGGED):
        steps = -(-frames // 16)
        tokens = output.last_hidden_state[row, : 4 * steps]
        assert int(output.token_mask[row].sum()) == 4 * steps
        assert int(output.frame_mask[row].sum()) == steps
        torch.testing.assert_close(output.pooler_output[row], tokens.mean(0))
        for step in range(steps):
            mean = (tokens[4 * step] + tokens[4 * step + 1] + tokens[4 * step + 2] + tokens[4 * step + 3]) / 4
            torch.testing.assert_close(output.frame_features[row, step], mean)
        assert torch.count_nonzero(output.frame_features[row, steps:]) == 0


def test_frequency_embedding_is_added_by_band():
    plain, embedded = make_model(), make_model(use_frequency_embedding=True)
    embedded.load_state_dict(plain.state_dict(), strict=False)
    _, features, mask = make_clips(RAGGED)
    with torch.no_grad():
        one = plain(features, mask, output_hidden_states=True)
        other = embedded(features, mask, output_hidden_states=True)
    added = (other.hidden_states[0] - one.hidden_states[0])[0].view(-1, 4, 24)
    wanted = embedded.embeddings.frequency_embedding.detach().expand_as(added)
    torch.testing.assert_close(added, wanted, rtol=1e-5, atol=1e-5)


def test_initial_weights_follow_the_stated_scales():
    torch.manual_seed(0)
    config = tiny_slap_audio_config(hidden_size=96, num_attention_heads=3, initializer_range=0.02)
    model = SlapAudioModel(config)
    assert torch.count_nonzero(model.embeddings.mask_token) == 0
    for layer in model.layers:
        for linear in (
            layer.attn.q_proj,
            layer.attn.k_proj,
            layer.attn.v_proj,
            layer.mlp.gate_proj,
            layer.mlp.up_proj,
        ):
            assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        for linear in (layer.attn.o_proj, layer.mlp.down_proj):
            assert linear.weight.std().item() == pytest.approx(0.02 / (2 * 3) ** 0.5, rel=0.1)
        assert torch.equal(layer.attn_norm.weight, torch.ones(96))
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


def test_names_of_the_weights_are_those_of_the_specification():
    names = {
        name.replace("layers.2", "layers.0").replace("layers.1", "layers.0") for name in make_model().state_dict()
    }
    attention = {f"layers.0.attn.{part}_proj.weight" for part in "qkvo"}
    mlp = {f"layers.0.mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
    norms = {"layers.0.attn_norm.weight", "layers.0.mlp_norm.weight", "norm.weight"}
    assert names == attention | mlp | norms | {"embeddings.patch_proj.weight", "embeddings.mask_token"}


@pytest.mark.parametrize("use_packing", [True, False], ids=["packed", "padded"])
def test_drop_path_leaves_out_whole_clips_and_keeps_the_mean(use_packing):
    model = make_model(
        use_packing=use_packing,
        drop_path_rate=0.5,
        num_hidden_layers=2,
        layer_types=["full_attention", "full_attention"],
    )
    assert [layer.drop_path_rate for layer in model.layers] == [0.0, 0.5]
    _, features, mask = make_clips(EQUAL)
    with torch.no_grad():
        still = model(features, mask).last_hidden_state
        model.train()
        torch.manual_seed(0)
        draws = [model(features, mask, output_hidden_states=True) for _ in range(12)]
        # before the last norm the second layer adds nothing, or twice its update, clip by clip
        torch.testing.assert_close(draws[0].hidden_states[1], draws[1].hidden_states[1])
        per_clip = torch.stack([d.last_hidden_state for d in draws]).flatten(2)  # (draws, clips, values)
        distinct = [len(torch.unique(per_clip[:, clip].round(decimals=3), dim=0)) for clip in range(len(EQUAL))]
        assert all(2 <= number <= 4 for number in distinct)  # two branches, each in or out
        model.eval()
        torch.testing.assert_close(model(features, mask).last_hidden_state, still)
        skipped = model.norm(draws[0].hidden_states[1])
        found = torch.stack([d.last_hidden_state for d in draws]) - skipped
        is_out = found.abs().amax(dim=(2, 3)) < 1e-5  # (draws, clips)
        assert is_out.any()
        assert (is_out.any(1) & ~is_out.all(1)).any()  # clips are drawn apart


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_and_drop_path_give_the_same_gradient(use_reentrant):
    model = make_model(drop_path_rate=0.4).train()
    _, features, mask = make_clips(RAGGED)

    def run():
        torch.manual_seed(7)
        output = model(features, mask)
        return gradients_of(model, output.last_hidden_state, output.token_mask, weights_like(output.last_hidden_state))

    plain = run()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    assert all(layer.gradient_checkpointing for layer in model.layers)
    assert_same_gradients(run(), plain, rtol=1e-6)


def test_bf16_autocast_is_close_to_float32():
    model = make_model()
    _, features, mask = make_clips(RAGGED)
    with torch.no_grad():
        exact = model(features, mask).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(features, mask).last_hidden_state
    assert rough.dtype == torch.float32  # the residual stream keeps the precision of the weights
    assert (rough - exact).norm() < 0.03 * exact.norm()  # bf16 has 8 bits
    assert not torch.equal(rough, exact)


def test_int_masks_and_no_mask_mean_the_same():
    model = make_model()
    _, features, mask = make_clips(RAGGED)
    with torch.no_grad():
        assert torch.equal(model(features, mask.long()).last_hidden_state, model(features, mask).last_hidden_state)
        whole = torch.ones_like(mask)
        assert torch.equal(model(features).last_hidden_state, model(features, whole).last_hidden_state)


@pytest.mark.parametrize(
    ("features", "mask", "message"),
    [
        ((2, 33, 60), None, "64 mel bins"),
        ((2, 33, 128), None, "64 mel bins"),  # a whole number of patches, but of another front end
        ((33, 64), None, "mel bins"),
        ((2, 33, 64), (2, 31), "Pass the mask that the feature extractor returned"),
        ((2, 33, 64), (3, 33), "Pass the mask that the feature extractor returned"),
    ],
)
def test_wrong_shapes_are_refused(features, mask, message):
    with pytest.raises(ValueError, match=message):
        make_model()(torch.zeros(features), None if mask is None else torch.ones(mask, dtype=torch.bool))


def test_empty_clip_and_misplaced_masked_positions_are_refused():
    model = make_model()
    _, features, mask = make_clips(EQUAL)
    with pytest.raises(ValueError, match=r"no real token in rows \[1\]"):
        model(features, mask & (torch.arange(3) != 1).unsqueeze(1))
    with pytest.raises(ValueError, match="Draw them on the token mask"):
        model(features, mask, masked_positions=torch.zeros(3, 17, dtype=torch.bool))


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_half_precision_kernels_on_cuda_equal_the_float32_reference(attention):
    if attention == "flash_attention_2":
        pytest.importorskip("flash_attn")
    model = make_model(hidden_size=96, num_attention_heads=3, sliding_window_frames=24)
    _, features, mask = make_clips((900, 31, 1203, 640))
    expected = model(features, mask)
    probes = weights_like(expected.last_hidden_state)
    wanted = gradients_of(model, expected.last_hidden_state, expected.token_mask, probes)
    model = model.to("cuda")
    model.set_attn_implementation(attention)
    with torch.autocast("cuda", torch.bfloat16):
        got = model(features.cuda(), mask.cuda())
    difference = (got.last_hidden_state.cpu() - expected.last_hidden_state).norm()
    assert difference < 0.03 * expected.last_hidden_state.norm()  # bf16
    grads = gradients_of(model, got.last_hidden_state, got.token_mask, probes.cuda())
    for name, grad in wanted.items():
        assert (grads[name].cpu() - grad).norm() < 0.08 * grad.norm(), name


def test_tiny_batch_is_ragged():
    """The shared batch keeps what these tests rely on: all lengths differ and one clip is a single patch column."""
    mask = tiny_batch(tiny_slap_audio_config(), seed=0)["input_features_mask"]
    assert len(set(mask.sum(1).tolist())) == len(mask)
    assert int(mask.sum(1).min()) <= 16


def test_padded_form_exports_with_static_shapes():
    model = SlapAudioModel(tiny_slap_audio_config(use_packing=False)).eval()
    batch = tiny_batch(tiny_slap_config(), seed=1)
    inputs = (batch["input_features"], batch["input_features_mask"])
    exported = torch.export.export(model, inputs)
    with torch.no_grad():
        output = exported.module()(*inputs)
        torch.testing.assert_close(output["last_hidden_state"], model(*inputs).last_hidden_state)


def test_attention_that_knows_no_packing_is_refused():
    model = SlapAudioModel(tiny_slap_audio_config()).eval()
    model.config._attn_implementation = "home_made"
    with pytest.raises(ValueError, match=r"'home_made' knows no packed sequences\. Choose 'sdpa'"):
        model(torch.randn(1, 98, 64))


def test_gradients_are_equal_to_the_bit_with_two_threads():
    torch.manual_seed(3)
    embeddings = SlapAudioModel(SlapAudioConfig(num_hidden_layers=1, use_frequency_embedding=True)).embeddings
    patches, position = torch.randn(6000, 256), torch.arange(6000)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = []
        for _ in range(6):
            embeddings.zero_grad()
            embeddings(patches, position, None).square().sum().backward()
            results.append(embeddings.frequency_embedding.grad.clone())
    finally:
        torch.set_num_threads(num_threads)
    assert all(torch.equal(result, results[0]) for result in results)

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The M2D encoder against a second implementation, and what its outputs may depend on."""

import pytest
import torch
from m2d_clap_reference import encoder_grids, frame_features, sincos_table, stir, token_order, weights_of
from tiny import tiny_m2d_clap_audio_config, tiny_m2d_clap_config

from hf_audiolang import M2dClapAudioConfig, M2dClapAudioModel, M2dClapForPreTraining, M2dClapModel
from hf_audiolang.models.layers_position import resize_table_2d, sincos_table_2d

# configuration, and frames per clip: many columns, one, one frame, a full piece, one frame more, two pieces, a rest
FORMS = {
    "16x16": ({}, (98, 9, 1, 112, 113, 224, 250)),
    "9 frames left over": ({"max_frames": 121}, (121, 120, 9, 112, 113, 122, 250)),
    "16x4": ({"patch_frames": 4, "max_frames": 28}, (27, 3, 28, 29, 60)),
    "80x2": ({"patch_mel_bins": 80, "patch_frames": 2, "max_frames": 15}, (15, 1, 14, 16, 36)),
}
SHORT = (98, 9, 55, 33)  # one piece


def make_model(**overrides) -> M2dClapAudioModel:
    """An encoder in which every weight and every table entry matters, in float64."""
    torch.manual_seed(0)
    return stir(M2dClapAudioModel(tiny_m2d_clap_audio_config(**overrides))).double().eval()


def make_clips(frames, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clips = [torch.randn(number, 80, generator=generator, dtype=torch.float64) for number in frames]
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    return clips, padded, torch.arange(max(frames)) < torch.tensor(frames).unsqueeze(1)


def assert_near(got, wanted, tolerance=1e-9):
    """Equal up to the order of float64 sums."""
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


# parity


@pytest.mark.parametrize("form", FORMS)
def test_every_row_of_a_ragged_batch_equals_the_reference(form):
    overrides, frames = FORMS[form]
    model = make_model(**overrides)
    config, weights = model.config, weights_of(model)
    clips, features, mask = make_clips(frames)
    with torch.no_grad():
        output = model(features, mask, output_hidden_states=True)
    assert len(output.hidden_states) == config.num_hidden_layers + 1
    for row, clip in enumerate(clips):
        grids = encoder_grids(config, weights, clip)
        real = output.token_mask[row]
        for state, grid in zip(output.hidden_states, grids, strict=True):
            assert_near(state[row, real], token_order(config, grid))
            assert torch.count_nonzero(state[row, ~real]) == 0
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        frames_of_clip = frame_features(grids[-1])
        assert output.frame_mask[row].tolist() == [i < len(frames_of_clip) for i in range(output.frame_mask.shape[1])]
        assert_near(output.frame_features[row, : len(frames_of_clip)], frames_of_clip)
        assert torch.count_nonzero(output.frame_features[row, len(frames_of_clip) :]) == 0
        assert_near(output.pooler_output[row], frames_of_clip.mean(0))


@pytest.mark.parametrize("form", FORMS)
def test_every_clip_alone_equals_the_reference(form):
    overrides, frames = FORMS[form]
    model = make_model(**overrides)
    weights = weights_of(model)
    for clip in make_clips(frames)[0]:
        with torch.no_grad():
            output = model(clip.unsqueeze(0))
        grid = encoder_grids(model.config, weights, clip)[-1]
        assert output.token_mask.sum() == grid.shape[0] * grid.shape[1]
        assert output.frame_mask.all()
        assert_near(output.last_hidden_state[0, output.token_mask[0]], token_order(model.config, grid))
        assert_near(output.frame_features[0], frame_features(grid))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_of_a_ragged_batch_equal_those_of_the_reference(form):
    overrides, frames = FORMS[form]
    model = make_model(**overrides)
    weights = weights_of(model, trains=True)
    clips, features, mask = make_clips(frames)
    output = model(features.requires_grad_(), mask)
    probe = torch.randn(output.frame_features.shape, generator=torch.Generator().manual_seed(3)).double()
    (output.frame_features * probe).sum().backward()
    total = 0.0
    for row, clip in enumerate(clips):
        wanted = frame_features(encoder_grids(model.config, weights, clip.requires_grad_())[-1])
        total = total + (wanted * probe[row, : len(wanted)]).sum()
    total.backward()
    for name, parameter in model.named_parameters():
        if name.endswith("k_proj.bias"):  # a constant on all scores: no gradient but rounding
            assert parameter.grad.abs().max() < 1e-9
            continue
        assert_near(parameter.grad, weights[name].grad)
    for row, clip in enumerate(clips):
        assert_near(features.grad[row, : len(clip)], clip.grad)
        assert torch.count_nonzero(features.grad[row, len(clip) :]) == 0


@pytest.mark.parametrize("frames", [608, 1001])
def test_columns_of_real_durations(frames):
    """Frame counts of 0.5, 3.3, 10, 15.7 and 30 s against published numbers of columns for both table lengths."""
    model = M2dClapAudioModel(tiny_m2d_clap_audio_config(max_frames=frames, num_hidden_layers=1)).eval()
    columns = {51: (4, 4), 331: (21, 21), 1001: (63, 62), 1571: (99, 98)}
    for number, wanted in columns.items():
        with torch.no_grad():
            output = model(torch.randn(1, number, 80, generator=torch.Generator().manual_seed(0)))
        assert output.frame_features.shape == (1, wanted[frames == 1001], 5 * 24)


@pytest.mark.parametrize(("patch", "max_frames", "wanted"), [((16, 4), 200, 251), ((80, 2), 400, 501)])
def test_columns_of_ten_seconds_with_other_patches(patch, max_frames, wanted):
    numbers = {"patch_mel_bins": patch[0], "patch_frames": patch[1], "max_frames": max_frames, "num_hidden_layers": 1}
    model = M2dClapAudioModel(tiny_m2d_clap_audio_config(**numbers)).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 1001, 80, generator=torch.Generator().manual_seed(0)))
    assert output.frame_features.shape == (1, wanted, 80 // patch[0] * 24)
    assert model.config.frame_feature_size == 80 // patch[0] * 24


def test_float32_is_close_to_float64():
    model = make_model()
    _, features, mask = make_clips(FORMS["16x16"][1])
    with torch.no_grad():
        exact = model(features, mask).last_hidden_state
        rough = model.float()(features.float(), mask).last_hidden_state
    torch.testing.assert_close(rough, exact.float(), rtol=1e-5, atol=2e-5)


def test_bf16_weights_and_autocast_are_close_to_float32():
    model = make_model().float()
    _, features, mask = make_clips(FORMS["16x16"][1])
    with torch.no_grad():
        exact = model(features.float(), mask).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(features.float(), mask).last_hidden_state
        rough = model.bfloat16()(features.bfloat16(), mask).last_hidden_state
    assert mixed.dtype == torch.float32
    assert rough.dtype == torch.bfloat16
    for got in (mixed, rough.float()):
        assert 0 < (got - exact).norm() < 0.03 * exact.norm()  # bf16 has 8 bits


# what outputs may depend on


@pytest.mark.parametrize("form", FORMS)
def test_padding_and_other_clips_change_nothing(form):
    overrides, frames = FORMS[form]
    model = make_model(**overrides)
    clips, features, mask = make_clips(frames)
    longest = 2 * max(frames) + 3
    with torch.no_grad():
        clean = model(features, mask)
        for row, clip in enumerate(clips):
            poisoned = torch.full((len(clips), longest, 80), float("nan"), dtype=torch.float64)
            poisoned[row, : len(clip)] = clip
            got = model(poisoned, torch.nn.functional.pad(mask, (0, longest - mask.shape[1])))
            assert_near(
                got.last_hidden_state[row, got.token_mask[row]], clean.last_hidden_state[row, clean.token_mask[row]]
            )
            assert_near(got.pooler_output[row], clean.pooler_output[row])
        unmasked = model(features).pooler_output
    assert (unmasked - clean.pooler_output).abs().max() > 1e-2  # control: frames of zeros are sound


def test_pieces_do_not_see_each_other():
    model = make_model()
    (clip,), features, _ = make_clips((250,))
    changed = features.clone()
    changed[0, 112:224] = 5.0
    with torch.no_grad():
        one, other = model(features).frame_features[0], model(changed).frame_features[0]
        alone = model(clip[112:224].unsqueeze(0)).frame_features[0]
    assert_near(other[:7], one[:7])
    assert_near(other[14:], one[14:])
    assert_near(one[7:14], alone)  # positions begin anew
    assert (one - other)[7:14].abs().amin(0).max() > 1e-2


def test_frames_beyond_the_last_whole_patch_of_a_piece_are_not_seen():
    model = make_model(max_frames=121)
    _, features, _ = make_clips((250,))
    changed = features.clone()
    changed[0, 112:121] = float("nan")
    changed[0, 233:242] = float("nan")
    with torch.no_grad():
        assert_near(model(changed).frame_features, model(features).frame_features)


def test_frames_of_an_unfinished_patch_are_seen():
    model = make_model()
    _, features, _ = make_clips((99,))
    with torch.no_grad():
        whole, cut = model(features).frame_features, model(features[:, :96]).frame_features
    assert whole.shape[1] == cut.shape[1] + 1


@pytest.mark.parametrize("form", FORMS)
def test_memory_order_of_the_input_changes_nothing(form):
    """A spectrogram kept as (F, T) and turned round is no other spectrogram."""
    overrides, frames = FORMS[form]
    model = make_model(**overrides)
    for number in (*frames, 2 * max(frames)):
        _, features, _ = make_clips((number, number))
        turned = features.transpose(1, 2).contiguous().transpose(1, 2)
        with torch.no_grad():
            assert_near(model(turned).last_hidden_state, model(features).last_hidden_state)


def test_class_token_is_attended_to_but_not_returned():
    model = make_model()
    model.set_attn_implementation("eager")
    _, features, mask = make_clips(SHORT)
    with torch.no_grad():
        base = model(features, mask, output_attentions=True, output_hidden_states=True)
        assert base.last_hidden_state.shape == (4, 35, 24)
        assert {state.shape for state in base.hidden_states} == {(4, 35, 24)}
        for weights in base.attentions:
            to_class = weights[:, :, 1:, 0][base.token_mask.unsqueeze(1).expand(-1, 3, -1)]
            assert (to_class > 0).all()
        for change in (model.embeddings.class_token, model.embeddings.position_embeddings[0]):
            change.mul_(-2)
            assert (model(features, mask).last_hidden_state - base.last_hidden_state).abs().max() > 1e-3
        assert torch.equal(model(features, mask, output_hidden_states=True).hidden_states[0], base.hidden_states[0])


@pytest.mark.parametrize("form", ["16x16", "9 frames left over"])
def test_hidden_tokens_are_left_out(form):
    """Each row equals the encoder run on its visible tokens, and what is hidden may be anything."""
    overrides, frames = FORMS[form]
    model = make_model(**overrides)
    clips, features, mask = make_clips(frames)
    with torch.no_grad():
        whole = model(features, mask)
        hidden = torch.rand(whole.token_mask.shape, generator=torch.Generator().manual_seed(1)) < 0.5
        hidden[:, ::35] = False  # something stays of every piece
        got = model(features, mask, masked_positions=hidden)
        assert torch.equal(got.token_mask, whole.token_mask & ~hidden)
        alone = model(clips[3].unsqueeze(0), masked_positions=hidden[3:4, :35])
        assert_near(got.last_hidden_state[3, got.token_mask[3]], alone.last_hidden_state[0, alone.token_mask[0]])
        poisoned = features.clone()
        for place in (hidden & whole.token_mask)[0, :35].nonzero().flatten().tolist():
            band, column = divmod(place, 7)
            poisoned[0, 16 * column : 16 * column + 16, 16 * band : 16 * band + 16] = float("nan")
        assert poisoned.isnan().any()
        again = model(poisoned, mask, masked_positions=hidden)
        assert_near(again.last_hidden_state, got.last_hidden_state)
        kept = got.token_mask[0]
        assert (got.last_hidden_state[0, kept] - whole.last_hidden_state[0, kept]).abs().max() > 1e-3  # control


def test_refused_inputs():
    model = make_model()
    with pytest.raises(ValueError, match="80 mel bins"):
        model(torch.zeros(2, 33, 64))
    with pytest.raises(ValueError, match=r"`input_features_mask` must be \(2, 33\)"):
        model(torch.zeros(2, 33, 80), torch.ones(2, 31, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"no real token in rows \[1\]"):
        model(torch.zeros(2, 33, 80), torch.arange(2).unsqueeze(1).expand(2, 33) == 0)
    with pytest.raises(ValueError, match=r"`masked_positions` must be \(2, 15\)"):
        model(torch.zeros(2, 33, 80), masked_positions=torch.zeros(2, 14, dtype=torch.bool))


# positions


@pytest.mark.parametrize(("hidden", "bands", "columns"), [(24, 5, 7), (768, 5, 38), (768, 1, 304), (512, 5, 62)])
def test_table_of_sines_equals_its_restatement(hidden, bands, columns):
    wanted = sincos_table(hidden, bands, columns).float()
    assert torch.count_nonzero(wanted[0]) == 0
    got = sincos_table_2d(bands, columns, hidden)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=0, atol=6e-8)  # one step of float32 below 1


def test_new_models_hold_the_table():
    config = tiny_m2d_clap_config()
    model = M2dClapForPreTraining(config)
    encoder, predictor = model.m2d_clap.audio_model, model.predictor
    for module, width in ((encoder.embeddings, 24), (predictor, 20)):
        torch.testing.assert_close(module.position_embeddings, sincos_table(width, 5, 7).float(), rtol=0, atol=6e-8)
    tables = [name for name in model.state_dict() if name.endswith("position_embeddings")]
    assert tables == ["m2d_clap.audio_model.embeddings.position_embeddings", "predictor.position_embeddings"]
    assert not set(tables) & {name for name, _ in model.named_parameters()}


def test_a_changed_table_is_loaded_and_not_computed_anew(tmp_path):
    model = stir(M2dClapForPreTraining(tiny_m2d_clap_config()))
    wanted = model.m2d_clap.audio_model.embeddings.position_embeddings
    assert (wanted - sincos_table(24, 5, 7)).abs().max() > 0.1
    model.save_pretrained(tmp_path / "training")
    model.m2d_clap.save_pretrained(tmp_path / "system")
    model.m2d_clap.audio_model.save_pretrained(tmp_path / "encoder")
    training = M2dClapForPreTraining.from_pretrained(tmp_path / "training")
    assert torch.equal(training.predictor.position_embeddings, model.predictor.position_embeddings)
    assert torch.equal(training.m2d_clap.audio_model.embeddings.position_embeddings, wanted)
    for folder in ("training", "system"):
        loaded = M2dClapModel.from_pretrained(tmp_path / folder)
        assert torch.equal(loaded.audio_model.embeddings.position_embeddings, wanted)
    for folder in ("system", "encoder"):
        loaded = M2dClapAudioModel.from_pretrained(tmp_path / folder)
        assert torch.equal(loaded.embeddings.position_embeddings, wanted)


def cubic(distance: float) -> float:
    """Keys' convolution kernel with a = -0.75."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def stretched(rows: torch.Tensor, number: int) -> torch.Tensor:
    """Rows (T, D) at `number` places, corners not aligned, the edge rows repeated."""
    result = []
    for index in range(number):
        place = (index + 0.5) * len(rows) / number - 0.5
        base = int(place // 1)
        near = range(base - 1, base + 3)
        result.append(sum(cubic(place - at) * rows[min(max(at, 0), len(rows) - 1)] for at in near))
    return torch.stack(result)


@pytest.mark.parametrize("max_frames", [176, 121, 250, 1001])
def test_longer_positions_are_interpolated(max_frames):
    model = make_model()
    old = model.embeddings.position_embeddings.clone()
    model.resize_positions(max_frames)
    new, columns = model.embeddings.position_embeddings, max_frames // 16
    assert model.config.max_frames == max_frames
    assert new.shape == (1 + 5 * columns, 24)
    assert torch.equal(new[0], old[0])
    wanted = torch.stack([stretched(band, columns) for band in old[1:].view(5, 7, 24)])
    torch.testing.assert_close(new[1:].view(5, columns, 24), wanted, rtol=1e-5, atol=1e-5)  # computed in float32
    clips, features, mask = make_clips((max_frames + 50, max_frames, 9))
    with torch.no_grad():
        output = model(features, mask)
    for row, clip in enumerate(clips):
        grid = encoder_grids(model.config, weights_of(model), clip)[-1]
        assert_near(output.last_hidden_state[row, output.token_mask[row]], token_order(model.config, grid))


def test_stretched_table_deviates_from_the_true_one_as_published():
    """Checkpoints of 62 columns were stretched from 38: at most 2.02 off, 0.14 on average."""
    stretched_table = resize_table_2d(sincos_table_2d(5, 38, 768), 5, 62)
    difference = (stretched_table - sincos_table_2d(5, 62, 768))[1:].abs()
    assert difference.max().item() == pytest.approx(2.02, abs=0.005)
    assert difference.mean().item() == pytest.approx(0.14, abs=0.005)


@pytest.mark.parametrize("max_frames", [64, 70, 16])
def test_shorter_positions_are_cut_off(max_frames):
    model = make_model()
    old = model.embeddings.position_embeddings.clone()
    _, features, mask = make_clips((64, 9, 33))
    with torch.no_grad():
        before = model(features, mask).last_hidden_state
    model.resize_positions(max_frames)
    columns = max_frames // 16
    new = model.embeddings.position_embeddings
    assert torch.equal(new[1:].view(5, columns, 24), old[1:].view(5, 7, 24)[:, :columns])
    assert torch.equal(new[0], old[0])
    with torch.no_grad():
        after = model(features, mask).last_hidden_state
    if max_frames >= 64:
        assert_near(after, before)
    else:
        assert (after - before).abs().max() > 1e-3  # three more pieces instead


def test_resized_models_are_saved_and_loaded(tmp_path):
    model = stir(M2dClapForPreTraining(tiny_m2d_clap_config())).eval()
    model.resize_positions(176)
    assert model.predictor.position_embeddings.shape == (1 + 5 * 11, 20)
    model.save_pretrained(tmp_path)
    loaded = M2dClapForPreTraining.from_pretrained(tmp_path).eval()
    assert loaded.config.audio_config.max_frames == loaded.m2d_clap.audio_model.config.max_frames == 176
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_too_short_positions_are_refused():
    model = make_model()
    before = weights_of(model)
    with pytest.raises(ValueError, match="`max_frames` must be at least `patch_frames` = 16, got 15"):
        model.resize_positions(15)
    assert model.config.max_frames == 112
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# initial weights


def test_initial_weights_follow_the_published_code():
    torch.manual_seed(0)
    config = M2dClapAudioConfig(hidden_size=192, num_hidden_layers=2, num_attention_heads=3, intermediate_size=768)
    model = M2dClapAudioModel(config)
    for name, value in model.named_parameters():
        if name.endswith("class_token"):
            assert value.std().item() == pytest.approx(0.02, rel=0.2)
        elif value.ndim == 2:
            bound = (6 / sum(value.shape)) ** 0.5
            assert bound * 0.98 < value.abs().max() <= bound
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        else:
            assert torch.equal(value, torch.full_like(value, float(name.endswith("norm.weight")))), name


def test_names_of_the_weights_are_those_of_the_specification():
    names = {
        name.replace("layers.2", "layers.0").replace("layers.1", "layers.0") for name in make_model().state_dict()
    }
    modules = [f"attn.{part}_proj" for part in "qkvo"] + ["mlp.fc1", "mlp.fc2", "attn_norm", "mlp_norm"]
    wanted = {f"layers.0.{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    wanted |= {"norm.weight", "norm.bias", "embeddings.patch_proj.weight", "embeddings.patch_proj.bias"}
    assert names == wanted | {"embeddings.class_token", "embeddings.position_embeddings"}


def test_base_model_has_the_published_size():
    with torch.device("meta"):
        model = M2dClapAudioModel(M2dClapAudioConfig())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(85.3e6, rel=0.005)
    assert model.config.frame_feature_size == 3840
    assert model.config.frame_rate_hz == 6.25


def test_a_locality_aware_block_passes_on_the_values_of_each_token():
    model = make_model(locality_blocks=1)
    plain = make_model()
    plain.load_state_dict(model.state_dict())
    assert [layer.is_local for layer in model.layers] == [False, False, True]
    features = torch.randn(2, 98, 80, generator=torch.Generator().manual_seed(4))
    layer, states = model.layers[-1], []
    with torch.no_grad():
        tokens, _ = model.encode(features, layer_inputs=states)
        value = layer.attn.v_proj(layer.attn_norm(states[-1]))
        update = states[-1] + layer.attn.o_proj(value)
        wanted = model.norm(update + layer.mlp(layer.mlp_norm(update)))
        torch.testing.assert_close(tokens, wanted)
        assert (plain.encode(features)[0] - tokens).abs().max() > 0.01  # control: attention does something else


def test_queries_and_keys_of_a_locality_aware_block_are_not_trained(tmp_path):
    model = make_model(locality_blocks=1)
    model.save_pretrained(tmp_path)
    for found in (model, M2dClapAudioModel.from_pretrained(tmp_path), model.train()):
        dead = {name for name, value in found.named_parameters() if not value.requires_grad}
        assert dead == {f"layers.2.attn.{part}_proj.{kind}" for part in "qk" for kind in ("weight", "bias")}
    with pytest.raises(Exception, match="`locality_blocks` must lie between 0 and `num_hidden_layers` = 3"):
        tiny_m2d_clap_audio_config(locality_blocks=4)


def test_similarities_of_the_last_block_are_its_attention_without_the_class_token():
    model = make_model()
    features = torch.randn(2, 98, 80, generator=torch.Generator().manual_seed(5))
    states = []
    with torch.no_grad():
        query_key, value_value = model.last_block_similarities(features)
        model.encode(features, layer_inputs=states)
        layer, heads = model.layers[-1], 3
        hidden = layer.attn_norm(states[-1].view(2, 35, 24))  # frequency-major: 5 bands x 7 columns
        parts = [project(hidden) for project in (layer.attn.q_proj, layer.attn.k_proj, layer.attn.v_proj)]
        for found, (left, right) in ((query_key, parts[:2]), (value_value, parts[2:] * 2)):
            for asking in range(7):
                wanted = torch.zeros(2, 7)
                for band in range(5):
                    for head in range(heads):
                        cut = slice(8 * head, 8 * head + 8)
                        one = left[:, band * 7 + asking, cut].unsqueeze(1)
                        share = (one @ right[..., cut].transpose(1, 2) / 8**0.5).softmax(-1)[:, 0]
                        wanted += share.view(2, 5, 7).sum(1) / (5 * heads)
                torch.testing.assert_close(found[:, asking], wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="at most `max_frames` = 112 frames, got 120"):
        model.last_block_similarities(torch.zeros(1, 120, 80))

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Native encoders as audio towers: parity with transformers, masks, fixed length, locality-aware blocks."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import tiny_ast_config, tiny_batch, tiny_slap_config, tiny_whisper_config
from transformers import ASTConfig, ASTModel, AutoModel, WhisperConfig, WhisperModel

from hf_audiolang import NativeAudioConfig, NativeAudioModel, SlapModel

BUILDERS = {"ast": tiny_ast_config, "whisper": tiny_whisper_config}


def make_model(config: NativeAudioConfig) -> NativeAudioModel:
    """In evaluation mode; what starts at zero, as AST's positions do, is drawn, so that it counts."""
    torch.manual_seed(3)
    model = NativeAudioModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def clips(config: NativeAudioConfig, *lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random clips of some lengths in frames, padded with garbage, and their mask."""
    generator = torch.Generator().manual_seed(5)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    features = torch.randn(len(lengths), max(lengths), config.num_mel_bins, generator=generator)
    return features.masked_fill(~mask.unsqueeze(-1), 1e3), mask


# parity with transformers


@pytest.mark.parametrize("padding_value", [0.0, -1.5])
def test_ast_frames_are_those_of_astmodel(padding_value):
    config = tiny_ast_config(padding_value=padding_value)
    model = make_model(config)
    native = ASTModel(config.encoder_config).eval()
    native.load_state_dict(model.encoder.state_dict())
    features, mask = clips(config, 98, 33)
    filled = torch.full((2, 116, 36), padding_value)
    for row, length in enumerate((98, 33)):
        filled[row, :length] = features[row, :length]
    with torch.no_grad():
        output, expected = model(features, mask), native(filled).last_hidden_state
    grid = expected[:, 2:].view(2, 3, 11, 24)  # without class and distillation token: (B, rows, frames, D)
    for row, real in enumerate((10, 4)):  # frames 0, 10, ..., 90 and 0, 10, 20, 30 are real
        torch.testing.assert_close(output.frame_features[row, :real], grid[row].mean(0)[:real], rtol=1e-6, atol=1e-6)
        tokens = output.last_hidden_state[row].view(3, 11, 24)
        torch.testing.assert_close(tokens[:, :real], grid[row, :, :real], rtol=1e-6, atol=1e-6)
        assert not tokens[:, real:].any()
        assert output.frame_mask[row].sum() == real
        pooled = grid[row].mean(0)[:real].mean(0)
        torch.testing.assert_close(output.pooler_output[row], pooled, rtol=1e-5, atol=1e-6)


def test_whisper_frames_are_those_of_whispers_encoder():
    config = tiny_whisper_config()
    model = make_model(config)
    native = WhisperModel(config.encoder_config).eval().get_encoder()
    native.load_state_dict(model.encoder.state_dict())
    features, mask = clips(config, 98, 33)
    filled = torch.zeros(2, 20, 104)
    for row, length in enumerate((98, 33)):
        filled[row, :, :length] = features[row, :length].T
    with torch.no_grad():
        output, expected = model(features, mask), native(filled).last_hidden_state
    for row, real in enumerate((49, 17)):
        torch.testing.assert_close(output.frame_features[row, :real], expected[row, :real], rtol=1e-6, atol=1e-6)
        assert output.frame_mask[row].sum() == real
    assert torch.equal(output.last_hidden_state, output.frame_features)


def test_only_the_encoder_of_whisper_is_there():
    model = make_model(tiny_whisper_config())
    assert not [name for name, _ in model.named_parameters() if "decoder" in name]
    assert type(model.encoder) is type(WhisperModel(model.config.encoder_config).get_encoder())


def test_native_hidden_states_and_attentions_are_passed_through():
    config = tiny_ast_config()
    model = make_model(config)
    features, _ = clips(config, 116)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(features, output_hidden_states=True, output_attentions=True)
        native = model.encoder(features, output_hidden_states=True, output_attentions=True)
    for state, expected in zip(output.hidden_states, native.hidden_states, strict=True):
        assert torch.equal(state, expected[:, 2:])
    for weights, expected in zip(output.attentions, native.attentions, strict=True):
        assert torch.equal(weights, expected)


# fixed length and masks


@pytest.mark.parametrize("name", BUILDERS)
def test_a_clip_does_not_depend_on_its_batch(name):
    config = BUILDERS[name]()
    model = make_model(config)
    features, mask = clips(config, 98, 33, 55)
    with torch.no_grad():
        whole = model(features, mask)
        for row, length in enumerate((98, 33, 55)):
            alone = model(features[row : row + 1, :length])
            for field in ("last_hidden_state", "frame_features", "pooler_output", "frame_mask", "token_mask"):
                torch.testing.assert_close(alone[field][0], whole[field][row], rtol=1e-5, atol=1e-6)
        other = NativeAudioModel(BUILDERS[name](padding_value=0.7)).eval()
        other.load_state_dict(model.state_dict())
        filled = other(features, mask)
    assert not torch.allclose(filled.frame_features[1, :3], whole.frame_features[1, :3])  # what fills it up is heard


@pytest.mark.parametrize("name", BUILDERS)
def test_padding_may_hold_anything(name):
    config = BUILDERS[name]()
    model = make_model(config)
    features, mask = clips(config, 98, 33)
    with torch.no_grad():
        poisoned = model(features.masked_fill(~mask.unsqueeze(-1), float("nan")), mask)
        assert torch.equal(poisoned.frame_features, model(features, mask).frame_features)
        assert not poisoned.frame_features[1, 20:].any()  # zeros at padding
    assert not torch.equal(model(features).frame_features[1], poisoned.frame_features[1])  # control: the mask is used


@pytest.mark.parametrize(
    ("name", "length", "real"),
    [
        *(("ast", length, real) for length, real in ((1, 1), (10, 1), (11, 2), (100, 10), (101, 11), (116, 11))),
        *(("whisper", length, real) for length, real in ((1, 1), (2, 1), (3, 2), (103, 52), (104, 52))),
    ],
)
def test_a_frame_is_real_if_the_first_frame_of_its_patch_is(name, length, real):
    config = BUILDERS[name]()
    model = make_model(config)
    output = model(clips(config, length)[0])
    assert output.frame_mask.shape == (1, config.num_time_patches)
    assert output.frame_mask[0].tolist() == [True] * real + [False] * (config.num_time_patches - real)
    assert torch.equal(output.token_mask, output.frame_mask.repeat(1, config.num_frequency_patches))


@pytest.mark.parametrize("name", BUILDERS)
def test_encode_packs_the_real_tokens(name):
    config = BUILDERS[name]()
    model = make_model(config)
    features, mask = clips(config, 98, 33)
    with torch.no_grad():
        tokens, layout = model.encode(features, mask)
        output = model(features, mask)
    shortest_first = [output.last_hidden_state[row][output.token_mask[row]] for row in (1, 0)]
    assert torch.equal(tokens, torch.cat(shortest_first))
    assert torch.equal(layout.token_mask, output.token_mask)


def test_time_steps_are_columns_of_the_grid():
    config = tiny_ast_config()
    numbers = torch.arange(33).expand(2, -1)  # row f of frame t is token 11 f + t
    steps = make_model(config).time_steps(numbers, 98)
    assert steps.shape == (2, 11, 3)
    assert steps[0, 4].tolist() == [4, 15, 26]


@pytest.mark.parametrize("name", BUILDERS)
def test_gradients_reach_the_input_and_the_first_layer(name):
    config = BUILDERS[name]()
    model = make_model(config).train()
    features, mask = clips(config, 98, 33)
    features.requires_grad_()
    model(features, mask).pooler_output.square().sum().backward()
    assert features.grad[0].abs().sum() > 0
    assert not features.grad[1, 33:].any()
    first = [value for name, value in model.encoder.layers[0].named_parameters() if name.endswith("v_proj.weight")]
    assert len(first) == 1
    assert first[0].grad.abs().sum() > 0


# configuration and refusals


def test_sizes_of_the_defaults_are_those_of_the_published_models():
    ast = NativeAudioConfig()
    assert (ast.encoder_config.model_type, ast.num_mel_bins, ast.max_frames) == (ASTConfig.model_type, 128, 1024)
    assert (ast.num_frequency_patches, ast.num_time_patches, ast.frame_rate_hz) == (12, 101, 10.0)
    assert (ast.hidden_size, ast.num_hidden_layers, ast.num_attention_heads, ast.frame_feature_size) == (
        768,
        12,
        12,
        768,
    )
    whisper = NativeAudioConfig(encoder_config=WhisperConfig(d_model=512, encoder_layers=6, encoder_attention_heads=8))
    assert (whisper.num_mel_bins, whisper.max_frames, whisper.num_frequency_patches) == (80, 3000, 1)
    assert (whisper.num_time_patches, whisper.frame_rate_hz) == (1500, 50.0)
    assert (whisper.hidden_size, whisper.num_hidden_layers, whisper.num_attention_heads) == (512, 6, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder_config": {"model_type": "bert"}}, "Choose one of .'audio-spectrogram-transformer', 'whisper'"),
        (
            {"encoder_config": {"model_type": "whisper"}, "locality_blocks": 1},
            "between 0 and 0.*Only the blocks of AST",
        ),
        ({"locality_blocks": 13}, "between 0 and 12"),
        ({"locality_blocks": -1}, "between 0 and 12"),
        ({"locality_mlp": "none"}, "locality_mlp"),
    ],
)
def test_config_refuses_what_no_encoder_has(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        NativeAudioConfig(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, m: {"input_features": x[:, :, :-1]}, "36 mel bins"),
        (lambda x, m: {"input_features": x[:, :0]}, "with a frame"),
        (lambda x, m: {"input_features": torch.cat([x, x], dim=1)}, "reads 116, 1.16 seconds. Cut the clips"),
        (lambda x, m: {"input_features": x, "input_features_mask": m[:, 1:]}, "Pass the mask"),
        (lambda x, m: {"input_features": x, "masked_positions": torch.ones(1, 33)}, "cannot hide tokens"),
    ],
)
def test_forward_refuses_what_does_not_fit(change, message):
    config = tiny_ast_config()
    features, mask = clips(config, 116)
    with pytest.raises(ValueError, match=message):
        make_model(config)(**change(features, mask))


def test_one_frame_too_many_is_refused():
    config = tiny_whisper_config()
    model = make_model(config)
    model(clips(config, 104)[0])
    with pytest.raises(ValueError, match="reads 104"):
        model(clips(config, 105)[0])


# SpecAugment


def native_input_of(
    model: NativeAudioModel, features: torch.Tensor, mask: torch.Tensor, seed: int = 2
) -> torch.Tensor:
    """What the native encoder is given for a batch."""
    given = []
    hook = model.encoder.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    torch.manual_seed(seed)
    model(features, mask)
    hook.remove()
    return given[0]


def test_spec_augment_hides_stripes_of_real_frames_in_training_only():
    stripes = {"spec_augment_time_stripes": 2, "spec_augment_time_share": 0.5, "spec_augment_mel_stripes": 2}
    config = tiny_ast_config(**stripes, padding_value=-1.5)
    model = make_model(config)
    features, mask = clips(config, 98, 33)
    plain = native_input_of(model, features, mask)
    assert not (plain == 0).any()
    augmented = native_input_of(model.train(), features, mask)
    changed = augmented != plain
    assert changed[:, :33].any(2).any(1).all()
    assert not augmented[changed].any()  # stripes are 0
    assert (augmented[1, 33:] == -1.5).all()
    off = make_model(tiny_ast_config(padding_value=-1.5)).train()
    assert torch.equal(native_input_of(off, features, mask), plain)


def test_stripes_are_a_share_of_each_clips_own_length():
    stripe = {"spec_augment_time_stripes": 1, "spec_augment_time_share": 0.05}
    model = make_model(tiny_ast_config(**stripe, padding_value=-1.5)).train()
    features, mask = clips(model.config, 98, 33)
    hidden = [(native_input_of(model, features, mask, seed) == 0).all(2).sum(1) for seed in range(20)]  # frames
    longest = torch.stack(hidden).amax(0)
    assert 2 <= longest[0] <= 4  # below 0.05 x 98
    assert longest[1] == 1  # below 0.05 x 33


# locality-aware blocks


def run_by_hand(model: NativeAudioModel, features: torch.Tensor, locality_blocks: int, skips_mlp: bool):
    """Last hidden state with AST's leading tokens: the last blocks as they stand in MGA-CLAP 3.3."""
    encoder = model.encoder
    hidden = encoder.embeddings(features)
    for layer in encoder.layers[: len(encoder.layers) - locality_blocks]:
        plain = type(make_model(tiny_ast_config()).encoder.layers[0])(model.config.encoder_config).eval()
        plain.load_state_dict(layer.state_dict())
        hidden = plain(hidden)
    for layer in encoder.layers[len(encoder.layers) - locality_blocks :]:
        attention = layer.attention
        norm = torch.nn.functional.layer_norm
        normed = norm(hidden, (24,), layer.layernorm_before.weight, layer.layernorm_before.bias, 1e-12)
        values = normed @ attention.v_proj.weight.T + attention.v_proj.bias
        hidden = hidden + values @ attention.o_proj.weight.T + attention.o_proj.bias
        update = norm(hidden, (24,), layer.layernorm_after.weight, layer.layernorm_after.bias, 1e-12)
        if not skips_mlp:
            inner = torch.nn.functional.gelu(update @ layer.mlp.fc1.weight.T + layer.mlp.fc1.bias)
            update = inner @ layer.mlp.fc2.weight.T + layer.mlp.fc2.bias
        hidden = hidden + update
    return encoder.layernorm(hidden)


@pytest.mark.parametrize("locality_mlp", ["mlp", "skip"])
@pytest.mark.parametrize("locality_blocks", [1, 2])
def test_locality_aware_blocks_pass_on_their_values(locality_blocks, locality_mlp):
    config = tiny_ast_config(locality_blocks=locality_blocks, locality_mlp=locality_mlp)
    model = make_model(config)
    features, _ = clips(config, 116, 116)
    with torch.no_grad():
        output = model(features)
        expected = run_by_hand(model, features, locality_blocks, locality_mlp == "skip")
        other = run_by_hand(model, features, locality_blocks, locality_mlp != "skip")
    torch.testing.assert_close(output.last_hidden_state, expected[:, 2:], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(output.last_hidden_state, other[:, 2:], atol=1e-2)


@pytest.mark.parametrize("locality_mlp", ["mlp", "skip"])
def test_unused_weights_are_frozen_and_stay_in_the_state_dict(locality_mlp, tmp_path):
    plain = make_model(tiny_ast_config())
    model = make_model(tiny_ast_config(locality_blocks=1, locality_mlp=locality_mlp))
    assert list(model.state_dict()) == list(plain.state_dict())  # weights of plain blocks load
    unused = {
        f"encoder.layers.2.attention.{part}.{kind}" for part in ("q_proj", "k_proj") for kind in ("weight", "bias")
    }
    if locality_mlp == "skip":
        unused |= {f"encoder.layers.2.mlp.{part}.{kind}" for part in ("fc1", "fc2") for kind in ("weight", "bias")}
    model.save_pretrained(tmp_path)
    loaded = NativeAudioModel.from_pretrained(tmp_path)
    copied = copy.deepcopy(loaded).train()
    for given in (model, loaded, copied):
        assert {name for name, value in given.named_parameters() if not value.requires_grad} == unused
    copied(clips(model.config, 116)[0]).pooler_output.square().sum().backward()
    without = {name for name, value in copied.named_parameters() if value.grad is None}
    assert without == unused


def test_unused_weights_are_frozen_inside_a_loaded_system(tmp_path):
    config = tiny_slap_config(audio_config=tiny_ast_config(locality_blocks=1), masked_weight=0.0)
    SlapModel(config).save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    frozen = {name for name, value in loaded.named_parameters() if not value.requires_grad}
    part = "audio_model.encoder.layers.2.attention."
    assert frozen == {part + name for name in ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")}


def test_whispers_sine_table_is_never_trained(tmp_path):
    model = make_model(tiny_whisper_config())
    model.save_pretrained(tmp_path)
    for given in (model, model.train(), NativeAudioModel.from_pretrained(tmp_path)):
        frozen = [name for name, value in given.named_parameters() if not value.requires_grad]
        assert frozen == ["encoder.embed_positions.weight"]


# similarities of the last block


@pytest.mark.parametrize(("length", "steps"), [(116, 11), (33, 4)])
def test_similarities_are_softmax_maps_between_frames(length, steps):
    config = tiny_ast_config()
    model = make_model(config)
    features, _ = clips(config, length, length)
    with torch.no_grad():
        found = model.last_block_similarities(features)
        filled = torch.nn.functional.pad(features, (0, 0, 0, 116 - length))
        states = model.encoder(filled, output_hidden_states=True).hidden_states[2]
    layer = model.encoder.layers[2]
    normed = layer.layernorm_before(states)[:, 2:].view(2, 3, 11, 24)[:, :, :steps]  # (B, rows, frames, D)
    query, key, value = (getattr(layer.attention, name)(normed) for name in ("q_proj", "k_proj", "v_proj"))
    for result, left, right in zip(found, (query, value), (key, value), strict=True):
        expected = torch.zeros(2, steps, steps)
        for head in range(3):
            part = slice(8 * head, 8 * head + 8)
            for row in range(3):
                for step in range(steps):
                    scores = torch.einsum("bd,bftd->bft", left[:, row, step, part], right[..., part]) / 8**0.5
                    weights = scores.flatten(1).softmax(1).view(2, 3, steps)
                    expected[:, step] += weights.sum(1) / 9
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(result.sum(2), torch.ones(2, steps))


def test_similarities_are_those_of_ast_only():
    config = tiny_whisper_config()
    with pytest.raises(ValueError, match="Choose an AST"):
        make_model(config).last_block_similarities(clips(config, 104)[0])


# weights


@pytest.mark.parametrize("name", BUILDERS)
def test_native_weights_come_in_as_they_are(name):
    config = BUILDERS[name]()
    torch.manual_seed(8)
    native = {"ast": ASTModel, "whisper": WhisperModel}[name](config.encoder_config).eval()
    model = NativeAudioModel.from_native(native, padding_value=-0.5)
    expected = (native if name == "ast" else native.encoder).state_dict()
    assert list(model.encoder.state_dict()) == list(expected)
    for tensor, value in expected.items():
        assert torch.equal(model.encoder.state_dict()[tensor], value), tensor
    assert model.config.padding_value == -0.5
    assert not model.training


@pytest.mark.parametrize("name", BUILDERS)
def test_tower_loads_from_a_system_and_refuses_a_checkpoint_without_it(name, tmp_path):
    config = tiny_slap_config(audio_config=BUILDERS[name](), masked_weight=0.0)
    torch.manual_seed(4)
    system = SlapModel(config).eval()
    system.save_pretrained(tmp_path / "system")
    tower, info = NativeAudioModel.from_pretrained(tmp_path / "system", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = tiny_batch(config.audio_config, seed=1)
    with torch.no_grad():
        expected = system.audio_model(**batch).last_hidden_state
        torch.testing.assert_close(tower.eval()(**batch).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
    system.text_model.save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="they would be random"):
        NativeAudioModel.from_pretrained(tmp_path / "text", config=config.audio_config)

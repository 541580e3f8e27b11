# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The registry of audio encoders, and every system on towers that are not its own."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import (
    tiny_ast_config,
    tiny_batch,
    tiny_htsat_config,
    tiny_m2d_clap_audio_config,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_slap_audio_config,
    tiny_slap_config,
    tiny_whisper_config,
    tiny_zipformer_config,
)
from transformers import ASTConfig, AutoConfig, AutoModel, AutoModelForPreTraining, BertConfig, WhisperConfig

from hf_audiolang import M2dClapAudioConfig, NativeAudioConfig, SlapAudioConfig, SlapConfig
from hf_audiolang.models.configuration_audio_encoders import AUDIO_CONFIGS, resolve_audio_config
from hf_audiolang.models.layers_packing import PackedLayout
from hf_audiolang.models.modeling_audio_encoders import AUDIO_MODELS, build_audio_encoder
from hf_audiolang.training.objectives import has_unused_parameters

TOWERS = {
    "ast": lambda: tiny_ast_config(locality_blocks=1),
    "whisper": tiny_whisper_config,
    "htsat": tiny_htsat_config,
    "m2d": tiny_m2d_clap_audio_config,
    "slap": tiny_slap_audio_config,
    "zipformer": tiny_zipformer_config,
}
SLAP_TOWERS = [name for name in TOWERS if name != "slap"]
M2D_TOWERS = [name for name in TOWERS if name != "m2d"]
POOLING_SYSTEMS = [("slap", tower) for tower in SLAP_TOWERS] + [("m2d", tower) for tower in M2D_TOWERS]
SYSTEMS = POOLING_SYSTEMS + [("mga", tower) for tower in TOWERS if tower != "htsat"]
TERMS = {"slap": {"contrastive", "caption"}, "m2d": {"contrastive"}}


def make_config(system: str, tower: str):
    """SLAP with contrastive and caption loss, M2D-CLAP with the contrastive loss, or MGA-CLAP, on another tower."""
    audio_config = TOWERS[tower]()
    if system == "m2d":
        return tiny_m2d_clap_config(audio_config=audio_config, masked_weight=0.0, masking_ratio=0.0)
    if system == "mga":
        return tiny_mga_clap_config(audio_config=audio_config)
    decoder_config = {"encoder_hidden_size": audio_config.hidden_size}
    return tiny_slap_config(audio_config=audio_config, decoder_config=decoder_config, masked_weight=0.0)


def make_model(system: str, tower: str):
    torch.manual_seed(6)
    return AutoModelForPreTraining.from_config(make_config(system, tower)).eval()


def audio_of(batch: dict) -> dict:
    return {name: batch[name] for name in ("input_features", "input_features_mask")}


# the registry


def test_both_tables_name_the_same_encoders():
    assert set(AUDIO_CONFIGS) == set(AUDIO_MODELS)
    for name, config_class in AUDIO_CONFIGS.items():
        assert config_class.model_type == name
        assert AUDIO_MODELS[name].config_class is config_class


@pytest.mark.parametrize("name", TOWERS)
def test_every_encoder_is_built_from_what_a_file_says(name):
    config = TOWERS[name]()
    written = json.loads(config.to_json_string())
    resolved = resolve_audio_config(written, SlapAudioConfig)
    assert type(resolved) is type(config)
    assert resolved.to_dict() == config.to_dict()
    assert resolve_audio_config(config, SlapAudioConfig) is config
    assert type(build_audio_encoder(resolved)) is AUDIO_MODELS[config.model_type]


def test_without_a_model_type_the_default_encoder_is_meant():
    assert type(resolve_audio_config(None, M2dClapAudioConfig)) is M2dClapAudioConfig
    resolved = resolve_audio_config({"hidden_size": 48, "num_attention_heads": 4}, M2dClapAudioConfig)
    assert type(resolved) is M2dClapAudioConfig
    assert resolved.hidden_size == 48
    assert type(SlapConfig().audio_config) is SlapAudioConfig


@pytest.mark.parametrize("native", [ASTConfig(hidden_size=36, num_hidden_layers=2), WhisperConfig(d_model=36)])
def test_native_configs_are_wrapped(native):
    for given in (native, native.to_dict()):
        resolved = resolve_audio_config(given, SlapAudioConfig)
        assert type(resolved) is NativeAudioConfig
        assert type(resolved.encoder_config) is type(native)
        assert resolved.hidden_size == 36


@pytest.mark.parametrize("value", [{"model_type": "htsatt"}, {"model_type": "bert"}, BertConfig()])
def test_unknown_encoders_are_refused_with_the_known_ones(value):
    with pytest.raises(ValueError, match=r"'slap_audio_model', 'zipformer'\], or a native.*'whisper'"):
        resolve_audio_config(value, SlapAudioConfig)
    with pytest.raises(ValueError, match="There is no audio encoder"):
        build_audio_encoder(BertConfig())


# systems on other towers


@pytest.mark.parametrize(("system", "tower"), SYSTEMS)
def test_loss_reaches_the_tower(system, tower):
    model = make_model(system, tower).train()
    output = model(**tiny_batch(model.config, seed=1), return_loss=True)
    if system in TERMS:
        assert set(output.loss_terms) == TERMS[system]
    output.loss.backward()
    encoder = model.base_model.audio_model
    unused = {"embeddings.mask_token"} if tower == "slap" else set()  # only masked passes use it
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == (parameter.requires_grad and name not in unused), name
    assert has_unused_parameters(model) or not unused  # or several processes would wait for its gradient
    assert next(encoder.get_input_embeddings().parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize("term", ["contrastive", "caption"])
def test_each_loss_alone_reaches_a_native_tower(term):
    model = make_model("slap", "ast")
    model(**tiny_batch(model.config, seed=1)).loss_terms[term].backward()
    assert model.slap.audio_model.get_input_embeddings().projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("system", "tower"), SYSTEMS)
def test_saved_systems_load_with_their_tower(system, tower, tmp_path):
    model = make_model(system, tower)
    batch = tiny_batch(model.config, seed=1)
    model.save_pretrained(tmp_path / "training")
    model.base_model.save_pretrained(tmp_path / "system")
    assert AutoConfig.from_pretrained(tmp_path / "system").to_dict()["audio_config"]["model_type"] == (
        model.config.audio_config.model_type
    )
    with torch.no_grad():
        expected = model.base_model.get_audio_features(**audio_of(batch)).pooler_output
    for folder in ("training", "system"):
        loaded = AutoModel.from_pretrained(tmp_path / folder).eval()
        assert type(loaded.audio_model) is AUDIO_MODELS[model.config.audio_config.model_type]
        for (name, a), (_, b) in zip(model.base_model.state_dict().items(), loaded.state_dict().items(), strict=True):
            assert torch.equal(a, b), name
        with torch.no_grad():
            found = loaded.get_audio_features(**audio_of(batch)).pooler_output
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    again = AutoModelForPreTraining.from_pretrained(tmp_path / "training").eval()
    with torch.no_grad():
        found, expected = (each(**batch, return_loss=True).loss for each in (again, model))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("system", "tower"), POOLING_SYSTEMS)
def test_a_frame_is_its_own_tokens_embedded_as_a_clip(system, tower):
    model = make_model(system, tower).base_model
    batch = audio_of(tiny_batch(model.config, seed=1))
    with torch.no_grad():
        output = model.audio_model(**batch)
        frames = model.get_audio_frame_features(**batch)
        assert torch.equal(frames.frame_mask, output.frame_mask)
        steps = output.last_hidden_state.shape[1] // frames.frame_mask.shape[1]
        for row, frame in ((0, 1), (2, 0), (3, int(output.frame_mask[3].sum()) - 1)):
            is_slap = tower == "slap"  # the one encoder whose tokens are ordered by time
            tokens = output.last_hidden_state[row].unflatten(0, (-1, steps) if is_slap else (steps, -1))
            own = (tokens[frame] if is_slap else tokens[:, frame]).unsqueeze(0)
            layout = PackedLayout.from_mask(torch.ones(own.shape[:2], dtype=torch.bool))
            expected = model.embed_clips(own[0], layout)[0]
            torch.testing.assert_close(frames.frame_features[row, frame], expected, rtol=1e-5, atol=1e-6)
    is_real = frames.frame_mask.unsqueeze(-1)
    assert not frames.frame_features.masked_fill(is_real, 0).any()
    assert frames.frame_features[0, 0].norm().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("system", "tower"), [pair for pair in POOLING_SYSTEMS if pair[1] != "htsat"])
def test_clip_embeddings_do_not_depend_on_the_batch(system, tower):
    model = make_model(system, tower).base_model
    batch = audio_of(tiny_batch(model.config, seed=1))
    with torch.no_grad():
        whole = model.get_audio_features(**batch).pooler_output
        for row, frames in enumerate(batch["input_features_mask"].sum(1).tolist()):
            alone = model.get_audio_features(batch["input_features"][row : row + 1, :frames]).pooler_output
            torch.testing.assert_close(alone[0], whole[row], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole[0], whole[2], atol=1e-4)  # control: clips differ


def test_projector_attention_lies_on_the_grid_of_the_tower():
    model = make_model("m2d", "ast").m2d_clap
    batch = audio_of(tiny_batch(model.config, seed=1))
    with torch.no_grad():
        weights = model.get_projector_attention(**batch)
    assert weights.shape == (4, 3, 11)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(4))
    assert (weights > 0).any(1).sum(1).tolist() == [10, 1, 6, 4]


# refusals


@pytest.mark.parametrize("tower", SLAP_TOWERS)
def test_slap_refuses_a_masked_loss_without_mask_tokens(tower):
    with pytest.raises((ValueError, StrictDataclassError), match=r"`masked_weight` 0\.5\. Set it to 0"):
        tiny_slap_config(audio_config=TOWERS[tower](), masked_weight=0.5)


@pytest.mark.parametrize("numbers", [{"masked_weight": 0.5}, {"masking_ratio": 0.3, "masked_weight": 0.0}])
@pytest.mark.parametrize("tower", M2D_TOWERS)
def test_m2d_clap_refuses_to_hide_patches_of_other_encoders(tower, numbers):
    with pytest.raises((ValueError, StrictDataclassError), match=r"`masking_ratio` 0\.[37]\. Set both to 0"):
        tiny_m2d_clap_config(audio_config=TOWERS[tower](), **numbers)


def test_masked_positions_are_refused_by_towers_that_cannot_hide():
    for tower in ("ast", "whisper", "htsat"):
        model = make_model("m2d", tower)
        batch = tiny_batch(model.config, seed=1)
        with pytest.raises(ValueError, match="cannot hide tokens"):
            model(**batch, masked_positions=torch.zeros(4, 33, dtype=torch.bool))

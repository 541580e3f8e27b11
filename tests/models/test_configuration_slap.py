# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SLAP's numbers: those of the paper by default, refused when they cannot work."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import tiny_slap_audio_config, tiny_slap_config, tiny_text_config
from transformers import AutoConfig, ModernBertConfig, ModernBertModel

from hf_audiolang import CaptionDecoder, CaptionDecoderConfig, SlapAudioConfig, SlapAudioModel, SlapConfig


def test_audio_numbers_are_those_of_the_paper():
    config = SlapAudioConfig()
    assert (config.num_hidden_layers, config.num_attention_heads) == (12, 12)
    assert (config.hidden_size, config.intermediate_size) == (768, 3072)
    assert (config.num_mel_bins, config.patch_frames, config.patch_mel_bins) == (64, 16, 16)
    full = [layer for layer, kind in enumerate(config.layer_types) if kind == "full_attention"]
    assert full == [2, 5, 8, 11]
    assert config.layer_types.count("sliding_attention") == 8
    assert config.sliding_window == 48  # 24 patch columns of 4 tokens, half to each side
    assert config.frame_rate_hz == 6.25
    assert config.num_frequency_patches == 4


def test_system_numbers_are_those_of_the_paper():
    config = SlapConfig()
    assert (config.contrastive_weight, config.masked_weight, config.caption_weight) == (1.0, 1.0, 0.5)
    assert config.masking_ratio == 0.5
    assert config.embedding_size == 768
    assert config.text_config.model_type == "modernbert"
    assert (config.text_config.num_hidden_layers, config.text_config.hidden_size) == (22, 768)
    decoder = config.decoder_config
    assert (decoder.num_hidden_layers, decoder.num_attention_heads, decoder.hidden_size) == (8, 8, 512)
    special = (decoder.bos_token_id, decoder.eos_token_id, decoder.pad_token_id)
    text = config.text_config
    assert special == (text.cls_token_id, text.sep_token_id, text.pad_token_id)
    assert decoder.vocab_size == text.vocab_size


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (lambda: SlapAudioModel(SlapAudioConfig()), 113.46),
        (lambda: ModernBertModel(ModernBertConfig()), 149.01),
        (lambda: CaptionDecoder(CaptionDecoderConfig()), 44.1 + 25.8),
    ],
    ids=["audio encoder", "text encoder", "caption decoder"],
)
def test_base_size_has_the_expected_parameters(build, millions):
    with torch.device("meta"):
        number = sum(p.numel() for p in build().parameters())
    assert number / 1e6 == pytest.approx(millions, abs=0.06)


def test_layer_types_follow_the_number_of_layers_unless_given():
    sliding, full = "sliding_attention", "full_attention"
    assert tiny_slap_audio_config(num_hidden_layers=4).layer_types == [sliding, sliding, full, sliding]
    given = tiny_slap_audio_config(num_hidden_layers=2, layer_types=[full, sliding])
    assert SlapAudioConfig.from_dict(given.to_dict()).layer_types == [full, sliding]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"num_attention_heads": 4}, "multiple of 4 for 2-D rotary positions, got 24 / 4"),
        ({"num_mel_bins": 60}, "`num_mel_bins` must be a multiple of `patch_mel_bins`, got 60 and 16"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["full_attention", "local", "full_attention"]}, "layer_types"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
    ],
)
def test_audio_numbers_that_cannot_work_are_refused(numbers, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        tiny_slap_audio_config(**numbers)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"projection_dim": None}, "`projection_dim` is needed.*audio 24 and text 16.*for instance to 16"),
        ({"masking_ratio": 1.5}, "`masking_ratio` must lie between 0 and 1, got 1.5"),
        ({"teacher_temperature_warmup": -0.1}, "`teacher_temperature_warmup` must lie"),
        ({"contrastive_loss": "triplet"}, "contrastive_loss"),
        ({"mask_style": "stripes"}, "mask_style"),
        ({"target_centering": "mean"}, "target_centering"),
        ({"target_centering": "sinkhorn", "masked_loss_chunk_size": 7}, "got `masked_loss_chunk_size` 7. Set it to 0"),
    ],
)
def test_system_numbers_that_cannot_work_are_refused(numbers, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        tiny_slap_config(**numbers)


def test_sections_may_be_dicts_configs_or_missing(tmp_path):
    section = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    text = {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}
    config = SlapConfig(audio_config=section, text_config=text)
    assert type(config.audio_config) is SlapAudioConfig
    assert config.audio_config.intermediate_size == 3072  # the rest is default
    assert config.text_config.model_type == "bert"
    assert type(config.decoder_config) is CaptionDecoderConfig
    assert config.embedding_size == 32
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is SlapConfig
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert SlapConfig(text_config=tiny_text_config(), projection_dim=8).text_config.hidden_size == 16


def test_frame_rate_and_window_follow_the_patches():
    config = tiny_slap_audio_config(num_mel_bins=80, patch_frames=4, feature_frame_rate_hz=50, sliding_window_frames=6)
    assert config.frame_rate_hz == 12.5
    assert config.num_frequency_patches == 5
    assert config.sliding_window == 15

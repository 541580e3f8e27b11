# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""A run's native audio tower, or a Zipformer, starts from the weights of another one."""

import pytest
import torch
from tiny import tiny_ast_config, tiny_slap_config, tiny_zipformer_config

from hf_audiolang import NativeAudioModel, SlapForPreTraining, ZipformerModel
from hf_audiolang.training.config import ModelArguments
from hf_audiolang.training.start import load_start_weights


def start(folder, **encoder) -> SlapForPreTraining:
    torch.manual_seed(4)
    config = tiny_slap_config(audio_config=tiny_ast_config(encoder, locality_blocks=1), masked_weight=0.0)
    model = SlapForPreTraining(config)
    load_start_weights(model, ModelArguments(audio_model=str(folder)))
    return model


@pytest.fixture
def tower(tmp_path):
    """A trained plain AST and the folder where it lies."""
    torch.manual_seed(9)
    model = NativeAudioModel(tiny_ast_config())
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_audio_model_copies_a_plain_tower_into_a_locality_aware_one(tower):
    source, folder = tower
    found = start(folder).slap.audio_model
    for name, value in source.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_a_native_tower_of_another_length_is_refused(tower):
    _, folder = tower
    with pytest.raises(ValueError, match=r"does not fit the audio tower.*'encoder.embeddings.position_embeddings'"):
        start(folder, max_length=106)


def test_a_native_tower_of_other_heads_is_refused(tower):
    _, folder = tower
    with pytest.raises(ValueError, match="trained with `num_attention_heads` 3, but this run's model has 2"):
        start(folder, num_attention_heads=2)


@pytest.mark.parametrize(("was_regularized", "is_regularized"), [(False, True), (True, False), (True, True)])
def test_a_zipformer_starts_from_one_trained_with_or_without_regularizers(tmp_path, was_regularized, is_regularized):
    torch.manual_seed(9)
    source = ZipformerModel(tiny_zipformer_config(activation_regularizers=was_regularized))
    source.save_pretrained(tmp_path)
    config = tiny_slap_config(
        audio_config=tiny_zipformer_config(activation_regularizers=is_regularized),
        masked_weight=0.0,
        caption_weight=0.0,
    )
    model = SlapForPreTraining(config)
    load_start_weights(model, ModelArguments(audio_model=str(tmp_path)))
    found = model.slap.audio_model
    assert all(torch.equal(value, dict(found.named_parameters())[name]) for name, value in source.named_parameters())

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The shared model tests on the wrapped native encoders."""

import torch
from common import CommonModelTests
from tiny import tiny_ast_config, tiny_batch, tiny_slap_config, tiny_whisper_config
from transformers import AutoModel

from hf_audiolang import NativeAudioModel


class TestAst(CommonModelTests):
    model_class = NativeAudioModel
    auto_class = AutoModel
    main_output = "last_hidden_state"

    def make_config(self):
        return tiny_ast_config()

    def make_inputs(self, config):
        return tiny_batch(config, seed=1)

    def test_config_section_of_a_system_configures_the_tower(self, tmp_path):
        tiny_slap_config(audio_config=self.make_config(), masked_weight=0.0).save_pretrained(tmp_path)
        loaded = type(self.make_config()).from_pretrained(tmp_path)
        assert loaded.encoder_config.to_dict() == self.make_config().encoder_config.to_dict()
        assert loaded.to_dict() == self.make_config().to_dict()

    def test_hidden_states_and_attentions_have_one_entry_per_layer(self):
        model = self.make_model()
        model.set_attn_implementation("eager")
        with torch.no_grad():
            output = self.run(model, output_hidden_states=True, output_attentions=True)
        config = model.config
        batch, num_tokens, width = output.last_hidden_state.shape
        assert [state.shape for state in output.hidden_states] == [(batch, num_tokens, width)] * (
            config.num_hidden_layers + 1
        )
        side = num_tokens + (2 if config.encoder_config.model_type != "whisper" else 0)  # AST's leading tokens
        assert len(output.attentions) == config.num_hidden_layers - config.locality_blocks
        assert {weights.shape for weights in output.attentions} == {(batch, config.num_attention_heads, side, side)}


class TestLocalityAwareAst(TestAst):
    def make_config(self):
        return tiny_ast_config(locality_blocks=1, locality_mlp="skip")


class TestWhisper(TestAst):
    def make_config(self):
        return tiny_whisper_config()

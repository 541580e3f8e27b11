# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The shared model tests on HTS-AT, plain and with a locality-aware block."""

import torch
from common import CommonModelTests
from tiny import tiny_batch, tiny_htsat_config
from transformers import AutoModel

from hf_audiolang import HtsatModel


class TestHtsatModel(CommonModelTests):
    model_class = HtsatModel
    auto_class = AutoModel
    main_output = "last_hidden_state"

    def make_config(self):
        return tiny_htsat_config()

    def make_inputs(self, config):
        return tiny_batch(config, seed=1)

    def test_sizes_have_the_usual_names(self):
        config = self.make_config()
        assert config.hidden_size == 24
        assert config.num_hidden_layers == 4
        assert config.num_attention_heads == [2, 3]  # of each stage, as in transformers' Swin and CLAP

    def test_hidden_states_have_one_entry_per_block(self):
        model = self.make_model()
        with torch.no_grad():
            output = self.run(model, output_hidden_states=True)
        # 4 rows x 64 columns in the first stage, 2 x 32 in the second
        assert [tuple(state.shape) for state in output.hidden_states] == [(4, 256, 12)] * 2 + [(4, 64, 24)] * 3
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


class TestHtsatModelWithLocalityBlock(TestHtsatModel):
    def make_config(self):
        return tiny_htsat_config(locality_blocks=1)

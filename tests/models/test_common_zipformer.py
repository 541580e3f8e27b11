# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The shared model tests on the Zipformer: plain, causal, and with the regularizers of training from scratch."""

import pytest
import torch
from common import CommonModelTests
from tiny import tiny_batch, tiny_zipformer_config
from transformers import AutoModel

from hf_audiolang import ZipformerModel


class TestZipformerModel(CommonModelTests):
    model_class = ZipformerModel
    auto_class = AutoModel
    main_output = "last_hidden_state"
    overrides: dict = {}

    def make_config(self):
        return tiny_zipformer_config(**self.overrides)

    def make_inputs(self, config):
        return tiny_batch(config, seed=1)

    def test_sizes_have_the_usual_names(self):
        config = self.make_config()
        assert config.hidden_size == 24
        assert config.num_hidden_layers == 3  # stacks: hidden states are theirs
        assert config.num_attention_heads == 3  # of the widest stack

    test_eager_attention_equals_sdpa = None  # attention weights are used three times: there is one implementation

    def test_other_attentions_are_refused(self):
        with pytest.raises(ValueError, match="does not support"):
            ZipformerModel._from_config(self.make_config(), attn_implementation="sdpa")

    def test_hidden_states_are_the_input_and_every_stack_at_the_output_rate(self):
        model = self.make_model()
        with torch.no_grad():
            output = self.run(model, output_hidden_states=True)
        assert [tuple(state.shape) for state in output.hidden_states] == [(4, 23, 24)] * 4
        first, _, widest, last = output.hidden_states
        assert (first[..., 18:] == 0).all()  # channels that a stack does not have
        assert (last[..., 14:] == 0).all()
        real = output.token_mask
        torch.testing.assert_close(output.last_hidden_state[real][:, :14], last[real][:, :14])
        torch.testing.assert_close(output.last_hidden_state[real][:, 14:], widest[real][:, 14:])


class TestCausalZipformerModel(TestZipformerModel):
    overrides = {"causal": True, "chunk_size": (8, 16, -1), "left_context_frames": (16, -1)}


class TestZipformerModelWithRegularizers(TestZipformerModel):
    overrides = {"activation_regularizers": True}

    def test_every_weight_and_buffer_is_initialised(self):
        super().test_every_weight_and_buffer_is_initialised()
        buffers = dict(self.make_model().named_buffers())
        assert buffers
        assert all(name.endswith("is_white") and not value for name, value in buffers.items())

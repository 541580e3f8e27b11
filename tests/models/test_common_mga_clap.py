# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The shared model tests on MGA-CLAP, with its codebook and as plain CLAP."""

import torch
from common import CommonModelTests
from tiny import tiny_batch, tiny_mga_clap_config
from transformers import AutoModel

from hf_audiolang import MgaClapModel


class TestMgaClapModel(CommonModelTests):
    model_class = MgaClapModel
    auto_class = AutoModel
    main_output = "logits_per_audio"
    overrides = {"affinity_divisor": 2.0}

    def make_config(self):
        return tiny_mga_clap_config(**self.overrides)

    def make_inputs(self, config):
        batch = tiny_batch(config, seed=1)
        return {name: value for name, value in batch.items() if name != "labels"}

    def test_sizes_have_the_usual_names(self):
        config = self.make_config()
        assert config.text_config.hidden_size > 0
        assert config.audio_config.hidden_size > 0
        assert config.embedding_size == config.projection_dim

    def test_features_are_pooled_outputs_or_tuples(self):
        model, inputs = self.make_model(), self.make_inputs(self.make_config())
        audio = {name: inputs[name] for name in ("input_features", "input_features_mask")}
        text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            outputs = self.run(model)
            for method, given, embeds in (
                (model.get_audio_features, audio, outputs.audio_embeds),
                (model.get_text_features, text, outputs.text_embeds),
            ):
                assert torch.equal(method(**given).pooler_output, embeds)
                assert isinstance(method(**given, return_dict=False), tuple)
                torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(len(embeds)))
        assert torch.equal(outputs.logits_per_text, outputs.logits_per_audio.T)

    def loss_of(self, model):
        return self.run(model, return_loss=True).loss


class TestPlainClap(TestMgaClapModel):
    overrides = {"aggregation": "mean", "hard_negative_gamma": 0.0, "regularizer_weight": 0.0}

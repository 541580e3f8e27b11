# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The shared model tests on the classes of M2D-CLAP and on the audio projector."""

import pytest
import torch
from common import CommonModelTests
from tiny import tiny_batch, tiny_m2d_clap_audio_config, tiny_m2d_clap_config
from transformers import AutoModel, AutoModelForPreTraining

from hf_audiolang import (
    AudioProjector,
    AudioProjectorConfig,
    M2dClapAudioModel,
    M2dClapForPreTraining,
    M2dClapModel,
)


class TestM2dClapAudioModel(CommonModelTests):
    model_class = M2dClapAudioModel
    auto_class = AutoModel
    main_output = "last_hidden_state"

    def make_config(self):
        return tiny_m2d_clap_audio_config()

    def make_inputs(self, config):
        return tiny_batch(config, seed=1)

    def test_hidden_states_and_attentions_have_one_entry_per_layer(self):
        model = self.make_model()
        model.set_attn_implementation("eager")
        with torch.no_grad():
            output = self.run(model, output_hidden_states=True, output_attentions=True)
        assert len(output.hidden_states) == model.config.num_hidden_layers + 1
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        batch, num_tokens, _ = output.last_hidden_state.shape
        heads, length = model.config.num_attention_heads, num_tokens + 1  # the class token comes first
        assert [w.shape for w in output.attentions] == [(batch, heads, length, length)] * len(model.layers)

    def test_config_section_of_the_system_configures_the_tower(self, tmp_path):
        tiny_m2d_clap_config().save_pretrained(tmp_path)
        assert type(self.make_config()).from_pretrained(tmp_path).to_dict() == self.make_config().to_dict()


class TestM2dClapModel(CommonModelTests):
    model_class = M2dClapModel
    auto_class = AutoModel
    main_output = "logits_per_audio"

    def make_config(self):
        return tiny_m2d_clap_config()

    def make_inputs(self, config):
        batch = tiny_batch(config, seed=1)
        return {name: value for name, value in batch.items() if name != "labels"}

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

    def test_a_row_of_a_batch_equals_the_row_alone(self):
        model, inputs = self.make_model(), self.make_inputs(self.make_config())
        with torch.no_grad():
            whole = self.run(model)
            for row in range(len(inputs["input_ids"])):
                frames = int(inputs["input_features_mask"][row].sum())
                tokens = int(inputs["attention_mask"][row].sum())
                alone = model(
                    input_ids=inputs["input_ids"][row : row + 1, :tokens],
                    input_features=inputs["input_features"][row : row + 1, :frames],
                )
                torch.testing.assert_close(alone.audio_embeds[0], whole.audio_embeds[row], rtol=1e-5, atol=1e-6)
                torch.testing.assert_close(alone.text_embeds[0], whole.text_embeds[row], rtol=1e-5, atol=1e-6)

    def loss_of(self, model):
        return self.run(model, return_loss=True).loss


class TestM2dClapModelWithoutTextEncoder(TestM2dClapModel):
    test_features_are_pooled_outputs_or_tuples = None
    test_a_row_of_a_batch_equals_the_row_alone = None

    def make_config(self):
        return tiny_m2d_clap_config(text_config=None)

    def make_inputs(self, config):
        batch = tiny_batch(config.audio_config, seed=1)
        torch.manual_seed(2)
        return {**batch, "text_embeddings": torch.randn(4, config.text_embedding_size)}

    def test_captions_are_refused_as_tokens(self):
        with pytest.raises(ValueError, match="no text encoder"):
            self.make_model().get_text_features(input_ids=torch.tensor([[2, 7, 3]]))

    def test_embeddings_of_another_width_are_refused(self):
        with pytest.raises(ValueError, match=r"must be \(batch, 10\), got \(2, 11\)"):
            self.make_model().get_text_features(text_embeddings=torch.randn(2, 11))


class TestM2dClapForPreTraining(CommonModelTests):
    model_class = M2dClapForPreTraining
    auto_class = AutoModelForPreTraining
    main_output = "loss"

    def make_config(self):
        return tiny_m2d_clap_config(contrastive_weight=0.5)

    def make_inputs(self, config):
        batch = tiny_batch(config, seed=1)
        return {name: value for name, value in batch.items() if name != "labels"}

    def test_trainer_may_divide_its_loss(self):
        assert self.model_class.accepts_loss_kwargs is False


class TestM2dClapForPreTrainingStage2(TestM2dClapForPreTraining):
    def make_config(self):
        return tiny_m2d_clap_config(masked_weight=0.0, masking_ratio=0.3, mask_style="structured")


class TestAudioProjector(CommonModelTests):
    model_class = AudioProjector
    auto_class = AutoModel
    main_output = "pooler_output"
    projector_type = "transformer"

    def make_config(self):
        return AudioProjectorConfig(
            projector_type=self.projector_type, hidden_size=24, intermediate_size=36, num_hidden_layers=2
        )

    def make_inputs(self, config):
        generator = torch.Generator().manual_seed(1)
        mask = torch.arange(9) < torch.tensor([[9], [2], [4]])
        return {"hidden_states": torch.randn(3, 9, 24, generator=generator), "attention_mask": mask}

    def test_semantic_token_attention_is_a_distribution_over_real_tokens(self):
        inputs = self.make_inputs(self.make_config())
        with torch.no_grad():
            (weights,) = self.run(self.make_model(), output_attentions=True).attentions
        assert weights.shape == (3, 1, 10)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 1))
        assert not weights[:, 0, 1:][~inputs["attention_mask"]].any()


class TestMlpProjector(TestAudioProjector):
    projector_type = "mlp"
    test_gradient_checkpointing_changes_no_gradient = None  # no layers to recompute
    test_semantic_token_attention_is_a_distribution_over_real_tokens = None

    def make_config(self):
        return AudioProjectorConfig(projector_type="mlp", hidden_size=24, intermediate_size=240)

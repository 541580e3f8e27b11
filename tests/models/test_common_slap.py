# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The shared model tests on the classes of SLAP."""

import torch
from common import CommonModelTests
from tiny import tiny_batch, tiny_slap_audio_config, tiny_slap_config
from transformers import AutoModel, AutoModelForPreTraining

from hf_audiolang import CaptionDecoder, SlapAudioModel, SlapForPreTraining, SlapModel


class TestSlapAudioModel(CommonModelTests):
    model_class = SlapAudioModel
    auto_class = AutoModel
    main_output = "last_hidden_state"
    unused_parameters = ("embeddings.mask_token",)  # only masked passes use it

    def make_config(self):
        return tiny_slap_audio_config()

    def make_inputs(self, config):
        batch = tiny_batch(tiny_slap_config(), seed=1)
        return {name: batch[name] for name in ("input_features", "input_features_mask")}

    def test_hidden_states_and_attentions_have_one_entry_per_layer(self):
        model = self.make_model()
        model.set_attn_implementation("eager")
        with torch.no_grad():
            output = self.run(model, output_hidden_states=True, output_attentions=True)
        assert len(output.hidden_states) == model.config.num_hidden_layers + 1
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        batch, num_tokens, _ = output.last_hidden_state.shape
        heads = model.config.num_attention_heads
        assert [w.shape for w in output.attentions] == [(batch, heads, num_tokens, num_tokens)] * len(model.layers)

    def test_config_section_of_the_system_configures_the_tower(self, tmp_path):
        tiny_slap_config().save_pretrained(tmp_path)
        assert type(self.make_config()).from_pretrained(tmp_path).to_dict() == self.make_config().to_dict()


class TestSlapModel(CommonModelTests):
    model_class = SlapModel
    auto_class = AutoModel
    main_output = "logits_per_audio"
    unused_parameters = ("audio_model.embeddings.mask_token",)

    def make_config(self):
        return tiny_slap_config()

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

    def test_partial_override_of_a_section_keeps_the_rest(self, tmp_path):
        config = self.make_config()
        config.save_pretrained(tmp_path)
        loaded = type(config).from_pretrained(tmp_path, text_config={"vocab_size": 77})
        assert loaded.text_config.vocab_size == 77
        assert loaded.text_config.hidden_size == config.text_config.hidden_size

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


class TestSlapForPreTraining(CommonModelTests):
    model_class = SlapForPreTraining
    auto_class = AutoModelForPreTraining
    main_output = "loss"

    def make_config(self):
        return tiny_slap_config()

    def make_inputs(self, config):
        return tiny_batch(config, seed=1)

    def test_trainer_may_divide_its_loss(self):
        assert self.model_class.accepts_loss_kwargs is False


class TestCaptionDecoder(CommonModelTests):
    model_class = CaptionDecoder
    main_output = ""  # a bare tensor
    test_return_dict_false_gives_a_tuple_with_the_same_values = None
    test_auto_class_returns_this_class = None  # an inner class, loaded by its owner

    def make_config(self):
        return tiny_slap_config().decoder_config

    def make_inputs(self, config):
        generator = torch.Generator().manual_seed(1)
        states = torch.randn(3, 7, config.encoder_hidden_size, generator=generator)
        tokens = torch.randint(5, config.vocab_size, (3, 5), generator=generator)
        mask = torch.arange(7) < torch.tensor([[7], [2], [4]])
        return {"decoder_input_ids": tokens, "encoder_hidden_states": states, "encoder_attention_mask": mask}

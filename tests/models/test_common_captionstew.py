# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The shared model tests on the classes of CaptionStew."""

import torch
from common import CommonModelTests
from tiny import tiny_batch, tiny_captionstew_config
from transformers import AutoModel, AutoModelForPreTraining, AutoModelForSpeechSeq2Seq

from hf_audiolang import CaptionStewForConditionalGeneration, CaptionStewForPreTraining, CaptionStewModel


class TestCaptionStewModel(CommonModelTests):
    model_class = CaptionStewModel
    auto_class = AutoModel
    main_output = "logits_per_audio"
    unused_parameters = ("audio_model.embeddings.mask_token",)
    overrides = {}

    def make_config(self):
        return tiny_captionstew_config(**self.overrides)

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

    def loss_of(self, model):
        return self.run(model, return_loss=True).loss


class TestAttentionPooling(TestCaptionStewModel):
    overrides = {"pooling": "attention", "contrastive_loss": "sigmoid"}


class TestCaptionStewForPreTraining(CommonModelTests):
    model_class = CaptionStewForPreTraining
    auto_class = AutoModelForPreTraining
    main_output = "loss"
    unused_parameters = ("captionstew.audio_model.embeddings.mask_token",)

    def make_config(self):
        return tiny_captionstew_config(parallel_share=0.5)

    def make_inputs(self, config):
        return tiny_batch(config, seed=1)

    def test_trainer_may_divide_its_loss(self):
        assert self.model_class.accepts_loss_kwargs is False


class TestCaptionStewForConditionalGeneration(CommonModelTests):
    model_class = CaptionStewForConditionalGeneration
    auto_class = AutoModelForSpeechSeq2Seq
    main_output = "logits"
    unused_parameters = ("captionstew.audio_model.embeddings.mask_token",)

    def make_config(self):
        return tiny_captionstew_config(text_config=None)

    def make_inputs(self, config):
        batch = tiny_batch(config, seed=1)
        names = ("input_features", "input_features_mask")
        return {name: batch[name] for name in names} | {"decoder_input_ids": batch["input_ids"][:, :-1]}

    def loss_of(self, model):
        torch.manual_seed(5)
        labels = tiny_batch(model.config, seed=1)["labels"]
        return self.run(model, decoder_input_ids=None, labels=labels).loss

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SLAP as a system: embeddings against the second implementation, loading, other text encoders."""

import pytest
import torch
from slap_reference import reference_pooling, reference_tokens
from tiny import CLIP_FRAMES, tiny_batch, tiny_slap_audio_config, tiny_slap_config
from transformers import AutoModel, BertConfig, BertModel, RobertaConfig

from hf_audiolang import SlapAudioModel, SlapForPreTraining, SlapModel


def make_model(**overrides) -> SlapModel:
    torch.manual_seed(0)
    model = SlapModel(tiny_slap_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_inputs(seed=1):
    batch = tiny_batch(tiny_slap_config(), seed)
    del batch["labels"]
    return batch


def weights_of(module):
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def unit(vector):
    return vector / vector.norm()


def reference_clip(model, clip):
    """Tokens and embedding of one clip, both from the second implementation."""
    config = model.config
    tokens = reference_tokens(config.audio_config, weights_of(model.audio_model), clip)[-1]
    return tokens, reference_embedding(model, tokens)


def reference_embedding(model, tokens):
    heads = model.config.audio_config.num_attention_heads
    pooled = reference_pooling(weights_of(model.audio_pooling), tokens, heads, model.config.rms_norm_eps)
    return unit(model.audio_projection.weight.detach() @ pooled)


def test_embeddings_and_scores_equal_the_reference():
    model, inputs = make_model(), make_inputs()
    with torch.no_grad():
        outputs = model(**inputs)
        audio, text = [], []
        for row, frames in enumerate(CLIP_FRAMES):
            audio.append(reference_clip(model, inputs["input_features"][row, :frames])[1])
            ids = inputs["input_ids"][row, inputs["attention_mask"][row] == 1]
            words = model.text_model(input_ids=ids.unsqueeze(0)).last_hidden_state[0]
            pooled = reference_pooling(weights_of(model.text_pooling), words, 2, model.config.rms_norm_eps)
            text.append(unit(model.text_projection.weight @ pooled))
        audio, text = torch.stack(audio), torch.stack(text)
    torch.testing.assert_close(outputs.audio_embeds, audio, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.text_embeds, text, rtol=1e-5, atol=1e-5)
    scale = model.logit_scale.log_scale.detach().exp()
    torch.testing.assert_close(outputs.logits_per_audio, scale * audio @ text.T, rtol=1e-5, atol=1e-4)
    assert torch.equal(outputs.logits_per_text, outputs.logits_per_audio.T)


def test_frames_are_pooled_one_time_step_at_a_time():
    model, inputs = make_model(), make_inputs()
    with torch.no_grad():
        output = model.get_audio_frame_features(inputs["input_features"], inputs["input_features_mask"])
    for row, frames in enumerate(CLIP_FRAMES):
        steps = -(-frames // 16)
        tokens, _ = reference_clip(model, inputs["input_features"][row, :frames])
        assert output.frame_mask[row].tolist() == [step < steps for step in range(7)]
        for step in range(steps):
            wanted = reference_embedding(model, tokens[4 * step : 4 * step + 4])
            torch.testing.assert_close(output.frame_features[row, step], wanted, rtol=1e-5, atol=1e-5)
        assert torch.count_nonzero(output.frame_features[row, steps:]) == 0


def test_initial_scale_is_that_of_the_configuration():
    torch.manual_seed(0)
    model = SlapModel(tiny_slap_config(contrastive_loss="sigmoid"))
    assert model.logit_scale().item() == pytest.approx(1 / 0.07, rel=1e-3)
    assert model.logit_scale.bias.item() == -10.0
    assert make_model().logit_scale.bias is None


def test_rows_follow_the_batch_and_do_not_mix():
    model, inputs = make_model(), make_inputs()
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        base = model(**inputs)
        shuffled = model(**{name: value[order] for name, value in inputs.items()})
        poisoned = inputs["input_features"].clone()
        poisoned[0] = float("nan")
        mixed = model(**{**inputs, "input_features": poisoned})
    torch.testing.assert_close(shuffled.audio_embeds, base.audio_embeds[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shuffled.text_embeds, base.text_embeds[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed.audio_embeds[1:], base.audio_embeds[1:], rtol=1e-5, atol=1e-6)
    assert mixed.audio_embeds[0].isnan().all()


def test_longer_padding_of_both_modalities_changes_nothing():
    model, inputs = make_model(), make_inputs()
    longer = {
        "input_ids": torch.nn.functional.pad(inputs["input_ids"], (0, 3), value=11),  # any token
        "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, 3)),
        "input_features": torch.nn.functional.pad(inputs["input_features"], (0, 0, 0, 21), value=float("nan")),
        "input_features_mask": torch.nn.functional.pad(inputs["input_features_mask"], (0, 21)),
    }
    with torch.no_grad():
        base, other = model(**inputs), model(**longer)
        unmasked = model(**{**longer, "attention_mask": None})
    torch.testing.assert_close(other.audio_embeds, base.audio_embeds, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.text_embeds, base.text_embeds, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(unmasked.text_embeds, base.text_embeds, atol=1e-3)  # control


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_loss_is_that_of_the_scores(loss):
    model, inputs = make_model(contrastive_loss=loss), make_inputs()
    assert model(**inputs).loss is None
    outputs = model(**inputs, return_loss=True)
    scores = outputs.logits_per_audio
    if loss == "infonce":
        pairs = torch.arange(4)
        cross = torch.nn.functional.cross_entropy
        wanted = (cross(scores, pairs) + cross(scores.T, pairs)) / 2
    else:
        signs = 2 * torch.eye(4) - 1
        wanted = -torch.nn.functional.logsigmoid(signs * (scores + model.logit_scale.bias)).sum() / 4
    torch.testing.assert_close(outputs.loss, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(outputs.loss_terms["contrastive"], outputs.loss)


@pytest.mark.parametrize(("given", "missing"), [("input_ids", "no clips"), ("input_features", "no captions")])
def test_missing_modality_is_refused(given, missing):
    with pytest.raises(ValueError, match=f"both needed, got {missing}"):
        make_model()(**{given: make_inputs()[given]})


def test_hidden_states_and_attentions_change_no_embedding():
    model, inputs = make_model(), make_inputs()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        plain = model(**inputs)
        asked = model(**inputs, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(asked.audio_embeds, plain.audio_embeds)
    torch.testing.assert_close(asked.text_embeds, plain.text_embeds)
    for output, layers in ((asked.audio_model_output, 3), (asked.text_model_output, 2)):
        assert len(output.hidden_states) == layers + 1
        assert len(output.attentions) == layers


def test_bf16_autocast_is_close_to_float32():
    model, inputs = make_model(), make_inputs()
    with torch.no_grad():
        exact = model(**inputs, return_loss=True)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(**inputs, return_loss=True)
    assert (rough.audio_embeds - exact.audio_embeds).abs().max() < 0.05
    assert (rough.text_embeds - exact.text_embeds).abs().max() < 0.05
    assert rough.loss.dtype == torch.float32
    assert abs(rough.loss - exact.loss) < 0.3


TEXT = {"vocab_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
OTHER_TOWERS = {
    "bert": BertConfig(hidden_size=16, pad_token_id=0, max_position_embeddings=40, **TEXT),
    "roberta": RobertaConfig(
        hidden_size=16, pad_token_id=0, bos_token_id=2, eos_token_id=3, max_position_embeddings=40, **TEXT
    ),
}


@pytest.mark.parametrize("name", OTHER_TOWERS)
def test_other_text_encoders_work_without_unused_weights(name, tmp_path):
    torch.manual_seed(0)
    model = SlapModel(tiny_slap_config(text_config=OTHER_TOWERS[name])).eval()
    inputs = make_inputs()
    outputs = model(**inputs, return_loss=True)
    outputs.loss.backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert unused == {"audio_model.embeddings.mask_token"}  # only masked passes use it
    with torch.no_grad():
        for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
            alone = model.get_text_features(inputs["input_ids"][row : row + 1, :length]).pooler_output[0]
            torch.testing.assert_close(alone, outputs.text_embeds[row], rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded, info = SlapModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(loaded.get_text_features(**text_of(inputs)).pooler_output, outputs.text_embeds)


def text_of(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def test_token_types_reach_a_text_encoder_that_has_them():
    torch.manual_seed(0)
    bert = SlapModel(tiny_slap_config(text_config=OTHER_TOWERS["bert"])).eval()
    inputs = make_inputs()
    types = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        plain, typed = bert(**inputs), bert(**inputs, token_type_ids=types)
        modern = make_model()
        assert torch.equal(modern(**inputs, token_type_ids=types).text_embeds, modern(**inputs).text_embeds)
    assert not torch.allclose(plain.text_embeds, typed.text_embeds)


def test_equal_widths_need_no_projection():
    torch.manual_seed(0)
    model = SlapModel(tiny_slap_config(projection_dim=None, text_config={"hidden_size": 24, "num_attention_heads": 3}))
    assert not [name for name in model.state_dict() if "projection" in name]
    assert model(**make_inputs()).audio_embeds.shape == (4, 24)


def test_towers_load_right_or_refuse(tmp_path):
    torch.manual_seed(0)
    trained = SlapForPreTraining(tiny_slap_config())
    trained.save_pretrained(tmp_path / "trained")
    trained.slap.save_pretrained(tmp_path / "slap")
    for folder in ("trained", "slap"):
        loaded = SlapModel.from_pretrained(tmp_path / folder)
        assert_same_state(loaded, trained.slap)
    assert_same_state(SlapAudioModel.from_pretrained(tmp_path / "slap"), trained.slap.audio_model)
    # the names of a training checkpoint lie one level deeper: better no encoder than a random one
    with pytest.raises(ValueError, match=r"lacks 30 weights of SlapAudioModel.*they would be random"):
        SlapAudioModel.from_pretrained(tmp_path / "trained")


def test_unrelated_checkpoints_refuse_unless_random_is_wanted(tmp_path):
    torch.manual_seed(0)
    BertModel(OTHER_TOWERS["bert"]).save_pretrained(tmp_path)
    for model_class, config in (
        (SlapAudioModel, tiny_slap_audio_config()),
        (SlapModel, tiny_slap_config()),
        (SlapForPreTraining, tiny_slap_config()),
    ):
        with pytest.raises(ValueError, match="allow_random_encoder=True"):
            model_class.from_pretrained(tmp_path, config=config)
        model = model_class.from_pretrained(tmp_path, config=config, allow_random_encoder=True)
        assert all(torch.isfinite(p).all() for p in model.parameters())


def test_one_missing_weight_is_enough_to_refuse(tmp_path):
    torch.manual_seed(0)
    model = SlapAudioModel(tiny_slap_audio_config())
    state = model.state_dict()
    del state["layers.1.mlp.up_proj.weight"]
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"lacks 1 weights of SlapAudioModel, for instance 'layers.1.mlp.up_proj"):
        AutoModel.from_pretrained(tmp_path)


def assert_same_state(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Heads on encoders: what they load from, what they compute, and what they refuse."""

import pytest
import torch
import torch.nn.functional as F
from test_common_heads import CONFIGS
from tiny import (
    tiny_captionstew_config,
    tiny_htsat_config,
    tiny_m2d_clap_audio_config,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_slap_audio_config,
    tiny_slap_config,
    tiny_zipformer_config,
)
from transformers import AutoModel, AutoModelForAudioClassification, AutoModelForAudioFrameClassification

from hf_audiolang import (
    CaptionStewForPreTraining,
    CaptionStewModel,
    M2dClapAudioForAudioClassification,
    M2dClapAudioModel,
    M2dClapForAudioClassification,
    M2dClapForPreTraining,
    M2dClapModel,
    MgaClapModel,
    SlapAudioForAudioClassification,
    SlapAudioForAudioFrameClassification,
    SlapAudioModel,
    SlapForConditionalGeneration,
    SlapForPreTraining,
    SlapModel,
    ZipformerForAudioFrameClassification,
)
from hf_audiolang.models.layers_audio_head import frame_centres, label_loss
from hf_audiolang.training.objectives import has_unused_parameters

MULTI = "multi_label_classification"


def features_of(config, num_frames=(90, 37, 64)):
    audio_config = getattr(config, "audio_config", config)
    longest = max(num_frames)
    features = torch.randn(
        len(num_frames), longest, audio_config.num_mel_bins, generator=torch.Generator().manual_seed(1)
    )
    return {
        "input_features": features,
        "input_features_mask": torch.arange(longest) < torch.tensor(num_frames)[:, None],
    }


SOURCES = {
    "slap": (SlapModel, tiny_slap_config),
    "slap pre-training": (SlapForPreTraining, tiny_slap_config),
    "slap captioner": (SlapForConditionalGeneration, tiny_slap_config),
    "slap encoder": (SlapAudioModel, tiny_slap_audio_config),
    "m2d_clap": (M2dClapModel, tiny_m2d_clap_config),
    "m2d_clap pre-training": (M2dClapForPreTraining, tiny_m2d_clap_config),
    "m2d encoder": (M2dClapAudioModel, tiny_m2d_clap_audio_config),
    "mga_clap": (MgaClapModel, tiny_mga_clap_config),
    "captionstew": (CaptionStewModel, lambda: tiny_captionstew_config(audio_config=tiny_zipformer_config())),
    "captionstew pre-training": (
        CaptionStewForPreTraining,
        lambda: tiny_captionstew_config(audio_config=tiny_zipformer_config()),
    ),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("auto_class", [AutoModelForAudioClassification, AutoModelForAudioFrameClassification])
def test_the_encoder_comes_from_every_kind_of_checkpoint(tmp_path, source, auto_class):
    model_class, make_config = SOURCES[source]
    torch.manual_seed(3)
    model = model_class(make_config()).eval()
    model.save_pretrained(tmp_path)
    head, info = auto_class.from_pretrained(tmp_path, num_labels=7, output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"classifier"}
    assert head.config.num_labels == 7
    base = model.base_model if hasattr(model, model.base_model_prefix) else model
    encoder = getattr(base, "audio_model", base)
    expected, found = encoder.state_dict(), head.audio_model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_encoder_comes_back_from_a_head(tmp_path):
    torch.manual_seed(3)
    head = M2dClapAudioForAudioClassification(tiny_m2d_clap_audio_config(num_labels=4))
    head.save_pretrained(tmp_path)
    encoder = AutoModel.from_pretrained(tmp_path)
    assert type(encoder) is M2dClapAudioModel
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, head.audio_model.state_dict()[name])


def test_a_checkpoint_without_encoder_is_refused(tmp_path):
    model = SlapAudioModel(tiny_slap_audio_config())
    model.save_pretrained(tmp_path)
    wider = tiny_slap_audio_config(num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"lacks \d+ weights of SlapAudioForAudioClassification"):
        SlapAudioForAudioClassification.from_pretrained(tmp_path, config=wider)


def test_logits_are_the_linear_map_of_normalised_means():
    torch.manual_seed(3)
    config = tiny_m2d_clap_audio_config(num_labels=5)
    model = M2dClapAudioForAudioClassification(config).eval()
    norm, linear = model.classifier.norm, model.classifier.linear
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    linear.bias.data.normal_()
    inputs = features_of(config)
    output = model.audio_model(**inputs)
    for row, mask in enumerate(output.frame_mask):
        mean = output.frame_features[row][mask].mean(0)
        expected = linear.weight @ ((mean - norm.running_mean) / (norm.running_var + 1e-5).sqrt()) + linear.bias
        torch.testing.assert_close(model(**inputs).logits[row], expected, rtol=1e-4, atol=1e-5)


def test_tokens_are_pooled_where_the_config_says_so():
    torch.manual_seed(3)
    config = tiny_m2d_clap_audio_config(num_labels=5, classifier_input="tokens", classifier_norm=False)
    model = M2dClapAudioForAudioClassification(config).eval()
    assert model.classifier.linear.in_features == config.hidden_size
    inputs = features_of(config)
    output = model.audio_model(**inputs)
    for row, mask in enumerate(output.token_mask):
        expected = model.classifier.linear(output.last_hidden_state[row][mask].mean(0))
        torch.testing.assert_close(model(**inputs).logits[row], expected, rtol=1e-5, atol=1e-6)


def test_slap_can_go_on_with_the_pooling_of_its_pre_training(tmp_path):
    torch.manual_seed(3)
    source = SlapModel(tiny_slap_config()).eval()
    source.save_pretrained(tmp_path)
    fields = {"num_labels": 7, "classifier_pooling": "pretrained", "classifier_input": "tokens"}
    model, info = AutoModelForAudioClassification.from_pretrained(tmp_path, **fields, output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"classifier"}
    model.classifier.norm = None
    inputs = features_of(model.config)
    pooled = model.pooled(*model.encode(**inputs))
    expected = source.get_audio_features(**inputs).pooler_output
    torch.testing.assert_close(F.normalize(source.audio_projection(pooled), dim=-1), expected)
    torch.testing.assert_close(model(**inputs).logits, model.classifier.linear(pooled))
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForAudioClassification.from_pretrained(tmp_path / "again")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_pooling_that_was_not_pre_trained_is_not_made_up(tmp_path):
    fields = {"num_labels": 7, "classifier_pooling": "pretrained", "classifier_input": "tokens"}
    with pytest.raises(ValueError, match="M2dClapForAudioClassification has no pooling from its pre-training"):
        AutoModelForAudioClassification.from_config(tiny_m2d_clap_config(**fields))
    with pytest.raises(ValueError, match="Set it to 'tokens'"):
        AutoModelForAudioClassification.from_config(tiny_slap_config(**{**fields, "classifier_input": "frames"}))
    AutoModelForAudioClassification.from_config(tiny_slap_config(num_labels=7)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks \d+ weights of SlapForAudioClassification.*audio_pooling"):
        AutoModelForAudioClassification.from_pretrained(tmp_path, **fields)


@pytest.mark.parametrize("auto_class", [AutoModelForAudioClassification, AutoModelForAudioFrameClassification])
@pytest.mark.parametrize("family", CONFIGS)
def test_processes_are_told_of_parameters_without_gradient(family, auto_class):
    config = CONFIGS[family]()
    config.num_labels = 5
    model = auto_class.from_config(config).train()
    model(**features_of(config)).logits.square().sum().backward()
    unused = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert has_unused_parameters(model) or not unused, unused


def test_frames_are_labelled_and_not_tokens():
    config = tiny_slap_config(num_labels=5, classifier_input="tokens")
    with pytest.raises(ValueError, match="labels frames, got `classifier_input` 'tokens'"):
        AutoModelForAudioFrameClassification.from_config(config)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
@pytest.mark.parametrize("family", ["SlapAudio", "M2dClapAudio", "Zipformer"])
def test_a_clip_alone_equals_the_clip_in_a_batch(family, pooling):
    torch.manual_seed(3)
    config = CONFIGS[family]()
    config.num_labels, config.classifier_pooling, config.classifier_heads = 5, pooling, 1
    for auto_class in (AutoModelForAudioClassification, AutoModelForAudioFrameClassification):
        model = auto_class.from_config(config).eval()
        inputs = features_of(config)
        whole = model(**inputs).logits
        for row, length in enumerate(inputs["input_features_mask"].sum(1)):
            alone = model(inputs["input_features"][row : row + 1, :length]).logits[0]
            rows = whole[row] if whole.ndim == 2 else whole[row, : len(alone)]
            torch.testing.assert_close(alone, rows, rtol=1e-5, atol=1e-5)


def test_losses_are_those_of_the_problem():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, generator=generator)
    ids = torch.tensor([2, 0, 3])
    by_hand = -torch.log_softmax(logits, 1)[torch.arange(3), ids].mean()
    torch.testing.assert_close(label_loss(logits, ids, None), by_hand)
    torch.testing.assert_close(label_loss(logits, F.one_hot(ids, 4).float(), "single_label_classification"), by_hand)
    mixed = torch.tensor([[0.3, 0.7, 0, 0], [1, 0, 0, 0], [0, 0, 0.5, 0.5]])
    by_hand = -(mixed * torch.log_softmax(logits, 1)).sum(1).mean()
    torch.testing.assert_close(label_loss(logits, mixed, "single_label_classification"), by_hand)
    chance = torch.sigmoid(logits)
    by_hand = -(mixed * chance.log() + (1 - mixed) * (1 - chance).log()).mean()
    torch.testing.assert_close(label_loss(logits, mixed, MULTI), by_hand)
    torch.testing.assert_close(label_loss(logits, mixed, None), by_hand)
    none = label_loss(logits.requires_grad_(), torch.tensor([-100, -100, -100]), None)
    none.backward()
    assert (none.item(), logits.grad.abs().max().item()) == (0, 0)  # and not NaN
    torch.testing.assert_close(
        label_loss(logits.bfloat16(), ids, None), label_loss(logits.bfloat16().float(), ids, None)
    )
    ignored = label_loss(logits, torch.tensor([2, -100, 3]), None)
    torch.testing.assert_close(ignored, label_loss(logits[[0, 2]], ids[[0, 2]], None))


@pytest.mark.parametrize(
    ("labels", "problem_type", "message"),
    [
        (torch.zeros(3, 5), MULTI, r"shape \(3, 5\) for logits \(3, 4\)"),
        (torch.zeros(2).long(), None, r"shape \(2,\) for logits \(3, 4\)"),
        (torch.zeros(3).long(), MULTI, "needs rows of 0 and 1"),
        (torch.tensor([0, 4, 1]), None, r"has the class id 4, but there are 4 classes\. Give ids of 0 to 3"),
        (torch.tensor([0, -1, 1]), "single_label_classification", "has the class id -1"),
        (torch.zeros(3, 4), "regression", "The head knows"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, problem_type, message):
    with pytest.raises(ValueError, match=message):
        label_loss(torch.zeros(3, 4), labels, problem_type)


def test_one_clip_alone_trains_by_the_gathered_statistics():
    torch.manual_seed(3)
    config = tiny_slap_audio_config(num_labels=5)
    model = SlapAudioForAudioClassification(config).train()
    features = features_of(config, (40,))["input_features"]
    before = model.classifier.norm.running_mean.clone()
    trained = model(features, labels=torch.tensor([1]))
    assert torch.equal(before, model.classifier.norm.running_mean)
    torch.testing.assert_close(trained.logits, model.eval()(features).logits)
    model.train()(torch.cat([features, -features]))
    assert not torch.equal(before, model.classifier.norm.running_mean)  # control: two rows do count


def test_output_frames_take_the_label_of_the_input_frame_at_their_centre():
    # 25 output frames per second on 100 input frames: centres at 2, 6, 10 of the input; with the offset 1 later
    assert frame_centres(3, 25.0, 0.0, 100.0).tolist() == [2, 6, 10]
    assert frame_centres(3, 25.0, 0.01, 100.0).tolist() == [3, 7, 11]
    config = tiny_slap_audio_config(num_labels=2, problem_type=MULTI)
    model = SlapAudioForAudioFrameClassification(config).eval()
    inputs = features_of(config, (80, 48))
    of_input = torch.zeros(2, 80, 2)
    of_input[0, 20:40, 1] = 1  # frames of 16: centres 8, 24, 40, 56, 72
    of_input[1, :48, 0] = 1
    of_output = torch.zeros(2, 5, 2)
    of_output[0, 1, 1] = 1
    of_output[1, :3, 0] = 1
    by_input, by_output = (model(**inputs, labels=labels) for labels in (of_input, of_output))
    assert torch.equal(by_input.loss, by_output.loss)
    real = by_output.frame_mask
    assert real.sum(1).tolist() == [5, 3]
    expected = F.binary_cross_entropy_with_logits(by_output.logits[real], of_output[real])
    torch.testing.assert_close(by_output.loss, expected)
    with pytest.raises(ValueError, match="5 output and 80 input frames"):
        model(**inputs, labels=torch.zeros(2, 7, 2))


def test_a_zipformers_frames_are_labelled_at_their_own_times():
    config = tiny_zipformer_config(num_labels=2, problem_type=MULTI)
    model = ZipformerForAudioFrameClassification(config).eval()
    inputs = features_of(config, (60,))
    labels = torch.arange(60.0).view(1, 60, 1).expand(1, 60, 2)
    mask = model(**inputs).frame_mask
    found = model.frame_labels(labels, mask, 60)[0, :, 0]
    # output frame k is centred at 0.055 s + 0.04 s * k, input frame i at 0.01 s * (i + 0.5)
    assert found[:4].tolist() == [5, 9, 13, 17]


def test_patchout_leaves_tokens_out_in_training_alone():
    torch.manual_seed(3)
    numbers = {"classifier_input": "tokens", "classifier_norm": False, "num_labels": 3}
    for family, patchout in (
        ("M2dClap", {"structured_patchout": 0.5}),
        ("SlapAudio", {"time_patchout": 0.4, "frequency_patchout": 0.3}),
    ):
        config = CONFIGS[family]()
        for name, value in {**numbers, **patchout}.items():
            setattr(config, name, value)
        model = AutoModelForAudioClassification.from_config(config).train()
        inputs = features_of(config, (112, 112, 112))
        full = model.audio_model(**inputs).token_mask.sum(1)
        output, _, mask = model.encode(**inputs)
        assert (mask.sum(1) < full).all()
        assert (mask.sum(1) > 0).all()
        assert (output.last_hidden_state[~mask] == 0).all()
        model(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
        model.eval()
        assert torch.equal(model.encode(**inputs)[2].sum(1), full)


def test_visible_patches_are_encoded_as_masked_ones_are_left_out():
    torch.manual_seed(3)
    config = tiny_m2d_clap_config()
    config.classifier_input, config.structured_patchout, config.num_labels = "tokens", 0.5, 3
    model = M2dClapForAudioClassification(config).train()
    inputs = features_of(config, (112, 112))
    output, _, mask = model.encode(**inputs)
    expected = model.audio_model(**inputs, masked_positions=~mask)
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"structured_patchout": 0.5}, "Set it to 'tokens'"),
        ({"structured_patchout": 0.5, "classifier_input": "tokens"}, "cannot leave patches out"),
        ({"time_patchout": 0.2, "classifier_input": "tokens"}, "cannot leave patches out"),
        ({"classifier_dropout": 1.0}, "`classifier_dropout` must lie between 0 and 1"),
        ({"classifier_pooling": "max"}, "classifier_pooling"),
        ({"classifier_pooling": "attention", "classifier_heads": 5}, "`classifier_heads` must divide the width"),
    ],
)
def test_impossible_heads_are_refused(fields, message):
    with pytest.raises(Exception, match=message):
        AutoModelForAudioClassification.from_config(tiny_htsat_config(**fields))

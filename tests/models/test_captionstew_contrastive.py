# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""CaptionStew's contrastive model against a restatement of its authors' objective, and its parts one by one."""

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    CLS,
    PAD,
    SEP,
    tiny_ast_config,
    tiny_batch,
    tiny_captionstew_config,
    tiny_htsat_config,
    tiny_zipformer_config,
)

from hf_audiolang import CaptionStewConfig, CaptionStewModel

ENCODERS = {
    "slap": {},
    "zipformer": tiny_zipformer_config(),
    "htsat": tiny_htsat_config(),
    "native": tiny_ast_config(),
}


def make_model(**overrides):
    torch.manual_seed(1)
    model = CaptionStewModel(tiny_captionstew_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def make_inputs(model, seed=2):
    return {name: value for name, value in tiny_batch(model.config, seed=seed).items() if name != "labels"}


def text_of(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def audio_of(inputs):
    return {name: inputs[name] for name in ("input_features", "input_features_mask")}


def projected(projection, features):
    hidden = torch.einsum("...d,ed->...e", features, projection.fc1.weight) + projection.fc1.bias
    return torch.einsum("...d,ed->...e", hidden.clamp(min=0), projection.fc2.weight) + projection.fc2.bias


def reference_objective(model, inputs, kind="infonce"):
    """The whole objective one clip and one pair at a time, from the encoders' outputs on."""
    encoded = model.audio_model(**audio_of(inputs))
    states = model.text_model(**text_of(inputs)).last_hidden_state
    clips, captions = [], []
    for row in range(len(states)):
        real = encoded.frame_features[row][encoded.frame_mask[row]]
        pooled = sum(projected(model.audio_projection, frame) for frame in real) / len(real)
        clips.append(pooled / pooled.square().sum().sqrt())
        caption = projected(model.text_projection, states[row, 0])
        captions.append(caption / caption.square().sum().sqrt())
    total = 0.0
    for mine, others in ((clips, captions), (captions, clips)):
        for i, one in enumerate(mine):
            cosines = [(one * other).sum() / 0.07 for other in others]
            if kind == "infonce":
                total = total + torch.stack(cosines).exp().sum().log() - cosines[i]
            else:
                for j, cosine in enumerate(cosines):
                    total = total + (1 + (-cosine if i == j else cosine).exp()).log()
    for embeds in (torch.stack(clips), torch.stack(captions)):
        total = total + embeds.abs().sum() / embeds.numel() / embeds.square().sum().sqrt()
    return total


def gradients(model, loss):
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}


@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
def test_objective_and_its_gradients_equal_the_authors(kind):
    model = make_model(contrastive_loss=kind).double()
    inputs = make_inputs(model)
    inputs["input_features"] = inputs["input_features"].double()
    loss = model(**inputs, return_loss=True).loss
    wanted_loss = reference_objective(model, inputs, kind)
    torch.testing.assert_close(loss, wanted_loss, rtol=1e-6, atol=1e-6)
    got, wanted = gradients(model, loss), gradients(model, wanted_loss)
    assert got.keys() == wanted.keys()
    assert len(got) > 40
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-6, atol=1e-6, msg=name)
    assert sum(gradient.norm() > 1e-3 for gradient in got.values()) > 40


def test_weights_and_reduction_scale_the_terms():
    inputs = make_inputs(make_model())
    summed = make_model(regularizer_weight=0.25, contrastive_weight=2.0)(**inputs, return_loss=True)
    assert list(summed.loss_terms) == ["contrastive", "regularizer"]
    wanted = 2.0 * summed.loss_terms["contrastive"] + 0.25 * summed.loss_terms["regularizer"]
    torch.testing.assert_close(summed.loss, wanted)
    meant = make_model(regularizer_weight=0, loss_reduction="mean")(**inputs, return_loss=True)
    assert list(meant.loss_terms) == ["contrastive"]
    torch.testing.assert_close(meant.loss, summed.loss_terms["contrastive"] / 8)  # four clips, two directions


def test_logits_are_cosines_over_the_temperature():
    model = make_model(contrastive_temperature=0.5)
    with torch.no_grad():
        outputs = model(**make_inputs(model))
        wanted = F.cosine_similarity(outputs.audio_embeds.unsqueeze(1), outputs.text_embeds.unsqueeze(0), dim=-1) / 0.5
        torch.testing.assert_close(outputs.logits_per_audio, wanted, rtol=1e-5, atol=1e-5)
    assert model.logit_scale().item() == pytest.approx(2.0)
    assert not [name for name, _ in model.named_parameters() if "scale" in name and "norm" not in name]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_a_clip_is_the_same_alone_and_its_padding_is_not_seen(encoder, pooling):
    model = make_model(audio_config=ENCODERS[encoder], pooling=pooling)
    inputs = audio_of(make_inputs(model))
    with torch.no_grad():
        whole = model.get_audio_features(**inputs)
        for row in range(4):
            one = {name: value[row : row + 1] for name, value in inputs.items()}
            if encoder in ("slap", "zipformer"):
                one = {name: value[:, : inputs["input_features_mask"][row].sum()] for name, value in one.items()}
            alone = model.get_audio_features(**one)
            torch.testing.assert_close(alone.pooler_output[0], whole.pooler_output[row], rtol=1e-5, atol=1e-5)
        plain = model.embed_clips(whole.frame_features, torch.ones_like(whole.frame_mask))
    if not whole.frame_mask.all():
        assert (plain - whole.pooler_output).abs().max() > 1e-3  # control: padded frames would be seen


def test_projection_comes_before_the_mean():
    model = make_model()
    with torch.no_grad():
        output = model.get_audio_features(**audio_of(make_inputs(model)))
        mask = output.frame_mask.unsqueeze(-1)
        late = projected(model.audio_projection, (output.frame_features * mask).sum(1) / mask.sum(1))
    # the second clip has one frame, for which the order is no matter
    difference = (F.normalize(late, dim=-1) - output.pooler_output).abs().amax(1)
    assert difference[1] < 1e-6
    assert difference[[0, 2, 3]].min() > 1e-3


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_frames_are_unit_and_a_clip_of_one_frame_is_its_frame(pooling):
    model = make_model(pooling=pooling)
    inputs = audio_of(make_inputs(model))
    with torch.no_grad():
        frames = model.get_audio_frame_features(**inputs)
        output = model.get_audio_features(**inputs)
    norms = frames.frame_features.norm(dim=-1)
    torch.testing.assert_close(norms, frames.frame_mask.float())
    assert torch.equal(frames.frame_mask, output.frame_mask)
    torch.testing.assert_close(frames.frame_features[1, 0], output.pooler_output[1])
    if pooling == "mean":
        wanted = F.normalize(projected(model.audio_projection, output.frame_features[0, 3]), dim=0)
        torch.testing.assert_close(frames.frame_features[0, 3], wanted, rtol=1e-5, atol=1e-6)


def test_a_caption_is_its_first_token_padded_on_either_side():
    model = make_model()
    ids = torch.tensor([[CLS, 9, 12, 7, SEP]])
    padding = torch.full((1, 3), PAD)
    with torch.no_grad():
        alone = model.get_text_features(ids)
        right = torch.cat([ids, padding], 1)
        padded = model.get_text_features(right, (right != PAD).long(), token_type_ids=torch.zeros_like(right))
        wanted = F.normalize(projected(model.text_projection, alone.last_hidden_state[:, 0]), dim=-1)
        torch.testing.assert_close(alone.pooler_output, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(padded.pooler_output, alone.pooler_output, rtol=1e-5, atol=1e-6)
        left = torch.cat([padding, ids], 1)
        positions = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4]])
        padded = model.get_text_features(left, (left != PAD).long(), position_ids=positions)
        torch.testing.assert_close(padded.pooler_output, alone.pooler_output, rtol=1e-5, atol=1e-6)


def test_without_a_text_tower_clips_are_means_of_the_encoders_frames():
    model = make_model(text_config=None)
    inputs = make_inputs(model)
    with torch.no_grad():
        output = model.get_audio_features(**audio_of(inputs))
        frames = model.get_audio_frame_features(**audio_of(inputs))
        for row in range(4):
            real = output.frame_features[row][output.frame_mask[row]]
            torch.testing.assert_close(output.pooler_output[row], F.normalize(real.mean(0), dim=0))
        wanted = F.normalize(output.frame_features[0, 2], dim=0)
        torch.testing.assert_close(frames.frame_features[0, 2], wanted)
    assert model.config.embedding_size == 24
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"audio_model"}
    for call in (lambda: model.get_text_features(**text_of(inputs)), lambda: model(**inputs)):
        with pytest.raises(ValueError, match="Load a model that was trained with the contrastive term"):
            call()


def test_projections_start_at_torchs_own_scale():
    torch.manual_seed(0)
    model = CaptionStewModel(tiny_captionstew_config(projection_dim=150))
    for linear in (*model.audio_projection.children(), *model.text_projection.children()):
        bound = linear.in_features**-0.5
        for values in (linear.weight, linear.bias):
            assert 0.9 * bound < values.abs().max() <= bound
            assert abs(values.std() / (bound / 3**0.5) - 1) < 0.15  # of a uniform distribution


def test_augmentation_is_of_training_and_fills_the_mean_of_the_clip():
    model = make_model(spec_augment_time_stripes=3, spec_augment_time_share=0.4, spec_augment_mel_width=30)
    inputs = audio_of(make_inputs(model))
    mask = inputs["input_features_mask"]
    features = inputs["input_features"] - 5.0 - 18.0 * ~mask.unsqueeze(-1)  # not normalised, padding far lower
    assert model.augmented(features, mask) is features
    torch.manual_seed(0)
    seen = model.train().augmented(features, mask)
    for row in range(4):
        is_changed = (seen[row] != features[row]) & mask[row].unsqueeze(1)
        assert is_changed.any()
        mean = features[row][mask[row]].mean()
        torch.testing.assert_close(seen[row][is_changed], mean.expand(int(is_changed.sum())))


def test_training_learns_four_pairs():
    model = make_model().train()
    inputs = make_inputs(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model(**inputs, return_loss=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_one_modality_alone_and_unpaired_rows_are_refused():
    model = make_model()
    inputs = make_inputs(model)
    with pytest.raises(ValueError, match="Call `get_text_features` or `get_audio_features` for one modality"):
        model(**text_of(inputs))
    with pytest.raises(ValueError, match="Pass one caption per clip"):
        model(**audio_of(inputs), input_ids=inputs["input_ids"][:2], return_loss=True)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"caption_weight": -1.0}, "`caption_weight` must be 0 or more, got -1.0"),
        ({"parallel_share": 1.5}, "`parallel_share` must lie between 0 and 1, got 1.5"),
        ({"label_smoothing": 1.0}, "`label_smoothing` must be at least 0 and below 1"),
        ({"contrastive_temperature": 0.0}, "`contrastive_temperature` must be positive, got 0.0"),
        ({"projection_dim": 0}, "`projection_dim` must be at least 1, got 0"),
        ({"pooling": "attention", "pooling_heads": 5}, "`pooling_heads` must divide `projection_dim`, got 5 and 12"),
        ({"pooling": "max"}, "pooling"),
    ],
    ids=str,
)
def test_numbers_that_cannot_work_are_refused(numbers, message):
    with pytest.raises(Exception, match=message):
        tiny_captionstew_config(**numbers)


def test_default_is_the_authors_toolkit(tmp_path):
    config = CaptionStewConfig()
    assert config.audio_config.model_type == "zipformer"
    assert config.audio_config.feedforward_dim[0] == 576  # the toolkit's base, not icefall's medium
    assert (config.text_config.model_type, config.text_config.vocab_size) == ("bert", 30522)
    decoder = config.decoder_config
    assert (decoder.num_hidden_layers, decoder.hidden_size, decoder.num_attention_heads) == (6, 768, 8)
    assert (decoder.norm_position, decoder.position_type, decoder.vocab_size) == ("post", "sinusoidal", 50265)
    changed = CaptionStewConfig(text_config=None, decoder_config={"norm_position": "pre", "dropout": 0.0})
    changed.save_pretrained(tmp_path)
    loaded = CaptionStewConfig.from_pretrained(tmp_path)
    assert loaded.text_config is None
    assert (loaded.decoder_config.norm_position, loaded.decoder_config.mlp_type) == ("pre", "gelu")

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""M2D-CLAP's embeddings against a second implementation, its text side, its contrastive loss, and loading."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from m2d_clap_reference import (
    contrastive,
    encoder_grids,
    part,
    project_audio,
    project_text,
    semantic_attention,
    stir,
    token_order,
    unit,
    weights_of,
)
from tiny import PAD, tiny_batch, tiny_m2d_clap_audio_config, tiny_m2d_clap_config, tiny_text_config

from hf_audiolang import (
    AudioProjector,
    AudioProjectorConfig,
    M2dClapAudioModel,
    M2dClapConfig,
    M2dClapForPreTraining,
    M2dClapModel,
)
from hf_audiolang.models.losses_contrastive import contrastive_loss, ungathered_contrastive_loss

FRAMES = (98, 9, 250, 112, 33)  # one piece, one column, three pieces, a full piece
PROJECTORS = {
    "transformer": {"intermediate_size": 36},
    "two blocks": {"num_hidden_layers": 2, "intermediate_size": 20},
    "three heads": {"num_attention_heads": 3},
    "mlp": {"projector_type": "mlp", "intermediate_size": 31},
    "mean": {"projector_type": "mean"},
}


def make_model(model_class=M2dClapModel, projector=None, dtype=torch.float64, **overrides):
    """A model in which every weight matters."""
    torch.manual_seed(0)
    given = {"hidden_size": 24, "intermediate_size": 24} | (projector or {})
    config = tiny_m2d_clap_config(projector_config=AudioProjectorConfig(**given), **overrides)
    return stir(model_class(config)).to(dtype).eval()


def make_clips(frames=FRAMES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clips = [torch.randn(number, 80, generator=generator, dtype=torch.float64) for number in frames]
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=float("nan"))
    return clips, padded, torch.arange(max(frames)) < torch.tensor(frames).unsqueeze(1)


def captions(config, side="right", seed=1):
    """The tiny batch's captions, padded on either side, and each of them alone."""
    batch = tiny_batch(config, seed)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    alone = [row[keep.bool()] for row, keep in zip(ids, mask, strict=True)]
    if side == "left":
        ids = torch.stack([torch.cat([torch.full((ids.shape[1] - len(one),), PAD), one]) for one in alone])
        mask = mask.flip(1)
    return ids, mask, alone


# audio


@pytest.mark.parametrize("projector", PROJECTORS)
def test_clip_embeddings_equal_the_reference(projector):
    """All pieces of a long clip enter the projector together; padding is NaN."""
    model = make_model(projector=PROJECTORS[projector])
    clips, features, mask = make_clips()
    with torch.no_grad():
        got = model.get_audio_features(features, mask)
    weights, config = weights_of(model), model.config
    for row, clip in enumerate(clips):
        tokens = token_order(
            config.audio_config, encoder_grids(config.audio_config, part(weights, "audio_model"), clip)[-1]
        )
        torch.testing.assert_close(got.last_hidden_state[row, got.token_mask[row]], tokens)
        wanted = unit(project_audio(config.projector_config, part(weights, "audio_projection"), tokens))
        # the softmax of pooling and the norm are computed in float32
        torch.testing.assert_close(got.pooler_output[row], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_frame_embeddings_are_the_projector_on_one_column(projector):
    model = make_model(projector=PROJECTORS[projector])
    clips, features, mask = make_clips()
    with torch.no_grad():
        got = model.get_audio_frame_features(features, mask)
        assert torch.equal(got.frame_mask, model.audio_model(features, mask).frame_mask)
    weights, config = weights_of(model), model.config
    for row, clip in enumerate(clips):
        grid = encoder_grids(config.audio_config, part(weights, "audio_model"), clip)[-1]
        assert got.frame_mask[row].tolist() == [column < grid.shape[1] for column in range(got.frame_mask.shape[1])]
        for column in range(grid.shape[1]):
            wanted = project_audio(config.projector_config, part(weights, "audio_projection"), grid[:, column])
            torch.testing.assert_close(got.frame_features[row, column], unit(wanted), rtol=0, atol=1e-6)
        assert torch.count_nonzero(got.frame_features[row, grid.shape[1] :]) == 0


def test_projector_attention_equals_the_reference():
    model = make_model(projector={"intermediate_size": 36})
    clips, features, mask = make_clips()
    with torch.no_grad():
        got = model.get_projector_attention(features, mask)
    assert got.shape == (5, 5, 16)  # 250 frames: 7 + 7 + 2 columns
    torch.testing.assert_close(got.sum((1, 2)), torch.ones(5))
    weights, config = weights_of(model), model.config
    for row, clip in enumerate(clips):
        grid = encoder_grids(config.audio_config, part(weights, "audio_model"), clip)[-1]
        # grid order differs from token order only in how pieces are joined, which attention does not see
        wanted = semantic_attention(config.projector_config, part(weights, "audio_projection"), grid).float()
        torch.testing.assert_close(got[row, :, : grid.shape[1]], wanted, rtol=1e-5, atol=1e-7)
        assert torch.count_nonzero(got[row, :, grid.shape[1] :]) == 0
        assert got[row, :, : grid.shape[1]].amax() > 1.2 * got[row, :, : grid.shape[1]].amin()  # not uniform


@pytest.mark.parametrize("kind", ["mlp", "mean"])
def test_projectors_without_attention_refuse_to_show_it(kind):
    with pytest.raises(ValueError, match=f"'{kind}'"):
        make_model(projector={"projector_type": kind}).get_projector_attention(torch.zeros(1, 33, 80))


def test_projector_alone_equals_the_reference():
    """On tokens of any encoder, padded anywhere."""
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randn(3, 9, 24, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 9, generator=generator) < 0.6
    for numbers in PROJECTORS.values():
        config = AudioProjectorConfig(**({"hidden_size": 24, "intermediate_size": 24} | numbers))
        model = stir(AudioProjector(config)).double().eval()
        with torch.no_grad():
            # the type without weights computes in float32
            got = model(tokens, mask).pooler_output
        for row in range(3):
            wanted = project_audio(config, weights_of(model), tokens[row, mask[row]])
            torch.testing.assert_close(got[row].double(), wanted, rtol=0, atol=2e-6)


# text


# BERT counts positions from the left, padding included: its captions are padded on the right
@pytest.mark.parametrize(("tower", "side"), [("bert", "right"), ("modernbert", "right"), ("modernbert", "left")])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_caption_embeddings_pool_real_tokens_only(tower, pooling, side):
    numbers = {} if tower == "bert" else {"text_config": tiny_text_config()}
    model = make_model(text_pooling=pooling, **numbers)
    ids, mask, alone = captions(model.config, side)
    with torch.no_grad():
        got = model.get_text_features(ids, mask).pooler_output
        for row, caption in enumerate(alone):
            states = model.text_model(input_ids=caption.unsqueeze(0)).last_hidden_state[0]
            pooled = {"cls": states[0], "mean": states.mean(0), "last": states[-1]}[pooling]
            wanted = unit(project_text("linear", part(weights_of(model), "text_projection"), pooled))
            torch.testing.assert_close(got[row], wanted, rtol=0, atol=2e-6)  # unit_rows is float32


def test_poolings_differ():
    ids, mask, _ = captions(tiny_m2d_clap_config())
    with torch.no_grad():
        results = [
            make_model(text_pooling=pooling).get_text_features(ids, mask).pooler_output
            for pooling in ("cls", "mean", "last")
        ]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert (results[first] - results[second]).abs().max() > 1e-2


@pytest.mark.parametrize(("kind", "width"), [("none", 24), ("linear", 10), ("mlp", 10), ("mlp", 31), ("linear", 24)])
def test_precomputed_embeddings_take_the_place_of_the_tower(kind, width):
    model = make_model(text_config=None, text_embedding_size=width, text_projector=kind)
    assert model.text_model is None
    assert not [name for name in model.state_dict() if name.startswith("text_model")]
    embeddings = 40 * torch.randn(4, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        got = model.get_text_features(text_embeddings=embeddings).pooler_output
        rough = model.get_text_features(text_embeddings=embeddings.half()).pooler_output  # stored form
    wanted = unit(project_text(kind, part(weights_of(model), "text_projection"), embeddings))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(rough, wanted, rtol=0, atol=1e-2)


def test_tower_and_precomputed_embeddings_agree():
    """The pooled states handed in as embeddings give what the captions give."""
    model = make_model(text_pooling="mean")
    ids, mask, alone = captions(model.config)
    with torch.no_grad():
        pooled = torch.stack([model.text_model(input_ids=one[None]).last_hidden_state[0].mean(0) for one in alone])
        by_captions = model.get_text_features(ids, mask).pooler_output
        torch.testing.assert_close(model.get_text_features(text_embeddings=pooled).pooler_output, by_captions)


def test_token_types_reach_the_tower():
    model = make_model()
    ids, mask, _ = captions(model.config)
    with torch.no_grad():
        plain = model.get_text_features(ids, mask).pooler_output
        zeros = model.get_text_features(ids, mask, token_type_ids=torch.zeros_like(ids)).pooler_output
        ones = model.get_text_features(ids, mask, token_type_ids=torch.ones_like(ids)).pooler_output
    assert torch.equal(plain, zeros)
    assert (plain - ones).abs().max() > 1e-3


def test_missing_and_misfitting_captions_are_refused():
    with pytest.raises(ValueError, match="no text encoder"):
        make_model(text_config=None).get_text_features(input_ids=torch.tensor([[2, 7, 3]]))
    with pytest.raises(ValueError, match="no text encoder"):
        make_model(text_config=None).get_text_features()
    with pytest.raises(ValueError, match="`input_ids` are needed"):
        make_model().get_text_features()
    model = make_model(text_config=None, text_embedding_size=31, text_embedding_model="nvidia/NV-Embed-v2")
    with pytest.raises(ValueError, match=r"must be \(batch, 31\), got \(2, 30\).*nvidia/NV-Embed-v2"):
        model.get_text_features(text_embeddings=torch.zeros(2, 30))
    with pytest.raises(ValueError, match="both needed, got no captions"):
        model(input_features=torch.zeros(1, 33, 80))


def test_configurations_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="'none' needs caption embeddings as wide as the audio encoder, 24, got 16"):
        tiny_m2d_clap_config(text_projector="none")
    with pytest.raises(ValueError, match="width of the audio encoder, 24, got 20"):
        tiny_m2d_clap_config(projector_config=AudioProjectorConfig(hidden_size=20))
    for numbers, message in (
        ({"masking_ratio": 0.0}, "`masking_ratio` is 0 with `masked_weight` 1"),
        ({"masking_ratio": 1.0}, "`masking_ratio` must be at least 0 and below 1, got 1"),
        ({"masking_ratio": -0.1, "masked_weight": 0.0}, "`masking_ratio` must be at least 0 and below 1, got -0.1"),
        ({"predictor_num_heads": 3}, "`predictor_hidden_size` must be a multiple"),
        (
            {"audio_config": {"num_mel_bins": 84}},
            "`num_mel_bins` must be a multiple of `patch_mel_bins`, got 84 and 16",
        ),
        ({"audio_config": {"num_attention_heads": 5}}, "`hidden_size` must be a multiple of `num_attention_heads`"),
    ):
        with pytest.raises(StrictDataclassError, match=message):
            tiny_m2d_clap_config(**numbers)
    assert tiny_m2d_clap_config(masking_ratio=0.0, masked_weight=0.0).masking_ratio == 0


def test_widths_follow_the_towers():
    assert tiny_m2d_clap_config().text_embedding_size == 16  # the tiny BERT's
    assert tiny_m2d_clap_config().projector_config.hidden_size == 24
    assert M2dClapConfig().text_embedding_size == 4096
    base = M2dClapConfig()
    assert base.logit_scale_init_value == pytest.approx(math.log(1 / 0.07), abs=1e-4)
    assert base.logit_scale_max == pytest.approx(math.log(100), abs=1e-4)


# scores and contrastive loss


def test_scores_and_loss_equal_the_reference():
    model = make_model(logit_scale_init_value=1.3)
    clips, features, mask = make_clips(FRAMES[:4])
    ids, attention_mask, alone = captions(model.config)
    with torch.no_grad():
        inputs = {"input_ids": ids, "attention_mask": attention_mask}
        output = model(input_features=features, input_features_mask=mask, **inputs, return_loss=True)
    weights, config = weights_of(model), model.config
    audio, text = [], []
    for clip, caption in zip(clips, alone, strict=True):
        grid = encoder_grids(config.audio_config, part(weights, "audio_model"), clip)[-1]
        tokens = token_order(config.audio_config, grid)
        audio.append(project_audio(config.projector_config, part(weights, "audio_projection"), tokens))
        state = model.text_model(input_ids=caption.unsqueeze(0)).last_hidden_state[0, 0].detach()
        text.append(project_text("linear", part(weights, "text_projection"), state))
    audio, text, scale = torch.stack(audio), torch.stack(text), weights["logit_scale.log_scale"].exp()
    scores = scale * unit(audio) @ unit(text).T
    torch.testing.assert_close(output.logits_per_audio, scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.logits_per_text, scores.T, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.loss.double(), contrastive(audio, text, scale), rtol=1e-6, atol=1e-6)
    assert output.loss_terms["contrastive"] is output.loss


LOSSES = [contrastive_loss, ungathered_contrastive_loss]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
def test_loss_in_closed_form(loss, scale):
    eye, first = torch.eye(5, 7), torch.eye(5, 7)[:1].expand(5, 7)
    cases = {
        "pairs alike, all others at right angles": (eye, eye, math.log(1 + 4 * math.exp(-scale))),
        "every pair wrong": (eye, eye.roll(1, 0), math.log(1 + 4 * math.exp(-scale)) + scale),
        "all alike": (first, first, math.log(5)),
        # by rows all scores are alike; by columns each caption is nearest to the first clip
        "one caption for all": (eye, first, (math.log(5) + math.log(math.exp(scale) + 4) - scale / 5) / 2),
    }
    for name, (audio, text, wanted) in cases.items():
        got = loss(audio.double(), text.double(), torch.tensor(scale, dtype=torch.float64)).item()
        assert got == pytest.approx(wanted, rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_equal_the_reference(loss):
    generator = torch.Generator().manual_seed(0)
    audio, text = (torch.randn(5, 7, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    got = loss(unit(audio), unit(text), scale)
    wanted = contrastive(audio, text, scale)
    torch.testing.assert_close(got, wanted)
    for one, other in zip(*(torch.autograd.grad(v, (audio, text, scale)) for v in (got, wanted)), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(loss(unit(text), unit(audio), scale), wanted)  # symmetric


# loading


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.fixture
def saved(tmp_path):
    """A training checkpoint and what a run exports of it."""
    model = make_model(M2dClapForPreTraining, dtype=torch.float32)
    model.save_pretrained(tmp_path / "training")
    model.exported_model.save_pretrained(tmp_path / "system")
    return model, tmp_path


def test_parts_are_loaded_from_whole_checkpoints(saved):
    model, folder = saved
    system = model.m2d_clap
    for name in ("training", "system"):
        assert same(system, M2dClapModel.from_pretrained(folder / name))
    assert same(system.audio_model, M2dClapAudioModel.from_pretrained(folder / "system"))
    config = system.config.projector_config
    assert same(system.audio_projection, AudioProjector.from_pretrained(folder / "system", config=config))


def test_encoder_of_a_training_checkpoint_is_refused_rather_than_random(saved):
    model, folder = saved
    with pytest.raises(ValueError, match="would be random"):
        M2dClapAudioModel.from_pretrained(folder / "training", config=model.config.audio_config)


def test_missing_encoders_are_refused(tmp_path):
    system = make_model(dtype=torch.float32)
    state = {name: value for name, value in system.state_dict().items() if not name.startswith("audio_model.layers.1")}
    system.save_pretrained(tmp_path / "torn", state_dict=state)
    for model_class in (M2dClapModel, M2dClapAudioModel, M2dClapForPreTraining):
        with pytest.raises(ValueError, match=rf"lacks 16 weights of {model_class.__name__}, .*layers\.1"):
            model_class.from_pretrained(tmp_path / "torn")
    tower = make_model(dtype=torch.float32).audio_model
    tower.save_pretrained(tmp_path / "tower")
    with pytest.raises(ValueError, match=r"lacks .* weights of M2dClapModel"):
        M2dClapModel.from_pretrained(tmp_path / "tower", config=system.config)
    random = M2dClapModel.from_pretrained(tmp_path / "torn", allow_random_encoder=True)
    assert torch.isfinite(random.audio_model.layers[1].attn.q_proj.weight).all()


def test_encoder_with_other_sizes_is_refused(saved):
    _, folder = saved
    with pytest.raises((ValueError, RuntimeError)):
        M2dClapAudioModel.from_pretrained(folder / "system", config=tiny_m2d_clap_audio_config(hidden_size=48))


def test_missing_teacher_starts_as_the_loaded_encoder(saved):
    model, folder = saved
    torch.manual_seed(1)
    started = M2dClapForPreTraining.from_pretrained(folder / "system")
    assert same(started.m2d_clap, model.m2d_clap)
    pairs = started.teacher_pairs()
    assert len(pairs) == 2
    assert all(same(online, teacher) for teacher, online in pairs)
    assert not any(p.requires_grad for teacher, _ in pairs for p in teacher.parameters())
    assert started.predictor.in_proj.weight.std() > 0.05  # the predictor is new
    continued = M2dClapForPreTraining.from_pretrained(folder / "training")
    assert same(continued, model)  # a teacher that was saved stays what it was
    assert not all(same(online, teacher) for teacher, online in continued.teacher_pairs())


def test_exported_model_is_what_inference_needs(saved):
    model, folder = saved
    assert model.exported_model is model.m2d_clap
    names = M2dClapModel.from_pretrained(folder / "system").state_dict()
    assert not [name for name in names if "teacher" in name or "predictor" in name]
    alone = make_model(M2dClapForPreTraining, contrastive_weight=0.0)
    assert alone.exported_model is alone.m2d_clap.audio_model
    assert (alone.has_text_input, model.has_text_input) == (False, True)

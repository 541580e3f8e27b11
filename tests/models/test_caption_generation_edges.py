# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Caches, padding on either side, other vocabularies and missing inputs of captioners: what is easily got wrong."""

import pytest
import torch
from test_caption_generation import (
    CAPTIONERS,
    FORMS,
    audio_of,
    captionstew_captioner,
    decoder_inputs,
    decoder_of,
    slap_captioner,
)
from tiny import CLS, MASK, PAD, tiny_batch, tiny_captionstew_config, tiny_slap_config
from transformers import AutoModel, DynamicCache, EncoderDecoderCache

from hf_audiolang import (
    CaptionStewForConditionalGeneration,
    SlapForConditionalGeneration,
    SlapForPreTraining,
    SlapModel,
)


@pytest.fixture(params=CAPTIONERS)
def model(request):
    return CAPTIONERS[request.param]()


def new_cache(decoder) -> EncoderDecoderCache:
    return EncoderDecoderCache(DynamicCache(config=decoder.config), DynamicCache(config=decoder.config))


def padded_on_both_sides(tokens):
    """(tokens with padding around them, their mask); rows begin and end at different places."""
    at = torch.arange(9)
    real = (at >= torch.tensor([[3], [1], [0]])) & (at < torch.tensor([[9], [7], [6]]))
    padded = torch.full((3, 9), PAD)
    padded[real] = tokens.flatten()
    return padded, real


# the decoder


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("form", FORMS)
def test_padding_on_either_side_changes_no_state(form, implementation):
    decoder = decoder_of(form)
    decoder.set_attn_implementation(implementation)
    tokens, audio, mask = decoder_inputs()
    padded, real = padded_on_both_sides(tokens)
    with torch.no_grad():
        plain = decoder(tokens, audio, mask)
        states = decoder(padded, audio, mask, real)
        unmasked = decoder(padded, audio, mask)
    torch.testing.assert_close(states[real].view_as(plain), plain, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(states).all()
    assert (unmasked[real].view_as(plain)[:2] - plain[:2]).abs().max() > 1e-2  # control: padding would be seen


@pytest.mark.parametrize("form", FORMS)
def test_steps_on_a_cache_give_the_states_of_one_pass(form):
    decoder = decoder_of(form)
    tokens, audio, mask = decoder_inputs()
    padded, real = padded_on_both_sides(tokens)
    cache = new_cache(decoder)
    with torch.no_grad():
        whole = decoder(padded, audio, mask, real)
        parts = [decoder(padded[:, :4], audio, mask, real[:, :4], cache=cache)]
        for end in range(5, 10):  # what was heard in the first step is not needed any more
            parts.append(decoder(padded[:, end - 1 : end], None, mask, real[:, :end], cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1)[real], whole[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_padding_of_the_audio_may_hold_anything(form, is_cached):
    decoder = decoder_of(form)
    tokens, audio, mask = decoder_inputs()
    poisoned = torch.where(mask.unsqueeze(-1), audio, float("nan"))
    with torch.no_grad():
        states = decoder(tokens, poisoned, mask, cache=new_cache(decoder) if is_cached else None)
        torch.testing.assert_close(states, decoder(tokens, audio, mask), rtol=1e-5, atol=1e-5)
        assert (decoder(tokens, audio) - states).abs().max() > 1e-2  # control: unmasked, it is heard


@pytest.mark.parametrize("form", FORMS)
def test_mixed_rows_are_the_same_in_eager_and_sdpa_attention(form):
    decoder = decoder_of(form)
    tokens, audio, mask = decoder_inputs()
    is_parallel, real = torch.tensor([False, True, False]), torch.arange(6) < torch.tensor([[6], [4], [3]])
    found = []
    for implementation in ("eager", "sdpa"):
        decoder.set_attn_implementation(implementation)
        with torch.no_grad():
            found.append(decoder(tokens, audio, mask, real, is_parallel))
    torch.testing.assert_close(found[0][real], found[1][real], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        causal = decoder(tokens, audio, mask, real)
    for row in (0, 2):  # its neighbour changes nothing
        torch.testing.assert_close(found[1][row, real[row]], causal[row, real[row]], rtol=1e-5, atol=1e-5)
    assert (found[1][1, :3] - causal[1, :3]).abs().max() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_parallel_rows_on_a_cache_and_masks_of_another_width_are_refused(form):
    decoder = decoder_of(form)
    tokens, audio, mask = decoder_inputs()
    with pytest.raises(ValueError, match="Leave one of the two out"):
        decoder(tokens, audio, mask, is_parallel=torch.tensor([True, False, True]), cache=new_cache(decoder))
    with pytest.raises(ValueError, match=r"must be \(batch, 6\), got \(3, 4\)"):
        decoder(tokens, audio, mask, torch.ones(3, 4, dtype=torch.bool))


@pytest.mark.parametrize("form", ["released", "bart"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_mixed_rows_train_under_autocast_to_bf16(form, implementation):
    decoder = decoder_of(form, dropout=0.0).train()
    decoder.set_attn_implementation(implementation)
    tokens, audio, mask = decoder_inputs()
    is_parallel, real = torch.tensor([False, True, True]), torch.ones(3, 6, dtype=torch.bool)
    exact = decoder(tokens, audio, mask, real, is_parallel)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = decoder(tokens, audio, mask, real, is_parallel)
    assert (rounded.float() - exact).abs().mean() < 0.05 * exact.abs().mean()
    rounded.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in decoder.parameters() if p.grad is not None)


# generate


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_captions_go_on_from_beginnings_padded_on_the_left(model, options):
    audio = audio_of(model)
    begun = torch.tensor([[PAD, PAD, CLS, 9], [PAD, CLS, 8, 9], [CLS, 7, 8, 9], [PAD, PAD, PAD, CLS]])
    mask = (begun != PAD).long()
    given = {"max_new_tokens": 6, "min_new_tokens": 6}
    together = model.generate(**audio, decoder_input_ids=begun, decoder_attention_mask=mask, **given, **options)
    for row, num_frames in enumerate(audio["input_features_mask"].sum(1).tolist()):
        words = begun[row, mask[row] == 1]
        features = audio["input_features"][row : row + 1, :num_frames]
        alone = model.generate(input_features=features, decoder_input_ids=words.unsqueeze(0), **given)[0]
        assert together[row, 4 - len(words) :].tolist() == alone.tolist()


def test_a_static_cache_takes_an_encoder_with_more_tokens_than_frames():
    torch.manual_seed(1)
    config = tiny_captionstew_config(text_config=None, contrastive_weight=0.0)
    model = CaptionStewForConditionalGeneration(config).eval()
    audio = audio_of(model)
    with torch.no_grad():
        encoded = model.get_encoder()(**audio)
    assert encoded.last_hidden_state.shape[1] > encoded.frame_features.shape[1]
    dynamic = model.generate(**audio, max_new_tokens=6)
    assert torch.equal(dynamic, model.generate(**audio, max_new_tokens=6, cache_implementation="static"))


@pytest.mark.parametrize("build", [slap_captioner, captionstew_captioner], ids=["tied", "untied"])
def test_another_vocabulary_changes_the_decoder_alone(build, tmp_path):
    model = build()
    audio = audio_of(model)
    tokens = torch.full((4, 2), CLS)
    with torch.no_grad():
        before = model(**audio, decoder_input_ids=tokens).logits
    text_tower = [p.clone() for name, p in model.named_parameters() if ".text_model." in name]
    model.resize_token_embeddings(40, mean_resizing=False)
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    with torch.no_grad():
        after = loaded.eval()(**audio, decoder_input_ids=tokens).logits
    assert after.shape[-1] == 40
    torch.testing.assert_close(after[..., : before.shape[-1]], before, rtol=1e-5, atol=1e-5)
    kept = [p for name, p in loaded.named_parameters() if ".text_model." in name]
    assert all(torch.equal(a, b) for a, b in zip(text_tower, kept, strict=True))


def test_the_system_in_a_captioners_folder_is_no_captioner(tmp_path):
    slap_captioner().save_pretrained(tmp_path / "captioner")
    system = AutoModel.from_pretrained(tmp_path / "captioner")
    assert isinstance(system, SlapModel)
    assert not system.config.is_encoder_decoder
    vocab_size = system.config.decoder_config.vocab_size
    system.resize_token_embeddings(40, mean_resizing=False)
    assert (system.config.text_config.vocab_size, system.config.decoder_config.vocab_size) == (40, vocab_size)
    system.save_pretrained(tmp_path / "system")
    again = AutoModel.from_pretrained(tmp_path / "system")
    assert again.get_input_embeddings().weight.shape[0] == 40


def test_building_the_trained_captioner_draws_nothing_and_leaves_the_training_configuration_alone():
    model = SlapForPreTraining(tiny_slap_config())
    state, written = torch.get_rng_state(), model.config.to_dict()
    captioner = model.exported_captioner
    assert torch.equal(state, torch.get_rng_state())
    assert model.config.to_dict() == written
    assert captioner.config.is_encoder_decoder
    assert not any(parameter.is_meta for parameter in captioner.parameters())


def test_missing_inputs_are_named(model):
    with pytest.raises(ValueError, match="give `input_features`, or `encoder_outputs`"):
        model(decoder_input_ids=torch.full((4, 2), CLS))
    with pytest.raises(ValueError, match="call `generate` to write captions"):
        model(**audio_of(model))
    with pytest.raises(ValueError, match="There is no audio: give `input_features`"):
        model.generate(num_beams=2)
    nothing = {name: values[:0] for name, values in audio_of(model).items()}
    with pytest.raises(ValueError, match="There is no clip in `input_features`"):
        model.generate(**nothing)


def test_the_longest_caption_is_the_one_asked_for(model):
    endless = {**audio_of(model), "eos_token_id": -1, "num_beams": 1}
    default = model.generation_config.max_new_tokens + 1  # the beginning counts
    lengths = {
        default: {},
        5: {"max_new_tokens": 4},
        4: {"max_length": 4},
        3: {"max_length": 9, "max_new_tokens": 2},
    }
    for expected, options in lengths.items():
        assert model.generate(**endless, **options).shape[1] == expected
    assert model.generation_config.max_new_tokens == default - 1  # as before


def test_clips_are_augmented_where_captions_are_learnt_alone(model, monkeypatch):
    audio, tokens, asked = audio_of(model), torch.full((4, 3), 7), []
    plain = model.augmented
    monkeypatch.setattr(model, "augmented", lambda *given: asked.append(given) or plain(*given))
    model(**audio, decoder_input_ids=tokens)
    model.generate(**audio, max_new_tokens=2)
    assert not asked
    model.train()(**audio, labels=tokens)
    assert len(asked) == 1
    changed = plain(audio["input_features"], audio["input_features_mask"])
    assert not torch.equal(changed, audio["input_features"])
    model.eval()
    assert torch.equal(plain(audio["input_features"], audio["input_features_mask"]), audio["input_features"])


@pytest.mark.parametrize("given", ["decoder_input_ids", "labels"])
def test_clips_without_sound_are_refused_by_forward(model, given):
    audio = audio_of(model)
    tokens = torch.full((4, 3), 7)
    silent = audio["input_features_mask"].clone()
    silent[2] = False
    with pytest.raises(ValueError, match=r"rows \[2\]"):
        model(audio["input_features"], silent, **{given: tokens})
    with pytest.raises(ValueError, match=r"extractor|processor"):
        model(audio["input_features"][:, :0], **{given: tokens})


@pytest.mark.parametrize("token", ["pad", "bos", "eos"])
@pytest.mark.parametrize("model_class", [SlapForConditionalGeneration, SlapForPreTraining])
def test_slap_names_the_token_that_captions_lack(model_class, token):
    lacking = tiny_slap_config(decoder_config={f"{token}_token_id": None})
    with pytest.raises(ValueError, match=f"`{token}_token_id`, got None.*Use a tokenizer that has"):
        model_class(lacking)
    lacking.caption_weight = 0.0  # without captions none is needed
    assert SlapForPreTraining(lacking).exported_captioner is None


def test_parallel_rows_are_written_from_the_audio_alone():
    """Other audio gives other states, and each place its own."""
    decoder = decoder_of("released")
    tokens, audio, mask = decoder_inputs()
    real, is_parallel = torch.ones(3, 6, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    masked = torch.full_like(tokens, MASK)
    with torch.no_grad():
        states = decoder(masked, audio, mask, real, is_parallel)
        louder = decoder(masked, audio.flip(0), mask.flip(0), real, is_parallel)
    assert (states - louder)[[0, 2]].abs().amax((1, 2)).min() > 1e-2
    assert (states[:, 1:] - states[:, :-1]).abs().amax(-1).min() > 1e-3  # places differ


def test_pretraining_gives_loss_and_gradients_with_barts_decoder():
    torch.manual_seed(1)
    numbers = {"decoder_type": "bart", "dropout": 0.0}
    model = SlapForPreTraining(tiny_slap_config(decoder_config=numbers)).eval()
    batch = tiny_batch(model.config, seed=1)
    loss = model(**batch).loss_terms["caption"]
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.caption_decoder.parameters())
    audio = {name: batch[name] for name in ("input_features", "input_features_mask")}
    torch.testing.assert_close(model.exported_captioner(**audio, labels=batch["labels"]).loss, loss)

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writing captions: caches, beams, sampling, parallel rows, BART's decoder, and what is refused."""

import copy
import json

import pytest
import torch
from common import CommonModelTests
from huggingface_hub.errors import StrictDataclassError
from tiny import (
    CLS,
    MASK,
    PAD,
    SEP,
    VOCABULARY,
    tiny_batch,
    tiny_captionstew_config,
    tiny_decoder_config,
    tiny_slap_config,
    tiny_zipformer_config,
)
from transformers import AutoModel, AutoModelForSpeechSeq2Seq, BartConfig, BartModel

from hf_audiolang import (
    CaptionDecoder,
    CaptionStewForConditionalGeneration,
    SlapForConditionalGeneration,
    SlapForPreTraining,
    SlapModel,
)
from hf_audiolang.models.modeling_bart_decoder import BartCaptionDecoder, build_caption_decoder

FORMS = {
    "slap": {},
    "released": {
        "norm_position": "post",
        "norm_type": "layernorm",
        "position_type": "sinusoidal",
        "mlp_type": "gelu",
        "tie_word_embeddings": False,
    },
    "pre-norm sines with biases": {"norm_type": "layernorm", "position_type": "sinusoidal", "use_bias": True},
    "bart": {"decoder_type": "bart", "mask_token_id": MASK},
}


def slap_captioner(seed: int = 1) -> SlapForConditionalGeneration:
    torch.manual_seed(seed)
    return wide(SlapForConditionalGeneration(tiny_slap_config()))


def captionstew_captioner(seed: int = 1, **decoder) -> CaptionStewForConditionalGeneration:
    torch.manual_seed(seed)
    config = tiny_captionstew_config(
        audio_config=tiny_zipformer_config(), text_config=None, contrastive_weight=0.0, decoder_config=decoder
    )
    return wide(CaptionStewForConditionalGeneration(config))


CAPTIONERS = {
    "slap": slap_captioner,
    "captionstew": captionstew_captioner,
    "captionstew with bart": lambda: captionstew_captioner(decoder_type="bart"),
}


def wide(model):
    """Weights away from their start, so that tokens depend on the audio and on the tokens before."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            hears = "cross_attn" in name or "encoder_" in name
            parameter.add_((0.6 if hears else 0.25) * torch.randn_like(parameter))
    return model.eval()


def audio_of(model, seed: int = 1) -> dict:
    batch = tiny_batch(model.config, seed=seed)
    return {name: batch[name] for name in ("input_features", "input_features_mask")}


@pytest.fixture(params=CAPTIONERS)
def model(request):
    return CAPTIONERS[request.param]()


def decoder_of(form: str, **overrides):
    torch.manual_seed(0)
    return wide_decoder(build_caption_decoder(tiny_decoder_config(**FORMS[form] | overrides)))


def wide_decoder(decoder):
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return decoder.eval()


def decoder_inputs(num_tokens: int = 6):
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(5, len(VOCABULARY), (3, num_tokens), generator=generator)
    audio = torch.randn(3, 7, 24, generator=generator)
    return tokens, audio, torch.arange(7) < torch.tensor([[7], [1], [4]])


# generate


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"do_sample": True},
        {"num_beams": 2, "do_sample": True},
        {"num_beams": 3, "num_return_sequences": 2},
    ],
    ids=["greedy", "beams", "samples", "beam samples", "two of three"],
)
def test_a_cache_changes_no_token(model, options):
    audio = audio_of(model)
    written = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        written.append(model.generate(**audio, max_new_tokens=10, use_cache=use_cache, **options))
    assert torch.equal(*written)
    assert len({tuple(row.tolist()) for row in written[0]}) > 1  # control: the audio matters


def test_a_static_cache_changes_no_token(model):
    audio = audio_of(model)
    dynamic = model.generate(**audio, max_new_tokens=9)
    assert torch.equal(dynamic, model.generate(**audio, max_new_tokens=9, cache_implementation="static"))


def test_greedy_takes_the_likeliest_token_each_time(model):
    audio = audio_of(model)
    written = model.generate(**audio, max_new_tokens=7)
    tokens = torch.full((len(written), 1), CLS)
    is_done = torch.zeros(len(written), dtype=torch.bool)
    for place in range(7):
        with torch.no_grad():
            scores = model(**audio, decoder_input_ids=tokens).logits[:, -1]
        if place == 0:
            scores[:, SEP] = float("-inf")  # a caption has a word
        best = scores.argmax(-1).masked_fill(is_done, PAD)
        tokens, is_done = torch.cat([tokens, best.unsqueeze(1)], dim=1), is_done | (best == SEP)
        if is_done.all():
            break
    assert torch.equal(written, tokens)


def naive_beams(model, audio, row: int, num_beams: int, num_tokens: int) -> list[int]:
    """Best caption of a clip, hypothesis by hypothesis; its score is the mean log probability, end included."""
    clip = {name: value[row : row + 1] for name, value in audio.items()}
    open_ones, done = [([CLS], 0.0)], []
    for place in range(num_tokens):
        grown = []
        for tokens, score in open_ones:
            with torch.no_grad():
                scores = model(**clip, decoder_input_ids=torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            if place == 0:
                scores[SEP] = float("-inf")
            grown += [([*tokens, token], score + value) for token, value in enumerate(scores.tolist())]
        grown.sort(key=lambda pair: -pair[1])
        for rank, (tokens, score) in enumerate(grown[: 2 * num_beams]):
            if tokens[-1] == SEP and rank < num_beams:
                done.append((tokens, score / (len(tokens) - 1)))
        open_ones = [pair for pair in grown[: 2 * num_beams] if pair[0][-1] != SEP][:num_beams]
        done = sorted(done, key=lambda pair: -pair[1])[:num_beams]
        if len(done) == num_beams and open_ones[0][1] / (place + 1) <= done[-1][1]:
            break
    else:
        done += [(tokens, score / (len(tokens) - 1)) for tokens, score in open_ones]
    return max(done, key=lambda pair: pair[1])[0]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("build", [slap_captioner, captionstew_captioner], ids=["slap", "captionstew"])
def test_beam_search_equals_a_naive_one(build, seed):
    model = build(seed)
    audio = audio_of(model, seed)
    written = model.generate(**audio, num_beams=3, max_new_tokens=6)
    for row, tokens in enumerate(written.tolist()):
        expected = naive_beams(model, audio, row, 3, 6)
        assert tokens[: len(expected)] == expected
        assert set(tokens[len(expected) :]) <= {PAD, SEP}  # transformers fills up with the end if padding is token 0


def test_sampling_follows_the_seed(model):
    audio = audio_of(model)
    torch.manual_seed(4)
    first = model.generate(**audio, do_sample=True, max_new_tokens=8)
    other = model.generate(**audio, do_sample=True, max_new_tokens=8)
    torch.manual_seed(4)
    assert torch.equal(first, model.generate(**audio, do_sample=True, max_new_tokens=8))
    assert first.shape != other.shape or not torch.equal(first, other)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_clip_has_the_same_caption_alone_and_in_a_batch(model, num_beams):
    audio = audio_of(model)
    together = model.generate(**audio, num_beams=num_beams, max_new_tokens=8)
    for row, length in enumerate(audio["input_features_mask"].sum(1).tolist()):
        alone = model.generate(
            input_features=audio["input_features"][row : row + 1, :length], num_beams=num_beams, max_new_tokens=8
        )[0]
        assert together[row, : len(alone)].tolist() == alone.tolist()


def test_what_the_encoder_returned_may_be_given(model):
    audio = audio_of(model)
    with torch.no_grad():
        encoded = model.get_encoder()(**audio)
    assert torch.equal(
        model.generate(**audio, max_new_tokens=6, num_beams=2),
        model.generate(encoder_outputs=encoded, max_new_tokens=6, num_beams=2),
    )


def test_a_caption_has_a_word_and_ends_with_the_end(model):
    with torch.no_grad():
        for parameter in (model.caption_decoder.output_embedding,):
            parameter[SEP] = 0.0
            parameter[SEP] += 5 * parameter[CLS]
    written = model.generate(**audio_of(model), max_new_tokens=8)
    assert (written[:, 0] == CLS).all()
    assert (written[:, 1] != SEP).all()


def test_captions_stay_within_the_models_own_limit(model):
    assert model.generate(**audio_of(model), min_new_tokens=20, max_new_tokens=20).shape[1] == 21
    assert model.generation_config.max_new_tokens == min(128, model.config.decoder_config.max_position_embeddings) - 1


def test_saved_captioners_write_the_same(model, tmp_path):
    audio = audio_of(model)
    model.generation_config.num_beams = 3
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["decoder_start_token_id"] == CLS
    assert not {"num_beams", "max_new_tokens"} & set(json.loads((tmp_path / "config.json").read_text()))
    loaded, info = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(model)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(loaded.eval().generate(**audio), model.generate(**audio))
    system, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(system) is type(model.base_model)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_silence_is_refused_before_anything_is_written(model):
    audio = audio_of(model)
    audio["input_features_mask"] = audio["input_features_mask"].clone()
    audio["input_features_mask"][2] = False
    with pytest.raises(ValueError, match=r"rows \[2\]"):
        model.generate(**audio, max_new_tokens=4)


# SLAP's captioner and its training


class TestSlapForConditionalGeneration(CommonModelTests):
    model_class = SlapForConditionalGeneration
    auto_class = AutoModelForSpeechSeq2Seq
    main_output = "logits"
    unused_parameters = ()

    def make_config(self):
        return tiny_slap_config()

    def make_inputs(self, config):
        batch = tiny_batch(config, seed=1)
        audio = {name: batch[name] for name in ("input_features", "input_features_mask")}
        return {**audio, "decoder_input_ids": batch["input_ids"][:, :-1]}

    def test_every_trainable_parameter_gets_gradient(self):
        missing = {name for name, grad in self.gradients(self.make_model()).items() if grad is None}
        own = {name for name in missing if not name.startswith(("slap.text_", "slap.audio_p", "slap.logit_scale"))}
        assert own <= {"slap.audio_model.embeddings.mask_token"}  # the rest of the system takes no part


def test_a_trained_slap_gives_its_captioner(tmp_path):
    torch.manual_seed(2)
    trained = SlapForPreTraining(tiny_slap_config()).eval()
    captioner = trained.exported_captioner
    assert captioner.caption_decoder is trained.caption_decoder
    batch = tiny_batch(trained.config, seed=1)
    audio = {name: batch[name] for name in ("input_features", "input_features_mask")}
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with torch.no_grad():
        expected = trained(**batch).loss_terms["caption"]
        torch.testing.assert_close(captioner(**audio, labels=labels).loss, expected)
    trained.save_pretrained(tmp_path)
    loaded, info = SlapForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(loaded.generate(**audio, max_new_tokens=6), captioner.generate(**audio, max_new_tokens=6))
    assert SlapForPreTraining(tiny_slap_config(caption_weight=0.0)).exported_captioner is None
    SlapModel(tiny_slap_config()).save_pretrained(tmp_path / "without")
    with pytest.raises(ValueError, match="they would be random"):
        SlapForConditionalGeneration.from_pretrained(tmp_path / "without")


# the decoder


@pytest.mark.parametrize("form", FORMS)
def test_states_depend_on_earlier_tokens_alone(form):
    decoder = decoder_of(form)
    tokens, audio, mask = decoder_inputs()
    changed = tokens.clone()
    changed[:, 3] = tokens[:, 3] % 20 + 6
    with torch.no_grad():
        before, after = decoder(tokens, audio, mask), decoder(changed, audio, mask)
        louder = decoder(tokens, audio + 1.0, mask)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amax((1, 2)).min() > 1e-3
    assert (before - louder).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("form", [name for name in FORMS if name != "slap"])
def test_parallel_rows_see_all_places_and_causal_rows_of_the_batch_do_not(form, implementation):
    decoder = decoder_of(form)
    decoder.set_attn_implementation(implementation)
    tokens, audio, mask = decoder_inputs()
    tokens = torch.where(torch.tensor([[False], [True], [True]]), torch.full_like(tokens, MASK), tokens)
    is_parallel = torch.tensor([False, True, True])
    real = torch.arange(6) < torch.tensor([[6], [6], [4]])
    with torch.no_grad():
        mixed = decoder(tokens, audio, mask, real, is_parallel)
        causal = decoder(tokens, audio, mask, real)
        shorter = decoder(tokens[:, :4], audio, mask, real[:, :4], is_parallel)
    torch.testing.assert_close(mixed[0], causal[0], rtol=1e-5, atol=1e-5)  # its neighbours change nothing
    assert (mixed[1] - causal[1]).abs().max() > 1e-3  # control: the mask matters
    torch.testing.assert_close(mixed[2, :4], shorter[2], rtol=1e-5, atol=1e-5)  # padding is not seen
    assert (mixed[1, :4] - shorter[1]).abs().max() > 1e-3  # later places are
    # the first place sees the last: unlike in a causal row its state changes with the number of places
    torch.testing.assert_close(causal[1, :4], decoder(tokens[:, :4], audio, mask, real[:, :4])[1].detach())


def test_parallel_decoding_needs_positions_that_mask_tokens_show():
    """Rotary positions turn products of different tokens; among equal mask tokens every place would be the same."""
    decoder = decoder_of("slap")
    _, audio, mask = decoder_inputs()
    masked, real = torch.full((3, 4), MASK), torch.ones(3, 4, dtype=torch.bool)
    with torch.no_grad():
        states = decoder(masked, audio, mask, real, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(states, states[:, :1].expand_as(states), rtol=1e-4, atol=1e-5)
    with pytest.raises(StrictDataclassError) as caught:
        tiny_captionstew_config(parallel_share=0.5, decoder_config={"position_type": "rope"})
    assert "Use 'sinusoidal'" in str(caught.value.__cause__ or caught.value)


def test_a_bool_mask_would_leak_the_future_in_barts_eager_attention():
    """The trap that the mask of numbers avoids: eager attention adds a bool mask as 0 and 1."""
    decoder = decoder_of("bart")
    tokens, audio, _ = decoder_inputs()
    is_parallel, real = torch.tensor([False, False, False]), torch.ones(3, 6, dtype=torch.bool)
    found = {}
    for implementation in ("eager", "sdpa"):
        decoder.set_attn_implementation(implementation)
        numbers = decoder._mask(tokens, real, is_parallel)
        assert numbers.dtype == torch.float32
        for kind, mask in (("numbers", numbers), ("bool", numbers == 0)):
            with torch.no_grad():
                output = decoder.decoder(
                    input_ids=tokens, attention_mask=mask, encoder_hidden_states=decoder.encoder_projection(audio)
                )
            found[implementation, kind] = output.last_hidden_state
    with torch.no_grad():
        causal = decoder(tokens, audio)
    for key in (("eager", "numbers"), ("sdpa", "numbers"), ("sdpa", "bool")):
        torch.testing.assert_close(found[key], causal, rtol=1e-5, atol=1e-5)
    assert (found["eager", "bool"] - causal).abs().max() > 1e-3


@pytest.mark.parametrize("form", [name for name in FORMS if name != "bart"])
def test_left_padding_changes_no_state(form):
    decoder = decoder_of(form)
    tokens, audio, mask = decoder_inputs()
    padded = torch.cat([torch.full((3, 2), PAD), tokens], dim=1)
    real = torch.arange(8).expand(3, -1) >= 2
    with torch.no_grad():
        plain, shifted = decoder(tokens, audio, mask), decoder(padded, audio, mask, real)
    torch.testing.assert_close(shifted[:, 2:], plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_caption_longer_than_the_positions_is_refused(form):
    decoder = decoder_of(form, max_position_embeddings=5)
    tokens, audio, mask = decoder_inputs(6)
    assert torch.isfinite(decoder(tokens[:, :5], audio, mask)).all()
    with pytest.raises(ValueError, match=r"6 tokens is longer than the decoder's 5 positions.*truncation=True"):
        decoder(tokens, audio, mask)


def test_bart_base_weights_come_in():
    torch.manual_seed(1)
    sizes = {"d_model": 16, "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 28, "vocab_size": 33}
    bart = BartModel(
        BartConfig(**sizes, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=20, pad_token_id=0)
    )
    numbers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 28}
    config = tiny_decoder_config(
        decoder_type="bart", vocab_size=33, encoder_hidden_size=16, tie_word_embeddings=False, **numbers
    )
    decoder = BartCaptionDecoder(config).eval()
    decoder.load_bart(bart)
    tokens, audio, _ = decoder_inputs()
    with torch.no_grad():
        expected = bart.eval().decoder(input_ids=tokens, encoder_hidden_states=audio[..., :16]).last_hidden_state
        torch.testing.assert_close(decoder(tokens, audio[..., :16]), expected)
        assert torch.equal(decoder.output_embedding, bart.decoder.embed_tokens.weight)
    more_heads = tiny_decoder_config(
        decoder_type="bart", vocab_size=33, encoder_hidden_size=16, **numbers | {"num_attention_heads": 4}
    )
    with pytest.raises(ValueError, match="has `decoder_attention_heads` 2, this one 4: the weights would load"):
        BartCaptionDecoder(more_heads).load_bart(bart)
    with pytest.raises(ValueError, match="Use a `decoder_config` with its sizes"):
        BartCaptionDecoder(tiny_decoder_config(**{**FORMS["bart"], "hidden_size": 24})).load_bart(bart)


def test_untied_output_has_its_own_weights_and_tied_has_not():
    tied, untied = decoder_of("slap"), decoder_of("released")
    assert tied.output_embedding is tied.embed_tokens.weight
    assert untied.output_embedding is untied.lm_head.weight
    assert not [name for name in tied.state_dict() if "lm_head" in name]


@pytest.mark.parametrize("dropout", ["dropout", "embedding_dropout", "attention_dropout", "activation_dropout"])
def test_every_dropout_acts_in_training_alone(dropout):
    config = tiny_decoder_config(**{"dropout": 0.0, dropout: 0.5})
    torch.manual_seed(0)
    decoder = wide_decoder(CaptionDecoder(config))
    tokens, audio, mask = decoder_inputs()
    with torch.no_grad():
        assert torch.equal(decoder(tokens, audio, mask), decoder(tokens, audio, mask))
        decoder.train()
        assert not torch.allclose(decoder(tokens, audio, mask), decoder(tokens, audio, mask))


def test_gradient_checkpointing_changes_no_gradient_of_the_decoder():
    decoder = decoder_of("released").train()
    tokens, audio, mask = decoder_inputs()
    grads = []
    for is_checkpointed in (False, True):
        twin = copy.deepcopy(decoder)
        if is_checkpointed:
            twin.gradient_checkpointing_enable()
        torch.manual_seed(3)
        twin(tokens, audio, mask).square().sum().backward()
        grads.append([parameter.grad for parameter in twin.parameters()])
    for plain, again in zip(*grads, strict=True):
        torch.testing.assert_close(plain, again)

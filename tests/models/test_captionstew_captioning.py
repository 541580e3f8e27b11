# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""CaptionStew's captioning against torch's own Transformer decoder, and both objectives on one encoder."""

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    CLS,
    MASK,
    PAD,
    SEP,
    tiny_batch,
    tiny_captionstew_config,
    tiny_zipformer_config,
)
from torch import nn
from transformers import AutoModel, AutoModelForSpeechSeq2Seq

from hf_audiolang import (
    CaptionStewConfig,
    CaptionStewForConditionalGeneration,
    CaptionStewForPreTraining,
    CaptionStewModel,
)

NO_AUGMENTATION = {"spec_augment_time_stripes": 0, "spec_augment_mel_stripes": 0}
CAPTIONING = {"text_config": None, "contrastive_weight": 0, **NO_AUGMENTATION}
AUDIO = ("input_features", "input_features_mask")


def make_model(model_class=CaptionStewForConditionalGeneration, **overrides):
    torch.manual_seed(1)
    model = model_class(tiny_captionstew_config(**overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def audio_of(batch, rows=slice(None)):
    return {name: batch[name][rows] for name in AUDIO}


class ReferenceDecoder:
    """The decoder as the authors build it from torch's modules, with the weights of ours, differentiable in them."""

    def __init__(self, model):
        self.decoder, config = model.caption_decoder, model.config.decoder_config
        layer = nn.TransformerDecoderLayer(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            bias=False,
        )
        self.stack = nn.TransformerDecoder(layer, config.num_hidden_layers).to(model.dtype)
        self.heads = config.num_attention_heads
        self.weights = {}
        for number, ours in enumerate(self.decoder.layers):
            for theirs, attention in (("self_attn", ours.self_attn), ("multihead_attn", ours.cross_attn)):
                joined = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
                self._put(number, f"{theirs}.in_proj_weight", torch.cat(joined))
                self._put(number, f"{theirs}.out_proj.weight", attention.o_proj.weight)
            self._put(number, "linear1.weight", ours.mlp.fc1.weight)
            self._put(number, "linear2.weight", ours.mlp.fc2.weight)
            for place, norm in enumerate((ours.self_attn_norm, ours.cross_attn_norm, ours.mlp_norm), 1):
                self._put(number, f"norm{place}.weight", norm.weight)
        assert self.weights.keys() == dict(self.stack.named_parameters()).keys()

    def _put(self, layer, name, weight):
        self.weights[f"layers.{layer}.{name}"] = weight

    def __call__(self, tokens, memory, memory_mask, hidden_keys, is_hidden):
        """Logits; `is_hidden` (B, L, L) is True where a token may not look."""
        width = self.decoder.embed_tokens.weight.shape[1]
        places = torch.arange(tokens.shape[1]).double().unsqueeze(1)
        angles = places * torch.tensor([10000.0 ** (-2 * pair / width) for pair in range(width // 2)]).double()
        table = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)  # sine, cosine, sine, ...
        states = torch.func.functional_call(
            self.stack,
            self.weights,
            (F.embedding(tokens, self.decoder.embed_tokens.weight) + table.to(memory.dtype), memory),
            {
                "tgt_mask": is_hidden.repeat_interleave(self.heads, 0),
                "tgt_key_padding_mask": hidden_keys,
                "memory_key_padding_mask": ~memory_mask,
            },
        )
        return states @ self.decoder.lm_head.weight.T


def reference_caption_loss(model, batch, parallel_rows, smoothing):
    """The authors' captioning loss, rows built one by one: only words are tokens, start and end are added."""
    encoded = model.captionstew.audio_model(**audio_of(batch))
    memory = encoded.frame_features @ model.encoder_projection.weight.T
    inputs, targets = [], []
    for row, ids in enumerate(batch["input_ids"].tolist()):
        words = [token for token in ids if token not in (PAD, CLS, SEP)]
        is_parallel = row in parallel_rows
        inputs.append([MASK] * len(words) if is_parallel else [CLS, *words])
        targets.append(words if is_parallel else [*words, SEP])
    longest = max(map(len, inputs))
    tokens = torch.tensor([row + [PAD] * (longest - len(row)) for row in inputs])
    causal = torch.ones(longest, longest).triu(1).bool()
    is_hidden = torch.stack([torch.zeros_like(causal) if row in parallel_rows else causal for row in range(4)])
    logits = ReferenceDecoder(model)(tokens, memory, encoded.frame_mask, tokens == PAD, is_hidden)
    losses = []
    for row, wanted in enumerate(targets):
        log_probabilities = logits[row].log_softmax(-1)
        for place, token in enumerate(wanted):
            spread = log_probabilities[place].mean()
            losses.append(-(1 - smoothing) * log_probabilities[place, token] - smoothing * spread)
    return torch.stack(losses).mean()


def gradients(model, loss):
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: gradient for name, gradient in zip(names, found, strict=True) if gradient is not None}


@pytest.mark.parametrize(("share", "number"), [(0, 0), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_loss_and_gradients_equal_torchs_decoder(share, number, monkeypatch):
    order = [2, 0, 3, 1]
    monkeypatch.setattr(torch, "randperm", lambda size, device=None: torch.tensor(order)[:size])
    model = make_model(CaptionStewForPreTraining, parallel_share=share, label_smoothing=0.2, **CAPTIONING)
    model = model.double().train()
    batch = tiny_batch(model.config, seed=2)
    batch["input_features"] = batch["input_features"].double()
    given = {name: value for name, value in batch.items() if name != "labels"}
    loss = model(**given).loss
    wanted_loss = reference_caption_loss(model, batch, order[:number], 0.2)
    torch.testing.assert_close(loss, wanted_loss, rtol=1e-6, atol=1e-7)
    got, wanted = gradients(model, loss), gradients(model, wanted_loss)
    assert got.keys() == wanted.keys()
    assert {"encoder_projection.weight", "caption_decoder.lm_head.weight"} < got.keys()
    for name, gradient in got.items():
        if name == "caption_decoder.embed_tokens.weight":  # no gradient at padding, which nothing reads
            gradient, wanted[name] = gradient[PAD + 1 :], wanted[name][PAD + 1 :]
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-6, atol=1e-7, msg=name)
    other_rows = reference_caption_loss(model, batch, [1] if number == 0 else order[: number - 1], 0.2)
    assert (other_rows - loss).abs() > 1e-3  # control: another number of parallel rows would be seen


def test_labels_of_the_captioner_give_the_loss_of_pretraining():
    captioner = make_model(parallel_share=0.5, **CAPTIONING)
    training = make_model(CaptionStewForPreTraining, parallel_share=0.5, **CAPTIONING)
    training.load_state_dict(captioner.state_dict())
    batch = tiny_batch(captioner.config, seed=2)
    for mode in (True, False):
        losses = []
        for model, given in (
            (captioner.train(mode), {"labels": batch["labels"]}),
            (training.train(mode), {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}),
        ):
            torch.manual_seed(4)
            losses.append(model(**audio_of(batch), **given).loss.item())
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    # in evaluation nothing is parallel or smoothed: the loss is that of the logits of all tokens
    with torch.no_grad():
        outputs = captioner(**audio_of(batch), labels=batch["labels"])
        stepwise = captioner(**audio_of(batch), decoder_input_ids=batch["input_ids"][:, :-1]).logits
    targets = batch["labels"][:, 1:]
    torch.testing.assert_close(outputs.loss, F.cross_entropy(stepwise.transpose(1, 2), targets, ignore_index=-100))
    is_real = targets != -100
    torch.testing.assert_close(outputs.logits[is_real], stepwise[is_real], rtol=1e-5, atol=1e-5)


def test_parallel_rows_hear_the_clip_and_see_no_word(monkeypatch):
    monkeypatch.setattr(torch, "randperm", lambda size, device=None: torch.arange(size))
    model = make_model(parallel_share=0.5, **CAPTIONING).train()
    batch = tiny_batch(model.config, seed=2)
    other = batch["labels"].clone()
    other[:, 2] = torch.where(other[:, 2] > MASK, (other[:, 2] - MASK) % 20 + MASK + 1, other[:, 2])
    with torch.no_grad():
        logits = [model(**audio_of(batch), labels=labels).logits for labels in (batch["labels"], other)]
        louder = {**audio_of(batch), "input_features": batch["input_features"] + 1.0}
        heard = model(**louder, labels=batch["labels"]).logits
    num_words = batch["attention_mask"].sum(1) - 2
    for row in (0, 1):
        words = slice(0, int(num_words[row]))
        torch.testing.assert_close(logits[0][row, words], logits[1][row, words])
        assert (heard[row, words] - logits[0][row, words]).abs().max() > 1e-3
    # control: autoregressive rows see earlier words
    assert (logits[0][2, 2:8] - logits[1][2, 2:8]).abs().max() > 1e-3


def reference_greedy(model, batch, num_tokens):
    encoded = model.captionstew.audio_model(**audio_of(batch))
    memory = encoded.frame_features @ model.encoder_projection.weight.T
    decoder, tokens = ReferenceDecoder(model), torch.full((len(memory), 1), CLS)
    for step in range(num_tokens):
        is_hidden = torch.ones(step + 1, step + 1).triu(1).bool().expand(len(memory), -1, -1)
        no_padding = torch.zeros_like(tokens, dtype=torch.bool)
        logits = decoder(tokens, memory, encoded.frame_mask, no_padding, is_hidden)[:, -1]
        if step == 0:
            logits[:, SEP] = float("-inf")
        chosen = logits.argmax(-1)
        has_ended = (tokens == SEP).any(1)
        tokens = torch.cat([tokens, torch.where(has_ended, PAD, chosen).unsqueeze(1)], 1)
        if ((tokens == SEP).any(1)).all():
            break
    return tokens


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_captions_equal_torchs_decoder(use_cache):
    model = make_model(**CAPTIONING)
    with torch.no_grad():
        model.caption_decoder.lm_head.weight[SEP] = 1.01 * model.caption_decoder.lm_head.weight[7]  # ends a caption
    batch = tiny_batch(model.config, seed=2)
    with torch.no_grad():
        wanted = reference_greedy(model, batch, 9)
    got = model.generate(**audio_of(batch), max_new_tokens=9, do_sample=False, use_cache=use_cache)
    assert torch.equal(got, wanted)
    assert 0 < (got == SEP).any(1).sum() < 4


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_caption_is_the_same_alone_and_in_a_batch(num_beams):
    model = make_model(audio_config=tiny_zipformer_config(), **CAPTIONING)
    batch = tiny_batch(model.config, seed=2)
    numbers = {"num_beams": num_beams, "max_new_tokens": 6, "do_sample": False}
    together = model.generate(**audio_of(batch), **numbers)
    assert together.shape[0] == 4
    for row in range(4):
        frames = int(batch["input_features_mask"][row].sum())
        alone = model.generate(input_features=batch["input_features"][row : row + 1, :frames], **numbers)[0]
        padded = F.pad(alone, (0, together.shape[1] - len(alone)), value=PAD)
        assert torch.equal(together[row], padded)


def test_four_captions_are_learned_and_written_to_their_end():
    model = make_model(CaptionStewForPreTraining, parallel_share=0.25, label_smoothing=0.0, **CAPTIONING).train()
    batch = tiny_batch(model.config, seed=2)
    given = {name: value for name, value in batch.items() if name != "labels"}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        model(**given).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    captioner = model.eval().exported_captioner
    written = captioner.generate(**audio_of(batch), max_new_tokens=12, do_sample=False)
    assert torch.equal(written, batch["input_ids"])


# both objectives


def count_calls(module, monkeypatch):
    calls, forward = [], module.forward

    def counted(*args, **kwargs):
        calls.append(args)
        return forward(*args, **kwargs)

    monkeypatch.setattr(module, "forward", counted)
    return calls


def test_both_terms_share_one_pass_and_are_weighted(monkeypatch):
    weights = {"contrastive_weight": 0.5, "caption_weight": 3.0, "regularizer_weight": 2.0}
    model = make_model(CaptionStewForPreTraining, **weights, **NO_AUGMENTATION)
    batch = tiny_batch(model.config, seed=2)
    calls = count_calls(model.captionstew.audio_model, monkeypatch)
    outputs = model(**batch)
    assert len(calls) == 1
    assert outputs.loss_terms.keys() == {"contrastive", "regularizer", "caption"}
    wanted = sum(weights[f"{name}_weight"] * term for name, term in outputs.loss_terms.items())
    torch.testing.assert_close(outputs.loss, wanted)
    given = {name: value for name, value in batch.items() if name != "labels"}
    alone = model.captionstew(**given, return_loss=True)
    for name in ("contrastive", "regularizer"):
        torch.testing.assert_close(outputs.loss_terms[name], alone.loss_terms[name])
    torch.testing.assert_close(outputs.audio_embeds, alone.audio_embeds)
    caption = model.exported_captioner(**audio_of(batch), labels=batch["labels"]).loss
    torch.testing.assert_close(outputs.loss_terms["caption"], caption)


def test_a_term_of_weight_0_leaves_its_modules_out():
    contrastive = make_model(CaptionStewForPreTraining, caption_weight=0)
    assert {name.split(".")[0] for name, _ in contrastive.named_parameters()} == {"captionstew"}
    assert contrastive.exported_captioner is None
    captioning = make_model(CaptionStewForPreTraining, **CAPTIONING)
    parts = {".".join(name.split(".")[:2]) for name, _ in captioning.named_parameters()}
    assert {part for part in parts if part.startswith("captionstew")} == {"captionstew.audio_model"}
    outputs = captioning(**tiny_batch(captioning.config, seed=2))
    assert list(outputs.loss_terms) == ["caption"]
    assert outputs.audio_embeds is None
    same_width = make_model(CaptionStewForPreTraining, decoder_config={"encoder_hidden_size": 24}, **CAPTIONING)
    assert not [name for name, _ in same_width.named_parameters() if "encoder_projection" in name]


def test_augmentation_is_of_training():
    model = make_model(CaptionStewForPreTraining, text_config=None, contrastive_weight=0, label_smoothing=0.0)
    captioner = model.exported_captioner
    batch = tiny_batch(model.config, seed=2)

    def losses(owner, **given):
        torch.manual_seed(4)
        return owner(**audio_of(batch), **given).loss.item()

    ids = {name: batch[name] for name in ("input_ids", "attention_mask")}
    still = losses(model, **ids)
    assert losses(captioner, labels=batch["labels"]) == pytest.approx(still, abs=1e-6)
    moved = losses(model.train(), **ids)
    assert abs(moved - still) > 1e-4
    assert losses(captioner.train(), labels=batch["labels"]) == pytest.approx(moved, abs=1e-6)


def test_parts_load_from_a_training_checkpoint(tmp_path):
    model = make_model(CaptionStewForPreTraining, audio_config=tiny_zipformer_config())
    batch = tiny_batch(model.config, seed=2)
    model.save_pretrained(tmp_path / "training")
    model.exported_captioner.save_pretrained(tmp_path / "captioner")
    numbers = {"max_new_tokens": 6, "do_sample": False}
    wanted = model.exported_captioner.generate(**audio_of(batch), **numbers)
    for folder in ("training", "captioner"):
        captioner, info = CaptionStewForConditionalGeneration.from_pretrained(
            tmp_path / folder, output_loading_info=True
        )
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert torch.equal(captioner.generate(**audio_of(batch), **numbers), wanted)
        system, info = CaptionStewModel.from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        for name, value in model.captionstew.state_dict().items():
            assert torch.equal(system.state_dict()[name], value), name
    assert type(AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "captioner")) is type(captioner)
    assert type(AutoModel.from_pretrained(tmp_path / "captioner")) is CaptionStewModel


def test_a_checkpoint_without_a_decoder_is_no_captioner(tmp_path):
    make_model(CaptionStewModel).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`allow_random_encoder=True` to start from random weights"):
        CaptionStewForConditionalGeneration.from_pretrained(tmp_path)
    loaded = CaptionStewForConditionalGeneration.from_pretrained(tmp_path, allow_random_encoder=True)
    assert loaded.caption_decoder.lm_head.weight.isfinite().all()


def test_default_sizes_are_those_of_the_authors_models():
    """Numbers of weights of the toolkit's models; the Zipformer without its 5,760 weights that nothing reads."""
    zipformer = 65_913_719 - 5_760
    with torch.device("meta"):
        captioner = CaptionStewForConditionalGeneration(CaptionStewConfig(text_config=None))
        contrastive = CaptionStewModel(CaptionStewConfig())
    assert captioner.captionstew.num_parameters() == zipformer
    layers = sum(parameter.numel() for parameter in captioner.caption_decoder.layers.parameters())
    assert layers == 6 * (8 * 768**2 + 2 * 768 * 3072 + 3 * 768)
    assert captioner.num_parameters() - zipformer == layers + 2 * 50265 * 768 + 512 * 768
    bert_without_pooler = 109_482_240 - 768 * 769
    projections = 512 * 1024 + 768 * 1024 + 2 * 1024 * 1024 + 4 * 1024
    assert contrastive.num_parameters() == zipformer + bert_without_pooler + projections


def test_memory_projection_starts_at_torchs_own_scale():
    torch.manual_seed(0)
    decoder = {"encoder_hidden_size": 300}
    weight = CaptionStewForConditionalGeneration(tiny_captionstew_config(decoder_config=decoder)).encoder_projection
    assert weight.bias is None
    bound = 24**-0.5
    assert 0.98 * bound < weight.weight.abs().max() <= bound
    assert weight.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("token", ["pad", "bos", "eos", "mask"])
@pytest.mark.parametrize("model_class", [CaptionStewForConditionalGeneration, CaptionStewForPreTraining])
def test_a_tokenizer_without_a_token_that_is_needed_is_refused(model_class, token):
    lacking = {"decoder_config": {f"{token}_token_id": None}}
    with pytest.raises(ValueError, match=f"`{token}_token_id`, got None .* Use a tokenizer that has"):
        make_model(model_class, parallel_share=0.5, **lacking, **CAPTIONING)
    if token == "mask":  # of which only parallel decoding makes use
        make_model(model_class, parallel_share=0.0, **lacking, **CAPTIONING)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"text_config": None}, "Give a text encoder, or set the weight to 0"),
        ({"contrastive_weight": 0}, "Set `text_config` to null, or raise the weight"),
        ({"contrastive_weight": 0, "caption_weight": 0}, "there is no loss. Raise one"),
    ],
    ids=str,
)
def test_objectives_that_cannot_be_trained_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        make_model(CaptionStewForPreTraining, **numbers)


def test_a_caption_longer_than_the_decoder_is_refused():
    model = make_model(decoder_config={"max_position_embeddings": 4}, **CAPTIONING)
    batch = tiny_batch(model.config, seed=2)
    with pytest.raises(ValueError, match="Cut it when it is tokenized"):
        model(**audio_of(batch), labels=batch["labels"])
    assert model.generation_config.max_new_tokens == 3
    assert model.generate(**audio_of(batch)).shape[1] <= 4

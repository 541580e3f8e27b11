# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""CaptionStew's models in their authors' layout, built of torch's own modules, against what they are converted to."""

import math

import pytest
import torch
import torch.nn.functional as F
import zipformer_official as official
from tiny import SPECIAL_TOKENS, VOCABULARY, tiny_bert_config, tiny_tokenizer
from torch import nn
from transformers import AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor, BertModel

from hf_audiolang import CaptionStewForConditionalGeneration, CaptionStewModel
from hf_audiolang.convert import convert_checkpoint

FRAMES, WIDTH, HEADS, INNER, LAYERS, SHARED = 22, 24, 3, 36, 2, 10
HEAD_SIZES = {"query_head_dim": 6, "value_head_dim": 5, "pos_head_dim": 3}
CLIP_LENGTHS = (77, 40)


class OfficialDecoder(nn.Module):
    """The authors' decoder: torch's post-norm layers without biases on embeddings plus unscaled sines."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.text_embed = nn.Embedding(vocab_size, WIDTH)
        self.output_proj = nn.Linear(WIDTH, vocab_size, bias=False)
        layer = nn.TransformerDecoderLayer(
            WIDTH, HEADS, INNER, dropout=0.1, activation="gelu", batch_first=True, norm_first=False, bias=False
        )
        self.decoder = nn.TransformerDecoder(layer, LAYERS)

    def forward(self, tokens, memory, memory_is_padding, is_forbidden):
        place = torch.arange(tokens.shape[1]).unsqueeze(1)
        rate = torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(10000.0) / WIDTH))
        table = torch.zeros(tokens.shape[1], WIDTH)
        table[:, 0::2], table[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
        states = self.decoder(
            self.text_embed(tokens) + table,
            memory,
            tgt_mask=is_forbidden,
            memory_key_padding_mask=memory_is_padding,
        )
        return self.output_proj(states)


def encoder_state() -> dict[str, torch.Tensor]:
    state = official.official_state(official.TINY)
    state = {f"audio_encoder.{key}": value for key, value in state.items() if "classifier" not in key}
    return state | {"audio_encoder.model_batch_count": torch.tensor(100000.0)}


def perturbed(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def batch():
    features, _ = official.reference_input(official.TINY)
    lengths = torch.tensor(CLIP_LENGTHS)
    return features[:2], torch.arange(features.shape[1]) < lengths.unsqueeze(1)


def frames_of(model) -> tuple[torch.Tensor, torch.Tensor]:
    """What the encoder, whose numbers are tested elsewhere, gives for the batch, and which frames are padding."""
    with torch.no_grad():
        output = model(*batch())
    return output.frame_features, ~output.frame_mask


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    """(official decoder, official projection, folder of the converted model)."""
    folder = tmp_path_factory.mktemp("captioning")
    decoder, projection = perturbed(OfficialDecoder(len(VOCABULARY)), 1), perturbed(nn.Linear(FRAMES, WIDTH, False), 2)
    state = encoder_state() | {f"text_decoder.{key}": value for key, value in decoder.state_dict().items()}
    torch.save(state | {"enc_dec_proj.weight": projection.weight.detach()}, folder / "model.pt")
    tiny_tokenizer().save_pretrained(folder / "tokenizer")
    options = {"num_decoder_heads": HEADS, "tokenizer": str(folder / "tokenizer"), **HEAD_SIZES}
    convert_checkpoint("zipformer", folder / "model.pt", folder / "out", **options)
    return decoder, projection, folder / "out"


def test_captioner_scores_tokens_as_the_authors_decoder(captioner):
    decoder, projection, folder = captioner
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    assert type(model) is CaptionStewForConditionalGeneration
    tokens = torch.tensor([[2, 7, 9, 14, 5], [2, 20, 6, 6, 11]])
    frames, is_padding = frames_of(model.captionstew.audio_model)
    is_future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    with torch.no_grad():
        expected = decoder(tokens, projection(frames), is_padding, is_future)
        features, mask = batch()
        found = model(features, mask, decoder_input_ids=tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_captioner_begins_and_ends_with_the_tokenizers_tokens(captioner):
    decoder, projection, folder = captioner
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    begin, end = (SPECIAL_TOKENS.index(token) for token in ("[CLS]", "[SEP]"))
    frames, is_padding = frames_of(model.captionstew.audio_model)
    for clip in range(2):
        tokens = torch.tensor([[begin]])
        while tokens.shape[1] < 9 and (tokens.shape[1] == 1 or tokens[0, -1] != end):
            length = tokens.shape[1]
            is_future = torch.ones(length, length, dtype=torch.bool).triu(1)
            memory = projection(frames[clip : clip + 1])
            with torch.no_grad():
                scores = decoder(tokens, memory, is_padding[clip : clip + 1], is_future)[0, -1]
            if length == 1:
                scores[end] = -math.inf  # a caption is never empty
            tokens = torch.cat([tokens, scores.argmax().view(1, 1)], dim=1)
        features, mask = (values[clip : clip + 1] for values in batch())
        found = model.generate(input_features=features, input_features_mask=mask, max_new_tokens=8, num_beams=1)
        assert found.tolist() == tokens.tolist()


def test_captioner_without_a_token_to_end_with_is_refused(captioner, tmp_path):
    *_, folder = captioner
    tokenizer = tiny_tokenizer()
    tokenizer.sep_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    options = {"num_decoder_heads": HEADS, "tokenizer": str(tmp_path / "tokenizer"), **HEAD_SIZES}
    with pytest.raises(ValueError, match="need the token `eos_token_id`, got None"):
        convert_checkpoint("zipformer", folder.parent / "model.pt", tmp_path / "out", **options)


def test_captioner_scores_parallel_rows_as_the_authors_decoder(captioner):
    decoder, projection, folder = captioner
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    masked = torch.full((2, 4), SPECIAL_TOKENS.index("[MASK]"))
    frames, is_padding = frames_of(model.captionstew.audio_model)
    with torch.no_grad():
        expected = decoder(masked, projection(frames), is_padding, torch.zeros(4, 4, dtype=torch.bool))
        memory = model.encoder_projection(frames)
        real, parallel = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
        states = model.caption_decoder(masked, memory, ~is_padding, real, parallel)
    torch.testing.assert_close(model.score_tokens(states), expected, rtol=1e-5, atol=1e-5)


def test_contrastive_model_embeds_as_the_authors_modules(tmp_path):
    text = perturbed(BertModel(tiny_bert_config(num_attention_heads=2), add_pooling_layer=False), 3)
    projections = {
        name: perturbed(nn.Sequential(nn.Linear(size, SHARED), nn.ReLU(), nn.Linear(SHARED, SHARED)), seed)
        for name, size, seed in (("audio_proj", FRAMES, 4), ("text_proj", text.config.hidden_size, 5))
    }
    state = encoder_state() | {f"text_encoder.{key}": value for key, value in text.state_dict().items()}
    for name, module in projections.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    torch.save({"model": state}, tmp_path / "pretrained.pt")
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    options = {"text_num_attention_heads": 2, "tokenizer": str(tmp_path / "tokenizer"), **HEAD_SIZES}
    report = convert_checkpoint("zipformer", tmp_path / "pretrained.pt", tmp_path / "out", **options)
    assert {*report.used, *report.ignored} == set(state)

    model, processor = (
        AutoModel.from_pretrained(tmp_path / "out").eval(),
        AutoProcessor.from_pretrained(tmp_path / "out"),
    )
    assert type(model) is CaptionStewModel
    tokens = processor(text=["a dog barking", "rain"], padding=True, return_tensors="pt")
    frames, is_padding = frames_of(model.audio_model)
    with torch.no_grad():
        projected = projections["audio_proj"](frames).masked_fill(is_padding.unsqueeze(-1), 0.0)
        audio = F.normalize(projected.sum(1) / (~is_padding).sum(1, keepdim=True), dim=-1)
        first = text(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state[:, 0]
        captions = F.normalize(projections["text_proj"](first), dim=-1)
        features, mask = batch()
        found = model(tokens["input_ids"], features, tokens["attention_mask"], mask)
    torch.testing.assert_close(found.audio_embeds, audio, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.text_embeds, captions, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.logits_per_audio, audio @ captions.T / 0.07, rtol=1e-5, atol=1e-4)


def test_heads_that_nothing_says_must_be_given(tmp_path):
    decoder = OfficialDecoder(len(VOCABULARY))
    torch.save(
        encoder_state() | {f"text_decoder.{key}": value for key, value in decoder.state_dict().items()},
        tmp_path / "model.pt",
    )
    with pytest.raises(ValueError, match="Pass `num_decoder_heads`"):
        convert_checkpoint("zipformer", tmp_path / "model.pt", tmp_path / "out", **HEAD_SIZES)


def test_a_captioner_without_tokenizer_says_what_to_pass(captioner, tmp_path):
    folder = captioner[2]
    source = folder.parent / "model.pt"
    report = convert_checkpoint("zipformer", source, tmp_path / "out", num_decoder_heads=HEADS, **HEAD_SIZES)
    assert any("pass `tokenizer`" in note for note in report.notes)
    with pytest.raises(ValueError, match="cannot be loaded"):
        convert_checkpoint(
            "zipformer", source, tmp_path / "no", num_decoder_heads=HEADS, tokenizer=str(tmp_path / "x"), **HEAD_SIZES
        )

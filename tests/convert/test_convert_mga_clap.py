# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The MGA-CLAP converter: every key accounted for, sizes from tensors, tokenizer, card; other files refused."""

import hashlib
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from m2d_official import bert_state, hashed
from mga_official import AUDIO, SMALL, TEXT, mga_state, write_vocabulary
from safetensors.torch import load_file
from tiny import tiny_tokenizer
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor, BertTokenizer

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.cli import main
from hf_audiolang.convert import convert_checkpoint

BIAS_TABLE = f"{AUDIO}layers.2.blocks.1.attn.relative_position_bias_table"
FILTERS = f"{AUDIO}audio_feats_extractor.log_trans.melW"
KERNEL = f"{AUDIO}audio_feats_extractor.mel_trans.stft.conv_real.weight"


@pytest.fixture(scope="module")
def state():
    """Read-only."""
    return mga_state()


@pytest.fixture
def convert(tmp_path):
    """Saves a state dict as the authors do and converts it; the folder is `tmp_path / "out"`."""

    def run(state, **overrides):
        torch.save(
            {"model": state, "optimizer": {"state": {}}, "config": {"temp": 0.07}, "epoch": 9}, tmp_path / "m.pt"
        )
        return convert_checkpoint(
            "mga-clap", tmp_path / "m.pt", tmp_path / "out", **({"tokenizer": "none"} | overrides)
        )

    return run


def test_every_tensor_comes_back_to_the_bit(convert, state, tmp_path):
    report = convert(state)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    for key, names in report.used.items():
        assert torch.equal(torch.cat([weights[name].reshape(-1) for name in names]), state[key].reshape(-1)), key
    assert {name for names in report.used.values() for name in names} == set(weights)
    assert set(report.used) | set(report.ignored) == set(state)
    assert not set(report.used) & set(report.ignored)
    query, key, value = report.used[f"{AUDIO}layers.1.blocks.0.attn.qkv.weight"]
    assert query.endswith("layers.1.blocks.0.attention.self.query.weight")
    assert (key[-10:], value[-12:]) == ("key.weight", "value.weight")
    assert weights["audio_model.audio_encoder.batch_norm.num_batches_tracked"].item() == 34567
    summary = report.summary()
    assert "196 tensors: 187 used, 9 ignored" in summary
    assert "ignored 3: front end" in summary
    assert "ignored 4: classifier of AudioSet" in summary
    assert "ignored 2: mask of shifted windows" in summary
    assert "left out beside the weights: optimizer, config, epoch" in summary


def test_published_layout_has_its_number_of_keys(convert):
    sizes = replace(SMALL, depths=(2, 2, 6, 2))
    state = mga_state(sizes)
    assert len(state) == 255  # counted on a model of the authors' code
    report = convert(state)
    assert (len(report.used), len(report.ignored)) == (243, 12)
    assert list(report.config.audio_config.depths) == [2, 2, 6, 2]


def test_sizes_are_those_of_the_tensors(convert, state):
    config = convert(state).config
    audio, text = config.audio_config, config.text_config
    assert (list(audio.depths), list(audio.num_attention_heads)) == ([2, 1, 3, 2], [1, 2, 3, 4])
    assert (audio.patch_embeds_hidden_size, audio.hidden_size, audio.window_size) == (12, 96, 8)
    assert (audio.spec_size, audio.num_mel_bins, audio.patch_side, audio.mlp_ratio) == (256, 64, 4, 4)
    assert (audio.locality_blocks, audio.locality_mlp, audio.qkv_bias) == (1, "skip", True)
    assert (audio.drop_path_rate, audio.spec_augment_time_stripes, audio.spec_augment_mel_stripes) == (0.1, 2, 2)
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (128, 2, 2)
    assert (text.intermediate_size, text.vocab_size, text.max_position_embeddings) == (80, SMALL.vocab, 40)
    assert (config.projection_dim, config.num_codewords, config.affinity_divisor) == (40, 96, None)


def test_other_geometries_are_read_too(convert):
    state = mga_state(replace(SMALL, depths=(1, 1, 1, 1)))
    for stage in range(4):
        width, name = 12 * 2**stage, f"{AUDIO}layers.{stage}.blocks.0.mlp"
        state[f"{name}.fc1.weight"], state[f"{name}.fc1.bias"] = hashed("a", 3 * width, width), hashed("b", 3 * width)
        state[f"{name}.fc2.weight"] = hashed("c", width, 3 * width)
        del state[f"{AUDIO}layers.{stage}.blocks.0.attn.qkv.bias"]
    report = convert(state)
    assert report.numbers["spec_size"] == (256, "authors' code")
    assert (report.config.audio_config.mlp_ratio, report.config.audio_config.qkv_bias) == (3, False)


def test_locality_follows_the_code_unless_told_otherwise(convert, state):
    report = convert(state, locality_mlp="mlp")
    assert report.config.audio_config.locality_mlp == "mlp"
    assert report.numbers["locality_mlp"] == ("mlp", "override")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"locality_mlp": "half"}, r"Unknown `locality_mlp` 'half'. Choose one of \['mlp', 'skip'\]"),
        ({"name": "a"}, "Unknown override 'name'. Choose one of .*'locality_mlp'"),
        ({"text_num_attention_heads": "3"}, "`text_num_attention_heads` must divide the width 128, got 3"),
    ],
)
def test_wrong_overrides_are_refused(convert, state, overrides, message):
    with pytest.raises(ValueError, match=message):
        convert(state, **overrides)


def test_number_of_text_heads_can_be_given(convert, state):
    assert convert(state, text_num_attention_heads="4").config.text_config.num_attention_heads == 4


def test_files_of_old_transformers_and_without_front_end_are_converted(convert, state):
    old = {key: value for key, value in state.items() if "audio_feats_extractor" not in key}
    old[f"{TEXT}embeddings.position_ids"] = torch.arange(40).unsqueeze(0)
    report = convert(old)
    assert report.ignored[f"{TEXT}embeddings.position_ids"] == "counter of old BERT files"
    assert len(report.ignored) == 7


def test_half_precision_becomes_float32_and_counters_stay(convert, state, tmp_path):
    half = {
        key: value.half() if value.is_floating_point() and value.ndim > 1 else value for key, value in state.items()
    }
    half["codebook"] = half["codebook"] / 8  # in half precision's range
    half[FILTERS] = state[FILTERS]
    convert(half)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(weights["codebook.weight"], half["codebook"].float())
    whole = {name for name, value in weights.items() if value.dtype != torch.float32}
    assert {name.rsplit(".", 1)[-1] for name in whole} == {"num_batches_tracked", "relative_position_index"}


@pytest.mark.parametrize("key", ["temp", "codebook", "frame_proj.1.weight"])
def test_files_without_the_parts_of_the_system_are_refused(convert, state, key):
    with pytest.raises(ValueError, match=rf"no checkpoint of MGA-CLAP: \['{key}'\] are missing; found 195 keys"):
        convert({name: value for name, value in state.items() if name != key})


@pytest.mark.parametrize(
    "key",
    [
        "word_proj.3.bias",
        f"{AUDIO}bn0.running_var",
        f"{AUDIO}layers.2.blocks.1.norm2.weight",
        f"{AUDIO}layers.0.downsample.reduction.weight",
        f"{TEXT}encoder.layer.1.output.dense.bias",
    ],
)
def test_missing_keys_are_named(convert, state, tmp_path, key):
    with pytest.raises(ValueError, match=rf"lacks 1 of the 187 tensors of an MGA-CLAP, for instance \['{key}'\]"):
        convert({name: value for name, value in state.items() if name != key})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "key",
    [
        f"{AUDIO}layers.0.blocks.0.gate",
        "audio_encoder.extra.weight",
        f"{TEXT}pooler.dense.weight",
        "module.temp",
        f"{AUDIO}patch_embed.norm.scale",
    ],
)
def test_unknown_keys_are_refused(convert, state, key):
    with pytest.raises(ValueError, match=rf"1 keys belong to no official MGA-CLAP file, for instance \['{key}'\]"):
        convert(state | {key: torch.zeros(3)})


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("temp", (1,)),
        (f"{AUDIO}layers.1.blocks.0.attn.qkv.bias", (48,)),
        (f"{AUDIO}norm.weight", (95,)),
        (f"{AUDIO}layers.0.blocks.1.attn.relative_position_index", (49, 49)),
        ("frame_proj.4.bias", (39,)),
        (f"{TEXT}encoder.layer.1.attention.self.value.weight", (128, 64)),
        (BIAS_TABLE, (169, 3)),
    ],
)
def test_misshapen_tensors_are_refused(convert, state, key, shape):
    with pytest.raises(ValueError, match=rf"`{key}` has shape \({shape[0]},"):
        convert(state | {key: hashed("x", *shape)})


def test_damaged_values_are_refused(convert, state):
    damaged = state["codebook"].clone()
    damaged[3, 5] = torch.nan
    with pytest.raises(ValueError, match="`codebook` holds values that are not finite"):
        convert(state | {"codebook": damaged})


def test_sizes_that_contradict_each_other_are_refused(convert, state):
    with pytest.raises(ValueError, match=r"sizes contradict each other.*`num_attention_heads` must divide"):
        convert(state | {f"{AUDIO}layers.0.blocks.0.attn.relative_position_bias_table": hashed("t", 225, 5)})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (FILTERS, hashed("filters", 513, 64), r"other mel filters .*64 from 50 to 14000 Hz at 32000 Hz.*\(513, 64\)"),
        (FILTERS, hashed("filters", 513, 80), r"other mel filters .*\(513, 80\)"),
        (
            KERNEL,
            hashed("kernel", 257, 1, 512),
            r"windows of another length: .*\(257, 1, 512\), expected \(513, 1, 1024",
        ),
    ],
)
def test_other_front_ends_are_refused(convert, state, key, value, message):
    with pytest.raises(ValueError, match=message):
        convert(state | {key: value})


def wavcaps_state(state):
    kept = {key: value for key, value in state.items() if key.startswith(("audio_encoder", "text_encoder", "temp"))}
    return kept | {f"{side}_proj.{layer}.weight": hashed(side, 8, 8) for side in ("audio", "text") for layer in (0, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wavcaps_state, "CLAP of WavCaps .*no codebook.*pass the `model.pt` of MGA-CLAP"),
        (
            lambda state: {f"sed_model.{key}": value for key, value in state.items()},
            "HTS-AT that was trained on AudioS",
        ),
        (
            lambda state: {"cls_token": torch.zeros(3)},
            "no checkpoint of MGA-CLAP: .* found 1 keys such as .*cls_token",
        ),
        (
            lambda state: {key: value for key, value in state.items() if "patch_embed" not in key},
            "audio encoder in the file is no HTS-AT",
        ),
        (
            lambda state: {key: value for key, value in state.items() if not key.startswith(TEXT)},
            "The text encoder in the file is no BERT",
        ),
    ],
)
def test_files_of_other_models_are_refused(convert, state, change, message):
    with pytest.raises(ValueError, match=message):
        convert(change(state))


def test_roberta_is_not_taken_for_bert(convert, state):
    roberta = {TEXT + key: value for key, value in bert_state(128, 2, 80, 60, 514, 1).items() if "pooler" not in key}
    with pytest.raises(ValueError, match="514 positions and 1 token type: it is a RoBERTa"):
        convert({key: value for key, value in state.items() if not key.startswith(TEXT)} | roberta)


@pytest.mark.parametrize("kind", ["vocabulary", "folder"])
def test_tokenizer_becomes_part_of_the_processor(convert, state, tmp_path, kind):
    given = write_vocabulary(tmp_path)
    if kind == "folder":
        BertTokenizer(vocab=str(given)).save_pretrained(tmp_path / "bert")
        given = tmp_path / "bert"
    report = convert(state, tokenizer=given)
    assert report.numbers["special_token_ids"] == ([0, 101, 102], "tokenizer")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer.model_max_length == 30  # authors' code
    inputs = processor(text=["a dog " * 20, "Rain, rain"], padding=True, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (2, 30)
    assert inputs["input_ids"][1, :5].tolist() == [101, 120, 100, 120, 102]
    model = AutoModel.from_pretrained(tmp_path / "out")
    mask = model.word_mask(inputs["input_ids"], inputs["attention_mask"])
    assert mask.sum(1).tolist() == [28, 3]  # the comma is unknown, and a word
    assert "AutoProcessor" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_special_tokens_are_those_of_the_tokenizer(convert, state, tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    report = convert(state, tokenizer=str(tmp_path / "tiny"))
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    ids = sorted([tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id])
    assert list(report.config.special_token_ids) == ids != [0, 101, 102]
    assert AutoModel.from_pretrained(tmp_path / "out").config.special_token_ids == ids


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (
            {"tokenizer": "none"},
            "no tokenizer: only the feature extractor was saved; to embed captions, pass `tokenizer`",
        ),
        ({"tokenizer": None}, "bert-base-uncased is not on this machine: only the feature extractor was saved; pass"),
    ],
)
def test_without_a_tokenizer_the_feature_extractor_is_saved_alone(
    convert, state, tmp_path, monkeypatch, overrides, note
):
    monkeypatch.setattr("hf_audiolang.convert.mga_clap.BERT_NAME", str(tmp_path / "bert-base-uncased"))
    report = convert(state, **overrides)
    assert note in report.summary()
    assert report.numbers["special_token_ids"] == ([0, 101, 102], "bert-base-uncased")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert extractor.to_dict() == LogMelFeatureExtractor.from_preset("mga_clap").to_dict()
    assert "AutoFeatureExtractor" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_default_tokenizer_is_taken_where_it_is_at_hand(convert, state, tmp_path, monkeypatch):
    BertTokenizer(vocab=str(write_vocabulary(tmp_path))).save_pretrained(tmp_path / "bert")
    monkeypatch.setattr("hf_audiolang.convert.mga_clap.BERT_NAME", str(tmp_path / "bert"))
    report = convert(state, tokenizer=None)
    assert not [note for note in report.notes if "tokenizer" in note]
    assert AutoProcessor.from_pretrained(tmp_path / "out").tokenizer.cls_token_id == 101


def test_tokenizers_that_do_not_fit_are_refused(convert, state, tmp_path):
    large = write_vocabulary(tmp_path)
    large.write_text(large.read_text(encoding="utf-8") + "".join(f"more{i}\n" for i in range(9)), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"has {SMALL.vocab + 9} tokens, the text encoder {SMALL.vocab}"):
        convert(state, tokenizer=large)
    with pytest.raises(ValueError, match=r"'nowhere' cannot be loaded .* a vocab.txt, or `tokenizer=none`"):
        convert(state, tokenizer="nowhere")
    assert not (tmp_path / "out").exists()


def test_card_names_source_licence_and_file(convert, state, tmp_path):
    report = convert(state)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "academic-use-only")
    for text in (
        "github.com/Ming-er/MGA-CLAP",
        "arxiv.org/abs/2408.07919",
        "holds no licence file",
        "XinhaoMei/WavCaps",
    ):
        assert text in card.text
    assert "academic purposes only" in " ".join(card.text.split())
    assert report.sha256 == hashlib.sha256((tmp_path / "m.pt").read_bytes()).hexdigest()
    assert report.sha256 in card.text
    for file in (tmp_path / "out").iterdir():
        if file.suffix in (".json", ".md"):
            assert str(tmp_path) not in file.read_text(encoding="utf-8"), file.name


def test_command_line_converts(state, tmp_path, capsys):
    torch.save({"model": state}, tmp_path / "model.pt")
    vocabulary = write_vocabulary(tmp_path)
    main(
        ["convert", "mga_clap", str(tmp_path / "model.pt"), str(tmp_path / "new"), "--set", f"tokenizer={vocabulary}"]
    )
    assert "MgaClapModel written to" in capsys.readouterr().out
    model = AutoModel.from_pretrained(tmp_path / "new")
    assert torch.equal(model.logit_scale.temperature, state["temp"])

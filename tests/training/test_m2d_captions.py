import json
import shutil
from pathlib import Path

import pytest
import torch
from accelerate_state import forget_accelerate
from m2d_toy_run import (
    ALIGN,
    run,
    save_config,
    save_store,
    save_text_model,
    scene_captions,
    settings,
    text_keys,
)
from tiny import tiny_slap_config

from hf_audiolang import LogMelFeatureExtractor
from hf_audiolang.data.text_embeddings import TextEmbedderSettings, TextStore, TextStoreError, precompute
from hf_audiolang.training.build import build_model
from hf_audiolang.training.captions import open_text_store, ready_text_store, tower_features, training_captions
from hf_audiolang.training.outline import ModelOutline, outline_model
from hf_audiolang.training.tokenizer import load_tokenizer

FROZEN = ["--freeze", "text_model.*"]


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    forget_accelerate()
    yield
    forget_accelerate()


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    return save_text_model(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def store(tmp_path_factory, text_model):
    return save_store(tmp_path_factory.mktemp("store"), text_model[0])


def no_data(*arguments):
    pytest.fail("data were made")


def save_slap(folder: Path) -> str:
    tiny_slap_config().save_pretrained(folder)
    LogMelFeatureExtractor.from_preset("slap").save_pretrained(folder)
    return str(folder)


def test_the_outline_says_what_a_model_reads_and_draws_nothing(tmp_path, text_model, store):
    stage_1 = save_config(tmp_path / "one", text_config=None, text_embedding_size=16, text_embedding_model="m")
    alone = save_config(tmp_path / "two", text_config=None, contrastive_weight=0.0)
    tower = save_config(tmp_path / "three", text_config=text_model[1])
    slap = save_slap(tmp_path / "four")
    before = torch.get_rng_state()
    embeddings = ["--text_embeddings", str(store.folder)]
    found = [
        outline_model(settings("--model_config", stage_1, *embeddings)),
        outline_model(settings("--model_config", alone)),
        outline_model(settings("--model_config", tower)),
        outline_model(settings("--model_config", tower, *embeddings, *FROZEN)),
        outline_model(settings("--model_config", slap)),
    ]
    assert found == [
        ModelOutline(
            needs_captions=True,
            needs_tokenizer=False,
            embeds_text=False,
            text_embedding_size=16,
            text_embedding_model="m",
        ),
        ModelOutline(needs_captions=False, needs_tokenizer=False, embeds_text=False),
        ModelOutline(needs_captions=True, needs_tokenizer=True),
        ModelOutline(needs_captions=True, needs_tokenizer=True, text_embedding_size=16),
        ModelOutline(needs_captions=True, needs_tokenizer=True),
    ]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("overrides", "arguments", "message"),
    [
        ({"text_config": None, "text_embedding_model": "a/b"}, [], r"`text_embeddings` is needed.*text tower.*a/b"),
        (
            {"text_config": None, "contrastive_weight": 0.0},
            ["--text_embeddings", "x"],
            "reads no captions.*Remove the",
        ),
        ({}, ["--text_embeddings", "x"], r"its \d+ tensors cannot be trained. Add 'text_model\.\*' to `freeze`"),
        ({}, ["--text_embeddings", "x", "--freeze", "text_model.encoder.*"], r"its \d tensors cannot be trained"),
        (
            {"text_config": None, "contrastive_weight": 0.0},
            ["--eval_steps", "2"],
            r"`eval_steps` is 2, but the M2dClapA",
        ),
        ({"text_config": None}, ["--eval_steps", "2", "--text_embeddings", "x"], r"`eval_steps` is 2.*embeds no text"),
        (
            {"text_config": None},
            ["--text_embeddings", "x", "--text_model", "y"],
            r"`text_model` is 'y', but that part",
        ),
        ({}, ["--freeze", "audio_mdel.*"], r"`freeze` 'audio_mdel.*nearest pattern that does is 'audio_model\.\*'"),
        ({}, ["--masking_ratio", "0"], r"does not allow \{'masking_ratio': 0.0\}: .*nothing would be predicted"),
        (
            {"text_config": None, "contrastive_weight": 0.0},
            ["--masked_weight", "0"],
            r"All loss weights are 0, got \{'contrastive_weight': 0.0, 'masked_weight': 0.0\}",
        ),
        ({}, ["--max_seconds", "1.76"], r"`max_seconds` is 1.76, .* 177 frames .* covers 161, 1.61 seconds"),
        ({}, ["--max_seconds", "9", "--train_data", "mine"], r"`max_seconds` is 9.0, .* 901 frames .* covers 161"),
        ({}, ["--mask_style", "holes"], r"does not allow \{'mask_style': 'holes'\}.*'structured'"),
    ],
)
def test_what_the_model_has_no_use_for_is_refused_before_data_are_made(
    tmp_path, monkeypatch, overrides, arguments, message
):
    monkeypatch.setattr("hf_audiolang.training.run.build_datasets", no_data)
    folder = save_config(tmp_path / "config", **overrides)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", "--model_config", folder, *arguments)


def test_the_longest_crops_may_exceed_the_positions_by_less_than_a_patch(tmp_path):
    folder = save_config(tmp_path / "config")
    outline_model(settings("--model_config", folder, "--max_seconds", "1.75"))
    features = LogMelFeatureExtractor.from_pretrained(folder)
    assert [features.num_frames(round(16000 * seconds)) for seconds in (1.75, 1.76)] == [176, 177]
    outline_model(settings("--model_config", save_slap(tmp_path / "slap"), "--max_seconds", "600"))  # no table


def test_other_families_without_a_loss_are_refused_too(tmp_path):
    weights = [word for name in ("contrastive", "masked", "caption") for word in (f"--{name}_weight", "0")]
    with pytest.raises(ValueError, match=r"All loss weights are 0, got .*'caption_weight': 0.0.*Raise one of them"):
        outline_model(settings("--model_config", save_slap(tmp_path / "slap"), *weights))


def test_other_families_take_captions_as_tokens_and_hide_something(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_audiolang.training.run.build_datasets", no_data)
    folder = save_slap(tmp_path / "config")
    with pytest.raises(ValueError, match=r"`text_embeddings` is 'x', but this SlapForPreTraining takes captions as t"):
        run(tmp_path / "run", "--model_config", folder, "--text_embeddings", "x")
    with pytest.raises(ValueError, match=r"`masking_ratio` is 0 with `masked_weight` 1.0: nothing would be predicted"):
        run(tmp_path / "run", "--model_config", folder, "--masking_ratio", "0")
    aligned = save_config(tmp_path / "aligned", **ALIGN)  # control: allowed where nothing is predicted
    outline_model(settings("--model_config", aligned, "--masking_ratio", "0", "--mask_style", "span"))


def test_a_store_of_another_model_or_width_is_refused_before_data_are_made(tmp_path, monkeypatch, store):
    monkeypatch.setattr("hf_audiolang.training.run.build_datasets", no_data)
    embeddings = ["--text_embeddings", str(store.folder)]
    folder = save_config(tmp_path / "config", text_config=None, text_embedding_size=17)
    with pytest.raises(TextStoreError, match=r"16 numbers.*`text_embedding_size` 17"):
        run(tmp_path / "run", "--model_config", folder, *embeddings)
    folder = save_config(tmp_path / "config", text_config=None, text_embedding_size=16, text_embedding_model="a/b")
    with pytest.raises(TextStoreError, match=r"`text_embedding_model` 'a/b'"):
        run(tmp_path / "run", "--model_config", folder, *embeddings)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(tmp_path / "run", "--model_config", folder, "--text_embeddings", str(tmp_path / "nowhere"))


def test_a_caption_without_embedding_is_named_before_training(tmp_path, monkeypatch, store):
    monkeypatch.setattr("hf_audiolang.training.run.build_model", lambda *a: pytest.fail("a model was built"))
    captions = sorted(set(scene_captions()))
    lost, kept = captions[7], captions[:7] + captions[8:]
    rows = dict(zip(kept, store.rows(kept), strict=True))
    embed = lambda texts: torch.stack([rows[text] for text in texts])  # noqa: E731
    precompute(kept, tmp_path / "store", TextEmbedderSettings("m", pooling="mean"), embed=embed)
    folder = save_config(tmp_path / "config", text_config=None, text_embedding_size=16)
    with pytest.raises(TextStoreError, match=rf"lacks 1 of {len(captions)} captions: '{lost}'"):
        run(tmp_path / "run", "--model_config", folder, "--text_embeddings", str(tmp_path / "store"))


def test_a_store_that_the_text_tower_does_not_compute_is_refused(tmp_path, text_model, store):
    """The tower of a run that forgot `text_model` is random."""
    folder = save_config(tmp_path / "config", text_config=text_model[1], text_pooling="mean")
    arguments = ["--model_config", folder, "--text_embeddings", str(store.folder), *FROZEN]
    with pytest.raises(TextStoreError, match=r"does not come from this text model.*pooling"):
        run(tmp_path / "run", *arguments, "--tokenizer", text_model[0])
    assert not (tmp_path / "run" / "train_log.jsonl").exists()
    other = save_config(tmp_path / "config", text_config=text_model[1], text_pooling="cls")
    with pytest.raises(TextStoreError, match=r"does not come from this text model"):
        run(tmp_path / "run", *arguments, "--model_config", other, *text_keys(text_model[0]))


def test_the_features_of_the_tower_are_those_of_the_stores_model(tmp_path, text_model, store):
    folder = save_config(tmp_path / "config", text_config=text_model[1], text_pooling="mean")
    config = settings("--model_config", folder, *text_keys(text_model[0]))
    tokenizer = load_tokenizer(text_model[0])
    model = build_model(config, tokenizer).train()
    processor = type("Processor", (), {"tokenizer": tokenizer})
    captions = sorted(set(scene_captions()))[:9]
    features = tower_features(model.base_model, processor, None)(captions)
    torch.testing.assert_close(features, store.rows(captions), rtol=1e-5, atol=1e-5)
    assert model.base_model.training  # and it goes on with dropout
    cut = tower_features(model.base_model, processor, 4)(captions)
    assert not torch.allclose(cut, features, atol=1e-3)


def test_training_captions_are_those_that_can_be_drawn():
    records = [("a dog", " ", "a cat"), (), ("",), ("rain",)]
    data = type("Data", (), {"captions_of": lambda self, index: records[index], "__len__": lambda self: 4})()
    assert list(training_captions(data)) == ["a dog", "a cat", "rain"]


@pytest.mark.parametrize("with_tower", [True, False])
def test_a_smoke_run_makes_its_own_store_and_reads_it(tmp_path, text_model, monkeypatch, with_tower):
    monkeypatch.setattr("hf_audiolang.training.run._finish", lambda run, *rest: run)
    read, rows = [], TextStore.rows
    monkeypatch.setattr(TextStore, "rows", lambda self, captions: read.append(captions) or rows(self, captions))
    numbers = {"text_config": text_model[1], "text_pooling": "mean"} if with_tower else {"text_config": None}
    folder = save_config(tmp_path / "config", text_embedding_model="the/model", **numbers)
    arguments = ["--model_config", folder, "--text_embeddings", str(tmp_path / "real"), "--smoke"]
    arguments += FROZEN if with_tower else []
    run(tmp_path / "run", *arguments)
    store = TextStore.open(tmp_path / "run_smoke" / "text_embeddings")
    assert store.settings.model == "the/model"
    assert store.embedding_size == 24
    assert len(read[-1]) == len(read[-2]) == 4  # captions of the last two batches
    assert not (tmp_path / "real").exists()
    captions = read[-1]
    first = store.rows(captions)
    forget_accelerate()
    run(tmp_path / "run", *arguments, "--seed", "7")  # another tower: the old store is made anew
    again = TextStore.open(tmp_path / "run_smoke" / "text_embeddings").rows(captions)
    assert torch.equal(again, first) == (not with_tower)


def test_only_a_real_run_opens_the_store_of_the_settings(tmp_path, store):
    folder = save_config(tmp_path / "config", text_config=None, text_embedding_size=16)
    arguments = ["--model_config", folder, "--text_embeddings", str(store.folder)]
    outline = outline_model(settings(*arguments))
    assert len(open_text_store(settings(*arguments), outline)) == len(store)
    assert open_text_store(settings(*arguments, "--smoke"), outline) is None
    assert open_text_store(settings("--model_config", folder), outline) is None
    assert ready_text_store(settings("--model_config", folder), None, None, None, None, None) is None
    copy = tmp_path / "damaged"
    shutil.copytree(store.folder, copy)
    facts = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**facts, "num_captions": 3}))
    with pytest.raises(TextStoreError, match="damaged"):
        open_text_store(settings("--model_config", folder, "--text_embeddings", str(copy)), outline)

import ctypes
import json
import pickle
import platform
import random
import string
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_helpers import CAPTIONS, LetterEmbedder, contents, plain_embedding, write_text_model
from torch.utils.data import DataLoader

from hf_audiolang.data import text_embeddings, text_shards
from hf_audiolang.data.text_embedders import TextEmbedderSettings
from hf_audiolang.data.text_embeddings import TextStore, TextStoreError, precompute, read_captions

LETTERS = TextEmbedderSettings("letters", "mean", dtype="float32")


def many_captions(number, seed=0):
    """Different texts of different lengths, some outside of ASCII."""
    draw = random.Random(seed)
    alphabet = string.ascii_lowercase + "  äß犬🐕"
    texts = {"x" + "".join(draw.choices(alphabet, k=draw.randint(0, 12))).strip() for _ in range(3 * number)}
    return sorted(texts)[:number]


def build(folder, captions=None, **options):
    options = {"embed": LetterEmbedder(), "shard_size": 4, **options}
    return precompute(many_captions(10) if captions is None else captions, folder, LETTERS, **options)


# what is stored


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_are_the_embeddings_of_the_captions_in_their_order(tmp_path, dtype):
    folder = write_text_model(tmp_path / "model")
    settings = TextEmbedderSettings(str(folder), "cls", dtype=dtype)
    store = precompute([*CAPTIONS, *CAPTIONS[:3]], tmp_path / "store", settings, shard_size=3, device="cpu")
    wanted = [CAPTIONS[4], CAPTIONS[0], CAPTIONS[4], CAPTIONS[6]]
    rows = store.rows(wanted)
    alone = torch.stack([plain_embedding(folder, caption, "cls") for caption in wanted])
    assert rows.dtype == torch.float32
    if dtype == "float32":
        torch.testing.assert_close(rows, alone, atol=1e-5, rtol=1e-5)
    else:
        stored = getattr(torch, dtype)
        torch.testing.assert_close(rows, alone, atol=1e-4, rtol=torch.finfo(stored).eps)
        assert torch.equal(rows, rows.to(stored).float())
        assert not torch.equal(rows, alone.to(torch.float32))
    assert (len(store), store.embedding_size, store.settings) == (len(CAPTIONS), 16, settings)
    assert sorted(store.captions()) == sorted(CAPTIONS)


def test_every_caption_of_a_larger_store_has_its_own_row(tmp_path):
    captions = many_captions(200)
    store, embed = build(tmp_path, captions, shard_size=23), LetterEmbedder()
    shuffled = random.Random(1).choices(captions, k=300)
    assert torch.equal(store.rows(shuffled), torch.stack([embed.row(caption) for caption in shuffled]))
    assert store.rows([]).shape == (0, 5)
    assert all(caption in store for caption in captions)
    assert "xx not there" not in store


def test_equal_captions_are_computed_once(tmp_path):
    embed = LetterEmbedder()
    build(tmp_path, ["rain", "wind", "rain", "wind ", "rain"], embed=embed)
    assert sorted(caption for call in embed.calls for caption in call) == ["rain", "wind", "wind "]


def test_the_order_of_the_captions_changes_not_a_byte(tmp_path):
    captions = many_captions(10)
    build(tmp_path / "first", captions)
    build(tmp_path / "second", captions[::-1] + captions[:4])
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_the_index_says_how_the_store_was_made(tmp_path):
    settings = TextEmbedderSettings("org/m", "last", prefix="p ", suffix="</s>", dtype="bfloat16", max_tokens=9)
    precompute(["rain"], tmp_path, settings, embed=LetterEmbedder())
    facts = json.loads((tmp_path / "index.json").read_text())
    assert facts["settings"] == {
        "model": "org/m",
        "pooling": "last",
        "prefix": "p ",
        "suffix": "</s>",
        "normalize": False,
        "dtype": "bfloat16",
        "precision": "fp32",
        "max_tokens": 9,
    }
    assert (facts["embedding_size"], facts["num_captions"]) == (5, 1)
    assert facts["versions"].keys() == {"hf-audiolang", "torch", "transformers"}


def test_files_may_be_read_by_others(tmp_path):
    build(tmp_path)
    (tmp_path / "plain").write_text("")
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}


# resuming and adding


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_a_resumed_run_writes_the_bytes_of_an_uninterrupted_one(tmp_path, fails_at):
    build(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        build(tmp_path / "resumed", embed=LetterEmbedder(fails_at=fails_at))
    (tmp_path / "resumed" / "shard-00001.safetensors.123.tmp").write_bytes(b"half a shard")
    if fails_at:
        with pytest.raises(TextStoreError, match=rf"is not finished: {fails_at} shard\(s\), no index\.json"):
            TextStore.open(tmp_path / "resumed")
    embed = LetterEmbedder()
    build(tmp_path / "resumed", embed=embed)
    assert len(embed.calls) == 3 - fails_at
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path, monkeypatch):
    def no_more(source, target):
        raise InterruptedError("the power is cut")

    monkeypatch.setattr(text_shards.os, "replace", no_more)
    with pytest.raises(InterruptedError):
        build(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]


def test_a_gap_left_by_one_of_several_processes_is_filled(tmp_path):
    build(tmp_path / "whole")
    build(tmp_path / "resumed")
    for name in ("shard-00001.safetensors", "index.json"):
        (tmp_path / "resumed" / name).unlink()
    embed = LetterEmbedder()
    build(tmp_path / "resumed", embed=embed)
    assert [len(call) for call in embed.calls] == [4]
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_captions_are_added_without_touching_the_others(tmp_path):
    old, new = many_captions(10), many_captions(17, seed=5)
    assert 0 < len(set(new) - set(old)) < 17  # some are in both
    build(tmp_path, old)
    before = contents(tmp_path)
    opened = TextStore.open(tmp_path)
    with pytest.raises(InterruptedError):
        build(tmp_path, new, embed=LetterEmbedder(fails_at=1))
    assert len(TextStore.open(tmp_path)) == 10  # readers have the old store until the new one is whole
    embed = LetterEmbedder()
    store = build(tmp_path, new, embed=embed)
    assert len(store) == len({*old, *new})
    assert torch.equal(store.rows(old + new), torch.stack([embed.row(caption) for caption in old + new]))
    after = contents(tmp_path)
    assert {name: data for name, data in after.items() if name in before and name != "index.json"} == {
        name: data for name, data in before.items() if name.startswith("shard")
    }
    assert sum(name.startswith("index-") for name in after) == 1
    assert torch.equal(opened.rows(old), store.rows(old))


def test_nothing_is_computed_when_nothing_is_missing(tmp_path):
    build(tmp_path)
    before = contents(tmp_path)
    build(tmp_path, many_captions(10)[:3], embed=LetterEmbedder(fails_at=0))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", "other"), ("pooling", "cls"), ("prefix", "say: "), ("normalize", True), ("dtype", "float16")],
)
def test_captions_are_not_added_with_other_settings(tmp_path, name, value):
    build(tmp_path)
    before = contents(tmp_path)
    other = TextEmbedderSettings(**{"model": "letters", "pooling": "mean", "dtype": "float32", name: value})
    message = f"other settings: `{name}` {getattr(LETTERS, name)!r} there and {value!r} here"
    with pytest.raises(TextStoreError, match=message):
        precompute(["new"], tmp_path, other, embed=LetterEmbedder())
    assert contents(tmp_path) == before


def test_captions_are_not_added_with_other_weights_or_sizes(tmp_path):
    first, second = (write_text_model(tmp_path / f"model_{seed}", seed) for seed in (0, 1))
    settings = TextEmbedderSettings("model", "mean")
    precompute(CAPTIONS[:5], tmp_path / "store", settings, model_folder=first, device="cpu")
    with pytest.raises(TextStoreError, match=r"does not come from this text model: .* has cosine .*below 0\.99"):
        precompute(CAPTIONS, tmp_path / "store", settings, model_folder=second, device="cpu")
    with pytest.raises(TextStoreError, match=r"have shape \(2, 5\), but \(2, 16\) is needed"):
        precompute(CAPTIONS, tmp_path / "store", settings, embed=LetterEmbedder())
    assert len(precompute(CAPTIONS, tmp_path / "store", settings, model_folder=first, device="cpu")) == 7


@pytest.mark.parametrize(
    ("captions", "message"),
    [([], "`captions` holds no caption"), (["rain", " "], r"`captions` holds an empty caption \(' '\)")],
)
def test_captions_that_say_nothing_are_refused(tmp_path, captions, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, captions)


def test_a_shard_needs_a_caption(tmp_path):
    with pytest.raises(ValueError, match="`shard_size` is 0"):
        build(tmp_path, shard_size=0)


def test_a_number_too_large_for_the_dtype_names_its_caption(tmp_path):
    settings = TextEmbedderSettings("letters", "mean", dtype="float16")
    rows = {"rain": 3.0, "thunder": 70000.0}
    embed = lambda captions: torch.tensor([[1.0, rows[caption]] for caption in captions])  # noqa: E731
    with pytest.raises(ValueError, match=r"embedding of 'thunder' has numbers up to 7e.04, .*'float16'.*'float32'"):
        precompute(rows, tmp_path, settings, embed=embed)
    assert len(precompute(rows, tmp_path, LETTERS, embed=embed)) == 2


def test_processes_with_other_captions_are_refused(tmp_path, monkeypatch):
    def of_the_first_process(items):
        return [items[0], "another digest"]

    monkeypatch.setattr(text_embeddings, "broadcast_object_list", of_the_first_process)
    with pytest.raises(ValueError, match="`captions` differ between the processes: this one has 10"):
        build(tmp_path)


# reading


def test_a_missing_caption_is_named_with_what_to_do(tmp_path):
    store = build(tmp_path, ["rain", "wind"])
    with pytest.raises(TextStoreError, match=r"lacks 1 caption\(s\): 'Rain'\. Add them: run .*precompute_text\.py"):
        store.rows(["wind", "Rain"])
    store.check_covers(["wind", "rain", "wind"])
    with pytest.raises(TextStoreError, match=r"lacks 5 of 6 captions: 'a', 'b', 'c' and others\. Add"):
        store.check_covers(["a", "b", "rain", "c", "d", "e", "a"])


def test_captions_of_equal_hashes_are_told_apart(tmp_path, monkeypatch):
    for module in (text_embeddings, text_shards):
        monkeypatch.setattr(module, "hash_caption", lambda caption: len(caption) % 2)
    captions = many_captions(40)
    store, embed = build(tmp_path, captions, shard_size=7), LetterEmbedder()
    assert torch.equal(store.rows(captions), torch.stack([embed.row(caption) for caption in captions]))
    assert "not there" not in store
    assert "not here" not in store  # the other hash


def test_a_pickled_store_is_a_path(tmp_path):
    captions = many_captions(60)
    store = build(tmp_path, captions, shard_size=7)
    data = pickle.dumps(store)
    assert len(data) < 500
    assert torch.equal(pickle.loads(data).rows(captions), store.rows(captions))


@pytest.mark.multiprocess
def test_data_workers_read_the_same_rows(tmp_path):
    captions = many_captions(20)
    store = build(tmp_path, captions)
    loader = DataLoader(
        captions,
        batch_size=6,
        num_workers=2,
        collate_fn=partial(TextStore.rows, store),
        multiprocessing_context="fork",
    )
    assert torch.equal(torch.cat(list(loader)), store.rows(captions))


def test_a_relative_folder_survives_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build("store", ["rain"])
    data = pickle.dumps(TextStore.open("store"))
    monkeypatch.chdir(tmp_path.parent)
    assert "rain" in pickle.loads(data)


def anonymous_kilobytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs Linux's account of memory, and its malloc")
def test_rows_are_read_without_loading_the_others(tmp_path):
    captions = many_captions(8000)
    wide = lambda texts: torch.ones(len(texts), 2048)  # noqa: E731
    precompute(captions, tmp_path, LETTERS, embed=wide)  # 66 MB
    path = tmp_path / "shard-00000.safetensors"
    ctypes.CDLL(None).malloc_trim(0)  # or what other tests have freed would be used again without a trace
    before = anonymous_kilobytes()
    store = pickle.loads(pickle.dumps(TextStore.open(tmp_path)))
    store.rows(captions[::200])
    assert anonymous_kilobytes() - before < 16_000
    loaded = path.read_bytes()  # control: what loading costs
    assert anonymous_kilobytes() - before > 60_000
    assert len(loaded) > 60_000_000


# does it fit?


def test_a_store_of_another_size_or_model_is_refused(tmp_path):
    store = build(tmp_path)
    store.check_fits(5)
    store.check_fits(5, "letters")
    with pytest.raises(TextStoreError, match=r"holds embeddings of 5 numbers, made by 'letters', .*_size` 4096"):
        store.check_fits(4096)
    with pytest.raises(TextStoreError, match=r"was made by 'letters', .*`text_embedding_model` 'nvidia/NV-Embed-v2'"):
        store.check_fits(5, "nvidia/NV-Embed-v2")


def test_a_store_is_checked_against_a_text_tower(tmp_path):
    store, embed = build(tmp_path, many_captions(30)), LetterEmbedder()
    asked = []

    def tower(captions, turned=None, factor=3.0):
        asked.extend(captions)
        rows = factor * embed(captions)  # neither length nor sign of zero matters, the direction does
        return torch.stack(
            [row.flip(0) if caption == turned else row for caption, row in zip(captions, rows, strict=True)]
        )

    store.check_against(tower)
    assert len(set(asked)) == 4
    store.check_against(tower, num_captions=100)
    assert set(asked) == set(store.captions())
    worst = max(store.captions(), key=lambda text: (embed.row(text) - embed.row(text).flip(0)).norm())
    with pytest.raises(TextStoreError, match=f"embedding of {worst!r} has cosine .*below 0.99"):
        store.check_against(partial(tower, turned=worst), num_captions=30)
    with pytest.raises(TextStoreError, match=r"has cosine -1\.0000"):
        store.check_against(partial(tower, factor=-1.0))
    with pytest.raises(TextStoreError, match=r"of 5 numbers, but the text model gives \(4, 9\)"):
        store.check_against(lambda captions: torch.ones(len(captions), 9))
    with pytest.raises(TextStoreError, match="has cosine nan"):
        store.check_against(lambda captions: torch.full((len(captions), 5), torch.nan))


# damaged and foreign folders


def damage(folder, name, how):
    path = next(folder.glob(name))
    if how == "delete":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "lose a row":
        tensors = load_file(path)
        tensors["embeddings"] = tensors["embeddings"][1:].clone()
        save_file(tensors, path, {"settings": json.dumps(json.loads((folder / "index.json").read_text())["settings"])})
    elif how == "lose a caption":
        save_file({name: value[1:].clone() for name, value in load_file(path).items()}, path)
    elif how == "exchange":
        other = next(folder.glob("shard-00002*"))
        path.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("shard-00001*", "delete", r"shard-00001\.safetensors' is damaged: it is missing\. Delete it and run"),
        ("shard-00001*", "cut", r"shard-00001\.safetensors' is damaged: .*incomplete|Delete it and run"),
        ("shard-00001*", "empty", r"shard-00001\.safetensors' is damaged"),
        ("shard-00001*", "lose a row", "shard-00001.* its parts do not belong together"),
        ("shard-00001*", "exchange", r"shard-00001.* it has \(2, 5\) numbers, the index \(4, 5\)"),
        ("index-*", "delete", r"index-000000010\.safetensors' is damaged: it is missing"),
        ("index-*", "cut", "index-000000010.* is damaged"),
        ("index-*", "lose a caption", "index-000000010.* is damaged: it has 9 captions, the shards 10"),
        ("index.json", "cut", r"index\.json' is damaged: it is no JSON"),
        (
            "index.json",
            "delete",
            r"is not finished: 3 shard\(s\), no index\.json.*Run the command that began it again",
        ),
    ],
)
def test_a_damaged_store_says_what_is_wrong_and_is_repaired(tmp_path, name, how, message):
    build(tmp_path)
    whole = contents(tmp_path)
    damage(tmp_path, name, how)
    with pytest.raises(TextStoreError, match=message):
        TextStore.open(tmp_path)
    for path in tmp_path.glob(name):
        path.unlink()  # as the message says
    build(tmp_path)
    assert contents(tmp_path) == whole


def test_a_shard_of_another_store_is_refused(tmp_path):
    build(tmp_path / "one")
    precompute(many_captions(10), tmp_path / "two", TextEmbedderSettings("other", "cls"), embed=LetterEmbedder())
    (tmp_path / "one" / "shard-00001.safetensors").write_bytes(
        (tmp_path / "two" / "shard-00000.safetensors").read_bytes()
    )
    with pytest.raises(TextStoreError, match=r"`model` 'other' there and 'letters' here; `pooling` 'cls' there and"):
        TextStore.open(tmp_path / "one")


def test_other_folders_are_no_stores(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' is no folder\. Make it with .*precompute_text\.py"):
        TextStore.open(tmp_path / "nowhere")
    with pytest.raises(TextStoreError, match="is no folder of caption embeddings"):
        TextStore.open(tmp_path)
    for content in ('{"name": "a web page"}', "[1, 2]"):
        (tmp_path / "index.json").write_text(content)
        with pytest.raises(TextStoreError, match="is no folder of caption embeddings"):
            TextStore.open(tmp_path)
        with pytest.raises(TextStoreError, match="is no folder of caption embeddings"):
            build(tmp_path)
        assert contents(tmp_path) == {"index.json": content.encode()}


def test_a_later_format_is_refused(tmp_path):
    build(tmp_path)
    facts = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(facts | {"format_version": 2}))
    with pytest.raises(TextStoreError, match=r"format version 2, but this package reads 1\. Update hf-audiolang"):
        TextStore.open(tmp_path)


# text files


def test_a_text_file_gives_its_lines(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes("\ufeffa dog, barking \r\n\n  Hündin\r\n \nrain\x85falls\nrain".encode())
    assert read_captions(path) == ["a dog, barking", "Hündin", "rain\x85falls", "rain"]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("none.txt", None, FileNotFoundError, "does not exist. Give a text file with one caption per line"),
        ("table.csv", b"file_name,caption\n", ValueError, "is a folder or a table, .* --train_data"),
        (".", None, ValueError, "is a folder or a table"),
        ("latin.txt", "Hündin".encode("latin-1"), ValueError, "is not UTF-8 text"),
        ("empty.txt", b"\n \n", ValueError, "has 0 captions"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, error, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        read_captions(tmp_path / name)

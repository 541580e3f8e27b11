"""The command on real files with a tiny model: answers, exit codes, and one clear line for each bad input."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, AutoProcessor, PreTrainedTokenizerFast, pipeline

from hf_audiolang import AudioLangProcessor, LogMelFeatureExtractor, SlapConfig, SlapModel
from hf_audiolang.cli import main
from hf_audiolang.inference import (
    FileEmbeddings,
    classify_files,
    embed_files,
    find_audio_files,
    load_embeddings,
    load_model,
    save_embeddings,
    search_files,
)

WORDS = ["a", "dog", "barking", "siren", "rain", "can", "be", "heard", "on", "roof", "the", "sound", "of"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    torch.manual_seed(0)
    tower = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
    text = {"model_type": "modernbert", "vocab_size": 20, "pad_token_id": 0} | dict.fromkeys(
        ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1
    )
    config = SlapConfig(audio_config={**tower, "initializer_range": 0.3}, text_config={**tower, **text})
    SlapModel(config).save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    extractor = LogMelFeatureExtractor.from_preset("slap", mean=-8.0, std=8.0, max_seconds=2.0)
    AudioLangProcessor(extractor, fast).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Formats, rates, channels and lengths as they come, and one file that is no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "inner").mkdir()
    generator = np.random.default_rng(0)
    for name, rate, shape in (
        ("long.wav", 16000, (80000,)),
        ("stereo.flac", 44100, (44100, 2)),
        ("short.ogg", 8000, (480,)),
        ("inner/deep.wav", 48000, (60000,)),
    ):
        soundfile.write(folder / name, 0.1 * np.cumsum(generator.standard_normal(shape), axis=0) / 50, rate)
    (folder / "broken.wav").write_bytes(b"RIFF no sound")
    (folder / "notes.txt").write_text("not a sound")
    return folder


@pytest.fixture(scope="module")
def loaded(model_folder):
    return load_model(model_folder, "cpu")


def test_classify_prints_labels_of_each_file_best_first(model_folder, sounds, capsys):
    files = [str(sounds / "short.ogg"), str(sounds / "stereo.flac")]
    arguments = ["classify", *files, "--labels", "a dog barking, a siren", "rain", "--model", str(model_folder)]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in answer["files"]] == files
    for row in answer["files"]:
        assert {entry["label"] for entry in row["labels"]} == {"a dog barking", "a siren", "rain"}
        probabilities = [entry["probability"] for entry in row["labels"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == files
    best = answer["files"][0]["labels"][0]
    assert lines[1].split(maxsplit=1) == [f"{best['probability']:.1%}", best["label"]]


def test_classification_equals_the_pipeline_of_transformers(model_folder, sounds, tmp_path, loaded):
    model, processor = loaded
    labels = ["a dog barking", "a siren", "rain"]
    audio, _ = soundfile.read(sounds / "long.wav", dtype="float32")
    soundfile.write(tmp_path / "two_seconds.wav", audio[:32000], 16000, subtype="FLOAT")
    found = classify_files([tmp_path], labels, model, processor, templates="the sound of {label}")
    pipe = pipeline("zero-shot-audio-classification", model=str(model_folder), device="cpu")
    expected = pipe(audio[:32000], candidate_labels=labels, hypothesis_template="the sound of {}")
    ours = {entry["label"]: entry["probability"] for entry in found.ranking(0)}
    for entry in expected:
        assert ours[entry["label"]] == pytest.approx(entry["score"], abs=1e-5)
    assert [entry["label"] for entry in found.ranking(0)] == [entry["label"] for entry in expected]


def test_an_unreadable_file_is_named_and_the_others_are_classified(model_folder, sounds, capsys):
    files = [str(sounds), str(sounds / "absent.wav")]
    code = main(["classify", *files, "--labels", "rain", "--model", str(model_folder), "--json"])
    out, err = capsys.readouterr()
    assert code == 1
    answer = json.loads(out)
    assert len(answer["files"]) == 4
    assert len(answer["failed"]) == 2
    assert "broken.wav" in err
    assert "absent.wav" in err
    assert "notes.txt" not in out + err


def test_embeddings_come_back_from_both_formats(model_folder, sounds, tmp_path, capsys, loaded):
    model, processor = loaded
    names = ["inner/deep.wav", "long.wav", "short.ogg", "stereo.flac"]
    for suffix in (".safetensors", ".npz"):
        output = tmp_path / "new" / f"sounds{suffix}"
        assert main(["embed", str(sounds), "--output", str(output), "--model", str(model_folder)]) == 1
        assert "4 embeddings of width 24" in capsys.readouterr().out
        stored = load_embeddings(output)
        assert stored.files == [str(sounds / name) for name in names]
        assert stored.model == str(model_folder)
        alone = np.concatenate([embed_files([file], model, processor).embeds for file in stored.files])
        np.testing.assert_allclose(stored.embeds, alone, atol=1e-5)
        assert np.abs(stored.embeds[0] - stored.embeds[1]).max() > 1e-3  # control: files differ


def test_search_ranks_files_by_similarity_from_a_folder_or_from_stored_embeddings(
    model_folder, sounds, tmp_path, capsys
):
    text, model = "rain on a roof", str(model_folder)
    assert main(["search", text, str(sounds), "--model", model, "--top", "3", "--json"]) == 1
    hits = json.loads(capsys.readouterr().out)["hits"]
    found = classify_files([sounds], [text], model, templates="{label}")
    order = np.argsort(-found.similarities[:, 0])[:3]
    assert [hit["file"] for hit in hits] == [found.files[row] for row in order]
    assert [hit["similarity"] for hit in hits] == pytest.approx(list(found.similarities[order, 0]), abs=1e-5)
    assert main(["embed", str(sounds), "--output", str(tmp_path / "all.npz"), "--model", model]) == 1
    assert main(["search", text, str(tmp_path / "all.npz"), "--model", model]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 4
    assert lines[0].endswith(hits[0]["file"])


def test_long_files_are_averaged_over_pieces_or_cropped(sounds, loaded):
    model, processor = loaded
    waveform, _ = soundfile.read(sounds / "long.wav", dtype="float32")  # 5 s, limit 2 s: three equal pieces
    inputs = [
        processor(audio=[piece], sampling_rate=16000, return_tensors="pt") for piece in np.array_split(waveform, 3)
    ]
    with torch.no_grad():
        pieces = torch.cat([model.get_audio_features(**piece).pooler_output for piece in inputs])
    mean = torch.nn.functional.normalize(pieces.mean(0), dim=0).numpy()
    np.testing.assert_allclose(embed_files([sounds / "long.wav"], model, processor).embeds[0], mean, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: ["classify", "x.wav", "--labels", "a", "--model", f / "absent" / "model"], "is not a folder"),
        (lambda f: ["classify", "x.wav", "--labels", "a", "--model", f / "empty"], "has no config.json"),
        (lambda f: ["classify", "x.wav", "--labels", "a", "--model", f / "run"], "Did you mean"),
        (lambda f: ["classify", "x.wav", "--labels", "a", "--model", f / "run" / "model"], "no weights"),
        (lambda f: ["embed", f / "empty", "--output", "x.pt", "--model", "m"], "must end in one of"),
        (lambda f: ["search", "rain", f / "x.npz", "--model", "m"], "does not exist"),
        (lambda f: ["bench", "absent"], "Unknown suite `name` 'absent'. Choose one of"),
        (lambda f: ["bench", "compare", "a.json"], "`compare` needs two result files, got 1"),
        (lambda f: ["bench", "frontend", "a.json"], "Only `compare` takes result files"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_and_code_2(tmp_path, capsys, make, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text('{"model_type": "slap"}')
    assert main([str(word) for word in make(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_folders_without_sounds_and_only_broken_files_are_refused(model_folder, sounds, tmp_path, capsys):
    classify = ["classify", "--labels", "a", "--model", str(model_folder)]
    assert main([*classify, str(tmp_path)]) == 2
    assert "names no sound file" in capsys.readouterr().err
    assert main([*classify, str(sounds / "broken.wav")]) == 2
    assert "broken.wav" in capsys.readouterr().err
    assert main([*classify, str(sounds / "long.wav"), "--template", "no place"]) == 2
    assert "has no place for the label" in capsys.readouterr().err
    assert main(["classify", "--labels", " , ", "--model", str(model_folder), str(sounds / "long.wav")]) == 2
    assert "`labels` is empty" in capsys.readouterr().err


def test_a_checkpoint_that_lacks_weights_is_refused(model_folder, tmp_path):
    model, processor = AutoModel.from_pretrained(model_folder), AutoProcessor.from_pretrained(model_folder)
    state = {name: value for name, value in model.state_dict().items() if "text_pooling" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="text_pooling"):
        load_model(tmp_path)


def test_files_are_found_once_and_in_name_order(sounds):
    found = find_audio_files([sounds / "long.wav", sounds])
    assert [path.relative_to(sounds).as_posix() for path in found] == [
        "long.wav", "broken.wav", "inner/deep.wav", "short.ogg", "stereo.flac",
    ]  # fmt: skip


def test_embeddings_of_another_width_are_refused(loaded):
    other = FileEmbeddings(["x.wav"], np.ones((1, 7), dtype=np.float32))
    with pytest.raises(ValueError, match="same width, got 24 and 7"):
        search_files("rain", other, *loaded)
    with pytest.raises(ValueError, match="must end in one of"):
        save_embeddings(other, "x.bin")
    with pytest.raises(ValueError, match="`processor` is missing beside a loaded SlapModel"):
        embed_files(["x.wav"], loaded[0])


def test_embeddings_of_another_model_of_the_same_width_are_refused(loaded, sounds, tmp_path):
    model, processor = loaded
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.text_model.parameters():  # one tower trained on: the other's weights are the same
            parameter.mul_(1.001)
    for suffix in (".npz", ".safetensors"):
        save_embeddings(embed_files([sounds / "long.wav"], model, processor), tmp_path / f"sounds{suffix}")
        stored = load_embeddings(tmp_path / f"sounds{suffix}")
        assert search_files("rain", stored, copy.deepcopy(model), processor).hits[0]  # the same weights elsewhere
        with pytest.raises(ValueError, match=r"`files` holds embeddings of the model .* got the model .* Search with"):
            search_files("rain", stored, other, processor)


def test_the_command_line_itself_imports_nothing_heavy():
    code = (
        "import sys, types, pathlib\n"
        "package = types.ModuleType('hf_audiolang')\n"  # without the package's own imports
        f"package.__path__ = [{str(next(iter(__import__('hf_audiolang').__path__)))!r}]\n"
        "sys.modules['hf_audiolang'] = package\n"
        "from hf_audiolang.cli import build_parser\n"
        "build_parser().format_help()\n"
        "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_bench_compare_shows_a_loss(tmp_path, capsys):
    for name, ratio in (("old", 3.0), ("new", 2.0)):
        report = {"suite": "frontend", "cases": [{"name": "peer", "ratio": {"median": ratio}}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    paths = [str(tmp_path / "old.json"), str(tmp_path / "new.json")]
    assert main(["bench", "compare", *paths]) == 1
    assert "peer: 3.00x -> 2.00x (-33%)  LOSS" in capsys.readouterr().out
    assert main(["bench", "compare", *reversed(paths)]) == 0

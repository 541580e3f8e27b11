# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What of a folder is shared and what is refused, before any network: names, weights, licences, paths, cards, code."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tiny import tiny_processor, tiny_slap_audio_config, tiny_slap_config

from hf_audiolang import (
    LogMelFeatureExtractor,
    SlapAudioForAudioClassification,
    SlapForAudioClassification,
    SlapModel,
    export_with_code,
)
from hf_audiolang.convert.m2d_clap_card import card_facts
from hf_audiolang.hub import PushOptions, plan_push
from hf_audiolang.hub_card import NOT_TO_BE_PASSED_ON
from hf_audiolang.hub_staging import CODE, find_part, stage
from hf_audiolang.training.adapters import add_adapter, lora_config, save_adapter

SCRIPT = Path(__file__).parents[2] / "training_scripts" / "export.py"

HOME = "/".join(["", "home", "someone"])  # a folder of somebody's machine


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's model/, as it was exported."""
    folder = tmp_path_factory.mktemp("place") / "runs" / "tiny" / "model"
    torch.manual_seed(0)
    SlapModel(tiny_slap_config()).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it to change."""
    return Path(shutil.copytree(saved, tmp_path / "runs" / "tiny" / "model"))


@pytest.fixture(scope="module")
def adapter(saved):
    folder = saved.parent / "adapter"
    model = SlapForAudioClassification.from_pretrained(saved, num_labels=3)
    save_adapter(add_adapter(model, lora_config(model, rank=2)), folder, str(saved))
    LogMelFeatureExtractor.from_preset("slap", mean=-7.0, std=4.0).save_pretrained(folder)
    return folder


def staged(source: Path, target: Path, **options) -> dict[str, str]:
    """name -> text of each file that is no weights."""
    stage(find_part(source), target, "me/tiny", **options)
    return {path.name: path.read_text() for path in target.iterdir() if path.suffix != ".safetensors"}


@pytest.mark.parametrize("repo_id", ["tiny", "me/", "me/a b", "a/b/c", "me/..", ""])
def test_names_that_are_none_are_refused(saved, repo_id):
    with pytest.raises(ValueError, match="`repo_id` must be owner/name"):
        plan_push(saved, repo_id)


def test_folders_without_weights_and_wrong_options_are_refused(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder of a model"):
        plan_push(tmp_path, "me/tiny")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"has no weights \(model.safetensors is missing\)"):
        plan_push(tmp_path, "me/tiny")
    with pytest.raises(FileNotFoundError, match="has no captioner/"):
        plan_push(saved.parent, "me/tiny", PushOptions(part="captioner"))
    with pytest.raises(ValueError, match="Unknown `part`"):
        plan_push(saved.parent, "me/tiny", PushOptions(part="decoder"))
    with pytest.raises(ValueError, match=r"`part` is 'adapter', but `source` .* is a model"):
        plan_push(saved, "me/tiny", PushOptions(part="adapter"))
    with pytest.raises(ValueError, match="is no adapter"):
        plan_push(saved, "me/tiny", PushOptions(base_model="me/base"))


def test_weights_in_several_files_are_complete_or_refused(folder, tmp_path):
    SlapModel.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    (tmp_path / "shards" / "model.safetensors.bak").write_bytes(b"x")
    files = set(plan_push(tmp_path / "shards", "me/tiny").files)
    shards = sorted(name for name in files if name.startswith("model-"))
    assert len(shards) > 1
    assert "model.safetensors.index.json" in files
    assert "model.safetensors.bak" not in files
    shutil.copy(tmp_path / "shards" / shards[0], folder)  # left over from an earlier save
    assert not {name for name in plan_push(folder, "me/tiny").files if name.startswith("model-")}
    (tmp_path / "shards" / shards[1]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"has no weights \({shards[1]} is missing\)"):
        plan_push(tmp_path / "shards", "me/tiny")


def test_code_goes_along_on_demand_and_stays_where_it_was_exported(saved, tmp_path):
    assert not set(staged(saved, tmp_path / "plain")) & set(CODE)
    asked = staged(saved, tmp_path / "asked", with_code=True)
    assert {"modeling_slap.py", "configuration_slap.py", "processing_audiolang.py"} <= set(asked)
    export_with_code(SlapModel.from_pretrained(saved), tiny_processor(), tmp_path / "exported")
    (tmp_path / "exported" / "notes.py").write_text("mine")
    kept = staged(tmp_path / "exported", tmp_path / "kept")  # its configuration names the files
    assert set(kept) & set(CODE) == set(asked) & set(CODE)
    assert "notes.py" not in kept


LICENCE = card_facts(())


@pytest.mark.parametrize(
    "card",
    [
        f"---\nlicense: other\nlicense_name: {LICENCE.license_name}\n---\n",
        f"---\nlicense: apache-2.0\n---\n\n- model=converted: {LICENCE.license_name}\n",  # one of several starts
        f"# no head\n\n{LICENCE.licence}",
    ],
)
def test_weights_that_may_not_be_passed_on_stay_here(folder, card):
    (folder / "README.md").write_text(card)
    with pytest.raises(ValueError, match="may not be passed on"):
        plan_push(folder, "me/tiny")
    assert LICENCE.license_name in NOT_TO_BE_PASSED_ON
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: academic-use-only\n---\n")
    plan_push(folder, "me/tiny")  # control: for its owner to decide


@pytest.mark.parametrize(
    "line",
    [
        f"model = load('{HOME}/runs/best')",
        r"saved as C:\Users\someone\best",
        "see {place}/notes",
        "trained on /data/someone and more",
        "trained on /content/drive/sounds",
        "trained on ~/sounds",
        "trained on file:///srv/a",
    ],
)
def test_a_path_of_a_machine_in_a_text_is_refused_with_its_place(folder, monkeypatch, line):
    monkeypatch.chdir(folder.parent)
    (folder / "README.md").write_text(f"# tiny\n\n{line.format(place=folder.parent)}\n")
    with pytest.raises(ValueError, match=r"Line 3 of `README.md` names a path of one machine, '"):
        plan_push(folder, "me/tiny")
    (folder / "README.md").write_text(f"# tiny\n\nhttps://example.org{HOME} and either/or and /m/04rlf\n")
    plan_push(folder, "me/tiny")  # control


def test_a_token_in_a_text_is_refused_and_not_repeated(folder):
    token = "hf_" + "aB3" * 12
    (folder / "README.md").write_text(f"login(token='{token}')\n")
    with pytest.raises(ValueError, match=r"Line 1 of `README.md` holds a token") as found:
        plan_push(folder, "me/tiny")
    assert token not in str(found.value)


def test_configurations_are_cleaned_of_paths_and_of_nothing_else(folder, tmp_path):
    path = folder / "config.json"
    content = json.loads(path.read_text()) | {"id2label": {"0": "/m/04rlf", "1": "/t/dd00067"}, "label2id": {}}
    private = {
        "_name_or_path": "runs/base",
        "text_embedding_model": f"{HOME}/texts",
        "sources": [str(tmp_path), "/nowhere/here", "~/sounds", "org/kept"],
    }
    path.write_text(json.dumps(content | private))
    found = json.loads(staged(folder, tmp_path / "new")["config.json"])
    assert not {"_name_or_path", "text_embedding_model"} & set(found)
    assert found["sources"] == ["org/kept"]
    assert found["id2label"] == content["id2label"]  # classes of AudioSet look like paths
    assert {name: found[name] for name in content if name != "text_embedding_model"} == {
        name: value for name, value in content.items() if name != "text_embedding_model"
    }


def test_the_script_writes_the_folder_that_push_would_send(folder, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("export_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (folder / "README.md").write_text('pipeline("x", model="runs/tiny/model")\n')
    (folder / "optimizer.bin").write_bytes(b"secret")
    monkeypatch.chdir(tmp_path)
    assert script.main([str(folder.parent), "shared/mine"]) == 0
    written = {path.name for path in (tmp_path / "shared" / "mine").iterdir()}
    assert written == set(plan_push(folder, "me/tiny").files)
    assert (tmp_path / "shared/mine/README.md").read_text() == 'pipeline("x", model="shared/mine")\n'
    again = staged(tmp_path / "shared" / "mine", tmp_path / "new")
    assert again["README.md"] == 'pipeline("x", model="me/tiny")\n'  # and it can be pushed from there
    assert script.main([str(folder.parent), "shared/mine"]) == 2
    assert "exists already" in capsys.readouterr().err
    (folder / "README.md").write_text(f"trained on {HOME}\n")
    assert script.main([str(folder.parent), "shared/refused"]) == 2
    assert "names a path of one machine" in capsys.readouterr().err
    assert not (tmp_path / "shared" / "refused").exists()


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_the_card_calls_the_model_by_its_new_name_however_it_was_written(folder, tmp_path, start):
    written = str(folder) if start == 0 else "/".join(folder.parts[-start:])  # whole, or its end
    (folder / "README.md").write_text(
        f'model = pipeline("x", model="{written}")\nAutoModel.from_pretrained("{written}")\n'
        f'AutoModel.from_pretrained("org/{folder.name}")\nhf-audiolang detect a.wav --model {written} --plot e.png\n'
        f"hf-audiolang codewords {written} --data FOLDER\nthe model itself\n"
    )
    assert staged(folder, tmp_path / "new")["README.md"].splitlines() == [
        'model = pipeline("x", model="me/tiny")',
        'AutoModel.from_pretrained("me/tiny")',
        'AutoModel.from_pretrained("org/model")',
        "hf-audiolang detect a.wav --model me/tiny --plot e.png",
        "hf-audiolang codewords me/tiny --data FOLDER",
        "the model itself",
    ]


def test_a_folder_without_card_gets_one_of_what_is_known(tmp_path):
    config = tiny_slap_audio_config(id2label={0: "dog", 1: "cat"}, label2id={"dog": 0, "cat": 1})
    SlapAudioForAudioClassification(config).save_pretrained(tmp_path / "head")
    card = ModelCard(staged(tmp_path / "head", tmp_path / "new")["README.md"])
    assert card.data.pipeline_tag == "audio-classification"
    assert card.data.license is None
    for words in (
        "# tiny",
        "a `SlapAudioForAudioClassification`",
        'AutoModelForAudioClassification.from_pretrained("me/tiny")',
        "order of the outputs: dog; cat.",
        "is not recorded here",
    ):
        assert words in card.text, words


def test_an_adapter_names_a_base_that_others_have(adapter, saved, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"trained on the folder .* which nobody else has"):
        plan_push(adapter, "me/adapter")
    plan = plan_push(adapter, "me/adapter", PushOptions(base_model="org/base"))
    assert set(plan.files) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    assert plan.base_model == "org/base"
    with pytest.raises(ValueError, match="is an adapter, which has no code"):
        plan_push(adapter, "me/adapter", PushOptions(base_model="org/base", with_code=True))
    monkeypatch.chdir(tmp_path)  # a relative name is that of where training ran, and looks like an id
    other = Path(shutil.copytree(adapter, saved.parents[1] / "other"))
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "tiny/model"}))
    with pytest.raises(ValueError, match="trained on the folder 'tiny/model'"):
        plan_push(other, "me/adapter")
    (other / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "org/base"}))
    assert plan_push(other, "me/adapter").base_model == "org/base"


def test_the_card_of_an_adapter_names_the_base_that_was_given(adapter, tmp_path):
    copy = Path(shutil.copytree(adapter, tmp_path / "adapter"))
    (copy / "README.md").write_text(
        "---\nlibrary_name: peft\n---\n\nAn adapter for the model `tiny`, and the word tiny.\n"
    )
    card = ModelCard(staged(copy, tmp_path / "new", base_model="org/base")["README.md"])
    assert card.data.base_model == "org/base"
    assert "for the model `org/base`, and the word tiny" in card.text

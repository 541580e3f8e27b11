# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Adapters as they are shared: a head on a plain base, pipelines, wrong bases, and what peft is told at import."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from adapter_cases import CASES
from peft import PeftModel
from peft.utils import constants
from safetensors.torch import load_file, save_file
from tiny import (
    tiny_batch,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_processor,
    tiny_slap_audio_config,
    tiny_slap_config,
)
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
    AutoProcessor,
    DistilBertConfig,
    pipeline,
)

from hf_audiolang import (
    AudioLangProcessor,
    HtsatConfig,
    M2dClapAudioConfig,
    M2dClapModel,
    MgaClapModel,
    SlapAudioConfig,
    SlapAudioModel,
    SlapModel,
    ZipformerConfig,
)
from hf_audiolang.lora_targets import LORA_TARGETS, register_lora_targets
from hf_audiolang.models.modeling_audio_classification import SlapForAudioClassification
from hf_audiolang.training.adapters import (
    add_adapter,
    add_lora,
    load_adapter,
    lora_config,
    merge,
    save_adapter,
)
from hf_audiolang.training.lora_arguments import LoraArguments
from hf_audiolang.training.objectives import freeze_parameters

CLASSES = ["bell", "siren", "rain", "dog", "drum"]


def labels() -> dict:
    return {"id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)}}


@pytest.fixture(scope="module")
def system_folder(tmp_path_factory):
    """A pre-trained SLAP without any head."""
    folder = tmp_path_factory.mktemp("system")
    torch.manual_seed(4)
    SlapModel(tiny_slap_config()).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tagger(system_folder, tmp_path_factory):
    """(a multi-label head with adapters, trained for two steps; its adapter's folder)."""
    head = {"problem_type": "multi_label_classification", "classifier_pooling": "attention", "classifier_heads": 3}
    model = AutoModelForAudioClassification.from_pretrained(system_folder, **labels(), **head)
    torch.manual_seed(5)
    add_lora(model, LoraArguments(lora=True, lora_rank=2))
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=0.05)
    targets = torch.tensor([[1.0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]])
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model(**clips(model), labels=targets).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("tagger")
    save_adapter(model.eval(), folder, str(system_folder), tiny_processor())
    return model, folder


def clips(model) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tiny_batch(model.config, seed=2).items() if name.startswith("input_feat")}


def logits(model) -> torch.Tensor:
    for tensor in model.parameters():
        tensor.data = tensor.data.clone()  # loaded memory is not aligned, and matrix products round by alignment
    with torch.no_grad():
        return model(**clips(model)).logits


@pytest.mark.parametrize("option", ["lora_dora", "lora_rslora"])
def test_variants_of_peft_come_back(system_folder, tmp_path, option):
    model = AutoModelForAudioClassification.from_pretrained(system_folder, **labels())
    add_lora(model, LoraArguments(lora=True, lora_rank=2, **{option: True})).eval()
    for name, value in model.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            torch.nn.init.uniform_(value, 0.1, 0.5)
    save_adapter(model, tmp_path, str(system_folder), tiny_processor())
    torch.testing.assert_close(logits(AutoModelForAudioClassification.from_pretrained(tmp_path)), logits(model))
    base = AutoModelForAudioClassification.from_pretrained(system_folder, **labels())
    by_peft = PeftModel.from_pretrained(base, tmp_path).base_model.model.eval()
    torch.testing.assert_close(logits(by_peft), logits(model))


def test_the_adapter_brings_classes_head_and_statistics_to_a_base_without_head(tagger):
    model, folder = tagger
    for load in (
        AutoModelForAudioClassification.from_pretrained,
        SlapForAudioClassification.from_pretrained,
        load_adapter,
    ):
        loaded = load(folder)
        assert type(loaded) is SlapForAudioClassification
        assert loaded.config.id2label == dict(enumerate(CLASSES))
        assert loaded.config.label2id["rain"] == 2
        assert loaded.config.num_labels == 5
        assert loaded.config.problem_type == "multi_label_classification"
        assert loaded.config.classifier_pooling == "attention"
        statistics = loaded.classifier.norm.running_var
        assert not torch.equal(statistics, torch.ones_like(statistics)), "the batch norm has seen training"
        assert torch.equal(statistics, model.classifier.norm.running_var)
        assert torch.equal(logits(loaded), logits(model))


def test_a_config_of_the_base_is_left_as_it_was(tagger, system_folder):
    config = AutoModel.from_pretrained(system_folder).config
    loaded = AutoModelForAudioClassification.from_pretrained(tagger[1], config=config)
    assert loaded.config.num_labels == 5
    assert config.num_labels == 2


def test_loading_information_is_that_of_the_base(tagger):
    _, info = AutoModelForAudioClassification.from_pretrained(tagger[1], output_loading_info=True)
    assert {name.partition(".")[0] for name in info["missing_keys"]} == {"classifier"}


def test_the_classification_pipeline_takes_an_adapter(tagger):
    model, folder = tagger
    assert type(AutoProcessor.from_pretrained(folder)) is AudioLangProcessor
    classify = pipeline("audio-classification", model=str(folder), device="cpu")
    sound = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    found = {row["label"]: row["score"] for row in classify(sound, top_k=5)}
    inputs = tiny_processor()(audio=sound, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        scores = model(**inputs).logits[0].sigmoid().tolist()
    assert found == pytest.approx(dict(zip(CLASSES, scores, strict=True)), abs=1e-5)


def test_peft_takes_the_head_where_the_base_has_its_classes(tagger, system_folder):
    model, folder = tagger
    head = {"classifier_pooling": "attention", "classifier_heads": 3}
    base = SlapForAudioClassification.from_pretrained(system_folder, **labels(), **head)
    assert torch.equal(logits(PeftModel.from_pretrained(base, folder)), logits(model))


def test_frame_heads_do_the_same(system_folder, tmp_path):
    model = AutoModelForAudioFrameClassification.from_pretrained(system_folder, **labels())
    torch.manual_seed(5)
    add_lora(model, LoraArguments(lora=True, lora_rank=2))
    with torch.no_grad():
        model.classifier.linear.weight.mul_(3)
    save_adapter(model, tmp_path, str(system_folder))
    loaded = AutoModelForAudioFrameClassification.from_pretrained(tmp_path)
    assert loaded.config.id2label == dict(enumerate(CLASSES))
    assert torch.equal(logits(loaded), logits(model))


def test_the_base_may_have_a_head_for_other_classes(system_folder, tmp_path):
    base = AutoModelForAudioClassification.from_pretrained(system_folder, num_labels=3)
    base.save_pretrained(tmp_path / "base")
    renewed = {"ignore_mismatched_sizes": True, **labels()}
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "base", **renewed)
    freeze_parameters(model, ["classifier.*"])
    add_lora(model, LoraArguments(lora=True, lora_rank=2))
    save_adapter(model, tmp_path / "adapter", str(tmp_path / "base"))
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(loaded), logits(model))
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    tensors["audio_model.norm.weight"] = torch.ones(5)
    save_file(tensors, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"another shape than its config says.*audio_model\.norm"):
        AutoModelForAudioClassification.from_pretrained(tmp_path / "adapter")


@pytest.fixture(scope="module")
def retriever(system_folder, tmp_path_factory):
    model = SlapModel.from_pretrained(system_folder)
    add_lora(model, LoraArguments(lora=True, lora_rank=2))
    folder = tmp_path_factory.mktemp("retriever")
    return save_adapter(model, folder, str(system_folder))


def rebased(adapter, base, folder):
    """A copy of an adapter that names another base."""
    shutil.copytree(adapter, folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(written | {"base_model_name_or_path": str(base)}))
    return folder


OTHERS = {
    "type": lambda: M2dClapModel(tiny_m2d_clap_config()),
    "width": lambda: SlapModel(tiny_slap_config(text_config={"hidden_size": 12, "intermediate_size": 20})),
    "depth": lambda: SlapModel(tiny_slap_config(text_config={"num_hidden_layers": 3})),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_adapter_of_another_model_is_refused_with_both_names(name, retriever, tmp_path):
    other = OTHERS[name]()
    other.save_pretrained(tmp_path / "other")
    adapter = rebased(retriever, tmp_path / "other", tmp_path / "adapter")
    message = (
        rf"(?s){tmp_path}/adapter.*SlapModel of '{tmp_path}/other'.*not fit this {type(other).__name__} of .*other"
    )
    with pytest.raises(ValueError, match=message):
        AutoModel.from_pretrained(adapter)
    with pytest.raises(ValueError, match="does not fit this"):
        other.load_adapter(str(retriever))


def test_an_adapter_of_other_weights_is_refused(retriever, system_folder, tmp_path):
    torch.manual_seed(9)
    other = SlapModel(tiny_slap_config())
    other.save_pretrained(tmp_path / "other")
    adapter = rebased(retriever, tmp_path / "other", tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"does not fit this SlapModel of .*other', whose weights are others"):
        AutoModel.from_pretrained(adapter)
    with pytest.raises(ValueError, match="whose weights are others"):
        other.load_adapter(str(retriever))
    partly = SlapModel.from_pretrained(system_folder)  # as after a training with a frozen text tower
    partly.audio_model = SlapModel.from_pretrained(tmp_path / "other").audio_model
    with pytest.raises(ValueError, match="whose weights are others"):
        partly.load_adapter(str(retriever))
    shutil.copytree(system_folder, tmp_path / "same")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        moved = rebased(retriever, tmp_path / "same", tmp_path / str(dtype))
        assert AutoModel.from_pretrained(moved, dtype=dtype).dtype == dtype


def test_a_base_in_a_folder_is_found_from_any_other(system_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(system_folder.parent)
    model = add_lora(SlapModel.from_pretrained(system_folder), LoraArguments(lora=True, lora_rank=2))
    save_adapter(model, tmp_path, system_folder.name)
    monkeypatch.chdir(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is SlapModel


def test_an_adapter_of_another_class_is_refused(retriever, tagger):
    with pytest.raises(ValueError, match=r"trained on SlapModel .* does not fit this SlapForPreTraining"):
        AutoModelForPreTraining.from_pretrained(retriever)
    with pytest.raises(ValueError, match=r"trained on SlapForAudioClassification .* does not fit this SlapModel"):
        AutoModel.from_pretrained(tagger[1])


def test_a_base_with_missing_weights_is_refused_below_an_adapter(retriever, system_folder, tmp_path):
    shutil.copytree(system_folder, tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    save_file(
        {name: value for name, value in tensors.items() if "layers.1" not in name},
        tmp_path / "base" / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"lacks .* weights of SlapModel"):
        AutoModel.from_pretrained(rebased(retriever, tmp_path / "base", tmp_path / "adapter"))


def test_an_adapter_with_missing_tensors_is_refused(retriever, tmp_path):
    shutil.copytree(retriever, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    del tensors["base_model.model.logit_scale.log_scale"]
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors are missing.*logit_scale"):
        AutoModel.from_pretrained(tmp_path / "adapter")


def test_an_absent_base_is_named(retriever, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        AutoModel.from_pretrained(rebased(retriever, tmp_path / "nowhere", tmp_path / "adapter"))


def test_a_folder_without_an_adapter_is_no_adapter(system_folder):
    with pytest.raises(FileNotFoundError, match=r"no adapter_config\.json"):
        load_adapter(system_folder)


def test_a_class_that_no_auto_class_has_is_refused(retriever, tmp_path):
    folder = rebased(retriever, "x", tmp_path / "adapter")
    written = json.loads((folder / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = json.loads((retriever / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ]
    written["auto_mapping"]["base_model_class"] = "SomethingElse"
    (folder / "adapter_config.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"SomethingElse .* no auto class has"):
        load_adapter(folder)


def test_wrong_calls_say_what_to_do(tmp_path):
    model = SlapModel(tiny_slap_config())
    for call in (merge, lambda model: save_adapter(model, tmp_path, "x")):
        with pytest.raises(ValueError, match=r"has no adapter\. Call `add_lora`"):
            call(model)
    with pytest.raises(ValueError, match=r"names 'q_prj', but no linear layer .* nearest is 'q_proj'"):
        lora_config(model, targets=["v_proj", "q_prj"])
    config = lora_config(model)
    add_adapter(model, config)
    with pytest.raises(ValueError, match="has adapters already"):
        add_adapter(model, config)
    audio = SlapAudioModel(tiny_slap_audio_config())
    for name, parameter in audio.named_parameters():
        parameter.requires_grad_("norm" in name)
    with pytest.raises(ValueError, match="Freeze less of it"):
        lora_config(audio)


def test_a_tower_without_default_targets_is_named():
    text = DistilBertConfig(vocab_size=30, dim=16, n_layers=1, n_heads=2, hidden_dim=20, pad_token_id=0)
    model = MgaClapModel(tiny_mga_clap_config(text_config=text))
    with pytest.raises(ValueError, match=r"no default `targets` for `text_model` .* a DistilBertModel.*q_lin'"):
        lora_config(model)
    config = lora_config(model, targets=["q_lin", "v_lin", "attention.self.query"])
    assert sorted(config.target_modules) == ["attention.self.query", "q_lin", "v_lin"]


def test_the_target_table_knows_every_model_type():
    tested = {case.make_config().model_type for case in CASES.values()}
    assert tested | {"caption_decoder"} == set(LORA_TARGETS)


@pytest.mark.parametrize(
    ("make_config", "share"),
    [(SlapAudioConfig, 1.5), (M2dClapAudioConfig, 1.7), (HtsatConfig, 2.5), (ZipformerConfig, 3.3)],
)
def test_shares_of_the_readme_at_the_papers_sizes(make_config, share):
    with torch.device("meta"):  # shapes alone
        model = AutoModelForAudioClassification.from_config(make_config(num_labels=32))
        num_weights = model.num_parameters()
        add_adapter(model, lora_config(model, rank=8, targets=["all-linear"]))
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert round(100 * trained / num_weights, 1) == share


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_leaves_peft_alone_and_peft_still_knows_it():
    code = (
        "import importlib, sys, hf_audiolang; assert 'peft' not in sys.modules;"
        "importlib.reload(hf_audiolang.auto); importlib.reload(hf_audiolang);"
        "before = len(sys.meta_path); import peft; assert len(sys.meta_path) == before - 1;"
        "from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as table;"
        "print(table['zipformer'][0], table['bert'])"
    )
    assert run_python(code).split()[0] == "self_attn_weights.in_proj"


def test_a_peft_that_is_there_learns_at_once_and_one_with_another_table_does_no_harm(monkeypatch):
    table = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    monkeypatch.delitem(table, "slap")
    register_lora_targets()
    assert table["slap"] == list(LORA_TARGETS["slap"])
    monkeypatch.delattr(constants, "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING")
    register_lora_targets()

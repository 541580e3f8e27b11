# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""LoRA on every class that the auto classes load: what it finds, trains, saves, loads and merges."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from adapter_cases import CASES, DECODER_CONFIG, Case
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForSpeechSeq2Seq,
    PreTrainedModel,
)

from hf_audiolang import CaptionDecoder
from hf_audiolang.auto import MODELS
from hf_audiolang.training.adapters import add_adapter, lora_config, merge, save_adapter

AUTO_CLASSES = (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForSpeechSeq2Seq,
)


@dataclass(frozen=True)
class Adapted:
    """A base on disk, the model with adapters after one step on it, and its adapter on disk."""

    case: Case
    base: PreTrainedModel
    base_folder: Path
    model: PreTrainedModel
    before: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor | None]
    adapter_folder: Path


@pytest.fixture(scope="module", params=CASES)
def adapted(request, tmp_path_factory) -> Adapted:
    case, folder = CASES[request.param], tmp_path_factory.mktemp("adapted")
    base = case.make_model()
    base.save_pretrained(folder / "base")
    model = copy.deepcopy(base)
    torch.manual_seed(7)
    add_adapter(model, lora_config(model, rank=3, alpha=6))
    before = copy.deepcopy(model.state_dict())
    model.train()
    gradients = one_step(case, model)
    model.eval()
    save_adapter(model, folder / "adapter", str(folder / "base"))
    return Adapted(case, base, folder / "base", model, before, gradients, folder / "adapter")


def one_step(case: Case, model: PreTrainedModel) -> dict[str, torch.Tensor | None]:
    """Two steps, for the first leaves A without gradient; returns the gradients of the second."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), lr=0.01, eps=1e-20)  # moves by 0.01 however small the gradient is
    for _ in range(2):
        optimizer.zero_grad()
        loss, _ = case.run(model)
        loss.backward()
        optimizer.step()
    return {name: value.grad for name, value in trained.items()}


def output_of(case: Case, model: PreTrainedModel) -> torch.Tensor:
    model = copy.deepcopy(model).eval()
    for tensor in model.parameters():
        tensor.data = tensor.data.clone()  # loaded memory is not aligned, and matrix products round by alignment
    with torch.no_grad():
        return case.run(model)[1]


def adapted_layers(model: torch.nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def test_every_loadable_class_is_among_the_cases():
    tested = {case.model_class for case in CASES.values()}
    loadable = {model for auto_class in AUTO_CLASSES for _, model in MODELS[auto_class]}
    assert loadable == tested


def test_attention_of_every_tower_is_adapted_and_nothing_that_is_never_read(adapted):
    layers = adapted_layers(adapted.model)
    assert len(layers) == adapted.case.num_layers
    assert not [name for name in layers if name.rpartition(".")[2] in ("fc1", "fc2", "Wi", "up_proj", "dense2")]


def test_peft_finds_the_same_layers_by_itself(adapted):
    model = get_peft_model(adapted.case.make_model(), LoraConfig(r=2, modules_to_save=sorted(adapted.case.heads)))
    names = {name.removeprefix("base_model.model.") for name in adapted_layers(model)}
    assert adapted_layers(adapted.model) <= names
    assert len(names) == adapted.case.num_layers + adapted.case.num_dead


def test_adapters_and_heads_get_gradient_and_nothing_else_moves(adapted):
    without = [name for name, gradient in adapted.gradients.items() if gradient is None or not gradient.any()]
    assert without == []
    wrapped = {name.partition(".modules_to_save.")[0] for name in adapted.gradients if "modules_to_save" in name}
    assert wrapped == adapted.case.heads
    assert all(".lora_" in name or ".modules_to_save." in name for name in adapted.gradients)
    after = adapted.model.state_dict()
    moved = {name for name, value in adapted.before.items() if not torch.equal(value, after[name])}
    assert moved >= set(adapted.gradients)
    allowed = (".lora_", ".modules_to_save.", ".is_white")
    assert not [name for name in moved if not any(part in name for part in allowed)]


def test_training_changes_the_output(adapted):
    base, model = output_of(adapted.case, adapted.base), output_of(adapted.case, adapted.model)
    assert (base - model).abs().max() > 1e-3


def test_the_adapter_is_small_and_names_its_base(adapted):
    tensors = load_file(adapted.adapter_folder / "adapter_model.safetensors")
    assert {path.name for path in adapted.adapter_folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert all(name.startswith("base_model.model.") for name in tensors)
    frozen = [
        name for name in tensors if ".lora_" not in name and not any(part in name for part in adapted.case.heads)
    ]
    assert frozen == []


def test_auto_classes_load_the_adapter_to_the_bit(adapted):
    auto_class = next(
        auto_class for auto_class in AUTO_CLASSES if adapted.case.model_class in dict(MODELS[auto_class]).values()
    )
    loaded = auto_class.from_pretrained(adapted.adapter_folder)
    assert type(loaded) is adapted.case.model_class
    assert not loaded.training
    state = loaded.state_dict()
    for name, value in adapted.model.state_dict().items():
        assert "is_white" in name or ".original_module." in name or torch.equal(state[name], value), name
    assert torch.equal(output_of(adapted.case, loaded), output_of(adapted.case, adapted.model))


def test_peft_loads_and_merges_the_adapter(adapted):
    wanted = output_of(adapted.case, adapted.model)
    options = {"num_labels": adapted.base.config.num_labels} if "classifier" in adapted.case.heads else {}
    base = adapted.case.model_class.from_pretrained(adapted.base_folder, **options)
    wrapped = PeftModel.from_pretrained(base, adapted.adapter_folder)
    assert torch.equal(output_of(adapted.case, wrapped.get_base_model()), wanted)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(output_of(adapted.case, merged), wanted, rtol=1e-5, atol=1e-5)


def test_merged_equals_adapted_and_is_built_like_any_model(adapted):
    merged = merge(copy.deepcopy(adapted.model))
    assert list(merged.state_dict()) == list(adapted.base.state_dict())
    trained = [name for name, value in merged.named_parameters() if value.requires_grad]
    assert trained == [name for name, value in adapted.base.named_parameters() if value.requires_grad]
    wanted = output_of(adapted.case, adapted.model)
    torch.testing.assert_close(output_of(adapted.case, merged), wanted, rtol=1e-5, atol=1e-5)


def test_the_caption_decoder_has_defaults_of_its_own():
    model = get_peft_model(CaptionDecoder(DECODER_CONFIG()), LoraConfig(r=2))
    assert len(adapted_layers(model)) == 2 * 8

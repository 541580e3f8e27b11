# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Low-rank adapters (peft's LoRA) on any model of the package: which layers get them, saving, loading, merging.

model -> add_lora: adapters and heads train, all else is frozen -> save_adapter -> adapter_config.json, a few tensors
                                                                -> merge        -> a model like any other

A saved adapter is loaded by `AutoModel.from_pretrained(folder)`, or the auto class of its head, and by peft's own
`PeftModel.from_pretrained(base, folder)`. The base may be quantised, which needs bitsandbytes and is not covered by
the tests: load it with `BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(HEADS))`, in 4 bits alike,
because heads are trained in full; pass it through `peft.prepare_model_for_kbit_training`, then to `add_lora`. The
adapter loads on a base of any precision.
"""

import copy
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
    AutoModelForSpeechSeq2Seq,
    PreTrainedModel,
    ProcessorMixin,
)

from hf_audiolang.lora_targets import LORA_TARGETS
from hf_audiolang.models.modeling_adapters import find_adapter, first_weight, head_of

from .lora_arguments import LoraArguments

ADAPTER = "default"  # peft's own name of an only adapter
# Parts that are trained and saved in full beside the adapters, where a model has them: slap.md section 13.
HEADS = (
    "classifier", "encoder_projection", "audio_projection", "text_projection", "audio_pooling", "text_pooling",
    "logit_scale",
)  # fmt: skip
_TOWERS = ("audio_model", "text_model", "caption_decoder")
_AUTO_CLASSES = (
    AutoModel, AutoModelForAudioClassification, AutoModelForAudioFrameClassification, AutoModelForSpeechSeq2Seq,
    AutoModelForPreTraining,
)  # fmt: skip


def add_lora(model: PreTrainedModel, arguments: LoraArguments) -> PreTrainedModel:
    """The model itself with adapters as a run's settings say; from now on only they and the heads are trained.

    Raises:
        ValueError: if a target names no layer, or the model has adapters already.
    """
    return add_adapter(model, adapter_settings(model, arguments))


def adapter_settings(model: PreTrainedModel, arguments: LoraArguments) -> LoraConfig:
    """The configuration of `lora_config` that a run's settings ask for; needs no weights.

    Raises:
        ValueError: if a target names no layer.
    """
    return lora_config(
        model,
        rank=arguments.lora_rank,
        alpha=arguments.lora_alpha,
        dropout=arguments.lora_dropout,
        targets=arguments.lora_targets,
        use_rslora=arguments.lora_rslora,
        use_dora=arguments.lora_dora,
    )


def lora_config(
    model: PreTrainedModel,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
    use_rslora: bool = False,
    use_dora: bool = False,
    modules_to_save: Sequence[str] | None = None,
) -> LoraConfig:
    """Configuration of adapters for a model of ours: attention of all towers that it uses, heads trained in full.

    What is frozen when this is called stays as it is: it gets no adapter. Only in a model that is frozen altogether
    does that say nothing.

    Args:
        model: without adapters.
        rank: of the adapters.
        alpha: their scale is alpha / rank, or alpha / sqrt(rank) with `use_rslora`.
        dropout: before the adapters.
        targets: ends of the names of linear layers, or "all-linear" alone; none: `LORA_TARGETS`.
        use_rslora: rank-stabilised scale.
        use_dora: magnitude and direction of the weights are adapted apart.
        modules_to_save: parts trained in full; None: those of `HEADS` that the model has.

    Raises:
        ValueError: if a target names no linear layer, or one of the model's towers would get no adapter.
    """
    heads = heads_of(model) if modules_to_save is None else list(modules_to_save)
    idle = _idle_layers(model)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    layers = [name for name in linear if name not in idle and not {*name.split(".")} & {*heads}]
    if not layers:
        raise ValueError(f"No linear layer of this {type(model).__name__} is left to adapt. Freeze less of it.")
    wanted = list(targets) or _default_targets(model, layers)
    if wanted != ["all-linear"]:
        _check_targets(layers, wanted)
        idle = [name for name in idle if _hits([name], wanted)]
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if wanted == ["all-linear"] else wanted,
        exclude_modules="|".join(re.escape(name) for name in idle) or None,
        modules_to_save=heads or None,
        use_rslora=use_rslora,
        use_dora=use_dora,
    )


def heads_of(model: PreTrainedModel) -> list[str]:
    """The model's parts in `HEADS` that have weights to train; a classifier always: the base may have none."""
    parts, frozen = dict(model.named_children()), {id(parameter) for parameter in _frozen_parameters(model)}
    trained = {name for name, part in parts.items() if any(id(value) not in frozen for value in part.parameters())}
    return [name for name in HEADS if name in trained or (name == "classifier" and name in parts)]


def add_adapter(model: PreTrainedModel, config: LoraConfig) -> PreTrainedModel:
    """The model itself with adapters, which alone are trained, and with copies of `modules_to_save`, which are too.

    Raises:
        ValueError: if the model has adapters already, or a target is not found.
    """
    if getattr(model, "peft_config", None):
        raise ValueError(
            f"This {type(model).__name__} has adapters already, got {sorted(model.peft_config)}. Merge or save them "
            "first."
        )
    inject_adapter_in_model(config, model, ADAPTER)
    model._hf_peft_config_loaded = True  # as transformers' `add_adapter` notes it: for checkpointing, among others
    return model.train(model.training)  # new dropout takes the mode, a frozen batch norm keeps its statistics


def save_adapter(
    model: PreTrainedModel, folder: str | Path, base_name: str, processor: ProcessorMixin | None = None
) -> Path:
    """Writes a model's adapter alone, and its heads, into a folder; without a config.json, which would hide the base.

    Args:
        model: has adapters.
        folder: is made if it is not there.
        base_name: folder or Hub id of the model that the adapter was trained on; a folder's whole path is written.
        processor: what the model hears with, processor or feature extractor; pipelines look for it in the folder.

    Raises:
        ValueError: if there is no adapter.
    """
    _need_adapter(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    # peft cuts DoRA's names short and takes whole ones too, transformers takes whole ones alone
    names = {name: f"{name}.weight" if name.endswith("lora_magnitude_vector") else name for name in state}
    tensors = {f"base_model.model.{names[name]}": value.detach().cpu().contiguous() for name, value in state.items()}
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config[ADAPTER])
    is_here = Path(base_name).expanduser().is_dir()
    base = Path(base_name).expanduser().resolve() if is_here else base_name  # found from any working folder
    config.base_model_name_or_path, config.inference_mode = str(base), True
    if not isinstance(config.target_modules, str):
        config.target_modules = sorted(config.target_modules)  # peft keeps a set, of another order in every process
    about = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
    if hasattr(model, "classifier"):
        about["head"] = head_of(model.config)
    layers = {name: part.get_base_layer() for name, part in model.named_modules() if isinstance(part, LoraLayer)}
    sample = {name: first_weight(layer) for name, layer in layers.items()}
    about["base_sample"] = {name: value for name, value in sample.items() if value is not None}
    config.save_pretrained(folder, auto_mapping_dict=about)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


def load_adapter(name: str | Path) -> PreTrainedModel:
    """The model that an adapter was trained on with the adapter in it, of the class that was trained.

    Args:
        name: folder or Hub id of the adapter.

    Raises:
        FileNotFoundError: if there is no adapter.
        ValueError: if its class is not known, or it does not fit its base.
    """
    adapter = find_adapter(name, {})
    if adapter is None:
        raise FileNotFoundError(
            f"{str(name)!r} holds no adapter_config.json. Give the folder that `save_adapter` made."
        )
    config = AutoConfig.from_pretrained(adapter.base, revision=adapter.base_revision)
    for auto_class in _AUTO_CLASSES:
        model_class = auto_class._model_mapping.get(type(config), None)
        if model_class is not None and model_class.__name__ == adapter.base_class:
            return auto_class.from_pretrained(name)
    raise ValueError(
        f"The adapter {str(name)!r} was trained on {adapter.origin}, a class that no auto class has for a "
        f"{type(config).__name__}. Load the base yourself and call its `load_adapter`."
    )


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself without adapters, whose weights and heads are those that training has made; all trainable.

    Raises:
        ValueError: if there is no adapter.
    """
    _need_adapter(model)
    for name, module in [*model.named_modules()]:
        if isinstance(module, LoraLayer):
            module.merge()
            merged = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            merged = module.modules_to_save[ADAPTER]
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, merged)
    del model.peft_config
    model._hf_peft_config_loaded = False
    return model.requires_grad_(True).train(model.training)


def _idle_layers(model: PreTrainedModel) -> list[str]:
    """Linear layers that are frozen, as those that a locality-aware block never reads, or a captioner's text tower."""
    frozen = {id(parameter) for parameter in _frozen_parameters(model)}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (id(module.weight) in frozen or (model.can_generate() and ".text_model." in f".{name}"))
    ]


def _frozen_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Parameters without gradient that could have one, unlike quantised ones; none in a model without any gradient."""
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        return []
    return [value for value in parameters if value.is_floating_point() and not value.requires_grad]


def _check_targets(layers: Sequence[str], targets: Sequence[str]) -> None:
    """Every named target is the end of a layer's name."""
    for target in targets:
        if not _hits(layers, [target]):
            ends = sorted({name.rpartition(".")[2] for name in layers} | set(layers))
            nearest = difflib.get_close_matches(target, ends, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"`targets` names {target!r}, but no linear layer of the model ends like that. The nearest is "
                f"{nearest!r}."
            )


def _default_targets(model: PreTrainedModel, layers: Sequence[str]) -> list[str]:
    """Those of `LORA_TARGETS` that the model has; every tower with linear layers has some."""
    targets = LORA_TARGETS.get(model.config.model_type, ())
    towers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in _TOWERS] or [""]
    for tower in towers:
        own = [name for name in layers if name.startswith(f"{tower}." if tower else "")]
        if own and not _hits(own, targets):
            raise ValueError(
                f"There are no default `targets` for `{tower}` of this {type(model).__name__}, a "
                f"{type(model.get_submodule(tower)).__name__}. Name its layers, for instance {own[0]!r}."
            )
    return [target for target in targets if _hits(layers, [target])]


def _hits(layers: Iterable[str], targets: Iterable[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for name in layers for target in targets)


def _need_adapter(model: PreTrainedModel) -> None:
    if ADAPTER not in (getattr(model, "peft_config", None) or {}):
        raise ValueError(f"This {type(model).__name__} has no adapter. Call `add_lora` first.")


__all__ = [
    "ADAPTER",
    "HEADS",
    "adapter_settings",
    "add_adapter",
    "add_lora",
    "heads_of",
    "load_adapter",
    "lora_config",
    "merge",
    "save_adapter",
]

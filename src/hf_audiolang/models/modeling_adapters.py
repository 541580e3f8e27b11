# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Folders of peft's adapters at loading: the model they were trained on, and the head that they bring.

adapter_config.json -> base_model_name_or_path -> the base, with the adapter's classes in its config -> adapter
"""

import copy
import json
import math
import os
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME, find_adapter_config_file

from .configuration_audio_head import AudioHeadConfig

# what a head is built from, beside the encoder's own numbers
HEAD_FIELDS = ("id2label", "label2id", "problem_type", *AudioHeadConfig.__annotations__)
_DOWNLOAD = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
_OWN_OPTIONS = ("adapter_kwargs", "adapter_name", "num_labels")


@dataclass(frozen=True)
class AdapterSource:
    """An adapter that `from_pretrained` was asked for.

    Attributes:
        name: its folder or Hub id.
        base: that of the model it was trained on.
        base_revision: revision of the base, which an auto class has looked up; None: the newest.
        base_class: name of that model's class, if it is known.
        head: fields of the config that its head was built from; empty without a head.
        base_sample: name of each adapted layer -> its first weight in the base; empty if they are not known.
        download: how its files are found.
    """

    name: str
    base: str
    base_revision: str | None
    base_class: str | None
    head: dict[str, Any]
    base_sample: dict[str, float] = field(default_factory=dict)
    download: dict[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The model that it was trained on, in words."""
        return f"{self.base_class or 'a model'} of {self.base!r}"

    def options_of_base(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options of `from_pretrained` as the base takes them, with the adapter's head in its config."""
        options = {name: value for name, value in options.items() if name not in _OWN_OPTIONS}
        options["revision"] = self.base_revision
        if self.head:
            options["ignore_mismatched_sizes"] = True  # the base may have a head for other classes
        config = options.get("config")
        if not isinstance(config, PreTrainedConfig):
            return options | self.head
        options["config"] = copy.deepcopy(config)
        for name, value in self.head.items():
            setattr(options["config"], name, value)
        return options

    def fits_weights(self, model: nn.Module) -> bool:
        """Whether a model that has the adapter on it is the one that it was trained on, as far as the sample tells.

        A base in another precision passes, and a quantised one, whose weights cannot be compared.
        """
        for name, expected in self.base_sample.items():
            found = first_weight(model.get_submodule(name).get_base_layer())
            if found is not None and not math.isclose(found, expected, rel_tol=0.01, abs_tol=1e-6):
                return False
        return True

    def check_base(self, info: dict[str, Any]) -> None:
        """Makes sure that nothing but a head had another shape in the base.

        Raises:
            ValueError: if something had; names it.
        """
        misfits = sorted(name for name, *_ in info["mismatched_keys"] if not name.startswith("classifier."))
        if misfits:
            raise ValueError(
                f"The base {self.base!r} of the adapter {self.name!r} has {len(misfits)} weights of another shape "
                f"than its config says, for instance {misfits[0]!r}. Give a complete model."
            )


def find_adapter(name_or_path: str | os.PathLike, options: dict[str, Any]) -> AdapterSource | None:
    """The adapter that a call of `from_pretrained` names; None for a model, also for one with an adapter beside it.

    Args:
        name_or_path: folder or Hub id; of the base where an auto class has already found out about the adapter.
        options: further arguments of the call.
    """
    own = dict(options.get("adapter_kwargs") or {})
    name = str(own.pop("_adapter_model_path", None) or name_or_path)
    download = {key: options[key] for key in _DOWNLOAD if options.get(key) is not None} | own
    path = find_adapter_config_file(name, **download)
    if path is None or os.path.isfile(os.path.join(name, CONFIG_NAME)):
        return None
    with open(path, encoding="utf-8") as file:
        written = json.load(file)
    about = written.get("auto_mapping") or {}
    head = dict(about.get("head") or {})
    if "id2label" in head:
        head["id2label"] = {int(index): label for index, label in head["id2label"].items()}  # JSON has no such keys
    revision = written.get("revision") if name == str(name_or_path) else options.get("revision")
    base = str(written.get("base_model_name_or_path"))
    return AdapterSource(
        name, base, revision, about.get("base_model_class"), head, about.get("base_sample") or {}, download
    )


def first_weight(layer: nn.Module) -> float | None:
    """The first weight of a layer; None for a quantised one, and for one whose weights are not on a device."""
    weight = layer.weight
    return float(weight.flatten()[0]) if weight.is_floating_point() and not weight.is_meta else None


def head_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of a config that a head is built from, as JSON keeps them."""
    return {name: getattr(config, name) for name in HEAD_FIELDS}


__all__ = ["HEAD_FIELDS", "AdapterSource", "find_adapter", "first_weight", "head_of"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Which linear layers get low-rank adapters by default, by model type; peft is told without being imported.

import hf_audiolang -> register_lora_targets() -> peft's table, at once or when peft is imported
peft.LoraConfig() on a model of ours -> peft looks its type up there
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Ends of layer names: the projections of attention, of queries, keys and values and of what comes out.
_QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
_BERT = (*(f"attention.self.{name}" for name in ("query", "key", "value")), "attention.output.dense")
_MODERN_BERT = ("attn.Wqkv", "attn.Wo")
_BART = tuple(f"{part}.{name}" for part in ("self_attn", "encoder_attn") for name in (*_QKVO[:3], "out_proj"))
_DECODER = (*(f"{part}.{name}" for part in ("self_attn", "cross_attn") for name in _QKVO), *_BART)
_VIT = tuple(f"attn.{name}" for name in _QKVO)
_AST = tuple(f"attention.{name}" for name in _QKVO)
_WHISPER = _BART[:4]
# Not `linear_pos`: training leaves it out of some steps, and its adapters would have no gradient there.
_ZIPFORMER = (
    "self_attn_weights.in_proj",
    *(
        f"{part}.{name}"
        for part in ("self_attn1", "self_attn2", "nonlin_attention")
        for name in ("in_proj", "out_proj")
    ),
)
_ENCODERS = {
    "htsat": _BERT,  # the same names
    "m2d_clap_audio_model": _VIT,
    "native_audio": (*_AST, *_WHISPER),
    "slap_audio_model": _VIT,
    "zipformer": _ZIPFORMER,
}
# A system's towers may be of any kind, and no name of one kind is something else in another.
_ANY = tuple(dict.fromkeys((*_VIT, *_AST, *_ZIPFORMER, *_DECODER, *_BERT, *_MODERN_BERT)))
LORA_TARGETS: dict[str, tuple[str, ...]] = {
    **_ENCODERS,
    **dict.fromkeys(("captionstew", "m2d_clap", "mga_clap", "slap"), _ANY),
    "audio_projector": _VIT,
    "caption_decoder": _DECODER,
}
_MODULE, _TABLE = "peft.utils.constants", "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"


def register_lora_targets() -> None:
    """Adds `LORA_TARGETS` to peft's defaults; safe to call again."""
    if _MODULE in sys.modules:
        _fill_table(sys.modules[_MODULE])
    elif not any(isinstance(finder, _PeftWatcher) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PeftWatcher())


class _PeftWatcher(MetaPathFinder):
    """Fills peft's table as soon as peft makes it: importing peft only for that would slow down every start."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_fill(module: ModuleType) -> None:
                execute(module)
                _fill_table(module)

            spec.loader.exec_module = execute_and_fill
        return spec


def _fill_table(constants: ModuleType) -> None:
    table = getattr(constants, _TABLE, None)
    if isinstance(table, dict):  # another peft may keep its defaults elsewhere: then targets have to be named
        table.update({model_type: list(targets) for model_type, targets in LORA_TARGETS.items()})


__all__ = ["LORA_TARGETS", "register_lora_targets"]

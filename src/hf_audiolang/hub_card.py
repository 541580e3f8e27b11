# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The card of what is shared: under its new name, with an adapter's base; a short one where there is none."""

import json
import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load

from .auto import auto_class_name
from .model_card import find_template

CARD, CONFIG, ADAPTER_CONFIG = "README.md", "config.json", "adapter_config.json"
# Licences under which weights may not be passed on, and what their text is called by a card that links to it.
NOT_TO_BE_PASSED_ON = {"ntt-software-evaluation-license-agreement": "github.com/nttcslab/m2d/blob/master/LICENSE.pdf"}


def check_licence(source: Path) -> None:
    """Makes sure that the weights of a folder may be published, by its card.

    Raises:
        ValueError: if their licence, or that of weights they started from, forbids it, or the card's head is faulty.
    """
    card = source / CARD
    try:
        metadata = (metadata_load(card) if card.is_file() else None) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"`{card}` has no readable metadata ({error}). Correct its head, or remove it.") from error
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    for licence, link in NOT_TO_BE_PASSED_ON.items():
        if licence == metadata.get("license_name") or licence in text or link in text:
            raise ValueError(
                f"`{source}` stands under {licence!r}, by its card: these weights, and those made of them, may not be "
                "passed on. Keep the folder to yourself, or ask the authors."
            )


def write_shared_card(source: Path, path: Path, repo_id: str, base: str | None) -> None:
    """Makes the copied card name the model by its Hub id, and an adapter's base; writes a short one if there is none.

    Args:
        source: the folder that is shared; the card may call it by any end of its path.
        path: of the card in the copy.
        repo_id: what the model is called from now on.
        base: Hub id of the model that an adapter needs; None for a model.
    """
    if not path.is_file():
        _write_short_card(path, repo_id, base)
        return
    path.write_text(_renamed(path.read_text(encoding="utf-8"), source, repo_id), encoding="utf-8")
    if base is not None:
        card = ModelCard.load(path)
        _name_base(card, source, base)
        card.save(path)


def _write_short_card(path: Path, repo_id: str, base: str | None) -> None:
    """A card of what the configuration beside it says, and of no more."""
    about = _read_json(path.parent / ADAPTER_CONFIG).get("auto_mapping") or {}
    config = _read_json(path.parent / CONFIG) or {"architectures": [about.get("base_model_class")]}
    config = {**config, **about.get("head", {})}
    architecture = (config.get("architectures") or [None])[0] or ""
    has_head = architecture.endswith(("ForAudioClassification", "ForAudioFrameClassification"))
    data = ModelCardData(
        library_name="transformers" if base is None else "peft",
        pipeline_tag="audio-classification" if architecture.endswith("ForAudioClassification") else None,
        base_model=base,
        tags=["audio", *([config["model_type"]] if "model_type" in config else []), "hf_audiolang"],
    )
    card = ModelCard.from_template(
        data,
        template_str=find_template("short").read_text(encoding="utf-8"),
        title=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        base=base,
        architecture=architecture,
        auto_class=auto_class_name(architecture),
        classes=list(config.get("id2label", {}).values()) if has_head else [],
    )
    card.save(path)


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _renamed(text: str, source: Path, repo_id: str) -> str:
    """The text with `repo_id` for the folder, where it is loaded from."""
    parts = source.resolve().parts
    ends = {source.as_posix(), *("/".join(parts[start:]) for start in range(1, len(parts))), str(source.resolve())}
    names = "|".join(re.escape(name) for name in sorted(ends, key=len, reverse=True))
    text = re.sub(rf'(from_pretrained\(|model=)"(?:{names})"', rf'\1"{repo_id}"', text)
    return re.sub(rf"(--model |hf-audiolang codewords )(?:{names})(?=\s|$)", rf"\1{repo_id}", text)


def _name_base(card: ModelCard, source: Path, base: str) -> None:
    """Puts the base's Hub id into the metadata, and in the text in the place of the folder's name."""
    card.data.base_model, card.data.library_name = base, "peft"
    path = Path(str(_read_json(source / ADAPTER_CONFIG)["base_model_name_or_path"]))
    for name in {str(path), path.name, path.parent.name if path.name == "model" else path.name} - {""}:
        card.text = card.text.replace(f"`{name}`", f"`{base}`")


__all__ = ["ADAPTER_CONFIG", "CARD", "CONFIG", "NOT_TO_BE_PASSED_ON", "check_licence", "write_shared_card"]

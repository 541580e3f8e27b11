# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What of a folder is shared: weights, configurations, processor, tokenizer, card; cleaned of what is private.

folder -> checks (weights, licence, base of an adapter) -> copy, or model saved again with code or in shards -> cleaned
"""

import json
import re
import shutil
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor, PreTrainedModel

import hf_audiolang
from hf_audiolang.auto import export_with_code

PARTS = ("model", "captioner", "adapter")
CARD, CONFIG, ADAPTER_CONFIG = "README.md", "config.json", "adapter_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")
SHARED = (
    CARD, CONFIG, ADAPTER_CONFIG, "generation_config.json", *EXTRACTOR_FILES, *TOKENIZER_FILES,
    "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "*.safetensors", "*.safetensors.index.json",
    "*.jinja",
)  # fmt: skip
# Licences under which weights may not be passed on.
NOT_TO_BE_PASSED_ON = ("ntt-software-evaluation-license-agreement",)


def find_part(source: str | Path, part: str = "model") -> Path:
    """The folder to share: `part` of a run's folder, or the folder of a model or an adapter itself.

    Raises:
        FileNotFoundError: if there is no such folder, or it has no weights.
        ValueError: for an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"Unknown `part` {part!r}. Choose one of {list(PARTS)}.")
    folder = Path(source).expanduser()
    is_run = not (folder / CONFIG).is_file() and not (folder / ADAPTER_CONFIG).is_file()
    folder = folder / part if is_run else folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`source` {str(source)!r} has no {part}/ and is no folder of a model. Give the folder of a finished run, "
            "or one with a config.json."
        )
    if not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"`source` {str(folder)!r} has no weights (*.safetensors). Give the folder that a run exported, or that "
            "`save_pretrained` wrote."
        )
    return folder


def stage(
    source: Path,
    target: Path,
    repo_id: str,
    *,
    with_code: bool = False,
    max_shard_size: str | None = None,
    base_model: str | None = None,
) -> None:
    """Writes what is shared of `source` into the new folder `target`.

    Args:
        source: folder with weights, of `find_part`.
        target: is made.
        repo_id: what the model will be called; the card's commands name it.
        with_code: add the source files.
        max_shard_size: save the weights again in files of at most this size.
        base_model: Hub id of an adapter's base.

    Raises:
        ValueError: for weights that may not be passed on, an adapter for a local folder, or options that do not fit.
    """
    _check_licence(source)
    is_adapter = (source / ADAPTER_CONFIG).is_file()
    target.mkdir(parents=True)
    for path in sorted({path for pattern in SHARED for path in source.glob(pattern)}):
        shutil.copyfile(path, target / path.name)
    if is_adapter:
        if with_code or max_shard_size:
            raise ValueError(
                f"`{source}` is an adapter, which has no code and one small file, got `with_code` {with_code} and "
                f"`max_shard_size` {max_shard_size}. Leave both out, or share the merged model."
            )
        _name_base(target / ADAPTER_CONFIG, base_model)
    elif base_model is not None:
        raise ValueError(f"`base_model` is {base_model!r}, but `{source}` is no adapter. Leave it out.")
    elif with_code or max_shard_size:
        _save_again(source, target, with_code=with_code, max_shard_size=max_shard_size)
    for path in target.glob("*.json"):
        _clean_json(path)
    _write_card(source, target, repo_id)


def _check_licence(source: Path) -> None:
    licence = _card_metadata(source).get("license_name")
    if licence in NOT_TO_BE_PASSED_ON:
        raise ValueError(
            f"`{source}` stands under {licence!r}, by its card: these weights, and those made of them, may not be "
            "passed on. Keep the folder to yourself, or ask the authors."
        )


def _card_metadata(source: Path) -> dict[str, object]:
    card = source / CARD
    try:
        return (metadata_load(card) if card.is_file() else None) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"`{card}` has no readable metadata ({error}). Correct its head, or remove it.") from error


def _name_base(path: Path, base_model: str | None) -> None:
    """Writes the Hub id of an adapter's base into its configuration."""
    config = json.loads(path.read_text(encoding="utf-8"))
    base = base_model or str(config.get("base_model_name_or_path"))
    if Path(base).expanduser().exists() or base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise ValueError(
            f"The adapter was trained on the folder {base!r}, which nobody else has. Push that model, and give its id "
            "as `base_model` (--base-model owner/name)."
        )
    config["base_model_name_or_path"] = base
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_again(source: Path, target: Path, *, with_code: bool, max_shard_size: str | None) -> None:
    model = load_saved(source)
    processor = None  # of a projector, for instance
    if any((source / name).is_file() for name in EXTRACTOR_FILES):
        has_tokenizer = any((source / name).is_file() for name in TOKENIZER_FILES)
        processor = (AutoProcessor if has_tokenizer else AutoFeatureExtractor).from_pretrained(source)
    for path in target.glob("*.safetensors*"):
        path.unlink()
    sizes = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    if with_code:
        export_with_code(model, processor, target, **sizes)
    else:
        model.save_pretrained(target, **sizes)


def load_saved(folder: Path) -> PreTrainedModel:
    """The model of a folder, of the class that was saved.

    Raises:
        ValueError: if it is no class of this package.
    """
    name = (AutoConfig.from_pretrained(folder).architectures or ["?"])[0]
    if name not in hf_audiolang.__all__:
        raise ValueError(f"`{folder}` holds a {name}, which is no class of this package. Share it without options.")
    return getattr(hf_audiolang, name).from_pretrained(folder)


def _clean_json(path: Path) -> None:
    """Takes out where on this machine a model came from."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return
    cleaned = _without_paths(content)
    if cleaned != content:
        path.write_text(json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_paths(value: object) -> object:
    """A JSON value without `_name_or_path` and without texts that are absolute paths of this machine."""
    if isinstance(value, dict):
        items = {key: _without_paths(item) for key, item in value.items() if key != "_name_or_path"}
        return {key: item for key, item in items.items() if not _is_local_path(item)}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return value


def _is_local_path(value: object) -> bool:
    return isinstance(value, str) and len(value) > 1 and Path(value).is_absolute() and Path(value).exists()


def _write_card(source: Path, target: Path, repo_id: str) -> None:
    """The folder's card with the commands for the model's new name; without one a card of what is known."""
    path = target / CARD
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        for name in {source.as_posix(), source.name}:
            text = re.sub(rf'(from_pretrained\(|model=)"{re.escape(name)}"', rf'\1"{repo_id}"', text)
            text = re.sub(rf"--model {re.escape(name)}(?=\s|$)", f"--model {repo_id}", text, flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")
        return
    data = ModelCardData(library_name="transformers", tags=["audio", "hf_audiolang"])
    card = f"---\n{data.to_yaml()}\n---\n\n# {repo_id.split('/')[1]}\n\nA model of hf_audiolang.\n"
    ModelCard(card, ignore_metadata_errors=False).save(path)


__all__ = ["NOT_TO_BE_PASSED_ON", "PARTS", "find_part", "load_saved", "stage"]

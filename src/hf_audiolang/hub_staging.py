# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What of a folder is shared: weights, configurations, processor, tokenizer, card; cleaned of what is private.

folder -> checks (weights, licence, base of an adapter) -> copy, or model saved again with code or in shards -> cleaned
"""

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor, PreTrainedModel

import hf_audiolang
from hf_audiolang.auto import export_with_code

from .hub_card import ADAPTER_CONFIG, CARD, CONFIG, check_licence, write_shared_card
from .hub_privacy import clean_json, refuse_paths

PARTS = ("model", "captioner", "adapter")
WEIGHTS, ADAPTER_WEIGHTS = "model.safetensors", "adapter_model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")
SHARED = (
    CARD, CONFIG, ADAPTER_CONFIG, "generation_config.json", *EXTRACTOR_FILES, *TOKENIZER_FILES,
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "*.jinja",
    WEIGHTS, "model-*.safetensors", INDEX, ADAPTER_WEIGHTS,
)  # fmt: skip
CODE = tuple(sorted(path.name for path in (Path(__file__).parent / "models").glob("*.py")))


def is_shared_name(name: str) -> bool:
    """Whether a file of this name can be part of what is shared, source files included."""
    return "/" not in name and (name in CODE or any(fnmatch(name, pattern) for pattern in SHARED))


def find_part(source: str | Path, part: str = "model") -> Path:
    """The folder to share: `part` of a run's folder, or the folder of a model or an adapter itself.

    Raises:
        FileNotFoundError: if there is no such folder, or it lacks weights.
        ValueError: for an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f"Unknown `part` {part!r}. Choose one of {list(PARTS)}.")
    folder = Path(source).expanduser()
    is_run = not (folder / CONFIG).is_file() and not (folder / ADAPTER_CONFIG).is_file()
    if not is_run and part == "adapter" and weight_files(folder) != [ADAPTER_WEIGHTS]:
        raise ValueError(f"`part` is {part!r}, but `source` {str(source)!r} is a model. Give the run that has both.")
    folder = folder / part if is_run else folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`source` {str(source)!r} has no {part}/ and is no folder of a model. Give the folder of a finished run, "
            "or one with a config.json."
        )
    missing = [name for name in weight_files(folder) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"`source` {str(folder)!r} has no weights ({missing[0]} is missing). Give the folder that a run exported, "
            "or that `save_pretrained` wrote."
        )
    return folder


def weight_files(folder: Path) -> list[str]:
    """Names of the weight files that a folder must have: of an adapter, of a model, or all that its index names."""
    if not (folder / CONFIG).is_file() and (folder / ADAPTER_CONFIG).is_file():
        return [ADAPTER_WEIGHTS]
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [WEIGHTS]  # transformers, too, looks for the single file first
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return [INDEX, *sorted(set(index["weight_map"].values()))]


def stage(
    source: Path,
    target: Path,
    repo_id: str,
    *,
    with_code: bool = False,
    max_shard_size: str | None = None,
    base_model: str | None = None,
) -> str | None:
    """Writes what is shared of `source` into the new folder `target`; returns the Hub id of an adapter's base.

    Args:
        source: folder with weights, of `find_part`.
        target: is made; removed again if it is refused.
        repo_id: what the card's commands call the model: its Hub id, or a folder.
        with_code: add the source files.
        max_shard_size: save the weights again in files of at most this size.
        base_model: Hub id of an adapter's base.

    Raises:
        ValueError: for weights that may not be passed on, an adapter for a local folder, options that do not fit, or
            texts that name a path of this machine.
    """
    check_licence(source)
    is_adapter = weight_files(source) == [ADAPTER_WEIGHTS]
    base = _base_of_adapter(source, base_model) if is_adapter else None
    if is_adapter and (with_code or max_shard_size):
        raise ValueError(
            f"`{source}` is an adapter, which has no code and one small file, got `with_code` {with_code} and "
            f"`max_shard_size` {max_shard_size}. Leave both out, or share the merged model."
        )
    if not is_adapter and base_model is not None:
        raise ValueError(f"`base_model` is {base_model!r}, but `{source}` is no adapter. Leave it out.")
    target.mkdir(parents=True)
    is_complete = False
    try:
        _fill(source, target, with_code=with_code, max_shard_size=max_shard_size)
        if base is not None:
            _name_base(target / ADAPTER_CONFIG, base)
        for path in target.glob("*.json"):
            clean_json(path)
        write_shared_card(source, target / CARD, repo_id, base)
        refuse_paths(target)
        is_complete = True
    finally:
        if not is_complete:
            shutil.rmtree(target)  # what is not shared is not left to be shared by hand
    return base


def _fill(source: Path, target: Path, *, with_code: bool, max_shard_size: str | None) -> None:
    """Copies the files to share; saves the model again where the options say so."""
    for name in _shared_files(source):
        shutil.copyfile(source / name, target / name)
    if with_code or max_shard_size:
        _save_again(source, target, with_code=with_code, max_shard_size=max_shard_size)


def _shared_files(source: Path) -> list[str]:
    """Names of the files to copy; of weights those that are loaded, of code that which the configuration names."""
    weights = weight_files(source)
    names = {path.name for path in source.iterdir() if path.is_file() and is_shared_name(path.name)}
    names -= {name for name in names if ".safetensors" in name and name not in weights}
    return sorted(names if _names_code(source) else names - set(CODE))


def _names_code(folder: Path) -> bool:
    config = folder / CONFIG
    return config.is_file() and "auto_map" in json.loads(config.read_text(encoding="utf-8"))


def _base_of_adapter(source: Path, base_model: str | None) -> str:
    """The Hub id of an adapter's base.

    Raises:
        ValueError: if it is a folder.
    """
    config = json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base = base_model or str(config.get("base_model_name_or_path"))
    places = [Path.cwd(), *source.resolve().parents]  # a relative path is that of where training ran
    is_folder = any((place / Path(base).expanduser()).exists() for place in places)
    if is_folder or base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise ValueError(
            f"The adapter was trained on the folder {base!r}, which nobody else has. Push that model, and give its id "
            "as `base_model` (--base-model owner/name)."
        )
    return base


def _name_base(path: Path, base: str) -> None:
    """Writes the Hub id of an adapter's base into its configuration."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config["base_model_name_or_path"] != base:
        config["base_model_name_or_path"], config["revision"] = base, None  # another model has other revisions
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
    if with_code or _names_code(source):
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


__all__ = ["PARTS", "find_part", "is_shared_name", "load_saved", "stage", "weight_files"]

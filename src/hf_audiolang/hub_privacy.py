# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Paths of this machine in what is shared: taken out of configurations, refused in texts."""

import json
import re
from pathlib import Path

# Tokens and classes may look like anything ("/m/04rlf"), and come from no machine.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
CLASSES = ("id2label", "label2id")
_REST = r"[^\s\"'`)\]]*"
_USUAL_PLACE = re.compile(rf"(?<![\w./:~-])(?:/(?:home|Users|root|mnt|work|tmp|scratch)/|[A-Za-z]:\\\\?)\w{_REST}")


def clean_json(path: Path) -> None:
    """Takes out of a JSON file where on a machine a model came from."""
    if path.name in VOCABULARIES:
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    cleaned = _without_paths(content)
    if cleaned != content:
        path.write_text(json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_paths(folder: Path) -> None:
    """Makes sure that no text of a folder names a path of this machine.

    Raises:
        ValueError: if one does; names file, line and path.
    """
    ours = [str(place) for place in (Path.home(), Path.cwd()) if len(place.parts) > 2]
    pattern = re.compile("|".join([_USUAL_PLACE.pattern, *(re.escape(place) + _REST for place in ours)]))
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".md", ".jinja") or path.name in VOCABULARIES:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found = pattern.search(line)
            if found:
                raise ValueError(
                    f"Line {number} of `{path.name}` names a path of one machine, {found[0]!r}, which others would "
                    "read. Take it out of the folder's file first."
                )


def _without_paths(value: object) -> object:
    """A JSON value without `_name_or_path` and without texts that are absolute paths."""
    if isinstance(value, dict):
        items = {key: item for key, item in value.items() if key != "_name_or_path" and not _is_local_path(item)}
        return {key: item if key in CLASSES else _without_paths(item) for key, item in items.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value if not _is_local_path(item)]
    return value


def _is_local_path(value: object) -> bool:
    if not isinstance(value, str) or "\n" in value:
        return False
    is_here = value.startswith("/") and len(Path(value).parts) > 2 and Path(value).exists()
    return is_here or value.startswith("~/") or _USUAL_PLACE.match(value) is not None


__all__ = ["clean_json", "refuse_paths"]

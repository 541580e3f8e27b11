# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Paths of a machine in what is shared: taken out of configurations, refused in texts, as tokens are."""

import json
import re
from pathlib import Path

# Tokens and classes may look like anything ("/m/04rlf"), and come from no machine.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
CLASSES = ("id2label", "label2id")
_NAME = r"[^\s\"'`)\]/]+"
_REST = r"[^\s\"'`)\]]*"
# a usual place of files, a home, a drive, or three names after each other; a web address has its host before them
_PATH = (
    rf"(?<![\w./:~-])(?:/(?:home|Users|root|mnt|work|tmp|scratch|data|media|Volumes)/\w{_REST}|~/\w{_REST}"
    rf"|(?:/{_NAME}){{3,}}|[A-Za-z]:\\\\?\w{_REST})|file://{_REST}"
)
_TOKEN = r"\bhf_[A-Za-z0-9]{30,}"
_PRIVATE = re.compile(rf"{_PATH}|{_TOKEN}")
_ABSOLUTE = re.compile(r"(?:/[^/]+){2,}/?|~/.*|file://.*|[A-Za-z]:\\.*")


def clean_json(path: Path) -> None:
    """Takes out of a JSON file where on a machine a model came from."""
    if path.name in VOCABULARIES:
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    cleaned = _without_paths(content)
    if cleaned != content:
        path.write_text(json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def refuse_paths(folder: Path) -> None:
    """Makes sure that no text of a folder names a path of a machine, or holds a token of the Hub.

    Raises:
        ValueError: if one does; names file, line and path.
    """
    ours = [str(place) for place in (Path.home(), Path.cwd()) if len(place.parts) > 2]
    pattern = re.compile("|".join([_PRIVATE.pattern, *(re.escape(place) + _REST for place in ours)]))
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".md", ".jinja") or path.name in VOCABULARIES:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found = pattern.search(line)
            if found:
                what = "holds a token" if found[0].startswith("hf_") else f"names a path of one machine, {found[0]!r}"
                raise ValueError(
                    f"Line {number} of `{path.name}` {what}, which others would read. Take it out of the folder's "
                    "file first."
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
    return isinstance(value, str) and "\n" not in value and _ABSOLUTE.fullmatch(value) is not None


__all__ = ["clean_json", "refuse_paths"]

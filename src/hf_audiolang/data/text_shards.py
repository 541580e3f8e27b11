# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The files of a folder of caption embeddings; `text_embeddings` says what is in them.

captions, embeddings -> shards -> index of hashes -> row of a caption
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .text_embedders import TextEmbedderSettings

FORMAT, FORMAT_VERSION = "hf_audiolang text embeddings", 1
INDEX_FILE = "index.json"
SHARD_PATTERN = "shard-*.safetensors"
_METADATA_KEY = "settings"  # one key alone: a safetensors file keeps several in no fixed order


class TextStoreError(ValueError):
    """A store that is damaged, unfinished or not the right one, or a caption that is not in it."""


@dataclass(frozen=True)
class Shard:
    """Some captions with their embeddings, mapped into memory: only what is read leaves the disk.

    Attributes:
        embeddings: (n, D) in the dtype of the settings.
        texts: (bytes,) uint8, the captions in UTF-8 without anything between them.
        ends: (n,) int64, where each caption ends.
    """

    path: Path
    embeddings: Tensor
    texts: np.ndarray
    ends: np.ndarray

    @classmethod
    def open(cls, path: Path, settings: TextEmbedderSettings) -> "Shard":
        """The shard of a file.

        Raises:
            TextStoreError: if it is missing, damaged, or made with other settings.
        """
        tensors, metadata = _open_tensors(path, ("embeddings", "texts", "ends"))
        check_equal_settings(path, json.loads(metadata.get(_METADATA_KEY, "{}")), settings)
        shard = cls(path, tensors["embeddings"], tensors["texts"].numpy(), tensors["ends"].numpy())
        num_texts = len(shard.ends)
        is_whole = num_texts > 0 and shard.ends[-1] == len(shard.texts) and num_texts == len(shard.embeddings)
        if not is_whole or shard.embeddings.dtype != getattr(torch, settings.dtype):
            raise damaged(path, "its parts do not belong together")
        return shard

    def __len__(self) -> int:
        return len(self.ends)

    def caption(self, row: int) -> str:
        """The caption of a row."""
        start = self.ends[row - 1] if row else 0
        return self.texts[start : self.ends[row]].tobytes().decode(errors="replace")

    def captions(self) -> Iterator[str]:
        """All captions, in order."""
        return (self.caption(row) for row in range(len(self)))


@dataclass(frozen=True)
class Index:
    """Rows by hash, mapped into memory: 16 bytes per caption.

    Attributes:
        hashes: (N,) uint64, ascending.
        rows: (N,) int64, the row of each, counted over all shards.
    """

    hashes: np.ndarray
    rows: np.ndarray

    @classmethod
    def open(cls, path: Path) -> "Index":
        """The index of a file.

        Raises:
            TextStoreError: if it is missing or damaged.
        """
        tensors, _ = _open_tensors(path, ("hashes", "rows"))
        return cls(tensors["hashes"].numpy(), tensors["rows"].numpy())


def hash_caption(caption: str) -> int:
    """64 bits that depend on the caption alone; two captions may share them."""
    return int.from_bytes(blake2b(caption.encode(), digest_size=8).digest(), "little")


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` is."""
    return folder / SHARD_PATTERN.replace("*", f"{number:05d}")


def write_shard(path: Path, captions: Sequence[str], embeddings: Tensor, settings: TextEmbedderSettings) -> None:
    """Writes (n, D) embeddings with their captions; the file appears whole or not at all.

    Raises:
        ValueError: if an embedding is not finite in the dtype of the settings; names the caption.
    """
    stored = embeddings.to(getattr(torch, settings.dtype))  # (n, D)
    bad = ~stored.isfinite().all(1)
    if bad.any():
        largest = embeddings[bad][0].abs().max()
        raise ValueError(
            f"The embedding of {captions[int(bad.nonzero()[0])]!r} has numbers up to {largest:.4g}, which are not "
            f"finite as `dtype` {settings.dtype!r}. Choose 'float32', or check the model."
        )
    encoded = [caption.encode() for caption in captions]
    tensors = {
        "embeddings": stored.contiguous(),
        "texts": torch.from_numpy(np.frombuffer(b"".join(encoded), dtype=np.uint8).copy()),
        "ends": torch.from_numpy(np.cumsum([len(text) for text in encoded], dtype=np.int64)),
    }
    _save_tensors(path, tensors, {_METADATA_KEY: json.dumps(asdict(settings))})


def write_index(folder: Path, shards: Sequence[Shard], settings: TextEmbedderSettings) -> None:
    """Writes the index of all shards; readers see the old one or the new one, never half of it."""
    hashes = np.array([hash_caption(caption) for shard in shards for caption in shard.captions()], dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    index_path = folder / f"index-{len(hashes):09d}.safetensors"
    _save_tensors(index_path, {"hashes": torch.from_numpy(hashes[order]), "rows": torch.from_numpy(order)}, {})
    facts = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "settings": asdict(settings),
        "embedding_size": shards[0].embeddings.shape[1],
        "num_captions": len(hashes),
        "index_file": index_path.name,
        "shards": [{"file": shard.path.name, "num_captions": len(shard)} for shard in shards],
        "versions": {name: version(name) for name in ("hf-audiolang", "torch", "transformers")},
    }
    temporary = _temporary(folder / INDEX_FILE)
    temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / INDEX_FILE)
    for pattern in ("index-*.safetensors", f"{SHARD_PATTERN}.*.tmp", "index*.tmp"):  # older ones, and of killed runs
        for path in folder.glob(pattern):
            if path != index_path:
                path.unlink(missing_ok=True)


def read_facts(folder: Path) -> dict:
    """What index.json says.

    Raises:
        FileNotFoundError: if there is no such folder.
        TextStoreError: if it has no such file, or one that cannot be used.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`text_embeddings` {str(folder)!r} is no folder. Make it with training_scripts/precompute_text.py."
        )
    path = folder / INDEX_FILE
    num_shards = len(list(folder.glob(SHARD_PATTERN)))
    if not path.is_file() and num_shards:
        raise TextStoreError(
            f"`text_embeddings` {str(folder)!r} is not finished: {num_shards} shard(s), no {INDEX_FILE}. Run the "
            "command that began it again; it continues."
        )
    facts = _read_json(path) if path.is_file() else {}
    if facts.get("format") != FORMAT:
        raise TextStoreError(
            f"`text_embeddings` {str(folder)!r} is no folder of caption embeddings: it has no {INDEX_FILE} of them. "
            "Make one with training_scripts/precompute_text.py."
        )
    if facts["format_version"] != FORMAT_VERSION:
        raise TextStoreError(
            f"`text_embeddings` {str(folder)!r} has format version {facts['format_version']}, but this package reads "
            f"{FORMAT_VERSION}. Update hf-audiolang, or compute the embeddings anew."
        )
    return facts


def check_equal_settings(path: Path, stored: dict, settings: TextEmbedderSettings) -> None:
    """Raises TextStoreError, naming each setting with both values, if a file was made with others."""
    given = asdict(settings)
    different = [
        f"`{field.name}` {stored.get(field.name)!r} there and {given[field.name]!r} here"
        for field in fields(settings)
        if stored.get(field.name) != given[field.name]
    ]
    if different:
        raise TextStoreError(
            f"{str(path)!r} holds embeddings of other settings: {'; '.join(different)}. Give the same settings, or "
            "another folder."
        )


def damaged(path: Path, reason: str) -> TextStoreError:
    """The error for a file that cannot be used."""
    return TextStoreError(
        f"{str(path)!r} is damaged: {reason}. Delete it and run training_scripts/precompute_text.py again."
    )


def _read_json(path: Path) -> dict:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of bytes that are no UTF-8
        raise damaged(path, f"it is no JSON ({error})") from error
    return facts if isinstance(facts, dict) else {}


def _open_tensors(path: Path, names: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file; the tensors are mapped, not read."""
    if not path.is_file():
        raise damaged(path, "it is missing")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise damaged(path, f"{error}") from error


def _save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    temporary = _temporary(path)
    temporary.write_bytes(save(tensors, metadata))  # `save_file` would let nobody else read it
    os.replace(temporary, path)


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "INDEX_FILE",
    "SHARD_PATTERN",
    "Index",
    "Shard",
    "TextStoreError",
    "check_equal_settings",
    "damaged",
    "hash_caption",
    "read_facts",
    "shard_path",
    "write_index",
    "write_shard",
]

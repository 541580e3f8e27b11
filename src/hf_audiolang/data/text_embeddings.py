# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Precomputed caption embeddings: computed once per distinct caption, kept in a folder, read row by row.

captions -> distinct ones, in the order of their hashes -> shards -> index -> TextStore.rows(captions) -> (B, D)

    index.json                 how they were made, how many there are, the names of the other files
    index-000042.safetensors   `hashes` (N,) uint64, ascending, and `rows` (N,) int64, the row of each
    shard-00000.safetensors    `embeddings` (n, D), `texts` UTF-8 bytes of n captions in a row, `ends` (n,) of each

A shard is a function of its captions and settings, so that runs, resumed runs and several processes write equal bytes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers.utils import logging

from .text_embedders import TextEmbedder, TextEmbedderSettings
from .text_shards import (
    INDEX_FILE,
    SHARD_PATTERN,
    Index,
    Shard,
    TextStoreError,
    damaged,
    hash_caption,
    read_facts,
    shard_path,
    write_index,
    write_shard,
)

logger = logging.get_logger(__name__)

SHARD_SIZE = 16384  # captions; our choice: minutes of work, and 134 MB of 4096 float16 numbers each
MIN_COSINE = 0.99  # of two embeddings of one caption; our choice: other precision stays above it, other weights do not
_NUM_COMPARED = 4  # captions
_NUM_SHOWN = 3  # captions in a message
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


class TextStore:
    """Embeddings of captions in a folder; rows are read from the disk when asked for.

    Pickling keeps the path alone: a data worker opens the files anew.

    Attributes:
        settings: what the embeddings were made with.
        embedding_size: D, numbers per caption.
        folder: where it is.

    Example:
        >>> store = TextStore.open("text_embeddings/scenes")
        >>> store.rows(["a dog barks", "rain"]).shape
        torch.Size([2, 384])
    """

    def __init__(self, folder: Path, settings: TextEmbedderSettings, shards: list[Shard], index: Index) -> None:
        """Use `TextStore.open`."""
        self.folder = folder
        self.settings = settings
        self.embedding_size = shards[0].embeddings.shape[1]
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])  # first row behind each shard
        self._index = index

    @classmethod
    def open(cls, folder: str | Path) -> "TextStore":
        """The store in a folder.

        Raises:
            FileNotFoundError: if there is no such folder.
            TextStoreError: if it is no store, an unfinished one, or a damaged one.
        """
        folder = Path(folder).expanduser().absolute()
        facts = read_facts(folder)
        settings = TextEmbedderSettings(**facts["settings"])
        shards = [Shard.open(folder / entry["file"], settings) for entry in facts["shards"]]
        for shard, entry in zip(shards, facts["shards"], strict=True):
            wanted = (entry["num_captions"], facts["embedding_size"])
            if tuple(shard.embeddings.shape) != wanted:
                raise damaged(shard.path, f"it has {tuple(shard.embeddings.shape)} numbers, the index {wanted}")
        index = Index.open(folder / facts["index_file"])
        num_rows = sum(len(shard) for shard in shards)
        if not len(index.rows) == len(index.hashes) == num_rows == facts["num_captions"]:
            raise damaged(folder / facts["index_file"], f"it has {len(index.rows)} captions, the shards {num_rows}")
        return cls(folder, settings, shards, index)

    def __reduce__(self) -> tuple:
        return TextStore.open, (self.folder,)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __contains__(self, caption: str) -> bool:
        return self._find([caption])[0] >= 0

    def rows(self, captions: Sequence[str]) -> Tensor:
        """(len(captions), D) float32 embeddings on the CPU, in the order of `captions`.

        Raises:
            TextStoreError: for a caption that is not in the store; names it.
        """
        rows = self._find(captions)  # (B,)
        if (rows < 0).any():
            raise self._missing([caption for caption, row in zip(captions, rows, strict=True) if row < 0])
        embeds = torch.empty(len(rows), self.embedding_size)
        in_shard = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(in_shard):
            shard, places = self._shards[number], np.flatnonzero(in_shard == number)
            local = torch.from_numpy(rows[places] - (self._ends[number] - len(shard)))
            embeds[torch.from_numpy(places)] = shard.embeddings[local].float()
        return embeds  # (B, D)

    def captions(self) -> Iterator[str]:
        """All captions, in the order of their rows."""
        for shard in self._shards:
            yield from shard.captions()

    def check_covers(self, captions: Iterable[str]) -> None:
        """Makes sure that there is an embedding of each caption.

        Raises:
            TextStoreError: if not; names the first missing captions and says how many there are.
        """
        wanted = list(dict.fromkeys(captions))
        missing = [caption for caption, row in zip(wanted, self._find(wanted), strict=True) if row < 0]
        if missing:
            raise self._missing(missing, of=len(wanted))

    def check_fits(self, embedding_size: int, model_name: str | None = None) -> None:
        """Makes sure that a model's config expects these embeddings.

        Args:
            embedding_size: the config's `text_embedding_size`.
            model_name: the config's `text_embedding_model`; None accepts any.

        Raises:
            TextStoreError: if not; names both values.
        """
        where = f"`text_embeddings` {str(self.folder)!r}"
        if embedding_size != self.embedding_size:
            raise TextStoreError(
                f"{where} holds embeddings of {self.embedding_size} numbers, made by {self.settings.model!r}, but the "
                f"model's config has `text_embedding_size` {embedding_size}. Set it to {self.embedding_size}, or "
                "compute embeddings with the model that the config was made for."
            )
        if model_name is not None and model_name != self.settings.model:
            raise TextStoreError(
                f"{where} was made by {self.settings.model!r}, but the model's config has `text_embedding_model` "
                f"{model_name!r}. Compute embeddings with that model, or name the other one in the config."
            )

    def check_against(self, text_tower_fn: Callable[[list[str]], Tensor], num_captions: int = _NUM_COMPARED) -> None:
        """Makes sure that the rows are what a model's own text tower computes, by a few of the captions.

        Args:
            text_tower_fn: captions -> (n, D) pooled features, not projected.
            num_captions: number of captions compared, evenly spread over the store.

        Raises:
            TextStoreError: if the cosine of a pair is below 0.99; names the lowest.
        """
        rows = np.linspace(0, len(self) - 1, min(num_captions, len(self))).astype(int)
        captions = [self._caption(row) for row in rows]
        _check_equal_features(captions, self.rows(captions), text_tower_fn(captions), self.folder)

    def _find(self, captions: Sequence[str]) -> np.ndarray:
        """(B,) row of each caption, -1 for those that are not in the store."""
        hashes = np.array([hash_caption(caption) for caption in captions], dtype=np.uint64)
        starts = np.searchsorted(self._index.hashes, hashes)
        found = (self._row_at(*item) for item in zip(starts, hashes, captions, strict=True))
        return np.fromiter(found, dtype=np.int64, count=len(captions))

    def _row_at(self, position: int, wanted_hash: np.uint64, caption: str) -> int:
        """Row of `caption` among the index entries of its hash, which start at `position`; -1 if it is not there."""
        hashes = self._index.hashes
        while position < len(hashes) and hashes[position] == wanted_hash:
            row = int(self._index.rows[position])
            if self._caption(row) == caption:
                return row
            position += 1
        return -1

    def _caption(self, row: int) -> str:
        number = int(np.searchsorted(self._ends, row, side="right"))
        shard = self._shards[number]
        return shard.caption(int(row - (self._ends[number] - len(shard))))

    def _missing(self, captions: Sequence[str], of: int | None = None) -> TextStoreError:
        shown = ", ".join(repr(caption) for caption in captions[:_NUM_SHOWN])
        number = f"{len(captions)} of {of} captions" if of else f"{len(captions)} caption(s)"
        more = " and others" if len(captions) > _NUM_SHOWN else ""
        return TextStoreError(
            f"`text_embeddings` {str(self.folder)!r} lacks {number}: {shown}{more}. Add them: run "
            "training_scripts/precompute_text.py on the same data with this folder as --output_dir."
        )


def precompute(
    captions: Iterable[str],
    folder: str | Path,
    settings: TextEmbedderSettings,
    *,
    embed: Callable[[list[str]], Tensor] | None = None,
    model_folder: str | Path | None = None,
    token_budget: int | None = None,
    shard_size: int = SHARD_SIZE,
    device: torch.device | str | None = None,
    trust_remote_code: bool = False,
) -> TextStore:
    """Makes sure that the store in `folder` has an embedding of each caption, and returns it.

    What the folder has already is kept: complete shards of a run that was ended early, or a finished store to which
    captions are added. Under a launcher each process computes its share of the shards; all must get the same captions.

    Args:
        captions: in any order and number; equal ones are computed once.
        folder: made if missing.
        embed: captions -> (n, D), in place of the model that `settings` names.
        model_folder: where that model is, if not at `settings.model`.
        token_budget: tokens of a batch; None suits the device.
        shard_size: captions of a file, the most that a run ended early loses per process.
        device: of the model; None takes this process's own.
        trust_remote_code: run the Python code that comes with the model.

    Raises:
        ImportError, OSError: if the model is not there.
        ValueError: if there is no caption, or an empty one; for a number below 1; for an embedding that is not finite
            in `settings.dtype`.
        TextStoreError: if the folder holds embeddings made with other settings or weights, or damaged files.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    captions = list(captions)
    distinct = _in_order(captions)
    if shard_size < 1:
        raise ValueError(f"`shard_size` is {shard_size}. Give a positive number of captions.")
    folder = Path(folder).expanduser().absolute()
    shards = _agree_on_shards(folder, distinct, settings)
    known = {caption for shard in shards for caption in shard.captions()}
    todo = [caption for caption in distinct if caption not in known]
    logger.info(
        f"{len(captions)} captions, {len(captions) / len(distinct):.2f} times as many as distinct ones; "
        f"{len(distinct) - len(todo)} of {len(distinct)} distinct ones are in {str(folder)!r} already."
    )
    parts = [todo[start : start + shard_size] for start in range(0, len(todo), shard_size)]
    paths = _free_paths(folder, shards, len(parts))
    mine = list(zip(paths, parts, strict=True))[state.process_index :: state.num_processes]
    if mine and embed is None:
        embed = TextEmbedder(
            settings,
            model_folder=model_folder,
            token_budget=token_budget,
            device=device or state.device,
            trust_remote_code=trust_remote_code,
            show_progress=state.is_main_process,
        )
        _check_same_weights(shards, embed, folder)
    start = time.perf_counter()
    for number, (path, part) in enumerate(mine, start=1):
        embeddings = embed(part)  # (n, D)
        _check_shape(embeddings, len(part), shards, folder)
        write_shard(path, part, embeddings, settings)
        logger.info(f"Shard {number} of {len(mine)} of this process is written.")
    state.wait_for_everyone()
    if todo:
        rate = len(todo) / (time.perf_counter() - start)
        logger.info(f"Embedded {len(todo)} captions, {rate:.0f} per second on {state.num_processes} process(es).")
    if state.is_main_process:
        write_index(folder, _open_shards(_shard_names(folder), folder, settings), settings)
    state.wait_for_everyone()
    return TextStore.open(folder)


def read_captions(path: str | Path) -> list[str]:
    """The captions of a text file, one per line; blanks around them and empty lines are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder or a table, is not UTF-8, or has no captions.
    """
    path = Path(path).expanduser()
    if path.is_dir() or path.suffix in _TABLES:
        raise ValueError(
            f"`{path}` is a folder or a table, not a text file with one caption per line. For the captions of your "
            "own data give the YAML file of a run and the folder as --train_data."
        )
    if not path.is_file():
        raise FileNotFoundError(f"`{path}` does not exist. Give a text file with one caption per line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise ValueError(f"`{path}` has 0 captions. Write one per line.")
    return captions


def _in_order(captions: Iterable[str]) -> list[str]:
    """The distinct captions in the order of their hashes, which mixes long and short ones in every shard."""
    distinct = set(captions)
    empty = [caption for caption in distinct if not caption.strip()]
    if empty or not distinct:
        what = f"an empty caption ({empty[0]!r})" if empty else "no caption"
        raise ValueError(f"`captions` holds {what}. Give texts with at least one word.")
    return sorted(distinct, key=lambda caption: (hash_caption(caption), caption))


def _agree_on_shards(folder: Path, distinct: Sequence[str], settings: TextEmbedderSettings) -> list[Shard]:
    """The shards that are there at the start, the same in all processes, whose captions are compared."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / INDEX_FILE).exists():
        read_facts(folder)
    digest = sha256("\n".join(distinct).encode()).hexdigest()
    names, main_digest = broadcast_object_list([_shard_names(folder), digest])
    if digest != main_digest:
        raise ValueError(
            f"`captions` differ between the processes: this one has {len(distinct)} distinct ones, and not those of "
            "the first. Give each process the same captions."
        )
    return _open_shards(names, folder, settings)


def _shard_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(SHARD_PATTERN))


def _open_shards(names: Sequence[str], folder: Path, settings: TextEmbedderSettings) -> list[Shard]:
    return [Shard.open(folder / name, settings) for name in names]


def _free_paths(folder: Path, shards: Sequence[Shard], number: int) -> list[Path]:
    """The lowest free places: what a run that was ended early has not written gets the place it would have had."""
    taken = {shard.path for shard in shards}
    candidates = (shard_path(folder, position) for position in range(number + len(taken)))
    return [path for path in candidates if path not in taken][:number]


def _check_same_weights(shards: Sequence[Shard], embed: TextEmbedder, folder: Path) -> None:
    """Computes a few captions of the first shard, if there is one, again."""
    for shard in shards[:1]:
        captions = [shard.caption(row) for row in range(min(_NUM_COMPARED, len(shard)))]
        _check_equal_features(captions, shard.embeddings[: len(captions)].float(), embed(captions), folder)


def _check_shape(embeddings: Tensor, num_captions: int, shards: Sequence[Shard], folder: Path) -> None:
    size = shards[0].embeddings.shape[1] if shards else embeddings.shape[-1]
    if tuple(embeddings.shape) != (num_captions, size):
        raise TextStoreError(
            f"The embeddings of {num_captions} captions for {str(folder)!r} have shape {tuple(embeddings.shape)}, but "
            f"({num_captions}, {size}) is needed. Use the model of the other embeddings there, or another folder."
        )


def _check_equal_features(captions: Sequence[str], rows: Tensor, features: Tensor, folder: Path) -> None:
    """Raises TextStoreError if stored rows (n, D) and features of the same captions point in other directions."""
    features = features.detach().float().cpu()
    if features.shape != rows.shape:
        raise TextStoreError(
            f"`text_embeddings` {str(folder)!r} holds embeddings of {rows.shape[1]} numbers, but the text model gives "
            f"{tuple(features.shape)} for {len(rows)} captions. Use the model that made them, or another folder."
        )
    cosines = torch.nn.functional.cosine_similarity(rows, features)  # (n,)
    lowest = int(cosines.argmin())
    if not cosines[lowest] >= MIN_COSINE:
        raise TextStoreError(
            f"`text_embeddings` {str(folder)!r} does not come from this text model: its embedding of "
            f"{captions[lowest]!r} has cosine {cosines[lowest]:.4f} with the model's own, below {MIN_COSINE}. Check "
            "weights, pooling, prefix and suffix, or compute the embeddings anew."
        )


__all__ = [
    "MIN_COSINE",
    "SHARD_SIZE",
    "TextEmbedderSettings",
    "TextStore",
    "TextStoreError",
    "precompute",
    "read_captions",
]

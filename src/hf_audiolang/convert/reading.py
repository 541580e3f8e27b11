# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official checkpoint files to named tensors, without running anything that the file holds.

file (.pth of torch.save, or .safetensors) -> SHA-256 -> weights-only load -> {"model": ...} unwrapped -> tensors
"""

import argparse
import hashlib
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Training scripts store their parsed arguments beside the weights, paths among them; these classes only hold values.
SAFE_CLASSES = (argparse.Namespace, (PurePosixPath, "pathlib.PosixPath"))
OTHER_NAMES = {"model": ("state_dict",)}  # entry -> what some call it
# What damaged files make torch, pickle and zipfile raise (found by changing single bytes of good ones).
NOT_LOADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class SourceCheckpoint:
    """The tensors of a checkpoint file and what identifies it.

    Attributes:
        file_name: last part of the path.
        folder_name: name of the folder the file lies in, links not followed: official names are configurations.
        sha256: of the whole file, hexadecimal.
        tensors: key of the state dict -> tensor on the CPU.
        other_entries: what the file holds beside the state dict, such as the optimizer.
    """

    file_name: str
    folder_name: str
    sha256: str
    tensors: dict[str, Tensor]
    other_entries: tuple[str, ...]


def read_checkpoint(path: str | Path, entry: str = "model") -> SourceCheckpoint:
    """Reads a state dict, bare or as an entry of a training checkpoint.

    Args:
        path: a file written by `torch.save`, or a safetensors file.
        entry: which state dict of a training checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder, TorchScript, an archive to be unpacked, cut off, holds objects of other classes
            than tensors, plain containers, paths and `argparse.Namespace`, if there is no such entry, or it holds
            anything but tensors.
    """
    path = Path(path)
    _check_is_file(path)
    if path.suffix == ".safetensors":
        state_dict, other_entries = _load_safetensors(path), ()
    else:
        state_dict, other_entries = _unwrap(_load_torch(path), path, entry)
    _check_tensors(state_dict, path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceCheckpoint(path.name, path.absolute().parent.name, sha256, dict(state_dict), other_entries)


def check_empty(output_dir: Path) -> None:
    """Raises ValueError if the folder to write is in use."""
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"`output_dir` {str(output_dir)!r} exists and is no empty folder. Pass a new one.")


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        inside = sorted(file.name for file in path.iterdir() if file.suffix in (".pth", ".pt", ".safetensors"))
        found = f"the checkpoints {inside}" if inside else "no .pth, .pt or .safetensors file"
        raise ValueError(f"`checkpoint` must be a file, got the folder {path.name!r} with {found}. Pass the file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {str(path)!r}. Download it, or correct the path.")


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path.name!r} is not a readable safetensors file ({error}). It may be cut off: compare its "
            f"{path.stat().st_size:,} bytes with the original, or download it again."
        ) from error


def _load_torch(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(list(SAFE_CLASSES)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'torch.load' received a zip file that looks like a TorchScript")
            return torch.load(path, map_location="cpu", weights_only=True)
    except NOT_LOADABLE as error:
        foreign = _foreign_classes(path)
        if foreign:
            raise ValueError(
                f"{path.name!r} holds objects of {foreign}; loading them could run code of the file. Expected "
                "tensors, plain containers, paths and argparse.Namespace only. Save its state dict alone where the "
                "file comes from, as safetensors for instance."
            ) from error
        if _is_torchscript(path):
            raise ValueError(
                f"{path.name!r} is a TorchScript program, not a checkpoint. Pass the file it was made of, such as "
                "pretrained.pt."
            ) from error
        if _is_plain_archive(path):
            raise ValueError(
                f"{path.name!r} is an archive, not a checkpoint. Unpack it and pass the .pth file inside."
            ) from error
        reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
        if reason.startswith("Weights only load failed"):  # followed by advice to load it unsafely
            reason = "torch finds no tensors in it"
        raise ValueError(
            f"{path.name!r} is not a readable checkpoint ({reason}). Expected a file written by torch.save; it may be "
            f"cut off: compare its {path.stat().st_size:,} bytes with the original, or download it again."
        ) from error


def _foreign_classes(path: Path) -> list[str]:
    """Names of the classes and functions in the file that are not allowed; empty if it cannot be told."""
    try:
        with torch.serialization.safe_globals(list(SAFE_CLASSES)):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except NOT_LOADABLE:
        return []


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except NOT_LOADABLE:
        return False


def _is_plain_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(name.endswith("data.pkl") for name in archive.namelist())
    except NOT_LOADABLE:
        return False


def _unwrap(content: object, path: Path, entry: str) -> tuple[Mapping, tuple[str, ...]]:
    """(state dict, names of the other entries)."""
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path.name!r} holds a {type(content).__name__}. Expected a state dict, or a dict with the state dict "
            "under 'model'."
        )
    names = (entry, *OTHER_NAMES.get(entry, ()))
    found = next((name for name in names if isinstance(content.get(name), Mapping)), None)
    if found is not None:
        return content[found], tuple(str(key) for key in content if key != found)
    if entry != "model":
        raise ValueError(
            f"{path.name!r} has no state dict under {entry!r}, found {[str(key) for key in content][:5]}. Pass a "
            "checkpoint of training that has, or leave the option out."
        )
    return content, ()


def _check_tensors(state_dict: Mapping, path: Path) -> None:
    others = {
        str(key): type(value).__name__
        for key, value in state_dict.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    }
    if others or not state_dict:
        found = f"{dict(list(others.items())[:5])} among {len(state_dict)} entries" if others else "nothing"
        raise ValueError(
            f"{path.name!r} is no state dict: expected names with tensors, at the top or under 'model', found "
            f"{found}. Pass the file with the weights."
        )


__all__ = ["SAFE_CLASSES", "SourceCheckpoint", "check_empty", "read_checkpoint"]

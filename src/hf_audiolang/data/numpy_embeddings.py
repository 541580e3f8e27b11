# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Caption embeddings in the form of the M2D-CLAP authors: a pickled dict inside a .npy file, read without running it.

A pickle names functions to call. Here every name leads to a stand-in that keeps what it is given: nothing that the
file names is imported or called, and names other than those of numpy arrays are refused.
"""

import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy_format
from torch import Tensor

ALLOWED_TYPES = {"f2": np.float16, "f4": np.float32, "f8": np.float64}
_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")  # before and since numpy 2


class UnsafePickleError(ValueError):
    """A pickle that names something other than arrays of numbers, text and dicts."""


def read_numpy_embeddings(path: str | Path) -> dict[str, np.ndarray]:
    """Clip id -> (D,) or (n, D) embeddings of its caption(s), from a file that `numpy.save(path, dict)` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsafePickleError: if the file holds anything but arrays of floats, text and dicts; names the first such thing.
        ValueError: if it is no such file, is damaged, or holds arrays of another form.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is no file. Give the .npy file with the embeddings.")
    content = _unpickle(path)
    entries = content.items if isinstance(content, _Array) else None
    if not (isinstance(entries, list) and len(entries) == 1 and isinstance(entries[0], dict)):
        raise _unusable(path, "it holds no dict")
    return {_name(key, path): _array(value, key, path) for key, value in entries[0].items()}


def embeddings_of_file(path: str | Path) -> Callable[[Sequence[str]], Tensor]:
    """The function captions -> (n, D) of a file that holds caption -> (D,), for `text_embeddings.precompute`.

    For text models that do not run beside this package, such as NV-Embed-v2, whose code needs transformers 4.42.

    Raises:
        FileNotFoundError, ValueError: as `read_numpy_embeddings`, and for vectors of different lengths.
    """
    table = read_numpy_embeddings(path)
    shapes = {vector.shape for vector in table.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"{str(path)!r} holds arrays of shapes {sorted(shapes)[:5]}. Save one vector per caption.")

    def embed(captions: Sequence[str]) -> Tensor:
        missing = [caption for caption in captions if caption not in table]
        if missing:
            raise ValueError(
                f"{str(path)!r} lacks {len(missing)} captions, the first {missing[0]!r}. Save a vector of each "
                "caption, without blanks around it."
            )
        return torch.from_numpy(np.stack([table[caption] for caption in captions])).float()

    return embed


class _Type:
    """Stands for a numpy.dtype: keeps its name and byte order."""

    name: object = None  # a pickle can make an instance without `__init__`
    order: object = "|"

    def __init__(self, name: object, *flags: object) -> None:
        self.name = name

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _Array:
    """Stands for a numpy.ndarray: keeps shape, type, order and bytes, or the list of an array of objects."""

    shape: object = ()
    dtype: object = None
    is_fortran: object = False
    items: object = b""

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.items = state


def _begin_array(*arguments: object) -> _Array:
    """Stands for numpy's `_reconstruct`, which makes an empty array whose content follows."""
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, by which old pickle protocols write bytes."""
    if encoding != "latin1":
        raise UnsafePickleError(f"The pickle encodes bytes as {encoding!r}, which numpy does not. Do not trust it.")
    return text.encode("latin1")


_NUMPY_NAMES = {"dtype": _Type, "ndarray": _Array, "_reconstruct": _begin_array}
_STAND_INS = {(module, name): value for module in _MODULES for name, value in _NUMPY_NAMES.items()}
_STAND_INS["_codecs", "encode"] = _encode


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _STAND_INS:
            raise UnsafePickleError(
                f"The pickle names `{module}.{name}`, which is no part of numpy arrays, text or dicts. Do not open "
                "it with numpy either unless you trust its author."
            )
        return _STAND_INS[module, name]


def _unpickle(path: Path) -> object:
    """The object behind the header of a .npy file."""
    try:
        with path.open("rb") as stream:
            version = npy_format.read_magic(stream)
            is_first = version == (1, 0)
            read_header = npy_format.read_array_header_1_0 if is_first else npy_format.read_array_header_2_0
            shape, _, dtype = read_header(stream)
            if shape == () and dtype == np.dtype(object):
                return _Unpickler(stream).load()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{str(path)!r}: {error}") from error
    except (ValueError, TypeError, EOFError, IndexError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise _unusable(path, f"it cannot be read ({error})") from error
    raise _unusable(path, f"it holds an array of shape {shape} and type {dtype}")


def _array(value: object, key: str, path: Path) -> np.ndarray:
    """The (D,) or (n, D) array that a stand-in keeps."""
    if not (isinstance(value, _Array) and isinstance(value.dtype, _Type) and isinstance(value.items, bytes)):
        raise _unusable(path, f"`{key}` is no array of numbers")
    is_known = value.dtype.order in ("<", ">", "=", "|") and isinstance(value.dtype.name, str)
    kind = ALLOWED_TYPES.get(value.dtype.name) if is_known else None
    is_shape = isinstance(value.shape, tuple) and all(type(number) is int and number >= 0 for number in value.shape)
    if kind is None or not is_shape or len(value.shape) not in (1, 2):
        raise _unusable(path, f"`{key}` has type {value.dtype.name!r} and shape {value.shape!r}")
    dtype = np.dtype(kind).newbyteorder(value.dtype.order)
    if len(value.items) != math.prod(value.shape) * dtype.itemsize:
        raise _unusable(path, f"`{key}` has {len(value.items)} bytes for shape {value.shape}")
    array = np.frombuffer(value.items, dtype=dtype).reshape(value.shape, order="F" if value.is_fortran else "C")
    return array.astype(kind)


def _name(key: object, path: Path) -> str:
    if not isinstance(key, str):
        raise _unusable(path, f"a clip id is {key!r}, which is no text")
    return key


def _unusable(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{str(path)!r} is no file of caption embeddings: {reason}. Give a .npy file with a dict of clip ids and "
        "float arrays of shape (D,) or (captions, D), as numpy.save writes it."
    )


__all__ = ["ALLOWED_TYPES", "UnsafePickleError", "embeddings_of_file", "read_numpy_embeddings"]

import os
import pickle

import numpy as np
import pytest
import torch
from numpy.lib import format as npy_format

from hf_audiolang.data.numpy_embeddings import UnsafePickleError, embeddings_of_file, read_numpy_embeddings

DRAW = np.random.default_rng(0)
EMBEDDINGS = {
    "-0Gj8-vB1q4": DRAW.normal(size=5).astype(np.float16),
    "freesound/123": DRAW.normal(size=(3, 5)).astype(np.float16),
    "fortran": np.asfortranarray(DRAW.normal(size=(2, 7))),
    "big_endian": DRAW.normal(size=4).astype(">f4"),
    "ä": DRAW.normal(size=(1, 5)).astype(np.float32),
}


def write_pickled(path, pickled):
    """A .npy file whose array of one object is what `pickled` makes when it is loaded."""
    with path.open("wb") as file:
        npy_format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickled)
    return path


def check_equal(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype.newbyteorder("=")


def test_a_saved_dict_is_read_as_numpy_reads_it(tmp_path):
    np.save(tmp_path / "d.npy", EMBEDDINGS)
    check_equal(np.load(tmp_path / "d.npy", allow_pickle=True).item(), EMBEDDINGS)  # control
    check_equal(read_numpy_embeddings(tmp_path / "d.npy"), EMBEDDINGS)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_files_of_all_protocols_and_of_older_numpy_are_read(tmp_path, protocol, module):
    pickled = pickle.dumps(np.array(EMBEDDINGS, dtype=object), protocol=protocol)
    if protocol < 4:  # later ones write the length before the name
        pickled = pickled.replace(b"numpy._core", module)
    check_equal(read_numpy_embeddings(write_pickled(tmp_path / "d.npy", pickled)), EMBEDDINGS)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.mkdir, ("made",), "posix.mkdir"),
        (eval, ("open('made', 'w')",), "builtins.eval"),
        (np.save, ("made", 1), "numpy.save"),
        (getattr, ("text", "upper"), "builtins.getattr"),
        (np.dtype.newbyteorder, (np.dtype("f4"),), "builtins.getattr"),
        (pickle.loads, (b"",), "_pickle.loads"),
    ],
)
def test_nothing_that_a_file_names_is_called(tmp_path, monkeypatch, function, arguments, name):
    monkeypatch.chdir(tmp_path)
    np.save("bad.npy", {"good": EMBEDDINGS["fortran"], "bad": Call(function, *arguments)})
    with pytest.raises(UnsafePickleError, match=f"bad.npy': The pickle names `{name}`, which is no part of numpy"):
        read_numpy_embeddings("bad.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npy"]


def test_an_attack_by_state_or_by_codec_ends_in_a_refusal(tmp_path):
    attacks = {
        "state of a class": b"cnumpy\nndarray\n}(Vitems\nI1\nub.",
        "an instance without content": b"(Va\ncnumpy\nndarray\n)\x81d\x85.",
        "nothing": b"",
        "an unknown opcode": b"\xff.",
        "an array that is its own content": b"cnumpy\nndarray\n)\x81p0\n(I1\n)Nc_codecs\nencode\ng0\ntb.",
    }
    for name, pickled in attacks.items():
        with pytest.raises(ValueError, match="no file of caption embeddings"):
            read_numpy_embeddings(write_pickled(tmp_path / f"{name}.npy", pickled))
    unpacking = b"c_codecs\nencode\n(Va\nVzip\ntR."
    with pytest.raises(UnsafePickleError, match="encodes bytes as 'zip', which numpy does not"):
        read_numpy_embeddings(write_pickled(tmp_path / "codec.npy", unpacking))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(3), r"it holds an array of shape \(3,\) and type float64"),
        (np.array([EMBEDDINGS], dtype=object), r"it holds an array of shape \(1,\) and type object"),
        (np.array("text", dtype=object), "it holds no dict"),
        ({7: np.zeros(3)}, "a clip id is 7, which is no text"),
        ({"a": "text"}, "`a` is no array of numbers"),
        ({"a": np.zeros(3, dtype=object)}, "`a` is no array of numbers"),
        ({"a": np.zeros(3, dtype=np.int16)}, r"`a` has type 'i2' and shape \(3,\)"),
        ({"a": np.zeros((2, 1, 3))}, r"`a` has type 'f8' and shape \(2, 1, 3\)"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    np.save(tmp_path / "d.npy", content)
    with pytest.raises(ValueError, match=rf"d\.npy' is no file of caption embeddings: {message}\. Give a \.npy file"):
        read_numpy_embeddings(tmp_path / "d.npy")


def test_a_file_that_ends_early_or_is_none_is_refused(tmp_path):
    np.save(tmp_path / "d.npy", EMBEDDINGS)
    whole = (tmp_path / "d.npy").read_bytes()
    for length in (0, 3, 60, 130, len(whole) - 5):
        (tmp_path / "d.npy").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="it cannot be read"):
            read_numpy_embeddings(tmp_path / "d.npy")
    with pytest.raises(FileNotFoundError, match=r"none\.npy' is no file"):
        read_numpy_embeddings(tmp_path / "none.npy")


def test_vectors_by_caption_serve_as_an_embedder(tmp_path):
    rows = {"rain": np.array([1.0, 2.0], np.float16), "wind": np.array([3.0, 4.0], np.float16)}
    np.save(tmp_path / "d.npy", rows)
    embed = embeddings_of_file(tmp_path / "d.npy")
    assert torch.equal(embed(["wind", "rain", "wind"]), torch.tensor([[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]))
    with pytest.raises(ValueError, match="lacks 2 captions, the first 'hail'"):
        embed(["rain", "hail", "snow"])
    for other in ({**rows, "hail": np.zeros(3)}, {"rain": np.zeros((2, 2))}, {}):
        np.save(tmp_path / "d.npy", other)
        with pytest.raises(ValueError, match=r"arrays of shapes .* Save one vector per caption"):
            embeddings_of_file(tmp_path / "d.npy")

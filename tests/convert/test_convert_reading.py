# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Reading of official files: containers that are taken, and files that are refused with what was found."""

import argparse
import hashlib
import pickle
import re
import zipfile
from pathlib import PosixPath

import pytest
import torch
from m2d_official import Official, encoder_state, hashed
from safetensors.torch import save_file

from hf_audiolang.convert.reading import read_checkpoint

RUNS = []


def run_foreign_code():
    RUNS.append("now")
    return "an object"


class Foreign:
    """Runs a function of this file when it is unpickled."""

    def __reduce__(self):
        return run_foreign_code, ()


@pytest.fixture(autouse=True)
def nothing_ran():
    RUNS.clear()
    yield
    assert not RUNS


def tensors():
    return {"cls_token": hashed("a", 1, 1, 6), "norm.weight": hashed("b", 6)}


def saved(tmp_path, content, name="checkpoint-300.pth"):
    folder = tmp_path / "m2d_vit_base-80x608p16x16-221006-mr7"
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


def test_bare_and_wrapped_state_dicts_give_the_same_tensors(tmp_path):
    bare = read_checkpoint(saved(tmp_path, tensors(), "bare.pth"))
    content = {"model": tensors(), "epoch": 300, "optimizer": {"state": {}}, "args": argparse.Namespace(blr=3e-4)}
    wrapped = read_checkpoint(saved(tmp_path, content, "wrapped.pth"))
    assert bare.tensors.keys() == wrapped.tensors.keys() == tensors().keys()
    assert all(torch.equal(wrapped.tensors[key], value) for key, value in tensors().items())
    assert (bare.other_entries, wrapped.other_entries) == ((), ("epoch", "optimizer", "args"))


def test_safetensors_files_are_read(tmp_path):
    save_file(tensors(), tmp_path / "encoder.safetensors")
    source = read_checkpoint(tmp_path / "encoder.safetensors")
    assert torch.equal(source.tensors["norm.weight"], tensors()["norm.weight"])


def test_file_is_identified_by_name_folder_and_hash(tmp_path, monkeypatch):
    file = saved(tmp_path, tensors())
    monkeypatch.chdir(file.parent)
    source = read_checkpoint(file.name)  # the folder's name is known without it in the path
    assert source.file_name == "checkpoint-300.pth"
    assert source.folder_name == "m2d_vit_base-80x608p16x16-221006-mr7"
    assert source.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_linked_folder_is_called_as_the_link(tmp_path):
    file = saved(tmp_path, tensors())
    link = tmp_path / "m2d_vit_base-80x200p16x4-230529"
    link.symlink_to(file.parent, target_is_directory=True)
    assert read_checkpoint(link / file.name).folder_name == link.name


def test_foreign_classes_are_refused_by_name_and_never_run(tmp_path):
    file = saved(tmp_path, {"model": tensors(), "args": Foreign()})
    with pytest.raises(ValueError, match=r"holds objects of \['[\w.]*run_foreign_code'\].*argparse.Namespace only"):
        read_checkpoint(file)
    assert not RUNS
    pickle.loads(pickle.dumps(Foreign()))
    assert RUNS  # control: an ordinary load runs it
    RUNS.clear()


def test_paths_among_the_arguments_only_hold_values(tmp_path):
    file = saved(tmp_path, {"model": tensors(), "exp_dir": PosixPath("exp"), "epoch": 3})  # as icefall's trainer
    assert read_checkpoint(file).other_entries == ("exp_dir", "epoch")


def test_torchscript_is_told_from_a_damaged_file(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "jit_script.pt")
    with pytest.raises(ValueError, match=r"'jit_script.pt' is a TorchScript program.*pretrained\.pt"):
        read_checkpoint(tmp_path / "jit_script.pt")


def test_the_weights_may_be_called_state_dict(tmp_path):
    source = read_checkpoint(saved(tmp_path, {"state_dict": tensors(), "epoch": 3}))
    assert (source.tensors.keys(), source.other_entries) == (tensors().keys(), ("epoch",))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_truncated_files_are_refused(tmp_path, share):
    file = saved(tmp_path, encoder_state(Official()))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    size = f"{int(share * len(whole)):,} bytes"
    with pytest.raises(ValueError, match=rf"'checkpoint-300.pth' is not a readable checkpoint.*{re.escape(size)}"):
        read_checkpoint(file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("is_archive", [True, False], ids=["archive", "old format"])
def test_files_with_changed_bytes_are_read_or_refused_but_never_raise_otherwise(tmp_path, is_archive):
    file = tmp_path / "checkpoint-300.pth"
    torch.save({"model": tensors(), "epoch": 3}, file, _use_new_zipfile_serialization=is_archive)
    whole, outcomes = file.read_bytes(), set()
    for position in range(0, len(whole), 7 if is_archive else 3):
        changed = bytearray(whole)
        changed[position] ^= 0x55
        file.write_bytes(changed)
        try:
            read_checkpoint(file)
            outcomes.add("read")
        except ValueError as error:
            outcomes.add("refused" if "checkpoint-300.pth" in str(error) else str(error))
    assert outcomes == {"read", "refused"}


def test_truncated_safetensors_are_refused(tmp_path):
    file = tmp_path / "encoder.safetensors"
    save_file(tensors(), file)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"\x80\x02}q\x00.", b"version https://git-lfs", bytes(99)]
)
def test_files_of_other_kinds_are_refused(tmp_path, content):
    file = tmp_path / "checkpoint-300.pth"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint-300\.pth.*(Expected|expected)"):
        read_checkpoint(file)


def test_plain_pickles_are_refused_and_never_run(tmp_path):
    file = tmp_path / "checkpoint-300.pth"
    file.write_bytes(pickle.dumps(Foreign(), protocol=2))
    with pytest.raises(ValueError, match=r"holds objects of|not a readable checkpoint"):
        read_checkpoint(file)


def test_release_archives_are_to_be_unpacked(tmp_path):
    file = tmp_path / "m2d_vit_base-80x608p16x16-221006-mr7.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m2d_vit_base-80x608p16x16-221006-mr7/checkpoint-300.pth", b"0" * 100)
    with pytest.raises(ValueError, match=r"is an archive, not a checkpoint\. Unpack it"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"model": {"cls_token": [1.0, 2.0]}}, r"\{'cls_token': 'list'\} among 1 entries"),
        ({"epoch": 3, "lr": 0.1}, r"\{'epoch': 'int', 'lr': 'float'\} among 2"),
        ({"model": {}}, "found nothing"),
        ({0: torch.zeros(2)}, r"\{'0': 'Tensor'\}"),
        (torch.zeros(3), "holds a Tensor. Expected a state dict"),
        ([torch.zeros(3)], "holds a list. Expected a state dict"),
    ],
)
def test_files_without_a_state_dict_are_refused_with_what_they_hold(tmp_path, content, found):
    with pytest.raises(ValueError, match=found):
        read_checkpoint(saved(tmp_path, content))


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        read_checkpoint(tmp_path / "no-such-file.pth")
    file = saved(tmp_path, tensors())
    with pytest.raises(ValueError, match=r"got the folder .* with the checkpoints \['checkpoint-300.pth'\]"):
        read_checkpoint(file.parent)

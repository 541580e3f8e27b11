# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Captions of sound files: to read, or as a manifest of pairs to train on, as SLAP's corpus was made.

    files, folders -> captioner -> caption per file -> FileCaptioning
                                                  |-> manifest.jsonl, a line as soon as a file has its caption

A file longer than the feature extractor's limit is cut into equal pieces, whose captions are joined with "then"
(`AudioOptions.long_audio`). Files that cannot be read, and those for which the model writes no words, are named in
`failed` and do not stop the others; they are no lines of the manifest, so the next call tries them again.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, PreTrainedModel

from hf_audiolang.data.audio_files import find_audio_files
from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.capabilities import AudioProcessor, feature_extractor_of
from hf_audiolang.evaluation.captioning import (
    NUM_BEAMS,
    CaptionPiece,
    check_captioner,
    generation_settings,
    iter_captions,
)
from hf_audiolang.evaluation.embed import AudioOptions, RecordReader
from hf_audiolang.inference import check_model_folder

MANIFEST_SUFFIX = ".jsonl"
FILE, CAPTION = "file_name", "caption"  # the columns that training data of one's own have
LINE_START = json.dumps({FILE: ""})[:-2].encode()  # what every line that is written here begins with


@dataclass(frozen=True)
class FileCaption:
    """The caption of one sound file.

    Attributes:
        file: path as text.
        duration: seconds.
        caption: of the whole file.
        pieces: captions of its pieces with their times; one unless the file is longer than the model takes.
    """

    file: str
    duration: float
    caption: str
    pieces: tuple[CaptionPiece, ...]


@dataclass(frozen=True)
class FileCaptioning:
    """Captions of sound files.

    Attributes:
        files: one entry per file with a caption, in the order given.
        failed: one message per file that could not be read, or has no words in its caption.
        num_known: files whose caption was in the manifest already.
    """

    files: list[FileCaption]
    failed: tuple[str, ...] = ()
    num_known: int = 0


def caption_files(
    files: Iterable[str | Path],
    model: str | Path | PreTrainedModel,
    processor: AudioProcessor | None = None,
    *,
    manifest: str | Path | None = None,
    num_beams: int = NUM_BEAMS,
    max_new_tokens: int | None = None,
    options: AudioOptions | None = None,
) -> FileCaptioning:
    """What is heard in each sound file, in words.

    With a manifest every caption is a line of it as soon as it is written, so that an interrupted call loses next to
    nothing; files that it names are not captioned again. Called metadata.jsonl it makes the folder it lies in
    training data.

    Args:
        files: sound files of any length, and folders that are searched for them.
        model: folder or Hub id of a captioner, or a loaded one with its `processor`.
        processor: of a loaded model.
        manifest: .jsonl file to write or to continue; it must lie in a folder above the sounds. A link counts by
            where it lies; training reads none that leads out of that folder, so put copies in place of such links.
        num_beams: hypotheses of the beam search; 1 takes the likeliest token each time.
        max_new_tokens: longest caption of a piece; None: 64, or what the model's generation config allows if less.
        options: batches and the rule for long files.

    Raises:
        FileNotFoundError: if there are no files, or the model folder does not exist or has no weights.
        ValueError: if the model writes no captions, not one file is readable, the manifest is not one, or a file is
            outside its folder.
    """
    known = set() if manifest is None else _read_manifest(Path(manifest))
    named = _named_files(files, manifest)
    names = [name for name in named if name not in known]  # of those that get a caption now
    num_known = len(named) - len(names)
    if not names:
        return FileCaptioning([], num_known=num_known)
    model, processor = loaded_captioner(model, processor)
    options = replace(options or AudioOptions(), max_bad_fraction=1.0)  # the caller gets the failures, however many
    records = [Record(id=str(named[name]), audio=named[name]) for name in names]
    reader = RecordReader(records, feature_extractor_of(processor).sampling_rate, options)
    generation = generation_settings(model, num_beams, max_new_tokens)
    found: dict[int, FileCaption] = {}
    wordless: dict[int, str] = {}
    with _ManifestWriter(manifest) as write:
        for clip in iter_captions(model, processor, reader, generation):
            if not clip.caption:  # no pair to train on
                wordless[clip.index] = f"{clip.record.id}: the model wrote no words."
                continue
            found[clip.index] = FileCaption(clip.record.id, clip.record.duration, clip.caption, clip.pieces)
            write({FILE: names[clip.index], CAPTION: clip.caption})
    if not num_known:
        reader.check_any_read()
    failed = (*reader.skipped, *(wordless[index] for index in sorted(wordless)))
    return FileCaptioning([found[index] for index in sorted(found)], failed, num_known)


def load_captioner(
    model: str | Path, device: str | torch.device | None = None
) -> tuple[PreTrainedModel, AudioProcessor]:
    """A captioner and its processor, in float32 and evaluation mode, on CUDA if there is one, else on the CPU.

    Args:
        model: the folder `captioner/` of a training run, or a Hub id.
        device: where the model goes.

    Raises:
        FileNotFoundError: if the folder does not exist, or has no configuration or no weights.
        ValueError: if it is the folder of a model that writes no captions, or some weights are missing.
    """
    import hf_audiolang  # noqa: F401  registers this package's classes with the Auto classes

    name = str(model)
    check_model_folder(Path(name).expanduser(), name, part="captioner")
    try:
        loaded = AutoModelForSpeechSeq2Seq.from_pretrained(name, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(name)
    except OSError as error:
        raise FileNotFoundError(
            f"`model` {name!r} cannot be loaded: {str(error).splitlines()[0]} Give the folder captioner/ of a "
            "training run, or the id of a captioner on the Hub."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"`model` {name!r} is no captioner: {str(error).splitlines()[0]} Give the folder captioner/ that a "
            "training run with a caption loss writes beside model/."
        ) from error
    check_captioner(loaded, processor)
    return loaded.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), processor


def loaded_captioner(
    model: str | Path | PreTrainedModel, processor: AudioProcessor | None
) -> tuple[PreTrainedModel, AudioProcessor]:
    """The captioner and processor themselves, or those of a folder or Hub id, by `load_captioner`.

    Raises:
        ValueError: if a loaded model comes without its processor, or writes no captions.
    """
    if isinstance(model, str | Path):
        return load_captioner(model)
    if processor is None:
        raise ValueError(
            f"`processor` is missing beside a loaded {type(model).__name__}. Pass it too, or give the model's folder."
        )
    check_captioner(model, processor)
    return model, processor


class _ManifestWriter:
    """Appends lines to a manifest, each whole and on the disk before the next is made; without one does nothing.

    The file is made with its first line: an empty one would be taken for training data.
    """

    def __init__(self, manifest: str | Path | None):
        self.path = None if manifest is None else Path(manifest)
        self.file: TextIO | None = None

    def __enter__(self) -> Callable[[dict], None]:
        return self._write

    def __exit__(self, *error: object) -> None:
        if self.file is not None:
            self.file.close()

    def _write(self, row: dict) -> None:
        if self.path is None:
            return
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a", encoding="utf-8")
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.flush()


def _named_files(files: Iterable[str | Path], manifest: str | Path | None) -> dict[str, Path]:
    """Sound files by what the manifest calls them, each once however it is given; without one by their paths."""
    named: dict[str, Path] = {}
    for path in find_audio_files(files):
        named.setdefault(str(path) if manifest is None else _name_in(Path(manifest), path), path)
    return named


def _name_in(manifest: Path, path: Path) -> str:
    """The file as the manifest calls it: relative to the manifest's folder.

    A link counts by where it lies, as whoever reads the folder finds it; only where that is outside, by its target.
    """
    for absolute in (os.path.abspath, os.path.realpath):
        folder, file = Path(absolute(manifest)).parent, Path(absolute(path))
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
    raise ValueError(
        f"`manifest` {str(manifest)!r} lies in a folder that is not above {str(path)!r}. Training data name their "
        "sounds relative to their own folder: put the manifest beside the sounds, or above them."
    )


def _read_manifest(path: Path) -> set[str]:
    """Names of the files that have a caption; a last line that was cut off in writing is removed.

    Raises:
        ValueError: if the suffix is another, or a line is not one of a manifest.
    """
    if path.suffix != MANIFEST_SUFFIX:
        raise ValueError(f"`manifest` {str(path)!r} must end in {MANIFEST_SUFFIX}. It has a line of JSON per file.")
    if not path.is_file():
        return set()
    content = path.read_bytes()
    whole, last = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
    rows = [(number, _parsed(line)) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    was_cut_off = bool(last.strip()) and rows[-1][1] is None and last[: len(LINE_START)] == LINE_START[: len(last)]
    if was_cut_off:
        rows.pop()
    not_ours = [number for number, row in rows if not _is_row(row)]
    if not_ours:
        raise ValueError(
            f"`manifest` {str(path)!r} is there and is none: line {not_ours[0]} is no JSON with {FILE!r} and "
            f"{CAPTION!r}. Give another name, or remove the file."
        )
    if was_cut_off:
        os.truncate(path, len(whole))
    elif last:  # written by hand, without an end of the line
        with path.open("ab") as file:
            file.write(b"\n")
    return {row[FILE] for _, row in rows}


def _parsed(line: bytes) -> object:
    """The value of a line of JSON, None if it is not JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(column), str) for column in (FILE, CAPTION))


__all__ = ["FileCaption", "FileCaptioning", "caption_files", "load_captioner", "loaded_captioner"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sub-commands of `hf-audiolang` that read sound files: classify, embed, search, explain, map.

Each takes the parsed options and returns the exit code; the work is done by the Python function of the same purpose.
"""

import argparse
import json
import sys
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging

from hf_audiolang.cli import DONE, SOMETHING_FAILED
from hf_audiolang.evaluation.capabilities import AudioProcessor
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.embedding_map import class_records, map_records
from hf_audiolang.evaluation.explain import Explanation, explain_files
from hf_audiolang.evaluation.figures_attention import plot_attention
from hf_audiolang.evaluation.figures_map import plot_map
from hf_audiolang.inference import (
    EMBEDDING_SUFFIXES,
    check_embedding_path,
    classify_files,
    embed_files,
    find_audio_files,
    load_embeddings,
    load_model,
    save_embeddings,
    search_files,
)

PICTURE_SUFFIXES = (".png", ".pdf", ".svg")


def run_classify(options: argparse.Namespace) -> int:
    """`classify`: prints the labels of each file, best first."""
    model, processor = load_quietly(options)
    labels, templates = split_labels(options.labels), templates_of(options.template)
    found = classify_files(
        options.files, labels, model, processor, templates=templates, options=_audio_options(options)
    )
    rankings = {file: found.ranking(row) for row, file in enumerate(found.files)}
    if options.json:
        rows = [{"file": file, "labels": ranking} for file, ranking in rankings.items()]
        print(json.dumps({"files": rows, "failed": list(found.failed)}, indent=2))
    else:
        for file, ranking in rankings.items():
            print(f"{file}\n" + "\n".join(f"  {_score(entry)}  {entry['label']}" for entry in ranking))
    return report_failed(found.failed)


def run_embed(options: argparse.Namespace) -> int:
    """`embed`: writes the embeddings of files to one file."""
    check_embedding_path(options.output)
    model, processor = load_quietly(options)
    embedded = embed_files(options.files, model, processor, options=_audio_options(options))
    save_embeddings(embedded, options.output)
    num_files, width = embedded.embeds.shape
    print(f"{options.output}: {num_files} embeddings of width {width}")
    return report_failed(embedded.failed)


def run_search(options: argparse.Namespace) -> int:
    """`search`: prints the files nearest to a text, best first."""
    is_stored = len(options.files) == 1 and Path(options.files[0]).suffix in EMBEDDING_SUFFIXES
    files = load_embeddings(options.files[0]) if is_stored else options.files
    model, processor = load_quietly(options)
    found = search_files(options.text, files, model, processor, top_k=options.top, options=_audio_options(options))
    hits = [{"file": hit.file, "similarity": hit.similarity} for hit in found.hits[0]]
    if options.json:
        print(json.dumps({"text": options.text, "hits": hits, "failed": list(found.failed)}, indent=2))
    else:
        print("\n".join(f"{hit['similarity']:6.3f}  {hit['file']}" for hit in hits))
    return report_failed(found.failed)


def run_explain(options: argparse.Namespace) -> int:
    """`explain`: draws where the model looks in each file."""
    files = find_audio_files(options.files)
    pictures = picture_paths(options.output, files, ending="attention")
    model, processor = load_quietly(options)
    found, failed = explain_files(files, model, processor, captions=options.captions, max_seconds=options.max_seconds)
    if options.json:
        rows = [explanation.to_json() for explanation in found]
        print(json.dumps({"files": rows, "failed": failed}, indent=2))
    if options.output or options.npz or not options.json:
        for explanation in found:
            _write_explanation(explanation, pictures[explanation.name], options)
    return report_failed(failed)


def run_map(options: argparse.Namespace) -> int:
    """`map`: draws the files of a folder with one sub-folder per class, and writes their points."""
    check_picture(options.output)
    records, outside = class_records(options.folder, find_audio_files([options.folder]))
    model, processor = load_quietly(options)
    found = map_records(model, processor, records, features=options.features, options=_audio_options(options))
    plot_map(found, options.output, note="/".join(Path(options.model).parts[-2:]))
    if options.csv:
        found.write_csv(options.csv)
    if options.json:
        print(json.dumps(found.to_json() | {"failed": [*outside, *found.failed]}, indent=2))
    else:
        print(f"{options.output}: {len(found.files)} files of {len(found.classes)} classes")
        print(f"silhouette {found.silhouette:.3f} (cosine distance, before t-SNE)")
        print("".join(f"note: {note}\n" for note in found.notes), end="")
    return report_failed((*outside, *found.failed))


def split_labels(texts: list[str]) -> list[str]:
    """The labels in the words after `--labels`, separated by commas or given one by one."""
    return [label.strip() for text in texts for label in text.split(",") if label.strip()]


def templates_of(texts: list[str]) -> list[str] | str:
    """What follows `--template`: several sentences, or one, which may be the name of a set."""
    return texts[0] if len(texts) == 1 else texts


def picture_paths(output: str | None, files: list[Path], *, ending: str, argument: str = "output") -> dict[str, Path]:
    """File -> its picture: `output` itself for one file, NAME_ending.png in it, numbered where names repeat.

    Args:
        output: a picture or a folder; None is the current folder.
        files: sound files.
        ending: what the names of the pictures end in.
        argument: what messages call `output`.

    Raises:
        ValueError: for one picture of several files, or a name that is neither a picture's nor a folder's.
    """
    if output and Path(output).suffix in PICTURE_SUFFIXES:
        if len(files) > 1:
            raise ValueError(f"`{argument}` {output!r} is one picture, got {len(files)} sound files. Give a folder.")
        return {str(files[0]): Path(output)}
    if output and Path(output).suffix:
        check_picture(output, argument)
    folder, pictures = Path(output or "."), {}
    for path in files:
        name, number = path.stem, 2
        while folder / f"{name}_{ending}.png" in pictures.values():
            name, number = f"{path.stem}_{number}", number + 1
        pictures[str(path)] = folder / f"{name}_{ending}.png"
    return pictures


def check_picture(output: str, argument: str = "output") -> None:
    """Raises ValueError if `output` does not end like a picture."""
    if Path(output).suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"`{argument}` {output!r} must end in one of {list(PICTURE_SUFFIXES)}. Choose one of them.")


def load_quietly(options: argparse.Namespace) -> tuple[PreTrainedModel, AudioProcessor]:
    """Model and processor, without the loading bars and notes that would mix with the answer."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load_model(options.model, options.device)


def report_failed(failed: tuple[str, ...] | list[str]) -> int:
    """Names the files that were left out on stderr, and returns the exit code."""
    for message in failed:
        print(f"left out: {message}", file=sys.stderr)
    return SOMETHING_FAILED if failed else DONE


def _write_explanation(explanation: Explanation, picture: Path, options: argparse.Namespace) -> None:
    plot_attention(explanation, picture)
    if options.npz:
        explanation.save_arrays(picture.with_suffix(".npz"))
    if not options.json:
        print(f"{picture}: {explanation.part}")
        for caption, similarity in zip(explanation.captions, explanation.similarities, strict=True):
            print(f"  {similarity:6.3f}  {caption}")


def _audio_options(options: argparse.Namespace) -> AudioOptions:
    return AudioOptions(max_seconds=options.max_seconds, long_audio=options.long_audio)


def _score(entry: dict) -> str:
    if "probability" in entry:
        return f"{entry['probability']:6.1%}"
    return f"{entry['similarity']:6.3f}"


__all__ = [
    "check_picture",
    "load_quietly",
    "picture_paths",
    "report_failed",
    "run_classify",
    "run_embed",
    "run_explain",
    "run_map",
    "run_search",
    "split_labels",
    "templates_of",
]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sub-commands of `hf-audiolang` that read sound files: classify, embed, search, explain, map.

Each takes the parsed options and returns the exit code; the work is done by the Python function of the same purpose.
"""

import argparse
import json
import sys
from pathlib import Path

from transformers.utils import logging

from hf_audiolang.cli import DONE, SOMETHING_FAILED
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
    model, processor = _load_quietly(options)
    labels = [label.strip() for text in options.labels for label in text.split(",") if label.strip()]
    templates = options.template[0] if len(options.template) == 1 else options.template
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
    return _report_failed(found.failed)


def run_embed(options: argparse.Namespace) -> int:
    """`embed`: writes the embeddings of files to one file."""
    check_embedding_path(options.output)
    model, processor = _load_quietly(options)
    embedded = embed_files(options.files, model, processor, options=_audio_options(options))
    save_embeddings(embedded, options.output)
    num_files, width = embedded.embeds.shape
    print(f"{options.output}: {num_files} embeddings of width {width}")
    return _report_failed(embedded.failed)


def run_search(options: argparse.Namespace) -> int:
    """`search`: prints the files nearest to a text, best first."""
    is_stored = len(options.files) == 1 and Path(options.files[0]).suffix in EMBEDDING_SUFFIXES
    files = load_embeddings(options.files[0]) if is_stored else options.files
    model, processor = _load_quietly(options)
    found = search_files(options.text, files, model, processor, top_k=options.top, options=_audio_options(options))
    hits = [{"file": hit.file, "similarity": hit.similarity} for hit in found.hits[0]]
    if options.json:
        print(json.dumps({"text": options.text, "hits": hits, "failed": list(found.failed)}, indent=2))
    else:
        print("\n".join(f"{hit['similarity']:6.3f}  {hit['file']}" for hit in hits))
    return _report_failed(found.failed)


def run_explain(options: argparse.Namespace) -> int:
    """`explain`: draws where the model looks in each file."""
    files = find_audio_files(options.files)
    pictures = _picture_paths(options.output, files)
    model, processor = _load_quietly(options)
    found, failed = explain_files(files, model, processor, captions=options.captions, max_seconds=options.max_seconds)
    if options.json:
        rows = [explanation.to_json() for explanation in found]
        print(json.dumps({"files": rows, "failed": failed}, indent=2))
    if options.output or options.npz or not options.json:
        for explanation in found:
            _write_explanation(explanation, pictures[explanation.name], options)
    return _report_failed(failed)


def run_map(options: argparse.Namespace) -> int:
    """`map`: draws the files of a folder with one sub-folder per class, and writes their points."""
    _check_picture(options.output)
    records, outside = class_records(options.folder, find_audio_files([options.folder]))
    model, processor = _load_quietly(options)
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
    return _report_failed((*outside, *found.failed))


def _write_explanation(explanation: Explanation, picture: Path, options: argparse.Namespace) -> None:
    plot_attention(explanation, picture)
    if options.npz:
        explanation.save_arrays(picture.with_suffix(".npz"))
    if not options.json:
        print(f"{picture}: {explanation.part}")
        for caption, similarity in zip(explanation.captions, explanation.similarities, strict=True):
            print(f"  {similarity:6.3f}  {caption}")


def _picture_paths(output: str | None, files: list[Path]) -> dict[str, Path]:
    """File -> its picture: `output` itself for one file, NAME_attention.png in it, numbered where names repeat."""
    if output and Path(output).suffix in PICTURE_SUFFIXES:
        if len(files) > 1:
            raise ValueError(f"`output` {output!r} is one picture, got {len(files)} sound files. Give a folder.")
        return {str(files[0]): Path(output)}
    if output and Path(output).suffix:
        _check_picture(output)
    folder, pictures = Path(output or "."), {}
    for path in files:
        name, number = path.stem, 2
        while folder / f"{name}_attention.png" in pictures.values():
            name, number = f"{path.stem}_{number}", number + 1
        pictures[str(path)] = folder / f"{name}_attention.png"
    return pictures


def _check_picture(output: str) -> None:
    if Path(output).suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"`output` {output!r} must end in one of {list(PICTURE_SUFFIXES)}. Choose one of them.")


def _load_quietly(options: argparse.Namespace):
    """Model and processor, without the loading bars and notes that would mix with the answer."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load_model(options.model, options.device)


def _audio_options(options: argparse.Namespace) -> AudioOptions:
    return AudioOptions(max_seconds=options.max_seconds, long_audio=options.long_audio)


def _score(entry: dict) -> str:
    if "probability" in entry:
        return f"{entry['probability']:6.1%}"
    return f"{entry['similarity']:6.3f}"


def _report_failed(failed: tuple[str, ...] | list[str]) -> int:
    for message in failed:
        print(f"left out: {message}", file=sys.stderr)
    return SOMETHING_FAILED if failed else DONE


__all__ = ["run_classify", "run_embed", "run_explain", "run_map", "run_search"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sub-command of `hf-audiolang` that says what the codewords of an MGA-CLAP model mean: codewords.

It takes the parsed options and returns the exit code; the work is done by `collect_codewords` and
`write_codewords_report`.
"""

import argparse
from pathlib import Path

from hf_audiolang.commands_files import load_quietly, report_failed, split_labels
from hf_audiolang.data.records import RecordDataset, RecordSubset
from hf_audiolang.data.registry import BUILDERS, build_dataset
from hf_audiolang.data.sound_scenes import zero_shot_text
from hf_audiolang.evaluation.capabilities import AudioProcessor, check_text_input, feature_extractor_of
from hf_audiolang.evaluation.codewords import check_codebook
from hf_audiolang.evaluation.codewords_findings import collect_codewords
from hf_audiolang.evaluation.codewords_report import notes_of, summary_rows, write_codewords_report
from hf_audiolang.evaluation.embed import AudioOptions, longest_seconds

SCENES = "sound_scenes"
SCENE_SECONDS = 10.0  # of the embedded data, or the model's limit if that is shorter


def run_codewords(options: argparse.Namespace) -> int:
    """`codewords`: writes a report on the codewords of a model and prints its main numbers."""
    if options.size < 1:
        raise ValueError(f"`size` must be at least 1, got {options.size}. Give a number of clips.")
    texts = _naming_texts(options.texts) if options.texts else None
    model, processor = load_quietly(options)
    check_codebook(model)
    check_text_input(model, processor)
    dataset = _dataset(options, processor)
    label_text = zero_shot_text if options.data == SCENES else None
    data = f"{options.data} ({options.split})" if options.data == SCENES else options.data
    found = collect_codewords(model, processor, dataset, texts=texts, label_text=label_text, data=data)
    found, paths = write_codewords_report(found, processor, options.report)
    width = max(len(what) for what, _ in summary_rows(found))
    print("\n".join(f"{what:<{width}}  {value}" for what, value in summary_rows(found)))
    print("".join(f"note: {note}\n" for note in notes_of(found)), end="")
    print("\n".join(map(str, paths)))
    return report_failed(found.usage.skipped)


def _naming_texts(words: list[str]) -> list[str]:
    """The lines of a text file, or the words after `--texts`, separated by commas or given one by one."""
    path = Path(words[0]).expanduser()
    if len(words) == 1 and path.is_file():
        words = path.read_text(encoding="utf-8").splitlines()
        texts = [line.strip() for line in words if line.strip()]
    elif len(words) == 1 and path.suffix == ".txt":
        raise FileNotFoundError(f"`texts` {words[0]!r} does not exist. Give a file with one text per line, or words.")
    else:
        texts = split_labels(words)
    if not texts:
        raise ValueError(f"`texts` holds no text, got {words}. Give a file with one text per line, or words.")
    return texts


def _dataset(options: argparse.Namespace, processor: AudioProcessor) -> RecordDataset:
    """The first `size` clips: rendered scenes as long as the model likes, or the user's own."""
    if options.data == SCENES:
        rate, limit = feature_extractor_of(processor).sampling_rate, longest_seconds(processor, AudioOptions())
        seconds = min(SCENE_SECONDS, limit or SCENE_SECONDS)
        return build_dataset(SCENES, options.split, size=options.size, duration=seconds, sampling_rate=rate)
    settings = {} if options.data in BUILDERS else {"needs_captions": False}
    dataset = build_dataset(options.data, options.split, **settings)
    if len(dataset) <= options.size:
        return dataset
    return RecordSubset(dataset, range(options.size), skipped=getattr(dataset, "skipped", ()))


__all__ = ["run_codewords"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sub-command of `hf-audiolang` that writes captions of sound files: caption.

It takes the parsed options and returns the exit code; the work is done by `captioning.caption_files`.
"""

import argparse
import json

from transformers.utils import logging

from hf_audiolang.captioning import FileCaption, caption_files, load_captioner
from hf_audiolang.commands_files import report_failed
from hf_audiolang.evaluation.embed import AudioOptions


def run_caption(options: argparse.Namespace) -> int:
    """`caption`: prints a caption of each file; with a manifest they are its lines, and printed only with --json."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, processor = load_captioner(options.model, options.device)
    found = caption_files(
        options.files,
        model,
        processor,
        manifest=options.manifest,
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        options=AudioOptions(long_audio=options.long_audio, max_seconds=options.max_seconds),
    )
    if options.json:
        rows = [_as_json(file) for file in found.files]
        print(json.dumps({"files": rows, "failed": list(found.failed), "known": found.num_known}, indent=2))
    elif options.manifest is None:
        for file in found.files:
            print(f"{file.file}\n  {file.caption}")
    else:
        known = f", {found.num_known} were there already" if found.num_known else ""
        print(f"{options.manifest}: {len(found.files)} captions written{known}")
    return report_failed(found.failed)


def _as_json(file: FileCaption) -> dict[str, object]:
    pieces = [{"start": piece.start, "end": piece.end, "caption": piece.caption} for piece in file.pieces]
    return {"file": file.file, "duration": file.duration, "caption": file.caption, "pieces": pieces}


__all__ = ["run_caption"]

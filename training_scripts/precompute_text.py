# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Computes the caption embeddings that a run trains with, once, into a folder for its key `text_embeddings`.

    python training_scripts/precompute_text.py captions.txt --output_dir runs/text_embeddings/mine
    python training_scripts/precompute_text.py configs/pretrain/RUN.yaml --train_data FOLDER
    accelerate launch --num_processes 4 training_scripts/precompute_text.py captions.txt --model ORG/MODEL \
        --output_dir runs/text_embeddings/mine

The captions are the lines of a text file, or those that a run can draw in training; `--key value` overrides its keys.
A further call with the same folder adds captions, or continues what was ended early. Exit codes as pretrain.py.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # see pretrain.py

from hf_audiolang.data.numpy_embeddings import embeddings_of_file
from hf_audiolang.data.text_embedders import CHOICES, GIVEN, PACKAGED_MODELS, TextEmbedderSettings
from hf_audiolang.data.text_embeddings import SHARD_SIZE, TextStore, precompute, read_captions
from hf_audiolang.training import load_run_config
from hf_audiolang.training.config import TrainArguments
from hf_audiolang.training.console import is_our_message, message_of, show_progress_messages
from hf_audiolang.training.devices import build_accelerator
from hf_audiolang.training.run_captions import captions_of_run, text_model_of_run

DEFAULT_MODEL = next(iter(PACKAGED_MODELS))
DEFAULT_PARENT = "runs/text_embeddings"


def main(arguments: list[str] | None = None) -> int:
    """Computes what a command line asks for and returns the exit code."""
    show_progress_messages()
    options, overrides = parse_arguments(arguments)
    try:
        run(options, overrides)
    except (OSError, ValueError, ImportError) as error:
        if not is_our_message(error):
            raise
        print(f"precompute_text.py: {message_of(error)}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace, overrides: list[str]) -> None:
    """Reads the captions, embeds them and says where they are."""
    config = load_run_config([options.source, *overrides]) if is_run(options.source) else None
    model = (text_model_of_run(config, options.model) if config else options.model) or DEFAULT_MODEL
    accelerator = build_accelerator(TrainArguments(precision=options.precision))
    settings = settings_of(options, model, "bf16" if accelerator.mixed_precision == "bf16" else "fp32")
    captions = captions_of_run(config) if config else read_captions(options.source)
    folder = options.output_dir or (config and config.data.text_embeddings) or f"{DEFAULT_PARENT}/{Path(model).name}"
    store = precompute(
        captions,
        folder,
        settings,
        embed=embeddings_of_file(options.embeddings) if options.embeddings else None,
        device=accelerator.device,
        **chosen(options, "model_folder", "token_budget", "shard_size", "trust_remote_code"),
    )
    if accelerator.is_main_process:
        show(store, folder)
    accelerator.end_training()


def settings_of(options: argparse.Namespace, model: str, precision: str) -> TextEmbedderSettings:
    """What the embeddings depend on; what is left open comes from the model's files, unless they come from a file."""
    given = chosen(options, "pooling", "suffix", "normalize", "dtype", "max_tokens") | {"precision": precision}
    if options.embeddings:
        given["pooling"] = given["pooling"] or GIVEN
        return TextEmbedderSettings(model, prefix=options.prefix or "", **given)
    return TextEmbedderSettings.of_model(model, **chosen(options, "model_folder", "prefix"), **given)


def chosen(options: argparse.Namespace, *names: str) -> dict[str, object]:
    """Some of the options, by name."""
    return {name: getattr(options, name) for name in names}


def is_run(source: str) -> bool:
    """True for the YAML file of a run."""
    return Path(source).suffix in (".yaml", ".yml")


def show(store: TextStore, folder: str) -> None:
    """Prints where the embeddings are and how to use them."""
    print(f"\n{folder} has {len(store)} embeddings of {store.embedding_size} numbers by {store.settings.model}.")
    print(f"In the run's YAML file:\n\n    text_embeddings: {folder}\n")
    print(f"In the config of its model: text_embedding_size {store.embedding_size}.")


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the process at a signal; complete shards stay."""
    if os.environ.get("RANK", "0") == "0":
        print("precompute_text.py: stopped. The same command continues at the last complete shard.", file=sys.stderr)
    sys.exit(128 + number)


def parse_arguments(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """(the command line, overrides of the run's keys)."""
    parser = argparse.ArgumentParser(
        description="Compute caption embeddings. With a run, further --key value pairs override its keys.",
        allow_abbrev=False,
    )
    parser.add_argument("source", help="YAML file of a run, or text file with one caption per line")
    parser.add_argument("--output_dir", help=f"default: the run's text_embeddings, or {DEFAULT_PARENT}/MODEL")
    parser.add_argument("--model", help=f"Hub id or folder; default: what the run's model names, or {DEFAULT_MODEL}")
    parser.add_argument("--model_folder", help="where the model is, if not at --model, which is the name kept")
    parser.add_argument("--pooling", choices=CHOICES["pooling"], help="default: as the model's files say")
    parser.add_argument("--prefix", help="instruction before each caption; default: the model's own, or none")
    parser.add_argument("--suffix", default="", help="behind each caption; for NV-Embed-v2 its end token '</s>'")
    parser.add_argument("--normalize", action="store_true", help="store unit vectors")
    parser.add_argument("--dtype", choices=CHOICES["dtype"], default="float16", help="of the stored numbers")
    parser.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32", help="of the arithmetic")
    parser.add_argument("--max_tokens", type=int, help="longer captions are cut; default: the model's limit")
    parser.add_argument("--embeddings", help=".npy file of a dict caption -> vector that --model has given elsewhere")
    parser.add_argument("--token_budget", type=int, help="tokens of a batch; default: by device")
    parser.add_argument("--shard_size", type=int, default=SHARD_SIZE, help="captions of a file")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with the model")
    options, overrides = parser.parse_known_args(arguments)
    if overrides and not is_run(options.source):
        parser.error(f"unknown {overrides[0]!r}: only the keys of a run (a YAML file) can be overridden")
    return options, overrides


if __name__ == "__main__":
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, leave)
    sys.exit(main(sys.argv[1:]))

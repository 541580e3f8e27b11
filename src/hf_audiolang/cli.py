# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The command `hf-audiolang`: one function per sub-command, each a call of the Python function of the same purpose.

    hf-audiolang classify FILE... --labels "a dog barking, a siren" --model DIR
    hf-audiolang embed FOLDER --model DIR --output sounds.safetensors
    hf-audiolang search "rain on a roof" FOLDER --model DIR
    hf-audiolang bench frontend

Exit codes: 0 done; 1 done, but some files could not be read (they are named on stderr) or a comparison shows a loss;
2 not done, one line says why.
"""

import argparse
import json
import sys
from pathlib import Path

DONE, SOMETHING_FAILED, NOT_DONE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Runs one sub-command and returns the exit code.

    Args:
        arguments: the words after `hf-audiolang`; those of the process by default.
    """
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except (OSError, ValueError, ImportError) as error:
        message = str(error).replace("\n", " ")
        print(f"hf-audiolang {options.command}: {message}", file=sys.stderr)
        return NOT_DONE
    except KeyboardInterrupt:
        return NOT_DONE


def build_parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands; it imports nothing heavy, so that `--help` answers at once."""
    parser = argparse.ArgumentParser(prog="hf-audiolang", description="Sound and text with one model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    classify = _add_command(commands, "classify", run_classify, "tell which of your labels describes a sound file")
    classify.add_argument("files", nargs="+", metavar="FILE", help="sound files, or folders with sound files")
    classify.add_argument("--labels", nargs="+", required=True, help='words for the sounds: "a dog barking, a siren"')
    classify.add_argument(
        "--template",
        nargs="+",
        default=["{label} can be heard"],
        help="sentence around a label, several for an ensemble, or default7 (default: %(default)s)",
    )
    _add_model_arguments(classify)
    _add_json_argument(classify)

    embed = _add_command(commands, "embed", run_embed, "write the embeddings of sound files")
    embed.add_argument("files", nargs="+", metavar="FILE|FOLDER", help="sound files, or folders with sound files")
    embed.add_argument("--output", required=True, help="file to write: .safetensors or .npz")
    _add_model_arguments(embed)

    search = _add_command(commands, "search", run_search, "find the sound files that a text describes")
    search.add_argument("text", metavar="TEXT", help="what to look for")
    search.add_argument(
        "files", nargs="+", metavar="FOLDER", help="folders or files to search, or one file written by `embed`"
    )
    search.add_argument("--top", type=int, default=10, help="number of hits (default: %(default)s)")
    _add_model_arguments(search)
    _add_json_argument(search)

    bench = _add_command(commands, "bench", run_bench, "measure this package against its peers on this machine")
    bench.add_argument("suite", metavar="SUITE", help="name of a suite, or `compare` with two result files")
    bench.add_argument("results", nargs="*", metavar="RESULT.json", help="for `compare`: the old and the new result")
    bench.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    bench.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    bench.add_argument("--rounds", type=int, help="interleaved rounds (default: the suite's)")
    bench.add_argument("--output", default=None, metavar="RESULT.json", help="also write the result to a file")
    bench.add_argument("--tiny", action="store_true", help="small inputs, to try the suite; no figures to quote")
    _add_json_argument(bench)
    return parser


def run_classify(options: argparse.Namespace) -> int:
    """`classify`: prints the labels of each file, best first."""
    from hf_audiolang.inference import classify_files

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
    from hf_audiolang.inference import check_embedding_path, embed_files, save_embeddings

    check_embedding_path(options.output)
    model, processor = _load_quietly(options)
    embedded = embed_files(options.files, model, processor, options=_audio_options(options))
    save_embeddings(embedded, options.output)
    num_files, width = embedded.embeds.shape
    print(f"{options.output}: {num_files} embeddings of width {width}")
    return _report_failed(embedded.failed)


def run_search(options: argparse.Namespace) -> int:
    """`search`: prints the files nearest to a text, best first."""
    from hf_audiolang.inference import EMBEDDING_SUFFIXES, load_embeddings, search_files

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


def run_bench(options: argparse.Namespace) -> int:
    """`bench`: runs a suite, or compares two results of one; code 1 if a comparison shows a loss."""
    from hf_audiolang import benchmarks

    if options.suite == "compare":
        if len(options.results) != 2:
            raise ValueError(
                f"`compare` needs two result files, got {len(options.results)}. Give the old and the new."
            )
        changes = benchmarks.compare(*options.results)
        print(json.dumps(changes, indent=2) if options.json else "\n".join(map(_change, changes)))
        return SOMETHING_FAILED if any(change["is_loss"] for change in changes) else DONE
    if options.results:
        raise ValueError(f"Only `compare` takes result files, got {options.results}. Give one suite and options.")
    report = benchmarks.run_suite(
        options.suite,
        device=options.device,
        threads=options.threads,
        rounds=options.rounds,
        json_path=options.output,
        is_tiny=options.tiny,
    )
    print(json.dumps(report, indent=2) if options.json else benchmarks.format_report(report))
    return DONE


def _add_command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def _add_model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="folder of a trained model, or the id of one on the Hub")
    command.add_argument("--device", default=None, help="cpu, cuda, ... (default: cuda if there is one)")
    command.add_argument("--max_seconds", type=float, default=None, help="longest piece (default: the model's limit)")
    command.add_argument(
        "--long_audio",
        choices=["chunk_mean", "crop"],
        default="chunk_mean",
        help="longer files: mean over equal pieces, or only the beginning (default: %(default)s)",
    )


def _add_json_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _load_quietly(options: argparse.Namespace):
    """Model and processor, without the loading bars and notes that would mix with the answer."""
    from transformers.utils import logging

    from hf_audiolang.inference import load_model

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load_model(options.model, options.device)


def _audio_options(options: argparse.Namespace):
    from hf_audiolang.evaluation.embed import AudioOptions

    return AudioOptions(max_seconds=options.max_seconds, long_audio=options.long_audio)


def _score(entry: dict) -> str:
    if "probability" in entry:
        return f"{entry['probability']:6.1%}"
    return f"{entry['similarity']:6.3f}"


def _change(change: dict) -> str:
    after = "not measured" if change["after"] is None else f"{change['after']:.2f}x ({change['change']:+.0%})"
    return f"{change['name']}: {change['before']:.2f}x -> {after}{'  LOSS' if change['is_loss'] else ''}"


def _report_failed(failed: tuple[str, ...]) -> int:
    for message in failed:
        print(f"left out: {message}", file=sys.stderr)
    return SOMETHING_FAILED if failed else DONE


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["build_parser", "main", "run_bench", "run_classify", "run_embed", "run_search"]

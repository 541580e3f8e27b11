# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The command `hf-audiolang`: its sub-commands and options; what they do is in the modules `commands_...`.

    hf-audiolang classify FILE... --labels "a dog barking, a siren" --model DIR
    hf-audiolang embed FOLDER --model DIR --output sounds.safetensors
    hf-audiolang search "rain on a roof" FOLDER --model DIR
    hf-audiolang caption FOLDER --model DIR --manifest metadata.jsonl
    hf-audiolang detect FILE... --labels "dog, siren" --model DIR
    hf-audiolang ground FILE "a dog barks twice" --model DIR
    hf-audiolang explain FILE --model DIR
    hf-audiolang map FOLDER --model DIR
    hf-audiolang codewords MODEL --data FOLDER --report DIR
    hf-audiolang compare RUN RUN...
    hf-audiolang convert SYSTEM CHECKPOINT FOLDER --set KEY=VALUE --set KEY=VALUE
    hf-audiolang push RUN OWNER/NAME
    hf-audiolang bench frontend

Exit codes: 0 done; 1 done, but some files could not be read (they are named on stderr) or a comparison shows a loss;
2 not done, one line says why.
"""

import argparse
import importlib
import sys

DONE, SOMETHING_FAILED, NOT_DONE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Runs one sub-command and returns the exit code.

    Args:
        arguments: the words after `hf-audiolang`; those of the process by default.
    """
    options = build_parser().parse_args(arguments)
    try:
        return find_command(options)(options)
    except (OSError, ValueError, ImportError) as error:
        message = str(error).replace("\n", " ")
        print(f"hf-audiolang {options.command}: {message}", file=sys.stderr)
        return NOT_DONE
    except KeyboardInterrupt:
        return NOT_DONE


def find_command(options: argparse.Namespace):
    """The function that runs a parsed command; imports what it needs."""
    return getattr(importlib.import_module(f"hf_audiolang.{options.module}"), f"run_{options.command}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all sub-commands; it imports nothing heavy, so that `--help` answers at once."""
    parser = argparse.ArgumentParser(prog="hf-audiolang", description="Sound and text with one model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_classify,
        _add_embed,
        _add_search,
        _add_caption,
        _add_detect,
        _add_ground,
        _add_explain,
        _add_map,
        _add_codewords,
        _add_compare,
        _add_convert,
        _add_push,
        _add_bench,
    ):
        add(commands)
    return parser


def _add_classify(commands) -> None:
    classify = _add_command(commands, "classify", "files", "tell which of your labels describes a sound file")
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


def _add_embed(commands) -> None:
    embed = _add_command(commands, "embed", "files", "write the embeddings of sound files")
    embed.add_argument("files", nargs="+", metavar="FILE|FOLDER", help="sound files, or folders with sound files")
    embed.add_argument("--output", required=True, help="file to write: .safetensors or .npz")
    _add_model_arguments(embed)


def _add_search(commands) -> None:
    search = _add_command(commands, "search", "files", "find the sound files that a text describes")
    search.add_argument("text", metavar="TEXT", help="what to look for")
    search.add_argument(
        "files", nargs="+", metavar="FOLDER", help="folders or files to search, or one file written by `embed`"
    )
    search.add_argument("--top", type=int, default=10, help="number of hits (default: %(default)s)")
    _add_model_arguments(search)
    _add_json_argument(search)


def _add_caption(commands) -> None:
    caption = _add_command(commands, "caption", "captions", "describe sound files in a sentence each")
    caption.add_argument("files", nargs="+", metavar="FILE|FOLDER", help="sound files, or folders with sound files")
    caption.add_argument(
        "--manifest",
        default=None,
        metavar="OUT.jsonl",
        help="write them as training data, a line per file; files that it has already are left alone",
    )
    caption.add_argument("--num_beams", type=int, default=4, help="beam search, 1: greedy (default: %(default)s)")
    caption.add_argument(
        "--max_new_tokens", type=int, default=None, help="longest caption (default: 64, or the model's)"
    )
    _add_model_arguments(caption)
    _add_json_argument(caption)


def _add_detect(commands) -> None:
    detect = _add_command(commands, "detect", "events", "tell which of your labels is heard when in a sound file")
    detect.add_argument("files", nargs="+", metavar="FILE|FOLDER", help="sound files, or folders with sound files")
    detect.add_argument("--labels", nargs="+", required=True, help='words for the sounds: "dog, siren"')
    detect.add_argument(
        "--template",
        nargs="+",
        default=["{label}"],
        help="sentence around a label, several for an ensemble, or default7 (default: %(default)s)",
    )
    _add_event_arguments(detect)


def _add_ground(commands) -> None:
    ground = _add_command(commands, "ground", "events", "tell when what a phrase says is heard in a sound file")
    ground.add_argument("files", nargs=1, metavar="FILE", help="a sound file, or a folder with sound files")
    ground.add_argument("phrases", nargs="+", metavar="PHRASE", help='what to look for: "a dog barks twice"')
    _add_event_arguments(ground)


def _add_event_arguments(command: argparse.ArgumentParser) -> None:
    for name, default, text in (
        ("--threshold", 0.25, "least similarity that counts, in (0, 1); depends on the model"),
        ("--median", 0.0, "seconds of the median filter over the scores, 0 for none"),
        ("--join", 0.5, "gaps shorter than this many seconds are closed"),
        ("--min_seconds", 0.0, "shorter sounds are dropped"),
        ("--overlap", 0.0, "share of a window that the next one repeats, for files longer than a window"),
    ):
        command.add_argument(name, type=float, default=default, help=f"{text} (default: %(default)s)")
    command.add_argument("--output", default=None, metavar="OUT", help="also write them: .csv, .json, .txt (Audacity)")
    command.add_argument("--plot", default=None, metavar="OUT.png", help="also draw them; for several files a folder")
    _add_model_arguments(command, long_audio=False)
    _add_json_argument(command)


def _add_explain(commands) -> None:
    explain = _add_command(commands, "explain", "files", "draw where in a sound file a M2D-CLAP model looks")
    explain.add_argument("files", nargs="+", metavar="FILE", help="sound files, or folders with sound files")
    explain.add_argument(
        "--output",
        default=None,
        metavar="OUT.png",
        help="picture to write, or with several files a folder (default: NAME_attention.png here)",
    )
    explain.add_argument("--captions", nargs="+", default=[], metavar="TEXT", help="texts to compare the sound with")
    explain.add_argument("--npz", action="store_true", help="also write the arrays, beside the picture")
    _add_model_arguments(explain, long_audio=False)
    _add_json_argument(explain, "print the attention as JSON; the picture is drawn with --output or --npz only")


def _add_map(commands) -> None:
    command = _add_command(commands, "map", "files", "draw sound files of known classes as points in a plane")
    command.add_argument("folder", metavar="FOLDER", help="folder with one sub-folder of sound files per class")
    command.add_argument("--output", default="map.png", help="picture to write (default: %(default)s)")
    command.add_argument(
        "--features",
        choices=["clap", "audio"],
        default="clap",
        help="embeddings in the space shared with text, or the audio encoder's own features (default: %(default)s)",
    )
    command.add_argument("--csv", default=None, metavar="OUT.csv", help="also write the points to a file")
    _add_model_arguments(command)
    _add_json_argument(command)


def _add_codewords(commands) -> None:
    codewords = _add_command(commands, "codewords", "codewords", "tell what the codewords of an MGA-CLAP model mean")
    codewords.add_argument("model", metavar="MODEL", help="folder of a trained model, or the id of one on the Hub")
    codewords.add_argument(
        "--data",
        default="sound_scenes",
        metavar="FOLDER|HUB_ID",
        help="your own clips with captions or labels (default: %(default)s, the embedded synthetic data)",
    )
    codewords.add_argument("--split", default="test", help="part of the data (default: %(default)s)")
    codewords.add_argument("--size", type=int, default=200, help="number of clips (default: %(default)s)")
    codewords.add_argument(
        "--texts",
        nargs="+",
        default=None,
        metavar="FILE|WORDS",
        help='what codewords are named by: a file with a text per line, or words: "dog, siren" (default: the labels '
        "of the clips, or without any their captions)",
    )
    codewords.add_argument("--report", default="codewords", metavar="DIR", help="to write (default: %(default)s)")
    codewords.add_argument("--device", default=None, help="cpu, cuda, ... (default: cuda if there is one)")


def _add_compare(commands) -> None:
    compare = _add_command(commands, "compare", "runs", "print the values of finished runs side by side")
    compare.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, with a metrics.json")
    compare.add_argument("--all", action="store_true", help="every metric, not only the main ones")
    _add_json_argument(compare)


def _add_convert(commands) -> None:
    convert = _add_command(commands, "convert", "runs", "turn an official checkpoint into a folder to load from")
    convert.add_argument("system", metavar="SYSTEM", help="name of the system, such as m2d_clap")
    convert.add_argument("checkpoint", metavar="CHECKPOINT", help="the official file")
    convert.add_argument("output", metavar="FOLDER", help="folder to write, new or empty")
    convert.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the converter, instead of what it infers, once for each; the value is JSON or plain text",
    )


def _add_push(commands) -> None:
    push = _add_command(commands, "push", "hub", "share a trained model on the Hugging Face Hub")
    push.add_argument("source", metavar="RUN", help="folder of a run, of a model or of an adapter")
    push.add_argument("repo_id", metavar="OWNER/NAME", help="what it is called on the Hub")
    push.add_argument("--part", default="model", help="of a run: model, captioner or adapter (default: %(default)s)")
    push.add_argument("--private", action="store_true", help="a new repository that only you see")
    push.add_argument("--revision", default=None, metavar="BRANCH", help="branch to write (default: the main one)")
    push.add_argument("--with-code", action="store_true", help="add the source files, to load without this package")
    push.add_argument("--max-shard-size", default=None, metavar="SIZE", help="largest weight file, such as 2GB")
    push.add_argument("--base-model", default=None, metavar="OWNER/NAME", help="the model that an adapter needs")
    push.add_argument("--dry-run", action="store_true", help="print what would be sent, and send nothing")


def _add_bench(commands) -> None:
    bench = _add_command(commands, "bench", "runs", "measure this package against its peers on this machine")
    bench.add_argument("suite", metavar="SUITE", help="name of a suite, or `compare` with two result files")
    bench.add_argument("results", nargs="*", metavar="RESULT.json", help="for `compare`: the old and the new result")
    bench.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    bench.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    bench.add_argument("--rounds", type=int, help="interleaved rounds (default: the suite's)")
    bench.add_argument("--output", default=None, metavar="RESULT.json", help="also write the result to a file")
    bench.add_argument("--tiny", action="store_true", help="small inputs, to try the suite; no figures to quote")
    _add_json_argument(bench)


def _add_command(commands, name: str, module: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(module=f"commands_{module}")
    return command


def _add_model_arguments(command: argparse.ArgumentParser, *, long_audio: bool = True) -> None:
    command.add_argument("--model", required=True, help="folder of a trained model, or the id of one on the Hub")
    command.add_argument("--device", default=None, help="cpu, cuda, ... (default: cuda if there is one)")
    command.add_argument("--max_seconds", type=float, default=None, help="longest piece (default: the model's limit)")
    if long_audio:
        command.add_argument(
            "--long_audio",
            choices=["chunk_mean", "crop"],
            default="chunk_mean",
            help="longer files: equal pieces together, or only the beginning (default: %(default)s)",
        )


def _add_json_argument(command: argparse.ArgumentParser, text: str = "print JSON") -> None:
    command.add_argument("--json", action="store_true", help=text)


if __name__ == "__main__":
    sys.exit(main())

__all__ = ["build_parser", "find_command", "main"]

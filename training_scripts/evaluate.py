# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Measures a trained model and writes metrics.json and metrics.md.

    python training_scripts/evaluate.py runs/slap_scenes/model
    python training_scripts/evaluate.py runs/slap_scenes/model --data my_sounds
    python training_scripts/evaluate.py runs/slap_scenes/captioner --captions
    python training_scripts/evaluate.py runs/my_classifier/model --data my_sounds

The embedded data gives retrieval, order, unseen pairs, zero-shot, frame, detection and grounding scores and a linear
probe (extra `eval`); a folder with captions (metadata.csv or metadata.jsonl), a `datasets` folder or a Hub id gives
retrieval, and detection or grounding where it has columns `events` or `phrases`. A model without text encoder, such
as an audio encoder alone, gets the probe. With `--captions` the captions that a captioner writes are scored instead. A
classifier is measured on labelled data: a folder with a sub-folder of sounds per class, a table, or a Hub id.
"""

import argparse
import sys
from pathlib import Path

from hf_audiolang.captioning import load_captioner
from hf_audiolang.data.records import RecordDataset
from hf_audiolang.data.registry import build_dataset
from hf_audiolang.evaluation import captioning
from hf_audiolang.evaluation.capabilities import check_text_input
from hf_audiolang.evaluation.embed import BAD_EXAMPLE_RULES, LONG_AUDIO_RULES, AudioOptions
from hf_audiolang.evaluation.figures import plot_test_scene
from hf_audiolang.evaluation.report import (
    collect,
    default_report_dir,
    evaluate_own_data,
    evaluate_sound_scenes,
    markdown_table,
    write_report,
)
from hf_audiolang.evaluation.report_scenes import scene_captions
from hf_audiolang.heads import evaluate_head, has_head, load_head
from hf_audiolang.inference import load_model

LABEL_OPTIONS = ("data_folder", "fold", "audio_column", "label_column", "split_column", "fold_column")


def main(arguments: list[str] | None = None) -> int:
    """Loads, evaluates, writes, prints; returns the exit code."""
    options = parse_arguments(arguments)
    try:
        run(options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """One evaluation."""
    reading = AudioOptions(options.batch_seconds, options.max_seconds, options.long_audio, options.on_bad_example)
    output_dir = options.output_dir or default_report_dir(options.model, options.captions)
    kind = caption_report if options.captions else label_report if has_head(options.model) else model_report
    report = kind(options, reading, output_dir)
    paths = write_report(report, output_dir)
    print(markdown_table(report))
    print("written: " + ", ".join(str(path) for path in paths))


def model_report(options: argparse.Namespace, reading: AudioOptions, output_dir: str | Path) -> dict[str, object]:
    """What an encoder or a system can do."""
    model, processor = load_model(options.model, options.device)
    if options.figure or options.data != "sound_scenes":
        check_text_input(model, processor)  # both compare sounds with words
    if options.data == "sound_scenes":
        sizes = {name: getattr(options, name) for name in ("test_size", "composition_size", "zero_shot_size")}
        scenes = {"scene_options": scenes_of(options), "num_workers": options.num_workers, "options": reading}
        report = evaluate_sound_scenes(model, processor, **sizes, **scenes)
        if options.figure:
            plot_test_scene(model, processor, Path(output_dir) / "scene.png", scenes_of(options))
        return report
    return evaluate_own_data(model, processor, own_data(options), data=options.data, options=reading)


def caption_report(options: argparse.Namespace, reading: AudioOptions, output_dir: str | Path) -> dict[str, object]:
    """How well the captions of a captioner agree with those of the clips."""
    captioner, processor = load_captioner(options.model, options.device)
    if options.data != "sound_scenes":
        found = captioning.evaluate(captioner, processor, own_data(options), options=reading)
        return collect([found.labelled(options.data)])
    scenes = {"scene_options": scenes_of(options), "num_workers": options.num_workers, "options": reading}
    return collect(*scene_captions(captioner, processor, test_size=options.test_size, **scenes))


def label_report(options: argparse.Namespace, reading: AudioOptions, output_dir: str | Path) -> dict[str, object]:
    """What a classifier gets right."""
    model, extractor = load_head(options.model, options.device)
    labels = {name: getattr(options, name) for name in LABEL_OPTIONS}
    return evaluate_head(model, extractor, options.data, part=options.split, options=reading, **labels)


def scenes_of(options: argparse.Namespace) -> dict[str, object]:
    """The kind of scenes of the embedded data."""
    return {"duration": tuple(options.duration), "n_events": tuple(options.n_events), "seed": options.seed}


def own_data(options: argparse.Namespace) -> RecordDataset:
    """The data set that the command line names."""
    columns = {name: getattr(options, name) for name in ("audio_column", "caption_column")}
    return build_dataset(
        options.data,
        options.split,
        **columns,
        on_bad_example=options.on_bad_example,
        needs_captions=not options.no_captions,
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Evaluate a trained model.")
    parser.add_argument("model", help="folder of a trained model, or the id of one on the Hub")
    parser.add_argument(
        "--data",
        default="sound_scenes",
        help="sound_scenes, a folder with captions or labels, a Hub id, a plan's YAML",
    )
    parser.add_argument("--data_folder", help="where the sounds of a plan lie, in place of its Hub id")
    parser.add_argument("--split", default="test", help="split of your own data")
    parser.add_argument("--fold", type=int, default=None, help="of labelled data that come in folds: the one tested")
    parser.add_argument("--audio_column", default=None)
    parser.add_argument("--caption_column", default=None)
    for name in ("label_column", "split_column", "fold_column"):
        parser.add_argument(f"--{name}", help="of labelled data; default: the usual names")
    parser.add_argument("--captions", action="store_true", help="score the captions that a captioner writes")
    parser.add_argument("--no_captions", action="store_true", help="own data with `events` or `phrases` alone")
    parser.add_argument("--output_dir", help="default: `evaluation` beside the model, or here for OWNER/NAME")
    parser.add_argument("--device", default=None, help="default: cuda if there is one")
    parser.add_argument("--test_size", type=int, default=300, help="clips of retrieval, frame and detection tests")
    parser.add_argument("--composition_size", type=int, default=200, help="clips with unseen pairs of sounds")
    parser.add_argument("--zero_shot_size", type=int, default=256, help="single-event clips")
    parser.add_argument("--duration", type=float, nargs=2, default=(2.0, 8.0), help="seconds, shortest and longest")
    parser.add_argument("--n_events", type=int, nargs=2, default=(1, 3), help="sounds per clip, fewest and most")
    parser.add_argument("--seed", type=int, default=0, help="of the embedded data")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that render the embedded data")
    parser.add_argument("--batch_seconds", type=float, default=AudioOptions.batch_seconds, help="audio per batch")
    parser.add_argument("--max_seconds", type=float, default=None, help="longest piece; default: the model's limit")
    parser.add_argument("--long_audio", choices=LONG_AUDIO_RULES, default="chunk_mean", help="for longer clips")
    parser.add_argument("--on_bad_example", choices=BAD_EXAMPLE_RULES, default="skip", help="for unreadable clips")
    parser.add_argument("--figure", action="store_true", help="also draw one test scene (extra `viz`)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

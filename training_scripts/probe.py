# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Probes a frozen audio encoder: how well do its features tell sounds apart?

    python training_scripts/probe.py runs/slap_scenes/model --probe linear
    python training_scripts/probe.py runs/slap_scenes/model --probe linear --random_weights
    python training_scripts/probe.py runs/slap_scenes/model --data configs/evaluate/esc50.yaml --data_folder ESC-50
    python training_scripts/probe.py runs/slap_scenes/model --data my_sounds --probe layers --layer best
    python training_scripts/probe.py --every_checkpoint runs/slap_scenes --probe linear

MODEL is a system, an encoder, a classifier, of which the encoder is taken, or a converted model. DATA is
`sound_scenes`, a folder per class, a table, a `datasets` folder, a Hub id, or a plan of configs/evaluate, whose folds
are tested in turn. Probes: `linear` (EVAR), `knn` (X-ARES), `layers` (MARBLE), `pooling` (mean and attention,
CaptionStew) and `frames` (strong labels). Writes probe.json and probe.md, with the mean and the 95 % interval over the
seeds; of every checkpoint of a run also the curve, probe.png (extra `viz`).
"""

import argparse
import sys
from pathlib import Path

from hf_audiolang.data.label_plans import LabelPlan, place_and_plan
from hf_audiolang.data.labels import SCENES, LabelledData
from hf_audiolang.evaluation.embed import BAD_EXAMPLE_RULES, AudioOptions
from hf_audiolang.evaluation.probe_protocol import ProbeSettings
from hf_audiolang.evaluation.probes import PROBES, run_probe, with_random_weights
from hf_audiolang.probing import (
    find_checkpoints,
    load_encoder,
    load_folds,
    probe_checkpoints,
    write_curve,
    write_probe,
)
from hf_audiolang.training.console import reporting

COLUMNS = ("audio_column", "label_column", "split_column", "fold_column")


def main(arguments: list[str]) -> int:
    """Loads, probes, writes, prints; returns the exit code."""
    return reporting("probe.py", lambda: run(parse_arguments(arguments)))


def run(options: argparse.Namespace) -> int:
    """One probe, of a model or of a run's checkpoints."""
    place, plan = place_and_plan(options.data, options.data_folder)
    settings = settings_of(options, plan)
    if options.every_checkpoint:
        find_checkpoints(options.every_checkpoint)  # before any data are read
        folds = folds_of(options, place, plan)
        points = probe_checkpoints(options.every_checkpoint, options.probe, folds, settings, options.device)
        paths = write_curve(points, output_dir_of(options))
    else:
        encoder, extractor = load_encoder(options.model, options.device)
        encoder = with_random_weights(encoder) if options.random_weights else encoder
        result = run_probe(options.probe, encoder, extractor, folds_of(options, place, plan), settings)
        if options.random_weights:
            result.record["weights"] = "random, seed 0"
        paths = write_probe(result, output_dir_of(options))
    print(next(path for path in paths if path.suffix == ".md").read_text(encoding="utf-8"))
    print("written: " + ", ".join(map(str, paths)))
    return 0


def settings_of(options: argparse.Namespace, plan: LabelPlan | None) -> ProbeSettings:
    """How clips are probed; the length of the clips is the plan's for EVAR's protocols."""
    unit_seconds = plan.unit_seconds if plan and options.probe in ("linear", "knn") else None
    return ProbeSettings(
        num_seeds=options.seeds,
        clip_seconds=unit_seconds if options.clip_seconds is None else options.clip_seconds,
        learning_rates=tuple(options.learning_rates),
        layer=int(options.layer) if options.layer.isdecimal() else options.layer,
        predicts_numbers=plan is not None and plan.task == "regression",
        reading=AudioOptions(on_bad_example=options.on_bad_example),
        cache_dir=options.cache_dir,
    )


def folds_of(options: argparse.Namespace, place: str | Path | None, plan: LabelPlan | None) -> list[LabelledData]:
    """The labelled data that the command line names, of each fold."""
    columns = {name: getattr(options, name) for name in COLUMNS}
    sizes = {"train_size": options.train_size or 512, "test_size": options.test_size or 256}
    return load_folds(
        place,
        plan=plan,
        fold=options.fold,
        task="frames" if options.probe == "frames" else options.task,
        on_bad_example=options.on_bad_example,
        **columns,
        **(sizes if options.data == SCENES else {}),
    )


def output_dir_of(options: argparse.Namespace) -> Path:
    """Where the results go: by default `probes/<probe>` in the run or beside the model, here for a Hub id."""
    if options.output_dir:
        return Path(options.output_dir)
    name = options.probe + ("_random" if options.random_weights else "")
    if options.every_checkpoint:
        return Path(options.every_checkpoint) / "probes" / f"{name}_checkpoints"
    folder = Path(options.model).expanduser()
    return (folder.parent if folder.is_dir() else Path(folder.name)) / "probes" / name


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Probe a frozen audio encoder.")
    parser.add_argument("model", nargs="?", help="folder of a trained or converted model, or the id of one on the Hub")
    parser.add_argument("--every_checkpoint", metavar="RUN", help="folder of a training run, in place of a model")
    parser.add_argument("--probe", choices=sorted(PROBES), default="linear")
    parser.add_argument("--data", default=SCENES, help="sound_scenes, a folder, a table, a Hub id, or a plan's YAML")
    parser.add_argument("--data_folder", help="where the sounds of a plan lie, in place of its Hub id")
    parser.add_argument("--task", choices=("classification", "tagging"), help="default: what plan or clips have")
    parser.add_argument("--fold", type=int, help="the fold that is tested; default: all of them in turn")
    for name in COLUMNS:
        parser.add_argument(f"--{name}", help="default: the usual names")
    parser.add_argument("--train_size", type=int, help="training scenes (sound_scenes only; default: 512)")
    parser.add_argument("--test_size", type=int, help="test scenes (sound_scenes only; default: 256)")
    parser.add_argument("--seeds", type=int, default=3, help="probes that are trained, with seeds 42, 43, ...")
    parser.add_argument("--clip_seconds", type=float, help="length of all clips; default: the plan's, or as they are")
    parser.add_argument("--learning_rates", type=float, nargs="+", default=(), help="default: the protocol's own")
    parser.add_argument("--layer", default="all", help="of `layers`: all, best, clip, or a number")
    parser.add_argument("--random_weights", action="store_true", help="the control: an encoder that learnt nothing")
    parser.add_argument("--cache_dir", help="folder that keeps the features for the next call")
    parser.add_argument("--output_dir", help="default: `probes/<probe>` in the run, or beside the model")
    parser.add_argument("--on_bad_example", choices=BAD_EXAMPLE_RULES, default="skip", help="for unreadable clips")
    parser.add_argument("--device", help="default: cuda if there is one")
    options = parser.parse_args(arguments)
    if (options.model is None) == (options.every_checkpoint is None):
        parser.error("give a model, or --every_checkpoint RUN")
    if options.every_checkpoint and options.random_weights:
        parser.error("--random_weights needs a model, not --every_checkpoint")
    if options.data != SCENES and (options.train_size, options.test_size) != (None, None):
        parser.error(f"--train_size and --test_size are of {SCENES} alone, got --data {options.data}")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

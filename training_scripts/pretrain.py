# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Pre-trains an audio-language model, evaluates it and exports it.

    accelerate launch training_scripts/pretrain.py configs/pretrain/slap_scenes.yaml
    accelerate launch training_scripts/pretrain.py configs/pretrain/slap_scenes.yaml --train_data FOLDER
    accelerate launch training_scripts/pretrain.py configs/pretrain/slap_scenes.yaml --resume

Every key of the YAML file can be overridden as `--key value`; `--help` lists them all, `--smoke` tries a configuration
in seconds. Exit codes: 0 done; 2 wrong settings, data or model, one message says which; 128 + n ended early by signal
n (130 Ctrl-C, 143 SIGTERM) with everything saved.
"""

import os
import sys

# Read when torch is imported. By default waiting threads spin for long: on cores shared with other programs a step
# then takes three times the CPU time. A short spin costs an idle machine a few percent.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

from hf_audiolang.evaluation.report import markdown_table
from hf_audiolang.training import RunResult, load_run_config, next_commands, pretrain
from hf_audiolang.training.console import reporting


def main(arguments: list[str]) -> int:
    """Runs the configuration of a command line and returns the exit code."""
    return reporting("pretrain.py", lambda: run(arguments))


def run(arguments: list[str]) -> int:
    """Pre-trains, and shows what came of it."""
    result = pretrain(load_run_config(arguments))
    if result.signal_number is not None:
        return 128 + result.signal_number
    if result.report:
        show(result)
    return 0


def show(result: RunResult) -> None:
    """Prints the values with chance levels and ceilings, where everything is, and what to try next."""
    minutes, hours = result.progress.elapsed_seconds / 60, result.progress.audio_seconds / 3600
    print(f"\n{result.progress.step} steps on {hours:.1f} hours of audio in {minutes:.1f} minutes of training.\n")
    print(markdown_table(result.report))
    print(f"Model, metrics, figures and log are in {result.output_dir}. Try:\n")
    about = (result.output_dir, result.examples, result.labels, result.embeds_text, result.writes_captions)
    for command in next_commands(*about):
        print(f"    {command}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

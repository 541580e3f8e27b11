# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Fine-tunes a trained model: labels of clips, tags, labels of frames, retrieval or captioning.

    accelerate launch training_scripts/finetune.py --model runs/slap_scenes/model --data my_sounds --num_epochs 20
    accelerate launch training_scripts/finetune.py configs/finetune/m2d_clap_esc50.yaml --data_folder ESC-50 --fold 1
    accelerate launch training_scripts/finetune.py configs/finetune/slap_scenes.yaml --lora
    accelerate launch training_scripts/finetune.py configs/finetune/slap_audiocaps.yaml --train_data FOLDER

`my_sounds` may be a folder with one sub-folder of sounds per class. `--task` is classification, tagging or frames,
which train a head; or retrieval or captioning, which go on with all losses of pre-training and take the keys of
pretrain.py. Every key of a YAML file can be overridden as `--key value`; `--help` lists them all. Exit codes: 0 done;
2 wrong settings, data or model, one message says which; 128 + n ended early by signal n with everything saved.
"""

import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # see pretrain.py

from hf_audiolang.evaluation.report import markdown_table
from hf_audiolang.training.console import reporting
from hf_audiolang.training.finetune import finetune
from hf_audiolang.training.finetune_config import CONTINUED_TASKS, load_continued_config, load_finetune_config, task_of
from hf_audiolang.training.run import pretrain


def main(arguments: list[str]) -> int:
    """Runs the configuration of a command line and returns the exit code."""
    return reporting("finetune.py", lambda: run(arguments))


def run(arguments: list[str]) -> int:
    """Fine-tunes a head, or goes on with pre-training, and shows what came of it."""
    is_continued = task_of(arguments) in CONTINUED_TASKS
    result = pretrain(load_continued_config(arguments)) if is_continued else finetune(load_finetune_config(arguments))
    if result.signal_number is not None:
        return 128 + result.signal_number
    if result.report:
        print(f"\n{result.progress.step} steps in {result.progress.elapsed_seconds / 60:.1f} minutes of training.\n")
        print(markdown_table(result.report))
        print(f"Model, metrics, figures and log are in {result.output_dir}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

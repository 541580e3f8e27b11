# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Trains and measures the arms of a comparison on the embedded scenes, and prints their table.

    python training_scripts/ablate.py configs/ablate/mga_clap_scenes.yaml

Arms that are finished are not trained again; an interrupted one is taken up. Each model's prompt and smoothing are
chosen on validation scenes, and it is measured with them on the test split, or as the plan says on validation scenes.
"""

import argparse
import logging
import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # see pretrain.py

from hf_audiolang.training.ablation import ablation_table, load_plan, run_plan


def main(arguments: list[str] | None = None) -> int:
    """Runs a plan and returns the exit code: 0 done, 2 not done, one message says why."""
    parser = argparse.ArgumentParser(description="Train and measure the arms of a comparison.")
    parser.add_argument("plan", help="YAML file, such as configs/ablate/mga_clap_scenes.yaml")
    options = parser.parse_args(arguments)
    logger = logging.getLogger("hf_audiolang")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    try:
        plan = load_plan(options.plan)
        results = run_plan(plan)
    except (OSError, ValueError, ImportError) as error:
        print(f"ablate.py: {error}", file=sys.stderr)
        return 2
    print(ablation_table(results))
    print(f"written: {plan.output_dir}/ablation.json, ablation.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())

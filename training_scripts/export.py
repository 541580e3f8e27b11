# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writes a folder to share from a run, a model or an adapter: what `hf-audiolang push` would send.

python training_scripts/export.py runs/slap_scenes exported --with_code
python training_scripts/export.py runs/my_classifier exported --max_shard_size 500MB
"""

import argparse
import sys
from pathlib import Path

from hf_audiolang.hub_staging import PARTS, find_part, stage


def main(arguments: list[str] | None = None) -> int:
    """Writes the folder and returns the exit code: 0 done, 2 not done, one message says why."""
    parser = argparse.ArgumentParser(description="Write a folder to share.")
    parser.add_argument("source", help="folder of a run, of a model or of an adapter")
    parser.add_argument("output_dir", help="folder to write, new")
    parser.add_argument("--part", choices=PARTS, default="model", help="which folder of a run (default: %(default)s)")
    parser.add_argument("--with_code", action="store_true", help="add the source files, to load without this package")
    parser.add_argument("--max_shard_size", default=None, help="largest weight file, such as 2GB")
    parser.add_argument("--base_model", default=None, help="Hub id of the model that an adapter needs")
    options = parser.parse_args(arguments)
    target = Path(options.output_dir)
    try:
        if target.exists():
            raise FileExistsError(f"`output_dir` {options.output_dir!r} exists already. Give a new name.")
        stage(
            find_part(options.source, options.part),
            target,
            target.name if target.is_absolute() else target.as_posix(),  # push renames it in the card
            with_code=options.with_code,
            max_shard_size=options.max_shard_size,
            base_model=options.base_model,
        )
    except (OSError, ValueError, ImportError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    print(f"written: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official checkpoints to folders that `AutoModel` and `AutoProcessor` load.

report = convert_checkpoint("m2d_clap", "m2d_vit_base-80x608p16x16-221006-mr7/checkpoint-300.pth", "m2d")
print(report.summary())
"""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from hf_audiolang.convert.m2d_clap import convert_m2d_clap
from hf_audiolang.convert.mga_clap import convert_mga_clap
from hf_audiolang.convert.report import ConversionReport
from hf_audiolang.convert.zipformer import convert_zipformer

CONVERTERS: dict[str, Callable[..., ConversionReport]] = {
    "m2d_clap": convert_m2d_clap,
    "mga_clap": convert_mga_clap,
    "zipformer": convert_zipformer,
}


def convert_checkpoint(
    family: str, checkpoint: str | Path, output_dir: str | Path, **overrides: object
) -> ConversionReport:
    """Converts an official checkpoint: writes model, feature extractor or processor, and card; returns the account.

    Args:
        family: name of a converter; `-` and `_` are the same.
        checkpoint: the official file.
        output_dir: folder to write, new or empty.
        **overrides: numbers and names that the converter should not infer; see the converter's options.

    Raises:
        ValueError: if the family is unknown, or for what the converter refuses.
        FileNotFoundError: if there is no such file.
    """
    name = family.replace("-", "_")
    if name not in CONVERTERS:
        raise ValueError(f"Unknown `family` {family!r}. Choose one of {sorted(CONVERTERS)}.")
    try:
        return CONVERTERS[name](checkpoint, output_dir, **overrides)
    except StrictDataclassError as error:  # of a configuration; its cause names field and value
        raise ValueError(f"The sizes contradict each other: {error.__cause__ or error}") from error


__all__ = ["CONVERTERS", "ConversionReport", "convert_checkpoint"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a conversion did with every key of the official file."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class ConversionReport:
    """Account of a conversion: every key of the file is in exactly one of `used` and `ignored`.

    Attributes:
        family: name of the converter.
        layout: what the file turned out to be, in words.
        model_class: class of the saved model.
        source_file: name of the official file.
        sha256: of that file.
        output_dir: the folder written.
        used: official key -> names of the parameters and numbers made of it.
        ignored: official key -> why it is not needed.
        numbers: what was inferred -> (value, where it comes from).
        config: configuration of the saved model.
        notes: what a user should know, such as defaults taken because the file says nothing.
    """

    family: str
    layout: str
    model_class: str
    source_file: str
    sha256: str
    output_dir: Path
    used: Mapping[str, tuple[str, ...]]
    ignored: Mapping[str, str]
    numbers: Mapping[str, tuple[object, str]]
    config: PreTrainedConfig
    notes: tuple[str, ...]

    def summary(self) -> str:
        """The report as text of a few lines; keys that are ignored for the same reason are counted together."""
        total = len(self.used) + len(self.ignored)
        lines = [
            f"{self.source_file}: {self.layout}",
            f"sha256 {self.sha256}",
            f"{total} tensors: {len(self.used)} used, {len(self.ignored)} ignored",
        ]
        lines += [f"  {name} = {value} ({origin})" for name, (value, origin) in self.numbers.items()]
        lines += [f"  ignored {count}: {reason}" for reason, count in Counter(self.ignored.values()).items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, f"{self.model_class} written to {self.output_dir}"])


__all__ = ["ConversionReport"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The 527 sound classes of AudioSet: position in the official list, class id (`mid`), display name.

The table `audioset_classes.csv` beside this file holds the facts of Google's class_labels_indices.csv. AudioSet is
published under CC BY 4.0, the ontology that its class names come from under CC BY-SA 4.0.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ORDERS = ("index", "mid")
_TABLE = Path(__file__).with_name("audioset_classes.csv")


@dataclass(frozen=True)
class AudioSetClass:
    """One class: position in the official list, from 0; class id such as `/m/09x0r`; name such as "Speech"."""

    index: int
    mid: str
    display_name: str


@lru_cache
def audioset_classes(order: str = "index") -> tuple[AudioSetClass, ...]:
    """All classes in a stated order.

    Args:
        order: "index", the order of the official list (AST, HTS-AT, Zipformer heads), or "mid", the class ids sorted
            as strings: the order of the outputs of EVAR's fine-tuned M2D heads (m2d_clap.md section 5).

    Raises:
        ValueError: for another order.
    """
    if order not in ORDERS:
        raise ValueError(f"Unknown `order` {order!r}. Choose one of {list(ORDERS)}.")
    with _TABLE.open(encoding="utf-8", newline="") as file:
        rows = [AudioSetClass(int(row["index"]), row["mid"], row["display_name"]) for row in csv.DictReader(file)]
    return tuple(sorted(rows, key=lambda row: getattr(row, order)))


@lru_cache
def audioset_names() -> dict[str, str]:
    """Class id -> display name."""
    return {row.mid: row.display_name for row in audioset_classes()}


__all__ = ["ORDERS", "AudioSetClass", "audioset_classes", "audioset_names"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Clips of known classes as points in a plane, and how well the classes stand apart (M2D-CLAP IV-D4, Fig. 6).

    folder/class/file -> records -> features, unit-norm (N, D) -> t-SNE -> points (N, 2)
                                                               -> silhouette, cosine distance, before t-SNE

The paper does not say on what its silhouette is computed: here always on the features, never on the plane.
The picture is `figures_map.plot_map`. t-SNE needs scikit-learn (the extra `viz`).
"""

import csv
import importlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
from torch import nn

from hf_audiolang.data.labels_folders import folder_records
from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor
from .embed import AudioOptions, embed_records
from .metrics import MissingResourceError

FEATURES = ("clap", "audio")
PERPLEXITY = 30.0  # scikit-learn's default
SEED = 0


@dataclass(frozen=True)
class EmbeddingMap:
    """Points of N clips of C classes.

    Attributes:
        files: N ids of the clips; paths of files.
        labels: N class names.
        points: (N, 2) t-SNE coordinates, which have no unit.
        silhouettes: (N,) silhouette of each clip in [-1, 1]; 0 for the only clip of a class.
        features: "clap" or "audio".
        perplexity: of the t-SNE.
        notes: what a reader should know, one sentence each.
        failed: one message per clip that could not be read.
    """

    files: list[str]
    labels: list[str]
    points: np.ndarray
    silhouettes: np.ndarray
    features: str
    perplexity: float
    notes: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def silhouette(self) -> float:
        """Mean silhouette over the clips."""
        return float(self.silhouettes.mean())

    @property
    def classes(self) -> list[str]:
        """Class names in alphabetical order."""
        return sorted(set(self.labels))

    def to_json(self) -> dict[str, object]:
        """All values with how they came about."""
        return {
            "silhouette": self.silhouette,
            "space": "features",
            "metric": "cosine",
            "features": self.features,
            "perplexity": self.perplexity,
            "seed": SEED,
            "points": self._rows(),
            "notes": list(self.notes),
            "failed": list(self.failed),
        }

    def write_csv(self, path: str | Path) -> None:
        """Writes one line per clip: file, class, x, y, silhouette."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["file", "class", "x", "y", "silhouette"])
            writer.writeheader()
            writer.writerows(self._rows())

    def _rows(self) -> list[dict[str, object]]:
        columns = zip(self.files, self.labels, self.points.tolist(), self.silhouettes.tolist(), strict=True)
        return [{"file": f, "class": c, "x": x, "y": y, "silhouette": s} for f, c, (x, y), s in columns]


def class_records(folder: str | Path, files: Iterable[str | Path]) -> tuple[list[Record], list[str]]:
    """Records of the files with the sub-folder of `folder` that holds them as label, and messages on the others.

    Args:
        folder: has one sub-folder per class.
        files: sound files in it, at any depth.

    Raises:
        FileNotFoundError: if `folder` is not a folder.
        ValueError: if there are fewer than two classes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` '{folder}' is not a folder. Give one with a sub-folder per class.")
    records, outside = folder_records(folder, files)
    _check_classes({record.labels[0] for record in records}, f"'{folder}'")
    return records, [f"{path}: it lies in no sub-folder, so its class is not known" for path in outside]


def map_records(
    model: nn.Module,
    processor: AudioProcessor,
    records: Sequence[Record],
    *,
    features: str = "clap",
    options: AudioOptions | None = None,
) -> EmbeddingMap:
    """The map of clips with one label each.

    Args:
        model: a system, or with `features="audio"` also an audio encoder alone.
        processor: its processor.
        records: clips with exactly one label each, of at least two classes.
        features: "clap", the embedding in the shared space, or "audio", the encoder's `pooler_output`, the feature
            for conventional tasks. Both are normalised.
        options: batching and the rule for long clips.

    Raises:
        MissingResourceError: if scikit-learn is not installed.
        ValueError: if the readable clips are not of two classes with a clip more than classes, or the model does not
            have the features.
    """
    if features not in FEATURES:
        raise ValueError(f"Unknown `features` {features!r}. Choose one of {list(FEATURES)}.")
    if features == "clap" and not hasattr(model, "get_audio_features"):
        raise ValueError(
            f"`model` is a {type(model).__name__}, an audio encoder without a shared space. Ask for its own features "
            "with `features='audio'`."
        )
    encoder = model if features == "clap" else getattr(model, "audio_model", model)
    options = replace(options or AudioOptions(), max_bad_fraction=1.0)  # the caller gets the failures, however many
    embedded = embed_records(encoder, processor, records, options=options)
    labels = [_only_label(record) for record in embedded.records]
    silhouettes = silhouette_samples(embedded.embeds, labels)
    perplexity = min(PERPLEXITY, (len(labels) - 1) / 3)
    notes = [
        f"Class {label!r} has one clip, whose silhouette counts as 0."
        for label, count in sorted(Counter(labels).items())
        if count == 1
    ]
    if perplexity < PERPLEXITY:
        notes.append(
            f"The perplexity of t-SNE is {perplexity:.3g} instead of {PERPLEXITY:.3g}: there are only {len(labels)} "
            "clips, whose distances in the plane say little."
        )
    return EmbeddingMap(
        files=[record.id for record in embedded.records],
        labels=labels,
        points=tsne_points(embedded.embeds, perplexity),
        silhouettes=silhouettes,
        features=features,
        perplexity=perplexity,
        notes=tuple(notes),
        failed=tuple(embedded.skipped),
    )


def tsne_points(embeds: np.ndarray, perplexity: float = PERPLEXITY) -> np.ndarray:
    """Coordinates (N, 2) of scikit-learn's t-SNE with its defaults and a fixed seed.

    Args:
        embeds: (N, D) features.
        perplexity: number of neighbours that count, below N.

    Raises:
        MissingResourceError: if scikit-learn is not installed.
    """
    return _scikit_learn("manifold").TSNE(perplexity=perplexity, random_state=SEED).fit_transform(embeds)


def silhouette_samples(embeds: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Silhouette (N,) of each clip: (b - a) / max(a, b) with cosine distances.

    a is the mean distance to the other clips of its class, b the least mean distance to the clips of another class.
    It is 0 for the only clip of a class.

    Args:
        embeds: (N, D) unit-norm features.
        labels: N class names.

    Raises:
        MissingResourceError: if scikit-learn is not installed.
        ValueError: if there are fewer than two classes, or as many as clips.
    """
    classes = set(labels)
    _check_classes(classes, f"{len(labels)} clips")
    if len(classes) == len(labels):
        raise ValueError(
            f"`labels` has {len(classes)} classes for {len(labels)} clips: no class has two. Give more clips."
        )
    return _scikit_learn("metrics").silhouette_samples(embeds, labels, metric="cosine")


def _scikit_learn(part: str) -> ModuleType:
    """A module of scikit-learn, an optional package."""
    try:
        return importlib.import_module(f"sklearn.{part}")
    except ImportError as error:
        raise MissingResourceError(
            f"A map needs the package {error.name!r}, which is not installed. Run `pip install 'hf-audiolang[viz]'`."
        ) from error


def _check_classes(classes: set[str], where: str) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"A map needs sounds of at least two classes, got {sorted(classes)} in {where}. Give a folder with one "
            "sub-folder of sound files per class."
        )


def _only_label(record: Record) -> str:
    if len(record.labels) != 1:
        raise ValueError(
            f"Record {record.id!r} must have exactly one label, got {list(record.labels)}. A map shows clips of one "
            "class each."
        )
    return record.labels[0]


__all__ = ["FEATURES", "EmbeddingMap", "class_records", "map_records", "silhouette_samples", "tsne_points"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Synthetic scenes for other tools: a folder of sound files, a `datasets.Dataset`, and the card describing them."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .rendered_scenes import RenderedScenes, materialize
from .scene_scores import oracle_ceilings
from .scene_words import zero_shot_text

if TYPE_CHECKING:
    from .sound_scenes import SoundScenes

AUDIO_FORMATS = ("wav", "flac")


def to_hf_dataset(dataset: "SoundScenes", num_workers: int | None = None):
    """A `datasets.Dataset` with the columns of the scenes; the audio is held as FLAC bytes (lossless, 16 bit)."""
    import soundfile
    from datasets import Audio, Dataset

    rendered = materialize(dataset, num_workers)
    rows = []
    for row in rendered:
        buffer = io.BytesIO()
        soundfile.write(buffer, row["audio"]["array"], dataset.sampling_rate, format="FLAC", subtype="PCM_16")
        rows.append({**row, "audio": {"bytes": buffer.getvalue(), "path": None}})
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return Dataset.from_dict(columns).cast_column("audio", Audio(sampling_rate=dataset.sampling_rate))


def export_scenes(
    dataset: "SoundScenes", folder: str | Path, *, audio_format: str = "wav", num_workers: int | None = None
) -> Path:
    """Writes `audio/<index>.<format>`, `metadata.jsonl` (one row per line) and `README.md`; returns the folder.

    The folder loads with `datasets.load_dataset("audiofolder", data_dir=folder)` and as training data of its own.

    Raises:
        ValueError: for a format other than wav and flac.
        FileExistsError: if the folder already holds a `metadata.jsonl`.
    """
    import soundfile

    if audio_format not in AUDIO_FORMATS:
        raise ValueError(f"Unknown `audio_format` {audio_format!r}. Choose one of {list(AUDIO_FORMATS)}.")
    folder = Path(folder)
    if (folder / "metadata.jsonl").exists():
        raise FileExistsError(f"`folder` {str(folder)!r} already holds a metadata.jsonl. Pass an empty folder.")
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rendered = materialize(dataset, num_workers)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as file:
        for index, row in enumerate(rendered):
            name = f"audio/{index:06d}.{audio_format}"  # no split in the name: `datasets` would split by it
            soundfile.write(folder / name, row["audio"]["array"], dataset.sampling_rate, subtype="PCM_16")
            columns = {key: value for key, value in row.items() if key != "audio"}
            file.write(json.dumps({"file_name": name, **columns}) + "\n")
    (folder / "README.md").write_text(dataset_card(rendered), encoding="utf-8")
    return folder


def dataset_card(dataset: "SoundScenes | RenderedScenes") -> str:
    """A Markdown card: that the data is synthetic, what is in it, and what retrieval on it can reach at best."""
    scenes = getattr(dataset, "dataset", dataset)
    rows = [dataset.structure(index) for index in range(len(dataset))]
    hours = sum(row["duration"] for row in rows) / 3600
    modes = sorted({row["mode"] for row in rows})
    parts = sorted({row["part"] for row in rows} - {""})
    lines = [
        "---",
        "license: apache-2.0",
        "language: [en]",
        "task_categories: [audio-classification, text-to-audio]",
        "tags: [synthetic, audio, captions, sound-event-detection]",
        "---",
        f"# Synthetic sound scenes v{scenes.version}, split `{scenes.split}`",
        "",
        f"**All audio here is synthetic** (`synthetic-scenes v{scenes.version}`): computed from formulas, with "
        "captions from a grammar. Results on it say nothing about real recordings.",
        "",
        f"{len(rows)} clips, {hours:.2f} h, {scenes.sampling_rate} Hz mono, {min(row['duration'] for row in rows)} to "
        f"{max(row['duration'] for row in rows)} s, seed {scenes.seed}, {scenes.caption_count} captions per clip, "
        f"{sum(len(row['events']) for row in rows)} events, {sum(len(row['qa']) for row in rows)} questions.",
        "",
        *[f"- {mode}: {sum(row['mode'] == mode for row in rows)} clips" for mode in modes],
        *[f"- part {part}: {sum(row['part'] == part for row in rows)} clips" for part in parts],
        "",
        "## Ceilings of retrieval",
        "",
        "Expected recall of an oracle that knows only the labels of each clip, in order of onset or as a bag; ties in "
        "random order.",
        "",
        *_ceiling_table(oracle_ceilings(dataset)),
        "",
        "## Classes",
        "",
        ", ".join(f"{zero_shot_text(label)} (`{label}`)" for label in scenes.pool),
        "",
    ]
    return "\n".join(lines)


def _ceiling_table(ceilings: dict[str, dict[str, float]]) -> list[str]:
    names = list(ceilings["ordered"])
    rows = [[f"{100 * values[name]:.1f}" for name in names] for values in ceilings.values()]
    return [
        f"| oracle | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *[f"| {oracle} | {' | '.join(row)} |" for oracle, row in zip(ceilings, rows, strict=True)],
    ]


__all__ = ["AUDIO_FORMATS", "dataset_card", "export_scenes", "to_hf_dataset"]

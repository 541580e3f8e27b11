# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The embedded scenes as labelled data: single events with one label, or mixtures with labels and times.

Training and validation clips are made with the next two seeds, the test clips with the seed itself: they are those
that every other evaluation has, and no pre-training of the usual seed has heard the others.
"""

from __future__ import annotations

from .labels_checks import check_num_classes, class_notes
from .labels_records import PARTS, TASKS, Clip, LabelledData, LabelledRecords
from .records import RecordView
from .registry import build_sound_scenes

_SPLITS = {
    "classification": {"train": "zero_shot", "validation": "zero_shot", "test": "zero_shot"},
    "tagging": {"train": "train", "validation": "validation", "test": "test"},
}
_SEEDS = {"train": 1, "validation": 2, "test": 0}  # added to the seed; zero_shot is one stream of rows for all parts


def labelled_scenes(
    task: str | None = "classification",
    *,
    train_size: int = 512,
    validation_size: int = 128,
    test_size: int = 256,
    duration: float | tuple[float, float] = (2.0, 8.0),
    n_events: int | tuple[int, int] = (1, 3),
    classes: tuple[str, ...] | None = None,
    sampling_rate: int = 16000,
    seed: int = 0,
    num_workers: int | None = None,
) -> LabelledData:
    """Rendered scenes, in memory, with their labels.

    Args:
        task: "classification" has single events, classes in turn; "tagging" and "frames" have mixtures, whose records
            hold `events`, too. None is "classification".
        train_size: clips for training; 0 for none, as the other two.
        duration: seconds, fixed or a range; as the usual evaluation on scenes has them.
        n_events: fewest and most events of a mixture.
        classes: class names in the order of the label ids; all 32 by default. Few training clips may not have all of
            them, which a note says.
        seed: of the test clips.
        num_workers: processes that render, by default one per core; the result does not depend on it.

    Raises:
        ValueError: for another task, no clips at all, or as `SoundScenes` says.
    """
    task = task or "classification"
    if task not in TASKS:
        raise ValueError(f"Unknown `task` {task!r}. Choose one of {list(TASKS)}.")
    splits = _SPLITS.get(task, _SPLITS["tagging"])
    sizes = dict(zip(PARTS, (train_size, validation_size, test_size), strict=True))
    options = {"duration": duration, "n_events": n_events, "classes": classes, "sampling_rate": sampling_rate}
    if not any(sizes.values()):
        raise ValueError(f"The sizes of all parts are 0, got {sizes}. Ask for clips of one part at least.")
    rendered: dict[str, RecordView] = {}
    clips: list[Clip] = []
    rows: dict[str, list[int]] = {}
    for part in (part for part in PARTS if sizes[part]):
        rendered[part] = build_sound_scenes(
            splits[part], size=sizes[part], seed=seed + _SEEDS[part], num_workers=num_workers, **options
        )
        found = [_clip(rendered[part], index, part) for index in range(sizes[part])]
        rows[part] = list(range(len(clips), len(clips) + len(found)))
        clips += found
    order = list(next(iter(rendered.values())).rows.dataset.classes)
    is_multi_label = task != "classification"
    check_num_classes(clips, (index for part in rows.values() for index in part), is_multi_label, "the scenes")
    parts = {
        part: LabelledRecords(view, range(len(view)), [clips[index] for index in rows[part]], name=_name(view))
        for part, view in rendered.items()
    }
    return LabelledData(
        **{part: parts.get(part) for part in PARTS},
        classes=order,
        is_multi_label=is_multi_label,
        name="sound_scenes",
        notes=class_notes(clips, rows, order),
    )


def _clip(view: RecordView, index: int, part: str) -> Clip:
    row = view.rows.structure(index)
    return Clip(row["id"], tuple(dict.fromkeys(row["labels"])), split=part, place=row["id"])


def _name(view: RecordView) -> str:
    scenes = view.rows.dataset
    return f"sound_scenes {scenes.split}, {len(view)} clips, seed {scenes.seed}"


__all__ = ["labelled_scenes"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Labelled sounds: a folder per class, a table, a `datasets` folder, a Hub id, or the embedded scenes.

folder | table | Hub id -> LabelSource -> bad clips left out -> splits -> class order, checks -> LabelledData

    data = load_labelled("sounds")            # sounds/dog/a.wav, sounds/cat/b.wav, ...
    data.train[0].labels, data.classes        # ("dog",), ["cat", "dog"]
"""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path

from .captions import MAX_EMBEDDED_CHECKS, MAX_HEADER_CHECKS, check_sounds, is_datasets_folder
from .captions_checks import ON_BAD_EXAMPLE, BadRows
from .label_plans import LabelPlan
from .labels_checks import check_label_numbers, check_num_classes, class_notes, class_order
from .labels_columns import LabelColumns
from .labels_datasets import open_label_folder, open_label_hub, read_label_splits
from .labels_folders import read_class_folders
from .labels_metadata import find_label_tables, read_label_tables
from .labels_records import PARTS, TASKS, LabelledData, LabelledRecords, LabelSource
from .labels_scenes import labelled_scenes
from .labels_splits import Split, split_clips
from .metadata_files import TABLE_SUFFIXES
from .records import RecordSubset

SCENES = "sound_scenes"


def load_labelled(
    name_or_path: str | Path | None = None,
    *,
    plan: LabelPlan | None = None,
    task: str | None = None,
    fold: int | None = None,
    audio_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    fold_column: str | None = None,
    on_bad_example: str = "skip",
    seed: int = 0,
    **scene_options: object,
) -> LabelledData:
    """Training, validation and test clips with their labels and the class order.

    What a source lacks is made up for by stated rules, each with a sentence in `notes`: see `labels_splits` for the
    parts and `labels_checks` for the classes.

    Args:
        name_or_path: a folder with a sub-folder per class (see `labels_folders`), a folder with a table or the table
            itself (see `labels_metadata`), a plan's data in the layout in which they were published, a folder that
            `save_to_disk` of `datasets` wrote, a Hub id, or "sound_scenes". None takes the plan's Hub id.
        plan: what is known of a published data set; a folder in place of its Hub id may have other columns.
        task: "classification" (one label per clip), "tagging" (any number) or "frames" (events with times). None
            takes the plan's, or what the clips have.
        fold: number of the fold that is tested; the others train.
        audio_column, label_column, split_column, fold_column: names of columns; by default the plan's, or
            `file_name` or `audio`, `label` or `labels`, `split`, `fold`.
        on_bad_example: what to do with a missing label, a missing file or an unreadable header: "skip" leaves the
            clip out, with a message in `.skipped` of each part; "error" raises.
        seed: another seed holds other clips out; of the scenes.
        scene_options: those of `labelled_scenes`, for "sound_scenes" alone.

    Raises:
        FileNotFoundError: if there is no such folder or data set, or it has no sounds.
        TypeError: for an option that is not known.
        ValueError: for labels, splits, folds, columns or rows that do not fit; the message names them.
        TooManyBadExamples: if more than 5 % of the clips are bad.
    """
    _check_names(plan, task, on_bad_example)
    asked = {"audio": audio_column, "label": label_column, "split": split_column, "fold": fold_column}
    asked = {kind: column for kind, column in asked.items() if column is not None}
    task = task or (plan.task if plan else None)
    if str(name_or_path) == SCENES:
        _check_scene_options(scene_options, plan=plan, fold=fold, **asked)
        return labelled_scenes(task, seed=seed, **scene_options)
    if scene_options:
        raise TypeError(f"`{name_or_path}` has no option {sorted(scene_options)}, only {SCENES!r} has. Leave it out.")
    bad_rows = BadRows(on_bad_example)
    source = _read(name_or_path, plan, asked, bad_rows)
    is_multi_label = check_label_numbers(source, task, bad_rows)
    limit = MAX_EMBEDDED_CHECKS if source.is_embedded else MAX_HEADER_CHECKS
    checked = check_sounds(source.records, [clip.place for clip in source.clips], bad_rows, limit)
    return _in_parts(source, checked, plan, is_multi_label, fold=fold, seed=seed)


def _in_parts(
    source: LabelSource,
    checked: RecordSubset,
    plan: LabelPlan | None,
    is_multi_label: bool,
    *,
    fold: int | None,
    seed: int,
) -> LabelledData:
    """The good clips of a source in training, validation and test part."""
    clips = [source.clips[index] for index in checked.indices]
    if not clips:
        raise ValueError(f"{source.name} has 0 clips that can be used. Give at least one per class.")
    split = split_clips(clips, source.name, fold=fold, seed=seed)
    classes = class_order(clips, split.parts, (plan.classes() if plan else None) or source.classes, source.name)
    part = "train" if "train" in split.parts else "test"
    check_num_classes(clips, split.parts[part], is_multi_label, f"The {part} part of {source.name}")
    parts = {
        part: LabelledRecords(
            source.records,
            [checked.indices[row] for row in rows],
            source.clips,
            name=f"{source.name}, {part}",
            durations=checked.durations,
            skipped=checked.skipped,
        )
        for part, rows in split.parts.items()
    }
    notes = [*source.notes, *split.notes, *class_notes(clips, split.parts, classes)]
    return LabelledData(
        **{part: parts.get(part) for part in PARTS},
        classes=classes,
        is_multi_label=is_multi_label,
        name=source.name,
        notes=[*notes, *(_plan_notes(plan, source.name, split, len(clips), classes) if plan else [])],
        folds=split.folds,
        fold=split.fold,
    )


def _read(
    name_or_path: str | Path | None, plan: LabelPlan | None, asked: dict[str, str], bad_rows: BadRows
) -> LabelSource:
    """The source that a name means: a table, one of the kinds of folders, or a Hub id."""
    if name_or_path is None and (plan is None or plan.source is None):
        raise ValueError(
            f"`name_or_path` is None, and {f'the plan {plan.name!r}' if plan else 'without a plan'} names no Hub id. "
            "Give the folder that holds the sounds."
        )
    name = str(plan.source if name_or_path is None else name_or_path)
    is_planned = plan is not None and name == plan.source
    planned = plan.columns if plan else {}
    columns = LabelColumns({**planned, **asked} if is_planned else asked, planned)
    path = Path(os.path.expanduser(name))
    if path.is_file():
        if path.suffix not in TABLE_SUFFIXES:
            raise ValueError(f"`{path}` is no table. Give a folder, or a file that ends in {list(TABLE_SUFFIXES)}.")
        source = read_label_tables(path.parent, {"": path}, columns, bad_rows)
    elif not path.is_dir():
        tables = open_label_hub(name, plan.splits if is_planned else {}, plan.revision if is_planned else None)
        source = read_label_splits(name, tables, columns)
    elif is_datasets_folder(path):
        source = read_label_splits(name, open_label_folder(path), columns)
    elif tables := find_label_tables(path):
        source = read_label_tables(path, tables, columns, bad_rows)
    elif plan and plan.table and (path / plan.table).is_file():
        source = read_label_tables(path, {"": path / plan.table}, columns, bad_rows, plan.sound_path)
    elif asked:
        raise ValueError(
            f"`{path}` has no table (metadata.csv, metadata.jsonl), so no columns, got "
            f"{ {f'{kind}_column': name for kind, name in asked.items()} }. Leave them out, or write one."
        )
    else:
        source = read_class_folders(path, bad_rows)
    return source if plan is None else _with_plan_names(source, plan)


def _with_plan_names(source: LabelSource, plan: LabelPlan) -> LabelSource:
    """The source with the class names that the plan has for its labels."""
    clips = [replace(clip, labels=tuple(map(plan.label_name, clip.labels))) for clip in source.clips]
    classes = None if source.classes is None else list(map(plan.label_name, source.classes))
    return replace(source, clips=clips, classes=classes)


def _plan_notes(plan: LabelPlan, name: str, split: Split, num_clips: int, classes: list[str]) -> list[str]:
    """Where the data differ from the plan."""
    notes = []
    if plan.subset_copy and name == plan.source:
        notes.append(f"{name} is a sub-sampled copy: results on it compare with none that are published.")
    found = {"all": num_clips, **{part: len(rows) for part, rows in split.parts.items()}}
    numbers = [(f"{part} clips", found.get(part, 0), size) for part, size in plan.sizes.items()]
    numbers += [("folds", len(split.folds), plan.folds), ("classes", len(classes), plan.num_classes)]
    for what, number, expected in numbers:
        if expected is not None and number != expected:
            notes.append(f"{name} has {number} {what}; the plan {plan.name!r} expects {expected}.")
    strangers = sorted(set(plan.captions) - set(classes))
    if strangers:
        notes.append(f"The plan {plan.name!r} has words for {strangers[:5]}, which are no classes of {name}.")
    return notes


def _check_names(plan: LabelPlan | None, task: str | None, on_bad_example: str) -> None:
    if on_bad_example not in ON_BAD_EXAMPLE:
        raise ValueError(f"Unknown `on_bad_example` {on_bad_example!r}. Choose one of {list(ON_BAD_EXAMPLE)}.")
    if task is not None and task not in TASKS:
        raise ValueError(f"Unknown `task` {task!r}. Choose one of {list(TASKS)}.")
    if plan is not None and plan.task not in TASKS:
        raise ValueError(
            f"The plan {plan.name!r} is of `task` {plan.task!r}, whose targets are no classes. Labelled data are of "
            f"one of {list(TASKS)}."
        )


def _check_scene_options(scene_options: dict[str, object], **others: object) -> None:
    given = sorted(name for name, value in others.items() if value is not None)
    if given:
        raise ValueError(f"{SCENES!r} has no {given}, got {others}. Leave them out.")
    known = [name for name in inspect.signature(labelled_scenes).parameters if name not in ("task", "seed")]
    unknown = sorted(set(scene_options) - set(known))
    if unknown:
        raise TypeError(f"{SCENES!r} has no option {unknown}. Its options are {known}.")


__all__ = ["SCENES", "LabelledData", "load_labelled"]

# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Class order, and whether the labels of all parts fit it.

Stated rules: the order is an explicit list's, else that of the sorted names of the training clips, never of each part
by itself. A label outside of an explicit list is an error, and so is a validation or test label that no training clip
has. A class of an explicit list without training clips keeps its place, so that label ids do not move, and is named in
a note. Classes without test clips are named in a note; metrics leave them out and count them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .captions_checks import BadRows
from .labels_records import Clip, LabelSource

CLASSES_FILE = "classes.txt"
NUM_NAMED = 5  # so many labels or clips are named in a message


def read_classes_file(folder: Path) -> list[str] | None:
    """The class names in `classes.txt` of a folder, one a line, None without one.

    Raises:
        ValueError: if it names a class twice or none.
    """
    path = folder / CLASSES_FILE
    if not path.is_file():
        return None
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        what = f"names {twice} more than once" if twice else "is empty"
        raise ValueError(f"`{path}` {what}. Write each class name on one line.")
    return names


def check_label_numbers(source: LabelSource, task: str | None, bad_rows: BadRows) -> bool:
    """Whether clips may have no label or several; clips without a label are bad rows where they need one.

    Args:
        source: all clips.
        task: "classification" asks for exactly one label; None takes what the clips have.
        bad_rows: gets the clips without a label.

    Raises:
        ValueError: if clips have several labels under "classification", or there are no strong labels under "frames".
    """
    several = [clip for clip in source.clips if len(clip.labels) > 1]
    if task == "frames" and not source.has_events:
        raise ValueError(
            f"`task` is 'frames', but {source.name} has no strong labels. Give the columns `onset`, `offset` and "
            "`label`, or `events`."
        )
    if task == "classification" and several:
        raise ValueError(
            f"`task` is 'classification', but {len(several)} of {len(source.clips)} clips of {source.name} have "
            f"several labels, first {several[0].place}: {list(several[0].labels)}. Leave one, or choose 'tagging'."
        )
    is_multi_label = bool(several) or source.is_multi_label if task is None else task != "classification"
    if not is_multi_label:
        for index, clip in enumerate(source.clips):
            if not clip.labels:
                bad_rows.add(index, f"{clip.place} has no label. Write one, or remove the row.")
    return is_multi_label


def class_order(
    clips: Sequence[Clip], parts: Mapping[str, Sequence[int]], explicit: Sequence[str] | None, name: str
) -> list[str]:
    """The class names in the order of the label ids; see the stated rules above.

    Args:
        clips: of one source.
        parts: name of a part -> positions of its clips.
        explicit: all class names in order; None sorts those of the training clips, or of the test clips without any.
        name: of the source, for messages.

    Raises:
        ValueError: for labels that are not in the explicit list, or not in the training clips.
    """
    labels_of = {part: {label for index in rows for label in clips[index].labels} for part, rows in parts.items()}
    if explicit is not None:
        for part, labels in labels_of.items():
            _refuse_unseen(labels - set(explicit), part, clips, parts, f"the {len(explicit)} classes of {name}")
    if "train" in labels_of:
        for part, labels in labels_of.items():
            _refuse_unseen(labels - labels_of["train"], part, clips, parts, f"the training clips of {name}")
    return list(explicit) if explicit is not None else sorted_names(labels_of.get("train", labels_of.get("test", ())))


def check_num_classes(clips: Sequence[Clip], rows: Iterable[int], is_multi_label: bool, name: str) -> None:
    """Makes sure that there is something to tell apart.

    Raises:
        ValueError: if the clips have no label at all, or with one label per clip all the same.
    """
    found = sorted({label for index in rows for label in clips[index].labels})
    fewest = 1 if is_multi_label else 2
    if len(found) < fewest:
        raise ValueError(f"{name} has {len(found)} classes, got {found}. Give clips of {fewest} or more.")


def class_notes(clips: Sequence[Clip], parts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> list[str]:
    """What the label sets of the parts leave open, one sentence per part."""
    notes = []
    joined = [label for label in classes if "," in label and {*classes} & {part.strip() for part in label.split(",")}]
    if joined:
        notes.append(
            f"{len(joined)} labels hold a comma and others of the classes, and count as one class each: "
            f"{_first(joined)}. Several labels of a clip are written with `;` between them."
        )
    for part, consequence in (
        ("train", "cannot be learnt. They keep their places, so that label ids do not move"),
        ("test", "cannot be tested. Metrics leave them out and count them"),
    ):
        labels = {label for index in parts.get(part, ()) for label in clips[index].labels}
        missing = [label for label in classes if label not in labels]
        if missing and part in parts:
            notes.append(
                f"{len(missing)} of {len(classes)} classes have no {part} clip and {consequence}: {_first(missing)}."
            )
    return notes


def sorted_names(names: Iterable[str]) -> list[str]:
    """Names in order; whole numbers by their value."""
    names = list(names)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def _refuse_unseen(
    labels: set[str], part: str, clips: Sequence[Clip], parts: Mapping[str, Sequence[int]], where: str
) -> None:
    if not labels:
        return
    rows = [index for index in parts[part] if labels.intersection(clips[index].labels)]
    raise ValueError(
        f"{len(labels)} labels of the {part} clips are not among {where}: {_first(sorted(labels))} (in {len(rows)} "
        f"clips, first {clips[rows[0]].place}). Correct the spelling, add them there, or leave their clips out."
    )


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return f"{list(names[:NUM_NAMED])}{more}"


__all__ = [
    "CLASSES_FILE",
    "read_classes_file",
    "check_label_numbers",
    "class_order",
    "check_num_classes",
    "class_notes",
    "sorted_names",
]

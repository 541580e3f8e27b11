# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Which clips train, validate and test: given splits, folds, or a part of each class that is held out.

given splits | fold k tests, the others train | all train  ->  no test? hold out  ->  no validation? hold out

A held-out clip is chosen by a hash of its id, which for files is the path. So adding files moves none, but in classes
so small that a side would be empty: there the clip nearest to the border changes sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .captions import id_position
from .labels_records import PARTS, Clip

HELD_OUT_SHARE = 0.1  # evaluation.md section 3


@dataclass
class Split:
    """Positions of the clips of each part, and how they came there.

    Attributes:
        parts: name -> positions, in the order of the clips; no empty ones.
        notes: what was decided, one sentence each.
        folds: numbers of the folds.
        fold: the one that is tested.
    """

    parts: dict[str, list[int]]
    notes: list[str] = field(default_factory=list)
    folds: tuple[int, ...] = ()
    fold: int | None = None


def split_clips(clips: Sequence[Clip], name: str, *, fold: int | None = None, seed: int = 0) -> Split:
    """Parts of clips without overlap.

    Folds are used if `fold` is given, or if no clip is a test clip by name: then the first of them is tested. Without
    test clips, and without validation clips, a tenth of each class of the training clips is held out.

    Args:
        clips: of one source; ids are unique.
        name: of the source, for messages.
        fold: number of the fold that is tested; the others train.
        seed: another seed holds other clips out.

    Raises:
        ValueError: for a fold that there is not, clips without a fold or a split among others that have one, or
            neither training nor test clips.
    """
    folds = tuple(sorted({clip.fold for clip in clips if clip.fold is not None}))
    _check_fold(fold, folds, name)
    has_test = any(clip.split == "test" for clip in clips)
    if folds and (fold is not None or not has_test):
        split = _by_fold(clips, folds, name, fold)
    else:
        split = Split(_by_name(clips, name), folds=folds)
    for part in ("test", "validation"):
        if "train" in split.parts and part not in split.parts:
            _hold_out_part(split, clips, part, seed)
    if "test" not in split.parts:
        raise ValueError(f"{name} has validation clips alone, got {list(split.parts)}. Give a train or a test split.")
    if "train" not in split.parts:
        split.notes.append(f"{name} has no training clips: nothing can be trained on it, only tested.")
    split.parts = {part: split.parts[part] for part in PARTS if split.parts.get(part)}
    return split


def held_out(clips: Sequence[Clip], part: str, seed: int = 0, share: float = HELD_OUT_SHARE) -> set[int]:
    """Positions of about `share` of the clips of each class, by a hash of part, seed and id.

    Every class keeps a clip on this side, and each class with two clips or more has one on the other, but where clips
    with several labels leave no room for that.
    """
    position = [id_position(f"{part} {seed} {clip.id}") for clip in clips]
    order = sorted(range(len(clips)), key=position.__getitem__)
    of_class: dict[str, list[int]] = {}
    for index in order:
        for label in clips[index].labels:
            of_class.setdefault(label, []).append(index)
    rare_first = sorted(of_class, key=lambda label: (len(of_class[label]), label))
    taken = {index for index in order if position[index] < share}
    for label in rare_first:
        if taken.issuperset(of_class[label]):
            taken.discard(of_class[label][-1])
    left = Counter(label for index in order if index not in taken for label in clips[index].labels)
    for label in rare_first:
        if taken.isdisjoint(of_class[label]):
            movable = (i for i in of_class[label] if all(left[other] > 1 for other in clips[i].labels))
            index = next(movable, None)
            if index is not None:
                taken.add(index)
                left.subtract(clips[index].labels)
    return taken


def _hold_out_part(split: Split, clips: Sequence[Clip], part: str, seed: int) -> None:
    """Moves a tenth of each class from the training part to a new one."""
    train = split.parts["train"]
    taken = held_out([clips[index] for index in train], part, seed)
    split.parts[part] = [index for place, index in enumerate(train) if place in taken]
    split.parts["train"] = [index for place, index in enumerate(train) if place not in taken]
    if taken:
        split.notes.append(
            f"No {part} split is given: {len(taken)} of {len(train)} training clips, about {HELD_OUT_SHARE:.0%} of "
            "each class and one at least, are held out by a hash of their names."
        )
    else:
        split.notes.append(f"No {part} split is given, and no class has two clips of which one could be held out.")


def _check_fold(fold: int | None, folds: tuple[int, ...], name: str) -> None:
    if fold is None or fold in folds:
        return
    if not folds:
        raise ValueError(
            f"`fold` is {fold}, but {name} has no folds. Leave it out, or name the column with `fold_column`."
        )
    raise ValueError(f"`fold` is {fold}, but {name} has the folds {list(folds)}. Choose one of them.")


def _by_fold(clips: Sequence[Clip], folds: tuple[int, ...], name: str, fold: int | None) -> Split:
    without = [clip for clip in clips if clip.fold is None]
    if without:
        raise ValueError(
            f"{len(without)} of {len(clips)} clips of {name} have no fold, first {without[0].place}. Write the fold "
            "of each clip."
        )
    if len(folds) < 2:
        raise ValueError(f"{name} has the folds {list(folds)}. Cross-validation needs two or more.")
    notes = []
    if fold is None:
        fold = folds[0]
        notes.append(f"Fold {fold} of {list(folds)} is tested, as no `fold` is given. Report the mean over all folds.")
    parts: dict[str, list[int]] = {"train": [], "test": []}
    for index, clip in enumerate(clips):
        parts["test" if clip.fold == fold else "train"].append(index)
    return Split(parts, notes, folds, fold)


def _by_name(clips: Sequence[Clip], name: str) -> dict[str, list[int]]:
    """The splits that the clips name; all clips train where none names one."""
    without = [clip for clip in clips if not clip.split]
    if len(without) == len(clips):
        return {"train": list(range(len(clips)))}
    if without:
        raise ValueError(
            f"{len(without)} of {len(clips)} clips of {name} have no split, first {without[0].place}. Write one of "
            f"{list(PARTS)} for each clip, or for none."
        )
    return {part: rows for part in PARTS if (rows := _positions(clips, part))}


def _positions(clips: Iterable[Clip], part: str) -> list[int]:
    return [index for index, clip in enumerate(clips) if clip.split == part]


__all__ = ["HELD_OUT_SHARE", "Split", "held_out", "split_clips"]

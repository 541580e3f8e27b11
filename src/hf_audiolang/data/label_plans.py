# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Plans of labelled data sets: where one lies, which columns, splits and folds it has, how it is measured.

configs/evaluate/esc50.yaml -> load_plan -> LabelPlan -> load_labelled(plan=plan)
                                                      -> load_labelled("my_copy", plan=plan)
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from .audioset import audioset_classes, audioset_names
from .labels_records import PARTS, TASKS

METRICS = {
    "classification": ("accuracy",),
    "tagging": ("mAP", "roc_auc"),
    "frames": ("PSDS1",),
    "regression": ("r2",),
}
ORDER_RULES = ("mid_sorted",)  # AudioSet's classes by class id, as in EVAR's heads
PLAN_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class LabelPlan:
    """One data set as the papers evaluate on it; every field is a key of the YAML file.

    Attributes:
        name: of the file.
        source: Hub id; None for data that only a folder of one's own has.
        revision: branch, tag or commit of the Hub id.
        audio_column, label_column, split_column, fold_column: of the Hub id; tried first in a folder's table.
        table: published table of labels, relative to the folder of the data; a metadata.csv in it is read first.
        sound_path: where the sound of a row of `table` lies, relative to the folder: `audio/fold{fold}/{filename}`.
        task: "classification" (one label), "tagging" (any number), "frames" (events) or "regression" (numbers).
        splits: train, validation, test -> name of the split of the Hub id; empty takes what there is.
        folds: number of folds of the cross-validation.
        prompts: templates with `{label}`, as `zero_shot.evaluate` takes them.
        label_names: label as the Hub id writes it, such as a number -> class name.
        captions: class name -> words that stand for it in a prompt.
        class_order: class names in the order of the label ids, or a rule in `ORDER_RULES`.
        num_classes: classes of the published data.
        unit_seconds: clips are cut or padded to this in probes and fine-tuning.
        metric: the one that papers report.
        sizes: clips of the published parts (`all` for all of them).
        subset_copy: whether the Hub id is a sub-sampled copy, on which results compare with none that are published.
    """

    name: str
    source: str | None = None
    revision: str | None = None
    audio_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    fold_column: str | None = None
    table: str | None = None
    sound_path: str | None = None
    task: str = "classification"
    splits: Mapping[str, str] = field(default_factory=dict)
    folds: int | None = None
    prompts: tuple[str, ...] = ()
    label_names: Mapping[str, str] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    class_order: tuple[str, ...] | str | None = None
    num_classes: int | None = None
    unit_seconds: float | None = None
    metric: str = "accuracy"
    sizes: Mapping[str, int] = field(default_factory=dict)
    subset_copy: bool = False

    @property
    def columns(self) -> dict[str, str]:
        """What a column holds (`audio`, `label`, `split`, `fold`) -> its name, where the plan names it."""
        kinds = ("audio", "label", "split", "fold")
        return {kind: column for kind in kinds if (column := getattr(self, f"{kind}_column")) is not None}

    def classes(self) -> list[str] | None:
        """The class names in the order of the label ids, None if the data decide."""
        if self.class_order == "mid_sorted":
            return [row.display_name for row in audioset_classes("mid")]
        return None if self.class_order is None else list(self.class_order)

    def label_name(self, label: str) -> str:
        """The class name of a label as the data have it; AudioSet's class ids become display names."""
        names = audioset_names() if self.class_order == "mid_sorted" else self.label_names
        return names.get(label, label)

    def label_text(self, label: str) -> str:
        """The words of a class in a prompt, for `zero_shot.evaluate`; by default `_` becomes a space."""
        return self.captions.get(label, label.replace("_", " "))


_TEXTS = (
    "source", "revision", "audio_column", "label_column", "split_column", "fold_column", "table", "sound_path", "task",
    "metric",
)  # fmt: skip
_KINDS = {
    **dict.fromkeys(_TEXTS, (str, "a text")),
    **dict.fromkeys(("folds", "num_classes"), (int, "a whole number")),
    **dict.fromkeys(("splits", "label_names", "captions", "sizes"), (dict, "`name: value` pairs")),
    "prompts": (list, "a list of texts"),
    "class_order": ((list, str), f"a list of names or one of {list(ORDER_RULES)}"),
    "unit_seconds": ((int, float), "a number of seconds"),
    "subset_copy": (bool, "true or false"),
}


def place_and_plan(data: str | Path, folder: str | Path | None = None) -> tuple[str | Path | None, LabelPlan | None]:
    """What a command line means by its data, as `load_labelled` takes it: (place, plan).

    Args:
        data: a place that `load_labelled` knows, or the YAML file of a plan.
        folder: where the sounds of the plan lie, in place of its Hub id.

    Raises:
        ValueError: for a folder without a plan, and as `load_plan`.
    """
    if Path(data).suffix in PLAN_SUFFIXES:
        return folder, load_plan(data)
    if folder is not None:
        raise ValueError(
            f"`data_folder` is {str(folder)!r}, but `data` {str(data)!r} is no plan (a YAML file, see "
            "configs/evaluate). Give the folder itself as `data`."
        )
    return data, None


def load_plan(path: str | Path) -> LabelPlan:
    """The plan in a YAML file.

    Raises:
        FileNotFoundError: if there is no such file; names the plans beside it.
        ValueError: for an unknown key (the nearest known one is named), a value of the wrong kind, or values that
            contradict each other.
    """
    path = Path(path)
    if not path.is_file():
        others = sorted(other.name for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise FileNotFoundError(f"There is no plan `{path}`. Give the path of a YAML file; there are {others} there.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"`{path}` is not readable as YAML ({error}). Correct it.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"`{path}` holds a {type(settings).__name__}, not `key: value` lines. See configs/evaluate.")
    for key, value in settings.items():
        _check_kind(str(key), value, path)
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    for key in {"label_names", "captions"} & set(settings):
        settings[key] = {str(label): text for label, text in settings[key].items()}
    plan = LabelPlan(name=path.stem, **settings)
    _check_values(plan, path)
    return plan


def _check_kind(key: str, value: object, path: Path) -> None:
    known = [plan_field.name for plan_field in fields(LabelPlan) if plan_field.name != "name"]
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"Unknown key {key!r} in `{path}`. Did you mean {near!r}? The keys are {known}.")
    kind, words = _KINDS[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"`{key}` in `{path}` is {value!r}. Write {words}.")


def _check_values(plan: LabelPlan, path: Path) -> None:
    """Names, numbers and keys that belong together."""
    allowed = {
        "task": (plan.task, (*TASKS, "regression")),
        "metric": (plan.metric, METRICS.get(plan.task, ())),
        "class_order": (plan.class_order if isinstance(plan.class_order, str) else None, (None, *ORDER_RULES)),
        **{f"splits.{name}": (name, PARTS) for name in plan.splits},
        **{f"sizes.{name}": (name, ("all", *PARTS)) for name in plan.sizes},
    }
    for key, (value, names) in allowed.items():
        if value not in names:
            raise ValueError(f"`{key}` in `{path}` is {value!r}. Choose one of {list(names)}.")
    texts = {f"splits.{name}": text for name, text in plan.splits.items()}
    texts |= {f"captions.{name}": text for name, text in plan.captions.items()}
    texts |= {f"label_names.{label}": text for label, text in plan.label_names.items()}
    texts |= {f"prompts.{row}": text for row, text in enumerate(plan.prompts)}
    for key, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"`{key}` in `{path}` is {text!r}. Write a text.")
    numbers = {"folds": plan.folds, "num_classes": plan.num_classes, "unit_seconds": plan.unit_seconds}
    numbers |= {f"sizes.{name}": number for name, number in plan.sizes.items()}
    for key, number in numbers.items():
        if number is not None and not (isinstance(number, int | float) and number > 0):
            raise ValueError(f"`{key}` in `{path}` is {number!r}. Write a positive number.")
    if (plan.table is None) != (plan.sound_path is None):
        raise ValueError(
            f"`{path}` has `table` {plan.table!r} and `sound_path` {plan.sound_path!r}. Write both, or none."
        )
    if plan.source is None and (plan.revision or plan.splits or plan.subset_copy):
        raise ValueError(
            f"`{path}` has no `source`, got {plan.source!r}, but a revision, splits or subset_copy, which are of a "
            "Hub id. Name it, or leave them out."
        )


__all__ = ["METRICS", "ORDER_RULES", "LabelPlan", "load_plan", "place_and_plan"]

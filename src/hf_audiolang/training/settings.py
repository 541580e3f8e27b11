# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Reading of settings: a flat YAML file plus command-line overrides into the dataclasses of a script.

YAML file ---- names, types --.
                               >-- HfArgumentParser (command line wins) -- ranges -- dataclasses
--learning_rate 5e-5 ---------'
"""

import dataclasses
import difflib
import functools
import itertools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from transformers import HfArgumentParser


def option(default: Any, text: str) -> Any:
    """A dataclass field with a help text for the command line; a list as default is copied for every instance."""
    about = {"help": text.replace("%", "%%")}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=about)
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Schema:
    """The keys that a script knows, and what they may be.

    Attributes:
        script: name of the script, for its help.
        parts: name of a group of keys -> its dataclass.
        ranges: key -> lowest and highest allowed value, both included; None: open.
        positive: keys whose value must lie above 0.
        pairs: keys that hold two numbers.
        either_or: pairs of keys of which one on the command line puts out the other one of the file.
        put_out: key -> keys of the file that it puts out when it is given on the command line.
    """

    script: str
    parts: Mapping[str, type]
    ranges: Mapping[str, tuple[float | None, float | None]]
    positive: Sequence[str] = ()
    pairs: Sequence[str] = ()
    either_or: Sequence[tuple[str, str]] = ()
    put_out: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """Type of every key."""
        return {name: hint for part in self.parts.values() for name, hint in typing.get_type_hints(part).items()}

    def defaults(self) -> dict[str, Any]:
        """The value of every key that is not set."""
        return {name: value for part in self.parts.values() for name, value in dataclasses.asdict(part()).items()}

    def read(self, arguments: Sequence[str], ignored: Sequence[str] = ()) -> tuple[dict[str, Any], set[str]]:
        """(group -> its dataclass, keys given on the command line); every value checked by itself.

        `--key none` (or null) takes a key of the file back where it need not be set; lists may also be left empty.

        Args:
            arguments: an optional YAML path first, then `--key value` overrides.
            ignored: keys of one value that are for someone else.

        Raises:
            FileNotFoundError: if the YAML file does not exist.
            ValueError: for an unknown key (the nearest known one is named), a wrong type or a value out of range.
        """
        path, overrides = _split_path(arguments)
        overrides = _without(overrides, ignored)
        settings = self._read_yaml(path, ignored) if path else {}
        overrides, unset = self._take_unset(overrides)
        settings = {name: value for name, value in settings.items() if name not in unset}
        given = {text[2:].split("=")[0].replace("-", "_") for text in overrides if text.startswith("--")}
        for pair in self.either_or:
            for name, other in (pair, pair[::-1]):
                if name in given and other not in given:
                    settings.pop(other, None)  # the command line chooses between the two
        gone = {other for name, others in self.put_out.items() if name in given for other in others}
        settings = {name: value for name, value in settings.items() if name not in gone}
        parser = _Parser(list(self.parts.values()), allow_abbrev=False, prog=f"{self.script} [CONFIG.yaml]")
        parser.set_defaults(**settings)
        *parts, unknown = parser.parse_args_into_dataclasses(
            overrides, return_remaining_strings=True, look_for_args_file=False
        )
        if unknown:
            self._refuse_unknown(unknown[0].split("=")[0], "on the command line", prefix="--")
        groups = dict(zip(self.parts, parts, strict=True))
        self._check_values(groups)
        return groups, given

    def _read_yaml(self, path: str, ignored: Sequence[str]) -> dict[str, Any]:
        """The file's keys with values converted to the fields' types; keys set to null are left out."""
        settings = {name: value for name, value in _load_yaml(path).items() if name not in ignored}
        for name in settings:
            if name not in self.hints:
                self._refuse_unknown(str(name), f"in {path!r}")
        return {
            name: _convert(name, self.hints[name], value, path)
            for name, value in settings.items()
            if value is not None
        }

    def _refuse_unknown(self, name: str, where: str, prefix: str = "") -> typing.NoReturn:
        near = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), self.hints, n=1, cutoff=0.0)
        raise ValueError(f"Unknown key `{name}` {where}. The nearest known one is `{prefix}{near[0]}`.")

    def _take_unset(self, overrides: list[str]) -> tuple[list[str], set[str]]:
        """(the command line without the keys that it takes back, these keys). Of a key given twice the last counts."""
        groups: list[list[str]] = []  # each key with its values
        for text in overrides:
            if text.startswith("--") or not groups:
                groups.append([text])
            else:
                groups[-1].append(text)
        kept, unset = [], set()
        for group in groups:
            key, *value = group[0].split("=", 1)
            name = key.removeprefix("--").replace("-", "_")
            if self._is_unset(name, [*value, *group[1:]]):
                kept = [(other, texts) for other, texts in kept if other != name]
                unset.add(name)
            else:
                kept.append((name, group))
                unset.discard(name)
        return [text for _, group in kept for text in group], unset

    def _is_unset(self, name: str, values: list[str]) -> bool:
        """Whether values of the command line take back a key that may be None, or a list that may be empty."""
        is_none = len(values) == 1 and values[0].lower() in ("none", "null")
        hint = self.hints.get(name)
        if typing.get_origin(hint) is list:
            return self.defaults()[name] == [] and (is_none or not values)
        return is_none and isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)

    def _check_values(self, groups: Mapping[str, Any]) -> None:
        settings = {name: value for group in groups.values() for name, value in dataclasses.asdict(group).items()}
        for name, value in settings.items():
            self._check_range(name, value)
            choices = typing.get_args(self.hints[name]) if typing.get_origin(self.hints[name]) is Literal else None
            if choices and value not in choices:
                raise ValueError(f"Unknown `{name}` {value!r}. Choose one of {list(choices)}.")

    def _check_range(self, name: str, value: Any) -> None:
        if value is None:
            return
        if name in self.pairs and len(value) != 2:
            raise ValueError(f"`{name}` must be two numbers, got {value}. Write it as `{name}: [first, second]`.")
        numbers = value if isinstance(value, list) else [value]
        for number in numbers:
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(
                    f"`{name}` must be a finite number, got {value}. Change it in the YAML file or as --{name}."
                )
        if name in self.positive and not value > 0:
            raise ValueError(f"`{name}` must be above 0, got {value}. Choose a positive number.")
        low, high = self.ranges.get(name, (None, None))
        for number in numbers:
            if (low is not None and not number >= low) or (high is not None and not number <= high):
                allowed = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ValueError(
                    f"`{name}` must be {allowed}, got {value}. Change it in the YAML file or as --{name}."
                )


def read_key(arguments: Sequence[str], key: str, default: str) -> str:
    """The value of one key, from the command line, else from its YAML file, else the default."""
    path, overrides = _split_path(arguments)
    values = [text.split("=", 1)[1] for text in overrides if text.startswith(f"--{key}=")]
    values += [value for name, value in itertools.pairwise(overrides) if name == f"--{key}"]
    if values:
        return values[-1]
    return str((_load_yaml(path) if path else {}).get(key) or default)


def _split_path(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """(path of the YAML file or None, overrides)."""
    has_path = bool(arguments) and not arguments[0].startswith("--")
    return (arguments[0], list(arguments[1:])) if has_path else (None, list(arguments))


def _without(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The overrides without keys of one value."""
    kept, is_value = [], False
    for text in overrides:
        name = text.removeprefix("--").split("=")[0]
        if not is_value and not (text.startswith("--") and name in keys):
            kept.append(text)
        is_value = text.startswith("--") and name in keys and "=" not in text
    return kept


def _load_yaml(path: str) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it holds something else than keys with values.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"The run's configuration {path!r} does not exist. Pass the path of a YAML file first."
        )
    settings = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path!r} holds a {type(settings).__name__}, not `key: value` lines. See configs/pretrain.")
    return settings


class RunSettings:
    """Base of the settings of a run: a dataclass of groups of keys, flat as its YAML file is."""

    schema: ClassVar[Schema]

    def to_dict(self) -> dict[str, Any]:
        """All settings as one flat dictionary, in the order of the dataclasses."""
        return {
            name: value
            for part in self.schema.parts
            for name, value in dataclasses.asdict(getattr(self, part)).items()
        }

    def save(self, path: str | Path) -> None:
        """Writes the resolved settings as a YAML file that reads back to equal values."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        settings = {name: value for name, value in self.to_dict().items() if value is not None}
        Path(path).write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")


class _Parser(HfArgumentParser):
    """HfArgumentParser that raises instead of leaving the process."""

    def error(self, message: str) -> typing.NoReturn:
        raise ValueError(f"The command line cannot be read: {message}. Run the script with --help to see every key.")


def _convert(name: str, hint: Any, value: Any, path: str) -> Any:
    """`value` as the field's type; YAML 1.1 reads 1e-4 as text, so text is accepted where it spells the number."""
    if isinstance(hint, types.UnionType):
        hint = next(argument for argument in typing.get_args(hint) if argument is not type(None))
    if typing.get_origin(hint) is list:
        values = value if isinstance(value, list) else [value]
        return [_convert_scalar(name, item, typing.get_args(hint)[0], path) for item in values]
    if typing.get_origin(hint) is Literal:
        return value  # the choices are checked with those of the command line
    return _convert_scalar(name, value, hint, path)


def _convert_scalar(name: str, value: Any, kind: type, path: str) -> Any:
    numeric_text = isinstance(value, str) and kind in (int, float)
    whole = kind is int and isinstance(value, float) and value.is_integer()
    if type(value) is kind or numeric_text or whole or (kind is float and type(value) is int):
        try:
            return kind(value)
        except ValueError:
            pass
    raise ValueError(f"`{name}` in {path!r} must be of type {kind.__name__}, got {value!r}. Correct the file.")


__all__ = ["RunSettings", "Schema", "option", "read_key"]

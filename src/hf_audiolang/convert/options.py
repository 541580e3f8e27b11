# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a user may tell a converter: typed fields that may come as texts of a command line."""

import re
from dataclasses import dataclass, fields
from types import UnionType
from typing import Literal, Self, Union, get_args, get_origin

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class ConverterOptions:
    """Overrides of a converter; its subclasses have the fields: bools, positive whole numbers, texts, or choices."""

    @classmethod
    def from_overrides(cls, overrides: dict[str, object]) -> Self:
        """Options from keyword arguments, whose values may be texts of a command line.

        Raises:
            ValueError: for an unknown name or a value of the wrong kind.
        """
        kinds = {field.name: field.type for field in fields(cls)}
        unknown = sorted(set(overrides) - set(kinds))
        if unknown:
            raise ValueError(f"Unknown override {unknown[0]!r}. Choose one of {sorted(kinds)}.")
        return cls(**{name: _typed(name, value, kinds[name]) for name, value in overrides.items()})


def _typed(name: str, value: object, kind: object) -> object:
    if kind is bool:
        if isinstance(value, bool) or str(value).lower() in TRUE + FALSE:
            return str(value).lower() in TRUE
        raise ValueError(f"`{name}` must be true or false, got {value!r}.")
    if value is None:
        return None
    if kind == (int | None):
        if isinstance(value, bool) or not re.fullmatch(r"[1-9]\d*", str(value)):
            raise ValueError(f"`{name}` must be a positive whole number, got {value!r}.")
        return int(value)
    choices = _choices(kind)
    if choices and value not in choices:
        raise ValueError(f"Unknown `{name}` {value!r}. Choose one of {sorted(choices)}.")
    return str(value)


def _choices(kind: object) -> tuple[str, ...]:
    """The texts that a field of this type may have; empty for any text."""
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(choice for part in parts if get_origin(part) is Literal for choice in get_args(part))


__all__ = ["ConverterOptions"]

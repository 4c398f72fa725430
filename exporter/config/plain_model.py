"""Frozen dataclasses <-> JSON values, with the names that pydantic's models have for it."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints


class PlainModel:
    """The base of dataclasses whose fields are numbers, texts, paths, None, other such dataclasses, and lists and
    mappings of these."""

    __slots__ = ()

    @classmethod
    def model_validate(cls, document: Mapping[str, Any]) -> Self:
        """The model of JSON values, or of models within them. ValueError for what is not of the field's type, for a key
        that there is not, and for one that is missing."""
        known = _types(cls)
        if unknown := sorted(document.keys() - known.keys()):
            raise ValueError(f"{cls.__name__}: no field {', '.join(unknown)}")
        values = {name: _value(known[name], value, f"{cls.__name__}.{name}") for name, value in document.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error

    def model_dump(self, mode: Literal["json"] = "json") -> dict[str, Any]:  # noqa: ARG002 (as pydantic's is called)
        """JSON values of which `model_validate` makes an equal model."""
        return {name: _plain(getattr(self, name)) for name in _types(type(self))}

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same with other values in some fields."""
        return replace(self, **update)  # type: ignore[type-var]


_TYPES: dict[type, dict[str, Any]] = {}


def _types(model: Any) -> dict[str, Any]:
    """Fields of a dataclass and their types."""
    if model not in _TYPES:
        hints = get_type_hints(model)
        _TYPES[model] = {each.name: hints[each.name] for each in fields(model)}
    return _TYPES[model]


def _plain(value: Any) -> Any:
    if isinstance(value, PlainModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _value(wanted: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is Literal:
        return _checked(value in arguments, value, where)
    if origin is list:
        _checked(isinstance(value, list | tuple), value, where)
        return [_value(arguments[0], inner, where) for inner in value]
    if origin is dict:
        _checked(isinstance(value, Mapping), value, where)
        return {key: _value(arguments[1], inner, where) for key, inner in value.items()}
    if wanted is Any or wanted is None or wanted is type(None):
        return _checked(wanted is Any or value is None, value, where)
    if wanted is Path:
        _checked(isinstance(value, str | Path), value, where)
        return Path(value)
    if issubclass(wanted, PlainModel) and isinstance(value, Mapping):
        return wanted.model_validate(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _checked(isinstance(value, wanted) and (wanted is bool) >= isinstance(value, bool), value, where)


def _one_of(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    for choice in choices:
        try:
            return _value(choice, value, where)
        except ValueError:
            continue
    return _checked(False, value, where)


def _checked(fits: bool, value: Any, where: str) -> Any:
    if not fits:
        raise ValueError(f"{where}: {value!r} is of another type")
    return value

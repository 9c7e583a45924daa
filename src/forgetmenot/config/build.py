"""build(): the one way from config to objects.

It checks names, types and values, and says what is wrong in one sentence.
"""

import importlib
import inspect
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError, did_you_mean

T = TypeVar("T")

_LISTED = 15  # more keys than this are not listed in a sentence

_GIVEN = {"params", "optimizer"}  # arguments that the run itself passes on

_ROOMS = ("forgetmenot", "torch", "lightning")
"""Packages whose classes `_target_` may name; a user's own are listed under `plugins`."""


def build(node: DictConfig, base: type[T], *, key: str, plugins: Sequence[str] = ()) -> T:
    """Returns the dataclass that `node` describes: `base`, or the subclass of it that `_target_` names."""
    values = plain(node, key=key)
    target = _target(values.pop("_target_", None), base=base, key=key, plugins=plugins)
    assert is_dataclass(target)
    hints = get_type_hints(target)
    _refuse_unknown(values, [f.name for f in fields(target)], key=key)
    needed = [f.name for f in fields(target) if f.default is MISSING and f.default_factory is MISSING]
    _refuse_missing(values, needed, key=key)
    typed = {name: _typed(value, hints[name], key=_join(key, name)) for name, value in values.items()}
    try:
        return target(**typed)
    except ValueError as error:
        raise ConfigError(f"{_join(key, str(error))}") from error


def build_partial(
    node: DictConfig,
    base: type[T],
    *,
    key: str,
    ours: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> partial[T]:
    """Returns the class of torch or Lightning that `node` names, holding its settings and waiting for the rest.

    Settings are checked against the class's own argument names; those in `ours` are read elsewhere.
    """
    values = plain(node, key=key)
    target = _target(values.pop("_target_", None), base=base, key=key, plugins=plugins)
    taken = inspect.signature(target).parameters.values()
    if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in taken):  # else it takes any name
        known = {parameter.name for parameter in taken} - _GIVEN | set(ours)
        _refuse_unknown(values, sorted(known), key=key)
    return partial(target, **{name: value for name, value in values.items() if name not in ours})


def import_plugins(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the user's own modules, imported; raises ConfigError for one that cannot be."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"plugins must be modules that can be imported, got {name} ({error})") from error
    return names


def plain(node: DictConfig | Mapping[str, object], *, key: str) -> dict[str, Any]:
    """Returns the node as a plain dict with interpolations resolved; a value that has to be given must be there."""
    config = node if isinstance(node, DictConfig) else OmegaConf.create(dict(node))
    _refuse_missing([str(name) for name in config if not OmegaConf.is_missing(config, name)], list(config), key=key)
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def _target(path: str | None, *, base: type[T], key: str, plugins: Sequence[str]) -> type[T]:
    if path is None and not inspect.isabstract(base):
        return base
    module, _, name = str(path).rpartition(".")
    rooms = (*_ROOMS, *plugins)
    if module.split(".")[0] not in rooms and module not in rooms:
        raise ConfigError(
            f"{key}._target_ must be a class of {', '.join(rooms)}, got {path}; list your own module under plugins"
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}._target_ must be a class that can be imported, got {path} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, base) and not inspect.isabstract(found)):
        raise ConfigError(f"{key}._target_ must be a subclass of {base.__module__}.{base.__qualname__}, got {path}")
    return found


def _refuse_unknown(values: Mapping[str, object], known: Sequence[str], *, key: str) -> None:
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known, prefix=f"{key}." if key else "")
            place = f"of {key}" if key else "of the run"
            listed = f" ({', '.join(sorted(known))})" if len(known) <= _LISTED else ""
            raise ConfigError(f"{_join(key, name)} must be a key {place}{listed}, got {name}{hint}")


def _refuse_missing(given: Collection[str], needed: Sequence[str], *, key: str) -> None:
    for name in needed:
        if name not in given:
            raise ConfigError(f"{_join(key, name)} must be given, got nothing; add {_join(key, name)}=VALUE")


def _typed(value: object, hint: Any, *, key: str) -> object:
    """Returns `value` as `hint` says; whole numbers become floats and lists tuples where asked for."""
    for option in _options(hint):
        fits, converted = _fit(value, option, key=key)
        if fits:
            return converted
    raise ConfigError(f"{key} must be {' or '.join(_rule(option) for option in _options(hint))}, got {_shown(value)}")


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fit(value: object, hint: Any, *, key: str) -> tuple[bool, object]:
    if get_origin(hint) is Literal:
        return value in get_args(hint), value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            return False, value
        item = get_args(hint)[0]
        return True, tuple(_typed(v, item, key=f"{key}[{i}]") for i, v in enumerate(value))
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False, value
        return True, float(str(value))  # a whole number past all floats is infinite, as 1e400 is
    if hint is type(None):
        return value is None, value
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool)), value


def _rule(hint: Any) -> str:
    if get_origin(hint) is Literal:
        words = [str(word) for word in get_args(hint)]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if get_origin(hint) is tuple:
        return "a list"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    return names[hint]


def _shown(value: object) -> str:
    return "null" if value is None else str(value) or "nothing"


def _join(key: str, rest: str) -> str:
    return f"{key}.{rest}" if key else rest

"""The rows of the table, and which files are a row's own: a method's YAMLs and the modules that they name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import yaml

from forgetmenot.config.paths import choices, conf_folder

_SOURCE = Path(__file__).resolve().parents[1] / "src"
_ROOMS = ("forgetmenot.method", "forgetmenot.regularizer")
_CONTRACTS = tuple(f"{room}.base" for room in _ROOMS)
"""What every component has: code.py counts it to what all cells rest on."""


_WORKS_IN = {"forgetmenot.method.shots": ("forgetmenot.data.shots",)}
"""Where the work of a method is done, if that is in another room."""


def rows() -> list[str]:
    """Returns the methods, and the presets of them."""
    return choices("method")


def own_files(group: str, choice: str) -> list[Path]:
    """Returns the YAML of a choice and those that it is composed of, and the modules of what they name."""
    yamls = list(dict.fromkeys(_composed(conf_folder() / group / f"{choice}.yaml")))
    targets = [yaml.safe_load(file.read_text(encoding="utf-8")).get("_target_") for file in yamls]
    modules: dict[str, Path] = {}
    for target in filter(None, targets):
        _add_module(target.rpartition(".")[0], modules)
    return [*yamls, *(modules[name] for name in sorted(modules))]


def _composed(file: Path) -> Iterator[Path]:
    yield file
    for entry in yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", ()):
        group, choice = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if choice != "_self_":
            group, choice = group.removeprefix("override ").partition("@")[0], choice.partition("@")[0]
            path = f"{group}/{choice}" if group else choice
            top = conf_folder() if path.startswith("/") else file.parent
            yield from _composed(top / f"{path.lstrip('/')}.yaml")


def _add_module(name: str, found: dict[str, Path]) -> None:
    """Adds a module and those of the rooms that it imports, whatever it imports them for."""
    file = _file(name)
    if name in found or name in _CONTRACTS or not name.startswith(_ROOMS) or not file.is_file():
        return
    found[name] = file
    found |= {other: _file(other) for other in _WORKS_IN.get(name, ())}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            _add_module(node.module, found)


def _file(module: str) -> Path:
    return _SOURCE / f"{module.replace('.', '/')}.py"

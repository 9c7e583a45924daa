"""The rows of the table, and which files are a row's own: when one of them changed, the row is probed again."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

import yaml

from forgetmenot.config.paths import choices, conf_folder

_SOURCE = Path(__file__).resolve().parents[1] / "src"
_ROOMS = ("forgetmenot.method", "forgetmenot.regularizer")
_CONTRACTS = tuple(f"{room}.base" for room in _ROOMS)
"""What every row has: a change there is a change of none and of all."""


def rows() -> list[str]:
    """Returns the methods, and the presets of them."""
    return choices("method")


def code(method: str) -> str:
    """Returns a hash of the row's own files, by name and content."""
    digest = hashlib.sha256()
    for file in own_files(method):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def own_files(method: str) -> list[Path]:
    """Returns a method's YAML and those that it is composed of, and the modules of what they name."""
    yamls = list(dict.fromkeys(_composed(conf_folder() / "method" / f"{method}.yaml")))
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
    file = _SOURCE / f"{name.replace('.', '/')}.py"
    if name in found or name in _CONTRACTS or not name.startswith(_ROOMS) or not file.is_file():
        return
    found[name] = file
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            _add_module(node.module, found)

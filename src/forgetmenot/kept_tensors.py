"""Keeps tensors that took long to make, under a key of all that they depend on, so that they are made once.

A folder of them takes a bounded place: what was used longest ago goes.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from forgetmenot.cache_room import UNFINISHED, make_room, mark_used
from forgetmenot.regularizer.base import Tensors

_DISK_ERRORS = (OSError, SafetensorError)
_SUFFIX = ".safetensors"


def made_once(folder: Path, facts: Mapping[str, object], *, make: Callable[[], Tensors]) -> tuple[Tensors, bool]:
    """Returns what `make` made of `facts`, now or earlier, and whether it was earlier; new tensors are kept whole.

    Where the folder then takes more than 16 GiB, what was used longest ago is removed; the newest stays, however large.
    """
    file = folder / f"{_key(facts)}{_SUFFIX}"
    try:
        found = load_file(file)
    except _DISK_ERRORS:
        made = make()
    else:
        mark_used(file)
        return found, True
    try:
        _write(file, made)
        make_room(folder, newest=file)
    except _DISK_ERRORS as error:
        warnings.warn(f"{folder.name} cannot be kept in {folder}, so each run makes it anew ({error})", stacklevel=2)
    return made, False


def _key(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _write(file: Path, tensors: Tensors) -> None:
    """Writes to a neighbour and renames it, so that no reader ever sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(dir=file.parent, prefix=f"{UNFINISHED}{file.name}.")
    os.close(handle)
    unfinished = Path(path)
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished)
        unfinished.chmod(0o644)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)

"""Keeps encoded rows on disk under a key of what they were made of, so that they are made once."""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from forgetmenot.cache_room import UNFINISHED, make_room, mark_used, run_began
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.data.types import Example

_FORMAT = 1  # of the files below; another number makes every key another one
_ARRAYS = ("tokens", "prompt_lengths", "completion_lengths", "example_indices")
_FACTS = "split.json"


def key_of(examples: Sequence[Example], settings: Mapping[str, object]) -> str:
    """Returns a name for what `settings` make of `examples`: another text or setting gives another name."""
    digest = hashlib.sha256(json.dumps({"format": _FORMAT, **settings}, sort_keys=True).encode())
    for example in examples:
        digest.update(f"{len(example.prompt)} {len(example.completion)} ".encode())
        digest.update((example.prompt + example.completion).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def encoded_once(folder: Path, key: str, make: Callable[[], EncodedSplit]) -> EncodedSplit:
    """Returns what lies in `folder` under `key`, memory-mapped, or makes it and puts it there whole.

    Where the folder then takes more than 16 GiB, what was used longest ago, and not by this run, is removed.
    """
    place = folder / key
    found = _read(place)
    if found is not None:
        return found
    made = make()
    try:
        _write(made, place)
        make_room(folder, newest=place, in_use_since=run_began())
    except OSError as error:
        warnings.warn(f"encoded rows cannot be kept in {folder}, so each run encodes anew ({error})", stacklevel=2)
        return made
    return _read(place) or made


def _read(place: Path) -> EncodedSplit | None:
    """Returns a split from disk; one that is damaged counts as none, and is put out of the way."""
    if not place.is_dir():
        return None
    mark_used(place)
    try:
        facts = json.loads((place / _FACTS).read_text(encoding="utf-8"))
        arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        sizes = {name: len(array) for name, array in arrays.items()}
        if sizes != facts["sizes"]:
            raise ValueError("files of other sizes")
    except (OSError, ValueError, KeyError, EOFError):
        shutil.rmtree(place, ignore_errors=True)
        return None
    indices = arrays.pop("example_indices")
    rows = Rows(**arrays, is_encoder_decoder=facts["is_encoder_decoder"])
    return EncodedSplit(rows=rows, example_indices=indices, truncated=facts["truncated"], dropped=facts["dropped"])


def _write(split: EncodedSplit, place: Path) -> None:
    """Writes all files into a folder of another name, which then gets its own: it is there whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    rows = split.rows
    arrays = dict(
        zip(_ARRAYS, (rows.tokens, rows.prompt_lengths, rows.completion_lengths, split.example_indices), strict=True)
    )
    facts = {
        "sizes": {name: len(array) for name, array in arrays.items()},
        "is_encoder_decoder": rows.is_encoder_decoder,
        "truncated": split.truncated,
        "dropped": split.dropped,
    }
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place.parent))
    try:
        for name, array in arrays.items():
            with (unfinished / f"{name}.npy").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
        (unfinished / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        try:
            unfinished.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

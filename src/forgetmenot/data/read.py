"""Reads a data set, a folder, a file or a hub id, into records that know their file and line.

jsonl and csv are read here, line by line, so that an error can name the line; parquet goes through pyarrow and the hub
through `datasets`.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forgetmenot.data.types import Record

if TYPE_CHECKING:
    from datasets import Dataset

Splits = dict[str, list[Record]]

_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON writes it
_SURROGATE_CHARACTER = re.compile("[\ud800-\udfff]")
_LONGEST_FIELD = 2**31 - 1  # characters of a csv field: a whole book fits
_HELD_OUT = 0.1  # share of the rows that validation, and test, take where a data set has no such split


def read(path: str, *, seed: int) -> Splits:
    """Returns the train, validation and test records at `path`; splits that are missing are taken from train, seeded.

    Raises ValueError naming file, line and the way out.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        splits = {name: _read_file(file) for name, file in _split_files(place).items()}
    elif place.is_file():
        splits = {"train": _read_file(place)}
    elif _looks_local(path):
        raise ValueError(f"data.path must be an existing file or folder, or a hub id, got {path}")
    else:
        splits = _read_hub(path)
    return _with_held_out(splits, path=path, seed=seed)


def _looks_local(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).suffix in _READERS


def _split_files(folder: Path) -> dict[str, Path]:
    found = {}
    for split, names in _SPLIT_NAMES.items():
        files = [folder / f"{name}{suffix}" for name in names for suffix in _READERS]
        there = [file for file in files if file.is_file()]
        if len(there) > 1:
            raise ValueError(f"{folder}: the {split} split must be one file, got {', '.join(f.name for f in there)}")
        if there:
            found[split] = there[0]
    if not found:
        raise ValueError(
            f"{folder} must hold train, validation and test files ({', '.join(_READERS)}), got none of them"
        )
    return found


def _read_file(file: Path) -> list[Record]:
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file} must be one of {', '.join(_READERS)}, got {file.suffix or 'no ending'}")
    try:
        records = list(reader(file))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{file} line {line}: must be UTF-8 text, got byte 0x{error.object[error.start]:02x}; "
            f"save the file as UTF-8"
        ) from error
    if not records:
        raise ValueError(f"{file} must hold at least one record, got an empty file")
    return records


def _read_text(file: Path) -> str:
    """Returns the file as text without a byte order mark; decoded whole, so that a wrong byte's line is known."""
    return file.read_bytes().decode("utf-8").removeprefix("\ufeff")


def _read_jsonl(file: Path) -> Iterator[Record]:
    text = _read_text(file)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            told = error.msg if isinstance(error, json.JSONDecodeError) else str(error).partition(";")[0]
            raise ValueError(f"{file} line {number}: must be one JSON object, got broken JSON ({told})") from error
        if not isinstance(values, dict):
            raise ValueError(f"{file} line {number}: must be one JSON object, got {type(values).__name__}")
        if _SURROGATE.search(line) and _SURROGATE_CHARACTER.search(json.dumps(values, ensure_ascii=False)):
            raise ValueError(f"{file} line {number}: must be whole characters, got half of a surrogate pair")
        yield Record(values=values, file=str(file), line=number)


def _read_csv(file: Path) -> Iterator[Record]:
    text = _read_text(file)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{file} line {line}: must be text, got a zero byte; is this a csv file?")
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        twice = [name for name, count in Counter(rows.fieldnames or []).items() if count > 1]
        if twice:
            raise ValueError(f"{file} line 1: must name each column once, got {twice[0]!r} twice")
        for values in rows:
            if None in values or None in values.values():
                raise ValueError(
                    f"{file} line {rows.line_num}: must have {len(rows.fieldnames or [])} fields like the header"
                )
            yield Record(values=dict(values), file=str(file), line=rows.line_num)
    except csv.Error as error:
        raise ValueError(f"{file} line {rows.reader.line_num}: must be csv, got {error}") from error


def _read_parquet(file: Path) -> Iterator[Record]:
    import datasets
    import pyarrow
    import pyarrow.parquet

    try:
        rows = datasets.Dataset(pyarrow.parquet.read_table(file))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} must be a parquet file, got something else ({str(error).splitlines()[0]})") from error
    yield from _hub_records(rows, place=str(file))


def _read_hub(path: str) -> Splits:
    import datasets

    try:
        loaded = datasets.load_dataset(path)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"data.path must be an existing file or folder, or a hub id that can be reached, got {path} "
            f"({str(error).splitlines()[0]})"
        ) from error
    names = {split: next((n for n in names if n in loaded), None) for split, names in _SPLIT_NAMES.items()}
    return {
        split: _hub_records(loaded[name], place=f"{path} {name}")
        for split, name in names.items()
        if name and not _hides_labels(loaded[name])
    }


def _hides_labels(rows: "Dataset") -> bool:
    """Tells whether a split is published without its labels, all of them -1: it is then as if it were not there."""
    from datasets import ClassLabel

    return any(isinstance(feature, ClassLabel) and set(rows[name]) == {-1} for name, feature in rows.features.items())


def _hub_records(rows: "Dataset", *, place: str) -> list[Record]:
    from datasets import ClassLabel

    labels = {name: feature for name, feature in rows.features.items() if isinstance(feature, ClassLabel)}
    records = []
    for number, values in enumerate(rows, start=1):
        for name, feature in labels.items():
            if values[name] == -1:
                raise ValueError(
                    f"{place} line {number}: column {name!r} must have a label, got -1 (a split without labels)"
                )
            values[name] = feature.int2str(values[name])
        records.append(Record(values=values, file=place, line=number))
    return records


def _with_held_out(splits: Splits, *, path: str, seed: int) -> Splits:
    """Takes the splits that are missing from train: 10% each, drawn by `seed`, in file order."""
    if "train" not in splits:
        return {"train": [], "validation": [], "test": [], **splits}
    missing = [name for name in ("validation", "test") if name not in splits]
    records = splits["train"]
    order = np.random.default_rng(seed).permutation(len(records))
    size = max(1, round(_HELD_OUT * len(records)))
    if missing and len(records) <= size * len(missing):
        raise ValueError(f"{path} must hold at least {len(missing) + 1} records to split, got {len(records)}")
    for name in missing:
        splits[name] = [records[i] for i in sorted(order[:size])]
        order = order[size:]
    return splits | {"train": [records[i] for i in sorted(order)]}


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}

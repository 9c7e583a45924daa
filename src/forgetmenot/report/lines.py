"""Lines of JSON that a run left, of which a killed run or a full disk may have cut off the last."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypedDict, cast

from forgetmenot.report.runs import Group

_TAIL = 2**16  # bytes that are looked at first for a file's last line: most are shorter


class Prediction(TypedDict):
    """What was answered to one prompt; `after` is None where there is one model alone."""

    prompt: str
    references: list[str]
    before: str
    after: str | None


def read_predictions(file: Path) -> Iterator[Prediction]:
    """Yields what was answered, in file order; raises ValueError where a line is damaged that is not the last."""
    return cast(Iterator[Prediction], _at_once(file) or _lines(file))


def first_predictions(file: Path, count: int) -> list[Prediction]:
    """Returns the first of what was answered; what follows is not read."""
    return list(islice(cast(Iterator[Prediction], _lines(file)), count))


def read_metrics(file: Path, *, holding: str) -> Iterator[dict[str, float | None]]:
    """Yields the logged steps that have the metric `holding`; raises ValueError as for predictions."""
    return cast(Iterator[dict[str, float | None]], _lines(file, holding=f'"{holding}"'))


def _at_once(file: Path) -> Iterator[dict[str, object]] | None:
    """Returns the objects of a file, read as one list in a third of the time; None where a line holds none."""
    lines = file.read_bytes().rstrip(b"\n").split(b"\n")
    try:
        values = json.loads(b"[" + b",".join(lines) + b"]")
    except ValueError:
        return None
    return iter(values) if len(values) == len(lines) and all(isinstance(value, dict) for value in values) else None


def _lines(file: Path, *, holding: str = "") -> Iterator[dict[str, object]]:
    """Yields the objects of the lines that hold some text, but for a last one that was cut off."""
    wanted, damaged = holding.encode(), None
    with file.open("rb") as lines:  # bytes: texts hold other separators of lines, and a cut may fall within a letter
        for number, line in enumerate(lines, start=1):
            if damaged is not None:
                raise ValueError(f"{file} must hold an object of JSON on every line, got none on line {damaged}")
            if wanted in line:
                values = _parsed(line)
                if values is not None:
                    yield values
                else:
                    damaged = number


def cut_files(groups: Iterable[Group]) -> list[str]:
    """Returns a sentence for every file of some runs whose last line was cut off."""
    folders = [run.folder for group in groups for run in group.runs]
    files = [
        file for folder in folders for file in (folder / "metrics.jsonl", *sorted(folder.glob("predictions/*.jsonl")))
    ]
    return [
        f"{file} must hold an object of JSON on every line, got line {_count(file)} cut off: it is left out"
        for file in files
        if file.is_file() and _parsed(_last_line(file)) is None
    ]


def _last_line(file: Path) -> bytes:
    """Returns the last line of a file; of one without any an empty object."""
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        for length in (_TAIL, size):
            stream.seek(max(0, size - length))
            *before, last = stream.read().rstrip(b"\n").rsplit(b"\n", 1)
            if before or length >= size:
                return last or b"{}"
    raise AssertionError("the whole file was looked at")


def _parsed(line: bytes) -> dict[str, object] | None:
    """Returns the object on a line; None where it holds none."""
    try:
        values = json.loads(line)
    except ValueError:  # of JSON, and of bytes that are no text
        return None
    return values if isinstance(values, dict) else None


def _count(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for _ in lines)

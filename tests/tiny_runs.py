"""Whole runs in this process: how a command ended, what it printed, and the folder that it left behind."""

import contextlib
import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

from forgetmenot.cli.main import run_command


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a command ended: exit code, what it printed, and the folder it ran in."""

    code: int
    stdout: str
    stderr: str
    place: Path

    @property
    def folders(self) -> list[Path]:
        """The folders of evaluations, runs and sweep members, in order of their start or number."""
        found = {kind: sorted(self.place.glob(f"outputs/{kind}/")) for kind in ("evaluations/*/*", "sweeps/*/*/*")}
        runs = sorted(self.place.glob("outputs/runs/*/*/"), key=_started)
        return [*found["evaluations/*/*"], *runs, *found["sweeps/*/*/*"]]

    @property
    def folder(self) -> Path:
        """The one run's folder."""
        (only,) = self.folders
        return only

    @property
    def sentence(self) -> str:
        """The one line on stderr."""
        lines = self.stderr.strip().splitlines()
        assert len(lines) == 1, f"stderr must be one sentence, got {self.stderr!r}"
        return lines[0]


def _started(run: Path) -> tuple[str, str]:
    """Returns when a run was started, as far as its record says: names of one second say nothing of their order."""
    file = run / "result.json"
    found = re.search(r'"started": "([^"]*)"', file.read_text(errors="replace")) if file.exists() else None
    return found[1] if found else "", run.name


Train = Callable[..., Finished]

SCORED = (
    "tasks", "gain", "gain_ci", "gain_mean", "gain_mean_ci", "forgetting", "forgetting_ci", "drift", "model",
)  # fmt: skip
"""What of a run's result an evaluation of it repeats, whatever its method."""


def read_lines(file: Path) -> list[dict[str, object]]:
    """Returns the objects of a jsonl file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_result(folder: Path) -> dict[str, object]:
    """Returns a run's result.json, in which NaN and Infinity are errors."""

    def refuse(name: str) -> float:
        raise AssertionError(f"result.json must be JSON, got {name}")

    return json.loads((folder / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)


def finish(arguments: list[str], place: Path, *, command: str = "train") -> Finished:
    """Runs a command in `place` and leaves Hydra, logging and argv as they were."""
    out, err = io.StringIO(), io.StringIO()
    argv, code = sys.argv, 0
    with contextlib.chdir(place), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), logging_kept():
        try:
            sys.argv = ["forgetmenot", command, *arguments]
            run_command(command, arguments=arguments)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        finally:
            sys.argv = argv
            GlobalHydra.instance().clear()
    return Finished(code=code, stdout=out.getvalue(), stderr=err.getvalue(), place=place)


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """A run sends all logging to its run.log; the next test gets it as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with warnings.catch_warnings():
        try:
            yield
        finally:
            logging.captureWarnings(False)
            for handler in set(root.handlers) - set(handlers):
                handler.close()
            root.handlers[:] = handlers
            root.setLevel(level)

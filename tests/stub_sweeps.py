"""Sweeps in this process whose members are a stub, which the fixture `stub_members` puts there, and how they ended."""

import json
from pathlib import Path

from forgetmenot.config.app import Story, run_app
from forgetmenot.result import RunResult

STUB = Path(__file__).with_name("stub_member.py")


def no_story() -> Story:
    """Stands for what a sweep's own process must not load."""
    raise AssertionError("a member is a process of its own")


def sweep(*words: str, code: int = 0, **actions: str) -> list[Path]:
    """Runs a sweep whose members end as `actions` say by their seeds; returns the folders of all members."""
    Path("actions.json").write_text(json.dumps({name.removeprefix("seed_"): what for name, what in actions.items()}))
    try:
        run_app(no_story, config_name="train", arguments=["-m", "logger=none", *words])
        ended = 0
    except SystemExit as exit_:
        assert isinstance(exit_.code, int)
        ended = exit_.code
    assert ended == code
    return sorted(Path("outputs/sweeps").glob("*/*/*_*"))


def started() -> list[str]:
    """Returns the seeds of the members that were started, in that order."""
    file = Path("started.txt")
    return file.read_text().split() if file.is_file() else []


def statuses(folders: list[Path]) -> list[str]:
    """Returns how members ended."""
    return [RunResult.read(folder).status for folder in folders]

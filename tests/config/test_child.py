"""Commands that a command starts: members of a sweep and stages of a sequence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PARENT = """
import os, subprocess, sys
from pathlib import Path
from forgetmenot.config.child import own_environment, run_child
asks = [sys.executable, "-m", "asks"]
sys.exit(run_child(asks, environment=own_environment(os.environ), place=Path.cwd(), stopped=lambda: False))
"""


@pytest.mark.parametrize("safe", [False, True])
def test_a_command_that_is_started_imports_what_this_one_does_and_nothing_from_the_working_folder(
    tmp_path: Path, safe: bool
) -> None:
    """By `python SCRIPT`, which imports from the script's folder, as train.py beside a user's module does."""
    for name in ("scripts", "installed", "working"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "who.py").write_text(f"print({name!r})")
    (tmp_path / "scripts" / "parent.py").write_text(PARENT)
    (tmp_path / "installed" / "asks.py").write_text("import who")
    paths = (str(tmp_path / "installed"), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, *(["-P"] if safe else []), str(tmp_path / "scripts" / "parent.py")],
        cwd=tmp_path / "working", env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("installed\n" if safe else "scripts\n")

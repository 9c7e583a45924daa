"""A stub of Slurm, whose commands are found first."""

import os
import sys
from pathlib import Path

import pytest

STUB = Path(__file__).resolve().parents[1] / "stub_slurm.py"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the stub keeps what it was asked."""
    commands, place = tmp_path / "commands", tmp_path / "cluster"
    commands.mkdir()
    place.mkdir()
    for name in ("sbatch", "squeue", "srun", "scancel", "scontrol"):
        (commands / name).write_text(f"#!{sys.executable} -S\n{STUB.read_text()}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB_SLURM", str(place))
    return place

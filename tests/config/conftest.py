"""Stubs: of Slurm, whose commands are found first, and of the members of sweeps."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from stub_sweeps import STUB
from tiny_runs import logging_kept

import forgetmenot.config.sweep

SLURM = Path(__file__).resolve().parents[1] / "stub_slurm.py"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the stub keeps what it was asked."""
    commands, place = tmp_path / "commands", tmp_path / "cluster"
    commands.mkdir()
    place.mkdir()
    for name in ("sbatch", "squeue", "srun", "scancel", "scontrol"):
        (commands / name).write_text(f"#!{sys.executable} -S\n{SLURM.read_text()}")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB_SLURM", str(place))
    return place


@pytest.fixture
def stub_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has sweeps in this process start the stub as their members, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", os.environ.get("HYDRA_FULL_ERROR", ""))
    monkeypatch.setattr(forgetmenot.config.sweep, "PROGRAM", (sys.executable, str(STUB)))
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    with logging_kept():
        yield
    signal.signal(signal.SIGINT, ctrl_c)
    GlobalHydra.instance().clear()

"""A signal that comes while a run, or an evaluation, scores: it is recorded as interrupted, on however many ranks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import finish, read_result

from forgetmenot.module import AdaptationModule

SLOW_SCORING = """
import time
from pathlib import Path

from forgetmenot.module import AdaptationModule

def scoring(self, batch, index, score=AdaptationModule.test_step):
    Path(f"scoring_{self.global_rank}").touch()
    time.sleep(60.0 * (self.global_rank == 0))
    return score(self, batch, index)

AdaptationModule.test_step = scoring
"""
"""A user's module: rank 0 takes a minute for a batch, and the others soon wait for it in a collective."""

Arguments = Callable[[str], list[str]]


@pytest.fixture
def arguments(tiny_arguments: list[str], tiny_model: Path) -> Arguments:
    """Returns a command's words, which score the tiny model."""
    unknown = ("model.path=", "logger=", "precision=", "epochs=", "batch_size=", "model=")
    evaluation = [f"run={tiny_model}", *(word for word in tiny_arguments if not word.startswith(unknown))]
    return lambda command: evaluation if command == "evaluate" else tiny_arguments


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_interrupts_scoring(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, command: str, number: signal.Signals
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))  # else the base's scores may be known
    monkeypatch.setattr(AdaptationModule, "test_step", lambda *_: os.kill(os.getpid(), number))
    ended = finish([*arguments(command), "hydra.run.dir=run"], tmp_path, command=command)
    assert (ended.code, read_result(tmp_path / "run")["status"]) == (128 + number, "interrupted")
    assert ended.stderr.splitlines()[-1] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_sigterm_interrupts_ranks_that_score(tmp_path: Path, arguments: Arguments, command: str) -> None:
    (tmp_path / "slow_scoring.py").write_text(SLOW_SCORING)
    ranks = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    process = subprocess.Popen(
        [sys.executable, "-m", "forgetmenot.cli.main", command, *arguments(command), *ranks, "hydra.run.dir=run",
         "plugins=[slow_scoring]"],
        cwd=tmp_path, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": _with(tmp_path)},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not all((tmp_path / f"scoring_{rank}").exists() for rank in range(2)):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.05)
        time.sleep(2.0)  # rank 1 comes to wait
        os.killpg(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=50)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, output
    assert read_result(tmp_path / "run")["status"] == "interrupted", output


def _with(place: Path) -> str:
    return os.pathsep.join((str(place), os.environ.get("PYTHONPATH", "")))

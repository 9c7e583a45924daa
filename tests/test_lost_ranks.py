"""Ranks that were asked to end are no lost ones: the run is interrupted, also where its main thread can do nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from forgetmenot import lost_ranks
from forgetmenot.lost_ranks import lost_ranks_told, resuming
from forgetmenot.result import RunResult
from forgetmenot.signals import signal_asked_by

WAITING = """
import logging, os, subprocess, sys, time
from functools import partial
from pathlib import Path
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from torch.distributed import TCPStore
from forgetmenot import lost_ranks
from forgetmenot.record import record_interrupted, recording
from forgetmenot.result import RunResult
from forgetmenot.signals import ending_on_signals
logging.disable()  # Lightning's own line of it
lost_ranks._NOTICED = lost_ranks._PATIENCE = 0.2
folder, code, status = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
end = f"import os, sys; os.kill(os.getpid(), {-code}) if {code} < 0 else sys.exit({code})"
rank = subprocess.Popen([sys.executable, "-c", end])
observer = _ChildProcessObserver(main_pid=os.getpid(), child_processes=[rank], sleep_period=0)
result = RunResult()
interrupted = partial(record_interrupted, folder, result, since=time.perf_counter())
with ending_on_signals() as ending, recording(folder, result):
    heard = lambda: ending.signal is not None
    with lost_ranks.lost_ranks_told(lambda: "begins anew", interrupted=interrupted, heard=heard):
        result.status = status
        observer.start()
        TCPStore("127.0.0.1", 0, world_size=2, is_master=True, wait_for_workers=True)
"""
"""A first rank that waits outside of Python for one that has ended."""


def waited(folder: Path, code: int, status: str = "interrupted") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", WAITING, str(folder), str(code), status]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("code", [130, -signal.SIGTERM])
def test_a_run_whose_rank_was_asked_to_end_before_they_met_is_interrupted(tmp_path: Path, code: int) -> None:
    done = waited(tmp_path, code)
    assert done.returncode == (code if code > 0 else 128 - code), done.stderr
    assert done.stderr == f"what is known lies in {tmp_path}\ninterrupted\n"
    result = RunResult.read(tmp_path)
    assert result.status == "interrupted" and result.seconds is not None and result.seconds > 0


def test_a_run_that_has_failed_by_itself_is_not_recorded_as_interrupted(tmp_path: Path) -> None:
    assert waited(tmp_path, 130, "failed").returncode == 130
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(("code", "how"), [(-signal.SIGKILL, "signal 9 (Killed)"), (1, "exit code 1")])
def test_a_rank_that_is_lost_before_they_met_is_told_of(tmp_path: Path, code: int, how: str) -> None:
    done = waited(tmp_path, code)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, f"error: rank 1 was ended by {how}; begins anew\n")


def test_the_setting_that_goes_on_with_a_run_is_as_it_is_given(tmp_path: Path) -> None:
    told = resuming(tmp_path, setting="'resume=\"a b=c\"'")
    assert told == "'resume=\"a b=c\"' begins anew, since no checkpoint was kept"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_rank_was_asked_to_end_by_a_signal_whether_it_answered_it_or_not(number: signal.Signals) -> None:
    assert signal_asked_by(128 + number) == signal_asked_by(-number) == number


@pytest.mark.parametrize("code", [0, 1, -signal.SIGKILL, -signal.SIGSEGV, 128 + signal.SIGKILL])
def test_any_other_end_was_not_asked_for(code: int) -> None:
    assert signal_asked_by(code) is None


def test_ranks_are_started_to_answer_signals_once_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[set[int]] = []
    noting = lambda self: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))  # noqa: E731
    monkeypatch.setattr(lost_ranks, "_START_RANKS", noting)
    monkeypatch.setattr(_SubprocessScriptLauncher, "_call_children_scripts", noting)
    launcher = _SubprocessScriptLauncher.__new__(_SubprocessScriptLauncher)
    with lost_ranks_told(lambda: "", interrupted=lambda: None):
        launcher._call_children_scripts()
    launcher._call_children_scripts()
    during, after = masks
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1} <= during and not after


def test_an_error_of_ones_own_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"^of one's own$"), lost_ranks_told(lambda: "", interrupted=lambda: None):
        raise RuntimeError("of one's own")

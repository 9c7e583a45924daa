"""Signals that ask a run to end: at once, or after a step where it is training."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from forgetmenot.signals import ending_on_signals, exit_code, held_back, is_first_rank

ASKING = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_ends_at_once_with_its_own_exit_code_and_handlers_are_as_before(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in ASKING]
    with pytest.raises(KeyboardInterrupt) as raised, ending_on_signals():
        os.kill(os.getpid(), number)
    assert exit_code(raised.value) == 128 + number
    assert [signal.getsignal(each) for each in ASKING] == before


def test_a_run_that_waits_for_its_step_is_ended_by_the_second_signal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt) as raised, ending_on_signals() as ending:
        ending.waits = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.signal == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
    assert exit_code(raised.value) == 130
    assert capsys.readouterr().err == "saving after this step, then ending; once more ends at once\n"


def test_a_signal_amid_a_write_to_the_terminal_is_obeyed_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    class Signalled(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            if ending.signal is None:
                os.kill(os.getpid(), signal.SIGTERM)
            return len(data)  # type: ignore[arg-type]

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(Signalled()), line_buffering=True))
    with ending_on_signals() as ending:
        ending.waits = True
        print("a warning", file=sys.stderr)
    assert ending.signal == signal.SIGTERM


def test_one_of_several_ranks_tells_that_all_save(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        with ending_on_signals() as ending:
            ending.waits = True
            os.kill(os.getpid(), signal.SIGTERM)
        assert ending.signal == signal.SIGTERM
    assert capsys.readouterr().err.count("saving after this step") == 1


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "1", "LOCAL_RANK": "1", "RANK": "0"}, True),
        ({"LOCAL_RANK": "0", "RANK": "1"}, False),
    ],
)
def test_the_first_rank_is_told_by_whatever_started_it(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str], first: bool
) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert is_first_rank() is first


def test_what_the_process_was_started_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending_on_signals() as ending:
            os.kill(os.getpid(), signal.SIGINT)
            assert ending.signal is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", ASKING)
def test_a_process_that_is_asked_to_end_before_it_can_answers_once_it_can(number: signal.Signals) -> None:
    asked = """
import os, sys
os.kill(os.getpid(), int(sys.argv[1]))
print("held back", flush=True)
from forgetmenot.signals import answer, ending_on_signals, exit_code
try:
    with ending_on_signals():
        answer()
        print("never")
except KeyboardInterrupt as error:
    sys.exit(exit_code(error))
"""
    with held_back():
        process = subprocess.Popen([sys.executable, "-c", asked, str(int(number))], stdout=subprocess.PIPE, text=True)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint(ASKING)
    assert (process.communicate(timeout=60)[0], process.returncode) == ("held back\n", 128 + number)


@pytest.fixture(autouse=True)
def _as_a_terminal_starts_it() -> Iterator[None]:
    """Lets Ctrl-C interrupt, also where these tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_without_a_number_is_130() -> None:
    assert exit_code(KeyboardInterrupt()) == 130

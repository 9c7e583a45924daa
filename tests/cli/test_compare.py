"""`compare` on the command line, and at the end of a sweep."""

import sys
from pathlib import Path

import pytest
from written_runs import write_run

from forgetmenot.cli import main as console


def _compare(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["forgetmenot", "compare", *words])
    console.main()


def test_runs_stand_side_by_side_with_the_command_that_shows_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in (1, 2):
        write_run(tmp_path / "runs" / str(rank), "method=lora", f"method.rank={rank}")
    monkeypatch.chdir(tmp_path)
    _compare(monkeypatch, "runs")
    told = capsys.readouterr().out
    assert "lora method.rank=1" in told and "lora method.rank=2" in told
    assert "what they answered: forgetmenot compare runs --answers 2" in told
    _compare(monkeypatch, "runs", "--answers", "1")
    assert "lora says positive" in capsys.readouterr().out


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as exit_:
        _compare(monkeypatch, str(tmp_path / "nowhere"))
    assert exit_.value.code == f"error: PATH must be an existing folder, got {tmp_path / 'nowhere'}"

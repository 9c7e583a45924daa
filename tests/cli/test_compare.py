"""`compare` on the command line, and at the end of a sweep."""

import sys
from pathlib import Path

import pytest
from tiny_runs import finish

from forgetmenot.cli import main as console


def _compare(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["forgetmenot", "compare", *words])
    console.main()


def test_a_sweep_ends_with_its_comparison_which_compare_shows_again_with_answers(
    tmp_path: Path, tiny_arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*tiny_arguments, "max_steps=1", "method.rank=1,2"]
    done = finish(["-m", *arguments], tmp_path)
    assert done.code == 0, done.stderr
    assert "lora method.rank=1" in done.stdout and "lora method.rank=2" in done.stdout
    (sweep,) = (tmp_path / "outputs" / "sweeps").glob("*/*")
    assert f"what they answered: forgetmenot compare {sweep.relative_to(tmp_path)} --answers 2" in done.stdout

    capsys.readouterr()
    _compare(monkeypatch, str(tmp_path / "outputs"), "--answers", "1")
    assert "lora method.rank=2" in capsys.readouterr().out


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as exit_:
        _compare(monkeypatch, str(tmp_path / "nowhere"))
    assert exit_.value.code == f"error: PATH must be an existing folder, got {tmp_path / 'nowhere'}"

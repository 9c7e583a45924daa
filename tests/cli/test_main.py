"""The console script: help, a wrong command, and nothing heavy imported before a command runs."""

import importlib
import os
import signal
import subprocess
import sys

import pytest

from forgetmenot.cli import main as console
from forgetmenot.config.paths import choices


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["forgetmenot", *words])
    console.main()


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_names_every_command_with_its_purpose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    _run(monkeypatch, *words)
    text = capsys.readouterr().out
    assert text.startswith("usage: forgetmenot COMMAND")
    for name, purpose in console.COMMANDS.items():
        assert name in text and purpose in text


def test_an_unknown_command_is_one_sentence_that_says_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as exit_:
        _run(monkeypatch, "trian")
    commands = "train, plan, evaluate, ask, export, sequence, compare"
    assert exit_.value.code == f"error: command must be one of {commands}, got trian; did you mean train?"


def test_the_words_after_the_command_are_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(console, "run_command", lambda command, *, arguments: seen.append((command, arguments)))
    _run(monkeypatch, "train", "-m", "method.rank=2,4")
    assert seen == [("train", ["-m", "method.rank=2,4"])]


@pytest.mark.parametrize("command", ["compare", "sequence"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_plain_command_in_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, number: signal.Signals
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's in the background ignores
    story = importlib.import_module(f"forgetmenot.cli.{command}")
    monkeypatch.setattr(story, "main", lambda arguments: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as exit_:
        _run(monkeypatch, command, "outputs")
    assert (exit_.value.code, capsys.readouterr().err) == (128 + number, "interrupted\n")


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    heavy = ("torch", "lightning", "transformers", "peft", "datasets", "wandb", "numpy")
    code = f"import forgetmenot.cli.main, sys; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_help_of_a_command_shows_choices_and_settings_without_loading_a_model() -> None:
    code = (
        "import sys; from forgetmenot.cli.main import main; sys.argv = ['forgetmenot', 'train', '--help']; main(); "
        "print('HEAVY', [name for name in ('torch', 'lightning') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"method: {', '.join(choices('method'))}" in answer.stdout, answer.stderr
    assert "batch_size: 8" in answer.stdout
    assert "HEAVY []" in answer.stdout or "HEAVY" not in answer.stdout

"""Progress: plain lines where there is no terminal, a bar where there is one, silence on other ranks."""

import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from forgetmenot.progress import ProgressDisplay


def _trainer(*, steps: int, rank_zero: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        is_global_zero=rank_zero,
        estimated_stepping_batches=steps,
        global_step=0,
        callback_metrics={"train/loss": torch.tensor(1.25)},
        num_test_batches=[2, 3],
    )


def _trained(display: ProgressDisplay, trainer: SimpleNamespace, *, steps: int) -> None:
    display.on_train_start(trainer, None)  # type: ignore[arg-type]
    for step in range(1, steps + 1):
        trainer.global_step = step
        display.on_train_batch_end(trainer, None, None, SimpleNamespace(num_tokens=10), step)  # type: ignore[arg-type]
    display.on_train_end(trainer, None)  # type: ignore[arg-type]


def _console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_training_without_a_terminal_prints_about_ten_lines_with_loss_and_speed() -> None:
    console = _console(terminal=False)
    _trained(ProgressDisplay(console, scoring="scoring"), _trainer(steps=100), steps=100)
    lines = _text(console).splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[-1].startswith("training step 100 of 100: loss 1.250, ")
    assert all("tokens a second" in line for line in lines)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_short_training_prints_every_step(steps: int) -> None:
    console = _console(terminal=False)
    _trained(ProgressDisplay(console, scoring="scoring"), _trainer(steps=steps), steps=steps)
    assert len(_text(console).splitlines()) == steps


def test_scoring_without_a_terminal_is_announced_once() -> None:
    console = _console(terminal=False)
    display, trainer = ProgressDisplay(console, scoring="scoring the base"), _trainer(steps=1)
    display.on_test_start(trainer, None)  # type: ignore[arg-type]
    display.on_test_batch_end(trainer, None, None, SimpleNamespace(task="a"), 0)  # type: ignore[arg-type]
    display.on_test_end(trainer, None)  # type: ignore[arg-type]
    assert _text(console) == "scoring the base: 5 batches\n"


def test_a_terminal_shows_a_bar_with_loss_and_steps() -> None:
    console = _console(terminal=True)
    _trained(ProgressDisplay(console, scoring="scoring"), _trainer(steps=4), steps=4)
    assert "4/4" in _text(console) and "loss 1.250" in _text(console)


@pytest.mark.parametrize("terminal", [True, False])
def test_other_ranks_print_nothing(terminal: bool) -> None:
    console = _console(terminal=terminal)
    _trained(ProgressDisplay(console, scoring="scoring"), _trainer(steps=3, rank_zero=False), steps=3)
    assert _text(console) == ""


def test_an_error_closes_the_bar_so_that_the_cursor_comes_back() -> None:
    console = _console(terminal=True)
    display, trainer = ProgressDisplay(console, scoring="scoring"), _trainer(steps=4)
    display.on_train_start(trainer, None)  # type: ignore[arg-type]
    display.on_exception(trainer, None, KeyboardInterrupt())  # type: ignore[arg-type]
    assert console._live_stack == []

"""A run that cannot go on as it is asked to is left as it is, and goes on as it was."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from ended_runs import killed
from tiny_runs import Train, finish, read_result

SHORT = ("batch_size=4",)  # 4 steps an epoch


def files_of(folder: Path) -> dict[Path, bytes]:
    """What lies in a run's folder, but for its log."""
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix != ".log"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("epochs=1",),
            "epochs must be at least 2, which hold the 6 steps that the run has taken, got 1",
        ),
        (("max_steps=2",), "max_steps must be at least the 6 steps that the run has taken, got 2"),
        (
            ("+trainer.val_check_interval=5",),
            "trainer.val_check_interval must be at most the 4 steps of an epoch, got 5",
        ),
    ],
)
def test_a_run_that_is_refused_is_left_as_it_is_and_goes_on_as_it_was(
    train: Train, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], sentence: str
) -> None:
    failed = killed(train, monkeypatch, *SHORT)
    newest = failed.folder / "checkpoints" / "step-00000009"
    newest.mkdir()  # damaged: it makes room only for a run that goes on
    (newest / "state.ckpt").write_bytes(b"cut short")
    before = files_of(failed.folder)

    refused = finish([f"resume={failed.folder}", *words], failed.place)

    assert refused.code == 1 and refused.sentence == f"error: {sentence}"
    assert files_of(failed.folder) == before and "goes on after" not in refused.stdout
    assert finish([f"resume={failed.folder}"], failed.place).code == 0


def test_a_logger_that_cannot_be_opened_leaves_the_run_as_it_is(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = killed(train, monkeypatch, *SHORT)
    before = files_of(failed.folder)

    def refuse(*arguments: object, **named: object) -> None:
        raise ValueError("logger must be settings that W&B can be opened with, got an error")

    with monkeypatch.context() as patched:
        patched.setattr("forgetmenot.cli.train.open_logger", refuse)
        refused = finish([f"resume={failed.folder}", "logger=wandb"], failed.place)
    assert refused.code == 1 and refused.sentence.startswith("error: logger must be")
    assert files_of(failed.folder) == before


def test_what_cannot_be_validated_is_told_before_the_base_is_scored(train: Train) -> None:
    refused = train("+trainer.val_check_interval=5")
    assert refused.sentence == "error: trainer.val_check_interval must be at most the 4 steps of an epoch, got 5"
    assert read_result(refused.folder)["hardware"] is None, "as it stands until a model is scored"

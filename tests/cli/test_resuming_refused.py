"""A run that cannot go on as it is asked to is left as it is, and goes on as it was."""

import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from ended_runs import killed
from tiny_runs import Train, finish, read_result

from forgetmenot.checkpoint import Checkpoint, Facts, read, seal

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


def torn_tensors(state: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, state, _use_new_zipfile_serialization=False)


def torn_pickle(state: Path) -> None:
    """Writes torch's format around what is no pickle of a whole object."""
    with zipfile.ZipFile(state, "w") as archive:
        archive.writestr("state/data.pkl", b"\x80\x02}q\x00X\x03\x00\x00\x00\xff\xff\xff.")
        archive.writestr("state/version", "3")


@pytest.mark.parametrize(
    "harm", [lambda state: state.write_bytes(b"hello"), lambda state: state.write_bytes(pickle.dumps({"a": 1})),
             torn_tensors, torn_pickle],
    ids=["text", "a pickle", "torch's older format", "a torn pickle"],
)  # fmt: skip
def test_a_checkpoint_in_another_format_is_told_of_by_its_file(
    train: Train, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], object]
) -> None:
    failed = killed(train, monkeypatch)
    checkpoint = read(failed.folder / "checkpoints" / "step-00000006")
    harm(checkpoint.state)
    sealed_anew(checkpoint, facts=checkpoint.facts)
    before = files_of(failed.folder)

    refused = finish([f"resume={failed.folder}"], failed.place)

    assert refused.code == 1
    assert refused.sentence == (
        f"error: resume must be a run whose checkpoints hold plain values and tensors, got {checkpoint.state} "
        "with other objects"
    )
    assert files_of(failed.folder) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.log", "checkpoints", "adapter"])
def test_a_run_that_holds_a_link_is_not_written_to(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    failed = killed(train, monkeypatch)
    own = tmp_path / "mine"
    file = failed.folder / name
    file.rename(own) if file.exists() else own.mkdir()
    file.symlink_to(own)
    before = own.read_bytes() if own.is_file() else list(own.rglob("*"))
    refused = finish([f"resume={failed.folder}"], failed.place)
    assert refused.code == 1
    assert refused.sentence.startswith("error: resume must be a folder without links") and name in refused.sentence
    assert (own.read_bytes() if own.is_file() else list(own.rglob("*"))) == before


def test_best_weights_that_are_no_plain_tensors_are_told_of_before_anything(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = killed(train, monkeypatch, "select=best", "+trainer.val_check_interval=2")
    checkpoint = read(failed.folder / "checkpoints" / "step-00000006")
    best = checkpoint.folder / "best.ckpt"
    torch.save({"state_dict": {}, "of theirs": Checkpoint}, best)
    sealed_anew(checkpoint, facts=checkpoint.facts)
    refused = finish([f"resume={failed.folder}"], failed.place)
    assert refused.code == 1
    assert refused.sentence.endswith(
        f"must be a run whose checkpoints hold plain values and tensors, got {best} with other objects"
    )


def test_a_checkpoint_that_lacks_facts_is_left_out(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = killed(train, monkeypatch)
    checkpoint = read(failed.folder / "checkpoints" / "step-00000006")
    sealed_anew(checkpoint, facts={name: fact for name, fact in checkpoint.facts.items() if name != "content"})

    done = finish([f"resume={failed.folder}"], failed.place)

    assert done.code == 0, done.stderr
    assert "must tell of its run by content" in " ".join(done.stdout.split())
    assert "The run goes on after step 3." in done.stdout


def sealed_anew(checkpoint: Checkpoint, *, facts: Facts) -> None:
    """Sums a checkpoint whose files were changed, as who forges it would."""
    partial = checkpoint.folder.rename(checkpoint.folder.with_name("forged"))
    (partial / "manifest.json").unlink()
    seal(partial, step=checkpoint.step, facts=facts)

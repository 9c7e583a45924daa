"""A run that was ended goes on, and comes to the very weights of one that was not."""

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import wandb
from ended_runs import LORA, STEPS, assert_same, end_before_step, killed, weights
from omegaconf import OmegaConf
from tiny_runs import Train, finish, read_lines, read_result

from forgetmenot.checkpoint import read, seal
from forgetmenot.cli import resuming
from forgetmenot.module import AdaptationModule

RECIPES = {
    "lora": LORA,
    "lora held by ewc and kl": (*LORA, "regularizer=[ewc,kl]"),
    "full, the best weights": ("method=full", "select=best", "+trainer.val_check_interval=2"),
    "prompt in steps of like lengths": ("method=prompt", "group_by_length=true"),
    "replay": (*LORA, "replay=mixed", "replay.share=0.5"),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("step", [4, 8])
def test_a_run_that_was_ended_by_a_signal_goes_on_to_the_same_weights(
    train: Train, user_conf: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, step: int
) -> None:
    words, options = [*RECIPES[recipe], *STEPS, "data.retained=[kept]"], ["--config-dir", str(user_conf)]
    whole = train(*words, options=options)
    assert whole.code == 0, whole.stderr
    with monkeypatch.context() as patched:
        end_before_step(patched, step)
        ended = train(*words, options=options)
    folder = ended.folders[-1]
    assert (ended.code, read_result(folder)["status"]) == (143, "interrupted")
    assert (folder / "checkpoints" / f"step-{step + 1:08}").is_dir()

    done = finish([f"resume={folder}"], ended.place)

    assert done.code == 0, done.stderr
    assert f"The run goes on after step {step + 1}." in done.stdout
    assert_same(folder, whole.folders[0])
    assert (folder / "config.yaml").read_text() == (whole.folders[0] / "config.yaml").read_text()
    assert not list(folder.glob("checkpoints/step-*"))


@pytest.mark.parametrize(
    "harm",
    [lambda whole: b"cut short", lambda whole: whole[:9] + bytes([whole[9] ^ 1]) + whole[10:]],
    ids=["cut short", "a flipped bit"],
)
def test_what_was_logged_after_the_checkpoint_is_cut_and_a_damaged_one_is_left_out(
    train: Train, monkeypatch: pytest.MonkeyPatch, harm: Callable[[bytes], bytes]
) -> None:
    whole = train(*LORA, *STEPS)
    failed = killed(train, monkeypatch)
    folder = failed.folders[-1]
    assert read_result(folder)["status"] == "failed"
    state = folder / "checkpoints" / "step-00000006" / "state.ckpt"
    state.write_bytes(harm(state.read_bytes()))

    done = finish([f"resume={folder}"], failed.place)

    assert done.code == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "A checkpoint is damaged and left out:" in told and "The run goes on after step 3." in told
    assert_same(folder, whole.folders[0])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("seed=1",), "seed must be 0, as in the run that is resumed, got 1"),
        (("method.rank=2",), "method.rank must be 8, as in the run that is resumed, got 2"),
        (("method=full",), "method.name must be lora, as in the run that is resumed, got full"),
    ],
)
def test_a_run_goes_on_with_the_settings_that_it_began_with(
    train: Train, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], sentence: str
) -> None:
    failed = killed(train, monkeypatch)
    before = read_result(failed.folder)
    refused = finish([f"resume={failed.folder}", *words], failed.place)
    assert refused.code == 1 and refused.sentence.startswith(f"error: {sentence}")
    assert read_result(failed.folder) == before, "its record stays as it was"


def test_a_run_may_go_on_for_longer_on_other_hardware(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = killed(train, monkeypatch)
    done = finish([f"resume={failed.folder}", "epochs=3", "trainer=cpu", "micro_batch_tokens=64"], failed.place)
    assert done.code == 0, done.stderr
    assert [line["step"] for line in read_lines(failed.folder / "metrics.jsonl")][-1] == 24
    assert OmegaConf.load(failed.folder / "config.yaml").micro_batch_tokens == 64


def test_data_that_has_changed_under_the_same_path_is_noticed(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_data: Path
) -> None:
    own = shutil.copytree(tiny_data, tmp_path / "own")
    failed = killed(train, monkeypatch, f"data.path={own}")
    text = (own / "test.jsonl").read_text()
    (own / "test.jsonl").write_text(text.replace("fun", "fan"))
    assert text.count("fun")

    before = {file: file.read_bytes() for file in failed.folder.rglob("*") if file.is_file() and file.suffix != ".log"}
    refused = finish([f"resume={failed.folder}", "epochs=9"], failed.place)

    assert {file: file.read_bytes() for file in before} == before
    assert refused.code == 1
    assert refused.sentence.startswith("error: data.path of mood must hold what it held when the run began")
    assert read_result(failed.folder)["status"] == "failed"


def test_a_run_that_is_complete_is_not_run_again(train: Train) -> None:
    done = train("max_steps=1")
    refused = finish([f"resume={done.folder}"], done.place)
    assert refused.code == 1
    assert refused.sentence.startswith("error: resume must be a run that has not come to its end, got ")


def test_a_run_without_a_checkpoint_begins_anew_in_its_folder(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(*LORA, *STEPS)
    failed = killed(train, monkeypatch, "checkpoint_steps=null")
    folder = failed.folders[-1]
    done = finish([f"resume={folder}"], failed.place)
    assert done.code == 0, done.stderr
    assert "at its beginning" in " ".join(done.stdout.split())
    assert all(torch.equal(weight, weights(whole.folders[0])[name]) for name, weight in weights(folder).items())
    steps = [line["step"] for line in read_lines(folder / "metrics.jsonl")]
    assert steps == [line["step"] for line in read_lines(whole.folders[0] / "metrics.jsonl")]


@pytest.mark.parametrize("words", [(), ("patience=1", "+trainer.val_check_interval=2", "optimizer.lr=1e-12")])
def test_a_run_that_was_ended_while_it_was_scored_is_not_trained_again(
    train: Train, monkeypatch: pytest.MonkeyPatch, words: Sequence[str]
) -> None:
    whole = train(*LORA, *STEPS, *words)

    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("forgetmenot.cli.fitting.score_adapted", interrupt)
        ended = train(*LORA, *STEPS, *words)
    folder = ended.folders[-1]
    assert (ended.code, read_result(folder)["status"]) == (130, "interrupted")
    steps = read_lines(whole.folders[0] / "metrics.jsonl")[-1]["step"]
    assert (steps == 16) == (not words), "with patience it ends early"

    with monkeypatch.context() as patched:
        patched.setattr(AdaptationModule, "training_step", interrupt)
        done = finish([f"resume={folder}"], ended.place)

    assert done.code == 0, done.stderr
    assert f"The run goes on after step {steps}." in done.stdout
    assert_same(folder, whole.folders[0])


def test_a_run_goes_on_in_its_own_folder_alone(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = killed(train, monkeypatch)
    refused = finish([f"resume={failed.folder}", "hydra.run.dir=other"], failed.place)
    assert refused.code == 1 and refused.sentence.startswith("error: hydra.run.dir must be left to resume=")


class Hostile:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_that_holds_code_is_refused_and_the_code_not_run(
    train: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed = killed(train, monkeypatch)
    checkpoint = read(max(failed.folder.glob("checkpoints/step-*")))
    torch.save({"callbacks": Hostile(tmp_path / "ran")}, checkpoint.state)
    partial = checkpoint.folder.rename(checkpoint.folder.with_name("forged"))
    (partial / "manifest.json").unlink()
    seal(partial, step=checkpoint.step, facts=checkpoint.facts)  # whoever forges it sums it, too

    refused = finish([f"resume={failed.folder}"], failed.place)

    assert refused.code == 1
    assert refused.sentence.startswith("error: resume must be a run whose checkpoints hold plain values"), refused
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_wandb_goes_on_under_the_same_run(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    failed = killed(train, monkeypatch, "logger=wandb")
    if wandb.run is not None:  # which ends with its process, but for a test
        wandb.run.finish()
    (first,) = (failed.folder / "wandb").glob("offline-run-*")
    done = finish([f"resume={failed.folder}"], failed.place)
    assert done.code == 0, done.stderr
    assert {path.name.split("-")[-1] for path in (failed.folder / "wandb").glob("offline-run-*")} == {
        first.name.split("-")[-1]
    }
    assert len(list((failed.folder / "wandb").glob("offline-run-*"))) == 2


def test_another_number_of_threads_is_told_of(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = killed(train, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_num_threads", lambda: 3)
        told = finish([f"resume={failed.folder}"], failed.place)
    assert told.code == 0 and "Its threads are 3 and were 1: sums are taken in another order" in told.stdout


def test_damaged_checkpoints_make_room_for_those_to_come(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = killed(train, monkeypatch)
    for state in failed.folder.glob("checkpoints/step-*/state.ckpt"):
        state.write_bytes(b"cut short")
    with monkeypatch.context() as patched:
        end_before_step(patched, 3)
        finish([f"resume={failed.folder}"], failed.place)
    assert sorted(path.name for path in (failed.folder / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]
    assert all(read(path) for path in (failed.folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("max_steps=2",), "max_steps must be at least the 6 steps that the run has taken, got 2"),
        ((), "resume must be a run whose metrics.jsonl is as long as at step 6, "),
        (
            ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"),
            "trainer.strategy must not be fsdp, since each device had all weights at step 6, got fsdp on 2",
        ),
    ],
)
def test_what_a_run_cannot_go_on_with_is_told_in_one_sentence_and_leaves_no_record(
    train: Train, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], sentence: str
) -> None:
    failed = killed(train, monkeypatch)
    (failed.folder / "result.json").unlink()  # as SIGKILL leaves it
    if not words:
        (failed.folder / "metrics.jsonl").write_text("{}\n")
    refused = finish([f"resume={failed.folder}", *words], failed.place)
    assert refused.code == 1 and refused.sentence.startswith(f"error: {sentence}")
    assert refused.stdout == "" and not (failed.folder / "result.json").exists()


def test_a_run_that_was_ended_before_it_wrote_its_settings_is_begun_in_its_folder(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt(signal.SIGUSR1)

    with monkeypatch.context() as patched:
        patched.setattr("forgetmenot.cli.train.set_up", interrupt)
        ended = train("max_steps=1", "hydra.run.dir=mine")
    assert ended.code == 138 and not (ended.place / "mine" / "config.yaml").exists()
    assert train("max_steps=1", "hydra.run.dir=mine").code == 0
    assert read_result(ended.place / "mine")["status"] == "complete"


def test_what_a_run_reads_is_summed_up_once_and_before_it_trains(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def telling(original: Callable[..., object], name: str) -> Callable[..., object]:
        return lambda *arguments: told.append(name) or original(*arguments)

    monkeypatch.setattr(resuming, "content_of", telling(resuming.content_of, "sums"))
    monkeypatch.setattr(AdaptationModule, "training_step", telling(AdaptationModule.training_step, "step"))
    assert train("max_steps=2", "checkpoint_steps=1").code == 0
    assert told == ["sums", "step", "step"]

"""A signal that comes while a run validates ends it at once, and the run that goes on validates anew."""

import os
import signal

import pytest
from ended_runs import assert_same
from tiny_runs import Train, finish, read_result

from forgetmenot.module import AdaptationModule

WORDS = (
    "method=lora", "method.dropout=0.2", "batch_size=2", "epochs=2", "select=best", "patience=100",
    "+trainer.val_check_interval=4", "micro_batch_tokens=24", "checkpoint_steps=3",
)  # fmt: skip


@pytest.mark.parametrize("step", [4, 8, 16])
def test_a_run_that_was_ended_while_it_validated_goes_on_to_the_same_weights_and_record(
    train: Train, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = train(*WORDS)
    seen: list[int] = []

    def validating(self: AdaptationModule, batch: object, index: int) -> object:
        if self.global_step == step:
            seen.append(index)
            if len(seen) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, index)  # type: ignore[arg-type]

    original = AdaptationModule.validation_step
    with monkeypatch.context() as patched:
        patched.setattr(AdaptationModule, "validation_step", validating)
        ended = train(*WORDS)
        folder = ended.folders[-1]
        assert (ended.code, read_result(folder)["status"]) == (143, "interrupted")
        assert seen == [0], "of two batches"
        assert (folder / "checkpoints" / f"step-{step:08}").is_dir()
        done = finish([f"resume={folder}"], ended.place)

    assert done.code == 0, done.stderr
    assert seen[1:] == [0, 1], "both of them"
    assert_same(folder, whole.folders[0])

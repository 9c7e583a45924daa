"""The Lightning callback that keeps what a run needs in order to go on bitwise where it was.

A checkpoint is taken as a step begins: all that belongs to the steps before, validation too, has happened by then. So
it holds the state before that step, and a run that goes on from it takes the step as it would have been taken. One
that is asked to end while it validates keeps the state before that validation.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from forgetmenot.checkpoint import STATE, Checkpoint, Facts, begin, partial_folder, rank_files, seal
from forgetmenot.data.types import ScoringBatch, Step
from forgetmenot.random_state import RandomNumbers, go_on_from, random_numbers
from forgetmenot.record import on_rank_zero
from forgetmenot.sharded_strategy import ShardedStrategy
from forgetmenot.signals import Ending, StoppedError
from forgetmenot.together import together

BEST = "best"
"""The name of the weights that select=best keeps."""


class StreamedFile(TorchCheckpointIO):
    """Writes a checkpoint straight to disk, and renames it: Lightning's own makes it in memory first, a second time.

    A write that fails is kept until `check`: in Lightning's saving the other ranks wait for the one that writes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: OSError | RuntimeError | None = None

    def check(self) -> None:
        """Raises what the last write failed with, once."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | Path, storage_options: object | None = None
    ) -> None:
        file = Path(path)
        partial = file.with_name(f".{file.name}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.save(checkpoint, partial)
                partial.replace(file)
            finally:
                partial.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:
            self.failure = error


_SHARE = 20
"""By the clock, training goes on at least so many times as long as the last checkpoint took to write."""


class Checkpointing(Callback):
    """Saves every so many steps or minutes and at the end of training, and when the run is asked to end.

    By neither, it is when it is asked to end alone: a checkpoint of a large model takes time and room.
    `facts` are what the run tells of itself at that moment, on rank 0.
    """

    def __init__(
        self, folder: Path, *, every_steps: int | None, every_minutes: float | None, facts: Callable[[], Facts],
        ending: Ending,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.facts = facts
        self.ending = ending
        self._saved_at_step = 0
        self._saved_at_second = time.monotonic()
        self._seconds = 0.0
        self._of_ranks: list[RandomNumbers] = []
        self._restored: RandomNumbers | None = None
        self._at_validation: RandomNumbers | None = None
        self._stops_early = False

    def state_dict(self) -> dict[str, object]:
        """Returns what a checkpoint holds beside Lightning's: random numbers of each rank, and an early stop."""
        return {"random_numbers": self._of_ranks, "stops_early": self._stops_early}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, dict[str, dict[str, object]]]
    ) -> None:
        keeper = trainer.checkpoint_callback
        if isinstance(keeper, ModelCheckpoint) and keeper.state_key in checkpoint["callbacks"]:
            _find_in(self.folder, checkpoint["callbacks"][keeper.state_key])
        own = checkpoint["callbacks"][self.state_key]
        states = own["random_numbers"]
        assert isinstance(states, list), "as this callback wrote them"
        self._restored = states[trainer.global_rank % len(states)]
        step = checkpoint["global_step"]
        assert isinstance(step, int), "Lightning's number of optimizer steps"
        self._saved_at_step = step
        trainer.should_stop = bool(own["stops_early"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ending.waits = True
        self._saved_at_second = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Step, batch_idx: int) -> None:
        if self._restored is not None:
            go_on_from(self._restored)
            self._restored = None
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step  # which Lightning restores one off
        due, asked = self._agreed(trainer)
        self._save_and_end(trainer, wanted=due, asked=asked)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self._restored is not None:  # the run was asked to end while it validated
            go_on_from(self._restored)
            self._restored = None
            loop = trainer.fit_loop.epoch_loop
            loop.val_loop.batch_progress.reset()
            loop._batches_that_stepped = trainer.global_step - 1  # the step that is validated
        self._at_validation = random_numbers()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ScoringBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Ends a validation that a signal finds: a run that goes on takes it anew, from its first batch.

        After the last step by max_steps it comes to its end: Lightning would not take it anew.
        """
        if trainer.sanity_checking or trainer.global_step == trainer.max_steps:
            return
        _, asked = self._agreed(trainer)
        if asked:
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()  # what Lightning knows a validation by that has not come to its end
            progress.increment_started()
            self._save_and_end(trainer, wanted=False, asked=asked)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._at_validation = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stops_early = trainer.should_stop
        wanted = self.every_steps is not None or self.every_minutes is not None
        self._save_and_end(trainer, wanted=wanted, asked=self._agreed(trainer)[1])
        self.ending.waits = False
        self._save_and_end(trainer, wanted=False, asked=self._agreed(trainer)[1])  # by a signal while it was written

    def save(self, trainer: Trainer) -> None:
        """Keeps the present state; all ranks have to come here. Raises OSError on all where one cannot write."""
        started, step = time.monotonic(), trainer.global_step
        partial = partial_folder(self.folder, step)
        try:
            together(lambda: on_rank_zero(begin)(partial), world_size=trainer.world_size)
            self._of_ranks = _of_all_ranks(trainer, self._at_validation or random_numbers())
            trainer.save_checkpoint(partial / STATE, weights_only=False)
            together(_written(trainer).check, world_size=trainer.world_size)
            together(lambda: on_rank_zero(self._finish)(trainer, partial, step), world_size=trainer.world_size)
        except OSError as error:
            on_rank_zero(shutil.rmtree)(partial, ignore_errors=True)
            raise self._unwritten(error, step) from error
        self._saved_at_step, self._saved_at_second = step, time.monotonic()
        self._seconds = self._saved_at_second - started

    def _unwritten(self, error: OSError, step: int) -> OSError:
        return OSError(
            f"{error}, at step {step} in {self.folder}; checkpoints before it are whole: once it can be written, "
            "resume=RUN_FOLDER goes on where the run ended"
        )

    def _save_and_end(self, trainer: Trainer, *, wanted: bool, asked: int) -> None:
        if (wanted or asked) and trainer.global_step > self._saved_at_step:
            self.save(trainer)
        if asked:
            raise StoppedError(asked)

    def _finish(self, trainer: Trainer, partial: Path, step: int) -> None:
        _files_of_ranks(partial / STATE, trainer)
        keeper = trainer.checkpoint_callback
        best = Path(keeper.best_model_path) if isinstance(keeper, ModelCheckpoint) else Path()
        if best.is_file():
            for file in _files_of_ranks(best, trainer):
                _give(file, partial)
        seal(partial, step=step, facts=self.facts())

    def _agreed(self, trainer: Trainer) -> tuple[bool, int]:
        """Tells whether a checkpoint is due by rank 0's clock, and by which signal any rank was asked to end, or 0.

        Raises OSError on all ranks where one could not write the best weights.
        """
        due, written = self._is_due() and trainer.is_global_zero, _written(trainer)
        told = torch.tensor([float(due), float(self.ending.signal or 0), float(written.failure is not None)])
        if trainer.world_size > 1:
            told = trainer.strategy.reduce(told.to(trainer.strategy.root_device), reduce_op="max")
        if told[2] > 0:
            try:
                together(written.check, world_size=trainer.world_size)
            except OSError as error:
                raise self._unwritten(error, trainer.global_step) from error
        by_steps = self.every_steps is not None and trainer.global_step % self.every_steps == 0
        return by_steps or bool(told[0] > 0), int(told[1])

    def _is_due(self) -> bool:
        seconds = time.monotonic() - self._saved_at_second
        return self.every_minutes is not None and seconds >= max(60 * self.every_minutes, _SHARE * self._seconds)


def restore_best(checkpoint: Checkpoint) -> None:
    """Puts the best weights of a checkpoint back where select=best had them, whatever was kept since."""
    checkpoints = checkpoint.folder.parent
    for newer in checkpoints.glob(f"{BEST}*.ckpt"):
        newer.unlink()
    for best in checkpoint.folder.glob(f"{BEST}*.ckpt"):
        _give(best, checkpoints)


def _find_in(folder: Path, best: dict[str, object]) -> None:
    """Lets what Lightning kept of the best weights name its files in `folder`, as it is where the run was moved."""
    scores, at = best["best_k_models"], folder.resolve()
    assert isinstance(scores, dict), "a score for each file"
    best["dirpath"] = str(at)
    best["best_k_models"] = {str(at / Path(file).name): score for file, score in scores.items()}
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        file = best[name]
        assert isinstance(file, str), "a path, or nothing"
        best[name] = file and str(at / Path(file).name)


def _give(file: Path, folder: Path) -> None:
    """Puts a file into another folder, too, without a second copy where the file system can do without."""
    try:
        os.link(file, folder / file.name)
    except OSError:
        shutil.copyfile(file, folder / file.name)


def _of_all_ranks(trainer: Trainer, own: RandomNumbers) -> list[RandomNumbers]:
    if trainer.world_size == 1:
        return [own]
    states: list[RandomNumbers] = [{} for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(states, own)
    return states


def _files_of_ranks(file: Path, trainer: Trainer) -> list[Path]:
    """Returns `file` as each rank wrote it; raises OSError where not all of them are seen here."""
    files = rank_files(file)
    writing = trainer.world_size if isinstance(trainer.strategy, ShardedStrategy) else 1
    if len(files) != writing:
        raise OSError(
            f"hydra.run.dir must be on a disk that all ranks share, got files of {len(files)} of {writing} ranks"
        )
    return files


def _written(trainer: Trainer) -> StreamedFile:
    written = trainer.strategy.checkpoint_io
    assert isinstance(written, StreamedFile), "build_trainer gives it to every Trainer"
    return written

"""A run that goes on where it ended: its last whole checkpoint, what must not have changed since, and its record."""

import hashlib
import json
import os
import pickle
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.base_scores import weights_of
from forgetmenot.checkpoint import CHECKPOINTS, Checkpoint, Facts, newest_whole, rank_files, remove_newer
from forgetmenot.cli.setup import Setup
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.resume import settings_of_run
from forgetmenot.config.words import names
from forgetmenot.data.examples import TaskExamples
from forgetmenot.datamodule import AdaptationData
from forgetmenot.loggers import METRICS
from forgetmenot.record import on_rank_zero
from forgetmenot.result import FILE_NAME, RunResult
from forgetmenot.trainer import sharing_ranks


def go_on(
    config: DictConfig, folder: Path, *, words: list[str], console: Console
) -> tuple[DictConfig, Checkpoint | None]:
    """Returns the settings of a run that goes on, its own with `words` on top, and its checkpoint where one is whole.

    One that begins has those of `config`, and none; damaged ones are told of. Raises ConfigError where the run in
    `folder` is complete, or something is set that has to be as it was.
    """
    if config.get("resume") is None:
        return config, None
    if Path(config.resume).resolve() != folder.resolve():
        raise ConfigError(f"hydra.run.dir must be left to resume={config.resume}, got {folder}")
    if (folder / FILE_NAME).is_file() and RunResult.read(folder).status == "complete":
        raise ConfigError(
            f"resume must be a run that has not come to its end, got {folder}, which is complete; model.path={folder} "
            "starts from what it learned"
        )
    return settings_of_run(config, folder, words=words), _last_checkpoint(folder, console=console)


def _last_checkpoint(folder: Path, *, console: Console) -> Checkpoint | None:
    """Returns the newest checkpoint that is whole; tells of what is damaged."""
    last, damaged = newest_whole(folder / CHECKPOINTS)
    if last is not None:
        for file in rank_files(last.state):
            _check_plain(file)
    for sentence in damaged:
        on_rank_zero(console.print)(
            f"A checkpoint is damaged and left out: {sentence}.", soft_wrap=True, markup=False, highlight=False
        )
    return last


def _check_plain(file: Path) -> None:
    """Raises ConfigError where a checkpoint holds more than values and tensors; nothing that it holds is run."""
    try:
        torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"resume must be a run whose checkpoints hold plain values and tensors, got {file} with other objects"
        ) from error


def as_it_was_cut(setup: Setup, last: Checkpoint | None, *, words: Sequence[str]) -> Setup:
    """Returns the setup with micro-batches as at the checkpoint, which a lack of memory may have made smaller."""
    if last is None or "micro_batch_tokens" in {names(word) for word in words}:
        return setup
    tokens = last.facts["micro_batch_tokens"]
    assert isinstance(tokens, int), "as told_at_checkpoints wrote it"
    return replace(setup, micro_batch_tokens=tokens)


def restore_record(last: Checkpoint | None, folder: Path, *, setup: Setup, result: RunResult, console: Console) -> None:
    """Cuts the record back to the checkpoint, and tells of it.

    Raises ConfigError, and changes nothing, where models, data or the record are not what they were, or the run is to
    end before the checkpoint.
    """
    size = 0
    if last is not None:
        _check_content(last.facts, setup)
        _check_shares(last, setup)
        size = _check_record(last, folder / METRICS)
        most = setup.settings.max_steps
        if most is not None and most < last.step:
            raise ConfigError(f"max_steps must be at least the {last.step} steps that the run has taken, got {most}")
        overrides, started, seconds = (last.facts[name] for name in ("overrides", "started", "seconds"))
        assert isinstance(overrides, list) and isinstance(started, str) and isinstance(seconds, float)
        result.overrides, result.started, result.seconds = overrides, started, seconds
    on_rank_zero(_cut)(folder / METRICS, size)
    on_rank_zero(remove_newer)(folder / CHECKPOINTS, than=-1 if last is None else last.step)
    where = "at its beginning, since no checkpoint of it is whole" if last is None else f"after step {last.step}"
    on_rank_zero(console.print)(f"The run goes on {where}.", highlight=False)
    threads, now = last.facts.get("threads") if last else None, torch.get_num_threads()
    if threads not in (None, now):
        on_rank_zero(console.print)(
            f"Its threads are {now} and were {threads}: sums are taken in another order, so its weights come "
            "close to those of a run that nothing ended, and not to the very same.",
            soft_wrap=True, highlight=False,
        )  # fmt: skip


def told_at_checkpoints(
    setup: Setup, data: AdaptationData, *, result: RunResult, folder: Path, last: Checkpoint | None
) -> Callable[[], Facts]:
    """Returns what tells a checkpoint of its run; what that reads is summed up now: a signal leaves no time for it."""
    began, earlier = time.monotonic(), result.seconds or 0.0
    content = {} if last is None else last.facts["content"]  # as it was checked
    assert isinstance(content, dict), "as it stands here"
    if last is None:
        on_rank_zero(lambda: content.update(_content(setup)))()

    def facts() -> Facts:
        return {
            "overrides": result.overrides,
            "started": result.started,
            "seconds": earlier + time.monotonic() - began,
            "metrics_bytes": _synced(folder / METRICS),
            "micro_batch_tokens": data.plan.micro_batch_tokens,
            "content": content,
            "threads": torch.get_num_threads(),
            "sharing_ranks": sharing_ranks(setup.trainer),
        }

    return facts


def _synced(file: Path) -> int:
    """Returns the size of a file whose bytes all lie on the disk by now."""
    if not file.exists():
        return 0
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        return os.fstat(stream.fileno()).st_size


def _check_record(last: Checkpoint, file: Path) -> int:
    """Returns the size of the record at the checkpoint; raises ConfigError where it is shorter by now."""
    size, there = last.facts["metrics_bytes"], file.stat().st_size if file.exists() else 0
    assert isinstance(size, int), "as told_at_checkpoints wrote it"
    if there < size:
        raise ConfigError(
            f"resume must be a run whose {file.name} is as long as at step {last.step}, {size} bytes, got {there} in "
            f"{file.parent}; put it back, or start a new run"
        )
    return size


def _cut(file: Path, size: int) -> None:
    if file.exists():
        with file.open("r+b") as stream:
            stream.truncate(size)


def _check_content(facts: Facts, setup: Setup) -> None:
    was, now = facts["content"], _content(setup)
    assert isinstance(was, dict), "as told_at_checkpoints wrote it"
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            raise ConfigError(
                f"{key} must hold what it held when the run began, with the checksum {was.get(key)}, got "
                f"{now.get(key)}; put that back, or start a new run"
            )


def _check_shares(last: Checkpoint, setup: Setup) -> None:
    """Raises ConfigError where weights are not shared out over as many ranks as at the checkpoint."""
    was, now = last.facts.get("sharing_ranks"), sharing_ranks(setup.trainer)
    if was != now:
        got = setup.trainer.get("strategy", "auto") if now is None else f"fsdp on {now}"
        if was is None:
            raise ConfigError(
                f"trainer.strategy must not be fsdp, since each device had all weights at step {last.step}, got {got}"
            )
        raise ConfigError(f"trainer.strategy must be fsdp on {was} devices, as at step {last.step}, got {got}")


def _content(setup: Setup) -> dict[str, str]:
    """Returns checksums of what a run reads: the base's files, and each data set's examples."""
    read = {"model.path": _of_model(setup)}
    for role, each in (("data", setup.targets), ("data.retained", setup.retained)):
        read |= {f"{role}.path of {data.task.name}": _of_examples(data) for data in each}
    return read


def _of_model(setup: Setup) -> str:
    folder = Path(setup.model.path).expanduser()
    if setup.model.weights == "random" or not folder.is_dir():
        return _digest([str(weights_of(setup.model, setup.model_config, seed=setup.settings.seed)).encode()])
    files = [file for file in sorted(folder.iterdir()) if file.suffix in (".safetensors", ".bin", ".json", ".model")]
    return _digest(part for file in files for part in (file.name.encode(), _sum(file)))


def _of_examples(data: TaskExamples) -> str:
    splits = (data.train, data.validation, data.test)
    texts = [[[e.prompt, e.completion, list(e.references)] for e in split] for split in splits]
    return _digest([json.dumps(texts).encode()])


def _sum(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]

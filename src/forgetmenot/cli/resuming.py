"""A run that goes on where it ended: its last whole checkpoint, what must not have changed since, and its record."""

import hashlib
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from forgetmenot.checkpoint import CHECKPOINTS, Checkpoint, Facts, newest_whole, remove_newer
from forgetmenot.cli.content import check_content, content_of
from forgetmenot.cli.desk import Desk
from forgetmenot.cli.setup import Setup
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.resume import check_as_at_checkpoint, settings_of_run
from forgetmenot.config.trust import check_no_links
from forgetmenot.config.words import names
from forgetmenot.datamodule import AdaptationData
from forgetmenot.durable import sync
from forgetmenot.loggers import METRICS
from forgetmenot.record import on_rank_zero
from forgetmenot.result import FILE_NAME, RunResult
from forgetmenot.trainer import sharing_ranks

_FACTS = {
    "overrides": list, "started": str, "seconds": float, "metrics_bytes": int, "micro_batch_tokens": int,
    "content": dict,
}  # fmt: skip
"""What `told_at_checkpoints` has told from the first on."""
_UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
)  # fmt: skip
"""What torch.load raises for a file that torch.save did not write so, as mangled ones show."""


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
    check_no_links(folder)
    last = _last_checkpoint(folder, console=console)
    if (folder / FILE_NAME).is_file() and _is_complete(folder, last):
        raise ConfigError(
            f"resume must be a run that has not come to its end, got {folder}, which is complete; model.path={folder} "
            "starts from what it learned"
        )
    settings = settings_of_run(config, folder, words=words)
    if last is not None and "config" in last.facts:
        check_as_at_checkpoint(DictConfig(last.facts["config"]), settings)
    return settings, last


def _is_complete(folder: Path, last: Checkpoint | None) -> bool:
    """Tells what a run's result says; one that cannot be read counts as none where a checkpoint is still there."""
    try:
        return RunResult.read(folder).status == "complete"
    except ValueError:
        if last is None:
            raise
        return False


def _last_checkpoint(folder: Path, *, console: Console) -> Checkpoint | None:
    """Returns the newest checkpoint that is whole; tells of what is damaged."""
    last, damaged = newest_whole(folder / CHECKPOINTS, facts=_FACTS)
    if last is not None:
        for file in sorted(last.folder.glob("*.ckpt")):
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
    except _UNREADABLE as error:
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


def check_goes_on(last: Checkpoint | None, folder: Path, *, setup: Setup, epoch: int) -> None:
    """Raises ConfigError where the run in `folder`, of `epoch` steps an epoch, cannot go on from a checkpoint.

    So it is where models, data or the record are not what they were, or the run is to end before the checkpoint.
    """
    if last is None:
        return
    check_content(last.facts["content"], setup)
    _check_shares(last, setup)
    _check_record(last, folder / METRICS)
    most, epochs = setup.settings.max_steps, setup.settings.epochs
    if most is not None and most < last.step:
        raise ConfigError(f"max_steps must be at least the {last.step} steps that the run has taken, got {most}")
    if epochs is not None and epochs * epoch < last.step:
        raise ConfigError(
            f"epochs must be at least {-(-last.step // epoch)}, which hold the {last.step} steps that the run has "
            f"taken, got {epochs}"
        )


def restore_record(last: Checkpoint | None, folder: Path, *, result: RunResult, console: Console) -> None:
    """Cuts the record back to the checkpoint, which the run can go on from, and tells of it."""
    if last is not None:
        overrides, started, seconds = (last.facts[name] for name in ("overrides", "started", "seconds"))
        assert isinstance(overrides, list) and isinstance(started, str) and isinstance(seconds, float)
        result.overrides, result.started, result.seconds = overrides, started, seconds
    on_rank_zero(_cut)(folder / METRICS, last, console=console)
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


def told_at_checkpoints(setup: Setup, data: AdaptationData, *, config: DictConfig, desk: Desk) -> Callable[[], Facts]:
    """Returns what tells a checkpoint of its run; what that reads is summed up now: a signal leaves no time for it."""
    result, last = desk.result, desk.last
    began, earlier = time.monotonic(), result.seconds or 0.0
    content = {} if last is None else last.facts["content"]  # as it was checked
    assert isinstance(content, dict), "as it stands here"
    if last is None:
        on_rank_zero(lambda: content.update(content_of(setup)))()

    def facts() -> Facts:
        return {
            "overrides": result.overrides,
            "started": result.started,
            "seconds": earlier + time.monotonic() - began,
            **_record_of(desk.folder / METRICS),
            "micro_batch_tokens": data.plan.micro_batch_tokens,
            "content": content,
            "config": OmegaConf.to_container(config, resolve=True),
            "threads": torch.get_num_threads(),
            "sharing_ranks": sharing_ranks(setup.trainer),
        }

    return facts


def _record_of(file: Path) -> Facts:
    """Returns how the record stands, with all its bytes on the disk: its last line is open, and may be longer later."""
    if not file.exists():
        return {"metrics_bytes": 0, "metrics_line": "", "metrics_sum": _sum(b"")}
    sync(file)
    text = file.read_bytes()
    size = text.rfind(b"\n", 0, -1) + 1
    return {"metrics_bytes": size, "metrics_line": text[size:].decode(), "metrics_sum": _sum(text[:size])}


def _sum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _check_record(last: Checkpoint, file: Path) -> None:
    """Raises ConfigError where the record is shorter by now than at the checkpoint."""
    size, there = last.facts["metrics_bytes"], file.stat().st_size if file.exists() else 0
    assert isinstance(size, int), "as _record_of gave it"
    if there < size:
        raise ConfigError(
            f"resume must be a run whose {file.name} is as long as at step {last.step}, {size} bytes, got {there} in "
            f"{file.parent}; put it back, or start a new run"
        )


def _cut(file: Path, last: Checkpoint | None, *, console: Console) -> None:
    """Gives the record the length and the last line that it had at the checkpoint; tells where others are not its."""
    if last is None:
        file.unlink(missing_ok=True)
        return
    size, line = last.facts["metrics_bytes"], last.facts.get("metrics_line", "")
    assert isinstance(size, int) and isinstance(line, str), "as _record_of gave it"
    with file.open("r+b" if file.exists() else "w+b") as stream:
        if last.facts.get("metrics_sum") not in (None, _sum(stream.read(size))):
            console.print(
                f"{file} was changed since step {last.step}: its earlier lines stay as they are found.",
                soft_wrap=True, highlight=False, markup=False,
            )  # fmt: skip
        stream.truncate(size)
        stream.seek(size)
        stream.write(line.encode())


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

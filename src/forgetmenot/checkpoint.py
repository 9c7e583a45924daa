"""A checkpoint on disk: a folder that is written under another name, synced, and renamed when it is whole.

    checkpoints/step-00000120/
        state.ckpt       what Lightning restores: trained weights, optimizer, schedule, loops, random numbers
        best*.ckpt       the best weights so far, under select=best
        *.rank-N.ckpt    both as the other ranks hold them, where ranks share weights out
        manifest.json    the step, facts of the run, and the size and SHA-256 of each file

The last two are kept: where the newer is damaged, a run goes on from the one before.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from forgetmenot.durable import sync

CHECKPOINTS = "checkpoints"  # in a run's folder
STATE = "state.ckpt"
_MANIFEST = "manifest.json"
_KEPT = 2
_PARTIAL = ".partial-"

Facts = Mapping[str, object]
"""What a run tells of itself beside its state: plain values, as JSON has them."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint: `facts` are what the run told of itself at that step."""

    folder: Path
    step: int
    facts: Facts

    @property
    def state(self) -> Path:
        """The file that Lightning restores."""
        return self.folder / STATE


class DamagedError(ValueError):
    """A checkpoint is not what was written."""


def rank_file(file: Path, rank: int) -> Path:
    """Returns where a rank writes its own of a file that rank 0 writes as `file`, where ranks share weights out."""
    return file if rank == 0 else file.with_name(f"{file.stem}.rank-{rank}{file.suffix}")


def rank_files(file: Path) -> list[Path]:
    """Returns `file` and those of the other ranks that lie beside it."""
    return [file, *sorted(file.parent.glob(f"{file.stem}.rank-*{file.suffix}"))]


def partial_folder(checkpoints: Path, step: int) -> Path:
    """Returns where the checkpoint of `step` is written until it is whole."""
    return checkpoints / f"{_PARTIAL}{step:08}"


def begin(partial: Path) -> None:
    """Makes the folder of a checkpoint that is to be written; what lay there is taken away."""
    _remove(partial)
    partial.mkdir(parents=True)


def seal(partial: Path, *, step: int, facts: Facts) -> Checkpoint:
    """Makes a checkpoint of a folder whose files are written: summed, synced, renamed; older ones make room."""
    files = {file.name: _summed(file) for file in sorted(partial.iterdir())}
    manifest = {"step": step, "facts": dict(facts), "files": files}
    text = json.dumps({**manifest, "sha256": _digest(manifest)}, indent=2)
    (partial / _MANIFEST).write_text(text + "\n", encoding="utf-8")
    for file in partial.iterdir():
        sync(file)
    sync(partial)
    whole = partial.with_name(f"step-{step:08}")
    _remove(whole)  # of an attempt that ended between here and its next step
    partial.rename(whole)
    sync(whole.parent)
    for old in list(_newest_first(whole.parent))[_KEPT:]:
        _remove(old)
    return Checkpoint(folder=whole, step=step, facts=facts)


def read(folder: Path) -> Checkpoint:
    """Returns the checkpoint in `folder`; raises DamagedError where a file is not what was written."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        told = manifest.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{folder / _MANIFEST} cannot be read") from error
    if told != _digest(manifest):
        raise DamagedError(f"{folder / _MANIFEST} is not what was written")
    step, facts, files = (manifest.get(name) for name in ("step", "facts", "files"))
    if not (isinstance(step, int) and isinstance(facts, dict) and isinstance(files, dict) and STATE in files):
        raise DamagedError(f"{folder / _MANIFEST} must tell a step, facts and files with {STATE}, and does not")
    if folder.name != f"step-{step:08}":
        raise DamagedError(f"{folder} must hold the checkpoint that it is named by, and has that of step {step}")
    for name, summed in files.items():
        if not (folder / name).is_file() or _summed(folder / name) != summed:
            raise DamagedError(f"{folder / name} is not what was written")
    return Checkpoint(folder=folder, step=step, facts=facts)


def any_kept(checkpoints: Path) -> bool:
    """Tells whether a checkpoint lies there, whole or not: reading it is for the run that goes on."""
    return next(_newest_first(checkpoints), None) is not None


def newest_step(checkpoints: Path) -> int | None:
    """Returns the step of the newest checkpoint, which was not read; None where there is none."""
    newest = next(_newest_first(checkpoints), None)
    return None if newest is None else int(newest.name.removeprefix("step-"))


def newest_whole(
    checkpoints: Path, *, facts: Mapping[str, type] | None = None
) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """Returns the newest checkpoint that is whole, None where there is none, and what is wrong with newer ones.

    A whole one tells the `facts`, each of its type.
    """
    damaged: list[str] = []
    for folder in _newest_first(checkpoints):
        try:
            checkpoint = read(folder)
            _check_facts(checkpoint, facts or {})
            return checkpoint, tuple(damaged)
        except DamagedError as error:
            damaged.append(str(error))
    return None, tuple(damaged)


def _check_facts(checkpoint: Checkpoint, facts: Mapping[str, type]) -> None:
    lacking = [name for name, kind in facts.items() if not isinstance(checkpoint.facts.get(name), kind)]
    if lacking:
        file = checkpoint.folder / _MANIFEST
        raise DamagedError(f"{file} must tell of its run by {', '.join(lacking)}, and does not")


def remove_newer(checkpoints: Path, *, than: int) -> None:
    """Takes away what a run that goes on from the checkpoint of a step has left since: damaged ones, and halves."""
    for folder in (*_newest_first(checkpoints), *checkpoints.glob(f"{_PARTIAL}*")):
        if folder.name > f"step-{than:08}" or folder.name.startswith(_PARTIAL):
            _remove(folder)


def remove_all(checkpoints: Path) -> None:
    """Takes away what a run that is complete no longer needs in order to go on."""
    for folder in (*_newest_first(checkpoints), *checkpoints.glob(f"{_PARTIAL}*")):
        _remove(folder)
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()


def _newest_first(checkpoints: Path) -> Iterator[Path]:
    """Yields what lies there by the name of a checkpoint."""
    named = (path for path in checkpoints.glob("step-*") if re.fullmatch(r"step-[0-9]+", path.name))
    return iter(sorted(named, reverse=True))


def _remove(path: Path) -> None:
    """Takes away what lies there, if anything: a folder, or a file or link by its name, which no run leaves."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _summed(file: Path) -> dict[str, object]:
    with file.open("rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _digest(manifest: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()

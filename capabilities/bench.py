"""Where probes run: a folder with the materials, and commands in processes of their own inside of it."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from capabilities import child
from capabilities.answer import Answer, NotYes, hold
from capabilities.materials import weight_files, write_materials

_TRAIN = Path(__file__).resolve().parents[1] / "train.py"
_SECONDS = 300  # after which a command hangs; the slowest takes about 20 where nothing else runs

TINY = (
    "data=mood", "data.retained=[number]", "trainer=cpu", "logger=none", "precision=fp32", "epochs=1", "batch_size=8",
    "max_length=128",
)  # fmt: skip
"""What makes a run tiny; the settings of a probe follow and count more."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs commands in `place`, so that no message of theirs holds a path of this machine."""

    place: Path
    trained: dict[str, Path] = field(default_factory=dict)
    """The runs that several probes look at, by what they were trained with."""

    @classmethod
    def at(cls, place: Path) -> "Bench":
        """Returns a bench in the empty folder `place`, with the materials written."""
        write_materials(place)
        return cls(place=place)

    def train(self, method: str, *settings: str, model: str = "qwen2", ranks: int = 1) -> Path:
        """Returns the folder of a run of a few steps; ends the probe where it does not end well."""
        family = "causal" if model == "qwen2" else "seq2seq"
        words = [f"method={method}", f"model={family}", f"model.path={model}", *TINY, *settings]
        key = " ".join((*words, str(ranks)))
        if key not in self.trained:
            self.trained[key] = self.run("train", *words, to=self._folder(method), key="hydra.run.dir", ranks=ranks)
        return self.trained[key]

    def ended(self, method: str) -> Path | None:
        """Returns the folder of a run that SIGTERM ended after its first step; None for one that takes no step."""
        words = [f"method={method}", "model=causal", "model.path=qwen2", *TINY]
        to = self._folder(method)
        errors = self._errors()
        code = self._in_child(["train", "--config-dir", "conf", *words, f"hydra.run.dir={to}"], errors, ends_after=1)
        hold(code in (0, 128 + signal.SIGTERM), f"ended by SIGTERM with exit code {code}")
        return Path(to) if code else None

    def resume(self, run: Path) -> None:
        """Goes on with a run; ends the probe where it does not end well."""
        told = self._fork(["train", "--config-dir", "conf", f"resume={run}"])
        hold(told is None, f"a run that was ended cannot go on: {told}")

    def evaluate(self, run: Path | str, *settings: str) -> Path:
        """Returns the folder of an evaluation."""
        return self.run("evaluate", f"run={run}", *settings, to=self._folder("evaluate"), key="hydra.run.dir")

    def export(self, run: Path) -> Path:
        """Returns the folder of the plain model that a run is merged into."""
        return self.run("export", f"run={run}", to=self._folder("export"), key="to")

    def run(self, command: str, *settings: str, to: str, key: str, ranks: int = 1) -> Path:
        """Runs a command that writes the folder `to`, and returns it.

        Ends the probe where it is refused, having tried that the same is said when no weights can be read.
        """
        words = [command, "--config-dir", "conf", *settings]
        start = self._fork if ranks == 1 else self._start
        told = start([*words, f"{key}={to}"])
        if told is None:
            return Path(to)
        with self._damaged_weights():
            again = start([*words, f"{key}={to}_again"])
        hold(told == again, f"refused with {told!r}, but without weights {again!r}")
        raise NotYes(Answer(kind="refused", reason=told))

    def _folder(self, kind: str) -> str:
        return f"runs/{len(list(self.place.glob('*.stderr')))}_{kind}"

    def _fork(self, words: Sequence[str]) -> str | None:
        """Runs a command in a child that has imported everything already; returns the sentence of a refusal."""
        errors = self._errors()
        return refusal(self._in_child(words, errors), errors.read_text(encoding="utf-8"))

    def _in_child(self, words: Sequence[str], errors: Path, *, ends_after: int | None = None) -> int | None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([child.__name__])
        errors.touch()
        given = {"place": self.place, "errors": errors, "ends_after": ends_after}
        process = context.Process(target=child.run, args=(list(words),), kwargs=given)
        process.start()
        process.join(_SECONDS)
        process.kill()
        process.join()
        return process.exitcode

    def _start(self, words: Sequence[str]) -> str | None:
        """Runs `train.py` anew, which starts other ranks by its path; returns the sentence of a refusal."""
        errors = self._errors()
        environment = {**os.environ, **child.environment(self.place)}
        with errors.open("w", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                [sys.executable, str(_TRAIN), *words[1:]], cwd=self.place, env=environment,
                stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a rank that waits for another one never ends
        return refusal(process.wait(), errors.read_text(encoding="utf-8"))

    def _errors(self) -> Path:
        return self.place / f"{len(list(self.place.glob('*.stderr')))}.stderr"

    @contextlib.contextmanager
    def _damaged_weights(self) -> Iterator[None]:
        """Takes the weights away from all that was written, and puts them back."""
        files = [*weight_files(self.place), *(self.place / "runs").glob("**/*.safetensors")]
        for file in files:
            file.rename(file.with_suffix(".kept"))
            file.write_text("damaged")
        try:
            yield
        finally:
            for file in files:
                file.with_suffix(".kept").rename(file)


def refusal(code: int | None, stderr: str) -> str | None:
    """Returns the one sentence of a command that refused, None where it ended well; else the probe is a fault."""
    if code == 0:
        return None
    lines = stderr.strip().splitlines()
    refused = code == 1 and len(lines) == 1 and lines[0].startswith("error: ")
    last = lines[-1] if lines else "nothing"
    hold(refused, f"exit code {code} and {len(lines)} lines on stderr, the last: {last}")
    return last.removeprefix("error: ")

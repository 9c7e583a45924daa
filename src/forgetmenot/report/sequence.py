"""Tasks learned one after another: how each is done after every stage, and what learning the next does to it.

Average accuracy and backward transfer as Lopez-Paz and Ranzato 2017 define them (https://arxiv.org/abs/1706.08840,
section 3).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from rich.table import Table

from forgetmenot.durable import write_whole
from forgetmenot.forgetting import LOSSES, improvement
from forgetmenot.result import RunResult, TaskSection

FILE_NAME = "sequence.json"


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Scores by stage and task: row 0 is the base, row i the model after task i; None is what was not measured.

    `average` is over all tasks after the last stage, and None where a loss is among them; `backward` is how much better
    earlier tasks were after the last stage than just after their own (below 0: forgotten), None for one task alone.
    """

    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    average: float | None
    backward: float | None

    @classmethod
    def of(cls, stages: Sequence[RunResult]) -> "Transfer":
        """Returns what complete runs come to, each made on the one before."""
        targets = [next(iter(stage.gain or {})) for stage in stages]
        metrics = [_sections(stage)[name]["metric"] for stage, name in zip(stages, targets, strict=True)]
        rows = [_row(stages[0], targets, metrics, when="before")]
        rows += [_row(stage, targets, metrics, when="after") for stage in stages]
        for number, stage in enumerate(stages[1:], start=1):  # what a stage starts from is the model before it
            start = _row(stage, targets, metrics, when="before")
            rows[number] = [old if old is not None else new for old, new in zip(rows[number], start, strict=True)]
        last = [score for score in rows[-1] if score is not None]
        assert len(last) == len(targets), "every stage retains the targets before it"
        earlier = list(enumerate(metrics))[:-1]
        moved = [improvement(metric, before=_known(rows[i + 1][i]), after=last[i]) for i, metric in earlier]
        return cls(
            tasks=tuple(targets),
            metrics=tuple(metrics),
            scores=tuple(map(tuple, rows)),
            average=None if set(metrics) & set(LOSSES) else mean(last),
            backward=mean(moved) if moved else None,
        )

    def write(self, folder: Path) -> None:
        """Writes sequence.json whole or not at all."""
        text = json.dumps({"schema_version": 1, **asdict(self)}, indent=2, allow_nan=False, ensure_ascii=False)
        write_whole(folder / FILE_NAME, text + "\n")

    def table(self) -> Table:
        """Returns one row a stage and one column a task."""
        table = Table(title="what the model scores after each task", pad_edge=False)
        table.add_column("after")
        for task, metric in zip(self.tasks, self.metrics, strict=True):
            table.add_column(f"{task}, {metric}", justify="right")
        for stage, row in zip(("the base", *self.tasks), self.scores, strict=True):
            table.add_row(stage, *("" if score is None else f"{score:.3f}" for score in row))
        return table

    def sentence(self) -> str:
        """Returns both figures in one sentence."""
        metric = self.metrics[0] if len(set(self.metrics)) == 1 else "score"
        average = "" if self.average is None else f"Average {metric} {self.average:.3f}"
        backward = "" if self.backward is None else f"backward transfer {self.backward:+.3f} (below 0: forgotten)"
        told = ", ".join(part for part in (average, backward) if part)
        return f"{told[:1].upper()}{told[1:]}." if told else "One task alone has no transfer."


def _sections(stage: RunResult) -> dict[str, TaskSection]:
    assert stage.tasks is not None, "complete runs have them"
    return stage.tasks


def _row(stage: RunResult, targets: Sequence[str], metrics: Sequence[str], *, when: str) -> list[float | None]:
    """Returns the stage's score of every task, before or after it was trained."""
    row: list[float | None] = []
    for name, metric in zip(targets, metrics, strict=True):
        section = _sections(stage).get(name)
        scores = None if section is None else section["before"] if when == "before" else section["after"]
        row.append(None if scores is None else scores[metric])
    return row


def _known(score: float | None) -> float:
    assert score is not None, "a stage scores its own target"
    return score

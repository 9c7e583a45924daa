"""The figures that stand side by side of groups of runs, in a terminal and on the page alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from forgetmenot.report.runs import (
    Group,
    Reader,
    after,
    forgetting,
    forgotten,
    gain,
    gained,
    hardware,
    mean_forgetting,
    mixed_targets,
    peak,
    seconds,
)
from forgetmenot.result import RunResult


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of each group: what reads it, and how it is shown.

    `better` reads how much better a run is by it, where groups are judged by it, and the answers to `task` tell whether
    that is chance; of a mean over targets none do.
    """

    heading: str
    read: Reader
    digits: int = 3
    sign: str = ""
    better: Reader | None = None
    task: str = ""

    def shown(self, group: Group) -> str:
        """Returns what stands in a table for `group`."""
        return spread(group.values(self.read), digits=self.digits, sign=self.sign)


def figures(groups: Sequence[Group]) -> list[Figure]:
    """Returns the target after, gain, forgetting task by task, and cost.

    Of several targets `after` and `gain` are means, and each has its own gain behind them.
    """
    mixed = mixed_targets(groups)
    retained = list(dict.fromkeys(name for group in groups for run in group.runs for name in forgetting(run.result)))
    target = "" if mixed else next(iter(groups[0].runs[0].result.gain or {}), "")
    return [
        Figure(heading="after", read=after),
        Figure(heading="gain", read=gain, sign="+", better=gain, task=target),
        *(
            Figure(heading=f"gain {name}", read=gained(name), sign="+", better=gained(name), task=name)
            for name in mixed
        ),
        Figure(heading="forgetting", read=mean_forgetting, sign="+"),
        *(Figure(heading=name, read=forgotten(name), sign="+", better=_kept(name), task=name) for name in retained),
        Figure(heading="trained %", read=_trained, digits=1),
        Figure(heading="train s", read=seconds, digits=0),
        Figure(heading="peak GB", read=peak, digits=2),
    ]


def unlike_hardware(groups: Sequence[Group]) -> list[str]:
    """Returns what each group computed on where that is not the same: costs then say nothing about the runs.

    Where it is the same there is nothing to tell.
    """
    machines = [list(dict.fromkeys(map(hardware, group.runs))) for group in groups]
    return ["; ".join(each) for each in machines] if len({name for each in machines for name in each}) > 1 else []


def spread(values: Sequence[float], *, digits: int = 3, sign: str = "") -> str:
    """Returns mean ± standard deviation (n - 1); of one value itself, of none nothing."""
    if not values:
        return ""
    text = format(mean(values), f"{sign}.{digits}f")
    return text if len(values) == 1 or digits < 3 else f"{text} ± {stdev(values):.{digits}f}"


def _trained(result: RunResult) -> float | None:
    return result.method and result.method["trainable_percent"]


def _kept(task: str) -> Reader:
    """Returns what reads how much of a task was kept: what was forgotten, turned round."""
    read = forgotten(task)
    return lambda result: None if (lost := read(result)) is None else -lost

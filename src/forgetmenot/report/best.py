"""Which runs of a sweep are best by its objective."""

from collections.abc import Sequence
from statistics import mean

from forgetmenot.report.runs import Group
from forgetmenot.result import ObjectiveSection

_VALIDATION = "val."  # every other objective reads the test split


def best_sentences(groups: Sequence[Group]) -> list[str]:
    """Returns one sentence for each data set: which groups are best, seeds in the mean, and by what.

    Groups that are judged by different objectives, or by none that is known, are not told apart.
    """
    of_data: dict[str, list[Group]] = {}
    for group in groups:
        of_data.setdefault(group.runs[0].kind[1], []).append(group)
    found = [(name, _best(members)) for name, members in of_data.items() if len(members) > 1]
    return [f"on {name}, {sentence}" if len(of_data) > 1 else sentence for name, sentence in found if sentence]


def _best(groups: Sequence[Group]) -> str | None:
    known = {id(group): _objectives(group) for group in groups}
    judged = {(each["name"], each["direction"]) for objectives in known.values() for each in objectives}
    if len(judged) != 1:
        return None
    ((name, direction),) = judged
    means = [(mean(values), group) for group in groups if (values := _values(known[id(group)]))]
    if not means:
        return None
    pick, kind = (max, "highest") if direction == "max" else (min, "lowest")
    value = pick(each for each, _ in means)
    best = [group for each, group in means if each == value]
    several = " in the mean over seeds" if any(len(group.runs) > 1 for group in best) else ""
    test = "" if name.startswith(_VALIDATION) else f"; {name} reads the test split, so its scores are no longer unseen"
    return f"best by {name} ({kind}): {' and '.join(group.label for group in best)}, {value:.3f}{several}{test}"


def _objectives(group: Group) -> list[ObjectiveSection]:
    return [run.result.objective for run in group.runs if run.result.objective is not None]


def _values(objectives: Sequence[ObjectiveSection]) -> list[float]:
    return [each["value"] for each in objectives if each["value"] is not None]

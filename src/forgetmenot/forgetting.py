"""What a run gained and what it forgot: plain scores in, plain numbers out.

gain is how much better a target became, forgetting how much worse a retained task became: positive is always worse.
What the base could not do cannot be forgotten, so it does not count towards the mean.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TypeVar

import numpy as np

Value = TypeVar("Value", float, np.ndarray)
"""A number, or what it is in each of many resamples."""

LOSSES = ("loss", "bits_per_byte")
"""Scores that fall as a model gets better."""

LOSS_ONLY = "loss only"
BASE_CANNOT = "base cannot do it"
BY_CONSTRUCTION = "zero by construction"
_SIGNIFICANT = 1.645  # one-sided 5% point of the normal distribution


def improvement(metric: str, *, before: Value, after: Value) -> Value:
    """Returns how much better `metric` became: scores rise, losses fall."""
    better: Value = before - after if metric in LOSSES else after - before
    return better


def mean_over_targets(values: Mapping[str, Value], metrics: Mapping[str, str]) -> Value:
    """Returns the mean over the targets that are scored by answers; where none is, over all of them.

    A loss and an accuracy have no mean. `metrics` names the metric of each.
    """
    answered = [value for task, value in values.items() if metrics[task] not in LOSSES]
    meant = answered or list(values.values())
    return sum(meant[1:], start=meant[0]) / len(meant)


def reason_not_counted(answers: Sequence[float], constant: Sequence[float]) -> str | None:
    """Returns why a retained task does not count towards the mean, or None where it does.

    It counts where the base's answers, scored one by one, are significantly better than one constant answer's (paired,
    one-sided, 5%).
    """
    differences = [answer - other for answer, other in zip(answers, constant, strict=True)]
    if len(differences) < 2:
        return BASE_CANNOT
    margin = _SIGNIFICANT * stdev(differences) / math.sqrt(len(differences))
    return None if mean(differences) > margin else BASE_CANNOT


def counts(reason: str | None) -> bool:
    """Tells whether a retained task with this reason counts towards the mean: a 0 by construction is a 0 that holds."""
    return reason in (None, BY_CONSTRUCTION)


def mean_forgetting(forgetting: Mapping[str, Value], reasons: Mapping[str, str | None]) -> Value | None:
    """Returns the mean over the tasks that count; None, never 0, where there is none."""
    counted = [value for task, value in forgetting.items() if counts(reasons[task])]
    return sum(counted[1:], start=counted[0]) / len(counted) if counted else None

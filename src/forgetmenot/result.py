"""RunResult and result.json: the contract between a run and everything that reads runs.

Numbers are numbers; times in seconds, sizes in bytes, losses in nats a token. What is not known (yet) is null, and NaN
never appears.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Literal, NotRequired, Self, TypedDict

from forgetmenot.durable import write_whole
from forgetmenot.forgetting import mean_over_targets

SCHEMA_VERSION = 1
FILE_NAME = "result.json"
EARLIER_ATTEMPTS = "earlier_attempts"  # in a run's folder: what was written there before it ran again

Status = Literal["complete", "failed", "interrupted"]
Role = Literal["target", "retained"]
Scores = dict[str, float]
Interval = tuple[float, float]
"""The lower and the upper end of a 95% interval."""


def now() -> str:
    """Returns this moment in ISO 8601, to the millisecond: runs of one second keep their order."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


class ModelSection(TypedDict):
    """The base model."""

    name: str
    architecture: Literal["causal", "seq2seq"]
    parameters: int


class HardwareSection(TypedDict):
    """The machine, and the precision that it computed in."""

    device: str
    devices: int
    threads: int
    precision: str


class MethodSection(TypedDict):
    """The method; `trainable_percent` is of the base's parameters, `saved_bytes` null until it is saved."""

    name: str
    lr: float | None
    trainable_parameters: int
    trainable_percent: float
    saved_bytes: int | None


class DataSection(TypedDict):
    """The target's examples: how many a split has, and how many did not fit as they are.

    Of several targets, all together; `mixture` then says what each is of the mixture. `replayed_examples` counts what
    steps replayed of retained tasks, over the whole run.
    """

    name: str
    train_examples: int
    validation_examples: int
    test_examples: int
    truncated: int
    dropped: int
    replayed_examples: NotRequired[int]
    mixture: NotRequired[dict[str, "MixtureShare"]]


class MixtureShare(TypedDict):
    """A target's share of the training examples and of their tokens, as an epoch is planned."""

    examples: float
    tokens: float


class CostSection(TypedDict):
    """What the run cost: `train_seconds` in optimizer steps alone, `train_tokens` unpadded.

    `loading_seconds` is what training waited for data, on rank 0. An evaluation has trained nothing: nulls.
    """

    train_seconds: float | None
    loading_seconds: float | None
    train_tokens: int | None
    train_tokens_per_second: float | None
    peak_memory_bytes: int | None
    evaluate_seconds: float
    prompt_tokens_per_example: float | None


class TaskIntervals(TypedDict):
    """The interval of every score of a task."""

    before: dict[str, Interval]
    after: dict[str, Interval] | None


class TaskSection(TypedDict):
    """A task's scores; `counted` and `reason` say of a retained one whether it counts towards mean forgetting."""

    role: Role
    metric: str
    examples: int
    counted: NotRequired[bool]
    reason: NotRequired[str | None]
    before: Scores
    after: Scores | None
    ci: NotRequired[TaskIntervals]


class ForgettingSection(TypedDict):
    """How much worse each retained task became; `mean` is null where none counts."""

    tasks: Scores
    mean: float | None


class ForgettingIntervals(TypedDict):
    """The intervals of what ForgettingSection tells."""

    tasks: dict[str, Interval]
    mean: Interval | None


class DriftSection(TypedDict):
    """How far the model moved from its base, in answers and in weights.

    `kl` is KL(base, adapted) in nats a token over each retained task, with its interval (not in files written before
    they were known); `weights` the distance of all weights over the base's norm.
    """

    kl: Scores
    kl_ci: NotRequired[dict[str, Interval]]
    weights: float


class ObjectiveSection(TypedDict):
    """What a sweep judges the run by: a score of validation examples, or `gain`, `forgetting.mean`, `after.<score>`."""

    name: str
    value: float | None
    direction: Literal["max", "min"]


@dataclass(kw_only=True)
class RunResult:
    """Everything that is known of a run; it is filled as the run goes on, so an interrupted one tells what it knew."""

    schema_version: int = SCHEMA_VERSION
    status: Status = "interrupted"
    error: str | None = None
    name: str = ""
    overrides: list[str] = field(default_factory=list)
    seed: int | None = None
    started: str = ""
    seconds: float | None = None
    model: ModelSection | None = None
    hardware: HardwareSection | None = None
    reused: list[str] = field(default_factory=list)
    method: MethodSection | None = None
    data: DataSection | None = None
    cost: CostSection | None = None
    tasks: dict[str, TaskSection] | None = None
    gain: Scores | None = None
    gain_ci: dict[str, Interval] | None = None
    gain_mean: float | None = None
    """How much better the targets became, in the mean; of one target its own gain."""
    gain_mean_ci: Interval | None = None
    forgetting: ForgettingSection | None = None
    forgetting_ci: ForgettingIntervals | None = None
    drift: DriftSection | None = None
    objective: ObjectiveSection | None = None
    versions: dict[str, str] | None = None
    git_commit: str | None = None

    @property
    def targets(self) -> dict[str, TaskSection]:
        """The tasks that were tuned for."""
        return {name: task for name, task in (self.tasks or {}).items() if task["role"] == "target"}

    def mean_over_targets(self, values: Scores) -> float | None:
        """Returns the mean of what each target came to, by the house's rule; None where there is none."""
        known = {name: value for name, value in values.items() if value is not None}
        metrics = {name: task["metric"] for name, task in self.targets.items()}
        return mean_over_targets(known, metrics) if known else None

    @property
    def after_mean(self) -> float | None:
        """The targets' own metrics after, in the mean."""
        after = {name: task["after"][task["metric"]] for name, task in self.targets.items() if task["after"]}
        return self.mean_over_targets(after)

    def write(self, folder: Path) -> None:
        """Writes result.json whole or not at all."""
        text = json.dumps(_finite(asdict(self)), indent=2, allow_nan=False, ensure_ascii=False)
        write_whole(folder / FILE_NAME, text + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads a run's result.json; raises ValueError where it is none that this version understands."""
        file = folder / FILE_NAME
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:  # no JSON, or no text
            raise ValueError(f"{file} must be JSON, got {error}") from error
        if not isinstance(values, dict) or values.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"{file} must be a result of schema_version {SCHEMA_VERSION}")
        known = {f.name for f in fields(cls)}
        result = cls(**{key: value for key, value in values.items() if key in known})
        if "gain_mean" not in values:
            try:
                result._fill_mean_gain()
            except (AttributeError, KeyError, TypeError) as error:
                raise ValueError(f"{file} must be a whole result, got one of which parts are no more") from error
        return result

    def _fill_mean_gain(self) -> None:
        """Fills what older files lack; the interval of several targets' mean follows from answers, not from theirs."""
        self.gain_mean = self.mean_over_targets(self.gain or {})
        if self.gain_ci is not None and len(self.gain_ci) == 1:
            (self.gain_mean_ci,) = self.gain_ci.values()


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The root keys of the commands: what is not a choice of a group."""

import math
from dataclasses import dataclass
from typing import Literal

TRAINER_KEYS_OF_OURS = {
    "precision": "precision",
    "max_epochs": "epochs",
    "max_steps": "max_steps",
    "accumulate_grad_batches": "micro_batch_tokens",
    "gradient_clip_val": "optimizer.clip_norm",
    "limit_train_batches": "max_steps",
    "limit_val_batches": "data.max_validation",
    "limit_test_batches": "a data set with fewer test rows",
    "fast_dev_run": "max_steps",
    "overfit_batches": "a data set with fewer train rows",
    "logger": "logger",
    "callbacks": "this project alone",
    "plugins": "this project alone",
    "enable_checkpointing": "select",
    "enable_progress_bar": "this project alone",
    "enable_model_summary": "this project alone",
    "use_distributed_sampler": "this project alone",
}
"""Arguments of lightning.Trainer that have a key of ours; a run is always scored on the whole test split."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long, how large, how exact and by what a run is judged; conf/train.yaml holds the values."""

    seed: int
    epochs: int | None
    max_steps: int | None
    batch_size: int
    micro_batch_tokens: int | Literal["auto"]
    max_length: int
    precision: Literal["auto", "fp32", "bf16"]
    objective: str | None
    direction: Literal["max", "min"] | None = None  # as in the settings of runs that did not know it
    select: Literal["last", "best"]
    patience: int | None
    group_by_length: bool
    plugins: tuple[str, ...]
    resume: str | None = None  # as above
    checkpoint_steps: int | None = None  # as above
    checkpoint_minutes: float | None = None  # as above

    def __post_init__(self) -> None:
        for name in ("epochs", "max_steps", "batch_size", "micro_batch_tokens", "patience", "checkpoint_steps"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes > 0:
            raise ValueError(f"checkpoint_minutes must be above 0, got {self.checkpoint_minutes}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be at least 0 and below 2**32, got {self.seed}")
        if self.max_length < 8:
            raise ValueError(f"max_length must be at least 8 tokens, got {self.max_length}")
        if self.epochs is None and self.max_steps is None:
            raise ValueError("epochs must be a whole number where max_steps is null, got null")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` scores and how; null takes the run's own. conf/evaluate.yaml holds the values."""

    run: str
    num_shots: int
    seed: int
    max_length: int | None
    precision: Literal["auto", "fp32", "bf16"] | None
    plugins: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.num_shots < 0:
            raise ValueError(f"num_shots must be at least 0, got {self.num_shots}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be at least 0 and below 2**32, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a model or a run is taken: asked in its chat template or as it is, and whether code that comes with it runs.

    A null `chat` takes the run's.
    """

    chat: bool | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Export:
    """What `export` merges, and where it writes to; conf/export.yaml holds the values."""

    run: str
    to: str

    def __post_init__(self) -> None:
        if not self.to.strip():
            raise ValueError("to must be a folder, got none")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What `ask` asks; conf/ask.yaml holds the values."""

    run: str
    prompt: str
    max_new_tokens: int | None

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError("prompt must be text, got none")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


_MOST_GB = 1_000_000  # of one device: more are bytes by mistake, or no longer finite in bytes
_MOST_FLOPS = 1e21  # of one device: as many as a million GPUs of some 1e15


@dataclass(frozen=True, kw_only=True)
class Planning:
    """What `plan` plans for beside the run's own settings; conf/plan.yaml holds the values."""

    device: Literal["auto", "cpu", "cuda"]
    memory_gb: float | None
    flops_per_second: float | None
    lengths: Literal["data", "max_length"]

    def __post_init__(self) -> None:
        for name in ("memory_gb", "flops_per_second"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        if self.memory_gb is not None and self.memory_gb > _MOST_GB:
            raise ValueError(f"memory_gb must be at most {_MOST_GB:,} GB, got {self.memory_gb}")
        if self.flops_per_second is not None and not 1 <= self.flops_per_second <= _MOST_FLOPS:
            raise ValueError(f"flops_per_second must be from 1 to {_MOST_FLOPS:.0e}, got {self.flops_per_second}")

    @property
    def memory(self) -> int | None:
        """The bytes of a device, where they were given."""
        return None if self.memory_gb is None else int(self.memory_gb * 1e9)

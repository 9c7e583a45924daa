"""Builds what a run is made of from its config, and checks all that can be checked before any weight is read."""

from collections.abc import Callable
from dataclasses import dataclass

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from forgetmenot.config.build import build, build_partial, check_arguments, plain
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.settings import Settings
from forgetmenot.data.collate import Collator
from forgetmenot.data.encode import Encoder
from forgetmenot.data.examples import TaskExamples, read_examples
from forgetmenot.data.task import Task
from forgetmenot.method.base import Method
from forgetmenot.model.budget import micro_batch_tokens
from forgetmenot.model.load import Model, ModelFacts, load_tokenizer, lr_scale, read_config, read_facts
from forgetmenot.regularizer.base import Regularizer
from forgetmenot.result import Facts
from forgetmenot.trainer import Precision, choose_precision, refuse_owned

_GROUPS = ("model", "data", "method", "regularizer", "optimizer", "schedule", "trainer", "logger")
_OPTIMIZER_KEYS = ("lr", "weight_decay", "clip_norm")  # ours: the rest goes to the optimizer's class


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The parts of a run, checked."""

    settings: Settings
    model: Model
    model_config: PretrainedConfig
    facts: ModelFacts
    tokenizer: PreTrainedTokenizerBase
    method: Method
    regularizers: tuple[Regularizer, ...]
    target: TaskExamples
    retained: tuple[TaskExamples, ...]
    make_optimizer: Callable[..., Optimizer]
    make_schedule: Callable[..., LRScheduler]
    make_logger: Callable[..., Logger] | None
    lr: float
    weight_decay: float
    clip_norm: float | None
    trainer: dict[str, object]
    precision: Precision
    micro_batch_tokens: int

    @property
    def model_facts(self) -> Facts:
        """The model section of result.json."""
        return {"name": self.model.name, "architecture": self.facts.architecture, "parameters": self.facts.parameters}

    @property
    def monitor(self) -> str:
        """What select=best and patience watch: the target's own metric on validation examples."""
        return f"val/{self.target.task.metric}"

    @property
    def objective(self) -> str:
        """What a sweep judges the run by."""
        return self.settings.objective or f"val.{self.target.task.metric}"

    def total_steps(self, steps_per_epoch: int) -> int:
        """Returns the optimizer steps of the whole run, by epochs or max_steps, whichever ends first."""
        by_epochs = None if self.settings.epochs is None else self.settings.epochs * steps_per_epoch
        return min(steps for steps in (by_epochs, self.settings.max_steps) if steps is not None)

    @property
    def encoder(self) -> Encoder:
        """Turns examples into ids; virtual tokens take their share of max_length, before and after alike."""
        return Encoder(
            tokenizer=self.tokenizer,
            max_length=self.settings.max_length - self.method.virtual_tokens,
            truncate="left",
            is_encoder_decoder=self.facts.is_encoder_decoder,
        )

    def collator(self, *, virtual_tokens: int) -> Collator:
        """Pads for the base (no virtual tokens) or for the adapted model."""
        return Collator(
            pad_id=self.tokenizer.pad_token_id,
            num_virtual_tokens=virtual_tokens,
            first_virtual_id=self.facts.embedding_rows,
            decoder_start_id=self.facts.decoder_start_id,
        )


def set_up(config: DictConfig) -> Setup:
    """Returns the run's parts; raises ConfigError or ValueError in one sentence."""
    groups = {name: config.get(name) for name in _GROUPS}
    for name in ("model", "data", "method", "regularizer", "optimizer", "schedule", "trainer"):
        if groups[name] is None and name != "regularizer":
            raise ConfigError(f"{name} must be one of conf/{name}, got null")
    root = DictConfig({key: value for key, value in config.items() if key not in _GROUPS})
    settings = build(root, Settings, key="")
    plugins = settings.plugins

    model = build(config.model, Model, key="model")
    method = build(config.method, Method, key="method", plugins=plugins)
    regularizers = _regularizers(config, plugins=plugins)
    target, retained = _tasks(config)
    optimizer = plain(config.optimizer, key="optimizer")
    make_optimizer = build_partial(config.optimizer, Optimizer, key="optimizer", ours=_OPTIMIZER_KEYS, plugins=plugins)
    make_schedule = build_partial(config.schedule, LRScheduler, key="schedule", plugins=plugins)
    make_logger = build_partial(config.logger, Logger, key="logger", plugins=plugins) if config.get("logger") else None
    trainer = _trainer_values(config)

    model_config = read_config(model)
    facts = read_facts(model, model_config)
    _check_lengths(settings, facts, method=method, tasks=(target, *retained))
    tokenizer = load_tokenizer(model)
    own_lr = optimizer.get("lr")
    auto = settings.micro_batch_tokens == "auto"
    return Setup(
        settings=settings,
        model=model,
        model_config=model_config,
        facts=facts,
        tokenizer=tokenizer,
        method=method,
        regularizers=regularizers,
        target=_trainable(read_examples(target, seed=settings.seed), settings),
        retained=tuple(read_examples(task, seed=settings.seed) for task in retained),
        make_optimizer=make_optimizer,
        make_schedule=make_schedule,
        make_logger=make_logger,
        lr=method.lr * lr_scale(model, parameters=facts.parameters) if own_lr is None else float(own_lr),
        weight_decay=float(optimizer.get("weight_decay") or 0.0),
        clip_norm=optimizer.get("clip_norm"),
        trainer=trainer,
        precision=choose_precision(settings.precision),
        micro_batch_tokens=micro_batch_tokens(model_config, max_length=settings.max_length)
        if auto
        else settings.micro_batch_tokens,
    )


def _regularizers(config: DictConfig, *, plugins: tuple[str, ...]) -> tuple[Regularizer, ...]:
    if "regularizer" in config and config.regularizer is None:
        raise ConfigError("regularizer must be [], l2_sp or a list of them, got null; regularizer=[] takes none")
    chosen = config.get("regularizer") or {}
    return tuple(build(node, Regularizer, key=f"regularizer.{name}", plugins=plugins) for name, node in chosen.items())


def _tasks(config: DictConfig) -> tuple[Task, tuple[Task, ...]]:
    node = config.data.copy()
    retained = node.pop("retained", None) or []
    target = build(node, Task, key="data")
    return target, tuple(build(entry, Task, key=f"data.retained[{i}]") for i, entry in enumerate(retained))


def _trainer_values(config: DictConfig) -> dict[str, object]:
    values = plain(config.trainer, key="trainer")
    refuse_owned(values)
    check_arguments(values, Trainer, key="trainer")
    return dict(values)


def _check_lengths(settings: Settings, facts: ModelFacts, *, method: Method, tasks: tuple[Task, ...]) -> None:
    if facts.context is not None and settings.max_length > facts.context:
        raise ConfigError(
            f"max_length must be at most the model's context of {facts.context} tokens, got {settings.max_length}"
        )
    answer = max(task.max_new_tokens for task in tasks if task.answers) if any(t.answers for t in tasks) else 1
    needed = method.virtual_tokens + answer + 8
    if settings.max_length < needed:
        raise ConfigError(
            f"max_length must be at least {needed} ({method.virtual_tokens} virtual tokens, {answer} new tokens, 8 of prompt), "
            f"got {settings.max_length}"
        )


def _trainable(target: TaskExamples, settings: Settings) -> TaskExamples:
    if not target.train:
        raise ConfigError(f"data.path must hold a train split, got {target.task.path} without one")
    if not target.validation:
        raise ConfigError(f"data.path must hold a validation split, got {target.task.path} without one")
    return target

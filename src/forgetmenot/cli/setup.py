"""Builds what a run is made of from its config, and checks all that can be checked before any weight is read."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from forgetmenot.answers import warn_of_unseen_letters
from forgetmenot.cli.base import plain_base, shape_of
from forgetmenot.cli.checks import (
    check_lengths,
    check_objective,
    check_padding,
    check_recomputing,
    check_sharing,
    warn_of_a_full_head,
)
from forgetmenot.cli.groups import logger_of, regularizers_of, settings_of, trainer_values
from forgetmenot.config.build import build, build_partial, import_plugins, plain
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import cache_folder
from forgetmenot.config.settings import Settings
from forgetmenot.config.tasks import tasks_of
from forgetmenot.data.chat import Chat
from forgetmenot.data.collate import Collator
from forgetmenot.data.encode import Encoder
from forgetmenot.data.examples import ReadExamples, TaskExamples, read_examples
from forgetmenot.data.mix import Mixing, Replay
from forgetmenot.data.shots import draw_shots, put_before
from forgetmenot.data.task import Task
from forgetmenot.forgetting import LOSSES
from forgetmenot.method.base import Method
from forgetmenot.model.budget import micro_batch_tokens
from forgetmenot.model.facts import ModelFacts, read_facts
from forgetmenot.model.load import Model, empty_model, load_tokenizer, lr_scale, read_config
from forgetmenot.model.options import check_liger, prepare
from forgetmenot.model.quantize import check_quantization
from forgetmenot.optim import Stepping, try_optimizer
from forgetmenot.record import on_rank_zero
from forgetmenot.regularizer.base import Regularizer
from forgetmenot.result import ModelSection
from forgetmenot.scoring import monitored
from forgetmenot.trainer import SHARDED, Precision, choose_precision, uses_cuda

_OPTIMIZER_KEYS = ("lr", "weight_decay", "clip_norm")  # ours: the rest goes to the optimizer's class


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The parts of a run, checked."""

    settings: Settings
    model: Model
    model_config: PretrainedConfig
    facts: ModelFacts
    tokenizer: PreTrainedTokenizerBase
    chat: Chat | None
    method: Method
    regularizers: tuple[Regularizer, ...]
    replay: Replay | None
    mixing: Mixing
    targets: tuple[TaskExamples, ...]
    retained: tuple[TaskExamples, ...]
    make_optimizer: Callable[..., Optimizer]
    make_schedule: Callable[..., LRScheduler]
    make_logger: Callable[..., Logger] | None
    lr: float | None
    weight_decay: float
    clip_norm: float | None
    trainer: dict[str, object]
    precision: Precision
    micro_batch_tokens: int

    @property
    def model_section(self) -> ModelSection:
        """The model section of result.json."""
        return {"name": self.model.name, "architecture": self.facts.architecture, "parameters": self.facts.parameters}

    @property
    def target(self) -> TaskExamples:
        """The first target: a prompt from elsewhere is laid out as its prompts are."""
        return self.targets[0]

    @property
    def monitor(self) -> str:
        """What select=best and patience watch: the target's own metric on validation examples, of several the mean."""
        return monitored({data.task.name: data.task.metric for data in self.targets})

    @property
    def direction(self) -> Literal["min", "max"]:
        """Whether what is watched gets better as it falls: where every target is scored by a loss."""
        return "min" if all(data.task.metric in LOSSES for data in self.targets) else "max"

    def total_steps(self, steps_per_epoch: int) -> int:
        """Returns the optimizer steps of the whole run, by epochs or max_steps, whichever ends first."""
        by_epochs = None if self.settings.epochs is None else self.settings.epochs * steps_per_epoch
        return min(steps for steps in (by_epochs, self.settings.max_steps) if steps is not None)

    @property
    def replayed(self) -> int:
        """How many examples of a whole step are of retained tasks."""
        return self.replay.per_step(self.settings.batch_size) if self.replay else 0

    @property
    def encoder(self) -> Encoder:
        """Turns examples into ids; virtual tokens take their share of max_length, before and after alike."""
        return Encoder(
            tokenizer=self.tokenizer,
            max_length=self.settings.max_length - self.method.virtual_tokens,
            truncate="left",
            is_encoder_decoder=self.facts.is_encoder_decoder,
            chat=self.chat,
            cache=cache_folder() / "encoded",
        )

    def for_scoring(self, *, num_shots: int, seed: int) -> "Setup":
        """Returns the setup of a model that is not trained, with shots before each prompt of every task that answers.

        Only test examples are left to encode.
        """

        def shown(data: TaskExamples) -> TaskExamples:
            shots = draw_shots(data, num_shots, seed=seed) if data.task.answers else ""
            return replace(put_before(data, shots), train=(), validation=())

        targets, retained = (tuple(shown(data) for data in tasks) for tasks in (self.targets, self.retained))
        return replace(self, targets=targets, retained=retained, replay=None)

    @property
    def shares_weights(self) -> bool:
        """Whether each device holds a share of the weights, and a forward pass is an act of all ranks."""
        return self.trainer.get("strategy") == SHARDED

    @property
    def liger(self) -> bool:
        """Whether Liger's kernels are used: they are written for accelerators."""
        return self.model.liger and torch.accelerator.is_available() and self.trainer.get("accelerator") != "cpu"

    @property
    def packs(self) -> bool:
        """Whether rows stand behind each other without padding; a chosen kernel gets padded ones."""
        return self.facts.packs and self.method.packs and self.model.attention == "auto"

    def collator(self, *, virtual_tokens: int) -> Collator:
        """Pads for the base (no virtual tokens) or for the adapted model."""
        outside = self.method.virtual_tokens - self.method.virtual_ids  # a prefix is in no row, and has its positions
        return Collator(
            pad_id=self.tokenizer.pad_token_id,
            num_virtual_tokens=virtual_tokens,
            first_virtual_id=self.facts.embedding_rows,
            decoder_start_id=self.facts.decoder_start_id,
            max_length=self.settings.max_length - outside,
            packs=self.packs,
            shares_prefix=self.facts.shares_prefix and self.precision == "fp32",  # docs/decisions/0011
        )


class LoadTokenizer(Protocol):
    """What gives a model its tokenizer."""

    def __call__(self, model: Model, *, embedding_rows: int) -> PreTrainedTokenizerBase: ...


def set_up(
    config: DictConfig,
    *,
    read: ReadExamples = read_examples,
    tokenize: LoadTokenizer = load_tokenizer,
    merges: bool = True,
) -> Setup:
    """Returns the run's parts, `read` of their examples; raises ConfigError or ValueError in one sentence.

    A finished run as the base is merged into its own, unless `merges` is False: then no weights are read.
    """
    settings = settings_of(config)
    plugins = import_plugins(settings.plugins)

    asked = build(config.model, Model, key="model")
    method = build(config.method, Method, key="method", plugins=plugins)
    regularizers = regularizers_of(config, plugins=plugins)
    replay = build(config.replay, Replay, key="replay") if config.get("replay") else None
    mixing, targets, retained = tasks_of(config.data)
    check_objective(settings.objective, targets)
    optimizer = plain(config.optimizer, key="optimizer")
    make_optimizer = build_partial(config.optimizer, Optimizer, key="optimizer", ours=_OPTIMIZER_KEYS, plugins=plugins)
    make_schedule = build_partial(config.schedule, LRScheduler, key="schedule", plugins=plugins)
    stepping = build(DictConfig({name: optimizer.get(name) for name in _OPTIMIZER_KEYS}), Stepping, key="optimizer")
    try_optimizer(make_optimizer, make_schedule)
    make_logger = logger_of(config, plugins=plugins)
    trainer = trainer_values(config)

    tasks, shares = (*targets, *retained), trainer.get("strategy") == SHARDED
    look_at = partial(_look_at, settings=settings, method=method, tasks=tasks, shares=shares, tokenize=tokenize)
    model = shape_of(asked)
    model_config, facts, tokenizer, chat = look_at(model)
    if merges and (whole := plain_base(asked)) != model:
        model, (model_config, facts, tokenizer, chat) = whole, look_at(whole)
    warn_of_a_full_head(facts, name=model.name)
    setup = Setup(
        settings=settings,
        model=model,
        model_config=model_config,
        facts=facts,
        tokenizer=tokenizer,
        chat=chat,
        method=method,
        regularizers=regularizers,
        replay=replay,
        mixing=mixing,
        targets=tuple(read(task, seed=settings.seed) for task in targets),
        retained=tuple(read(task, seed=settings.seed) for task in retained),
        make_optimizer=make_optimizer,
        make_schedule=make_schedule,
        make_logger=make_logger,
        lr=_learning_rate(method, stepping, scale=lr_scale(model, parameters=facts.parameters)),
        weight_decay=stepping.weight_decay,
        clip_norm=stepping.clip_norm,
        trainer=trainer,
        precision=choose_precision(settings.precision, on_cuda=uses_cuda(trainer)),
        micro_batch_tokens=_micro_batch_tokens(settings, model_config, facts=facts, on_cuda=uses_cuda(trainer)),
    )
    _check_effects(setup)
    return setup


def _check_effects(setup: Setup) -> None:
    """Raises ValueError where Liger has no kernels for the model; warns of what changes nothing, or is not seen."""
    if setup.liger:
        check_liger(setup.model_config)
    elif setup.model.liger:
        on_rank_zero(warnings.warn)("model.liger has no effect on a CPU: it is written for accelerators", stacklevel=4)
    for data in (*setup.targets, *setup.retained):
        if data.task.answers:
            on_rank_zero(warn_of_unseen_letters)(data.task.name, [example.references for example in data.test])


def _look_at(
    model: Model, *, settings: Settings, method: Method, tasks: Sequence[Task], shares: bool, tokenize: LoadTokenizer
) -> tuple[PretrainedConfig, ModelFacts, PreTrainedTokenizerBase, Chat | None]:
    """Returns what is known of a model without its weights; raises ConfigError or ValueError for what cannot be."""
    model_config = read_config(model)
    facts = read_facts(model, model_config)
    check_padding(facts, model=model, config=model_config)
    _check_layers(model, model_config, method=method, shares=shares)
    tokenizer = tokenize(model, embedding_rows=facts.embedding_rows)
    chat = _chat(model, facts, tokenizer=tokenizer)
    check_lengths(settings, facts, method=method, chat=chat, tasks=tasks)
    return model_config, facts, tokenizer, chat


def _check_layers(model: Model, model_config: PretrainedConfig, *, method: Method, shares: bool) -> None:
    """Raises ValueError where the model's layers, of an empty copy, cannot be what the settings make of them."""
    empty = empty_model(model, model_config)
    check_quantization(method.quantization, empty=empty, weights=model.weights)
    check_recomputing(model, method=method)
    if shares:
        check_sharing(empty)
    prepare(method.apply(empty), model)


def _learning_rate(method: Method, stepping: Stepping, *, scale: float) -> float | None:
    """Returns the rate that is used: `optimizer.lr`, or the method's own by the model's size; None for no training."""
    if method.lr is None:
        if stepping.lr is not None:
            on_rank_zero(warnings.warn)(f"optimizer.lr has no effect: {method.name} trains nothing", stacklevel=4)
        return None
    return method.lr * scale if stepping.lr is None else stepping.lr


def _chat(model: Model, facts: ModelFacts, *, tokenizer: PreTrainedTokenizerBase) -> Chat | None:
    if model.chat and facts.is_encoder_decoder:
        raise ConfigError(
            "model.chat must be false for an encoder-decoder, which reads prompts as they are, got true for "
            f"{model.path}"
        )
    return Chat.of(tokenizer) if model.chat else None


def _micro_batch_tokens(settings: Settings, model_config: PretrainedConfig, *, facts: ModelFacts, on_cuda: bool) -> int:
    if settings.micro_batch_tokens != "auto":
        return settings.micro_batch_tokens
    return micro_batch_tokens(
        model_config, max_length=settings.max_length, selects_head=facts.selects_head, on_cuda=on_cuda
    )

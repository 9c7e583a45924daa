"""What a run would take: its parts, set up for a machine that need not be this one, and a step of it without values."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.cli.trainable import check_trainable
from forgetmenot.cli.wiring import data_for, encode
from forgetmenot.config.build import build, import_plugins
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import EMBEDDED_MODEL
from forgetmenot.config.retained import expand_retained
from forgetmenot.config.settings import Planning
from forgetmenot.data.examples import EncodedRun, no_examples, read_examples
from forgetmenot.data.mix import Mixing
from forgetmenot.data.rows import EncodedSplit, Rows
from forgetmenot.datamodule import AdaptationData
from forgetmenot.dry_run import DryStep, dry_step, groups_of, held_always
from forgetmenot.footprint import Groups, Parts, Spread, fullest, on_device
from forgetmenot.heap import LIBRARIES, fits_badly, resident
from forgetmenot.method.base import Method
from forgetmenot.model.budget import micro_batch_tokens
from forgetmenot.model.load import Model, empty_model, load_tokenizer
from forgetmenot.model.options import checkpoint_activations
from forgetmenot.model.packing import use_packed_attention, use_packed_attention_by_kernel
from forgetmenot.model.quantize import check_quantization, quantize_empty
from forgetmenot.optim import parameter_groups
from forgetmenot.trainer import base_dtype, build_trainer

_STEPS = 50  # that are looked at for the largest micro-batch; devices share them


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run's parts for the machine that it is planned for; `rows` are the data's, or of max_length tokens each."""

    setup: Setup
    rows: EncodedRun
    on_cuda: bool
    spread_over: int
    reads_data: bool

    @property
    def has_device(self) -> bool:
        """Whether this machine has such a device."""
        return torch.cuda.is_available() or not self.on_cuda

    @cached_property
    def data(self) -> AdaptationData:
        """The rows, laid out for the adapted model."""
        return data_for(self.setup, self.rows, tests=(), virtual_tokens=self.setup.method.virtual_ids)

    @cached_property
    def cuts(self) -> list[list[np.ndarray]]:
        """The micro-batches of each rank and step that is looked at."""
        ranks = range(self.spread_over)
        steps = range(min(self.setup.total_steps(self.data.plan.steps_per_epoch), max(1, _STEPS // len(ranks))))
        plan = self.data.plan
        every = [plan.cuts(step, rank=rank, world_size=len(ranks)) for step in steps for rank in ranks]
        return [[cut for cut, _ in cuts] for cuts in every]

    def tokens(self, cut: np.ndarray) -> int:
        """Returns what a micro-batch holds, padding among it."""
        lengths = self.data.plan.lengths[cut]
        return int(lengths.sum() if self.data.plan.packed else len(cut) * lengths.max())

    @property
    def largest(self) -> np.ndarray:
        """The micro-batch of the most tokens."""
        return max((cut for cuts in self.cuts for cut in cuts), key=self.tokens)

    @property
    def tokens_per_step(self) -> float:
        """The tokens of a step in the mean, over all devices."""
        each = [sum(map(self.tokens, cuts)) for cuts in self.cuts]
        return self.spread_over * sum(each) / len(each)

    def spread(self, devices: int, *, shares: bool) -> Spread:
        """Returns how a step is spread over `devices`, which share weights or not."""
        several = max(map(len, self.cuts)) > 1
        return Spread(devices=devices, strategy="one" if devices == 1 else "fsdp" if shares else "ddp", several=several)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a step of a planned run takes on one device that holds all alone, and how it is spread in fact."""

    step: DryStep
    groups: Groups
    spread: Spread
    parameters: int
    trained: int
    penalties: int
    untold: tuple[str, ...]
    """Regularizers whose penalties hold what is not known yet."""
    flops_per_step: float
    on_cuda: bool
    mapped: int
    """Bytes of a weights' file that stay in memory beside what was made of them."""

    @cached_property
    def on_device(self) -> Parts:
        """What a device holds at its fullest moment; on a CPU what its process has resident for that."""
        parts = self.spread_over(self.spread)
        if self.on_cuda:
            return parts
        heap = resident(self.step.held, self.step.repeated) if fits_badly() else 0
        alone = max(moment.total for moment in self.step.moments.values())
        return replace(parts, allocator=LIBRARIES + self.mapped + max(0, heap - alone))

    def spread_over(self, spread: Spread) -> Parts:
        """Returns the same where a step is spread otherwise."""
        parts = fullest(self.step.moments, spread=spread, groups=self.groups)
        return replace(parts, penalties=self.penalties)


def planned(config: DictConfig, asked: Planning) -> Planned:
    """Returns the parts of the run that `config` describes; raises ConfigError or ValueError in one sentence."""
    if config.get("resume") is not None:
        raise ConfigError(f"resume must be null for a plan, got {config.resume}; its run's settings are in config.yaml")
    config = expand_retained(config)
    method = build(config.method, Method, key="method", plugins=import_plugins(tuple(config.plugins)))
    if not method.trains:
        raise ConfigError(f"method must be one that trains, got {method.name}, which needs no plan")
    on_cuda = _for_this_machine(config, asked)
    if config.model.weights == "random" and method.quantization is not None:
        config.method.quantize = None  # a plan quantizes what is not there
    words = _Words()
    read = read_examples if asked.lengths == "data" else no_examples
    setup = replace(set_up(config, read=read, tokenize=words), method=method)
    if on_cuda and setup.settings.micro_batch_tokens == "auto" and asked.memory_gb is not None:
        setup = replace(setup, micro_batch_tokens=_first_guess(setup, memory=int(asked.memory_gb * 1e9)))
    reads_data = asked.lengths == "data" and words.found
    if reads_data:
        check_trainable(setup)
    else:
        setup = replace(
            setup, targets=setup.targets[:1], retained=(), replay=None, mixing=Mixing.of_one(setup.mixing.name)
        )
    return Planned(
        setup=setup,
        rows=encode(setup) if reads_data else _rows_of_max_length(setup),
        on_cuda=on_cuda,
        spread_over=build_trainer(setup.trainer, precision="fp32", callbacks=[], loggers=[]).world_size,
        reads_data=reads_data,
    )


def estimate(plan: Planned) -> Estimate:
    """Returns what a step takes, by taking one without values."""
    setup = plan.setup
    model = _empty(setup, on_cuda=plan.on_cuda)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept, groups = _kept(setup, model), groups_of(model)
    rows = [plan.data.train.rows[index] for index in plan.largest]
    spread = plan.spread(plan.spread_over, shares=setup.shares_weights)
    step = dry_step(
        model,
        plan.data.collator.rows(rows),
        setup.facts,
        make_optimizer=_make_optimizer(setup),
        several=spread.several,
        autocast=setup.precision == "bf16",
    )
    return Estimate(
        step=step,
        groups=groups,
        spread=spread,
        parameters=setup.facts.parameters,
        trained=trained,
        penalties=sum(size for size in kept.values() if size is not None),
        untold=tuple(name for name, size in kept.items() if size is None),
        on_cuda=plan.on_cuda,
        mapped=_mapped(setup, model),
        flops_per_step=step.flops / plan.tokens(plan.largest) * plan.tokens_per_step,
    )


def at_least(plan: Planned) -> Parts:
    """Returns what a device holds at all times of a step; takes a tenth of an estimate's time."""
    model = _empty(plan.setup, on_cuda=plan.on_cuda)
    groups = groups_of(model)
    held = held_always(model, make_optimizer=_make_optimizer(plan.setup))
    several = plan.spread(plan.spread_over, shares=plan.setup.shares_weights)
    return on_device(held if several.several else replace(held, gradients=0), spread=several, groups=groups)


def _for_this_machine(config: DictConfig, asked: Planning) -> bool:
    """Lets `config` be set up on this machine, which may lack the devices; returns whether they are CUDA devices."""
    wanted = config.trainer.get("accelerator")
    there = torch.cuda.is_available()
    on_cuda = asked.device == "cuda" or (
        asked.device == "auto" and (wanted in ("gpu", "cuda") or (there and wanted != "cpu"))
    )
    if on_cuda and not there and config.precision == "auto":
        config.precision = "bf16"
    if not (on_cuda and there):
        config.trainer.accelerator = "cpu"
    return on_cuda


class _Words:
    """Loads a model's tokenizer; of a folder of shapes alone the embedded one, which tells no lengths."""

    def __init__(self) -> None:
        self.found = True

    def __call__(self, model: Model, *, embedding_rows: int) -> PreTrainedTokenizerBase:
        """Returns it; `found` tells whether it is the model's own."""
        try:
            return load_tokenizer(model, embedding_rows=embedding_rows)
        except ValueError:
            if model.weights != "random":
                raise
            self.found = False
            return load_tokenizer(replace(model, path=str(EMBEDDED_MODEL)), embedding_rows=embedding_rows)


def _first_guess(setup: Setup, *, memory: int) -> int:
    return micro_batch_tokens(
        setup.model_config,
        max_length=setup.settings.max_length,
        selects_head=setup.facts.selects_head,
        on_cuda=True,
        memory=memory,
    )


def _rows_of_max_length(setup: Setup) -> EncodedRun:
    """Returns a step of rows as long as may be, all of it learned, or of an encoder-decoder half."""
    length, number = setup.settings.max_length - setup.method.virtual_tokens, setup.settings.batch_size
    prompt = length // 2 if setup.facts.is_encoder_decoder else 1
    row = ([0] * prompt, [0] * (length - prompt))
    split = EncodedSplit(
        rows=Rows.of([row] * number, is_encoder_decoder=setup.facts.is_encoder_decoder),
        example_indices=np.arange(number),
        truncated=0,
        dropped=0,
    )
    return EncodedRun(train=split, sizes=(number,), validation=(), tests=())


def _empty(setup: Setup, *, on_cuda: bool) -> PreTrainedModel:
    """Returns the adapted model as a run would hold it, empty."""
    dtype = base_dtype(setup.precision, freezes_base=setup.method.freezes_base)
    model = empty_model(setup.model, setup.model_config)
    nn.Module.to(model, dtype)
    if setup.method.quantization is not None:
        check_quantization(setup.method.quantization, empty=model, weights="pretrained")
        model = quantize_empty(model, setup.method.quantization, dtype=dtype)
    if setup.packs:
        (use_packed_attention_by_kernel if on_cuda else use_packed_attention)(model)
    model = setup.method.apply(model)
    model.train()
    if setup.model.activation_checkpointing:
        checkpoint_activations(model)
    return model


def _kept(setup: Setup, model: PreTrainedModel) -> dict[str, int | None]:
    """Returns the bytes that each penalty holds; None where that is known once it is prepared."""
    base = setup.facts.parameters * base_dtype(setup.precision, freezes_base=True).itemsize
    return {each.name: each.kept_bytes(model, base=base) for each in setup.regularizers}


def _mapped(setup: Setup, model: PreTrainedModel) -> int:
    """Returns what stays mapped of the file that quantized layers are made of.

    Its other layers are parts of the file in memory, where they are held as they are stored.
    """
    held_in = base_dtype(setup.precision, freezes_base=setup.method.freezes_base)
    if setup.method.quantization is None or setup.model_config.dtype != held_in:
        return 0
    packed = (p for p in model.parameters() if p.dtype == torch.uint8)
    return sum(2 * p.numel() for p in packed) * held_in.itemsize  # two weights a byte


def _make_optimizer(setup: Setup) -> Callable[[nn.Module], Optimizer]:
    """Returns what makes the run's optimizer for a model."""

    def make(model: nn.Module) -> Optimizer:
        return setup.make_optimizer(parameter_groups(model, weight_decay=setup.weight_decay), lr=setup.lr)

    return make

"""What a planned run is made of: its parts, set up for a machine that need not be this one."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from omegaconf import DictConfig
from transformers import PreTrainedTokenizerBase

from forgetmenot.cli.machine import for_this_machine
from forgetmenot.cli.penalties import check_penalties
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
from forgetmenot.footprint import Spread
from forgetmenot.method.base import Method
from forgetmenot.model.budget import device_memory, micro_batch_tokens
from forgetmenot.model.load import Model, load_tokenizer
from forgetmenot.trainer import build_trainer

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
    def micro_batches(self) -> list[list[np.ndarray]]:
        """The micro-batches of each step that is looked at, rank by rank, without those that keep ranks in step."""
        plan, ranks = self.data.plan, self.spread_over
        steps = range(min(self.setup.total_steps(plan.steps_per_epoch), max(1, _STEPS // ranks)))
        every = [plan.micro_batches(step, world_size=ranks) for step in steps]
        return [[cut for rank in range(min(ranks, len(cuts))) for cut in cuts[rank::ranks]] for cuts in every]

    def tokens(self, cut: np.ndarray) -> int:
        """Returns what a micro-batch holds, padding among it."""
        lengths = self.data.plan.lengths[cut]
        return int(lengths.sum() if self.data.plan.packed else len(cut) * lengths.max())

    @property
    def largest(self) -> np.ndarray:
        """The micro-batch of the most tokens."""
        return max((cut for cuts in self.micro_batches for cut in cuts), key=self.tokens)

    @property
    def tokens_per_step(self) -> float:
        """The tokens of a step in the mean, over all devices."""
        repeated = (-len(cuts) % self.spread_over * self.tokens(cuts[0]) for cuts in self.micro_batches)
        own = (self.tokens(cut) for cuts in self.micro_batches for cut in cuts)
        return (sum(own) + sum(repeated)) / len(self.micro_batches)

    def spread(self, devices: int, *, shares: bool) -> Spread:
        """Returns how a step is spread over `devices`, which share weights or not."""
        several = max(map(len, self.micro_batches)) > self.spread_over
        return Spread(devices=devices, strategy="one" if devices == 1 else "fsdp" if shares else "ddp", several=several)


def planned(config: DictConfig, asked: Planning) -> Planned:
    """Returns the parts of the run that `config` describes; raises ConfigError or ValueError in one sentence."""
    if config.get("resume") is not None:
        raise ConfigError(f"resume must be null for a plan, got {config.resume}; its run's settings are in config.yaml")
    config = expand_retained(config)
    method = build(config.method, Method, key="method", plugins=import_plugins(tuple(config.plugins)))
    if not method.trains:
        raise ConfigError(f"method must be one that trains, got {method.name}, which needs no plan")
    on_cuda = for_this_machine(config, asked)
    if config.model.weights == "random" and method.quantization is not None:
        config.method.quantize = None  # a plan quantizes what is not there
    words = _Words()
    read = read_examples if asked.lengths == "data" else no_examples
    setup = replace(set_up(config, read=read, tokenize=words, merges=False), method=method)
    memory = asked.memory or (device_memory(on_cuda=True) if torch.cuda.is_available() else None)
    if on_cuda and setup.settings.micro_batch_tokens == "auto" and memory is not None:
        setup = replace(setup, micro_batch_tokens=_first_guess(setup, memory=memory))
    reads_data = asked.lengths == "data" and words.found
    if reads_data:
        check_trainable(setup)
        check_penalties(setup)
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

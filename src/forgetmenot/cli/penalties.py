"""Prepares the penalties of a run: gives its regularizers the base, other models, retained examples and the cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from rich.console import Console
from torch import nn
from transformers import PreTrainedModel

from forgetmenot.base_scores import computing, weights_of
from forgetmenot.cli.base import plain_base
from forgetmenot.cli.checks import check_padding
from forgetmenot.cli.setup import Setup
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import cache_folder
from forgetmenot.data.types import Encoded
from forgetmenot.kept_tensors import made_once
from forgetmenot.model.facts import read_facts
from forgetmenot.model.load import empty_model, load, load_tokenizer, read_config
from forgetmenot.model.packing import use_packed_attention, use_packed_attention_by_kernel
from forgetmenot.model.quantize import Quantization, quantize_empty
from forgetmenot.progress import tracked
from forgetmenot.regularizer.base import Frozen, Penalty, Supplies, Tensors, TokenPenalty
from forgetmenot.result import RunResult
from forgetmenot.trainer import base_dtype, build_trainer


def check_penalties(setup: Setup) -> None:
    """Raises ConfigError or ValueError where a regularizer cannot hold what this run trains; reads no weights."""
    if not (setup.regularizers and setup.method.trains):
        return
    base = empty_model(setup.model, setup.model_config)
    own = {name for name, _ in base.named_parameters()}
    adapted = setup.method.apply(base)
    for regularizer in setup.regularizers:
        regularizer.check(adapted, own=own, context=setup.facts.context)
        if regularizer.other_model is not None:
            reading_of(setup, regularizer.other_model)
        if regularizer.needs_retained and not any(data.train for data in setup.retained):
            raise ConfigError(
                f"data.retained must hold training examples for regularizer.{regularizer.name}.source=retained, got "
                f"none; regularizer.{regularizer.name}.source=samples needs none"
            )


def penalties_for(
    setup: Setup, model: PreTrainedModel, *, result: RunResult, console: Console
) -> dict[str, Penalty | TokenPenalty]:
    """Returns the penalties by name, around the untrained `model`; `result` tells what was reused for them.

    Every rank prepares them alike: all that is drawn is drawn by the seed.
    """
    if not setup.regularizers:
        return {}
    trainer = build_trainer(setup.trainer, precision=setup.precision, callbacks=[], loggers=[])
    supplies = Supplies(
        collator=setup.collator(virtual_tokens=setup.method.virtual_ids),
        seed=setup.settings.seed,
        device=trainer.strategy.root_device,
        load=partial(_load, setup),
        retained=partial(_retained, setup),
        keep=partial(_keep, setup, result),
        track=partial(tracked, console=console if trainer.is_global_zero else Console(quiet=True)),
    )
    return {regularizer.name: regularizer.prepare(model, supplies) for regularizer in setup.regularizers}


def empty_token_penalties(setup: Setup, model: PreTrainedModel, *, on_cuda: bool) -> dict[str, TokenPenalty]:
    """Returns those on tokens by name, around models without weights that read rows as the device would let them."""

    def load(path: str | None = None, *, dtype: torch.dtype | None = None) -> Frozen:
        reading = setup if path is None else reading_of(setup, path)
        held_in = dtype or base_dtype(setup.precision, freezes_base=True)
        empty = empty_model(reading.model, reading.model_config)
        nn.Module.to(empty, held_in)
        if (quantization := _quantization(setup, path, dtype)) is not None:
            empty = quantize_empty(empty, quantization, dtype=held_in)
        if reading.packs:
            (use_packed_attention_by_kernel if on_cuda else use_packed_attention)(empty)
        return _frozen(reading, empty)

    def make_now(name: str, settings: Mapping[str, object], *, make: Callable[[], Tensors]) -> Tensors:
        return make()

    supplies = Supplies(
        collator=setup.collator(virtual_tokens=setup.method.virtual_ids),
        seed=setup.settings.seed,
        device=torch.device("meta"),
        load=load,
        retained=partial(_retained, setup),
        keep=make_now,
        track=lambda items, title, total: iter(items),
    )
    on_tokens = [regularizer for regularizer in setup.regularizers if not regularizer.holds_weights]
    prepared = {regularizer.name: regularizer.prepare(model, supplies) for regularizer in on_tokens}
    return {name: penalty for name, penalty in prepared.items() if isinstance(penalty, TokenPenalty)}


def _load(setup: Setup, path: str | None = None, *, dtype: torch.dtype | None = None) -> Frozen:
    reading = setup if path is None else reading_of(setup, path)
    held_in = dtype or base_dtype(setup.precision, freezes_base=True)
    model = load(
        reading.model,
        config=reading.model_config,
        dtype=held_in,
        seed=setup.settings.seed,
        quantization=_quantization(setup, path, dtype),
    )
    if reading.packs:
        use_packed_attention(model)
    return _frozen(reading, model)


def _quantization(setup: Setup, path: str | None, dtype: torch.dtype | None) -> Quantization | None:
    """Returns how the run's own base is held, in 4 bits under QLoRA: what is learned is measured from that."""
    return setup.method.quantization if path is None and dtype is None else None


def _frozen(reading: Setup, model: PreTrainedModel) -> Frozen:
    return Frozen(
        model=model.eval().requires_grad_(False),
        facts=reading.facts,
        tokenizer=reading.tokenizer,
        collator=reading.collator(virtual_tokens=0),
    )


def reading_of(setup: Setup, path: str) -> Setup:
    """Returns how the model at `path` reads this run's rows; raises ConfigError where it cannot."""
    try:
        model = plain_base(replace(setup.model, name=path, path=path, weights="pretrained"))
        config = read_config(model)
        facts = read_facts(model, config)
        check_padding(facts, model=model, config=config)
        tokenizer = load_tokenizer(model, embedding_rows=facts.embedding_rows)
    except ValueError as error:
        raise ConfigError(str(error).replace("model.path", "regularizer.kl.reference", 1)) from error
    if tokenizer.get_vocab() != setup.tokenizer.get_vocab():
        raise ConfigError(
            f"regularizer.kl.reference must share the vocabulary of {setup.model.path}, got {path} with another; a "
            "model of the same family does, as a rule"
        )
    if facts.architecture != setup.facts.architecture:
        raise ConfigError(
            f"regularizer.kl.reference must be a {setup.facts.architecture} model as model.path is, got "
            f"{path}, which is {facts.architecture}"
        )
    if facts.context is not None and facts.context < setup.settings.max_length:
        raise ConfigError(
            f"max_length must be at most the context of regularizer.kl.reference, {facts.context} tokens, got "
            f"{setup.settings.max_length}"
        )
    return replace(setup, model=model, model_config=config, facts=facts, tokenizer=tokenizer)


def _retained(setup: Setup, number: int) -> Sequence[Encoded]:
    """Returns `number` training examples of the retained tasks as rows, drawn by the seed over all of them."""
    examples = [(data.task, example) for data in setup.retained for example in data.train]
    order = np.random.default_rng(setup.settings.seed).permutation(len(examples))[:number]
    rows: list[Encoded] = []
    for index in order:
        task, example = examples[index]
        encoder = replace(setup.encoder, truncate=task.truncate, cache=None)
        rows += encoder.training_rows([example]).rows
    return rows


def _keep(
    setup: Setup, result: RunResult, name: str, settings: Mapping[str, object], *, make: Callable[[], Tensors]
) -> Tensors:
    """Returns what was made of this base before under the same settings and code, or makes and keeps it."""
    weights = weights_of(setup.model, setup.model_config, seed=setup.settings.seed)
    if weights is None:
        return make()
    model = {key: value for key, value in asdict(setup.model).items() if key not in ("name", "lr_scale")}
    facts = {**computing(), "weights": weights, "model": model, "hardware": result.hardware, "packs": setup.packs}
    tensors, reused = made_once(cache_folder() / name, {**facts, **settings}, make=make)
    if reused:
        result.reused.append(name)
    return tensors

"""What a step of a planned run takes: one is taken without values."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from forgetmenot.cli.penalties import empty_token_penalties
from forgetmenot.cli.planning import Planned
from forgetmenot.cli.setup import Setup
from forgetmenot.dry_run import DryStep, Taking, dry_step, dry_step_of_few, groups_of
from forgetmenot.footprint import Groups, Parts, Spread, fullest
from forgetmenot.heap import LIBRARIES, fits_badly, resident
from forgetmenot.model.load import empty_model
from forgetmenot.model.options import checkpoint_activations
from forgetmenot.model.packing import use_packed_attention, use_packed_attention_by_kernel
from forgetmenot.model.quantize import check_quantization, quantize_empty
from forgetmenot.optim import parameter_groups
from forgetmenot.trainer import base_dtype


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a step of a planned run takes on one device that holds all alone, and how it is spread in fact."""

    step: DryStep
    groups: Groups
    spread: Spread
    parameters: int
    trained: int
    penalties: int
    """Bytes that penalties on weights hold."""
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
        return replace(parts, penalties=parts.penalties + self.penalties)


def estimate(plan: Planned) -> Estimate:
    """Returns what a step takes, by taking one without values."""
    setup = plan.setup
    model = _empty(setup, on_cuda=plan.on_cuda)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept, groups, mapped = _kept(setup, model), groups_of(model), _mapped(setup, model)
    spread = plan.spread(plan.spread_over, shares=setup.shares_weights)
    step = dry_step_of_few(model, _taking(plan, model, several=spread.several))
    if step is None:
        model = _empty(setup, on_cuda=plan.on_cuda)
        step = dry_step(model, _taking(plan, model, several=spread.several))
    return Estimate(
        step=step,
        groups=groups,
        spread=spread,
        parameters=setup.facts.parameters,
        trained=trained,
        penalties=sum(size for size in kept.values() if size is not None),
        untold=tuple(name for name, size in kept.items() if size is None),
        on_cuda=plan.on_cuda,
        mapped=mapped,
        flops_per_step=step.flops / plan.tokens(plan.largest) * plan.tokens_per_step,
    )


def _taking(plan: Planned, model: PreTrainedModel, *, several: bool) -> Taking:
    """Returns how the largest micro-batch is learned from."""
    setup = plan.setup
    rows = [plan.data.train.rows[index] for index in plan.largest]
    penalties = empty_token_penalties(setup, model, on_cuda=plan.on_cuda)
    return Taking(
        batch=plan.data.collator.rows(rows),
        facts=setup.facts,
        make_optimizer=_make_optimizer(setup),
        several=several,
        autocast=setup.precision == "bf16",
        compared={name: (penalty, penalty.comparison.of(rows)) for name, penalty in penalties.items()},
    )


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
    with torch.device("meta"):  # else peft draws adapters, which takes seconds
        model = setup.method.apply(model)
    model.train()
    if setup.model.activation_checkpointing:
        checkpoint_activations(model)
    return model


def _kept(setup: Setup, model: PreTrainedModel) -> dict[str, int | None]:
    """Returns the bytes that each penalty on weights holds; None where that is known once it is prepared."""
    return {each.name: each.kept_bytes(model) for each in setup.regularizers if each.holds_weights}


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

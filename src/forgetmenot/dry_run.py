"""Takes a training step of a model without values, and counts what it holds in memory and what it computes.

Its tensors are fake ones: a shape, a type and a device, and no storage behind them. So the real forward, backward and
optimizer of any family run without a weight being read, and every tensor is counted where it is made and freed. Of many
blocks that are alike five take the step, and the others are copies of what those did.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from forgetmenot.data.types import Batch, Compared
from forgetmenot.deepen import deepened
from forgetmenot.footprint import Groups, Parts
from forgetmenot.heap import Part, Trace
from forgetmenot.loss import loss_sum
from forgetmenot.model.depth import Stretch, shorten
from forgetmenot.model.facts import ModelFacts
from forgetmenot.model.fake import held_by, make_fake
from forgetmenot.model.layers import blocks_anywhere
from forgetmenot.model.load import UNABLE
from forgetmenot.recorder import Recorder, key_of, passing
from forgetmenot.regularizer.base import TokenPenalty
from forgetmenot.trace import Recording, Unit, made_and_freed, moments


@dataclass(frozen=True, kw_only=True)
class Taking:
    """How a step of one micro-batch is taken; `several`: gradients of an earlier one are there already."""

    batch: Batch
    facts: ModelFacts
    make_optimizer: Callable[[nn.Module], Optimizer]
    several: bool
    autocast: bool
    compared: Mapping[str, tuple[TokenPenalty, Compared]] = field(default_factory=dict)
    """Penalties on tokens by name, around empty models, and the micro-batch as each reads it."""


@dataclass(frozen=True, kw_only=True)
class DryStep:
    """What a step of one micro-batch came to on one device that holds all alone."""

    recording: Recording

    @cached_property
    def moments(self) -> Mapping[str, Parts]:
        """The fullest moment of each phase: the forward pass, the head, the backward pass, the optimizer's step."""
        return moments(self.recording)

    @property
    def flops(self) -> int:
        """Of the forward and the backward pass, what is recomputed among them."""
        return sum(sum(segment.flops) for segment in self.recording.segments if segment.phase != "optimizer")

    @property
    def held(self) -> Trace:
        """What is there throughout, tensor by tensor."""
        return [(held.number, held.size) for held in self.recording.held]

    @property
    def repeated(self) -> Sequence[Part]:
        """What a micro-batch makes and frees, forward and backward."""
        segments = (segment for segment in self.recording.segments if segment.phase != "optimizer")
        parts = groupby(segments, key=lambda segment: not segment.phase.startswith("backward"))
        return [Part(forward, made_and_freed(alike)) for forward, alike in parts]


def dry_step(model: PreTrainedModel, taking: Taking) -> DryStep:
    """Returns what a step of the empty `model`, which becomes a fake one, holds after the first.

    Raises ValueError where a forward pass hangs on the values of tensors, which are not there.
    """
    return DryStep(recording=_recorded(model, taking, stretches=()))


def dry_step_of_few(model: PreTrainedModel, taking: Taking) -> DryStep | None:
    """Returns the same in a time that does not grow with depth, where blocks that are alike do alike; else None.

    The model and those that penalties read lose blocks. A forward pass may refuse that, where a family counts them, or
    hang on values, which the step of all blocks tells: both give None.
    """
    stretches = [*shorten(model), *(each for penalty, _ in taking.compared.values() for each in shorten(penalty))]
    try:
        short = _recorded(model, taking, stretches=stretches)
    except ValueError:
        return None
    recording = deepened(short, [stretch.count for stretch in stretches])
    return None if recording is None else DryStep(recording=recording)


def groups_of(model: PreTrainedModel) -> Groups:
    """Returns the groups that FSDP would gather the weights of `model` in."""
    blocks = [_bytes(block.parameters()) for block in blocks_anywhere(model)]
    trained = [_bytes(p for p in block.parameters() if p.requires_grad) for block in blocks_anywhere(model)]
    return Groups(
        largest_block=max(blocks, default=0),
        outside_blocks=max(0, _bytes(model.parameters()) - sum(blocks)),
        largest_block_trained=max(trained, default=0),
    )


def _recorded(model: PreTrainedModel, taking: Taking, *, stretches: Sequence[Stretch]) -> Recording:
    """Returns the step of a model whose stretches of alike units are known."""
    recorder = Recorder()
    _note_held(recorder, model, [penalty for penalty, _ in taking.compared.values()])
    trained = [p for p in model.parameters() if p.requires_grad]
    with recorder:
        optimizer = _stepped(taking.make_optimizer(model), trained, recorder)
        if not taking.several:
            optimizer.zero_grad()
        held = recorder.begin(_units(stretches, optimizer))
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(lambda p: recorder.call(p.grad, "gradients"))
        with _precision(taking.autocast), _refusing(model):
            with passing(recorder, model, others=(), stretches=stretches, of=""):
                loss_sum(model, taking.batch, taking.facts).backward()
            for name, (penalty, compared) in taking.compared.items():
                with passing(recorder, model, others=_models(penalty), stretches=stretches, of=f" of {name}"):
                    penalty(model, compared, taking.facts).backward()
        recorder.enter("optimizer", kind="optimizer")
        optimizer.step()
    return Recording(held=held, segments=recorder.segments)


def _note_held(recorder: Recorder, model: PreTrainedModel, penalties: Sequence[TokenPenalty]) -> None:
    """Makes all models fake ones, and notes what they hold: what a penalty compares with is not the model's."""
    fakes = make_fake(nn.ModuleList([model, *penalties]))
    compared = {id(tensor) for penalty in penalties for tensor in held_by(penalty)}
    for fake in fakes:
        recorder.kind = "penalties" if id(fake) in compared else "weights"
        recorder.note(fake)


def _stepped(optimizer: Optimizer, trained: list[nn.Parameter], recorder: Recorder) -> Optimizer:
    """Returns the optimizer after a step, with all that it keeps; gradients are there, too."""
    recorder.kind = "gradients"
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    recorder.kind = "optimizer"
    optimizer.step()
    return optimizer


def _units(stretches: Sequence[Stretch], optimizer: Optimizer) -> dict[int, Unit]:
    """Returns the unit of each storage that is held for one: its weights, their gradients, what the optimizer keeps."""
    return {
        key_of(tensor): Unit(number, place)
        for number, stretch in enumerate(stretches)
        for place, blocks in enumerate(stretch.units)
        for block in blocks
        for tensor in _held_for(block, optimizer)
    }


def _held_for(block: nn.Module, optimizer: Optimizer) -> Iterator[Tensor]:
    for tensor in held_by(block):
        yield tensor
        if tensor.grad is not None:
            yield tensor.grad
        yield from (kept for kept in tree_leaves(optimizer.state.get(tensor)) if isinstance(kept, Tensor))


def _models(penalty: nn.Module) -> list[PreTrainedModel]:
    """Returns the models in `penalty`, within no other."""
    found = [layer for layer in penalty.modules() if isinstance(layer, PreTrainedModel)]
    inner = {part for model in found for part in model.modules() if part is not model}
    return [model for model in found if model not in inner]


@contextmanager
def _refusing(model: PreTrainedModel) -> Iterator[None]:
    try:
        yield
    except UNABLE as error:
        raise ValueError(
            "model.path must be a model whose forward pass does not hang on values, which a plan has none of, "
            f"got {model.config.model_type} ({str(error).splitlines()[0]})"
        ) from error


def _precision(autocast: bool) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()


def _bytes(tensors: Iterator[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

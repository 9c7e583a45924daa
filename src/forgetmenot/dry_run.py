"""Takes a training step of a model without values, and counts what it holds in memory and what it computes.

Its tensors are fake ones: a shape, a type and a device, and no storage behind them. So the real forward, backward and
optimizer of any family run in seconds, no weight is read, and every tensor is counted where it is made and freed.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from forgetmenot.data.types import Batch
from forgetmenot.footprint import Groups, Parts
from forgetmenot.heap import Trace
from forgetmenot.loss import loss_sum
from forgetmenot.model.facts import ModelFacts
from forgetmenot.model.fake import DEVICE, make_fake
from forgetmenot.model.layers import blocks_anywhere
from forgetmenot.model.load import UNABLE

_Kind = Literal["weights", "gradients", "optimizer", "activations", "logits"]


@dataclass(frozen=True, kw_only=True)
class DryStep:
    """What a step of one micro-batch came to on one device that holds all alone."""

    moments: Mapping[str, Parts]
    """The fullest moment of each phase: the forward pass, the head, the backward pass, the optimizer's step."""
    flops: int
    """Of the forward and the backward pass, what is recomputed among them."""
    held: Trace
    """What is there throughout, tensor by tensor."""
    repeated: Trace
    """What a micro-batch makes and frees."""


def dry_step(
    model: PreTrainedModel,
    batch: Batch,
    facts: ModelFacts,
    *,
    make_optimizer: Callable[[nn.Module], Optimizer],
    several: bool,
    autocast: bool,
) -> DryStep:
    """Returns what a step of the empty `model`, which becomes a fake one, holds after the first.

    `several`: gradients of an earlier micro-batch are there already. Raises ValueError where a forward pass hangs on
    the values of tensors, which are not there.
    """
    counting = _Counting()
    counting.note_all(make_fake(model))
    trained = [p for p in model.parameters() if p.requires_grad]
    with counting:
        optimizer = _stepped(make_optimizer(model), trained, counting)
        if not several:
            optimizer.zero_grad()
        started = len(counting.trace)
        for parameter in trained:
            parameter.register_post_accumulate_grad_hook(lambda p: counting.call(p.grad, "gradients"))
        with _precision(autocast):
            try:
                with _head_apart(model, counting):
                    loss_sum(model, batch, facts).backward()
            except UNABLE as error:
                raise ValueError(
                    "model.path must be a model whose forward pass does not hang on values, which a plan has none of, "
                    f"got {model.config.model_type} ({str(error).splitlines()[0]})"
                ) from error
        repeated = counting.trace[started:]
        counting.phase, counting.kind = "optimizer", "optimizer"
        optimizer.step()
    return DryStep(moments=dict(counting.peaks), flops=counting.flops, held=counting.trace[:started], repeated=repeated)


def held_always(model: PreTrainedModel, *, make_optimizer: Callable[[nn.Module], Optimizer]) -> Parts:
    """Returns what the empty `model`, which becomes a fake one, takes at all times of a step: no activation."""
    counting = _Counting()
    counting.note_all(make_fake(model))
    trained = [p for p in model.parameters() if p.requires_grad]
    with counting:
        optimizer = _stepped(make_optimizer(model), trained, counting)
        held = counting.now()
        del optimizer
    return held


def groups_of(model: PreTrainedModel) -> Groups:
    """Returns the groups that FSDP would gather the weights of `model` in."""
    blocks = [_bytes(block.parameters()) for block in blocks_anywhere(model)]
    trained = [_bytes(p for p in block.parameters() if p.requires_grad) for block in blocks_anywhere(model)]
    return Groups(
        largest_block=max(blocks, default=0),
        outside_blocks=max(0, _bytes(model.parameters()) - sum(blocks)),
        largest_block_trained=max(trained, default=0),
    )


@dataclass(eq=False)
class _Live:
    """A storage that is there: its place in the trace, its bytes, and what it is counted as."""

    number: int
    size: int
    kind: _Kind


@dataclass(eq=False)
class _Counting(TorchDispatchMode):
    """Counts every storage from where it is made to where it is freed; of each phase it keeps the fullest moment."""

    phase: str = "before"
    kind: _Kind = "weights"
    flops: int = 0
    live: dict[int, _Live] = field(default_factory=dict)
    bytes_of: dict[_Kind, int] = field(default_factory=dict)
    peaks: dict[str, Parts] = field(default_factory=dict)
    trace: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Does what is asked, and counts what comes of it."""
        if func is torch.ops.prim.device.default:  # of a fake tensor, asked before all else and three times as often
            return DEVICE
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None and self.phase != "optimizer":
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.note(tensor)
        return out

    def note(self, tensor: Tensor) -> None:
        """Counts the storage of `tensor`, where it is not yet."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live:
            return
        number = len(self.trace) + 1
        self.trace.append((number, storage.nbytes()))
        self.live[key] = _Live(number=number, size=storage.nbytes(), kind=self.kind)
        weakref.finalize(storage, self._freed, key)
        self.bytes_of[self.kind] = self.bytes_of.get(self.kind, 0) + storage.nbytes()
        most = self.peaks.get(self.phase)
        if most is None or sum(self.bytes_of.values()) > most.total:
            self.peaks[self.phase] = self.now()

    def note_all(self, tensors: Sequence[Tensor]) -> None:
        """Counts the storages of all of them."""
        for tensor in tensors:
            self.note(tensor)

    def call(self, tensor: Tensor | None, kind: _Kind) -> None:
        """Counts the storage of `tensor` as `kind` from now on."""
        held = None if tensor is None else self.live.get(tensor.untyped_storage()._cdata)
        if held is not None and held.kind != kind:
            self.bytes_of[held.kind] -= held.size
            self.bytes_of[kind] = self.bytes_of.get(kind, 0) + held.size
            held.kind = kind

    def now(self) -> Parts:
        """Returns what is there now."""
        return Parts(**self.bytes_of)

    def _freed(self, key: int) -> None:
        held = self.live.pop(key)
        self.trace.append((-held.number, 0))
        self.bytes_of[held.kind] -= held.size


def _stepped(optimizer: Optimizer, trained: list[nn.Parameter], counting: _Counting) -> Optimizer:
    """Returns the optimizer after a step, with all that it keeps; gradients are there, too."""
    counting.phase, counting.kind = "first step", "gradients"
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    counting.kind = "optimizer"
    optimizer.step()
    counting.peaks.pop("first step", None)
    return optimizer


@contextmanager
def _head_apart(model: PreTrainedModel, counting: _Counting) -> Iterator[None]:
    """Counts what the head makes, forward and backward, as logits, and the rest as activations."""
    counting.phase, counting.kind = "forward", "activations"

    def enter_backward(gradient: Tensor) -> None:
        counting.phase, counting.kind = "backward", "activations"

    def enter_head(module: nn.Module, arguments: object, output: BaseModelOutput) -> None:
        if counting.phase == "forward" and output.last_hidden_state is not None:  # in parts, the head comes back here
            counting.phase, counting.kind = "head", "logits"
            if output.last_hidden_state.requires_grad:
                output.last_hidden_state.register_hook(enter_backward)

    handle = model.get_decoder().register_forward_hook(enter_head)
    try:
        yield
    finally:
        handle.remove()


def _precision(autocast: bool) -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()


def _bytes(tensors: Iterator[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

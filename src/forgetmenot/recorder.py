"""Records which storages are made and freed and what is computed, phase by phase and unit by unit of alike blocks."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from forgetmenot.model.depth import Stretch
from forgetmenot.model.fake import DEVICE
from forgetmenot.trace import Event, Held, Kind, Segment, Unit

_Stage = Literal["forward", "head", "backward"]


@dataclass(eq=False)
class Recorder(TorchDispatchMode):
    """Sees every storage from where it is made to where it is freed, once it is entered."""

    kind: Kind = "weights"
    """As what is counted that comes to be."""
    segments: list[Segment] = field(default_factory=lambda: [Segment(phase="before", unit=None)])
    live: dict[int, Held] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Does what is asked, and notes what comes of it."""
        if func is torch.ops.prim.device.default:  # of a fake tensor, asked before all else and three times as often
            return DEVICE
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.segments[-1].flops.append(count(*args, **(kwargs or {}), out_val=out))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.note(tensor)
        return out

    def note(self, tensor: Tensor) -> None:
        """Notes the storage of `tensor`, where it is not yet known."""
        storage = tensor.untyped_storage()
        key = key_of(tensor)
        if key in self.live:
            return
        self.made += 1
        self.live[key] = Held(number=self.made, size=storage.nbytes(), kind=self.kind, unit=None)
        self._happens("make", self.live[key])
        weakref.finalize(storage, self._freed, key)

    def call(self, tensor: Tensor | None, kind: Kind) -> None:
        """Counts the storage of `tensor` as `kind` from now on."""
        known = None if tensor is None else self.live.get(key_of(tensor))
        if tensor is not None and known is not None and known.kind != kind:
            self.live[key_of(tensor)] = known._replace(kind=kind)
            self._happens("call", self.live[key_of(tensor)])

    def enter(self, phase: str, *, kind: Kind, unit: Unit | None = None) -> None:
        """Begins a segment, where it is another than the one before."""
        self.kind = kind
        if (self.segments[-1].phase, self.segments[-1].unit) != (phase, unit):
            self.segments.append(Segment(phase=phase, unit=unit))

    def begin(self, units: Mapping[int, Unit]) -> list[Held]:
        """Returns what is there, with the unit of each storage's key, and forgets how it came to be."""
        self.segments = [Segment(phase="before", unit=None)]
        return [held._replace(unit=units.get(key)) for key, held in self.live.items()]

    def _freed(self, key: int) -> None:
        self._happens("free", self.live.pop(key))

    def _happens(self, does: Literal["make", "free", "call"], held: Held) -> None:
        self.segments[-1].events.append(Event(does=does, number=held.number, size=held.size, kind=held.kind))


def key_of(tensor: Tensor) -> int:
    """Returns by what a recorder knows the storage of `tensor`."""
    key: int = tensor.untyped_storage()._cdata
    return key


@contextmanager
def passing(
    recorder: Recorder,
    model: PreTrainedModel,
    *,
    others: Sequence[PreTrainedModel],
    stretches: Sequence[Stretch],
    of: str,
) -> Iterator[None]:
    """Records one forward and backward pass of `model`, and what `others` read in it, in segments named after it."""
    taking = _Pass(recorder=recorder, of=of)
    handles = [each.get_decoder().register_forward_hook(taking.before_head) for each in (model, *others)]
    handles += [each.register_forward_pre_hook(taking.before_other) for each in others]
    for number, stretch in enumerate(stretches):
        for place, blocks in enumerate(stretch.units):
            unit = Unit(number, place)
            handles.append(blocks[0].register_forward_pre_hook(partial(taking.before_unit, unit)))
            behind = partial(taking.behind_unit, unit, is_last=place == len(stretch.units) - 1)
            handles.append(blocks[-1].register_forward_hook(behind))
    taking.go("forward")
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        taking.go(taking.stage)


@dataclass(eq=False, kw_only=True)
class _Pass:
    """Where a pass is; what the head makes is counted as logits, forward and backward, and the rest as activations."""

    recorder: Recorder
    of: str
    stage: _Stage = "forward"
    read: set[nn.Module] = field(default_factory=set)

    def go(self, stage: _Stage, unit: Unit | None = None) -> None:
        self.stage = stage
        self.recorder.enter(f"{stage}{self.of}", kind="logits" if stage == "head" else "activations", unit=unit)

    def before_head(self, module: nn.Module, arguments: object, output: BaseModelOutput) -> None:
        if self.stage == "forward" and output.last_hidden_state is not None:  # in parts, the head comes back here
            self.go("head")
            if output.last_hidden_state.requires_grad:
                output.last_hidden_state.register_hook(self.before_backward)

    def before_backward(self, gradient: Tensor) -> None:
        if self.stage == "head":
            self.go("backward")

    def before_other(self, module: nn.Module, arguments: object) -> None:
        if module not in self.read:  # in parts, the head comes back here
            self.read.add(module)
            self.go("forward")

    def before_unit(self, unit: Unit, module: nn.Module, arguments: object) -> None:
        if self.stage == "forward":  # and not where a block is computed once more
            self.go("forward", unit)

    def behind_unit(self, unit: Unit, module: nn.Module, arguments: object, output: object, *, is_last: bool) -> None:
        if self.stage != "forward":
            return
        states = next(tensor for tensor in tree_leaves(output) if isinstance(tensor, Tensor))
        if states.requires_grad:
            states.register_hook(lambda gradient: self.go("backward", unit))
        if is_last:
            self.go("forward")

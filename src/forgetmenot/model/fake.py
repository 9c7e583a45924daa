"""Models without values: tensors that have a shape, a type and a device, and no storage behind them.

Unlike those on the meta device they meet small real ones, such as masks, and autocast knows them. They are of the CPU,
whatever is planned for: torch builds that know no CUDA know no such tensors of it either.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

DEVICE = torch.device("cpu")
"""Where fake tensors say that they are."""


def make_fake(model: nn.Module) -> list[Tensor]:
    """Puts fake tensors in the place of the empty ones of `model`, one where layers share one, and returns them."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    known: dict[int, tuple[Tensor, Tensor]] = {}  # the empty one, too: else another could get its number

    def faked(empty: Tensor) -> Tensor:
        if id(empty) not in known:
            bare = FakeTensor(mode, empty.detach().as_subclass(Tensor), DEVICE)
            fake = nn.Parameter(bare, empty.requires_grad) if isinstance(empty, nn.Parameter) else bare
            known[id(empty)] = (fake, empty)
            for name, value in vars(empty).items():  # what a quantized weight knows of itself
                setattr(fake, name, value)
        return known[id(empty)][0]

    for layer in model.modules():
        for held in (layer._parameters, layer._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = faked(tensor)  # type: ignore[assignment]  # a parameter stays one
    for state in _states(model):
        for name, value in vars(state).items():
            if isinstance(value, Tensor):
                setattr(state, name, faked(value))
    return [fake for fake, _ in known.values()]


def held_by(layer: nn.Module) -> Iterator[Tensor]:
    """Yields all tensors that `layer` holds: parameters, buffers and what quantized weights keep beside themselves."""
    yield from layer.parameters()
    yield from layer.buffers()
    for state in _states(layer):
        yield from (value for value in vars(state).values() if isinstance(value, Tensor))


def _states(model: nn.Module) -> Iterator[object]:
    """Yields what quantized weights keep beside themselves, scales of scales too."""
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            yield state
            state = state.state2

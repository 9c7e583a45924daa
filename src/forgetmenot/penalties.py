"""The penalties of a run by kind and name, and what lets ranks exchange gradients after them."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.parallel import DistributedDataParallel

from forgetmenot.regularizer.base import Penalty, TokenPenalty


class Penalties(nn.Module):
    """Holds penalties as submodules, so that devices come free; each kind keeps the order it was given."""

    def __init__(self, by_name: Mapping[str, Penalty | TokenPenalty]) -> None:
        super().__init__()
        self.names = tuple(by_name)
        self.parts = nn.ModuleList(by_name.values())

    @property
    def on_weights(self) -> dict[str, Penalty]:
        """Those added once a step."""
        return {name: penalty for name, penalty in self._named if isinstance(penalty, Penalty)}

    @property
    def on_tokens(self) -> dict[str, TokenPenalty]:
        """Those computed for each micro-batch, beside the loss."""
        return {name: penalty for name, penalty in self._named if isinstance(penalty, TokenPenalty)}

    @property
    def _named(self) -> Iterable[tuple[str, nn.Module]]:
        return zip(self.names, self.parts, strict=True)


def leave_out_of_exchange(owner: nn.Module, penalties: Penalties) -> None:
    """Tells DDP that `owner` is not to broadcast the state of its `penalties`: it never changes, and is large."""
    held = {id(tensor) for tensor in (*penalties.buffers(), *penalties.parameters())}
    tensors = (*owner.named_buffers(remove_duplicate=False), *owner.named_parameters(remove_duplicate=False))
    names = [name for name, tensor in tensors if id(tensor) in held]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(owner, names)


def reaching(parameters: Sequence[Tensor]) -> Tensor:
    """Returns 0, whose backward pass reaches all `parameters` and adds nothing to their gradients."""
    zero: Tensor = _NoGradient.apply(*parameters)  # type: ignore[no-untyped-call]  # torch declares no types here
    return zero


class _NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *parameters: Tensor) -> Tensor:
        ctx.shapes = [p.shape for p in parameters]  # type: ignore[attr-defined]
        return parameters[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, ...]:
        none = gradient.new_zeros(())  # expanded, it takes no memory
        return tuple(none.expand(shape) for shape in ctx.shapes)  # type: ignore[attr-defined]

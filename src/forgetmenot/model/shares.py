"""What one rank holds of weights that are shared out, and of what an optimizer keeps of them, as a checkpoint has it.

A share is written as plain values and the tensor that lies on this rank: reading it runs no code and asks no rank.
"""

from collections.abc import Mapping, Sequence

from torch import Size, Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard

Share = dict[str, object]
"""The `local` part of a tensor of a `shape` and `stride`, and along which dimension (or none) each axis shares it."""

State = dict[str, object]
"""An optimizer's state as torch gives it."""


def shares(values: Mapping[str, object]) -> dict[str, object]:
    """Returns `values` with each tensor that ranks share as this rank's share of it."""
    return {name: _share(value) if isinstance(value, DTensor) else value for name, value in values.items()}


def shared_weights(owner: nn.Module, values: Mapping[str, object]) -> dict[str, object]:
    """Returns weights of `owner` that were written as shares as the tensors that they were; whole ones as they are."""
    held = dict(owner.named_parameters(remove_duplicate=False))
    return {name: _shared(value, held[name]) if isinstance(value, dict) else value for name, value in values.items()}


def optimizer_shares(state: State) -> State:
    """Returns an optimizer's state with each tensor that ranks share as this rank's share of it."""
    kept = state["state"]
    assert isinstance(kept, dict), "torch's layout"
    return {**state, "state": {number: shares(values) for number, values in kept.items()}}


def shared_state(state: State, parameters: Sequence[nn.Parameter]) -> State:
    """Returns an optimizer's state that was written as shares as it was, of `parameters` in its order."""
    kept = state["state"]
    assert isinstance(kept, dict), "torch's layout"
    return {
        **state,
        "state": {
            number: {
                name: _shared(value, parameters[number]) if isinstance(value, dict) else value
                for name, value in values.items()
            }
            for number, values in kept.items()
        },
    }


def _share(whole: DTensor) -> Share:
    assert not any(each.is_partial() for each in whole.placements), "weights and what is kept of them are no summands"
    along = [each.dim if isinstance(each, Shard) else None for each in whole.placements]
    local = whole.to_local().detach()
    return {"local": local, "shape": list(whole.shape), "stride": list(whole.stride()), "along": along}


def _shared(share: Share, parameter: nn.Parameter) -> DTensor:
    held, local, along = parameter.data, share["local"], share["along"]
    shape, stride = share["shape"], share["stride"]
    assert isinstance(held, DTensor) and isinstance(local, Tensor) and isinstance(along, list), "as it was written"
    assert isinstance(shape, list) and isinstance(stride, list), "as it was written"
    return DTensor.from_local(
        local.to(held.device), held.device_mesh, [Replicate() if dim is None else Shard(dim) for dim in along],
        run_check=False, shape=Size(shape), stride=tuple(stride),
    )  # fmt: skip

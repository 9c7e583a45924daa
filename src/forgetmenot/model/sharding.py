"""A model whose weights are shared out over devices, through FSDP2: each gathers one block after the other.

A forward pass is an act of all ranks. So all take part in as many of them, in training and in scoring alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from forgetmenot.model.layers import blocks_anywhere


def shard(owner: nn.Module, mesh: DeviceMesh) -> None:
    """Shares out the weights of all models in `owner` over a mesh of one axis, in place; sharded ones stay as they are.

    What is gathered is held as it was, without a mixed precision of FSDP's own: autocast then computes what it would
    on one device, and fp32 adapters may stand beside a bf16 base.
    """
    for model in _models(owner):
        if isinstance(model, FSDPModule):
            continue
        for block in reversed(blocks_anywhere(model)):  # inner ones first
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        register_fsdp_forward_method(model, "generate")  # which calls an encoder by itself


def is_sharded(owner: nn.Module) -> bool:
    """Tells whether a forward pass of the models in `owner` is an act of all ranks."""
    return any(isinstance(model, FSDPModule) for model in _models(owner))


def exchange_in_backward(owner: nn.Module, *, now: bool) -> None:
    """Lets sharded models exchange gradients in the backward passes to come, or add them up on each rank alone."""
    for model in _models(owner):
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(now)


def check_repeatable(owner: nn.Module, error: BaseException, *, step: int) -> None:
    """Raises ValueError where a step that ran out of memory cannot be taken anew: other ranks wait within it."""
    if is_sharded(owner):
        raise ValueError(
            "micro_batch_tokens must be a number that fits in memory with trainer.strategy=fsdp, where no step is "
            f"repeated, got too many at step {step} ({error}); half of config.yaml's is a good start"
        ) from error


def on_any_rank(owner: nn.Module, true: Tensor) -> bool:
    """Tells whether a scalar is `true` here, or of sharded models on any rank."""
    if not is_sharded(owner):
        return bool(true)
    told = true.to(torch.uint8)
    torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return bool(told)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Lets every rank hold all weights of a sharded model in main memory, in place of its share; for no forward pass.

    All ranks have to come here.
    """
    for layer in model.modules():
        if isinstance(layer, FSDPModule):
            layer.reshard()  # what scoring leaves gathered
    shares: list[tuple[nn.Module, str, Tensor]] = []
    gathered: dict[int, nn.Parameter] = {}  # a tied weight stays one
    for layer in model.modules() if is_sharded(model) else ():
        for name, share in list(layer.named_parameters(recurse=False, remove_duplicate=False)):
            if isinstance(values := share.data, DTensor):
                shares.append((layer, name, share))
                if id(share) not in gathered:
                    gathered[id(share)] = nn.Parameter(values.full_tensor().cpu(), share.requires_grad)
                setattr(layer, name, gathered[id(share)])
        for name, buffer in list(layer.named_buffers(recurse=False, remove_duplicate=False)):
            shares.append((layer, name, buffer))
            setattr(layer, name, buffer.cpu())  # what a method keeps beside weights goes where they are
    try:
        yield
    finally:
        for layer, name, own in shares:
            setattr(layer, name, own)


def _models(owner: nn.Module) -> Iterator[PreTrainedModel]:
    """Yields transformers' models in `owner`, within peft's wrapper, too: the part that `generate` calls by itself."""
    if isinstance(owner, PreTrainedModel):
        yield owner
        return
    for child in owner.children():
        yield from _models(child)

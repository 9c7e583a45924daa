"""A step without values holds and computes what a real one does."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_models import WIDE, collator_of, facts_of, model_at, of_depth, packing, rows_for, tiny
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from forgetmenot import compose
from forgetmenot.data.types import Batch
from forgetmenot.dry_run import DryStep, Taking, dry_step, dry_step_of_few, groups_of
from forgetmenot.heap import resident
from forgetmenot.loss import loss_sum
from forgetmenot.model.layers import blocks
from forgetmenot.model.load import empty_model
from forgetmenot.model.options import checkpoint_activations
from forgetmenot.model.packing import use_packed_attention_by_kernel
from forgetmenot.model.quantize import quantize_empty

LENGTHS = [(9, 3), (2, 5), (5, 1), (30, 9)]
ALIKE = [(5, 3), (6, 2)]  # rows that packed attention takes at once
ADAMW = partial(AdamW, lr=1e-3, fused=True)


def _empty(family: str) -> PreTrainedModel:
    return empty_model(model_at("nowhere", weights="random"), tiny(family).config).float()


def _optimizer(kind: Callable[..., Optimizer]) -> Callable[[nn.Module], Optimizer]:
    return lambda model: kind([p for p in model.parameters() if p.requires_grad])


def _taking(batch: Batch, family: str, *, several: bool = True) -> Taking:
    return Taking(
        batch=batch, facts=facts_of(tiny(family)), make_optimizer=_optimizer(ADAMW), several=several, autocast=False
    )


def _dry(model: PreTrainedModel, family: str, *, several: bool = True, packs: bool = False) -> DryStep:
    batch = collator_of(tiny(family), packs=packs).rows(rows_for(tiny(family), LENGTHS))
    return dry_step(model, _taking(batch, family, several=several))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma2", "t5", "bart"])
def test_a_step_of_any_family_computes_what_torch_counts_of_a_real_one(family: str) -> None:
    model = tiny(family).train()
    batch = collator_of(model).rows(rows_for(model, LENGTHS))
    with FlopCounterMode(display=False) as counter:
        loss_sum(model, batch, facts_of(model)).backward()

    assert _dry(_empty(family).train(), family).flops == counter.get_total_flops() > 0


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_weights_gradients_and_moments_are_those_of_a_real_step(family: str) -> None:
    model = tiny(family).train()
    optimizer = _optimizer(ADAMW)(model)
    loss_sum(model, collator_of(model).rows(rows_for(model, LENGTHS)), facts_of(model)).backward()
    optimizer.step()

    parts = _dry(_empty(family).train(), family).moments["head"]

    assert parts.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    state = sum(value.nbytes for of_one in optimizer.state.values() for value in of_one.values())
    assert parts.optimizer == state
    assert parts.weights >= sum(p.nbytes for p in model.parameters())


def test_what_is_kept_for_backward_is_what_autograd_keeps() -> None:
    model = packing(tiny("llama")).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = collator_of(tiny("llama"), packs=True).rows(rows_for(tiny("llama"), LENGTHS))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_sum(model, batch, facts_of(tiny("llama")))
    assert loss.requires_grad

    step = _dry(packing(_empty("llama")).train(), "llama", packs=True)

    held = step.moments["head"]
    assert held.activations + held.logits >= sum(kept.values())
    assert held.activations + held.logits <= 1.5 * sum(kept.values())


def test_optimizers_are_counted_by_what_they_keep() -> None:
    batch = collator_of(tiny("llama")).rows(rows_for(tiny("llama"), LENGTHS))
    taking = _taking(batch, "llama")
    without = replace(taking, make_optimizer=_optimizer(partial(SGD, lr=1e-3)))
    assert dry_step(_empty("llama").train(), without).moments["head"].optimizer == 0
    kept = dry_step(_empty("llama").train(), taking).moments["head"]
    assert kept.optimizer == pytest.approx(2 * kept.gradients, rel=0.01)


def test_recomputed_blocks_keep_less_and_compute_more() -> None:
    plain, recomputing = _empty("llama").train(), _empty("llama").train()
    checkpoint_activations(recomputing)
    whole, less = _dry(plain, "llama"), _dry(recomputing, "llama")
    assert less.moments["head"].activations < whole.moments["head"].activations / 2
    assert less.flops > whole.flops


def test_a_first_micro_batch_meets_no_gradients() -> None:
    assert _dry(_empty("llama").train(), "llama", several=False).moments["forward"].gradients == 0


def _adapted(family: str, depth: int, method: str, *, recomputes: bool = False, **settings: object) -> PreTrainedModel:
    model = compose(f"method/{method}", **settings).apply(packing(of_depth(family, depth))).train()
    if recomputes:
        checkpoint_activations(model)
    return model


def _of_few_and_whole(
    family: str, make: Callable[[], PreTrainedModel], *, several: bool = True, virtual_tokens: int = 0
) -> tuple[DryStep | None, DryStep]:
    packs = facts_of(tiny(family)).packs
    collator = collator_of(tiny(family), packs=packs, virtual_tokens=virtual_tokens)
    taking = _taking(collator.rows(rows_for(tiny(family), ALIKE)), family, several=several)
    return dry_step_of_few(make(), taking), dry_step(make(), taking)


def _sizes(step: DryStep) -> list[tuple[bool, list[int]]]:
    return [(part.forward, [size for _, size in part.trace]) for part in step.repeated]


def _assert_same(few: DryStep | None, whole: DryStep) -> None:
    assert few is not None
    assert few.moments == whole.moments
    assert few.flops == whole.flops
    assert sorted(size for _, size in few.held) == sorted(size for _, size in whole.held)
    assert _sizes(few) == _sizes(whole)
    assert resident(few.held, few.repeated) == resident(whole.held, whole.repeated)


@pytest.mark.parametrize(
    ("family", "method", "settings"),
    [
        ("llama", "full", {}),
        pytest.param("llama", "lora", {"rank": 2}, marks=pytest.mark.slow),
        ("llama", "prompt", {"num_virtual_tokens": 3}),
        ("llama", "last_layers", {"num_layers": 2}),
        pytest.param("llama", "bottleneck", {"size": 4}, marks=pytest.mark.slow),
        pytest.param("gemma2", "full", {}, marks=pytest.mark.slow),
        pytest.param("t5", "lora", {"rank": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_step_of_few_blocks_tells_that_of_all(family: str, method: str, settings: dict[str, int]) -> None:
    make = partial(_adapted, family, 12 if family == "gemma2" else 7, method, **settings)
    tokens = settings.get("num_virtual_tokens", 0)
    _assert_same(*_of_few_and_whole(family, make, virtual_tokens=tokens))


@pytest.mark.parametrize("several", [False, True])
def test_recomputed_blocks_are_told_by_few_of_them(several: bool) -> None:
    make = partial(_adapted, "llama", 7, "lora", rank=2, recomputes=True)
    _assert_same(*_of_few_and_whole("llama", make, several=several))


def test_a_first_micro_batch_is_told_by_few_blocks() -> None:
    _assert_same(*_of_few_and_whole("llama", partial(_adapted, "llama", 7, "full"), several=False))


def test_quantized_blocks_are_told_by_few_of_them() -> None:
    def make() -> PreTrainedModel:
        model = of_depth("llama", 7, sizes=WIDE["llama"])
        adapted = compose("method/qlora", rank=2).apply(quantize_empty(model, "nf4", dtype=torch.float32))
        return adapted.train()

    collator = collator_of(tiny("llama"))
    taking = _taking(collator.rows(rows_for(tiny("llama"), ALIKE)), "llama")
    _assert_same(dry_step_of_few(make(), taking), dry_step(make(), taking))


def test_blocks_that_look_alike_and_do_not_do_alike_are_told_by_none() -> None:
    class Sometimes(nn.Module):
        def forward(self, states_BTD: torch.Tensor) -> torch.Tensor:
            calls.append(self)
            return states_BTD * 2 if len(calls) % 2 else states_BTD

    def make() -> PreTrainedModel:
        model = _adapted("llama", 7, "full")
        for block in blocks(model):
            block.mlp = Sometimes()
        return model

    calls: list[nn.Module] = []
    few, whole = _of_few_and_whole("llama", make)
    assert few is None and whole.flops > 0


@pytest.mark.parametrize("error", [ValueError("12 layer types for 5 layers"), IndexError("list index out of range")])
def test_a_model_that_refuses_fewer_blocks_is_told_by_none(error: Exception) -> None:
    def make() -> PreTrainedModel:
        model = _adapted("llama", 7, "full")

        def check(*_: object) -> None:
            if len(blocks(model)) != model.config.num_hidden_layers:
                raise error

        model.get_decoder().register_forward_pre_hook(check)
        return model

    few, whole = _of_few_and_whole("llama", make)
    assert few is None and whole.flops > 0


@pytest.mark.parametrize("recomputes", [False, True])
def test_attention_on_a_gpu_keeps_no_scores(recomputes: bool) -> None:
    here, there = packing(_empty("llama")).train(), _empty("llama").train()
    use_packed_attention_by_kernel(there)
    if recomputes:
        checkpoint_activations(here)
        checkpoint_activations(there)
    by_products, by_kernel = _dry(here, "llama", packs=True), _dry(there, "llama", packs=True)
    assert by_kernel.moments["backward"].activations < by_products.moments["backward"].activations


def test_a_model_that_hangs_on_values_is_refused_in_one_sentence() -> None:
    class Choosing(nn.Module):
        def forward(self, states_BTD: torch.Tensor) -> torch.Tensor:
            return states_BTD if states_BTD.sum() > 0 else -states_BTD

    model = copy.deepcopy(_empty("llama")).train()
    blocks(model)[0].mlp = Choosing()
    with pytest.raises(ValueError, match=r"model\.path must be a model whose forward pass does not hang on values"):
        _dry(model, "llama")


def test_groups_are_blocks_and_what_is_outside_of_them() -> None:
    model = tiny("llama")
    groups = groups_of(model)
    sizes = [sum(p.nbytes for p in block.parameters()) for block in blocks(model)]
    assert groups.largest_block == groups.largest_block_trained == max(sizes)
    assert groups.outside_blocks == sum(p.nbytes for p in model.parameters()) - sum(sizes)

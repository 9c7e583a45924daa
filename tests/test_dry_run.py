"""A step without values holds and computes what a real one does."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from tiny_models import collator_of, facts_of, model_at, packing, rows_for, tiny
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from forgetmenot.dry_run import DryStep, dry_step, groups_of, held_always
from forgetmenot.loss import loss_sum
from forgetmenot.model.layers import blocks
from forgetmenot.model.load import empty_model
from forgetmenot.model.options import checkpoint_activations
from forgetmenot.model.packing import use_packed_attention_by_kernel

LENGTHS = [(9, 3), (2, 5), (5, 1), (30, 9)]
ADAMW = partial(AdamW, lr=1e-3, fused=True)


def _empty(family: str) -> PreTrainedModel:
    return empty_model(model_at("nowhere", weights="random"), tiny(family).config).float()


def _optimizer(kind: Callable[..., Optimizer]) -> Callable[[nn.Module], Optimizer]:
    return lambda model: kind([p for p in model.parameters() if p.requires_grad])


def _dry(model: PreTrainedModel, family: str, *, several: bool = True, packs: bool = False) -> DryStep:
    batch = collator_of(tiny(family), packs=packs).rows(rows_for(tiny(family), LENGTHS))
    return dry_step(
        model, batch, facts_of(tiny(family)),
        make_optimizer=_optimizer(ADAMW), several=several, autocast=False,
    )  # fmt: skip


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
    with_moments = held_always(_empty("llama"), make_optimizer=_optimizer(ADAMW))
    without = held_always(_empty("llama"), make_optimizer=_optimizer(partial(SGD, lr=1e-3)))
    assert without.optimizer == 0
    assert with_moments.optimizer == pytest.approx(2 * with_moments.gradients, rel=0.01)


def test_recomputed_blocks_keep_less_and_compute_more() -> None:
    plain, recomputing = _empty("llama").train(), _empty("llama").train()
    checkpoint_activations(recomputing)
    whole, less = _dry(plain, "llama"), _dry(recomputing, "llama")
    assert less.moments["head"].activations < whole.moments["head"].activations / 2
    assert less.flops > whole.flops


def test_a_first_micro_batch_meets_no_gradients() -> None:
    assert _dry(_empty("llama").train(), "llama", several=False).moments["forward"].gradients == 0


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

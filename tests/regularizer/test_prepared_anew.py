"""What a penalty holds is in no checkpoint: prepared anew over the untrained model, it is bitwise what it was."""

from pathlib import Path

import pytest
import torch
from method_contract import adapted
from tiny_models import rows_for, tiny
from tiny_penalties import moved, supplies_of
from tiny_training import fit, module_of, steps_of
from torch import Tensor

from forgetmenot.data.types import Step
from forgetmenot.method.base import Method
from forgetmenot.method.bottleneck import Bottleneck
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.module import AdaptationModule
from forgetmenot.regularizer.base import Regularizer
from forgetmenot.regularizer.ewc import EWC
from forgetmenot.regularizer.kl import KL
from forgetmenot.regularizer.l2_sp import L2SP

FULL = Full(name="full", lr=1e-2)
LORA = Lora(name="lora", lr=1e-2, rank=2, alpha=4, dropout=0.1, target_modules=("all-linear",))
DORA = Lora(name="dora", lr=1e-2, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",), decomposed=True)
PISSA = Lora(name="pissa", lr=1e-2, rank=2, alpha=2, dropout=0.0, target_modules=("all-linear",), start="pissa")
BOTTLENECK = Bottleneck(name="bottleneck", lr=1e-2, size=4, after=("attention", "feed_forward"))

L2_SP = L2SP(name="l2_sp", weight=0.1)
RETAINED = EWC(name="retained", weight=0.1, source="retained", num_examples=3, max_tokens=4)
SAMPLES = EWC(name="samples", weight=0.1, source="samples", num_examples=3, max_tokens=4)
BASE = KL(name="base", weight=0.1, reference=None, positions="all")
TEACHER = KL(name="teacher", weight=0.1, reference="a teacher", positions="supervised")

CASES = [
    *((method, L2_SP) for method in (FULL, LORA, DORA, PISSA, BOTTLENECK)),
    *((method, RETAINED) for method in (FULL, LORA, DORA, PISSA)),
    (FULL, SAMPLES),
    *((method, BASE) for method in (FULL, LORA)),
    (FULL, TEACHER),
]
every_case = pytest.mark.parametrize(("method", "regularizer"), CASES, ids=lambda case: case.name)


def started(method: Method, *regularizers: Regularizer) -> AdaptationModule:
    """Returns a module as every start of a run builds it: the method on the base, then penalties around it."""
    model = adapted(method, "llama").train()
    supplies = supplies_of("llama", virtual_tokens=method.virtual_ids)
    penalties = {regularizer.name: regularizer.prepare(model, supplies) for regularizer in regularizers}
    return module_of(model, "llama", penalties=penalties, total_steps=2)


def state(module: AdaptationModule) -> dict[str, Tensor]:
    """Returns all that penalties hold, whether a checkpoint would have it or not."""
    held = module.penalties
    return {name: tensor.detach().clone() for name, tensor in (*held.named_buffers(), *held.named_parameters())}


def steps(module: AdaptationModule) -> list[Step]:
    rows = [rows_for(tiny("llama"), [(7, 3), (2, 4), (9, 2)], seed=seed) for seed in (0, 1)]
    comparisons = [penalty.comparison for penalty in module.penalties.on_tokens.values()]
    return steps_of("llama", rows, cut=[[0, 1, 2]], comparisons=comparisons)


def penalty_of(module: AdaptationModule) -> Tensor:
    """Returns the value of the one penalty, as the weights are now."""
    model = module.model.eval()
    for penalty in module.penalties.on_tokens.values():
        return penalty(model, steps(module)[0].compared[0].micro_batches[0], module.facts).detach()
    (penalty,) = module.penalties.on_weights.values()
    return penalty(model).detach()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@every_case
def test_prepared_anew_over_what_a_checkpoint_holds_it_is_bitwise_what_it_was(
    method: Method, regularizer: Regularizer
) -> None:
    module = started(method, regularizer)
    held = state(module)
    moved(module.model, by=0.1)
    kept = {f"model.{name}": p.detach() for name, p in module.model.named_parameters() if p.requires_grad}

    anew = started(method, regularizer)
    anew.load_state_dict(kept, strict=False)

    assert same(state(anew), held)
    assert torch.equal(penalty_of(anew), penalty_of(module)) and penalty_of(module) > 0


def test_training_leaves_what_penalties_hold_and_a_checkpoint_leaves_it_out(tmp_path: Path) -> None:
    module = started(PISSA, L2_SP, RETAINED, BASE)
    held = state(module)

    fit(module, steps(module)).save_checkpoint(tmp_path / "last.ckpt")

    assert len(held) > 0 and same(state(module), held)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert kept and not [name for name in kept if name.startswith("penalties.")]

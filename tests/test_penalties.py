"""Penalties in the training step: beside a plain loop, whatever the cut, several at once, and left alone by DDP."""

from collections.abc import Mapping

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_models import rows_for, tiny
from tiny_penalties import supplies_of
from tiny_training import LR, Cut, fit, module_of, plain_loop, steps_of
from torch import Tensor, nn
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from forgetmenot.data.types import Batch, Encoded, Step
from forgetmenot.method.full import Full
from forgetmenot.regularizer.base import Penalty, TokenPenalty
from forgetmenot.regularizer.ewc import EWC
from forgetmenot.regularizer.kl import KL
from forgetmenot.regularizer.l2_sp import L2SP

LENGTHS = [[(7, 3), (2, 4), (12, 1), (4, 4)], [(3, 2), (5, 6), (9, 2), (1, 3)]]
WHOLE: Cut = [[0, 1, 2, 3]]
CUTS: list[Cut] = [WHOLE, [[0, 2], [3, 1]], [[0], [1], [2], [3]]]
every_cut = pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{len(cut)} cuts")
Penalties = Mapping[str, Penalty | TokenPenalty]


class Logged(Callback):
    """Keeps what each step logged."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def model() -> PreTrainedModel:
    return Full(name="full", lr=LR).apply(tiny("llama")).train()


def examples() -> list[list[Encoded]]:
    return [rows_for(tiny("llama"), lengths, seed=seed) for seed, lengths in enumerate(LENGTHS)]


def prepared(untrained: PreTrainedModel, *chosen: str) -> Penalties:
    known = {
        "l2_sp": L2SP(name="l2_sp", weight=0.5),
        "ewc": EWC(name="ewc", weight=2.0, source="retained", num_examples=3, max_tokens=4),
        "kl": KL(name="kl", weight=3.0, reference=None, positions="all"),
        "distilled": KL(name="distilled", weight=0.5, reference="a teacher", positions="supervised"),
    }
    return {name: known[name].prepare(untrained, supplies_of("llama")) for name in chosen}


def steps(penalties: Penalties, *, cut: Cut) -> list[Step]:
    comparisons = [penalty.comparison for penalty in penalties.values() if isinstance(penalty, TokenPenalty)]
    return steps_of("llama", examples(), cut=cut, comparisons=comparisons)


def trained(*chosen: str, cut: Cut) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """Returns the weights after training under the penalties, and what was logged."""
    ours, logged = model(), Logged()
    penalties = prepared(ours, *chosen)
    fit(module_of(ours, "llama", penalties=penalties, total_steps=2), steps(penalties, cut=cut), logged)
    return {name: p.detach() for name, p in ours.named_parameters()}, logged.steps


def every_position(batch: Batch) -> Tensor:
    """Returns (rows, T - 1): whether a token stands at a position and one follows it."""
    return (batch.attention_mask_BT[:, :-1] == 1) & (batch.attention_mask_BT[:, 1:] == 1)


@every_cut
def test_a_penalty_on_tokens_is_their_mean_over_the_step_whatever_the_cut(cut: Cut) -> None:
    plain, base, whole = model(), tiny("llama"), steps_of("llama", examples(), cut=WHOLE)
    taken = iter(step.micro_batches[0] for step in whole)

    def divergence(now: nn.Module) -> Tensor:
        batch = next(taken)
        inputs = {"attention_mask": batch.attention_mask_BT, "position_ids": batch.position_ids_BT}
        chosen = every_position(batch)
        ours, theirs = (m(batch.input_ids_BT, **inputs).logits[:, :-1][chosen] for m in (now, base))
        both = ours.log_softmax(-1), theirs.log_softmax(-1).detach()
        return 3.0 * kl_div(*both, reduction="batchmean", log_target=True)

    weights, logged = trained("kl", cut=cut)
    losses = plain_loop(plain, whole, penalty=divergence)

    torch.testing.assert_close(weights, dict(plain.named_parameters()), rtol=1e-4, atol=1e-5)
    assert [step["train/loss"] for step in logged] == pytest.approx(losses, rel=1e-5)


def test_several_at_once_add_up_and_are_logged_each_by_its_name() -> None:
    ours = model()
    penalties = prepared(ours, "l2_sp", "ewc", "kl", "distilled")
    seen: list[dict[str, float]] = []
    losses = []

    plain, whole = model(), steps(penalties, cut=WHOLE)
    taken = iter(whole)

    def all_of_them(now: PreTrainedModel) -> Tensor:
        step, facts = next(taken), module.facts
        on_tokens = iter(step.compared)
        values = {}
        for name, penalty in penalties.items():
            if isinstance(penalty, TokenPenalty):
                compared = next(on_tokens)
                values[name] = penalty(now, compared.micro_batches[0], facts) / compared.tokens
            else:
                values[name] = penalty(now)
        seen.append({name: value.item() for name, value in values.items()})
        return torch.stack(list(values.values())).sum()

    module, logged = module_of(ours, "llama", penalties=penalties, total_steps=2), Logged()
    losses = plain_loop(plain, whole, penalty=all_of_them)
    fit(module, steps(penalties, cut=CUTS[1]), logged)

    torch.testing.assert_close(
        {name: p.detach() for name, p in ours.named_parameters()},
        {name: p.detach() for name, p in plain.named_parameters()},
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    for step, loss, values in zip(logged.steps, losses, seen, strict=True):
        assert step["train/loss"] == pytest.approx(loss, rel=1e-4)
        for name, value in values.items():
            assert step[f"train/penalty/{name}"] == pytest.approx(value, rel=1e-3, abs=1e-6)


def test_the_state_of_penalties_is_left_out_of_what_ddp_broadcasts_and_nothing_else_is() -> None:
    module = module_of(ours := model(), "llama", penalties=prepared(ours, "l2_sp", "ewc", "kl"))

    left = set(module._ddp_params_and_buffers_to_ignore)

    state = {name for name, _ in (*module.named_buffers(), *module.named_parameters())}
    assert left == {name for name in state if name.startswith("penalties.")}
    assert any(name.startswith("penalties.parts.2.model.") for name in left)


def test_a_penalty_that_is_no_number_stops_the_run() -> None:
    ours = model()
    penalties = prepared(ours, "l2_sp")
    penalties["l2_sp"].start_0.fill_(float("inf"))

    with pytest.raises(ValueError, match=r"^the loss and its penalties must stay finite numbers, got inf at step 0"):
        fit(module_of(ours, "llama", penalties=penalties), steps(penalties, cut=WHOLE))

"""The training step beside a plain PyTorch loop, whatever the cut, and what a checkpoint holds."""

import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tiny_models import collator_of, rows_for, tiny
from tiny_penalties import supplies_of
from tiny_training import LR, Cut, Stepping, fit, module_of, plain_loop, steps_of
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import PreTrainedModel

from forgetmenot.data.compare import Comparison
from forgetmenot.data.types import Batch, Compared, Encoded, ScoringBatch
from forgetmenot.loss import loss_sum
from forgetmenot.method.base import Method
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.model.facts import ModelFacts
from forgetmenot.regularizer.base import Penalty, TokenPenalty
from forgetmenot.regularizer.l2_sp import L2SP

LENGTHS = [[(7, 3), (2, 4), (12, 1), (4, 4)], [(3, 2), (5, 6), (9, 2), (1, 3)], [(6, 1), (6, 5), (2, 2), (10, 3)]]
WHOLE: Cut = [[0, 1, 2, 3]]
CUTS: list[Cut] = [WHOLE, [[0, 2], [3, 1]], [[1], [0, 3], [2]], [[0], [1], [2], [3]]]
FULL = Full(name="full", lr=LR)
LORA = Lora(name="lora", lr=LR, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",))
every_cut = pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{len(cut)} cuts")


class Logged(Callback):
    """Keeps what each step logged."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def adapted(method: Method, family: str) -> PreTrainedModel:
    """Returns a tiny model with the method applied, always the same."""
    base = tiny(family)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return method.apply(base).train()


def examples(family: str) -> list[list[Encoded]]:
    return [rows_for(tiny(family), lengths, seed=seed) for seed, lengths in enumerate(LENGTHS)]


def held(model: nn.Module, *, weight: float) -> Penalty:
    return L2SP(name="l2_sp", weight=weight).prepare(model, supplies_of("llama"))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@every_cut
@pytest.mark.parametrize(("method", "family"), [(FULL, "llama"), (FULL, "gpt2"), (FULL, "t5"), (LORA, "llama")])
def test_training_gives_the_weights_of_a_plain_loop_with_each_step_in_one_batch(
    method: Method, family: str, cut: Cut
) -> None:
    ours, plain = adapted(method, family), adapted(method, family)

    fit(module_of(ours, family), steps_of(family, examples(family), cut=cut))
    plain_loop(plain, steps_of(family, examples(family), cut=WHOLE))

    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-5, atol=1e-6)
    assert any(
        not torch.equal(weight, weights(adapted(method, family))[name]) for name, weight in weights(ours).items()
    )


@pytest.mark.parametrize("cut", CUTS[1:3])
def test_training_with_adamw_gives_the_weights_of_a_plain_loop(cut: Cut) -> None:
    ours, plain = adapted(FULL, "llama"), adapted(FULL, "llama")
    stepping = Stepping(make_optimizer=partial(AdamW, eps=1e-3))  # so that noise in tiny gradients stays small

    fit(module_of(ours, "llama", stepping=stepping), steps_of("llama", examples("llama"), cut=cut))
    plain_loop(plain, steps_of("llama", examples("llama"), cut=WHOLE), stepping=stepping)

    flat, reference = (torch.cat([weight.flatten() for weight in weights(model).values()]) for model in (ours, plain))
    assert (flat - reference).norm() / reference.norm() < 1e-5


@every_cut
def test_the_gradient_of_the_whole_step_is_clipped_and_not_that_of_each_cut(cut: Cut) -> None:
    ours, plain, unclipped = (adapted(FULL, "llama") for _ in range(3))
    stepping = Stepping(clip_norm=0.3)

    fit(module_of(ours, "llama", stepping=stepping), steps_of("llama", examples("llama"), cut=cut))
    plain_loop(plain, steps_of("llama", examples("llama"), cut=WHOLE), stepping=stepping)
    plain_loop(unclipped, steps_of("llama", examples("llama"), cut=WHOLE))

    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-5, atol=1e-6)
    assert (weights(plain)["lm_head.weight"] - weights(unclipped)["lm_head.weight"]).abs().max() > 1e-3


@every_cut
def test_penalties_are_added_once_a_step_whatever_the_cut(cut: Cut) -> None:
    ours, plain, start = (adapted(FULL, "llama") for _ in range(3))
    penalties = {str(weight): held(ours, weight=weight) for weight in (1.5, 0.5)}
    origin = weights(start)

    def distance(model: nn.Module) -> Tensor:
        return sum(((p - origin[name]) ** 2).sum() for name, p in model.named_parameters())

    fit(module_of(ours, "llama", penalties=penalties), steps_of("llama", examples("llama"), cut=cut))
    plain_loop(plain, steps_of("llama", examples("llama"), cut=WHOLE), penalty=distance)

    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-5, atol=1e-6)


@every_cut
def test_the_logged_loss_is_the_mean_over_the_steps_supervised_tokens(cut: Cut) -> None:
    logged = Logged()

    fit(module_of(adapted(FULL, "llama"), "llama"), steps_of("llama", examples("llama"), cut=cut), logged)
    losses = plain_loop(adapted(FULL, "llama"), steps_of("llama", examples("llama"), cut=WHOLE))

    assert [step["train/loss"] for step in logged.steps] == pytest.approx(losses, rel=1e-5)


def test_the_logged_learning_rate_is_the_one_that_the_step_was_taken_with() -> None:
    logged = Logged()

    fit(module_of(adapted(FULL, "llama"), "llama"), steps_of("llama", examples("llama"), cut=WHOLE), logged)

    assert [step["train/lr"] for step in logged.steps] == pytest.approx([LR, LR * 2 / 3, LR / 3])


def test_the_logged_tokens_are_the_steps_own() -> None:
    logged, steps = Logged(), steps_of("llama", examples("llama"), cut=CUTS[1])

    fit(module_of(adapted(FULL, "llama"), "llama"), steps, logged)

    assert [step["train/tokens"] for step in logged.steps] == [step.num_tokens for step in steps]


@every_cut
def test_lightning_counts_optimizer_steps_and_not_micro_batches(cut: Cut) -> None:
    trainer = fit(module_of(adapted(FULL, "llama"), "llama"), steps_of("llama", examples("llama"), cut=cut))

    assert trainer.global_step == len(LENGTHS)


def test_the_graph_of_a_loss_and_of_a_penalty_is_gone_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alive:
        """Lives as long as the graph that it is put into."""

    graphs: list[weakref.ref[Alive]] = []
    still_there: list[bool] = []

    def watched(model: PreTrainedModel, batch: Batch, facts: ModelFacts) -> Tensor:
        still_there.append(any(graph() is not None for graph in graphs))
        loss = loss_sum(model, batch, facts)
        assert loss.grad_fn is not None
        alive = loss.grad_fn.metadata["alive"] = Alive()
        graphs.append(weakref.ref(alive))
        return loss

    class Again(TokenPenalty):
        def __init__(self) -> None:
            super().__init__()
            collator = collator_of(tiny("llama"))
            self.comparison = Comparison(collator=collator, reference_collator=collator, positions="supervised")

        def forward(self, model: PreTrainedModel, compared: Compared, facts: ModelFacts) -> Tensor:
            return watched(model, compared.rows, facts)

    monkeypatch.setattr("forgetmenot.module.loss_sum", watched)
    penalty = Again()
    steps = steps_of("llama", examples("llama"), cut=CUTS[1], comparisons=[penalty.comparison])
    fit(module_of(adapted(FULL, "llama"), "llama", penalties={"again": penalty}), steps)

    assert still_there == [False] * (len(LENGTHS) * len(CUTS[1]) * 2)


def test_a_micro_batch_of_weight_zero_keeps_ranks_in_step_and_teaches_nothing() -> None:
    ours, plain = adapted(FULL, "llama"), adapted(FULL, "llama")
    steps = steps_of("llama", examples("llama"), cut=WHOLE)
    doubled = [replace(s, micro_batches=s.micro_batches * 2, weights=(1.0, 0.0)) for s in steps]

    fit(module_of(ours, "llama"), doubled)
    plain_loop(plain, steps)

    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run_with_one_sentence() -> None:
    model = adapted(FULL, "llama")
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")

    with pytest.raises(
        ValueError, match=r"^the loss and its penalties must stay finite numbers, got nan at step \d"
    ) as error:
        fit(module_of(model, "llama"), steps_of("llama", examples("llama"), cut=CUTS[1]))

    assert "\n" not in str(error.value)


def test_a_loss_that_is_not_finite_names_the_examples_of_its_step() -> None:
    model = adapted(FULL, "llama")
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")

    with pytest.raises(
        ValueError, match=r"at step 0 \(training examples 0, 1, 2, 3, counted from 0\); no weights were"
    ):
        fit(module_of(model, "llama"), steps_of("llama", examples("llama"), cut=WHOLE))


def test_what_the_loss_does_not_reach_is_named_after_the_first_step() -> None:
    model = adapted(FULL, "llama")
    for number in range(5):
        model.register_parameter(f"idle_{number}", nn.Parameter(torch.ones(2)))

    with pytest.raises(ValueError, match=r"must get a gradient .* got none for idle_0, idle_1, idle_2 and 2 more; "):
        fit(module_of(model, "llama"), steps_of("llama", examples("llama"), cut=WHOLE))


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
def test_a_checkpoint_holds_the_trained_weights_alone(method: Method, tmp_path: Path) -> None:
    model = adapted(method, "gpt2")
    penalties = {"l2_sp": held(model, weight=0.1)}
    trainer = fit(module_of(model, "gpt2", penalties=penalties), steps_of("gpt2", examples("gpt2"), cut=WHOLE))

    trainer.save_checkpoint(tmp_path / "last.ckpt")

    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    trained = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
    assert kept.keys() == trained.keys()
    assert all(torch.equal(kept[name], trained[name]) for name in kept)


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
def test_a_checkpoint_taken_into_a_fresh_module_gives_the_same_model(method: Method, tmp_path: Path) -> None:
    model, fresh = adapted(method, "gpt2"), module_of(adapted(method, "gpt2"), "gpt2")
    trainer = fit(module_of(model, "gpt2"), steps_of("gpt2", examples("gpt2"), cut=WHOLE))
    trainer.save_checkpoint(tmp_path / "last.ckpt")

    loaded = fresh.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"], strict=False)

    assert loaded.unexpected_keys == []
    ids = torch.arange(4, 20)[None]
    torch.testing.assert_close(fresh.model(ids).logits, model(ids).logits, rtol=0, atol=0)


def test_the_module_has_each_trained_parameter_once_though_penalties_watch_them() -> None:
    model = adapted(LORA, "llama")
    module = module_of(model, "llama", penalties={"l2_sp": held(model, weight=0.1)})

    assert {id(p) for p in module.parameters()} == {id(p) for p in model.parameters()}
    assert len(list(module.parameters())) == len(list(model.parameters()))


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_scoring_a_batch_gives_the_loss_of_each_row(family: str) -> None:
    module = module_of(adapted(FULL, family).eval(), family)
    (rows,) = steps_of(family, examples(family)[:1], cut=WHOLE)[0].micro_batches
    indices = tuple(range(4, 4 + rows.num_rows))
    batch = ScoringBatch(
        task="text", indices=indices, rows=rows, num_supervised=(1,) * len(indices), num_bytes=(1,) * len(indices),
        prompts=None, max_new_tokens=1, counted=True,
    )  # fmt: skip

    scored = module.test_step(batch, 0)["scored"]

    assert (scored.answers, scored.chosen, scored.divergences) == ((), (), ())
    assert len(scored.nats) == len(indices)
    assert sum(scored.nats) == pytest.approx(loss_sum(module.model, rows, module.facts).item())

"""EWC beside gradients taken example by example, and beside its own sum over weights that are formed."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from low_rank_models import low_rank, merged
from method_contract import quantized
from tiny_models import BOS, EOS, VOCAB, WIDE, tiny
from tiny_penalties import frozen, gradients, moved, retained, supplies_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from forgetmenot.data.types import IGNORE_INDEX, Encoded
from forgetmenot.method.base import Method
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.method.prompt import Prompt
from forgetmenot.regularizer.ewc import EWC, ConsolidationPenalty
from forgetmenot.regularizer.fisher import diagonal_fisher, sample_texts

FULL = Full(name="full", lr=1e-3)
LORA = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",))
PROMPT = Prompt(name="prompt", lr=1e-2, num_virtual_tokens=4, start=None)
RETAINED = EWC(name="ewc", weight=0.7, source="retained", num_examples=3, max_tokens=8)
SAMPLES = EWC(name="ewc", weight=0.7, source="samples", num_examples=5, max_tokens=8)
CPU = torch.device("cpu")


def plain_fisher(model: PreTrainedModel, rows: list[Encoded]) -> dict[str, Tensor]:
    """Returns the mean of squared gradients of each row's log-likelihood, by autograd over its logits alone."""
    weights = dict(model.named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for row in rows:
        ids, labels = (torch.from_numpy(array).long() for array in (row.input_ids, row.labels))
        if model.config.is_encoder_decoder:
            logits, targets = model(input_ids=ids[None], labels=labels[None]).logits[0], labels
        else:
            logits, targets = model(ids[None]).logits[0, :-1], labels[1:]
        likelihood = -cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE_INDEX)
        for name, gradient in zip(weights, torch.autograd.grad(likelihood, list(weights.values())), strict=True):
            total[name] += gradient**2
    return {name: value / len(rows) for name, value in total.items()}


def base_names(family: str) -> set[str]:
    return {name for name, _ in tiny(family).named_parameters()}


@pytest.mark.parametrize("family", ["llama", "t5", "gpt2"])
def test_the_fisher_is_the_mean_of_each_examples_squared_gradient(family: str) -> None:
    ours = diagonal_fisher(frozen(family), retained(family), device=CPU)

    torch.testing.assert_close(ours, plain_fisher(tiny(family), list(retained(family))), rtol=1e-4, atol=1e-7)


def test_an_example_seen_twice_counts_as_one() -> None:
    base, one = frozen("llama"), [retained("llama")[0]]

    alone, twice = (diagonal_fisher(base, one * times, device=CPU) for times in (1, 2))

    torch.testing.assert_close(twice, alone)  # the mean of squares: the square of a batch's gradient would be fourfold


def test_the_model_whose_fisher_was_taken_is_left_frozen_and_without_gradients() -> None:
    base = frozen("llama")

    diagonal_fisher(base, retained("llama"), device=CPU)

    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


def value_and_gradient(penalty: ConsolidationPenalty, model: nn.Module) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    value = penalty(model)
    value.backward()
    return value.item(), gradients(model)


def plain_penalty(now: Mapping[str, Tensor], start: Mapping[str, Tensor], fisher: Mapping[str, Tensor]) -> Tensor:
    return 0.7 / 2 * sum((fisher[name] * (weight - start[name]) ** 2).sum() for name, weight in now.items())


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_trained_weights_of_the_base_are_held_each_by_its_fisher(family: str) -> None:
    model = FULL.apply(tiny(family))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    penalty = RETAINED.prepare(model, supplies_of(family))
    assert penalty(model).item() == 0.0

    value, ours = value_and_gradient(penalty, moved(model))
    model.zero_grad()
    plain = plain_penalty(dict(model.named_parameters()), start, plain_fisher(tiny(family), list(retained(family))))
    plain.backward()

    assert value == pytest.approx(plain.item(), rel=1e-4)
    torch.testing.assert_close(ours, gradients(model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "lora"), ("llama", "pissa"), ("llama", "dora"), ("gpt2", "dora"), ("gpt2", "lora")]
)
def test_an_adapter_is_held_by_the_fisher_of_the_weights_that_it_changes(family: str, kind: str) -> None:
    model = low_rank(family, kind)
    start = {name: weight.detach() for name, weight in merged(model).items()}
    penalty = RETAINED.prepare(model, supplies_of(family))
    assert penalty(model).item() == pytest.approx(0.0, abs=1e-9)

    value, ours = value_and_gradient(penalty, moved(model, by=0.1))
    model.zero_grad()
    plain = plain_penalty(merged(model), start, plain_fisher(tiny(family), list(retained(family))))
    plain.backward()

    assert value == pytest.approx(plain.item(), rel=1e-4)
    torch.testing.assert_close(ours, gradients(model), rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra `quantize`")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_over_4_bits_the_fisher_is_that_of_the_exact_base_whichever_way_it_keeps_its_matrices(family: str) -> None:
    exact = tiny(family, sizes=WIDE[family])
    fisher = {name: torch.rand_like(weight) for name, weight in exact.named_parameters()}
    over_4_bits = replace(LORA, quantize="nf4").apply(quantized(family, dtype=torch.float32))
    over_exact = LORA.apply(exact)
    ours, plain = (ConsolidationPenalty(m, fisher=fisher, weight=0.7) for m in (over_4_bits, over_exact))

    learned = {name: w for name, w in moved(over_4_bits, by=0.1).state_dict().items() if ".lora_" in name}
    over_exact.load_state_dict(learned, strict=False)

    assert ours(over_4_bits).item() == pytest.approx(plain(over_exact).item(), rel=1e-5) != 0.0


def test_full_and_lora_are_held_by_the_same_fisher() -> None:
    asked: list[Mapping[str, object]] = []

    for method in (FULL, LORA):
        RETAINED.prepare(method.apply(tiny("llama")), supplies_of("llama", made=asked))

    assert asked[0] == asked[1]
    assert asked[0]["name"] == "fisher"


def test_other_examples_another_source_or_another_seed_are_kept_apart() -> None:
    asked: list[Mapping[str, object]] = []
    fewer = EWC(name="ewc", weight=0.7, source="retained", num_examples=2, max_tokens=8)

    for chosen in (RETAINED, fewer, SAMPLES):
        chosen.prepare(FULL.apply(tiny("llama")), supplies_of("llama", made=asked))

    assert len({str(settings) for settings in asked}) == 3
    assert all(settings["seed"] == 3 for settings in asked)


@pytest.mark.parametrize("method", [FULL, LORA], ids=["full", "lora"])
def test_a_method_that_changes_the_bases_weights_is_taken(method: Method) -> None:
    SAMPLES.check(method.apply(tiny("llama")), own=base_names("llama"), context=None)


def test_a_method_that_leaves_the_bases_weights_alone_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(ValueError, match=r"^regularizer\.ewc must hold weights .* got .*prompt.*regularizer=kl"):
        SAMPLES.check(PROMPT.apply(tiny("llama")), own=base_names("llama"), context=None)


def test_adapted_experts_are_refused_with_what_to_use_instead() -> None:
    with pytest.raises(
        ValueError, match=r"^regularizer\.ewc must hold .* got an adapter of experts at .*experts.*; regularizer=kl"
    ):
        SAMPLES.check(LORA.apply(tiny("mixtral")), own=base_names("mixtral"), context=None)


def test_samples_longer_than_the_model_reads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^regularizer\.ewc\.max_tokens must be below the model's context of 8"):
        SAMPLES.check(FULL.apply(tiny("llama")), own=base_names("llama"), context=SAMPLES.max_tokens)


def test_retained_examples_of_which_none_fits_are_no_samples_instead() -> None:
    supplies = replace(supplies_of("llama", made=[]), retained=lambda number: [])
    with pytest.raises(ValueError, match=r"^max_length must hold a retained example"):
        RETAINED.prepare(FULL.apply(tiny("llama")), supplies)


def test_samples_follow_the_models_own_distribution() -> None:
    base = frozen("llama")
    drawn = sample_texts(base, 4000, max_tokens=1, seed=0)

    first = torch.bincount(torch.tensor([int(row.input_ids[1]) for row in drawn]), minlength=VOCAB) / len(drawn)
    expected = base.model(torch.tensor([[BOS]])).logits[0, -1].softmax(-1)

    assert (first - expected).abs().sum() < 0.15  # of 4000 draws from 48 tokens; a greedy or cut one is far off
    assert expected.max() < 0.8


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_samples_end_with_eos_or_at_their_longest_and_every_token_said_is_learned(family: str) -> None:
    rows = sample_texts(frozen(family), 70, max_tokens=6, seed=1)

    assert len(rows) == 70
    for row in rows:
        said = [token for token in row.labels.tolist() if token != IGNORE_INDEX]
        assert len(said) == 6 or said[-1] == EOS
        assert EOS not in said[:-1]
        assert row.num_tokens == len(said) + 1
        assert row.input_ids[0] == (EOS if family == "t5" else BOS)


def test_samples_are_drawn_by_the_seed_and_leave_torchs_own_numbers_alone() -> None:
    base, state = frozen("llama"), torch.get_rng_state()

    first, same, other = (sample_texts(base, 5, max_tokens=6, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), state)
    texts = [[row.input_ids.tolist() for row in rows] for rows in (first, same, other)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("field", ["num_examples", "max_tokens"])
def test_counts_below_one_are_refused(field: str) -> None:
    settings = {"name": "ewc", "weight": 1.0, "source": "samples", "num_examples": 1, "max_tokens": 1, field: 0}
    with pytest.raises(ValueError, match=f"^{field} must be at least 1, got 0$"):
        EWC(**settings)

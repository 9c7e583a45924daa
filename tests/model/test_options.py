"""Ways to save memory or time: what is computed stays the same, and the way is really taken."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from tiny_models import CONFIGS, collator_of, facts_of, packing, rows_for, tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from forgetmenot.loss import loss_sum
from forgetmenot.method.base import Method
from forgetmenot.method.bottleneck import Bottleneck
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.method.prompt import Prompt
from forgetmenot.model import options
from forgetmenot.model.options import check_liger, checkpoint_activations, compile_blocks

LENGTHS = [[(9, 3), (2, 5)], [(5, 1), (4, 4), (12, 2)], [(3, 3)]]
METHODS = [
    Full(name="full", lr=1e-3),
    Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",)),
    Prompt(name="prompt", lr=1e-3, num_virtual_tokens=3, start=None),
    Bottleneck(name="bottleneck", lr=1e-3, size=4, after=("attention", "feed_forward")),
]


def adapted(method: Method, family: str) -> PreTrainedModel:
    torch.manual_seed(2)
    return method.apply(packing(tiny(family))).train()


def loss_and_gradient(model: PreTrainedModel, method: Method, family: str) -> tuple[float, Tensor]:
    """Returns what several batches of unlike lengths give together."""
    collator = collator_of(tiny(family), virtual_tokens=method.virtual_ids, packs=True)
    total = 0.0
    for seed, lengths in enumerate(LENGTHS):
        loss = loss_sum(model, collator.rows(rows_for(tiny(family), lengths, seed=seed)), facts_of(tiny(family)))
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_same(option: Callable[[PreTrainedModel], None], method: Method, family: str) -> None:
    with_option, without = adapted(method, family), adapted(method, family)
    option(with_option)
    ours, reference = (loss_and_gradient(model, method, family) for model in (with_option, without))
    assert ours[0] == pytest.approx(reference[0], rel=1e-5)
    assert (ours[1] - reference[1]).norm() <= 1e-5 * reference[1].norm()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_recomputed_activations_give_the_same_loss_and_gradients(method: Method, family: str) -> None:
    assert_same(checkpoint_activations, method, family)


def test_blocks_really_run_once_more_in_backward() -> None:
    model = adapted(METHODS[1], "llama")
    checkpoint_activations(model)
    runs: list[nn.Module] = []
    for layer in model.modules():
        if type(layer).__name__ == "LlamaMLP":
            layer.register_forward_pre_hook(lambda module, given: runs.append(module))
    batch = collator_of(tiny("llama"), packs=True).rows(rows_for(tiny("llama"), LENGTHS[0]))
    loss = loss_sum(model, batch, facts_of(tiny("llama")))
    once = len(runs)
    loss.backward()
    assert len(runs) == 2 * once == 4


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS[:2], ids=lambda method: method.name)
def test_compiled_blocks_give_the_same_loss_and_gradients_for_rows_of_any_length(method: Method) -> None:
    assert_same(compile_blocks, method, "llama")


def test_a_model_without_known_blocks_cannot_be_compiled_or_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(ValueError, match=r"^model.activation_checkpointing must be false .*, got true for llama$"):
        checkpoint_activations(model)
    model.model.layers = nn.ModuleList()
    with pytest.raises(ValueError, match=r"^model.compile must be false .*, got true for llama$"):
        compile_blocks(model)


def test_liger_kernels_that_are_not_there_are_refused_with_the_way_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^model.liger must be false where liger-kernel is not installed, got true"):
        check_liger(CONFIGS["llama"])


def test_a_family_that_liger_has_no_kernels_for_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = SimpleNamespace(MODEL_TYPE_TO_APPLY_LIGER_FN={"llama": print})
    monkeypatch.setattr(options, "find_spec", lambda name: name)
    monkeypatch.setattr(options, "import_module", lambda name: kernels)
    check_liger(CONFIGS["llama"])
    with pytest.raises(ValueError, match=r"^model.liger must be false .* no kernels for, got true for gpt2$"):
        check_liger(CONFIGS["gpt2"])

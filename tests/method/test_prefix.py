"""Prefix tuning: the contract of a method, and keys and values that stand before padding and prompt."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from method_contract import MethodContract, adapted, own_collator, trained
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import collator_of, facts_of, prompt_of, rows_for, tiny, word_tokenizer
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from forgetmenot.data import collate
from forgetmenot.data.types import Batch
from forgetmenot.generate import Prefix, answer
from forgetmenot.method.prefix import PrefixTuning

CAUSAL = ["llama", *(pytest.param(family, marks=pytest.mark.slow) for family in ("gpt2", "gemma", "qwen3"))]
FAMILIES = [*CAUSAL, "t5", pytest.param("bart", marks=pytest.mark.slow)]
PLAIN = PrefixTuning(name="prefix", lr=1e-2, num_virtual_tokens=5, projection=None)


def logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Returns those of every position."""
    with torch.no_grad():
        return model(
            input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT, position_ids=batch.position_ids_BT
        ).logits


class TestPrefix(MethodContract):
    """Prefix tuning keeps the contract."""

    families = FAMILIES
    starts_as_the_base = False

    def method(self) -> PrefixTuning:
        return PLAIN

    def learns(self, name: str) -> bool:
        return name.startswith("learned_prefix.")


class TestProjectedPrefix(TestPrefix):
    """A prefix that a network makes keeps the contract, too."""

    families = ("llama",)

    def method(self) -> PrefixTuning:
        return replace(PLAIN, projection=12)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("projection", [None, 12])
def test_logits_equal_those_of_peft_at_every_position(family: str, projection: int | None, tmp_path: Path) -> None:
    method = replace(PLAIN, projection=projection)
    model = trained(method, family)
    method.save(model, tmp_path)
    (row,) = rows_for(model, [(6, 4)])
    ids = torch.from_numpy(row.input_ids).long()[None]

    with torch.no_grad():
        peft = PeftModel.from_pretrained(tiny(family), tmp_path)(ids, attention_mask=torch.ones_like(ids))

    torch.testing.assert_close(
        logits(model, own_collator(method, family).rows([row])), peft.logits, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("family", CAUSAL)
def test_what_stands_in_the_padding_changes_nothing(family: str) -> None:
    model = trained(PLAIN, family)
    batch = own_collator(PLAIN, family).rows(rows_for(model, [(3, 2), (14, 5)]))
    other = replace(batch, input_ids_BT=batch.input_ids_BT.masked_fill(batch.attention_mask_BT == 0, 9))

    kept = batch.attention_mask_BT.bool()
    torch.testing.assert_close(logits(model, batch)[kept], logits(model, other)[kept], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", CAUSAL)
def test_it_starts_as_the_keys_and_values_of_words_that_were_read_before(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = torch.tensor([[9, 30, 4, 17, 30]])
    monkeypatch.setattr(torch, "randint", lambda *size, **named: words)
    model = PLAIN.apply(tiny(family))
    (row,) = rows_for(model, [(6, 4)])
    ids = torch.from_numpy(row.input_ids).long()[None]

    with torch.no_grad():
        read = tiny(family)(torch.cat([words, ids], dim=1)).logits[:, 5:]

    torch.testing.assert_close(logits(model, own_collator(PLAIN, family).rows([row])), read, rtol=1e-5, atol=1e-5)


def test_a_cache_that_is_given_empty_takes_the_prefix_in_and_one_with_tokens_stays() -> None:
    model = trained(PLAIN, "llama")
    batch = own_collator(PLAIN, "llama").rows(rows_for(model, [(6, 4)]))
    cache, whole = DynamicCache(config=model.config), logits(model, batch)

    parts = []
    for part in (slice(0, 4), slice(4, 10)):
        inputs = {"input_ids": batch.input_ids_BT[:, part], "position_ids": batch.position_ids_BT[:, part]}
        mask = batch.attention_mask_BT[:, : part.stop]
        with torch.no_grad():
            parts.append(model(**inputs, attention_mask=mask, past_key_values=cache, use_cache=True).logits)

    assert cache.get_seq_length() == 5 + 10
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-5)


def test_a_beginning_that_prompts_share_is_computed_once_behind_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collate, "_SHORTEST_PREFIX", 4)
    model, draw = trained(PLAIN, "llama"), rows_for(tiny("llama"), [(9, 1), (3, 1), (6, 1), (1, 1)], seed=8)
    instruction, *ends = [prompt_of(row) for row in draw]
    prompts = [np.concatenate([instruction, end]) for end in ends]
    collator = replace(collator_of(tiny("llama")), shares_prefix=True)
    settings = {"facts": facts_of(tiny("llama")), "tokenizer": word_tokenizer(), "max_new_tokens": 8}

    prefix = Prefix.of(model, collator.prefix(prompts[0], length=9))

    assert collator.shared(prompts) == 9
    assert answer(model, collator.prompts(prompts, after=9), **settings, prefix=prefix) == answer(
        model, collator.prompts(prompts), **settings
    )


@pytest.mark.parametrize("projection", [None, 12])
def test_the_file_holds_keys_and_values_of_every_layer_under_pefts_name(projection: int | None, tmp_path: Path) -> None:
    method = replace(PLAIN, projection=projection)
    method.save(trained(method, "llama"), tmp_path)

    saved = load_file(tmp_path / "adapter_model.safetensors")

    layers, heads, head_size = 2, 1, 8
    assert {name: tuple(each.shape) for name, each in saved.items()} == {
        "prompt_embeddings": (5, layers * 2 * heads * head_size)
    }


def test_its_tokens_are_counted_but_stand_in_no_row() -> None:
    assert (PLAIN.virtual_tokens, PLAIN.virtual_ids, PLAIN.packs, PLAIN.recomputes) == (5, 0, False, False)
    assert sum(p.numel() for p in adapted(PLAIN, "llama").parameters() if p.requires_grad) == 5 * 2 * 2 * 8


def test_a_model_whose_layers_see_no_further_than_a_window_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(ValueError, match=r"^method must be another for .*no further, got prefix for gemma3.*p_tuning"):
        PLAIN.apply(tiny("gemma3"))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("num_virtual_tokens", "num_virtual_tokens must be at least 1, got 0"),
        ("projection", "projection must be null or a hidden size of at least 1, got 0"),
    ],
)
def test_sizes_below_one_are_refused(field: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        replace(PLAIN, **{field: 0})

"""Prompt tuning: the contract of a method, and a soft prompt that stands between padding and prompt."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_contract import FAMILIES, MethodContract, adapted, own_collator, trained
from peft import PeftModel
from safetensors.torch import load_file
from tiny_models import VOCAB, rows_for, tiny
from torch import Tensor
from transformers import PreTrainedModel

from forgetmenot.method.prompt import Prompt
from forgetmenot.method.virtual_tokens import start_from


def soft_prompt(model: PreTrainedModel) -> Tensor:
    """Returns the virtual tokens' vectors: the one thing that is trained."""
    (weight,) = [p for p in model.parameters() if p.requires_grad]
    return weight.detach()


class TestPrompt(MethodContract):
    """Prompt tuning keeps the contract."""

    starts_as_the_base = False

    def method(self) -> Prompt:
        return Prompt(name="prompt", lr=1e-2, num_virtual_tokens=5, start=None)

    def learns(self, name: str) -> bool:
        return name.endswith("prompt.embedding.weight")

    @pytest.mark.parametrize("family", FAMILIES)
    def test_each_virtual_token_starts_as_the_embedding_of_a_word(self, family: str) -> None:
        table = tiny(family).get_input_embeddings()(torch.arange(VOCAB))  # a call, since Gemma's embeddings are scaled

        started = soft_prompt(adapted(self.method(), family))

        assert started.shape == (5, table.shape[1])
        assert all((table == vector).all(dim=1).any() for vector in started)

    def test_virtual_tokens_start_apart_from_one_another_and_anew_with_another_seed(self) -> None:
        torch.manual_seed(0)
        first = soft_prompt(self.method().apply(tiny("llama")))
        torch.manual_seed(1)
        second = soft_prompt(self.method().apply(tiny("llama")))

        assert len(first.unique(dim=0)) > 1
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize(("tokens", "expected"), [([7, 9], [7, 9, 7, 9, 7]), ([9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5])])
    def test_it_starts_as_the_embeddings_of_a_texts_tokens_repeated_or_cut(
        self, family: str, tokens: list[int], expected: list[int]
    ) -> None:
        model = adapted(self.method(), family)

        start_from(model, tokens, text="given")

        assert torch.equal(soft_prompt(model), tiny(family).get_input_embeddings()(torch.tensor(expected)))

    def test_started_from_a_text_it_is_saved_so_that_peft_asks_for_no_tokenizer(self, tmp_path: Path) -> None:
        method = replace(self.method(), start="a good start")
        model = adapted(method, "llama")
        start_from(model, [7, 9], text="a good start")
        method.save(model, tmp_path)

        loaded = PeftModel.from_pretrained(tiny("llama"), tmp_path)

        assert torch.equal(loaded.prompt_encoder["default"].embedding.weight, soft_prompt(model))
        assert method.start_text == "a good start"

    def test_a_text_without_words_or_tokens_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^start must be a text or null, got ' '$"):
            replace(self.method(), start=" ")
        with pytest.raises(ValueError, match=r"^method\.start must be a text of at least one token, got '_'$"):
            start_from(adapted(self.method(), "llama"), [], text="_")

    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_trains_as_many_vectors_as_virtual_tokens(self, family: str) -> None:
        model = adapted(replace(self.method(), num_virtual_tokens=7), family)

        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 7 * 16

    @pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "gemma3"])
    def test_logits_equal_those_of_peft_at_every_position_of_an_unpadded_row(self, family: str, tmp_path: Path) -> None:
        model = trained(self.method(), family)
        self.method().save(model, tmp_path)
        (row,) = rows_for(model, [(6, 4)])
        batch = own_collator(self.method(), family).rows([row])

        with torch.no_grad():
            ours = model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT, position_ids=batch.position_ids_BT)
            ids = torch.from_numpy(row.input_ids).long()[None]
            peft = PeftModel.from_pretrained(tiny(family), tmp_path)(ids, attention_mask=torch.ones_like(ids))

        torch.testing.assert_close(ours.logits, peft.logits, rtol=1e-5, atol=1e-5)

    def test_what_stands_in_the_padding_changes_nothing(self) -> None:
        model, method = trained(self.method(), "gpt2"), self.method()
        short, long = rows_for(model, [(3, 2), (14, 5)])
        batch = own_collator(method, "gpt2").rows([short, long])
        other = replace(batch, input_ids_BT=batch.input_ids_BT.masked_fill(batch.attention_mask_BT == 0, 9))

        with torch.no_grad():
            logits, others = (
                model(b.input_ids_BT, attention_mask=b.attention_mask_BT, position_ids=b.position_ids_BT).logits
                for b in (batch, other)
            )

        kept = batch.attention_mask_BT.bool()
        torch.testing.assert_close(logits[kept], others[kept], rtol=1e-5, atol=1e-5)

    def test_the_file_holds_the_soft_prompt_alone_under_pefts_name(self, tmp_path: Path) -> None:
        model = trained(self.method(), "llama")
        self.method().save(model, tmp_path)

        saved = load_file(tmp_path / "adapter_model.safetensors")

        assert list(saved) == ["prompt_embeddings"]
        assert torch.equal(saved["prompt_embeddings"], soft_prompt(model))

    def test_a_base_with_more_embedding_rows_than_words_keeps_its_rows_apart_from_the_soft_prompt(self) -> None:
        base = tiny("llama")
        base.resize_token_embeddings(VOCAB + 16)

        model = self.method().apply(base)

        vectors = model.get_input_embeddings()(torch.arange(VOCAB + 16, VOCAB + 21))
        assert torch.equal(vectors, soft_prompt(model))

    def test_the_number_of_virtual_tokens_is_a_fact_of_the_method(self) -> None:
        assert self.method().virtual_tokens == 5

    @pytest.mark.parametrize("number", [0, -3])
    def test_fewer_than_one_virtual_token_is_refused(self, number: int) -> None:
        with pytest.raises(ValueError, match=f"^num_virtual_tokens must be at least 1, got {number}$"):
            replace(self.method(), num_virtual_tokens=number)


def test_a_model_that_looks_tokens_up_twice_is_refused() -> None:
    model = tiny("llama")
    model.config.vocab_size_per_layer_input = VOCAB
    model.per_layer = torch.nn.Embedding(VOCAB, 4)

    with pytest.raises(ValueError, match=r"^method must be one without virtual tokens .* got prompt .*per_layer$"):
        Prompt(name="prompt", lr=1e-2, num_virtual_tokens=5, start=None).apply(model)

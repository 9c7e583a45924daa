"""What every method promises, as tests that the test of each method inherits."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_models import CONFIGS, collator_of, facts_of, prompt_of, quantized, rows_for, tiny, word_tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedModel

from forgetmenot.data.collate import Collator
from forgetmenot.data.types import Encoded
from forgetmenot.generate import answer
from forgetmenot.loss import loss_sum
from forgetmenot.method.base import Method
from forgetmenot.model.packing import use_packed_attention
from forgetmenot.model.quantize import dequantized

FAMILIES = [*("llama", "t5"), *(pytest.param(family, marks=pytest.mark.slow) for family in ("gpt2", "gemma", "gemma3"))]
"""What every promise is tried with: one causal model and one encoder-decoder each time, the rest among slow tests."""
LENGTHS = [(7, 3), (3, 4), (12, 2)]
NEW_TOKENS = 6


def base_of(method: Method, family: str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Returns a tiny model held as the method wants it."""
    return tiny(family).to(dtype) if method.quantization is None else quantized(family, dtype=dtype)


def adapted(method: Method, family: str) -> PreTrainedModel:
    """Returns a tiny model with the method applied, always the same."""
    base = base_of(method, family)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return method.apply(base)


def trained(method: Method, family: str) -> PreTrainedModel:
    """Returns the adapted model after steps that are long enough for its answers to change."""
    return copy.deepcopy(_trained(method, family))


@cache
def _trained(method: Method, family: str) -> PreTrainedModel:
    """Returns the model that every trained one of a method and family is a copy of."""
    model = adapted(method, family)
    facts, batch = facts_of(tiny(family)), own_collator(method, family).rows(rows_for(model, LENGTHS))
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss_sum(model, batch, facts).backward()
        optimizer.step()
    return model


def own_collator(method: Method, family: str) -> Collator:
    """Returns the collator that a run makes for the adapted model."""
    return collator_of(tiny(family), virtual_tokens=method.virtual_ids)


def reads_both_ways(family: str) -> bool:
    """Tells whether a family is an encoder-decoder."""
    return bool(CONFIGS[family].is_encoder_decoder)


def loaded_plainly(method: Method, family: str, folder: Path) -> PreTrainedModel | PeftModel:
    """Returns what transformers and peft alone make of the folder that the method wrote."""
    if method.freezes_base:
        return PeftModel.from_pretrained(base_of(method, family), folder).eval()
    auto = AutoModelForSeq2SeqLM if reads_both_ways(family) else AutoModelForCausalLM
    return auto.from_pretrained(folder).eval()


def merged_plainly(method: Method, family: str, folder: Path) -> PreTrainedModel:
    """Returns the model of plain transformers whose weights have taken in what the method learned, if they can."""
    if not method.freezes_base:
        return loaded_plainly(method, family, folder)
    loaded = PeftModel.from_pretrained(exact(base_of(method, family)), folder)
    return loaded.get_base_model() if method.virtual_tokens else loaded.merge_and_unload()


def exact(model: PreTrainedModel) -> PreTrainedModel:
    """Returns a model of plain weights: what a quantized one stands for."""
    return model.dequantize() if getattr(model, "is_quantized", False) else model


def our_loss(model: PreTrainedModel, method: Method, family: str, rows: list[Encoded]) -> Tensor:
    """Returns the summed loss of the rows in one padded batch."""
    with torch.no_grad():
        return loss_sum(model, own_collator(method, family).rows(rows), facts_of(tiny(family)))


def plain_loss(model: PreTrainedModel | PeftModel, row: Encoded) -> Tensor:
    """Returns transformers' own loss of the row alone, unpadded, summed over its supervised tokens."""
    ids, labels = (torch.from_numpy(array).long()[None] for array in (row.input_ids, row.labels))
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss * row.num_supervised


def our_answers(model: PreTrainedModel, method: Method, family: str, prompts: list[np.ndarray]) -> list[str]:
    """Returns our greedy answers to the prompts in one padded batch."""
    batch = own_collator(method, family).prompts(prompts)
    return answer(model, batch, facts=facts_of(tiny(family)), tokenizer=word_tokenizer(), max_new_tokens=NEW_TOKENS)


def plain_answer(model: PreTrainedModel | PeftModel, prompt: np.ndarray) -> str:
    """Returns the greedy answer of transformers' or peft's own `generate` to the prompt alone."""
    ids = torch.from_numpy(prompt).long()[None]
    greedy = GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=2, pad_token_id=0)
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy)[0]
    new = output[1:] if model.config.is_encoder_decoder else output[ids.shape[1] :]
    return word_tokenizer().decode(new, skip_special_tokens=True)


class MethodContract(ABC):
    """Inherited by the test of every method."""

    starts_as_the_base: ClassVar[bool] = True
    families: ClassVar[Sequence[str | tuple]] = FAMILIES  # a marked one is pytest's tuple of values and marks
    loads_plainly: ClassVar[bool] = True
    """Whether transformers and peft load what is saved."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Tries a test that takes a `family` with each of `families`, and one that takes a `causal` with those."""
        given = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
        plain = "plain_libraries" not in metafunc.function.__name__ or self.loads_plainly
        causal = [each for each in self.families if not reads_both_ways(each if isinstance(each, str) else each[0][0])]
        whole = self.families if plain else []
        for name, families in (("family", whole), ("causal", causal if self.method().packs else [])):
            if name in metafunc.fixturenames and name not in given:
                metafunc.parametrize(name, families)

    @abstractmethod
    def method(self) -> Method:
        """Returns the method under test, without dropout."""

    @abstractmethod
    def learns(self, name: str) -> bool:
        """Tells whether the method learns the parameter of that name."""

    def test_a_fresh_method_leaves_the_output_unchanged(self, family: str) -> None:
        if not self.starts_as_the_base:
            pytest.skip("its start changes the output by construction")
        base, model = base_of(self.method(), family), adapted(self.method(), family)
        rows = rows_for(base, LENGTHS)
        prompts = [prompt_of(row) for row in rows]

        expected = sum(plain_loss(base, row) for row in rows)

        torch.testing.assert_close(our_loss(model, self.method(), family, rows), expected, rtol=1e-5, atol=1e-5)
        assert our_answers(model, self.method(), family, prompts) == [plain_answer(base, p) for p in prompts]

    def test_only_its_parameters_get_gradients(self, family: str) -> None:
        model = adapted(self.method(), family)
        batch = own_collator(self.method(), family).rows(rows_for(model, LENGTHS))

        loss_sum(model, batch, facts_of(tiny(family))).backward()

        given = {name for name, p in model.named_parameters() if p.grad is not None}
        assert given == {name for name, _ in model.named_parameters() if self.learns(name)}
        assert given == {name for name, p in model.named_parameters() if p.requires_grad}

    def test_training_lowers_the_loss_on_causal_and_seq2seq(self, family: str) -> None:
        rows = rows_for(tiny(family), LENGTHS)

        before = our_loss(adapted(self.method(), family), self.method(), family, rows)
        after = our_loss(trained(self.method(), family), self.method(), family, rows)

        assert after < before

    def test_training_leaves_every_weight_that_is_not_its_own(self, family: str) -> None:
        start = adapted(self.method(), family).state_dict()
        changed = {name for name, p in trained(self.method(), family).named_parameters() if not p.equal(start[name])}

        assert changed
        assert all(self.learns(name) for name in changed)

    def test_saved_and_loaded_with_plain_libraries_it_has_the_same_loss(self, family: str, tmp_path: Path) -> None:
        model = trained(self.method(), family)
        rows = rows_for(tiny(family), LENGTHS, seed=5)
        self.method().save(model, tmp_path / "saved")
        plain = loaded_plainly(self.method(), family, tmp_path / "saved")

        alone = [our_loss(model, self.method(), family, [row]) for row in rows]
        padded = our_loss(model, self.method(), family, rows)

        torch.testing.assert_close(alone, [plain_loss(plain, row) for row in rows], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(padded, torch.stack(alone).sum(), rtol=1e-5, atol=1e-5)

    def test_saved_and_loaded_with_plain_libraries_it_answers_the_same(self, family: str, tmp_path: Path) -> None:
        model = trained(self.method(), family)
        prompts = [prompt_of(row) for row in rows_for(tiny(family), LENGTHS, seed=5)]
        self.method().save(model, tmp_path / "saved")
        plain = loaded_plainly(self.method(), family, tmp_path / "saved")

        expected = [plain_answer(plain, prompt) for prompt in prompts]

        assert our_answers(model, self.method(), family, prompts) == expected
        assert [our_answers(model, self.method(), family, [prompt])[0] for prompt in prompts] == expected

    def test_saved_and_loaded_by_itself_it_has_the_same_loss_and_answers(self, family: str, tmp_path: Path) -> None:
        model = trained(self.method(), family)
        rows = rows_for(tiny(family), LENGTHS, seed=5)
        prompts = [prompt_of(row) for row in rows]
        self.method().save(model, tmp_path / "saved")
        loaded = self.method().load(base_of(self.method(), family), tmp_path / "saved").eval()

        expected = our_loss(model, self.method(), family, rows)

        torch.testing.assert_close(our_loss(loaded, self.method(), family, rows), expected, rtol=1e-6, atol=1e-6)
        assert our_answers(loaded, self.method(), family, prompts) == our_answers(model, self.method(), family, prompts)

    def test_its_change_is_the_norm_of_what_plain_libraries_add_to_the_base(self, family: str, tmp_path: Path) -> None:
        model, base = trained(self.method(), family), base_of(self.method(), family)
        self.method().save(model, tmp_path / "saved")
        merged = merged_plainly(self.method(), family, tmp_path / "saved")

        start = dict(exact(base_of(self.method(), family)).named_parameters())
        end = dict(merged.named_parameters())
        squares = sum(float((end[name] - weight).detach().double().square().sum()) for name, weight in start.items())
        whole = sum(float(weight.double().square().sum()) for weight in start.values())

        assert self.method().change(model, base) == pytest.approx(squares**0.5, rel=1e-3, abs=1e-6)
        assert self.method().distance(model, base) == pytest.approx((squares / whole) ** 0.5, rel=1e-3, abs=1e-6)
        assert self.method().change(adapted(self.method(), family), base) == 0

    def test_packed_rows_have_the_loss_and_gradient_of_padded_ones(self, causal: str) -> None:
        padded, packed = trained(self.method(), causal), trained(self.method(), causal)
        use_packed_attention(packed)
        rows = rows_for(tiny(causal), LENGTHS, seed=5)

        for model, packs in ((padded, False), (packed, True)):
            collator = replace(own_collator(self.method(), causal), packs=packs)
            model.zero_grad()
            loss_sum(model, collator.rows(rows), facts_of(tiny(causal))).backward()

        gradients = [
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            for model in (padded, packed)
        ]
        assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[0].norm()

    def test_what_learns_is_fp32_also_over_a_base_in_bf16(self, family: str) -> None:
        if not self.method().freezes_base:
            pytest.skip("its base is never held in bf16")
        model = self.method().apply(base_of(self.method(), family, dtype=torch.bfloat16))
        rows = own_collator(self.method(), family).rows(rows_for(model, LENGTHS))

        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss_sum(model, rows, facts_of(tiny(family))).backward()

        learned = [p for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in learned} == {torch.float32}
        assert all(p.grad is not None and p.grad.isfinite().all() for p in learned)

    def test_merged_it_is_the_bases_own_class_and_answers_the_same_or_says_why_not(
        self, family: str, tmp_path: Path
    ) -> None:
        if self.method().unmergeable is not None:
            with pytest.raises(ValueError, match=f"got {self.method().name}: {self.method().unmergeable}"):
                self.method().merge(adapted(self.method(), family))
            return
        model, rows = trained(self.method(), family), rows_for(tiny(family), LENGTHS, seed=5)
        prompts = [prompt_of(row) for row in rows]
        expected = our_loss(model, self.method(), family, rows), our_answers(model, self.method(), family, prompts)

        self.method().save(model, tmp_path / "saved")
        base = base_of(self.method(), family)
        base = dequantized(base) if self.method().quantization else base
        plain = self.method().merge(self.method().load(base, tmp_path / "saved"))

        assert type(plain) is type(tiny(family)) and plain.state_dict().keys() == tiny(family).state_dict().keys()
        torch.testing.assert_close(sum(plain_loss(plain, row) for row in rows), expected[0], rtol=1e-5, atol=1e-5)
        assert [plain_answer(plain, prompt) for prompt in prompts] == expected[1]

    def test_it_saves_safetensors_and_no_pickle(self, causal: str, tmp_path: Path) -> None:
        self.method().save(adapted(self.method(), causal), tmp_path / "saved")

        suffixes = {path.suffix for path in (tmp_path / "saved").iterdir()}

        assert ".safetensors" in suffixes
        assert not suffixes & {".bin", ".pt", ".pth", ".ckpt", ".pkl"}

    @pytest.mark.parametrize("lr", [0.0, -1e-3])
    def test_a_learning_rate_that_is_not_above_zero_is_refused(self, lr: float) -> None:
        with pytest.raises(ValueError, match=f"^lr must be above 0, got {lr}$"):
            replace(self.method(), lr=lr)

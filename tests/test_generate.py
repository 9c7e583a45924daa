"""Greedy answers beside a plain loop of argmax, alone and in padded batches."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import EOS, collator_of, facts_of, prompt_of, rows_for, tiny, word_tokenizer
from torch import Tensor
from transformers import GPTNeoConfig, GPTNeoForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from forgetmenot.data import collate
from forgetmenot.generate import Prefix, answer, end_tokens, end_with
from forgetmenot.method.prompt import Prompt
from forgetmenot.model.facts import ModelFacts, has_windows
from forgetmenot.model.options import compile_blocks

FAMILIES = ["llama", "qwen2", "gpt2", "gemma", "gemma2", "gemma3", "t5", "bart"]
LENGTHS = [(3, 1), (11, 1), (6, 1), (1, 1)]


def prompts_for(model: PreTrainedModel) -> list[np.ndarray]:
    return [prompt_of(row) for row in rows_for(model, LENGTHS, seed=2)]


def greedy(model: PreTrainedModel, prompt: np.ndarray, *, end: set[int], most: int) -> list[int]:
    """Returns the likeliest token after token up to an end, by whole forward passes without a cache."""
    ids, taken = torch.from_numpy(prompt).long()[None], []
    while len(taken) < most:
        new = torch.tensor([taken], dtype=torch.long)
        with torch.no_grad():
            if model.config.is_encoder_decoder:
                start = torch.tensor([[model.config.decoder_start_token_id]])
                logits = model(ids, decoder_input_ids=torch.cat([start, new], dim=1)).logits
            else:
                logits = model(torch.cat([ids, new], dim=1)).logits
        token = int(logits[0, -1].argmax())
        if token in end:
            break
        taken.append(token)
    return taken


def text(ids: list[int]) -> str:
    return word_tokenizer().decode(ids, skip_special_tokens=True)


def answers(
    model: PreTrainedModel, prompts: list[np.ndarray], *, most: int, tokenizer: PreTrainedTokenizerFast | None = None
) -> list[str]:
    batch = collator_of(model).prompts(prompts)
    return answer(model, batch, facts=facts_of(model), tokenizer=tokenizer or word_tokenizer(), max_new_tokens=most)


def test_a_compiled_model_answers_without_compiling_for_every_length_of_its_cache() -> None:
    model = tiny("llama")
    expected = answers(model, prompts_for(model), most=4)
    compile_blocks(model)
    torch.compiler.reset()

    assert answers(model, prompts_for(model), most=4) == expected
    assert not torch._dynamo.utils.counters["frames"]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_in_a_padded_batch_equal_a_plain_greedy_loop_on_each_prompt(family: str) -> None:
    model = tiny(family)
    prompts = prompts_for(model)

    expected = [text(greedy(model, prompt, end={EOS}, most=8)) for prompt in prompts]

    assert answers(model, prompts, most=8) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_alone_is_answered_as_in_a_padded_batch(family: str) -> None:
    model = tiny(family)
    prompts = prompts_for(model)

    assert [answers(model, [prompt], most=8)[0] for prompt in prompts] == answers(model, prompts, most=8)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_answer_stops_before_the_tokenizers_end_token(family: str) -> None:
    model = tiny(family)
    model.generation_config.eos_token_id = None
    prompts = prompts_for(model)
    unstopped = greedy(model, prompts[0], end=set(), most=8)
    end = next((token for token in unstopped if token != unstopped[0]), unstopped[0])
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"eos_token": f"w{end}"})

    stopped = answers(model, prompts, most=8, tokenizer=tokenizer)

    assert stopped[0] == text(unstopped[: unstopped.index(end)])
    assert stopped == [text(greedy(model, prompt, end={end}, most=8)) for prompt in prompts]


def test_the_end_of_a_chats_turn_ends_an_answer_beside_what_does_already() -> None:
    model = tiny("llama")
    model.generation_config.eos_token_id = 7

    end_with(model, 9, tokenizer=word_tokenizer())

    assert end_tokens(model, word_tokenizer()) == model.generation_config.eos_token_id == [EOS, 7, 9]


def test_an_answer_stops_at_what_the_models_own_settings_add_to_the_end_tokens() -> None:
    model = tiny("llama")
    prompts = prompts_for(model)
    end = greedy(model, prompts[0], end={EOS}, most=8)[4]
    model.generation_config.eos_token_id = [EOS, end]
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [f"w{end}"]})

    expected = [text(greedy(model, prompt, end={EOS, end}, most=8)) for prompt in prompts]

    assert answers(model, prompts, most=8, tokenizer=tokenizer) == expected


@pytest.mark.parametrize("own", [None, EOS, [EOS, 9]])
def test_end_tokens_are_the_tokenizers_and_the_models(own: int | list[int] | None) -> None:
    model = tiny("llama")
    model.generation_config.eos_token_id = own

    assert end_tokens(model, word_tokenizer()) == ([EOS, 9] if isinstance(own, list) else [EOS])


@pytest.mark.parametrize("most", [1, 3, 7])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_answer_has_max_new_tokens_tokens_where_no_end_comes_first(family: str, most: int) -> None:
    model = tiny(family)
    prompts = prompts_for(model)
    unended = [prompt for prompt in prompts if len(greedy(model, prompt, end={EOS}, most=8)) == 8]

    said = answers(model, unended, most=most)

    assert unended
    assert said == [text(greedy(model, prompt, end={EOS}, most=most)) for prompt in unended]
    assert max(len(words.split()) for words in said) == most


@pytest.mark.parametrize(
    "settings", [{"do_sample": True, "temperature": 5.0, "top_k": 40}, {"num_beams": 3}, {"repetition_penalty": 3.0}]
)
def test_an_answer_is_greedy_whatever_the_models_own_generation_settings_say(settings: dict[str, float]) -> None:
    model = tiny("llama")
    prompts = prompts_for(model)
    expected = [text(greedy(model, prompt, end={EOS}, most=8)) for prompt in prompts]

    for name, value in settings.items():
        setattr(model.generation_config, name, value)

    assert answers(model, prompts, most=8) == expected


def test_special_tokens_are_left_out_of_the_text() -> None:
    model = tiny("llama")

    assert not any("<" in said for said in answers(model, prompts_for(model), most=8))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2", "gemma", "gemma2", "gemma3"])
def test_answers_of_a_family_with_keys_and_values_equal_those_of_transformers_generate(family: str) -> None:
    model, facts = tiny(family), facts_of(tiny(family))
    batch = collator_of(model).prompts(prompts_for(model))

    def said(facts: ModelFacts) -> list[str]:
        return answer(model, batch, facts=facts, tokenizer=word_tokenizer(), max_new_tokens=8)

    assert facts.keeps_keys_and_values
    assert said(facts) == said(replace(facts, keeps_keys_and_values=False))


def test_rows_that_have_ended_leave_the_batch_and_the_others_answer_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    prompts = [prompt_of(row) for row in rows_for(model, [(n, 1) for n in (3, 9, 5, 2, 7, 4, 6, 8)], seed=4)]
    alone = [greedy(model, prompt, end={EOS}, most=8) for prompt in prompts]
    end = alone[0][2]  # a token that ends some answers early
    model.generation_config.eos_token_id = [EOS, end]
    sizes: list[int] = []
    monkeypatch.setattr(model, "forward", counted(model.forward, sizes))

    said = answers(model, prompts, most=8)

    assert said == [text(greedy(tiny("llama"), prompt, end={EOS, end}, most=8)) for prompt in prompts]
    assert sizes[0] == 8 > min(sizes)
    assert set(sizes) <= {8, 6, 4, 3, 2, 1}  # some that ended stay, so that sizes are few


def counted(forward: Callable[..., object], sizes: list[int]) -> Callable[..., object]:
    """Returns `forward`, which tells how many rows it was given."""

    def counting(**inputs: Tensor) -> object:
        sizes.append(len(inputs["input_ids"]))
        return forward(**inputs)

    return counting


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2", "gemma"])
@pytest.mark.parametrize("virtual_tokens", [0, 3])
def test_a_beginning_that_prompts_share_is_computed_once_and_changes_no_answer(
    family: str, virtual_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collate, "_SHORTEST_PREFIX", 4)
    method = Prompt(name="prompt", lr=0.1, num_virtual_tokens=virtual_tokens, start=None) if virtual_tokens else None
    base = tiny(family)
    model = base if method is None else method.apply(base)
    instruction = prompt_of(rows_for(tiny(family), [(9, 1)], seed=8)[0])
    prompts = [np.concatenate([instruction, prompt]) for prompt in prompts_for(tiny(family))]
    collator = replace(collator_of(tiny(family), virtual_tokens=virtual_tokens), shares_prefix=True)

    shared = collator.shared(prompts)
    prefix = Prefix.of(model, collator.prefix(prompts[0], length=shared))
    settings = {"facts": facts_of(tiny(family)), "tokenizer": word_tokenizer(), "max_new_tokens": 8}
    whole = answer(model, collator.prompts(prompts), **settings)

    assert facts_of(tiny(family)).shares_prefix
    assert shared == virtual_tokens + 9
    for _ in range(2):  # the second batch finds the prefix as the first did
        assert answer(model, collator.prompts(prompts, after=shared), **settings, prefix=prefix) == whole
    assert len(set(whole)) > 1


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "t5", "bart"])
def test_families_that_count_how_far_back_they_see_or_have_an_encoder_share_no_beginning(family: str) -> None:
    assert not facts_of(tiny(family)).shares_prefix


def test_gpt_neos_local_layers_are_windows() -> None:
    kinds = [[["global", "local"], 1]]
    local = GPTNeoConfig(num_layers=2, attention_types=kinds, hidden_size=16, num_heads=2, window_size=4, vocab_size=48)
    everywhere = GPTNeoConfig(num_layers=2, attention_types=[[["global"], 2]], hidden_size=16, num_heads=2)
    assert has_windows(local) and not has_windows(everywhere)


def test_prompts_in_round_widths_leave_room_in_a_family_with_a_table_of_masks() -> None:
    torch.manual_seed(0)
    config = GPTNeoConfig(
        num_layers=2, attention_types=[[["global", "local"], 1]], hidden_size=16, num_heads=2, window_size=8,
        vocab_size=48, max_position_embeddings=64, pad_token_id=0, eos_token_id=EOS, initializer_range=0.3,
    )  # fmt: skip
    model = GPTNeoForCausalLM(config).eval()
    prompts = [np.arange(4, 4 + n, dtype=np.int32) for n in (44, 41)]
    batch = collator_of(model).to_score().prompts(prompts, room=20)

    said = answer(model, batch, facts=facts_of(model), tokenizer=word_tokenizer(), max_new_tokens=20)

    assert said == [text(greedy(model, prompt, end={EOS}, most=20)) for prompt in prompts]


def test_no_beginning_is_shared_by_one_prompt_or_a_short_one_and_each_keeps_a_token() -> None:
    collator = replace(collator_of(tiny("llama")), shares_prefix=True)
    same = [np.arange(4, 24)] * 3
    assert collator.shared(same) == 19
    assert collator.shared(same[:1]) == 0
    assert collator.shared([np.arange(4, 12)] * 3) == 0
    assert collator_of(tiny("llama")).shared(same) == 0

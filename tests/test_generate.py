"""Greedy answers beside a plain loop of argmax, alone and in padded batches."""

import numpy as np
import pytest
import torch
from tiny_models import EOS, collator_of, prompt_of, rows_for, tiny, word_tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from forgetmenot.generate import answer, end_tokens

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
    return answer(model, batch, tokenizer=tokenizer or word_tokenizer(), max_new_tokens=most)


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

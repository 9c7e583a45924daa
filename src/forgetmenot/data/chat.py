"""A tokenizer's chat template, taken apart once: what stands around a user's text, and what ends an answer to it.

A template that trims what it is given and one that does not see the same text: it comes without spaces at its edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

_PROMPT, _ANSWER = "forgetmenot prompt", "forgetmenot answer"  # words that no template has itself
_DATE = "26 Jul 2024"  # Llama 3's template would tell today's, and prompts would change overnight


@dataclass(frozen=True, kw_only=True)
class Chat:
    """What a chat template puts `before` and `after` a prompt, as text and as ids, and the id that ends an answer."""

    before: str
    after: str
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    end: int
    special: frozenset[int]
    """The ids of special tokens, which no text of a user may bring in."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Returns the template of `tokenizer`; raises ValueError where there is none, or where it cannot be kept to."""
        if not tokenizer.chat_template:
            raise _refused(tokenizer, "without a chat template")
        question = {"role": "user", "content": _PROMPT}
        try:
            asked = _rendered(tokenizer, [question], answering=True)
            answered = _rendered(tokenizer, [question, {"role": "assistant", "content": _ANSWER}], answering=False)
        except (TemplateError, ValueError) as error:
            raise _refused(tokenizer, f"whose chat template cannot be filled ({_first(error)})") from error
        if asked.count(_PROMPT) != 1 or not answered.startswith(asked + _ANSWER):
            raise _refused(tokenizer, "whose chat template puts an answer elsewhere than it asks for one")
        before, after = asked.split(_PROMPT)
        special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        ending = _ids(tokenizer, answered.removeprefix(asked + _ANSWER))
        if not ending or ending[0] not in special:
            raise _refused(tokenizer, "whose chat template ends an answer with no special token")
        opening, closing = _ids(tokenizer, before), _ids(tokenizer, after)
        chat = cls(
            before=before,
            after=after,
            opening=tuple(opening),
            closing=tuple(closing),
            end=ending[0],
            special=frozenset(special),
        )
        if chat.inside(_ids(tokenizer, asked)) is None:
            raise _refused(tokenizer, "whose chat template runs into the text")
        return chat

    def around(self, text: str) -> str:
        """Returns what the template makes of a user's text."""
        return f"{self.before}{text.strip()}{self.after}"

    def inside(self, ids: Sequence[int]) -> list[int] | None:
        """Returns the text's part of the ids of `around`.

        None where the text brings in special tokens, or runs together with the template.
        """
        start, end = len(self.opening), len(ids) - len(self.closing)
        text = list(ids[start:end])
        whole = (*self.opening, *text, *self.closing) == tuple(ids)
        return text if whole and self.special.isdisjoint(text) else None


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, answering: bool) -> str:
    text = tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=answering,
        enable_thinking=False,  # Qwen3: completions hold answers alone
        date_string=_DATE,
    )
    assert isinstance(text, str), "one conversation gives one text"
    return text


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
    return ids


def _refused(tokenizer: PreTrainedTokenizerBase, reason: str) -> ValueError:
    return ValueError(
        f"model.chat must be false for a tokenizer {reason}, got true for {tokenizer.name_or_path}; "
        "model.chat=false gives prompts as they are"
    )


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

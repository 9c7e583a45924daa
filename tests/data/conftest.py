"""Small real tokenizers, with and without BOS."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def _byte_level_bpe(special_tokens: list[str]) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(["the cat sat on the mat"] * 3, trainer)
    return bpe


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer with BOS, EOS and padding."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(["<pad>", "<s>", "</s>"]),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )


@pytest.fixture(scope="session")
def tokenizer_without_bos() -> PreTrainedTokenizerFast:
    """Returns a tokenizer with EOS and padding alone."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(["<pad>", "</s>"]), eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(scope="session")
def tokenizer_padding_with_a_letter() -> PreTrainedTokenizerFast:
    """Returns a tokenizer whose padding token is also an everyday letter, 'e'."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe(["<s>", "</s>"]), bos_token="<s>", eos_token="</s>", pad_token="e"
    )


@pytest.fixture(params=["with BOS", "without BOS"])
def any_tokenizer(
    request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast, tokenizer_without_bos: PreTrainedTokenizerFast
) -> PreTrainedTokenizerFast:
    """Returns each of the two tokenizers in turn."""
    return tokenizer if request.param == "with BOS" else tokenizer_without_bos

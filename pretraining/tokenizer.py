"""Trains the tiny model's tokenizer: Qwen2's pipeline, with a vocabulary that writes a name alike everywhere."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

VOCABULARY = 4096
PAD, BOS, EOS = SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")  # ids 0, 1, 2
# Merges are learned within these pieces. They are Qwen2's own but for one thing: a word with a capital stands apart
# from the space or quote before it, so no merge ever joins the two. "Maria" then has the same pieces at the start of
# a completion, after a space and after a quote, which lets a tiny model copy it, while " the" stays one piece.
PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)| ?\p{Ll}+|\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], *, max_length: int) -> Qwen2Tokenizer:
    """Return a tokenizer trained on the texts; the same texts give the same tokenizer."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]

    # transformers 5 builds Qwen2's own pipeline around the vocabulary of any folder whose model is a Qwen2, whatever
    # its tokenizer.json says; so this one is that pipeline. Bytes leave nothing unknown, but the slot must hold a
    # known token, else "<|endoftext|>" would be added beyond the embedding. Merges are pairs, whatever its hint says.
    merges: Any = [tuple(merge) for merge in learned["merges"]]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        unk_token=PAD,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )

"""What every contender trains on: shapes of models, and real texts whose lengths alone matter.

Imported in the environment of every contender, so it needs nothing that one of them lacks.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

RANK = 8  # LoRA on the query and value projections, alpha twice that
TARGETS = ("q_proj", "v_proj")
MAX_LENGTH = 1024
POOL = 3200  # examples that steps are drawn from: enough for peers to group 50 batches of 16 by length
FIRST_ID = 3  # below stand padding, begin and end

SHAPES = {
    "tiny": {"hidden": 256, "layers": 5, "heads": 4, "key_heads": 2, "mlp": 768, "vocabulary": 4096},
    "llama-15m": {"hidden": 288, "layers": 6, "heads": 6, "key_heads": 6, "mlp": 768, "vocabulary": 32_000},
    "smollm2-135m": {"hidden": 576, "layers": 30, "heads": 9, "key_heads": 3, "mlp": 1536, "vocabulary": 49_152},
    "qwen2.5-0.5b": {"hidden": 896, "layers": 24, "heads": 14, "key_heads": 2, "mlp": 4864, "vocabulary": 151_936},
    "llama-3.2-1b": {"hidden": 2048, "layers": 16, "heads": 32, "key_heads": 8, "mlp": 8192, "vocabulary": 128_256},
}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One measurement: what is trained on what, for how many steps after those that warm up."""

    shape: str
    data: Literal["sst2", "dialogsum"]
    method: Literal["lora", "full"]
    grouped: bool
    variant: str
    """A contender's own word for the way that it is set: `best`, `plain` or an option."""
    steps: int
    warmup: int
    batch_size: int
    seed: int
    """Draws the examples of each step out of the pool."""
    shared: str
    threads: int
    accumulate: int = 1
    """Passes that a peer cuts each step into, where one takes more memory than there is."""

    @property
    def max_steps(self) -> int:
        """Optimizer steps that are taken in all."""
        return self.steps + self.warmup


def read(work: Workload) -> list[tuple[list[int], int]]:
    """Returns (token ids, tokens of the prompt) of the first POOL examples of the train split that fit."""
    shared = Path(work.shared)
    tokenizer = Tokenizer.from_file(str(shared / "models" / "gpt2_tokenizer" / "tokenizer.json"))
    end = tokenizer.token_to_id("<|endoftext|>")
    vocabulary = SHAPES[work.shape]["vocabulary"]
    rows: list[tuple[list[int], int]] = []
    with (shared / "data" / work.data / "train.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if work.data == "sst2":
                texts = (f"{record['sentence']}\nSentiment:", f" {record['label']}")
            else:
                texts = (f"{record['dialogue']}\nSummary:", f" {record['summary']}")
            prompt, completion = (tokenizer.encode(text).ids for text in texts)
            ids = [*prompt, *completion, end]
            if len(ids) <= MAX_LENGTH:
                rows.append(([FIRST_ID + token % (vocabulary - FIRST_ID) for token in ids], len(prompt)))
            if len(rows) == POOL:
                break
    return rows


def flops_per_token(work: Workload, rows: list[tuple[list[int], int]]) -> float:
    """Returns the operations that a real token needs on average: matrices, the head at supervised positions, attention.

    A multiply-add counts 2. A pass forward takes 2 a weight and one backward 2 more for the activations, and where the
    body learns 2 for its weights: so 4 or 6. Attention is counted at true lengths, 4 or 6 alike.
    """
    size = SHAPES[work.shape]
    head_width = size["hidden"] // size["heads"]
    projections = size["hidden"] * (2 * size["hidden"] + 2 * size["key_heads"] * head_width)
    body = size["layers"] * (projections + 3 * size["hidden"] * size["mlp"])
    tokens = sum(len(ids) for ids, _ in rows)
    supervised = sum(len(ids) - prompt for ids, prompt in rows)
    pairs = sum(len(ids) * (len(ids) + 1) / 2 for ids, _ in rows)  # causal: a token sees itself and those before
    attention = pairs * size["layers"] * size["hidden"] * 2  # multiply-adds of scores and of weighted values
    factor = 4 if work.method == "lora" else 6
    return factor * (tokens * body + supervised * size["hidden"] * size["vocabulary"] + attention) / tokens

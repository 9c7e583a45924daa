"""Evaluation beside peers: generation beside transformers' own, ROUGE-L beside torchmetrics', memory as examples grow.

python -m benchmarks.evaluate_speed          on real dialogues, beside ../shared
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torchmetrics.text.rouge import ROUGEScore
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from forgetmenot import compose
from forgetmenot.data.collate import Collator
from forgetmenot.data.encode import Encoder
from forgetmenot.data.examples import ScoringSet, scoring_set
from forgetmenot.data.plan import Plan
from forgetmenot.data.task import Task
from forgetmenot.data.types import Example
from forgetmenot.datamodule import AdaptationData
from forgetmenot.generate import answer
from forgetmenot.model.facts import ModelFacts, read_facts
from forgetmenot.model.load import Model, load, load_tokenizer, read_config
from forgetmenot.module import AdaptationModule
from forgetmenot.rouge import rouge
from forgetmenot.scoring import Scoring
from forgetmenot.trainer import build_trainer

REPEATS = 3
ALONE = 25  # prompts that are answered one by one: the rest would take as long again and again
NEW_TOKENS = 64
BATCH = 16  # prompts in a batch, for transformers and for us alike
MAX_LENGTH = 512  # what the embedded model reads


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The embedded model, ready to answer."""

    model: PreTrainedModel
    facts: ModelFacts
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def embedded(cls) -> "Loaded":
        """Returns it with its weights in bf16."""
        described = compose("model/tiny")
        assert isinstance(described, Model)
        config = read_config(described)
        facts = read_facts(described, config)
        model = load(described, config=config, dtype=torch.bfloat16, seed=0).eval()
        return cls(model=model, facts=facts, tokenizer=load_tokenizer(described, embedding_rows=facts.embedding_rows))

    def asked(self, examples: Sequence[Example]) -> ScoringSet:
        """Returns the examples encoded for it."""
        task = compose("data/dialogsum", max_new_tokens=NEW_TOKENS)
        assert isinstance(task, Task)
        encoder = Encoder(tokenizer=self.tokenizer, max_length=MAX_LENGTH, truncate="left", is_encoder_decoder=False)
        return scoring_set(task, examples, encoder=encoder)

    @property
    def collator(self) -> Collator:
        """Lays prompts out for it."""
        return Collator(
            pad_id=self.tokenizer.pad_token_id,
            num_virtual_tokens=0,
            first_virtual_id=0,
            decoder_start_id=None,
            max_length=MAX_LENGTH,
        )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder with data/")
    parser.add_argument("--prompts", type=int, default=200, help="dialogues that are summarized")
    parser.add_argument("--peak-of", type=int, metavar="N", help="prints the memory that evaluating N examples adds")
    options = parser.parse_args()
    records = read_lines(options.shared / "data" / "dialogsum" / "test.jsonl")
    if options.peak_of:
        print(added_memory(records, options.peak_of))
        return
    generation(records[: options.prompts])
    rouge_l(records)
    memory(options.shared)


def generation(records: Sequence[dict[str, object]]) -> None:
    """Prints prompts a second: ours, transformers in file order at the same batch size, and one by one."""
    loaded = Loaded.embedded()
    prompts = loaded.asked(examples_of(records)).rows.rows
    whole = [prompts.prompt(i) for i in range(len(prompts))]
    ways: dict[str, Callable[[], int]] = {
        "ours": lambda: ours(loaded, whole),
        "transformers, file order": lambda: by_transformers(loaded, whole, batch=BATCH),
        "transformers, one by one": lambda: by_transformers(loaded, whole[:: max(1, len(whole) // ALONE)], batch=1),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            started = time.perf_counter()
            count = way()
            speeds[name].append(count / (time.perf_counter() - started))
            print(f"  {name}: {speeds[name][-1]:.1f} prompts a second", file=sys.stderr)
    print(f"{len(whole)} dialogues, {NEW_TOKENS} new tokens at most, {BATCH} in a batch\n")
    print("| | prompts a second, median | lowest to highest | ours is |")
    print("|---|---|---|---|")
    for name, values in speeds.items():
        ratio = median(speeds["ours"]) / median(values)
        print(f"| {name} | {median(values):.1f} | {min(values):.1f} to {max(values):.1f} | {ratio:.2f} x |")
    print()


@torch.no_grad()
def ours(loaded: Loaded, prompts: Sequence[np.ndarray]) -> int:
    """Answers all prompts, sorted by length; returns how many."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    with torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), BATCH):
            chosen = [prompts[i] for i in order[start : start + BATCH]]
            batch = loaded.collator.to_score().prompts(chosen, room=NEW_TOKENS)
            answer(loaded.model, batch, facts=loaded.facts, tokenizer=loaded.tokenizer, max_new_tokens=NEW_TOKENS)
    return len(prompts)


@torch.no_grad()
def by_transformers(loaded: Loaded, prompts: Sequence[np.ndarray], *, batch: int) -> int:
    """Answers prompts in file order with transformers' generate; returns how many."""
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=loaded.tokenizer.eos_token_id,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(prompts), batch):
            rows = loaded.collator.prompts(prompts[start : start + batch])
            loaded.model.generate(
                input_ids=rows.input_ids_BT, attention_mask=rows.attention_mask_BT, generation_config=greedy
            )
    return len(prompts)


def rouge_l(records: Sequence[dict[str, object]]) -> None:
    """Prints the seconds that ROUGE-L of all test rows takes, each row's answer the next one's first summary."""
    references = [list(map(str, record["summaries"])) for record in records]  # type: ignore[call-overload]
    answers = [group[0] for group in (*references[1:], references[0])]
    theirs = ROUGEScore(rouge_keys="rougeL", accumulate="best")
    started = time.perf_counter()
    theirs.update(answers, references)
    expected = {name: float(value) for name, value in theirs.compute().items()}
    middle = time.perf_counter()
    each = [rouge(*pair, keys=("rougeL",)) for pair in zip(answers, references, strict=True)]
    found = {name: sum(scores[name] for scores in each) / len(each) for name in each[0]}
    seconds, slow = time.perf_counter() - middle, middle - started
    apart = max(abs(found[name] - expected[name]) for name in expected)
    print(
        f"ROUGE-L of {len(answers)} answers with {len(references[0])} references each, largest difference {apart:.1e}\n"
    )
    print("| | seconds | ours is |\n|---|---|---|")
    print(f"| ours | {seconds:.3f} | 1 x |\n| torchmetrics | {slow:.2f} | {slow / seconds:.0f} x |\n")


def memory(shared: Path) -> None:
    """Prints what evaluating adds to a process's peak, for ten times as many examples."""
    print("| examples | memory that evaluating adds |\n|---|---|")
    for count in (1000, 10_000):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.evaluate_speed", "--shared", str(shared), "--peak-of", str(count)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        print(f"| {count:,} | {int(done.stdout.split()[-1]) / 1e6:.0f} MB |", flush=True)


def added_memory(records: Sequence[dict[str, object]], count: int) -> int:
    """Returns the bytes by which scoring the model on `count` examples raises the peak of resident memory."""
    loaded = Loaded.embedded()
    repeated = [records[i % len(records)] for i in range(count)]
    data = loaded.asked(examples_of(repeated))
    plan = Plan(lengths=np.ones(1), batch_size=1, micro_batch_tokens=8192, seed=0)
    planned = AdaptationData(data.rows, validation=[data], tests=[data], plan=plan, collator=loaded.collator)
    module = AdaptationModule(loaded.model, facts=loaded.facts, tokenizer=loaded.tokenizer)
    trainer = build_trainer(
        {"accelerator": "cpu", "devices": 1}, precision="bf16", callbacks=[Scoring(validation=[data], tests=[data])],
        loggers=[], max_epochs=1,
    )  # fmt: skip
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    trainer.test(module, planned, verbose=False)
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Returns a figure of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def examples_of(records: Sequence[dict[str, object]]) -> list[Example]:
    """Returns dialogues to be summarized."""
    return [
        Example(
            prompt=f"{record['dialogue']}\nSummary:\n", completion=str(record["summaries"][0]),
            references=tuple(record["summaries"]),
        )
        for record in records
    ]  # fmt: skip


def read_lines(file: Path) -> list[dict[str, object]]:
    """Returns the records of a jsonl file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()

"""litgpt's LoRA finetuning, by its own setup(): batches padded on the right, the head in chunks at every position.

It cannot tie the head to the embeddings. It groups no lengths by itself, so at its best its loader does that for it.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from shutil import copy

import torch
from litgpt import Config
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule
from litgpt.data.base import get_sft_collate_fn
from litgpt.finetune.lora import setup
from litgpt.model import GPT
from litgpt.prompts import Default
from litgpt.utils import save_config
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader

from benchmarks.contenders.measure import Stopwatch, workload
from benchmarks.workload import MAX_LENGTH, RANK, SHAPES, Workload, read

_WINDOW = 50  # batches that are sorted together by length, as transformers' Trainer does


class Texts(DataModule):
    """The workload's examples as litgpt's loaders give them; real tokens are counted as they are loaded."""

    def __init__(self, work: Workload, watch: Stopwatch) -> None:
        super().__init__()
        self.work = work
        self.watch = watch
        self.prompt_style = Default()
        self.rows = [
            {
                "input_ids": torch.tensor(ids),
                "labels": torch.tensor([-100] * prompt + ids[prompt:]),
                "token_counts": {"raw": len(ids), "raw_plus_prompt_template": len(ids)},
            }
            for ids, prompt in read(work)
        ]

    def connect(self, tokenizer: object = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        batches = list(batches_of([len(row["input_ids"]) for row in self.rows], work=self.work, size=self.batch_size))
        return DataLoader(self.rows, batch_sampler=batches, collate_fn=self._counted)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows[:1], collate_fn=get_sft_collate_fn())

    def _counted(self, rows: list[dict[str, object]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = get_sft_collate_fn()(rows)
        self.watch.tokens += int(batch["token_counts"]["raw"].sum())
        return batch


def batches_of(lengths: list[int], *, work: Workload, size: int) -> Iterator[list[int]]:
    """Yields the indices of one batch after another, grouped by length where the workload says so."""
    draw = Random(work.seed)
    order = draw.sample(range(len(lengths)), len(lengths))
    if work.grouped:
        windows = [order[start : start + _WINDOW * size] for start in range(0, len(order), _WINDOW * size)]
        order = [index for window in windows for index in sorted(window, key=lengths.__getitem__)]
    batches = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    draw.shuffle(batches)
    yield from batches


def checkpoint(work: Workload) -> Path:
    """Returns a folder with the shape's model, random weights, in litgpt's layout."""
    size = SHAPES[work.shape]
    config = Config(
        name=work.shape,
        block_size=2048,
        vocab_size=size["vocabulary"],
        padded_vocab_size=size["vocabulary"],
        n_layer=size["layers"],
        n_head=size["heads"],
        n_query_groups=size["key_heads"],
        n_embd=size["hidden"],
        intermediate_size=size["mlp"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    folder = Path(tempfile.mkdtemp())
    save_config(config, folder)
    torch.manual_seed(0)
    torch.save(GPT(config).to(torch.bfloat16).state_dict(), folder / "lit_model.pth")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copy(Path(work.shared) / "models" / "gpt2_tokenizer" / name, folder / name)
    return folder


def main() -> None:
    """Trains the workload."""
    work = workload()
    best = work.variant != "plain"
    watch = Stopwatch(work=work)
    data = Texts(work, watch)
    place = checkpoint(work)
    watch.start()

    def stepped(*_: object) -> None:
        watch.stepped()
        if watch.steps == work.max_steps:
            watch.report()
            sys.exit()  # what follows merges and writes: no training

    register_optimizer_step_post_hook(stepped)
    setup(
        place,
        out_dir=Path(tempfile.mkdtemp()),
        precision="bf16-true" if best else None,
        lora_r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0.0,
        data=data,
        train=TrainArgs(
            global_batch_size=work.batch_size,
            micro_batch_size=work.batch_size if best else 1,
            max_steps=work.max_steps,
            max_seq_length=MAX_LENGTH,
            epochs=1,
            lr_warmup_steps=1,
            save_interval=None,
        ),
        eval=EvalArgs(interval=10**9, max_new_tokens=1, initial_validation=False, final_validation=False),
        seed=work.seed,
    )


if __name__ == "__main__":
    main()

"""transformers' Trainer: completions as labels; at its best with bf16 weights and the kernel that is fastest here."""

import tempfile

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from benchmarks.contenders.measure import Stopwatch, workload
from benchmarks.contenders.model import base
from benchmarks.contenders.sft import tokenizer_for
from benchmarks.workload import RANK, TARGETS, Workload, read


class Timed(TrainerCallback):
    """Tells the stopwatch of every step."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_begin(self, *arguments: object, model: torch.nn.Module, **named: object) -> None:
        self.watch.watch(model)

    def on_step_end(self, *arguments: object, **named: object) -> None:
        self.watch.stepped()


def main() -> None:
    """Trains the workload."""
    work = workload()
    rows = [
        {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * n + ids[n:]} for ids, n in read(work)
    ]
    trainer = Trainer(
        model=adapted(work),
        args=TrainingArguments(**arguments(work), use_liger_kernel=work.variant == "liger"),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer_for(work), padding=True),
        callbacks=[Timed(watch := Stopwatch(work=work))],
    )
    trainer.train()
    watch.report()


def adapted(work: Workload) -> torch.nn.Module:
    """Returns the model with its adapters: in bf16 at its best where the base is frozen, else as it comes."""
    best = work.variant != "plain"
    frozen = best and work.method == "lora"
    attention = "eager" if work.variant in ("best", "pure") else None
    model = base(work, dtype=torch.bfloat16 if frozen else torch.float32, attention=attention)
    if work.method == "full":
        return model
    return get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    )


def arguments(work: Workload) -> dict[str, object]:
    """Returns the arguments that all variants share, and bf16 but for the one as it comes."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": work.batch_size // work.accumulate,
        "gradient_accumulation_steps": work.accumulate,
        "max_steps": work.max_steps,
        "seed": work.seed,
        "learning_rate": 1e-4,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "bf16": work.variant not in ("plain", "pure"),
        "optim": "adamw_torch_fused",
        "train_sampling_strategy": "group_by_length" if work.grouped else "random",
        "use_cpu": not torch.cuda.is_available(),
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


if __name__ == "__main__":
    main()

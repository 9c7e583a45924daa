"""TRL's SFTTrainer on prompts and completions; at its best in the fastest of the ways that it runs in here."""

from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from benchmarks.contenders.measure import Stopwatch, workload
from benchmarks.workload import Workload, read


def tokenizer_for(work: Workload) -> PreTrainedTokenizerBase:
    """Returns the tokenizer, with padding of a token that every vocabulary has."""
    tokenizer = AutoTokenizer.from_pretrained(Path(work.shared) / "models" / "gpt2_tokenizer")
    tokenizer.pad_token_id = 0
    return tokenizer


def main() -> None:
    """Trains the workload."""
    from benchmarks.contenders.trainer import Timed, adapted, arguments

    work = workload()
    rows = [{"input_ids": ids, "completion_mask": [0] * n + [1] * (len(ids) - n)} for ids, n in read(work)]
    packing = work.variant == "packing"
    lengths = [len(row["input_ids"]) for row in rows]
    settings = SFTConfig(
        **{**arguments(work), **({"per_device_train_batch_size": 1} if packing else {})},
        max_length=max(*lengths, work.batch_size * sum(lengths) // len(lengths)) if packing else None,
        completion_only_loss=True,
        padding_free=work.variant == "padding_free",
        packing=packing,
        use_liger_kernel=work.variant == "liger",
        gradient_checkpointing=work.variant == "plain",
    )
    trainer = SFTTrainer(
        model=adapted(work),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer_for(work),
        callbacks=[Timed(watch := Stopwatch(work=work))],
    )
    trainer.train()
    watch.report()


if __name__ == "__main__":
    main()

"""A program: prints how many bytes the loss of long summaries over a large vocabulary takes, forward and backward."""

import sys
from pathlib import Path

import torch
from tiny_models import collator_of, facts_of, packing, rows_for
from transformers import LlamaConfig, LlamaForCausalLM

from forgetmenot.cost import peak_memory, reset_peak_memory
from forgetmenot.loss import loss_sum

VOCABULARY = 152_000
SUMMARY = 400
ROWS = 8


def resident() -> int:
    """Returns the memory that this process holds now, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measures a second pass: what the first one loads, keeps, or brings back from the system is none of the head's."""
    torch.set_num_threads(1)
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32, vocab_size=VOCABULARY
    )
    base = LlamaForCausalLM._from_config(config, dtype=getattr(torch, sys.argv[1]))
    collator, facts, cpu = collator_of(base, packs=True), facts_of(base), torch.device("cpu")
    model = packing(base)
    batch = collator.rows(rows_for(model, [(20, SUMMARY)] * ROWS))
    loss_sum(model, batch, facts).backward()
    before = resident()
    reset_peak_memory(cpu)
    loss_sum(model, batch, facts).backward()
    print(peak_memory(cpu) - before)


if __name__ == "__main__":
    main()

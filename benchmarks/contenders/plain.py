"""A hand-written PyTorch loop with the same plan, layout, precision and adapters: the limit of our overhead."""

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from transformers import get_linear_schedule_with_warmup

from benchmarks.contenders.measure import Stopwatch, device, workload
from benchmarks.contenders.model import base
from benchmarks.contenders.ours import data_of
from benchmarks.workload import RANK, TARGETS
from forgetmenot.data.types import IGNORE_INDEX
from forgetmenot.model.packing import Packing, use_packed_attention


def main() -> None:
    """Trains the workload."""
    work = workload()
    data = data_of(work, packs=True)
    model = base(work, dtype=torch.bfloat16 if work.method == "lora" else torch.float32)
    use_packed_attention(model)
    if work.method == "lora":
        model = get_peft_model(
            model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(TARGETS), task_type="CAUSAL_LM")
        )
    model.to(device()).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    for p in learned:
        p.data = p.data.float()
    optimizer = AdamW(learned, lr=1e-4, weight_decay=0.01, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, work.max_steps // 10, work.max_steps)
    watch = Stopwatch(work=work)
    watch.watch(model)
    for number in range(work.max_steps):
        step = data.step(number).to(device())
        with torch.autocast(device().type, torch.bfloat16):
            for batch in step.micro_batches:
                targets = batch.labels_BS.roll(-1, dims=1)
                keep = targets != IGNORE_INDEX
                logits = model(
                    input_ids=batch.input_ids_BT,
                    attention_mask=batch.attention_mask_BT,
                    position_ids=batch.position_ids_BT,
                    packing=Packing.of(batch.row_lengths, device=device()),
                    logits_to_keep=keep[0].nonzero()[:, 0],
                    use_cache=False,
                ).logits[0]
                loss = cross_entropy(logits.float(), targets[keep], reduction="sum") / step.supervised_tokens
                loss.backward()
        clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        loss.item()
        watch.stepped()
    watch.report()


if __name__ == "__main__":
    main()

"""A program: trains the embedded model on two ranks that share its weights out, and answers prompts of unlike lengths.

python sharded_ranks.py FILE
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial, partialmethod
from pathlib import Path
from unittest.mock import patch

import torch
from test_generate import answers, prompts_for
from tiny_models import collator_of, facts_of, model_at, packing, tiny, word_tokenizer
from torch import Tensor, nn
from torch.distributed import get_rank
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import AdamW
from transformers import PreTrainedModel
from two_ranks import STEPS, Kept, data

import forgetmenot
import forgetmenot.loss
from forgetmenot.data.collate import Collator
from forgetmenot.data.compare import Comparison
from forgetmenot.generate import end_with
from forgetmenot.method.base import Method
from forgetmenot.method.full import Full
from forgetmenot.method.lora import Lora
from forgetmenot.method.prompt import Prompt
from forgetmenot.model.load import load, read_config
from forgetmenot.model.options import checkpoint_activations, compile_blocks
from forgetmenot.model.sharding import shard, whole_weights
from forgetmenot.module import AdaptationModule
from forgetmenot.optim import LinearSchedule, Optimization
from forgetmenot.regularizer.base import Frozen
from forgetmenot.regularizer.kl import DivergencePenalty
from forgetmenot.trainer import build_trainer

TINY = Path(forgetmenot.__file__).parent / "assets" / "tiny"
METHODS: Mapping[str, Method] = {
    "full": Full(name="full", lr=1e-3),
    "lora": Lora(name="lora", lr=1e-2, rank=4, alpha=8, dropout=0.0, target_modules=("all-linear",)),
    "qlora": Lora(name="qlora", lr=1e-2, rank=4, alpha=8, dropout=0.0, target_modules=("all-linear",), quantize="nf4"),
    "prompt": Prompt(name="prompt", lr=0.1, num_virtual_tokens=4, start=None),
}
FAMILIES = ("llama", "t5")
MOST = 8  # tokens of an answer
END = 32  # that llama says to the last two prompts after one word; T5 ends its answers to the first two at once


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What training came to: the loss and the penalties of each step, and the weights that learned."""

    losses: list[float]
    penalties: list[dict[str, float]]
    weights: dict[str, Tensor]


def trained(name: str, *, ranks: int, micro_batch_tokens: int = 25) -> Trained:
    """Trains by a method in fp32 for two epochs, in steps of several micro-batches on each rank."""
    method = METHODS[name]
    torch.manual_seed(1)
    model = method.apply(_embedded(method))
    if name == "lora":  # blocks are gathered once more in backward
        checkpoint_activations(model)
    if name == "prompt" and ranks > 1:
        compile_without_generating_code(model)
    training = data(micro_batch_tokens)
    training.plan = replace(training.plan, lengths=training.plan.lengths + method.virtual_tokens)
    training.collator = collator_of(model, virtual_tokens=method.virtual_tokens, packs=True)
    kept = Kept()
    trainer = build_trainer(
        {
            "accelerator": "cpu", "devices": ranks, "strategy": "fsdp" if ranks > 1 else "auto", "limit_val_batches": 0,
            "log_every_n_steps": 1,
        },
        precision="fp32", callbacks=[kept], loggers=[], max_epochs=2,
    )  # fmt: skip
    held = {"kl": _divergence(training.collator)} if name == "lora" else {}
    training.comparisons = [penalty.comparison for penalty in held.values()]
    module = _module(model.train(), penalties=held, lr=method.lr or 0.0)
    trainer.fit(module, training)
    with whole_weights(module):
        weights = {name: p.detach().clone() for name, p in module.model.named_parameters() if p.requires_grad}
    return Trained(losses=kept.losses, penalties=kept.penalties, weights=weights)


def compile_without_generating_code(model: PreTrainedModel) -> None:
    """Compiles blocks as `model.compile` does, but for the last step: a compiler of C++ takes a minute a rank."""
    with patch.object(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager")):
        compile_blocks(model)


def _embedded(method: Method | None = None) -> PreTrainedModel:
    """Returns the embedded model, its layers held as the method wants them."""
    model = model_at(TINY)
    held_in = None if method is None else method.quantization
    return packing(load(model, config=read_config(model), dtype=torch.float32, seed=0, quantization=held_in))


def _divergence(collator: Collator) -> DivergencePenalty:
    """Returns KL from the embedded model, a second one."""
    model = _embedded()
    frozen = Frozen(model=model.eval(), facts=facts_of(model), tokenizer=word_tokenizer(), collator=collator)
    comparison = Comparison(collator=collator, reference_collator=collator, positions="all")
    return DivergencePenalty(frozen, comparison=comparison, weight=1.0)


def _module(model: PreTrainedModel, *, penalties: Mapping[str, DivergencePenalty], lr: float) -> AdaptationModule:
    optimization = Optimization(
        make_optimizer=partial(AdamW, eps=1e-4),  # else it makes whole steps of gradients that rounding alone gave
        make_schedule=partial(LinearSchedule, warmup=0.0),
        lr=lr,
        weight_decay=0.1,
        clip_norm=0.5,
        total_steps=STEPS,
    )
    return AdaptationModule(
        model, facts=facts_of(model), tokenizer=word_tokenizer(), penalties=penalties, optimization=optimization
    )


def answered(family: str, *, ranks: int) -> list[str]:
    """Returns this rank's answers: rank 0 has the first two prompts and rank 1 the others; alone, all of them."""
    model = tiny(family)
    end_with(model, END, tokenizer=word_tokenizer())
    prompts = prompts_for(model)
    if ranks == 1:
        return answers(model, prompts, most=MOST)
    shard(model, init_device_mesh("cpu", (ranks,)))
    return answers(model, prompts[:2] if get_rank() == 0 else prompts[2:], most=MOST)


def main() -> None:
    """Trains and answers; every rank writes what it came to."""
    torch.set_num_threads(1)
    forgetmenot.loss.LOGITS_AT_ONCE = 4096 * 6  # the head in parts, of which ranks have unlike numbers
    came_to = {name: vars(trained(name, ranks=2)) for name in METHODS}
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "one of them ran compiled"
    said = {family: answered(family, ranks=2) for family in FAMILIES}
    torch.save({**came_to, "said": said}, f"{sys.argv[1]}.{get_rank()}")


if __name__ == "__main__":
    main()

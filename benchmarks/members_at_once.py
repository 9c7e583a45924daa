"""What members of a sweep would gain by sharing the products of their frozen base: LoRA in one pass or in turn.

python -m benchmarks.members_at_once

Each member has an adapter and rows of its own; in one pass all rows go through the base together, and each member's
through its adapter by batched products. Optimizer, data and scoring are left out: this is the most that it can bring.
"""

import argparse
import os
import time
from collections.abc import Callable
from itertools import product
from statistics import median

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.workload import RANK, SHAPES
from forgetmenot.trainer import base_dtype, choose_precision

# M members, B rows of each, T tokens, D inputs, R rank
CASES = (
    *product(("tiny", "llama-15m"), (4, 8), (32, 200)),
    ("smollm2-135m", 4, 32),  # longer rows take minutes a step, and say what the others say
)
ROWS = 8
PAIRS = 7  # times that both ways are timed by turns; medians count
TOLERANCE = 0.03  # relative difference of all gradients, which rounding to bf16 alone reaches
PRECISION = choose_precision("auto", on_cuda=False)


class MembersLora(nn.Module):
    """A frozen linear layer with one adapter a member; rows come member by member."""

    def __init__(self, frozen: nn.Linear, *, members: int) -> None:
        super().__init__()
        self.frozen = frozen
        self.down_MDR = nn.Parameter(torch.randn(members, frozen.in_features, RANK) * 0.02)
        self.up_MRD = nn.Parameter(torch.randn(members, RANK, frozen.out_features) * 0.02)
        self.active = slice(0, members)

    def forward(self, hidden: Tensor) -> Tensor:
        """Adds to the frozen layer's output what each active member's adapter says of its own rows."""
        down_MDR, up_MRD = self.down_MDR[self.active], self.up_MRD[self.active]
        rows_MND = hidden.reshape(len(down_MDR), -1, hidden.shape[-1])
        return self.frozen(hidden) + (rows_MND @ down_MDR @ up_MRD).view(*hidden.shape[:-1], -1)


def adapted(shape: str, *, members: int) -> tuple[LlamaForCausalLM, list[MembersLora]]:
    """Returns a random frozen base of a shape with adapters in fp32 on all its linear layers."""
    size = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=size["hidden"],
        intermediate_size=size["mlp"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["key_heads"],
        vocab_size=size["vocabulary"],
        use_cache=False,
    )
    model = LlamaForCausalLM(config).to(base_dtype(PRECISION, freezes_base=True)).requires_grad_(False)
    adapters = []
    for name, layer in list(model.model.named_modules()):
        if isinstance(layer, nn.Linear):
            parent, _, last = name.rpartition(".")
            adapters.append(MembersLora(layer, members=members))
            setattr(model.model.get_submodule(parent), last, adapters[-1])
    return model, adapters


def in_one_pass(model: LlamaForCausalLM, adapters: list[MembersLora], ids_MBT: Tensor) -> None:
    """Takes one pass, forward and backward, over the rows of all members."""
    for adapter in adapters:
        adapter.active = slice(0, len(ids_MBT))
    backward(model, ids_MBT.flatten(0, 1), members=len(ids_MBT))


def in_turn(model: LlamaForCausalLM, adapters: list[MembersLora], ids_MBT: Tensor) -> None:
    """Takes a pass, forward and backward, for each member."""
    for member, ids_BT in enumerate(ids_MBT):
        for adapter in adapters:
            adapter.active = slice(member, member + 1)
        backward(model, ids_BT, members=1)


def backward(model: LlamaForCausalLM, ids_NT: Tensor, *, members: int) -> None:
    """Adds to the gradients those of each member's mean loss; one position a row is supervised, as with a label."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=PRECISION == "bf16"):
        logits_NV = model(ids_NT[:, :-1], logits_to_keep=1).logits[:, -1].float()
        (nn.functional.cross_entropy(logits_NV, ids_NT[:, -1]) * members).backward()


def gradients(way: Callable[..., None], model: LlamaForCausalLM, adapters: list[MembersLora], ids: Tensor) -> Tensor:
    """Returns all adapters' gradients in one row, and clears them."""
    way(model, adapters, ids)
    flat = torch.cat([p.grad.flatten() for adapter in adapters for p in adapter.parameters() if p.grad is not None])
    for adapter in adapters:
        adapter.zero_grad(set_to_none=True)
    return flat


def compare(shape: str, *, members: int, tokens: int) -> str:
    """Returns a line of the table; raises AssertionError where both ways do not come to the same gradients."""
    torch.manual_seed(0)
    model, adapters = adapted(shape, members=members)
    ids_MBT = torch.randint(3, SHAPES[shape]["vocabulary"], (members, ROWS, tokens))
    together, apart = (gradients(way, model, adapters, ids_MBT) for way in (in_one_pass, in_turn))
    difference = float((together - apart).norm() / apart.norm())
    assert difference < TOLERANCE, f"both ways must come to the same gradients, got {difference:.3f} of difference"
    seconds: dict[Callable[..., None], list[float]] = {in_one_pass: [], in_turn: []}
    for _ in range(PAIRS):
        for way, taken in seconds.items():
            started = time.perf_counter()
            gradients(way, model, adapters, ids_MBT)
            taken.append(time.perf_counter() - started)
    once, turns = (1000 * median(taken) for taken in seconds.values())
    return f"| {shape} | {members} | {tokens} | {turns:.0f} | {once:.0f} | {turns / once:.2f} x |"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    torch.set_num_threads(parser.parse_args().threads)
    print(f"milliseconds for one step of all members, in {PRECISION}\n")
    print("| shape | members | tokens a row | in turn, ms | in one pass, ms | gain |\n|---|---|---|---|---|---|")
    for shape, members, tokens in CASES:
        print(compare(shape, members=members, tokens=tokens), flush=True)


if __name__ == "__main__":
    main()

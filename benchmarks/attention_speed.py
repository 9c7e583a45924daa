"""What attention costs, forward and backward, for rows of real lengths: kernels, masks, padding and packing.

python -m benchmarks.attention_speed
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from benchmarks.workload import SHAPES, Workload, read
from forgetmenot.model.packing import Packing, packed_attention

BATCH = 16
STEPS = 5  # batches of other lengths; of each the fastest of REPEATS counts
REPEATS = 5

Attention = Callable[[Tensor, Tensor, Tensor, list[int]], Tensor]
"""Takes queries, keys and values of rows behind each other, (1, heads, tokens, width), and the rows' lengths."""


def padded(packed_1HND: Tensor, lengths: Sequence[int], *, heads: int) -> Tensor:
    """Returns (rows, heads, longest, width), padded on the right, each key repeated for its queries."""
    rows_BTHD = pad_sequence(list(packed_1HND[0].transpose(0, 1).split(list(lengths))), batch_first=True)
    return rows_BTHD.transpose(1, 2).repeat_interleave(heads // packed_1HND.shape[1], dim=1)


def mask_of(lengths: Sequence[int]) -> Tensor:
    """Returns (rows, 1, longest, longest): what a query may look at."""
    longest = max(lengths)
    seen_BT = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return torch.ones(longest, longest, dtype=torch.bool).tril() & seen_BT[:, None, None, :]


def kernel_and_mask(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Torch's fused kernel over padded rows with a mask."""
    parts = [padded(each, lengths, heads=query.shape[1]) for each in (query, key, value)]
    return scaled_dot_product_attention(*parts, attn_mask=mask_of(lengths))


def kernel_alone(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Torch's fused kernel over rows padded on the right, causal and without a mask."""
    parts = [padded(each, lengths, heads=query.shape[1]) for each in (query, key, value)]
    return scaled_dot_product_attention(*parts, is_causal=True)


def products_and_mask(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Matrix products and a softmax over padded rows with a mask: transformers' eager attention."""
    query_BHTD, key_BHTD, value_BHTD = (padded(each, lengths, heads=query.shape[1]) for each in (query, key, value))
    scores_BHTT = query_BHTD @ key_BHTD.transpose(-1, -2) * query.shape[-1] ** -0.5
    scores_BHTT = scores_BHTT.masked_fill(~mask_of(lengths), torch.finfo(scores_BHTT.dtype).min)
    return scores_BHTT.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value_BHTD


def kernel_row_by_row(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Torch's fused kernel over each row alone: no padding and no mask."""
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    repeats = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(repeats, dim=1) for each in (key, value))
    rows = [(each[:, :, a:b] for each in (query, key, value)) for a, b in pairwise(bounds)]
    return torch.cat([scaled_dot_product_attention(*row, is_causal=True) for row in rows], dim=2)


def ours(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Forgetmenot's: groups of like lengths, no mask, blocks of queries."""
    packing = Packing.of(lengths, device=query.device)
    return packed_attention(nn.Identity(), query, key, value, None, packing=packing)[0]


WAYS: tuple[Attention, ...] = (ours, products_and_mask, kernel_row_by_row, kernel_alone, kernel_and_mask)


def milliseconds(attention: Attention, shape: str, lengths: list[int]) -> float:
    """Returns what one layer takes for one batch, forward and backward, the fastest of some tries."""
    size = SHAPES[shape]
    width = size["hidden"] // size["heads"]
    draw = torch.Generator().manual_seed(0)
    heads = (size["heads"], size["key_heads"], size["key_heads"])
    parts = [torch.randn(1, n, sum(lengths), width, generator=draw).bfloat16().requires_grad_() for n in heads]
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        attention(*parts, lengths).sum().backward()
        seconds.append(time.perf_counter() - started)
    return 1000 * min(seconds)


def main() -> None:
    """Prints a table: milliseconds a layer and step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", default="../shared", help="the folder with data/ and models/")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"| shape, data, lengths | {' | '.join(way.__name__.replace('_', ' ') for way in WAYS)} |")
    print("|---|" + "---|" * len(WAYS))
    for shape in ("llama-15m", "smollm2-135m"):
        for data in ("sst2", "dialogsum"):
            for grouped in (True, False):
                work = Workload(
                    shape=shape, data=data, method="lora", grouped=grouped, variant="", steps=STEPS, warmup=0,
                    batch_size=BATCH, seed=0, shared=options.shared, threads=options.threads,
                )  # fmt: skip
                batches = batches_of([len(ids) for ids, _ in read(work)], grouped=grouped)
                taken = [median(milliseconds(way, shape, lengths) for lengths in batches) for way in WAYS]
                name = f"{shape}, {data}, {'alike' if grouped else 'mixed'}"
                print(f"| {name} | {' | '.join(f'{each:.1f}' for each in taken)} |", flush=True)


def batches_of(lengths: list[int], *, grouped: bool) -> list[list[int]]:
    """Returns the lengths of STEPS batches spread over the data, each from the shortest up."""
    ordered = sorted(lengths) if grouped else lengths
    firsts = range(0, len(ordered) - BATCH, (len(ordered) - BATCH) // STEPS)
    return [sorted(ordered[first : first + BATCH]) for first in firsts][:STEPS]


if __name__ == "__main__":
    main()

"""The diagonal Fisher information of a base's weights, and texts sampled from the base to take it over.

Shapes: B rows, T positions.
"""

from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from forgetmenot.data.types import IGNORE_INDEX, Encoded
from forgetmenot.generate import end_tokens
from forgetmenot.loss import loss_sum
from forgetmenot.model.packing import padded_attention
from forgetmenot.regularizer.base import Frozen

_AT_ONCE = 64  # texts sampled side by side: their keys and values stay far below what training takes


def diagonal_fisher(frozen: Frozen, rows: Iterable[Encoded], *, device: torch.device) -> dict[str, Tensor]:
    """Returns, for every weight by name, the mean over examples of the squared gradient of their log-likelihood.

    Row by row: the square of a batch's gradient would be another thing. Weights are those of `frozen`, in fp32; beside
    them stand their gradients and the sums, each as large. What is returned lies on the CPU.
    """
    model = frozen.model.requires_grad_(True)
    nn.Module.to(model, device)
    weights = dict(model.named_parameters())
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    examples = 0
    for row in rows:
        loss_sum(model, frozen.collator.rows([row]).to(device), frozen.facts).backward()
        for name, weight in weights.items():
            if weight.grad is not None:
                sums[name].addcmul_(weight.grad, weight.grad)
                weight.grad = None
        examples += 1
    model.requires_grad_(False)
    return {name: (total / examples).cpu() for name, total in sums.items()}


def sample_texts(frozen: Frozen, number: int, *, max_tokens: int, seed: int) -> list[Encoded]:
    """Returns texts of at most `max_tokens` tokens that the model says from BOS on, drawn as likely as it finds them.

    An encoder reads EOS alone, as before plain text, and the decoder is what is sampled. A model without BOS starts
    from EOS, which stands between its texts.
    """
    device = frozen.model.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), padded_attention(frozen.model):
        torch.manual_seed(seed)
        parts = [
            _sample(frozen, min(_AT_ONCE, number - done), max_tokens=max_tokens) for done in range(0, number, _AT_ONCE)
        ]
    ends = end_tokens(frozen.model, frozen.tokenizer)
    return [_row(frozen, tokens, ends=ends) for part_BT in parts for tokens in part_BT.tolist()]


@torch.no_grad()
def _sample(frozen: Frozen, number: int, *, max_tokens: int) -> Tensor:
    """Returns (B, T): what is said after the start."""
    model, tokenizer = frozen.model, frozen.tokenizer
    plainly = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=max_tokens,
        eos_token_id=end_tokens(model, tokenizer), pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=frozen.facts.decoder_start_id,
    )  # fmt: skip
    start_B1 = torch.full((number, 1), _start(frozen), device=model.device)
    generate = cast(Callable[..., Tensor], model.generate)  # declared on a mixin, not on PreTrainedModel
    own, model.generation_config = model.generation_config, plainly  # generate would fill in from the model's own
    try:
        said_BT = generate(input_ids=start_B1, attention_mask=torch.ones_like(start_B1), generation_config=plainly)
    finally:
        model.generation_config = own
    return said_BT[:, 1:]


def _start(frozen: Frozen) -> int:
    """Returns the token that a text begins after, or what an encoder reads of none."""
    bos, eos = frozen.tokenizer.bos_token_id, frozen.tokenizer.eos_token_id
    return int(eos if bos is None or frozen.facts.is_encoder_decoder else bos)


def _row(frozen: Frozen, tokens: list[int], *, ends: list[int]) -> Encoded:
    """Returns a text up to its end as a row whose every token is learned, less the one it starts from."""
    length = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
    said, start = np.asarray(tokens[:length], dtype=np.int32), np.asarray([_start(frozen)], dtype=np.int32)
    if frozen.facts.is_encoder_decoder:
        return Encoded(input_ids=start, labels=said, num_tokens=length + 1)
    labels = np.concatenate([np.asarray([IGNORE_INDEX], dtype=np.int32), said])
    return Encoded(input_ids=np.concatenate([start, said]), labels=labels, num_tokens=length + 1)

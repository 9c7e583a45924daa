"""How many tokens one forward pass may hold on a machine: a figure fixed by model shape and the memory there is."""

import psutil
import torch
from transformers import PretrainedConfig

from forgetmenot.model.head import BYTES_PER_LOGIT, LOGITS_AT_ONCE

_SHARE = 0.25  # of the memory; the rest is for weights, optimizer, the system and what this estimate misses
_BYTES_PER_ACTIVATION = 40  # a block keeps about 17 values of the hidden size in fp32 and bf16 mixed for its backward
_MOST_ON_CPU = 4096  # above this a CPU's caches no longer hold a layer's activations and tokens a second stop growing
_MOST = 65536


def micro_batch_tokens(
    config: PretrainedConfig, *, max_length: int, selects_head: bool, on_cuda: bool, memory: int | None = None
) -> int:
    """Returns the tokens that one forward and backward pass may hold; at least one row of `max_length` fits.

    A head that is computed at chosen positions keeps to its own budget, another takes memory for every token. `memory`
    is the device's in bytes; None: this machine's.
    """
    text = config.get_text_config()
    per_token = text.num_hidden_layers * text.hidden_size * _BYTES_PER_ACTIVATION
    head = LOGITS_AT_ONCE * BYTES_PER_LOGIT if selects_head else 0
    if not selects_head:
        per_token += text.vocab_size * BYTES_PER_LOGIT
    most = _MOST if on_cuda else _MOST_ON_CPU
    share = _SHARE * (device_memory(on_cuda=on_cuda) if memory is None else memory)
    return max(max_length, min(most, int((share - head) / per_token)))


def device_memory(*, on_cuda: bool) -> int:
    """Returns the bytes of memory that this machine has: of its first CUDA device, or its main memory."""
    return int(torch.cuda.get_device_properties(0).total_memory if on_cuda else psutil.virtual_memory().total)

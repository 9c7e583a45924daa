"""The output head where it is needed: at chosen positions, inside the model's own forward, whole or in chunks.

What a family does to its logits (soft caps, scales) stands in its forward, behind the head. So the head is not called
by us: the states that the decoder hands to it are swapped for the chosen ones, and the forward goes on as it would.

Shapes: B rows, T positions, N chosen positions, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

LOGITS_AT_ONCE = 2**25
"""The most logits that stand in memory at once: of more positions, the head takes one chunk after the other."""
BYTES_PER_LOGIT = 20
"""What one takes at most: itself, its log-probability, their gradients, and what the allocator still holds of the chunk
before. So the head's budget is 0.67 GB."""
RIVALS = 4
"""So many tokens may have been the likeliest before rounding to bf16; that a fifth was has not been seen."""


@dataclass(frozen=True, kw_only=True)
class DecoderStates:
    """What a decoder hands to the head at chosen positions, and in what kind of output."""

    states_ND: Tensor
    kind: type[BaseModelOutput]


def logits_at(model: PreTrainedModel, inputs: Mapping[str, object], *, places_N: Tensor) -> Tensor:
    """Returns (N, V): the logits at the positions `places_N`, counted row by row."""

    def select(output: BaseModelOutput) -> BaseModelOutput:
        output.last_hidden_state = _chosen(output, places_N)[None]
        return output

    with _changing(model.get_decoder(), select):
        return _logits(model, inputs)


def states_at(model: PreTrainedModel, inputs: Mapping[str, object], *, places_N: Tensor) -> DecoderStates:
    """Returns what the head would see at the positions `places_N`, counted row by row."""
    kept: list[DecoderStates] = []

    def take(output: BaseModelOutput) -> BaseModelOutput:
        kept.append(DecoderStates(states_ND=_chosen(output, places_N), kind=type(output)))
        output.last_hidden_state = kept[0].states_ND[None, :1]  # the head has to see something
        return output

    with _changing(model.get_decoder(), take):
        _logits(model, inputs)
    return kept[0]


def logits_of(model: PreTrainedModel, inputs: Mapping[str, object], *, states: DecoderStates) -> Tensor:
    """Returns (N, V): the logits of what `states_at` gave; nothing but the head is computed."""
    if model.config.is_encoder_decoder:
        inputs = {**inputs, "encoder_outputs": BaseModelOutput(last_hidden_state=states.states_ND[None, :1])}
    with _answering(model.get_decoder(), states):
        return _logits(model, inputs)


@contextmanager
def exact_rivals(model: PreTrainedModel) -> Iterator[None]:
    """Lets the head give the likeliest tokens of each row's last position in fp32, where it computes in less.

    bf16 keeps three digits of a logit, so the two likeliest tokens often round to one figure, and which of them is said
    is then up to the size of the batch. Heads whose weights are packed, or that an adapter wraps, stay as they are.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.weight.shape != (head.out_features, head.in_features):
        yield
        return
    project = head.forward

    def projected(states_BTD: Tensor) -> Tensor:
        logits_BTV = project(states_BTD)
        if logits_BTV.dtype == torch.float32:
            return logits_BTV
        rivals_BR = logits_BTV[:, -1].topk(min(RIVALS, head.out_features)).indices
        with torch.autocast(states_BTD.device.type, enabled=False):
            exact_BR = (head.weight[rivals_BR].float() @ states_BTD[:, -1, :, None].float())[..., 0]
        if head.bias is not None:
            exact_BR = exact_BR + head.bias[rivals_BR].float()
        logits_BTV = logits_BTV.float()
        logits_BTV[:, -1] = logits_BTV[:, -1].scatter(-1, rivals_BR, exact_BR)
        return logits_BTV

    vars(head)["forward"] = projected
    try:
        yield
    finally:
        del vars(head)["forward"]


def _logits(model: PreTrainedModel, inputs: Mapping[str, object]) -> Tensor:
    logits_1NV: Tensor = model(**inputs, use_cache=False, return_dict=True).logits
    return logits_1NV[0]


def _chosen(output: BaseModelOutput, places_N: Tensor) -> Tensor:
    states_BTD = output.last_hidden_state
    assert states_BTD is not None, "a decoder gives its last states"
    return states_BTD.flatten(0, 1).index_select(0, places_N)


@contextmanager
def _changing(decoder: nn.Module, change: Callable[[BaseModelOutput], BaseModelOutput]) -> Iterator[None]:
    """Changes what the decoder hands on."""
    handle = decoder.register_forward_hook(lambda module, arguments, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _answering(decoder: nn.Module, states: DecoderStates) -> Iterator[None]:
    """Lets the decoder answer `states`, whatever it is asked."""
    decoder.forward = lambda *arguments, **named: states.kind(last_hidden_state=states.states_ND[None])
    try:
        yield
    finally:
        del decoder.forward

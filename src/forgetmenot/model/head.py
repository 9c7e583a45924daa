"""The output head where it is needed: at chosen positions, inside the model's own forward, whole or in chunks.

What a family does to its logits (soft caps, scales) stands in its forward, behind the head. So the head is not called
by us: the states that the decoder hands to it are swapped for the chosen ones, and the forward goes on as it would.

Shapes: B rows, T positions, N chosen positions, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

LOGITS_AT_ONCE = 2**25
"""The most logits that stand in memory at once: of more positions, the head takes one chunk after the other."""
BYTES_PER_LOGIT = 20
"""What one takes at most: itself, its log-probability, their gradients, and what the allocator still holds of the chunk
before. So the head's budget is 0.67 GB."""


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

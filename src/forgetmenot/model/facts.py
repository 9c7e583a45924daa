"""What the rest of the house has to know of a base model, found out on an empty copy: no weight is read."""

import inspect
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from forgetmenot.model.head import logits_at
from forgetmenot.model.load import UNABLE, Model, empty_model
from forgetmenot.model.packing import Packing, packing_seen
from forgetmenot.model.padding import tells_padding

_META = torch.device("meta")
_ROWS = (2, 3)  # tokens of the rows that an empty copy is tried with
_KEPT = 2  # and the positions whose logits it is asked for
_ATTENTION = {"full_attention", "sliding_attention"}  # layers that let a token see others through attention alone


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a base model before its weights are there."""

    parameters: int
    architecture: Literal["causal", "seq2seq"]
    is_encoder_decoder: bool
    context: int | None
    """Tokens that the model's positions allow; None where they have no end."""
    embedding_rows: int
    decoder_start_id: int | None
    takes_position_ids: bool
    selects_head: bool
    """Whether the output head can be computed at chosen positions alone."""
    vocabulary: int
    """Logits of a position."""
    packs: bool
    """Whether rows can stand behind each other without padding, each attending to itself alone."""
    keeps_keys_and_values: bool
    """Whether those, with positions, are all that a next token needs of the ones before it."""
    tells_padding: bool
    """Whether a row scores beside longer ones, behind padding, what it scores alone."""
    shares_prefix: bool
    """Whether they can be computed once for what several prompts begin with: no layer counts how far back it sees."""


def read_facts(model: Model, config: PretrainedConfig) -> ModelFacts:
    """Returns the facts of a model; raises ValueError where transformers cannot build it."""
    empty = empty_model(model, config)
    takes_position_ids = "position_ids" in inspect.signature(empty.forward).parameters
    by_attention_alone = _by_attention_alone(empty)
    steps = keeps_keys_and_values(empty)
    text = config.get_text_config()
    selected = _selected_logits(empty)
    return ModelFacts(
        parameters=sum(p.numel() for p in empty.parameters()),
        architecture="seq2seq" if config.is_encoder_decoder else "causal",
        is_encoder_decoder=bool(config.is_encoder_decoder),
        context=context_of(config),
        embedding_rows=empty.get_input_embeddings().get_parameter("weight").shape[0],
        decoder_start_id=getattr(config, "decoder_start_token_id", None) if config.is_encoder_decoder else None,
        takes_position_ids=takes_position_ids,
        selects_head=selected is not None,
        vocabulary=text.vocab_size if selected is None else selected.shape[-1],
        packs=takes_position_ids and by_attention_alone and _packs(empty),
        keeps_keys_and_values=steps,
        tells_padding=(takes_position_ids and by_attention_alone) or tells_padding(empty),
        shares_prefix=steps and not has_windows(text),
    )


def context_of(config: PretrainedConfig) -> int | None:
    """Returns the tokens that a model's positions allow; None where they have no end."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _selected_logits(empty: PreTrainedModel) -> Tensor | None:
    """Returns the logits of `_KEPT` positions, or None where the model does not give those of chosen ones alone."""
    inputs: dict[str, object] = {"input_ids": _ids()}
    mask = "attention_mask"
    if empty.config.is_encoder_decoder:  # what the encoder gives is no matter of the head
        states_1TD = torch.zeros(1, sum(_ROWS), empty.config.hidden_size, dtype=empty.dtype, device=_META)
        inputs = {"decoder_input_ids": _ids(), "encoder_outputs": BaseModelOutput(last_hidden_state=states_1TD)}
        mask = "decoder_attention_mask"
    finished_mask = {mask: torch.zeros(1, 1, sum(_ROWS), sum(_ROWS), device=_META)}
    for more in ({}, finished_mask):  # most families look into a mask that they make, which an empty copy cannot
        try:
            logits = logits_at(empty, {**inputs, **more}, places_N=torch.arange(_KEPT, device=_META))
        except UNABLE:
            continue
        return logits if logits.shape[:-1] == (_KEPT,) else None
    return None


def _by_attention_alone(empty: PreTrainedModel) -> bool:
    """Tells whether a token sees those before it through attention and in no other way."""
    text = empty.config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or _ATTENTION)
    convolves = any(isinstance(layer, nn.Conv1d) for layer in empty.modules())
    return not (empty.config.is_encoder_decoder or not layers <= _ATTENTION or convolves or empty._is_stateful)


def keeps_keys_and_values(model: PreTrainedModel) -> bool:
    """Tells whether those, with positions, are all that a next token needs of the ones before it."""
    parameters = set(inspect.signature(model.forward).parameters)
    return _by_attention_alone(model) and {"position_ids", "logits_to_keep", "past_key_values"} <= parameters


def has_windows(text: PretrainedConfig) -> bool:
    """Tells whether some layer sees a number of tokens back and no further."""
    layers = getattr(text, "layer_types", None) or getattr(text, "attention_layers", None)  # GPT-Neo has the latter
    if layers is not None:
        return "sliding_attention" in layers or "local" in layers
    return getattr(text, "sliding_window", None) is not None


def _packs(empty: PreTrainedModel) -> bool:
    """Tells whether every layer attends by packed attention."""
    positions = torch.zeros(1, sum(_ROWS), dtype=torch.long, device=_META)
    inputs = {"input_ids": _ids(), "position_ids": positions, "attention_mask": torch.ones_like(positions)}
    try:
        layers = int(empty.config.get_text_config().num_hidden_layers)
        return packing_seen(empty, {**inputs, "packing": Packing.of(_ROWS, device=_META)}) == layers
    except UNABLE:
        return False


def _ids() -> Tensor:
    return torch.zeros(1, sum(_ROWS), dtype=torch.long, device=_META)

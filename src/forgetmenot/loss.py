"""The loss: the summed negative log-likelihood of the supervised tokens, in nats.

A sum, not a mean: whoever adds up micro-batches divides once by the supervised tokens of the whole step, so the loss is
the same however the step was cut. Labels are shifted here and nowhere else.

Shapes: B rows, T positions, N supervised positions, V vocabulary, D hidden size.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from forgetmenot.data.sizes import round_length
from forgetmenot.data.types import IGNORE_INDEX, Batch
from forgetmenot.model.facts import ModelFacts
from forgetmenot.model.head import LOGITS_AT_ONCE, logits_at, logits_of, states_at
from forgetmenot.model.packing import Packing


def loss_sum(model: PreTrainedModel, batch: Batch, facts: ModelFacts) -> Tensor:
    """Returns the scalar sum of -log p(label) over the batch's supervised tokens, in nats and fp32."""
    return _summed(model, batch, facts, of=lambda logits_NV, targets_N, rows_N: _cross_entropy(logits_NV, targets_N))


def loss_sums(model: PreTrainedModel, batch: Batch, facts: ModelFacts, *, num_tasks: int) -> Tensor:
    """Returns (num_tasks,): the same sum, by the task of each row."""
    assert batch.tasks_B is not None, "where there are several tasks, every row has one"
    tasks_B = batch.tasks_B

    def by_task(logits_NV: Tensor, targets_N: Tensor, rows_N: Tensor) -> Tensor:
        losses_N = cross_entropy(logits_NV.float(), targets_N, reduction="none")
        return losses_N.new_zeros(num_tasks).index_add(0, tasks_B[rows_N], losses_N)

    return _summed(model, batch, facts, of=by_task)


def _summed(
    model: PreTrainedModel, batch: Batch, facts: ModelFacts, *, of: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Returns the sum of what `of` makes of logits, targets and rows at supervised positions.

    Above a budget they are taken in parts, computed again in backward.
    """
    places_N, targets_N = _supervised(batch, facts)
    rows_N, chunk = batch.row_of_positions[places_N], _positions_at_once(facts)
    parts, head = _before_head(Reading(model=model, batch=batch, facts=facts), places_N, chunk=chunk)

    def of_part(part: Tensor, targets_N: Tensor, rows_N: Tensor) -> Tensor:
        return of(head(part), targets_N, rows_N)

    if len(parts) == 1:
        return of_part(parts[0], targets_N, rows_N)
    each = zip(parts, targets_N.split(chunk), rows_N.split(chunk), strict=True)
    return torch.stack([checkpoint(of_part, *part, use_reentrant=False) for part in each]).sum(0)


@torch.no_grad()
def row_losses(model: PreTrainedModel, batch: Batch, facts: ModelFacts) -> Tensor:
    """Returns (B,): -log p of each row's supervised tokens, summed, in nats and fp32; to score, not to learn from."""
    losses = [
        cross_entropy(logits_NV.float(), targets_N, reduction="none")
        for logits_NV, targets_N in _supervised_logits(model, batch, facts)
    ]
    return _sum_by_row(torch.cat(losses), batch, facts)


@torch.no_grad()
def row_divergences(
    model: PreTrainedModel, batch: Batch, facts: ModelFacts, *, base: PreTrainedModel, base_batch: Batch
) -> Tensor:
    """Returns (B,): KL(base, model) of the next token at each row's supervised positions, summed, in nats.

    `base_batch` has the same rows, as the base reads them.
    """
    divergences = []
    both = zip(_supervised_logits(base, base_batch, facts), _supervised_logits(model, batch, facts), strict=True)
    for (base_NV, _), (logits_NV, _) in both:
        log_base_NV, log_NV = base_NV.float().log_softmax(-1), logits_NV.float().log_softmax(-1)
        divergences.append(kl_div(log_NV, log_base_NV, reduction="none", log_target=True).sum(-1))
    return _sum_by_row(torch.cat(divergences), batch, facts)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A model and the batch that it reads."""

    model: PreTrainedModel
    batch: Batch
    facts: ModelFacts


def divergence_sum(ours: Reading, reference: Reading) -> Tensor:
    """Returns the scalar sum of KL(reference, ours) of the next token over the supervised positions, in nats and fp32.

    Both read the same rows. Logits past the smaller of two vocabularies pad a table: they are no tokens. Only ours gets
    gradients; above a budget the head is taken in parts, computed again in backward.
    """
    chunk = min(_positions_at_once(ours.facts), _positions_at_once(reference.facts))
    vocabulary = min(ours.facts.vocabulary, reference.facts.vocabulary)
    parts, head = _before_head(ours, _supervised(ours.batch, ours.facts)[0], chunk=chunk)
    with torch.no_grad():
        places_N, _ = _supervised(reference.batch, reference.facts)
        reference_parts, reference_head = _before_head(reference, places_N, chunk=chunk)

    def part_divergence(part: Tensor, reference_part: Tensor) -> Tensor:
        with torch.no_grad():
            log_reference_NV = reference_head(reference_part)[:, :vocabulary].float().log_softmax(-1)
        log_NV = head(part)[:, :vocabulary].float().log_softmax(-1)
        return kl_div(log_NV, log_reference_NV, reduction="sum", log_target=True)

    if len(parts) == 1:
        return part_divergence(parts[0], reference_parts[0])
    pairs = zip(parts, reference_parts, strict=True)
    return torch.stack([checkpoint(part_divergence, *pair, use_reentrant=False) for pair in pairs]).sum()


def _before_head(
    reading: Reading, places_N: Tensor, *, chunk: int
) -> tuple[tuple[Tensor, ...], Callable[[Tensor], Tensor]]:
    """Returns what is known at some positions, in parts of `chunk`, and what makes logits of a part.

    Where all fit at once, or the head takes no choice, the parts are logits already.
    """
    model, facts = reading.model, reading.facts
    inputs = _inputs(reading.batch, facts)
    if not facts.selects_head:
        logits_NV = model(**inputs, use_cache=False).logits.flatten(0, 1)[places_N]
        return logits_NV.split(chunk), lambda part_NV: part_NV
    if len(places_N) <= chunk:
        return (logits_at(model, inputs, places_N=places_N),), lambda part_NV: part_NV
    states = states_at(model, inputs, places_N=places_N)
    return states.states_ND.split(chunk), lambda part_ND: logits_of(
        model, inputs, states=replace(states, states_ND=part_ND)
    )


def _supervised_logits(model: PreTrainedModel, batch: Batch, facts: ModelFacts) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the logits at supervised positions and their targets, as many at a time as memory is meant to hold.

    The head is asked for a round number of positions, the last one over and over: data/sizes.py says why.
    """
    places_N, targets_N = _supervised(batch, facts)
    rounded_N = torch.cat([places_N, places_N[-1:].expand(round_length(len(places_N)) - len(places_N))])
    chunk = _positions_at_once(facts)
    parts, head = _before_head(Reading(model=model, batch=batch, facts=facts), rounded_N, chunk=chunk)
    for part, targets in zip(parts, targets_N.split(chunk), strict=False):  # a last part may be filling alone
        yield head(part)[: len(targets)], targets


def _positions_at_once(facts: ModelFacts) -> int:
    """Returns at how many positions logits may stand in memory; where the head takes no choice, at all of them."""
    return max(1, LOGITS_AT_ONCE // facts.vocabulary) if facts.selects_head else sys.maxsize


def _sum_by_row(values_N: Tensor, batch: Batch, facts: ModelFacts) -> Tensor:
    places_N, _ = _supervised(batch, facts)
    rows_N = batch.row_of_positions[places_N]
    return torch.zeros(batch.num_rows, device=values_N.device).index_add(0, rows_N, values_N)


def _supervised(batch: Batch, facts: ModelFacts) -> tuple[Tensor, Tensor]:
    """Returns (N,) and (N,): the positions that have a target, counted row by row, and the targets."""
    targets_BT = next_tokens(batch, facts)
    places_N = (targets_BT != IGNORE_INDEX).flatten().nonzero().squeeze(1)
    return places_N, targets_BT.flatten()[places_N]


def next_tokens(batch: Batch, facts: ModelFacts) -> Tensor:
    """Returns (B, T): the label that each position's logits should predict; no row begins with one."""
    if facts.is_encoder_decoder:
        return batch.labels_BS
    targets_BT = batch.labels_BS.roll(-1, dims=1)
    targets_BT[:, -1] = IGNORE_INDEX
    return targets_BT


def _inputs(batch: Batch, facts: ModelFacts) -> Mapping[str, object]:
    """Returns the batch under transformers' names."""
    inputs: dict[str, object] = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
    if batch.decoder_input_ids_BS is not None:
        inputs["decoder_input_ids"] = batch.decoder_input_ids_BS
    elif facts.takes_position_ids:
        inputs["position_ids"] = batch.position_ids_BT
    if batch.row_lengths is not None:
        inputs["packing"] = Packing.of(batch.row_lengths, device=batch.input_ids_BT.device)
    return inputs


def _cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return cross_entropy(logits_NV.float(), targets_N, reduction="sum")

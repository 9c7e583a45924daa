"""The loss: the summed negative log-likelihood of the supervised tokens, in nats.

A sum, not a mean: whoever adds up micro-batches divides once by the supervised tokens of the whole step, so the loss is
the same however the step was cut. Labels are shifted here and nowhere else.

Shapes: B rows, T positions, N supervised positions, V vocabulary.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from forgetmenot.data.types import IGNORE_INDEX, Batch
from forgetmenot.model.load import ModelFacts


def loss_sum(model: PreTrainedModel, batch: Batch, facts: ModelFacts) -> Tensor:
    """Returns the scalar sum of -log p(label) over the batch's supervised tokens, in nats and fp32."""
    targets_BT = next_tokens(batch, facts)
    keep_BT = targets_BT != IGNORE_INDEX
    logits_NV = _supervised_logits(model, batch, facts, keep_BT=keep_BT)
    return cross_entropy(logits_NV.float(), targets_BT[keep_BT], reduction="sum")


def next_tokens(batch: Batch, facts: ModelFacts) -> Tensor:
    """Returns (B, T): the label that each position's logits should predict."""
    if facts.is_encoder_decoder:
        return batch.labels_BS
    targets_BT = batch.labels_BS.roll(-1, dims=1)
    targets_BT[:, -1] = IGNORE_INDEX
    return targets_BT


def _supervised_logits(model: PreTrainedModel, batch: Batch, facts: ModelFacts, *, keep_BT: Tensor) -> Tensor:
    """Returns (N, V); models of transformers project only those positions, inside their own forward."""
    inputs: dict[str, Tensor] = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
    if batch.decoder_input_ids_BS is not None:
        inputs["decoder_input_ids"] = batch.decoder_input_ids_BS
    elif facts.takes_position_ids:
        inputs["position_ids"] = batch.position_ids_BT
    if facts.takes_logits_to_keep:
        logits_NV: Tensor = model(**inputs, use_cache=False, logits_to_keep=keep_BT).logits
        return logits_NV
    logits_BTV: Tensor = model(**inputs, use_cache=False).logits
    return logits_BTV[keep_BT]

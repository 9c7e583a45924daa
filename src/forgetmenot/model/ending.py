"""Whether a frozen output head can tell the token that ends an answer from others.

Tokens that pretraining never met keep the rows that they began with, or come to those together: in some models all such
rows are alike. Then no state of the model gives one of them more than its share, whatever an adapter learns.

Shapes: V vocabulary, D hidden size.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

_ALIKE = 0.01  # of the row's length, from another row: tokens that were met are 0.5 and more apart (docs/log.md)
_ROWS_AT_ONCE = 4096


def alike_in_frozen_head(model: PreTrainedModel, token: int) -> int:
    """Returns how many other tokens have the row of `token`, as good as; 0 where the head itself is trained.

    With n others, a loss of about log(n + 1) nats stays on each `token`, and greedy answers do not end with it.
    """
    head = model.get_output_embeddings()
    if head is None or any(weight.requires_grad for weight in head.parameters()):
        return 0
    weights = dict(head.named_parameters())
    alike_V = _near(weights["weight"].detach(), token)
    if "bias" in weights:
        bias_V = weights["bias"].detach().float()
        alike_V &= (bias_V - bias_V[token]).abs() <= _ALIKE
    return int(alike_V.sum()) - 1


def _near(rows_VD: Tensor, token: int) -> Tensor:
    row_D = rows_VD[token].float()
    away_V = torch.cat([(part.float() - row_D).norm(dim=1) for part in rows_VD.split(_ROWS_AT_ONCE)])
    return away_V.le(_ALIKE * row_D.norm().item())

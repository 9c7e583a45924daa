"""Whether a frozen output head can tell the token that ends an answer from others.

Tokens that pretraining never met keep the rows that they began with, which in some models are all the same: then no
state of the model gives one of them more than its share, whatever an adapter learns.
"""

from transformers import PreTrainedModel


def alike_in_frozen_head(model: PreTrainedModel, token: int) -> int:
    """Returns how many other tokens always get the logit that `token` gets; 0 where the head itself is trained.

    With n others, a loss of at least log(n + 1) nats stays on each `token`, and greedy answers do not end with it.
    """
    head = model.get_output_embeddings()
    if head is None or any(weight.requires_grad for weight in head.parameters()):
        return 0
    weights = dict(head.named_parameters())
    rows_VD, bias_V = weights["weight"].detach(), weights.get("bias")
    alike_V = (rows_VD == rows_VD[token]).all(dim=1)
    if bias_V is not None:
        alike_V &= bias_V == bias_V[token]
    return int(alike_V.sum()) - 1

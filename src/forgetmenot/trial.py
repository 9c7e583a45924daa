"""Finds by trial how many tokens one forward and backward pass may hold on an accelerator."""

from collections.abc import Callable
from dataclasses import replace

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from forgetmenot.datamodule import AdaptationData
from forgetmenot.memory import MEMORY_ERRORS, RandomState, is_out_of_memory
from forgetmenot.module import AdaptationModule

_MOMENTS = 2  # that the optimizer keeps of each weight from its first step on: AdamW's, the most of those in use


class MicroBatchTrial(Callback):
    """Tries the longest training rows before the first step: micro_batch_tokens becomes as large as memory allows.

    It is tried beside what a later step finds in memory: gradients, and the moments of the optimizer.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cpu":  # its figure is fixed by model and memory: the same on every start
            return
        self.find(trainer, pl_module)

    def find(self, trainer: Trainer, module: LightningModule) -> None:
        """Sets what all ranks can hold; no weight, gradient or random number is left changed."""
        data = AdaptationData.of(trainer)
        assert data is not None, "steps are cut by a plan"
        assert isinstance(module, AdaptationModule)
        random = RandomState.now(module.device)
        trained = [p for p in module.parameters() if p.requires_grad]
        moments = [torch.empty_like(p) for p in trained for _ in range(_MOMENTS)]

        def attempt(tokens: int) -> None:
            try:
                for p in trained:  # as in every micro-batch of a step but the first
                    p.grad = torch.zeros_like(p)
                with trainer.precision_plugin.forward_context():
                    batch, compared = data.longest(tokens)
                    module.rehearse(batch.to(module.device), compared=[pair.to(module.device) for pair in compared])
            finally:
                module.zero_grad()
                random.restore()

        found = largest_that_fits(attempt, start=data.plan.micro_batch_tokens, most=data.plan.largest_step)
        del moments
        agreed = trainer.strategy.reduce(torch.tensor(float(found), device=module.device), reduce_op="min")
        data.plan = replace(data.plan, micro_batch_tokens=int(agreed))


def largest_that_fits(attempt: Callable[[int], None], *, start: int, most: int) -> int:
    """Returns a number of tokens for which `attempt` has memory, at least half of the largest there is, at most `most`.

    Doubles from `start` while it fits; halves where not even that does.
    """
    tokens = min(start, most)
    if not _fits(attempt, tokens):
        while tokens > 1:
            tokens //= 2
            if _fits(attempt, tokens):
                return tokens
        return tokens
    while tokens < most and _fits(attempt, min(2 * tokens, most)):
        tokens = min(2 * tokens, most)
    return tokens


def _fits(attempt: Callable[[int], None], tokens: int) -> bool:
    try:
        attempt(tokens)
    except MEMORY_ERRORS as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True

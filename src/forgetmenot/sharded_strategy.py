"""The strategy that shares weights out over ranks: Lightning's FSDP2, with a checkpoint of one file a rank."""

from collections.abc import Mapping
from pathlib import Path

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.optim import Optimizer
from typing_extensions import override

from forgetmenot.checkpoint import rank_file
from forgetmenot.model.shares import State, optimizer_shares, shared_state, shared_weights, shares


class ShardedStrategy(ModelParallelStrategy):
    """Shares weights, gradients and moments out; each rank writes what it holds itself, and reads it back.

    Lightning's own checkpoint is read whole or not at all, which a state of trained weights alone is not.
    """

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        """Lets Lightning hand back the optimizer's state, as it does wherever weights are whole."""
        return True

    @override
    def lightning_module_state_dict(self) -> dict[str, object]:
        assert self.lightning_module is not None, "it is there as long as there is something to save"
        return shares(self.lightning_module.state_dict())

    @override
    def optimizer_state(self, optimizer: Optimizer) -> State:  # type: ignore[override]  # declared as tensors
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return optimizer_shares(plain.state_dict())

    @override
    def save_checkpoint(
        self, checkpoint: dict[str, object], filepath: str | Path, storage_options: object | None = None
    ) -> None:
        file = rank_file(Path(filepath), self.global_rank)
        self.checkpoint_io.save_checkpoint(checkpoint, file, storage_options=storage_options)

    @override
    def remove_checkpoint(self, filepath: str | Path) -> None:
        self.checkpoint_io.remove_checkpoint(rank_file(Path(filepath), self.global_rank))

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, object]:
        torch.cuda.empty_cache()
        file = rank_file(Path(checkpoint_path), self.global_rank)
        return self.checkpoint_io.load_checkpoint(file, weights_only=weights_only)

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, object], strict: bool = True) -> None:
        module, weights = self.lightning_module, checkpoint["state_dict"]
        assert module is not None and isinstance(weights, dict), "as lightning_module_state_dict gave it"
        module.load_state_dict(shared_weights(module, weights), strict=strict)

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, object]) -> None:
        states = checkpoint["optimizer_states"]
        assert isinstance(states, list), "as optimizer_state gave them"
        for optimizer, state in zip(self.optimizers, states, strict=True):
            held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            optimizer.load_state_dict(shared_state(state, held))

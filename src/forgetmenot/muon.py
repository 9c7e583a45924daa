"""Muon for hidden matrices with AdamW for all else, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import nn
from torch.optim import AdamW, Optimizer


class Muon(Optimizer):
    """Steps hidden matrices along their orthogonalized momentum (Jordan 2024, kellerjordan.github.io/posts/muon).

    Embeddings, output head, norms and biases take AdamW's step. Muon's is scaled to the size of AdamW's (Liu et al.
    2025, arXiv 2502.16982, section 2.2), so one `lr` serves both. Groups that are `hidden` are Muon's.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, object]],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, "hidden": False})
        self._parts: dict[bool, Optimizer] = {}
        hidden, other = self._groups(hidden=True), self._groups(hidden=False)
        if hidden:
            self._parts[True] = torch.optim.Muon(hidden, lr=lr, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        if other:
            self._parts[False] = AdamW(other, lr=lr, betas=betas, eps=eps)
        self._share()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step with each part."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts.values():
            part.step()
        return loss

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """Lets the parts work on this optimizer's groups and state, so that schedules and checkpoints see one."""
        for hidden, part in self._parts.items():
            part.param_groups = self._groups(hidden=hidden)
            part.state = self.state

    def _groups(self, *, hidden: bool) -> list[dict[str, object]]:
        return [group for group in self.param_groups if group["hidden"] is hidden]

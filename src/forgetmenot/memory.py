"""What a step needs in order to be repeated after it ran out of memory."""

from dataclasses import dataclass
from typing import Self

import torch
from lightning.pytorch.utilities.memory import is_oom_error
from torch import Tensor


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tells whether a device or the host had no memory left; torch has a class of errors for the former alone."""
    return isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)


@dataclass(frozen=True, kw_only=True)
class RandomState:
    """Where torch's random numbers stand, on the CPU and on one device."""

    cpu: Tensor
    cuda: Tensor | None
    device: torch.device

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """Returns the present state."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(cpu=torch.get_rng_state(), cuda=cuda, device=device)

    def restore(self) -> None:
        """Goes back to it, and gives memory that torch holds but does not use back to the device."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
            torch.cuda.empty_cache()

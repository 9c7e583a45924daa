"""What a step needs in order to be repeated after it ran out of memory."""

from dataclasses import dataclass
from typing import Self

import torch
from lightning.pytorch.utilities.memory import is_oom_error
from torch import Tensor

MEMORY_ERRORS = (RuntimeError, MemoryError)
"""What a lack of memory is raised as; `is_out_of_memory` tells it from other errors."""

_TEXTS = ("out of memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether a device or the host had no memory left: torch has a class of errors for CUDA alone."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError) or is_oom_error(error)
    return known or any(text in str(error) for text in _TEXTS)


@dataclass(frozen=True, kw_only=True)
class RandomState:
    """Where torch's random numbers stand, on the CPU and on one device."""

    cpu: Tensor
    accelerator: Tensor | None
    device: torch.device

    @classmethod
    def now(cls, device: torch.device) -> Self:
        """Returns the present state."""
        state = None
        if device.type == "cuda":
            state = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            state = torch.mps.get_rng_state()
        return cls(cpu=torch.get_rng_state(), accelerator=state, device=device)

    def restore(self) -> None:
        """Goes back to it, and gives memory that torch holds but does not use back to the device."""
        torch.set_rng_state(self.cpu)
        if self.accelerator is None:
            return
        if self.device.type == "mps":
            torch.mps.set_rng_state(self.accelerator)
        else:
            torch.cuda.set_rng_state(self.accelerator, self.device)
        torch.accelerator.empty_cache()

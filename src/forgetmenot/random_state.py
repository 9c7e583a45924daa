"""Where all random numbers of a process stand: torch's, numpy's and Python's, in plain values and tensors."""

import random

import numpy as np
import torch

RandomNumbers = dict[str, object]
"""As a checkpoint holds them: loaded without running code."""


def random_numbers() -> RandomNumbers:
    """Returns the present state of every generator."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: RandomNumbers = {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": list(random.getstate()),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def go_on_from(state: RandomNumbers) -> None:
    """Sets every generator to where it stood; raises ValueError where `state` is none."""
    own, numpy_state, python_state = state["torch"], state["numpy"], state["python"]
    if not (isinstance(own, torch.Tensor) and isinstance(numpy_state, list) and isinstance(python_state, list)):
        raise ValueError("random numbers must be a state that a checkpoint kept")
    torch.set_rng_state(own)
    kind, keys, *rest = numpy_state
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, values, gauss = python_state
    random.setstate((version, tuple(values), gauss))
    if isinstance(cuda := state.get("cuda"), torch.Tensor) and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)

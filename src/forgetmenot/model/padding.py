"""Whether a causal model tells padding from text, so that a row scores in a batch what it scores alone.

It is tried on an empty copy, where no number can tell: noted is whether the mask of a padded row meets anything. A
model that never looks at it, as a whole (RWKV) or in a layer that convolves (RecurrentGemma), reads padding as text.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from forgetmenot.model.load import UNABLE

_TOKENS = 5  # of the row that an empty copy is tried with
_TABLE = "position"  # how families name a table that has a row a position
_IN_BLOCKS = "compressed"  # and layers that see keys and values of some tokens as one (DeepSeek V4)


def tells_padding(empty: PreTrainedModel) -> bool:
    """Tells whether padding before a row leaves its logits as they are; of a model that cannot be tried, yes."""
    parameters = inspect.signature(empty.forward).parameters
    if empty.config.is_encoder_decoder:  # an encoder's padding stands behind its rows, and attention alone reads it
        return True
    if "attention_mask" not in parameters:
        return False
    if _sees_blocks(empty) or ("position_ids" not in parameters and _looks_up_positions(empty)):  # padding counts, too
        return False
    ids_BT = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
    mask_BT = torch.ones_like(ids_BT)
    noted = _Noted(mask_BT)
    with _listening(empty, noted) as blind:
        try:
            with noted, torch.no_grad():
                empty(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
        except UNABLE:
            return not blind  # what ran until then is known
    return not blind and noted.times > 0


def _sees_blocks(empty: PreTrainedModel) -> bool:
    """Tells whether some layer puts tokens together in blocks, which begin with the first place of a row."""
    kinds = getattr(empty.config.get_text_config(), "layer_types", None) or ()
    return any(_IN_BLOCKS in kind for kind in kinds)


def _looks_up_positions(empty: PreTrainedModel) -> bool:
    """Tells whether a decoder has a table of positions."""
    layers = empty.get_decoder().named_modules()
    return any(isinstance(layer, nn.Embedding) and _TABLE in name for name, layer in layers)


class _Noted(TorchFunctionMode):
    """Counts the `times` that a mask, or what is made of masks alone, meets another tensor."""

    def __init__(self, mask_BT: Tensor) -> None:
        super().__init__()
        self.times = 0
        self._masks = [mask_BT]

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        tensors = list(_tensors([args, kwargs or {}]))
        masks = [tensor for tensor in tensors if any(tensor is mask for mask in self._masks)]
        if masks and func is Tensor.__bool__:
            return False  # whether a mask hides nothing, which an empty one cannot say
        result = func(*args, **(kwargs or {}))
        if masks and len(masks) == len(tensors):
            self._masks += _tensors(result)
        elif masks:
            self.times += 1
        return result


def _tensors(value: object) -> Iterator[Tensor]:
    """Yields what tensors there are in the arguments of a call."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each)


@contextmanager
def _listening(empty: PreTrainedModel, noted: _Noted) -> Iterator[set[nn.Module]]:
    """Yields the layers that convolve over tokens and have run without a look at the mask."""
    blind: set[nn.Module] = set()
    handles = []
    for layer in empty.modules():
        if any(isinstance(child, nn.Conv1d) for child in layer.children()):
            handles += _watched(layer, noted=noted, blind=blind)
    try:
        yield blind
    finally:
        for handle in handles:
            handle.remove()


def _watched(layer: nn.Module, *, noted: _Noted, blind: set[nn.Module]) -> list[torch.utils.hooks.RemovableHandle]:
    """Puts `layer` among the blind ones where the mask meets nothing while it runs."""
    times: list[int] = []

    def begin(module: nn.Module, arguments: tuple[object, ...]) -> None:
        times.append(noted.times)

    def end(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:
        if noted.times == times.pop():
            blind.add(module)

    return [layer.register_forward_pre_hook(begin), layer.register_forward_hook(end)]

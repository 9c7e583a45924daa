"""Where attention and feed-forward sub-layers end, found by structure and not by family."""

from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

_OUTPUT = "o"  # how families begin the name: o_proj, out_proj
Kind = Literal["attention", "feed_forward"]


@dataclass(frozen=True, kw_only=True)
class SublayerOutput:
    """The layer that a sub-layer ends with: its full name, and what it takes up into the hidden states again."""

    name: str
    layer: nn.Module
    kind: Kind


def sublayer_outputs(model: PreTrainedModel) -> list[SublayerOutput]:
    """Returns the output projections of all sub-layers, in the model's order.

    In each block, that of a module which holds linear layers itself is the last one, or where that gives no hidden
    states (Phi-3 has queries, keys and values there) the one named as an output. Routers give none and are left out.
    """
    names = {module: name for name, module in model.named_modules()}
    width = model.config.get_text_config().hidden_size
    blocks = [module for module in names if isinstance(module, GradientCheckpointingLayer)]
    found: dict[str, SublayerOutput] = {}
    for block in blocks:
        for path, module in block.named_modules():
            output = _output(module, width=width)
            if output is not None:
                words = (*path.split("."), type(module).__name__ if path else "")
                kind: Kind = "attention" if any(map(_is_attention, words)) else "feed_forward"
                name = names[output]
                found[name] = SublayerOutput(name=name, layer=output, kind=kind)
    return list(found.values())


def _output(module: nn.Module, *, width: int) -> nn.Linear | Conv1D | None:
    """Returns the linear layer of `module` that gives hidden states of `width`; None where there is none."""
    linear = {name: layer for name, layer in module.named_children() if isinstance(layer, nn.Linear | Conv1D)}
    last = list(linear)[-1:]
    named = [name for name in linear if name.startswith(_OUTPUT)]
    wide = [linear[name] for name in (*named, *last) if _width(linear[name]) == width]
    return wide[-1] if wide else None


def _width(layer: nn.Linear | Conv1D) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else int(layer.nf)


def _is_attention(word: str) -> bool:
    return "attn" in word.lower() or "attention" in word.lower()

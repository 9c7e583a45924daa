"""A model's layers, found by structure and not by family."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

_NORM_NAMES = ("RMSNorm", "LayerNorm")  # how families end the names of norms that they write themselves


def linear_layers(model: nn.Module) -> list[str]:
    """Returns the full names of the layers that multiply by a matrix; GPT-2's Conv1D is one."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D)]


def stacked_weights(model: nn.Module) -> list[str]:
    """Returns the full names of weights that hold a matrix for each expert: three axes, and no convolution's."""
    return [
        f"{name}.{own}"
        for name, layer in model.named_modules()
        if not isinstance(layer, nn.Conv1d)
        for own, weight in layer.named_parameters(recurse=False)
        if weight.ndim == 3
    ]


def inputs(layer: nn.Module) -> int:
    """Returns how many values a linear layer takes; the shape of a quantized one's weight does not tell."""
    return layer.in_features if isinstance(layer, nn.Linear) else layer.get_parameter("weight").shape[0]


def outputs(layer: nn.Module) -> int:
    """Returns how many values a linear layer gives."""
    return layer.out_features if isinstance(layer, nn.Linear) else layer.get_parameter("weight").shape[1]


def check_linear_layers(model: nn.Module, wanted: Sequence[str], *, key: str, other: str) -> None:
    """Raises ValueError where a name of `wanted`, the value of `key`, ends none of a linear layer's, or an embedding's.

    A head that is the embedding, too, would change what is read with what is said. `other` is what may stand there in
    place of names.
    """
    tables = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    layers = linear_layers(model)
    tied = {name for name in layers if id(model.get_submodule(name).get_parameter("weight")) in tables}
    shown = last_names([name for name in layers if name not in tied])
    for target in wanted:
        named = {name for name in layers if name == target or name.endswith(f".{target}")}
        if not named:
            raise ValueError(f"{key} must be [{other}] or names of linear layers ({shown}), got {target}")
        if named & tied:
            raise ValueError(
                f"{key} must be [{other}] or names of linear layers ({shown}), got {target}, whose weight is that of "
                "the embedding"
            )


def last_names(layers: Sequence[str]) -> str:
    """Returns the last parts of full names, each once, to be shown to people."""
    return ", ".join(sorted({name.rpartition(".")[2] for name in layers}))


def table_weights(model: nn.Module) -> list[Tensor]:
    """Returns the weights that have a row a token: embeddings, soft prompts and the output head."""
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Embedding)]
    heads = [layer.get_output_embeddings() for layer in model.modules() if isinstance(layer, PreTrainedModel)]
    return [*weights, *(head.weight for head in heads if head is not None)]


def blocks(model: PreTrainedModel) -> list[nn.Module]:
    """Returns the blocks in order, an encoder-decoder's of its decoder; raises ValueError where none are found."""
    return list(_stack(model)[1])


def blocks_anywhere(model: nn.Module) -> list[nn.Module]:
    """Returns the blocks of all stacks, an encoder's too, outer ones first; none where they are not known."""
    return [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]


def stacks(model: nn.Module) -> list[nn.ModuleList]:
    """Returns the lists of blocks that run one behind the other, an encoder's too, outer ones first."""
    return [
        layer for layer in model.modules() if isinstance(layer, nn.ModuleList) and len(layer) and _all_blocks(layer)
    ]


def final_norms(model: PreTrainedModel) -> list[nn.Module]:
    """Returns the normalization between the last block and the output head; none where a family has none there."""
    holder, _ = _stack(model)
    return [layer for name, layer in holder.named_children() if _is_norm(layer) and "emb" not in name]


def norms(model: nn.Module) -> list[nn.Module]:
    """Returns all normalization layers: torch's own, and families' own by the ends of their classes' names."""
    return [layer for layer in model.modules() if _is_norm(layer)]


def _is_norm(layer: nn.Module) -> bool:
    return isinstance(layer, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm) or type(layer).__name__.endswith(_NORM_NAMES)


def _stack(model: PreTrainedModel) -> tuple[nn.Module, nn.ModuleList]:
    """Returns the module that runs the blocks, and the list of them."""
    for holder in model.get_decoder().modules():
        for children in holder.children():
            if isinstance(children, nn.ModuleList) and len(children) and _all_blocks(children):
                return holder, children
    raise ValueError(
        "method must be one that needs no list of blocks for a model whose blocks are not known, "
        f"got {model.config.model_type}"
    )


def _all_blocks(layers: nn.ModuleList) -> bool:
    return all(isinstance(layer, GradientCheckpointingLayer) for layer in layers)

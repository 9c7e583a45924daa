"""Holds a frozen base's linear layers in 4 bits, through transformers and bitsandbytes.

NF4 with double quantization: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314.
"""

import logging
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

import torch
from peft.utils.integrations import dequantize_bnb_weight, get_bnb_param_type
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from forgetmenot.model.layers import inputs, linear_layers, outputs

Quantization = Literal["nf4"]
"""What linear layers can be held in."""

BLOCK = 64
"""Weights that share a scale."""

SCALES = 256
"""Scales that share one of their own."""


def check_quantization(
    quantization: Quantization | None, *, empty: PreTrainedModel, weights: Literal["pretrained", "random"]
) -> None:
    """Raises ValueError where layers cannot be held in 4 bits.

    That is without bitsandbytes, without weights to read, and where no layer of the `empty` model is quantized.
    """
    if quantization is None:
        return
    if find_spec("bitsandbytes") is None:
        raise ValueError(
            f"method.quantize must be null where bitsandbytes is not installed, got {quantization}; "
            "pip install 'forgetmenot-llm[quantize]' brings it"
        )
    if weights == "random":  # transformers quantizes what it reads
        raise ValueError(
            f"method.quantize must be null with model.weights=random, got {quantization}: what is quantized is read "
            "from a file; method=lora learns over random weights"
        )
    if not set(linear_layers(empty)) - set(exact_layers(empty)):
        raise ValueError(
            f"method.quantize must be null for a model whose layers take no multiple of {BLOCK} values, "
            f"got {quantization}; method=lora takes any"
        )


def exact_layers(empty: PreTrainedModel) -> list[str]:
    """Returns the layers that are not quantized: the head, as is usual, and those whose rows end within a block.

    bitsandbytes 0.50 mistakes the scales of such rows on CPUs: the weights come out 25% off in place of 9%.
    """
    uneven = [name for name in linear_layers(empty) if inputs(empty.get_submodule(name)) % BLOCK]
    return [*get_keys_to_not_convert(empty), *uneven]


def quantization_config(
    quantization: Quantization, *, empty: PreTrainedModel, dtype: torch.dtype
) -> BitsAndBytesConfig:
    """Returns what transformers takes: scales of blocks in 8 bits, products computed in `dtype`."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=exact_layers(empty),
    )


def quantize_empty(model: PreTrainedModel, quantization: Quantization, *, dtype: torch.dtype) -> PreTrainedModel:
    """Returns the empty `model` with its linear layers as loading would hold them: shapes and types, and no values."""
    from bitsandbytes.nn.modules import Linear4bit
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    chosen = quantization_config(quantization, empty=model, dtype=dtype)
    replaced: PreTrainedModel = replace_with_bnb_linear(model, chosen.llm_int8_skip_modules, chosen)
    for layer in replaced.modules():
        if isinstance(layer, Linear4bit):
            layer.weight = _empty_weight(layer, quantization, dtype=dtype)
    vars(replaced).update(is_loaded_in_4bit=True)  # by which peft knows it
    return replaced


def _empty_weight(layer: nn.Module, quantization: Quantization, *, dtype: torch.dtype) -> nn.Parameter:
    """Returns the weight that bitsandbytes makes of a linear layer's: two values a byte, scales, scales of those."""
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn.modules import Params4bit

    shape = torch.Size((outputs(layer), inputs(layer)))
    blocks = -(-shape.numel() // BLOCK)
    with torch.device("meta"):
        scales = QuantState(  # type: ignore[no-untyped-call]  # bitsandbytes declares no types
            absmax=torch.empty(-(-blocks // SCALES)), code=torch.empty(256), blocksize=SCALES, dtype=torch.float32
        )
        state = QuantState(  # type: ignore[no-untyped-call]
            absmax=torch.empty(blocks, dtype=torch.uint8), shape=shape, code=torch.empty(16), blocksize=BLOCK,
            quant_type=quantization, dtype=dtype, offset=torch.empty(()), state2=scales,
        )  # fmt: skip
        values = torch.empty(-(-shape.numel() // 2), 1, dtype=torch.uint8)
    weight: nn.Parameter = Params4bit(
        values, quant_state=state, blocksize=BLOCK, quant_type=quantization, bnb_quantized=True
    )
    return weight


def scheme(quantization: Quantization | None) -> str | None:
    """Returns what decides the values of quantized layers, by name: the library's version is part of it."""
    return None if quantization is None else f"{quantization} by bitsandbytes {version('bitsandbytes')}"


def keep_layout(model: PreTrainedModel) -> None:
    """Keeps quantized layers as they were loaded.

    On a CPU with AVX512-BF16, bitsandbytes otherwise lays weights out anew in the first evaluation: with scales rounded
    to bf16, so that the model answers a little differently from then on; for a product without a gradient, so that
    nothing below it learns any more; and not for sizes that 32 and 64 do not divide.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def was_conv1d(layer: nn.Module) -> bool:
    """Tells whether a layer is GPT-2's Conv1D, which keeps its matrix the other way round, or was before 4 bits."""
    return issubclass(getattr(layer, "source_cls", type(layer)), Conv1D)  # transformers notes it on what it quantizes


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """Returns the model with plain fp32 layers, of the classes that it had, of what its quantized ones stand for."""
    turned = [name for name, layer in model.named_modules() if was_conv1d(layer) and not isinstance(layer, Conv1D)]
    speaker = logging.getLogger("transformers.integrations.bitsandbytes")
    speaker.addFilter(_is_news)
    try:
        plain: PreTrainedModel = model.dequantize(dtype=torch.float32)
    finally:
        speaker.removeFilter(_is_news)
    for name in turned:
        plain.set_submodule(name, _conv1d(plain.get_submodule(name)))
    return plain


def _is_news(record: logging.LogRecord) -> bool:
    """Tells whether a line of transformers says more than that layers are made plain, which was asked for."""
    return not record.getMessage().startswith("The modules are dequantized in ")


def _conv1d(layer: nn.Module) -> Conv1D:
    """Returns what a linear layer is as GPT-2 has it."""
    weight_OI = layer.get_parameter("weight")
    turned = Conv1D(*weight_OI.shape)
    turned.weight = nn.Parameter(weight_OI.detach().T.contiguous())
    turned.bias = nn.Parameter(layer.get_parameter("bias").detach())
    return turned


def dense(weight: Tensor) -> Tensor:
    """Returns a weight as it is, or what a quantized one stands for."""
    return dequantize_bnb_weight(weight) if get_bnb_param_type(weight) else weight  # type: ignore[arg-type]


def dense_weights(model: nn.Module) -> Iterator[Tensor]:
    """Yields all weights, quantized ones one by one as what they stand for."""
    return (dense(weight) for weight in model.parameters())

"""What makes a model take less memory or time without changing what it computes: each is a key under `model`."""

from importlib import import_module
from importlib.util import find_spec

import torch
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from forgetmenot.model.layers import blocks_anywhere
from forgetmenot.model.load import Model
from forgetmenot.model.packing import PACKED, packed_attention


def prepare(model: PreTrainedModel, chosen: Model) -> None:
    """Does to an adapted model what its settings ask for; raises ValueError where it cannot be done to this one."""
    if chosen.activation_checkpointing:
        checkpoint_activations(model)
    if chosen.compile:
        compile_blocks(model)


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Lets each block forget its activations and compute them again in backward (Chen et al. 2016, arXiv 1604.06174).

    Non-reentrant, so that adapters over a frozen base get their gradients. Raises ValueError where a model cannot.
    """
    if not model.supports_gradient_checkpointing:
        raise ValueError(
            "model.activation_checkpointing must be false for a model that has no blocks to recompute, "
            f"got true for {model.config.model_type}"
        )
    model.activation_checkpointing_enable({"use_reentrant": False})


def compile_blocks(model: PreTrainedModel) -> None:
    """Compiles each block for rows of any length; packed attention stays as it is, between what is compiled."""
    blocks = blocks_anywhere(model)
    if not blocks:
        raise ValueError(
            "model.compile must be false for a model whose blocks are not known, "
            f"got true for {model.config.model_type}"
        )
    AttentionInterface.register(PACKED, torch.compiler.disable(packed_attention))
    for block in blocks:
        block.compile(dynamic=True)


def check_liger(config: PretrainedConfig) -> None:
    """Raises ValueError where liger-kernel is not installed, or has no kernels for the model's family."""
    if find_spec("liger_kernel") is None:
        raise ValueError(
            "model.liger must be false where liger-kernel is not installed, got true; "
            "pip install 'forgetmenot-llm[liger]' brings it"
        )
    families = import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    if config.model_type not in families:
        raise ValueError(
            f"model.liger must be false for a model that Liger has no kernels for, got true for {config.model_type}"
        )


def use_liger_kernels(model: PreTrainedModel) -> None:
    """Swaps norms, rotations and gated layers for Liger's kernels (Hsu et al. 2024, arXiv 2410.10989).

    The loss stays ours. Call it before adapters are put in.
    """
    kernels = import_module("liger_kernel.transformers")
    kernels._apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)

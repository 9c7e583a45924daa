"""What is done with an adapter of peft whatever it is: learned weights put into it, and it into its base."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import Tensor
from transformers import PreTrainedModel

ADAPTER = "default"
"""peft's name for an adapter that got none."""


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Returns the weights that peft wrote into `folder`."""
    return load_peft_weights(str(folder), device="cpu")


def put_adapter(adapted: PreTrainedModel, learned: Mapping[str, Tensor], *, folder: Path) -> PreTrainedModel:
    """Returns peft's model with what was `learned` in it; raises ValueError where `folder` holds another adapter's."""
    loaded = set_peft_model_state_dict(adapted, dict(learned))
    missing, unknown = cast(tuple[list[str], list[str]], loaded)
    if unknown:
        raise ValueError(f"{folder} must hold an adapter of this method and model, got weights for {unknown[0]}")
    own = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    absent = [name for name in missing if name in own]  # all of the base's are missing, too
    if absent:
        raise ValueError(f"{folder} must hold an adapter of this method and model, got no weights for {absent[0]}")
    return adapted


def merge_adapter(adapted: PreTrainedModel) -> PreTrainedModel:
    """Returns the base with the adapter in its weights; raises ValueError where one of them is no number."""
    return cast(PreTrainedModel, cast(PeftModel, adapted).merge_and_unload(safe_merge=True))

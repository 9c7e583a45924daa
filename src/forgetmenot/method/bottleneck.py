"""Bottleneck adapters: small layers behind the sub-layers of each block of the frozen base.

Behind attention and feed-forward: Houlsby et al. 2019, https://arxiv.org/abs/1902.00751. Behind feed-forward alone:
Pfeiffer et al. 2021, https://arxiv.org/abs/2005.00247. Neither transformers nor peft knows them: the layout on disk is
ours, and a README beside it says how to load it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import PreTrainedModel

from forgetmenot.method.base import Method
from forgetmenot.model.sublayers import SublayerOutput, sublayer_outputs

_WEIGHTS, _SETTINGS, _README = "bottleneck.safetensors", "bottleneck.json", "README.md"
_FORMAT = "forgetmenot bottleneck adapters, version 1"
_CHILD = "bottleneck"  # an adapter is a child of the layer that it stands behind, so that the base's names stay


class Adapter(nn.Module):
    """h + up(gelu(down(h))); `up` starts at 0, so that a fresh one changes nothing."""

    def __init__(self, *, width: int, size: int, device: torch.device) -> None:
        super().__init__()
        self.down = nn.Linear(width, size, device=device)
        self.up = nn.Linear(size, width, device=device)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Returns (B, T, D) in the dtype of what it is given; its own weights stay in theirs."""
        change_BTD = self.up(gelu(self.down(hidden_BTD.to(self.down.weight.dtype))))
        adapted_BTD: Tensor = hidden_BTD + change_BTD.to(hidden_BTD.dtype)
        return adapted_BTD

    def stand_behind(self, layer: nn.Module, arguments: tuple[object, ...], output: Tensor) -> Tensor:
        """Returns what `layer` gives from now on: a hook behind its forward pass."""
        adapted: Tensor = self(output)
        return adapted


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Method):
    """Trains adapters with `size` values between their two layers, behind the sub-layers that `after` names."""

    unmergeable: ClassVar[str | None] = (
        "its adapters are layers that no plain model has; the README in the run's adapter/ says how to load them, "
        "or a run with method=lora can be merged"
    )

    size: int
    after: tuple[Literal["attention", "feed_forward"], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")
        if not self.after or len(set(self.after)) < len(self.after):
            shown = f"[{', '.join(self.after)}]"
            raise ValueError(f"after must be attention, feed_forward or both, each once, got {shown}")

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the frozen base with an adapter behind each place; raises ValueError where one is not found."""
        places = self._places(model)
        model.requires_grad_(False)
        width = model.config.get_text_config().hidden_size
        for place in places:
            device = next(place.layer.parameters()).device
            adapter = Adapter(width=width, size=self.size, device=device)
            place.layer.add_module(_CHILD, adapter)
            place.layer.register_forward_hook(adapter.stand_behind)
        return model

    def _places(self, model: PreTrainedModel) -> list[SublayerOutput]:
        outputs = sublayer_outputs(model)
        for kind in self.after:
            if not any(output.kind == kind for output in outputs):
                raise ValueError(
                    f"method must be another for a model whose {kind} layers are not found by their structure, "
                    f"got {self.name} for {model.config.model_type}; method=lora needs its linear layers alone"
                )
        return [output for output in outputs if output.kind in self.after]

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns 0: no weight of the base is touched."""
        return 0.0

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Writes the adapters in a layout of our own, and how to load it."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: w.detach().cpu().contiguous() for name, w in model.named_parameters() if f".{_CHILD}." in name}
        save_file(weights, folder / _WEIGHTS)
        settings = {"format": _FORMAT, "model_type": model.config.model_type, **asdict(self)}
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (folder / _README).write_text(_told(self), encoding="utf-8")

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model` with the adapters of `folder`."""
        adapted = self.apply(model)
        own = {name: weight for name, weight in adapted.named_parameters() if f".{_CHILD}." in name}
        learned = load_file(folder / _WEIGHTS)
        unlike = [name for name in own.keys() | learned.keys() if _shape(own, name) != _shape(learned, name)]
        if unlike:
            raise ValueError(f"{folder} must hold adapters of this method and model, got others at {min(unlike)}")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(learned[name])
        return adapted


def _shape(weights: dict[str, Tensor] | dict[str, nn.Parameter], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


def _told(method: Bottleneck) -> str:
    """Returns the README that lies beside the weights."""
    return (
        "Bottleneck adapters of forgetmenot, which neither transformers nor peft loads. On the base model `base`:\n\n"
        f'    method = forgetmenot.compose("method/bottleneck", size={method.size}, after={list(method.after)})\n'
        "    model = method.load(base, pathlib.Path(FOLDER))\n"
    )

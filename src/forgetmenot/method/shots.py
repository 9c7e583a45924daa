"""Prompting: training examples before each prompt show the task (Brown et al. 2020, https://arxiv.org/abs/2005.14165).

Nothing is trained: what a run keeps is text.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from forgetmenot.method.base import Method


@dataclass(frozen=True, kw_only=True)
class Shots(Method):
    """Leaves the base as it is and puts `num_shots` training examples before each prompt of the target."""

    trains: ClassVar[bool] = False
    unmergeable: ClassVar[str | None] = (
        "it leaves the base as it is; the text in the run's prompt/ goes before each prompt of the base itself"
    )

    num_shots: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_shots < 0:
            raise ValueError(f"num_shots must be at least 0, got {self.num_shots}")

    @property
    def folder(self) -> str:
        """Where in a run's folder the text lies that stands before prompts."""
        return "prompt"

    @property
    def shots(self) -> int:
        """How many training examples are shown."""
        return self.num_shots

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the model itself with all weights frozen."""
        return model.requires_grad_(False)

    def change(self, model: PreTrainedModel, base: PreTrainedModel) -> float:
        """Returns 0: no weight is touched."""
        return 0.0

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Makes the folder alone: the model has learned nothing, and data/shots.py writes the text that it reads."""
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
        """Returns the base `model`: data/shots.py reads the text."""
        return self.apply(model)

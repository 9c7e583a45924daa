"""P-tuning: virtual tokens that a small network makes (Liu et al. 2021, https://arxiv.org/abs/2103.10385)."""

from dataclasses import dataclass

from peft import PromptEncoderConfig, PromptEncoderReparameterizationType, TaskType

from forgetmenot.method.virtual_tokens import VirtualTokens


@dataclass(frozen=True, kw_only=True)
class PTuning(VirtualTokens):
    """Trains vectors and an MLP of three layers, `hidden_size` wide, that makes virtual tokens of them.

    The MLP is left behind when training ends: what it makes is saved.
    """

    hidden_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size must be at least 1, got {self.hidden_size}")

    def config(self, task: TaskType) -> PromptEncoderConfig:
        """Returns peft's configuration."""
        return PromptEncoderConfig(
            task_type=task,
            num_virtual_tokens=self.num_virtual_tokens,
            num_transformer_submodules=1,
            encoder_reparameterization_type=PromptEncoderReparameterizationType.MLP,
            encoder_hidden_size=self.hidden_size,
        )

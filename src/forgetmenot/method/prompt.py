"""Prompt tuning: learned virtual tokens before each prompt (Lester et al. 2021, https://arxiv.org/abs/2104.08691)."""

from dataclasses import dataclass

from peft import PromptTuningConfig, PromptTuningInit, TaskType

from forgetmenot.method.virtual_tokens import VirtualTokens


@dataclass(frozen=True, kw_only=True)
class Prompt(VirtualTokens):
    """Trains virtual tokens that start as the words of a text, or as words drawn from the vocabulary."""

    start: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start is not None and not self.start.strip():
            raise ValueError(f"start must be a text or null, got {self.start!r}")

    @property
    def start_text(self) -> str | None:
        """The text that virtual tokens start as."""
        return self.start

    def config(self, task: TaskType) -> PromptTuningConfig:
        """Returns peft's configuration: drawn words, since what is saved must not ask for a tokenizer."""
        return PromptTuningConfig(
            task_type=task,
            num_virtual_tokens=self.num_virtual_tokens,
            num_transformer_submodules=1,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        )

"""What settings must keep to beyond their types, checked before any weight is read."""

import warnings
from collections.abc import Sequence

from transformers import PretrainedConfig, PreTrainedModel

from forgetmenot.config.errors import ConfigError, did_you_mean
from forgetmenot.config.settings import Settings
from forgetmenot.data.chat import Chat
from forgetmenot.data.task import Task
from forgetmenot.method.base import Method
from forgetmenot.model.facts import ModelFacts
from forgetmenot.model.layers import blocks_anywhere
from forgetmenot.model.load import Model
from forgetmenot.record import on_rank_zero
from forgetmenot.scoring import score_names


def check_objective(name: str | None, targets: Sequence[Task]) -> None:
    """Raises ConfigError where a sweep cannot judge by `name`; None is the default."""
    if name is None:
        return
    several = len(targets) > 1
    scores = [f"{task.name}.{metric}" if several else metric for task in targets for metric in score_names(task)]
    scores += ["mean"] if several else []
    known = ["gain", "forgetting.mean", *(f"{where}.{score}" for where in ("val", "after") for score in scores)]
    if name not in known:
        shown = "mean or <task>.<metric>" if several else "<metric>" if targets[0].answers else "loss"
        hint = did_you_mean(name, known)
        raise ConfigError(f"objective must be gain, forgetting.mean, val.{shown} or after.{shown}, got {name}{hint}")


def check_lengths(
    settings: Settings, facts: ModelFacts, *, method: Method, chat: Chat | None, tasks: Sequence[Task]
) -> None:
    """Raises ConfigError where max_length is longer than the model reads, or too short for an answer."""
    if facts.context is not None and settings.max_length > facts.context:
        raise ConfigError(
            f"max_length must be at most the model's context of {facts.context} tokens, got {settings.max_length}"
        )
    answer = max((task.max_new_tokens for task in tasks if task.answers), default=1)
    frame = _chat_tokens(chat)
    needed = shortest_row(method, chat) + answer
    if settings.max_length < needed:
        of_chat = f"{frame} of the chat template, " if frame else ""
        raise ConfigError(
            f"max_length must be at least {needed} ({method.virtual_tokens} virtual tokens, {of_chat}"
            f"{answer} new tokens, 8 of prompt), got {settings.max_length}"
        )


def shortest_row(method: Method, chat: Chat | None) -> int:
    """Returns the tokens that an answer leaves to the least of prompts: 8, within its template and virtual tokens."""
    return method.virtual_tokens + _chat_tokens(chat) + 8


def _chat_tokens(chat: Chat | None) -> int:
    """Returns the tokens that a template puts around each prompt."""
    return 0 if chat is None else len(chat.opening) + len(chat.closing)


def check_padding(facts: ModelFacts, *, model: Model, config: PretrainedConfig) -> None:
    """Raises ConfigError where a model reads padding as text: its scores would depend on what else is in a batch."""
    if not facts.tells_padding:
        raise ConfigError(
            f"model.path must be a model that tells padding from text, got {model.path} ({config.model_type}), which "
            "scores a row otherwise behind padding, in a batch with longer ones, than alone; llama and its kin tell "
            "it, and so do mamba, mamba2 and falcon_mamba"
        )


def check_recomputing(model: Model, *, method: Method) -> None:
    """Raises ConfigError where blocks should be computed once more in backward, and the method's cannot be."""
    if model.activation_checkpointing and not method.recomputes:
        raise ConfigError(
            "model.activation_checkpointing must be false for a method that keeps keys and values, which a block "
            f"computed once more would lose, got true for {method.name}; a lower micro_batch_tokens saves memory, too"
        )


def check_sharing(empty: PreTrainedModel) -> None:
    """Raises ConfigError where the weights of a model, here the `empty` one, cannot be shared out over devices."""
    if not blocks_anywhere(empty):
        raise ConfigError(
            "trainer.strategy must be ddp for a model whose blocks are not known, since it would be gathered whole, "
            f"got fsdp for {empty.config.model_type}"
        )


def warn_of_a_full_head(facts: ModelFacts, *, name: str) -> None:
    """Tells that a model computes more logits than are needed."""
    if not facts.selects_head:
        on_rank_zero(warnings.warn)(
            f"{name} computes its output head at every position, not only where labels are, which costs time and "
            "memory: its family could not be tried with chosen ones alone",
            stacklevel=4,
        )

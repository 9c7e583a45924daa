"""Prefix tuning: learned keys and values before each row (Li & Liang 2021, https://arxiv.org/abs/2101.00190).

peft makes and keeps the weights. Where they stand is ours: each forward pass finds them in every layer of its cache of
keys and values, before padding and prompt, and positions count on from them. So training, scoring and `generate` need
no other path, and a row answers the same alone and in a padded batch.

Shapes: B rows, T tokens of a row, P tokens of the prefix, L layers, H heads of keys and values, D values of a head.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from forgetmenot.method.learned_tokens import LearnedTokens, LearnedVectors
from forgetmenot.model.facts import has_windows, keeps_keys_and_values
from forgetmenot.model.packing import padded_attention

_NAME = "learned_prefix"  # of the submodule that holds it

Named = dict[str, object]
"""What a model is called with, by name."""


class LearnedPrefix(LearnedVectors):
    """Keys and values that stand before every row which a model reads."""

    def keys_and_values(self, *, rows: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (B, H, P, D) keys and values of each layer."""
        layers, heads = self.config.num_layers, self.config.num_attention_heads
        assert layers is not None and heads is not None, "peft has read them from the base's config"
        prefix_PSHD = self.vectors().to(dtype).unflatten(1, (layers * 2, heads, -1))
        states_SHPD = prefix_PSHD.permute(1, 2, 0, 3)
        for keys_HPD, values_HPD in zip(states_SHPD[0::2], states_SHPD[1::2], strict=True):
            yield keys_HPD.expand(rows, -1, -1, -1), values_HPD.expand(rows, -1, -1, -1)

    def stand_before(
        self, model: PreTrainedModel, arguments: tuple[object, ...], named: Mapping[str, object]
    ) -> tuple[tuple[object, ...], Named]:
        """Returns what `model` is called with, the prefix among it: a hook before its forward pass.

        A cache that holds tokens already has the prefix before them.
        """
        ids_BT, cache = named["input_ids"], named.get("past_key_values")
        assert isinstance(ids_BT, Tensor), "a model is called with names"
        cache = cache if isinstance(cache, Cache) else DynamicCache(config=model.config)
        if not cache.get_seq_length():
            states = self.keys_and_values(rows=len(ids_BT), dtype=model.dtype)
            for layer, (keys_BHPD, values_BHPD) in enumerate(states):
                cache.update(keys_BHPD, values_BHPD, layer)
        changed: Named = {**named, "past_key_values": cache}
        length, mask_BT, positions_BT = self.config.num_virtual_tokens, named["attention_mask"], named["position_ids"]
        assert isinstance(mask_BT, Tensor) and isinstance(positions_BT, Tensor), "rows say where their tokens stand"
        changed["attention_mask"] = torch.cat([mask_BT.new_ones(len(mask_BT), length), mask_BT], dim=1)
        changed["position_ids"] = positions_BT + length
        return arguments, changed


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(LearnedTokens):
    """Trains the keys and values of `num_virtual_tokens` tokens in every layer.

    They start as those of words drawn from the vocabulary; with a `projection`, an MLP of that hidden size makes them
    of learned vectors (null: none), and they start at random.
    """

    packs: ClassVar[bool] = False  # a prefix stands before rows of a batch, not inside of one
    recomputes: ClassVar[bool] = False  # a block that is computed again would write its keys and values twice
    unmergeable: ClassVar[str | None] = (
        "its keys and values stand before each row and are no weights of the base; peft loads the run's adapter/ "
        "beside the base as it is, or a run with method=lora can be merged"
    )

    projection: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projection is not None and self.projection < 1:
            raise ValueError(f"projection must be null or a hidden size of at least 1, got {self.projection}")

    @property
    def virtual_ids(self) -> int:
        """None: a prefix is keys and values alone."""
        return 0

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Returns the frozen base with the prefix as a submodule, read before every row."""
        self._check_cache(model)
        config = PrefixTuningConfig(
            task_type=TaskType.CAUSAL_LM,
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.projection is not None,
            encoder_hidden_size=self.projection,  # type: ignore[arg-type]  # None is its default
        )
        encoder = get_peft_model(model, config).prompt_encoder["default"]
        base = model.requires_grad_(False)
        if self.projection is None and base.device.type != "meta":
            _start_as_words(encoder, base)
        prefix = LearnedPrefix(encoder, config=config)
        base.add_module(_NAME, prefix)
        base.register_forward_pre_hook(prefix.stand_before, with_kwargs=True)
        return base

    def _check_cache(self, model: PreTrainedModel) -> None:
        family = model.config.model_type
        if not keeps_keys_and_values(model):
            raise ValueError(
                "method must be another for a model that keeps more than keys and values of the tokens before, "
                f"got {self.name} for {family}; prompt and p_tuning put virtual tokens before its prompts"
            )
        if has_windows(model.config.get_text_config()):
            raise ValueError(
                "method must be another for a model with layers that see a number of tokens back and no further, "
                f"got {self.name} for {family}, where they would lose the prefix; prompt and p_tuning work"
            )

    def learned(self, model: PreTrainedModel) -> LearnedVectors:
        """Returns the submodule."""
        prefix = model.get_submodule(_NAME)
        assert isinstance(prefix, LearnedPrefix)
        return prefix


@torch.no_grad()
def _start_as_words(encoder: nn.Module, model: PreTrainedModel) -> None:
    """Lets a prefix start as the keys and values of drawn words: random ones learn worse (section 7.4 of the paper)."""
    table = encoder.get_parameter("embedding.weight")
    embeddings = model.get_input_embeddings().get_parameter("weight")
    ids_1P = torch.randint(len(embeddings), (1, len(table)), device=embeddings.device)
    cache = DynamicCache(config=model.config)
    with padded_attention(model):
        model(input_ids=ids_1P, attention_mask=torch.ones_like(ids_1P), past_key_values=cache, use_cache=True)
    states = [state for keys, values, *_ in cache for state in (keys, values)]
    table.copy_(torch.stack([state_1HPD[0].transpose(0, 1).flatten(1) for state_1HPD in states], dim=1).flatten(1))

"""Prefix tuning: learned keys and values before each row (Li & Liang 2021, https://arxiv.org/abs/2101.00190).

peft makes and keeps the weights. Where they stand is ours: each forward pass finds them in every layer of its cache of
keys and values, before padding and prompt, and positions count on from them. So training, scoring and `generate` need
no other path, and a row answers the same alone and in a padded batch. Of an encoder-decoder they stand in the decoder's
self-attention, as peft's do: an encoder has no cache (the paper puts prefixes there and in cross-attention, too).

Shapes: B rows, T tokens of a row, P tokens of the prefix, L layers, N layers in peft's file, K values of a layer's keys
and values together, H heads of them, D values of a head.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from peft import PrefixTuningConfig, PromptLearningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedModel

from forgetmenot.method.learned_tokens import LearnedTokens, LearnedVectors
from forgetmenot.model.decoder import empty_cache, kept_by_decoder, read_by_decoder
from forgetmenot.model.facts import has_windows, keeps_keys_and_values
from forgetmenot.model.packing import padded_attention

_NAME = "learned_prefix"  # of the submodule that holds it

Named = dict[str, object]
"""What a model is called with, by name."""


def _fill(cache: Cache, learned: LearnedVectors, *, rows: int, dtype: torch.dtype) -> None:
    """Puts (B, H, P, D) keys and values of each layer into `cache`; what it holds already has them before it."""
    if cache.get_seq_length():
        return
    heads, size = learned.config.num_attention_heads, learned.config.token_dim
    assert heads is not None and size is not None, "peft has read them from the base's config"
    prefix_PSHD = learned.vectors().to(dtype).unflatten(1, (-1, heads, size // heads))
    states_SBHPD = prefix_PSHD.permute(1, 2, 0, 3)[:, None].expand(-1, rows, -1, -1, -1)
    for layer, (keys_BHPD, values_BHPD) in enumerate(zip(states_SBHPD[0::2], states_SBHPD[1::2], strict=True)):
        cache.update(keys_BHPD, values_BHPD, layer)


class LearnedPrefix(LearnedVectors):
    """Keys and values that stand before every row which a model reads."""

    def stand_before(
        self, model: PreTrainedModel, arguments: tuple[object, ...], named: Mapping[str, object]
    ) -> tuple[tuple[object, ...], Named]:
        """Returns what `model` is called with, the prefix among it: a hook before its forward pass."""
        ids_BT, cache = named["input_ids"], named.get("past_key_values")
        assert isinstance(ids_BT, Tensor), "a model is called with names"
        cache = cache if isinstance(cache, Cache) else DynamicCache(config=model.config)
        _fill(cache, self, rows=len(ids_BT), dtype=model.dtype)
        changed: Named = {**named, "past_key_values": cache}
        length, mask_BT, positions_BT = self.config.num_virtual_tokens, named["attention_mask"], named["position_ids"]
        assert isinstance(mask_BT, Tensor) and isinstance(positions_BT, Tensor), "rows say where their tokens stand"
        changed["attention_mask"] = torch.cat([mask_BT.new_ones(len(mask_BT), length), mask_BT], dim=1)
        changed["position_ids"] = positions_BT + length
        return arguments, changed


class DecoderPrefix(LearnedVectors):
    """Keys and values that stand before every row which a decoder writes.

    peft 0.21 reads a file of N layers twice over, each other pair as one of cross-attention, which it drops: layer i of
    the decoder finds the pair 2i modulo N. Of an even N half the pairs would stand in two layers and half in none. So
    the file has an odd N: where the decoder's own number is even, one layer more, of zeros.
    """

    def __init__(self, prompt: nn.Module, *, config: PromptLearningConfig) -> None:
        layers = config.num_layers
        assert layers is not None, "it was found by trial"
        self.held = layers | 1
        super().__init__(prompt, config=replace(config, num_layers=self.held))
        self.places = [2 * layer % self.held for layer in range(layers)]

    def stand_before(
        self, decoder: PreTrainedModel, arguments: tuple[object, ...], named: Mapping[str, object]
    ) -> tuple[tuple[object, ...], Named]:
        """Returns what `decoder` is called with, the prefix among it: a hook before its forward pass.

        It counts positions on from what its cache holds, and its rows have no padding in front.
        """
        ids_BT, cache = named["input_ids"], named.get("past_key_values")
        assert isinstance(ids_BT, Tensor) and named.get("attention_mask") is None, "rows are whole, and ids"
        cache = cache if isinstance(cache, EncoderDecoderCache) else empty_cache()
        _fill(cache.self_attention_cache, self, rows=len(ids_BT), dtype=decoder.dtype)
        return arguments, {**named, "past_key_values": cache}

    def kept(self) -> Tensor:
        """Returns (P, N * K): each layer's keys and values where peft looks for them."""
        vectors_PLK: Tensor = self.vectors().unflatten(1, (len(self.places), -1))
        kept_PNK = vectors_PLK.new_zeros(len(vectors_PLK), self.held, vectors_PLK.shape[2])
        kept_PNK[:, self.places] = vectors_PLK
        return kept_PNK.flatten(1)

    def found(self, kept: Tensor) -> Tensor:
        """Returns (P, L * K): layer by layer what lies in peft's places."""
        kept_PNK: Tensor = kept.unflatten(1, (self.held, -1))
        return kept_PNK[:, self.places].flatten(1)


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
        config = self._config(model)
        encoder = get_peft_model(model, config).prompt_encoder["default"]
        base = model.requires_grad_(False)
        if self.projection is None and base.device.type != "meta":
            _start_as_words(encoder, base)
        both = base.config.is_encoder_decoder
        prefix = DecoderPrefix(encoder, config=config) if both else LearnedPrefix(encoder, config=config)
        base.add_module(_NAME, prefix)
        reader = base.get_decoder() if both else base
        reader.register_forward_pre_hook(prefix.stand_before, with_kwargs=True)
        return base

    def _config(self, model: PreTrainedModel) -> PrefixTuningConfig:
        """Returns peft's configuration; raises ValueError for a model that keeps something else, or for a while."""
        family, both = model.config.model_type, model.config.is_encoder_decoder
        kept = kept_by_decoder(model) if both else None
        if not (kept or keeps_keys_and_values(model)):
            causal = "that keeps more than keys and values of the tokens before"
            model_that = "whose decoder takes no keys and values before its tokens" if both else causal
            raise ValueError(
                f"method must be another for a model {model_that}, "
                f"got {self.name} for {family}; prompt and p_tuning put virtual tokens before its prompts"
            )
        if has_windows(model.config.get_text_config(decoder=both)):
            raise ValueError(
                "method must be another for a model with layers that see a number of tokens back and no further, "
                f"got {self.name} for {family}, where they would lose the prefix; prompt and p_tuning work"
            )
        config = PrefixTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM if both else TaskType.CAUSAL_LM,
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.projection is not None,
            encoder_hidden_size=self.projection,  # type: ignore[arg-type]  # None is its default
        )
        if kept:  # peft would take the encoder's sizes for the decoder's
            config.num_layers, config.num_attention_heads = kept.layers, kept.heads
            config.token_dim = kept.heads * kept.head_size
        return config

    def learned(self, model: PreTrainedModel) -> LearnedVectors:
        """Returns the submodule."""
        prefix = model.get_submodule(_NAME)
        assert isinstance(prefix, LearnedPrefix | DecoderPrefix)
        return prefix


@torch.no_grad()
def _start_as_words(encoder: nn.Module, model: PreTrainedModel) -> None:
    """Lets a prefix start as the keys and values of drawn words: random ones learn worse (section 7.4 of the paper)."""
    table = encoder.get_parameter("embedding.weight")
    embeddings = model.get_input_embeddings().get_parameter("weight")
    ids_1P = torch.randint(len(embeddings), (1, len(table)), device=embeddings.device)
    states = [state for keys, values, *_ in _read(model, ids_1P) for state in (keys, values)]
    table.copy_(torch.stack([state_1HPD[0].transpose(0, 1).flatten(1) for state_1HPD in states], dim=1).flatten(1))


def _read(model: PreTrainedModel, ids_1P: Tensor) -> DynamicCache:
    if model.config.is_encoder_decoder:
        return read_by_decoder(model, ids_1P)
    cache = DynamicCache(config=model.config)
    with padded_attention(model):
        model(input_ids=ids_1P, attention_mask=torch.ones_like(ids_1P), past_key_values=cache, use_cache=True)
    return cache

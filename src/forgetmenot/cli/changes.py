"""The cheapest change that would make a run fit: tried in the order of what they cost, each by the same estimate."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hydra import compose
from hydra.core.hydra_config import HydraConfig

from forgetmenot.cli.estimating import Estimate, estimate
from forgetmenot.cli.planning import Planned
from forgetmenot.cli.trainable import check_shared_steps
from forgetmenot.config.build import build
from forgetmenot.config.errors import ConfigError
from forgetmenot.footprint import Parts, Spread, fits, halvings
from forgetmenot.method.base import Method
from forgetmenot.model.load import empty_model
from forgetmenot.model.quantize import check_quantization
from forgetmenot.trainer import SHARDED, base_dtype

_MOST_DEVICES = 1024


@dataclass(frozen=True, kw_only=True)
class Change:
    """Settings that differ, as on a command line, and what a device then holds."""

    settings: str
    parts: Parts


def cheapest_change(plan: Planned, found: Estimate, *, memory: int) -> Change | None:
    """Returns the cheapest change that makes the run fit a device of `memory` bytes: one alone, or else some together.

    None: none of those that are known does.
    """
    for change in _alone(plan, found, memory=memory):
        if change is not None:
            return change
    return _together(plan, memory=memory)


def _alone(plan: Planned, found: Estimate, *, memory: int) -> Iterator[Change | None]:
    held = replace(found.on_device, activations=0, logits=0, allocator=0)
    if fits(held, memory=memory):  # else neither helps
        yield _smaller_micro_batches(plan, found, memory=memory)
        settings, recomputing = _recomputing(plan)
        yield None if recomputing is None else _tried(recomputing, memory=memory, settings=settings)[0]
    for settings, changed in _other_methods(plan):
        yield _tried(changed, memory=memory, settings=settings)[0]
    yield _more_devices(plan, found, memory=memory, settings="")


def _together(plan: Planned, *, memory: int) -> Change | None:
    """Returns the first that fits of changes that are put on top of each other, in the order of what they cost."""
    least = _longest(plan)
    changed, settings = _of_size(plan, least), f"micro_batch_tokens={least}"
    recomputing = _recomputing(changed)
    if recomputing[1] is not None:
        changed, settings = recomputing[1], f"{settings} {recomputing[0]}"
    for more, next_ in (("", changed), *_other_methods(changed)):
        together = f"{settings} {more}".strip()
        change, found = _tried(next_, memory=memory, settings=together)
        if change is not None:
            return change
        last, of_last = together, next_
    return _more_devices(of_last, found or estimate(of_last), memory=memory, settings=last)


def _tried(plan: Planned, *, memory: int, settings: str) -> tuple[Change | None, Estimate | None]:
    """Returns the change where it makes the run fit, and its estimate where the base alone left room for more."""
    if not fits(Parts(weights=_base_at_least(plan)), memory=memory):
        return None, None
    found = estimate(plan)
    parts = found.on_device
    return (Change(settings=settings, parts=parts) if fits(parts, memory=memory) else None), found


def _base_at_least(plan: Planned) -> int:
    """Returns bytes that a device's share of the base's weights takes at the very least."""
    setup = plan.setup
    held_in = base_dtype(setup.precision, freezes_base=setup.method.freezes_base)
    bits = 4 if setup.method.quantization else 8 * held_in.itemsize
    return setup.facts.parameters * bits // 8 // (plan.spread_over if setup.shares_weights else 1)


def _smaller_micro_batches(plan: Planned, found: Estimate, *, memory: int) -> Change | None:
    """Returns the largest of ever halved micro-batches that fits; one row is the least."""
    sizes = halvings(plan.tokens(plan.largest), least=_longest(plan))
    if not sizes:
        return None
    least, of_least = _tried(_of_size(plan, sizes[-1]), memory=memory, settings=f"micro_batch_tokens={sizes[-1]}")
    if least is None or of_least is None:
        return None
    low, high = of_least.on_device.total, found.on_device.total
    slope = (high - low) / (plan.tokens(plan.largest) - sizes[-1])
    for size in sizes[:-1]:
        if fits(Parts(activations=int(low + slope * (size - sizes[-1]))), memory=memory):  # as a straight line has it
            change, _ = _tried(_of_size(plan, size), memory=memory, settings=f"micro_batch_tokens={size}")
            if change is not None:
                return change
    return least


def _of_size(plan: Planned, tokens: int) -> Planned:
    return replace(plan, setup=replace(plan.setup, micro_batch_tokens=tokens))


def _longest(plan: Planned) -> int:
    return int(plan.data.plan.lengths.max())


def _recomputing(plan: Planned) -> tuple[str, Planned | None]:
    """Returns the run with activation checkpointing; None where it has it, or cannot."""
    setup = plan.setup
    can = setup.method.recomputes and empty_model(setup.model, setup.model_config).supports_gradient_checkpointing
    settings = "model.activation_checkpointing=true"
    if setup.model.activation_checkpointing or not can:
        return settings, None
    return settings, replace(plan, setup=replace(setup, model=replace(setup.model, activation_checkpointing=True)))


def _other_methods(plan: Planned) -> Iterator[tuple[str, Planned]]:
    """Yields the run with LoRA where the base is trained, and with QLoRA where it is not in 4 bits.

    What the command line says of the method stays, where the other has such a key.
    """
    setup = plan.setup
    said = [word for word in HydraConfig.get().overrides.task if word.startswith("method.")]
    for name, cheaper in (("lora", not setup.method.freezes_base), ("qlora", setup.method.quantization is None)):
        if not cheaper:
            continue
        keys = compose("train", overrides=[f"method={name}"]).method
        kept = [word for word in said if word.partition("=")[0].removeprefix("method.") in keys]
        try:
            other = build(compose("train", overrides=[f"method={name}", *kept]).method, Method, key="method")
            empty = empty_model(setup.model, setup.model_config)
            check_quantization(other.quantization, empty=empty, weights="pretrained")
        except ValueError:  # settings or a model that it does not go with: no change to propose
            continue
        yield f"method={name}", replace(plan, setup=replace(setup, method=other))


def _more_devices(plan: Planned, found: Estimate, *, memory: int, settings: str) -> Change | None:
    """Returns FSDP over the fewest devices, ever twice as many, on which the run fits."""
    if not plan.on_cuda:  # processes on CPUs share one memory
        return None
    try:
        check_shared_steps(plan.setup)
    except ConfigError:
        return None
    if not found.groups.largest_block:  # it would be gathered whole
        return None
    devices = 2 * plan.spread_over
    while devices <= _MOST_DEVICES:
        parts = found.spread_over(Spread(devices=devices, strategy="fsdp", several=found.spread.several))
        if fits(parts, memory=memory):
            change = f"{settings} trainer={SHARDED} trainer.devices={devices}".strip()
            return Change(settings=change, parts=parts)
        devices *= 2
    return None

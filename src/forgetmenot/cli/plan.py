"""`plan`: tells what a run would take, and whether it fits, before it is paid for; reads no weight and needs no GPU.

forgetmenot plan model=llama3.1_8b method=lora micro_batch_tokens=4096 device=cuda memory_gb=80
"""

from collections.abc import Iterator

from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.cli.changes import cheapest_change
from forgetmenot.cli.estimating import Estimate, estimate
from forgetmenot.cli.planning import Planned, planned
from forgetmenot.config.build import build
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.settings import Planning
from forgetmenot.footprint import ROOM, fits, seconds_of
from forgetmenot.loggers import quiet_libraries
from forgetmenot.model.budget import device_memory
from forgetmenot.report.plan import duration, gigabytes, plan_table, work

_OURS = ("device", "memory_gb", "flops_per_second", "lengths")
_STEPS = 1000


def run(config: DictConfig) -> None:
    """Prints the plan."""
    quiet_libraries()
    console = Console()
    asked = build(DictConfig({key: config[key] for key in _OURS}), Planning, key="")
    plan = planned(DictConfig({key: config[key] for key in config if key not in _OURS}), asked)
    memory = _memory(plan, asked)

    found = estimate(plan)
    parts = found.on_device

    for sentence in _opening(plan, found):
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)
    console.print(plan_table(parts, devices=plan.spread_over))
    console.print(_time(plan, found, asked), soft_wrap=True, markup=False, highlight=False)

    room = f"a device of {gigabytes(memory)} GB, of which a plan leaves {1 - ROOM:.0%}"
    if fits(parts, memory=memory):
        console.print(f"It fits: {gigabytes(parts.total)} GB on {room}.", soft_wrap=True, markup=False)
        return
    console.print(f"It does not fit: {gigabytes(parts.total)} GB on {room}.", soft_wrap=True, markup=False)
    change = cheapest_change(plan, found, memory=memory)
    if change is None:
        console.print("No change of those that are known would make it fit.", soft_wrap=True, markup=False)
    else:
        console.print(
            f"The cheapest change that fits: {change.settings} ({gigabytes(change.parts.total)} GB).",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip


def _memory(plan: Planned, asked: Planning) -> int:
    """Returns the bytes of a device: as they were given, or this machine's; processes on a CPU share its memory."""
    if asked.memory is not None:
        return asked.memory
    if plan.on_cuda and not plan.has_device:
        raise ConfigError(
            "memory_gb must be given where this machine has no GPU, got null; memory_gb=80 is such a size"
        )
    whole = device_memory(on_cuda=plan.on_cuda)
    return whole if plan.on_cuda else whole // plan.spread_over


def _opening(plan: Planned, found: Estimate) -> Iterator[str]:
    """Yields what is trained, on what rows, and what the plan leaves out."""
    setup, trained = plan.setup, found.trained / found.parameters
    yield (
        f"{setup.method.name} trains {found.trained:,} weights, {trained:.2%} of the {found.parameters / 1e6:,.1f} M "
        f"parameters of {setup.model.name}, in {setup.precision}."
    )
    whose = "the data's" if plan.reads_data else f"of max_length={setup.settings.max_length}, since no data is read"
    yield (
        f"A step of {setup.settings.batch_size} rows holds {plan.tokens_per_step:,.0f} tokens, its largest micro-batch "
        f"{plan.tokens(plan.largest):,} (micro_batch_tokens={setup.micro_batch_tokens}); lengths are {whose}."
    )
    for name in found.untold:
        yield f"What {name} holds is not counted: it is known once it is prepared."
    for option, chosen in (("compile", setup.model.compile), ("liger", setup.model.liger and plan.on_cuda)):
        if chosen:
            yield f"What model.{option} saves is not counted: the plan is that of a run without it."


def _time(plan: Planned, found: Estimate, asked: Planning) -> str:
    """Returns how long steps take."""
    step = f"A step computes {work(found.flops_per_step)}"
    if asked.flops_per_second is None:
        return f"{step}; flops_per_second=RATE tells the time of {_STEPS:,} steps."
    seconds = seconds_of(
        _STEPS,
        flops_per_step=found.flops_per_step,
        flops_per_second=asked.flops_per_second,
        devices=plan.spread_over,
    )
    rate = work(asked.flops_per_second)
    return f"{step}: {_STEPS:,} steps take {duration(seconds)} at {rate} a second and device."

"""Wires a run's parts to each other: models with their settings, data laid out for them, the Trainer, scoring."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from rich.console import Console
from transformers import PreTrainedModel

from forgetmenot.base_scores import keep_scores, key_of, read_scores, weights_of
from forgetmenot.cli.penalties import penalties_for
from forgetmenot.cli.setup import Setup
from forgetmenot.config.paths import cache_folder
from forgetmenot.data.examples import EncodedRun, ScoringSet, encode_run
from forgetmenot.data.mix import Mix
from forgetmenot.data.plan import Plan
from forgetmenot.datamodule import AdaptationData
from forgetmenot.generate import end_with
from forgetmenot.method.base import load_learned
from forgetmenot.method.virtual_tokens import start_from
from forgetmenot.model.ending import alike_in_frozen_head
from forgetmenot.model.load import load
from forgetmenot.model.options import prepare, use_liger_kernels
from forgetmenot.model.packing import use_packed_attention
from forgetmenot.model.quantize import scheme
from forgetmenot.model.sharding import whole_weights
from forgetmenot.module import AdaptationModule
from forgetmenot.optim import Optimization
from forgetmenot.outcome import record_scores
from forgetmenot.progress import ProgressDisplay
from forgetmenot.record import hardware, on_rank_zero
from forgetmenot.regularizer.base import TokenPenalty
from forgetmenot.result import HardwareSection, RunResult
from forgetmenot.scoring import Measured, Scoring
from forgetmenot.trainer import base_dtype, build_trainer, ctrl_c_interrupts


@dataclass(frozen=True, kw_only=True)
class BaseScores:
    """What the base scored on every test set, and the seconds that it took now."""

    tasks: Mapping[str, Measured]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AdaptedScores:
    """What the adapted model scored on every test set, and how far its weights are from the base's, over their norm.

    Tasks that are `unchanged` by construction were not run again.
    """

    tasks: Mapping[str, Measured]
    distance: float
    unchanged: frozenset[str] = frozenset()


def answers_of(tasks: Mapping[str, Measured]) -> dict[str, Sequence[str]]:
    """Returns what was answered to every test set, in file order."""
    return {name: measured.answers for name, measured in tasks.items()}


def encode(setup: Setup) -> EncodedRun:
    """Returns all rows of the run; of retained tasks those to train on only where they are replayed."""
    retained = setup.retained if setup.replay else tuple(replace(data, train=()) for data in setup.retained)
    return encode_run(
        setup.targets,
        retained,
        encoder=setup.encoder,
        embedding_rows=setup.facts.embedding_rows,
        seed=setup.settings.seed,
    )


def load_base(setup: Setup) -> PreTrainedModel:
    """Returns the base model, its weights held as the method wants them.

    So a base that is adapted in 4 bits is scored in 4 bits, too: before and after differ by what was learned alone.
    """
    dtype = base_dtype(setup.precision, freezes_base=setup.method.freezes_base)
    model = load(
        setup.model,
        config=setup.model_config,
        dtype=dtype,
        seed=setup.settings.seed,
        quantization=setup.method.quantization,
    )
    if setup.packs:
        use_packed_attention(model)
    if setup.liger:
        use_liger_kernels(model)
    if setup.chat is not None:
        end_with(model, setup.chat.end, tokenizer=setup.tokenizer)
    return model


def base_module(setup: Setup) -> AdaptationModule:
    """Returns the base alone, to be scored."""
    return AdaptationModule(load_base(setup), facts=setup.facts, tokenizer=setup.tokenizer)


def load_adapted(setup: Setup, folder: Path) -> AdaptationModule:
    """Returns the base with what a run learned into `folder`, to be scored."""
    model = load_learned(setup.method, load_base(setup), folder)
    return AdaptationModule(model, facts=setup.facts, tokenizer=setup.tokenizer)


def adapt(
    setup: Setup, rows: EncodedRun, *, result: RunResult, console: Console
) -> tuple[AdaptationModule, AdaptationData]:
    """Returns the base loaded anew with the method applied, its penalties, and the data laid out for it."""
    assert setup.lr is not None, "a method that trains has a learning rate"
    seed_everything(setup.settings.seed, verbose=False)
    model = setup.method.apply(load_base(setup))
    _tell_of_an_unlearned_end(setup, model, console=console)
    if setup.method.start_text is not None:
        start_from(model, setup.encoder.tokens(setup.method.start_text), text=setup.method.start_text)
    model.train()
    prepare(model, setup.model)
    penalties = penalties_for(setup, model, result=result, console=console)
    data = data_for(setup, rows, tests=rows.tests, virtual_tokens=setup.method.virtual_ids)
    data.comparisons = [each.comparison for each in penalties.values() if isinstance(each, TokenPenalty)]
    optimization = Optimization(
        make_optimizer=setup.make_optimizer,
        make_schedule=setup.make_schedule,
        lr=setup.lr,
        weight_decay=setup.weight_decay,
        clip_norm=setup.clip_norm,
        total_steps=setup.total_steps(data.plan.steps_per_epoch),
    )
    module = AdaptationModule(
        model, facts=setup.facts, tokenizer=setup.tokenizer, penalties=penalties, optimization=optimization
    )
    return module, data


def _tell_of_an_unlearned_end(setup: Setup, adapted: PreTrainedModel, *, console: Console) -> None:
    end = setup.encoder.end
    if others := alike_in_frozen_head(adapted, end):
        on_rank_zero(console.print)(
            f"Answers cannot learn to end: the output head of {setup.model.name} has one row for "
            f"{setup.tokenizer.convert_ids_to_tokens(end)} and {others} other tokens, and {setup.method.name} leaves "
            "it as it is; method=full trains it, on any task, and model.path=RUN goes on from there.",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip


def data_for(setup: Setup, rows: EncodedRun, *, tests: Sequence[ScoringSet], virtual_tokens: int) -> AdaptationData:
    """Returns the run's data, laid out for a model with `virtual_tokens`."""
    counts = setup.mixing.counts(rows.sizes[: len(setup.targets)])
    plan = Plan(
        lengths=rows.train.lengths + virtual_tokens,
        batch_size=setup.settings.batch_size,
        micro_batch_tokens=setup.micro_batch_tokens,
        seed=setup.settings.seed,
        group_by_length=setup.settings.group_by_length,
        packed=setup.packs,
        mix=Mix(sizes=rows.sizes, counts=counts, replayed=setup.replayed),
    )
    return AdaptationData(
        rows.train,
        validation=rows.validation,
        tests=tests,
        plan=plan,
        collator=setup.collator(virtual_tokens=virtual_tokens),
    )


def steps_per_epoch(setup: Setup, rows: EncodedRun) -> int:
    """Returns the optimizer steps of one pass over the targets' examples."""
    return data_for(setup, rows, tests=(), virtual_tokens=0).plan.steps_per_epoch


def check_interval(setup: Setup, *, epoch: int) -> None:
    """Raises ValueError where training would be validated more seldom than Lightning can, by epochs of such length."""
    interval = setup.trainer.get("val_check_interval")
    if setup.method.trains and isinstance(interval, int) and interval > epoch > 1:
        raise ValueError(f"trainer.val_check_interval must be at most the {epoch} steps of an epoch, got {interval}")


def trainer_for(
    setup: Setup,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    *,
    console: Console,
    scoring: str = "scoring the adapted model",
    epoch: int = 1,
) -> Trainer:
    """Returns the Trainer; a run that ends within its first epoch of `epoch` steps is still validated, at its end."""
    steps = min(epoch, setup.total_steps(epoch))
    return build_trainer(
        {**({"val_check_interval": steps} if steps < epoch else {}), **setup.trainer},
        precision=setup.precision,
        callbacks=[*callbacks, ProgressDisplay(console, scoring=scoring)],
        loggers=loggers,
        max_epochs=setup.settings.epochs,
        max_steps=setup.settings.max_steps,
    )


def score_base(setup: Setup, rows: EncodedRun, *, result: RunResult, console: Console) -> BaseScores:
    """Scores the pretrained model alone, under the same truncation, precision and path as the adapted one.

    What it scored before under the same settings is taken from the disk. Fills what `result` can tell so far.
    """
    scoring = Scoring(validation=rows.validation, tests=rows.tests)
    judge = trainer_for(setup, [scoring], [], console=console, scoring="scoring the base")
    result.hardware = hardware(judge.strategy.root_device, devices=judge.world_size, precision=setup.precision)
    folder, keys = cache_folder() / "scores", _keys(setup, rows, judge, hardware=result.hardware)
    known = {name: read_scores(folder, key) for name, key in keys.items()}
    found = {name: measured for name, measured in known.items() if measured is not None}
    missing = [data for data in rows.tests if data.task.name not in found]
    if missing:
        data = data_for(setup, rows, tests=missing, virtual_tokens=0)
        with ctrl_c_interrupts():
            judge.test(base_module(setup), data, verbose=False)
        for name in scoring.measured.keys() & keys.keys():
            on_rank_zero(keep_scores)(folder, keys[name], scoring.measured[name])
    tasks = {**found, **scoring.measured}
    result.reused = [f"before.{name}" for name in found]
    record_scores(result, rows.tests, before=tasks, after=None)
    return BaseScores(tasks=tasks, seconds=scoring.test_seconds)


def score_adapted(
    setup: Setup, module: AdaptationModule, data: AdaptationData, *, judge: Trainer, scoring: Scoring
) -> AdaptedScores:
    """Scores the adapted model beside its base, loaded anew."""
    start = load_base(setup)
    with whole_weights(module.model):
        distance = setup.method.distance(module.model, start)
    data.base_collator = setup.collator(virtual_tokens=0)
    beside = AdaptationModule(module.model, facts=setup.facts, tokenizer=setup.tokenizer, base=start)
    judge.test(beside, data, verbose=False)
    return AdaptedScores(tasks=dict(scoring.measured), distance=distance)


def _keys(setup: Setup, rows: EncodedRun, trainer: Trainer, *, hardware: HardwareSection) -> dict[str, str]:
    """Returns under which key the base's scores of every test set are kept; none where they are not."""
    weights = weights_of(setup.model, setup.model_config, seed=setup.settings.seed)
    if weights is None or trainer.world_size > 1:  # ranks that read at other times could find other files
        return {}
    settings = {
        "weights": weights,
        "model": {name: value for name, value in asdict(setup.model).items() if name not in ("name", "lr_scale")},
        "held_in": str(base_dtype(setup.precision, freezes_base=setup.method.freezes_base)),
        "quantization": scheme(setup.method.quantization),
        "hardware": hardware,
        "packs": setup.packs,
        "liger": setup.liger,
    }
    return {data.task.name: key_of(data, settings) for data in rows.tests}

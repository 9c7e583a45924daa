"""`train`: adapts a model and records what it gained, what that cost and what was forgotten.

python train.py method=lora data=sentiment
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.cli.penalties import check_penalties
from forgetmenot.cli.prompting import (
    drawn_shots,
    encode_shown,
    prompted_module,
    score_prompted,
    tell_of_cut_prompts,
    tests_with,
    warn_of_idle_settings,
)
from forgetmenot.cli.setup import Setup, check_trainable, set_up
from forgetmenot.cli.wiring import (
    AdaptedScores,
    BaseScores,
    adapt,
    answers_of,
    data_for,
    encode,
    score_adapted,
    score_base,
    trainer_for,
)
from forgetmenot.config.retained import expand_retained, retain_targets_of_base
from forgetmenot.config.save import save_config
from forgetmenot.cost import Cost
from forgetmenot.data.examples import EncodedRun
from forgetmenot.data.shots import write_shots
from forgetmenot.loggers import JsonlLogger, close_wandb, leave_wandb, log_outcome, open_logger, quiet_libraries
from forgetmenot.module import AdaptationModule
from forgetmenot.outcome import (
    cost_section,
    data_section,
    evaluation_cost,
    method_section,
    metrics,
    objective,
    record_drift,
    record_scores,
)
from forgetmenot.record import folder_bytes, on_rank_zero, recording, write_predictions
from forgetmenot.report.table import print_result
from forgetmenot.result import RunResult
from forgetmenot.scoring import Scoring
from forgetmenot.trainer import ctrl_c_interrupts, selection, take_best
from forgetmenot.trial import MicroBatchTrial


@dataclass(frozen=True, kw_only=True)
class _Desk:
    """Where a run notes what it comes to."""

    folder: Path
    result: RunResult
    loggers: list[Logger]
    console: Console


@dataclass(frozen=True, kw_only=True)
class _Adapted:
    """What adapting came to: scores after, the target's on validation examples, and the optimizer steps taken."""

    scores: AdaptedScores
    validation: Mapping[str, float]
    steps: int


def run(config: DictConfig) -> float | None:
    """Runs one adaptation in Hydra's output folder and returns its objective, for sweepers."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    console = Console()
    quiet_libraries()

    with recording(folder, RunResult(name=folder.name, overrides=list(hydra.overrides.task))) as result:
        config = retain_targets_of_base(expand_retained(config))
        setup = set_up(config)
        check_trainable(setup)
        check_penalties(setup)
        on_rank_zero(save_config)(config, folder, micro_batch_tokens=setup.micro_batch_tokens)
        seed_everything(setup.settings.seed, verbose=False)
        shots = drawn_shots(setup)
        rows = encode(setup)
        shown = encode_shown(setup, rows, shots=shots)
        result.seed, result.model = setup.settings.seed, setup.model_section
        result.data = data_section(setup.targets, shown, mixing=setup.mixing)

        desk = _Desk(folder=folder, result=result, loggers=_loggers(setup, folder), console=console)
        before = score_base(setup, rows, result=result, console=console)

        if setup.method.trains:
            adapted = _fit(setup, rows, before=before, config=config, desk=desk)
        else:
            adapted = _prompt(setup, shown, before=before, shots=shots, desk=desk)

        after = adapted.scores
        record_scores(result, rows.tests, before=before.tasks, after=after.tasks, unchanged=after.unchanged)
        record_drift(result, rows.tests, after=after.tasks, weights=after.distance)
        said = {"before": answers_of(before.tasks), "after": answers_of(after.tasks)}
        on_rank_zero(write_predictions)(folder, rows.tests, **said)
        on_rank_zero(log_outcome)(desk.loggers, metrics(result), step=adapted.steps, tests=rows.tests, **said)
        sync_line = close_wandb(desk.loggers)

    on_rank_zero(print_result)(result, folder=str(folder), console=console)
    if sync_line:
        on_rank_zero(console.print)(
            f"W&B kept the run offline; to upload it: {sync_line}", soft_wrap=True, markup=False
        )
    return objective(setup.objective, result=result, validation=adapted.validation)


def _fit(setup: Setup, rows: EncodedRun, *, before: BaseScores, config: DictConfig, desk: _Desk) -> _Adapted:
    """Trains, keeps what was learned and scores it; what that cost is noted on every way out."""
    result, folder, console = desk.result, desk.folder, desk.console
    module, data = adapt(setup, rows, result=result, console=console)
    result.method = method_section(setup.method.name, module.model, lr=setup.lr, parameters=setup.facts.parameters)
    cost, scoring = Cost(), Scoring(validation=rows.validation, tests=rows.tests)
    chosen = [*selection(setup.settings, setup.monitor, folder, mode=setup.direction), *_trial(setup)]
    epoch = data.plan.steps_per_epoch
    trainer = trainer_for(setup, [cost, scoring, *chosen], desk.loggers, console=console, epoch=epoch)
    try:
        with ctrl_c_interrupts():
            trainer.fit(module, data)
            on_rank_zero(save_config)(config, folder, micro_batch_tokens=data.plan.micro_batch_tokens)
            judge = trainer_for(setup, [scoring], [], console=console)  # no loggers: these scores are of no step
            validation = judge.validate(module, data, verbose=False)[0]
            if take_best(trainer, module, last=validation):
                validation = judge.validate(module, data, verbose=False)[0]
            result.method["saved_bytes"] = _saved(setup, module, folder)
            scores = score_adapted(setup, module, data, judge=judge, scoring=scoring)
    finally:
        scored_in = before.seconds + scoring.test_seconds
        virtual_tokens = setup.method.virtual_tokens
        result.cost = cost_section(cost, evaluate_seconds=scored_in, data=data, virtual_tokens=virtual_tokens)
        assert result.data is not None, "the run has told its data"
        result.data["replayed_examples"] = cost.replayed_examples
    return _Adapted(scores=scores, validation=validation, steps=trainer.global_step)


def _prompt(setup: Setup, shown: EncodedRun, *, before: BaseScores, shots: Mapping[str, str], desk: _Desk) -> _Adapted:
    """Keeps the shots as text and scores the base with them before each prompt of the target."""
    warn_of_idle_settings(setup)
    result, learned = desk.result, desk.folder / setup.method.folder
    module = prompted_module(setup)
    result.method = method_section(setup.method.name, module.model, lr=setup.lr, parameters=setup.facts.parameters)
    on_rank_zero(setup.method.save)(module.model, learned)
    for task, text in shots.items():
        on_rank_zero(write_shots)(learned, text, task=task)
    result.method["saved_bytes"] = sum(len(text.encode()) for text in shots.values())
    tests = tests_with(shots, shown)
    on_rank_zero(tell_of_cut_prompts)(setup, tests, console=desk.console)

    scoring = Scoring(validation=shown.validation, tests=shown.tests)
    data = data_for(setup, shown, tests=tests, virtual_tokens=0)
    judge = trainer_for(setup, [scoring], desk.loggers, console=desk.console, scoring="scoring the base with shots")
    try:
        with ctrl_c_interrupts():
            validation = judge.validate(module, data, verbose=False)[0]
            scores = score_prompted(module, data, before=before.tasks, judge=judge, scoring=scoring)
    finally:
        scored_in = before.seconds + scoring.test_seconds
        result.cost = evaluation_cost(shown.tests, seconds=scored_in, virtual_tokens=0)
    return _Adapted(scores=scores, validation=validation, steps=0)


def _trial(setup: Setup) -> list[Callback]:
    """Returns what finds micro_batch_tokens by trial, where it was not given."""
    return [MicroBatchTrial()] if setup.settings.micro_batch_tokens == "auto" else []


def _saved(setup: Setup, module: AdaptationModule, folder: Path) -> int:
    """Keeps what was learned, before anything else can go wrong; returns its size in bytes."""
    learned = folder / setup.method.folder
    on_rank_zero(setup.method.save)(module.model, learned)
    size = folder_bytes(learned)
    on_rank_zero(setup.tokenizer.save_pretrained)(learned)
    return size


def _loggers(setup: Setup, folder: Path) -> list[Logger]:
    """Returns metrics.jsonl's logger always, and the one that was chosen."""
    leave_wandb()
    own = JsonlLogger(folder / "metrics.jsonl")
    chosen = None if setup.make_logger is None else open_logger(setup.make_logger, folder)
    return [own] if chosen is None else [own, chosen]

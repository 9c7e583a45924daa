"""`train`: adapts a model and records what it gained, what that cost and what was forgotten.

python train.py method=lora data=sentiment
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.cli.setup import Setup, check_trainable, set_up
from forgetmenot.cli.wiring import adapt, answers_of, encode, score_adapted, score_base, trainer_for
from forgetmenot.config.retained import expand_retained
from forgetmenot.config.save import save_config
from forgetmenot.cost import Cost
from forgetmenot.loggers import JsonlLogger, close_wandb, leave_wandb, log_outcome, open_logger, quiet_libraries
from forgetmenot.module import AdaptationModule
from forgetmenot.outcome import (
    cost_section,
    data_section,
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


def run(config: DictConfig) -> float | None:
    """Runs one adaptation in Hydra's output folder and returns its objective, for sweepers."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    console = Console()
    quiet_libraries()

    with recording(folder, RunResult(name=folder.name, overrides=list(hydra.overrides.task))) as result:
        config = expand_retained(config)
        setup = set_up(config)
        check_trainable(setup)
        on_rank_zero(save_config)(config, folder, micro_batch_tokens=setup.micro_batch_tokens)
        seed_everything(setup.settings.seed, verbose=False)
        rows = encode(setup)
        result.seed, result.model = setup.settings.seed, setup.model_section
        result.data = data_section(setup.target, rows)

        loggers = _loggers(setup, folder)
        before = score_base(setup, rows, result=result, console=console)

        module, data = adapt(setup, rows)
        result.method = method_section(setup.method.name, module.model, lr=setup.lr, parameters=setup.facts.parameters)
        cost, scoring = Cost(), Scoring(validation=rows.validation, tests=rows.tests)
        chosen = [*selection(setup.settings, setup.monitor, folder), *_trial(setup)]
        epoch = data.plan.steps_per_epoch
        trainer = trainer_for(setup, [cost, scoring, *chosen], loggers, console=console, epoch=epoch)
        try:
            with ctrl_c_interrupts():
                trainer.fit(module, data)
                on_rank_zero(save_config)(config, folder, micro_batch_tokens=data.plan.micro_batch_tokens)
                judge = trainer_for(setup, [scoring], [], console=console)  # no loggers: these scores are of no step
                validation = judge.validate(module, data, verbose=False)[0]
                if take_best(trainer, module, last=validation):
                    validation = judge.validate(module, data, verbose=False)[0]
                result.method["saved_bytes"] = _saved(setup, module, folder)
                after = score_adapted(setup, module, data, judge=judge, scoring=scoring)
        finally:
            scored_in = before.seconds + scoring.test_seconds
            virtual_tokens = setup.method.virtual_tokens
            result.cost = cost_section(cost, evaluate_seconds=scored_in, data=data, virtual_tokens=virtual_tokens)

        record_scores(result, rows.tests, before=before.tasks, after=after.tasks)
        record_drift(result, rows.tests, after=after.tasks, weights=after.distance)
        said = {"before": answers_of(before.tasks), "after": answers_of(after.tasks)}
        on_rank_zero(write_predictions)(folder, rows.tests, **said)
        on_rank_zero(log_outcome)(loggers, metrics(result), step=trainer.global_step, tests=rows.tests, **said)
        sync_line = close_wandb(loggers)

    if trainer.is_global_zero:
        print_result(result, folder=str(folder), console=console)
        if sync_line:
            console.print(f"W&B kept the run offline; to upload it: {sync_line}", soft_wrap=True, markup=False)
    return objective(setup.objective, result=result, validation=validation)


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

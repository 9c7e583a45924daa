"""`train`: adapts a model and records what it gained, what that cost and what was forgotten.

python train.py method=lora data=sentiment
"""

import time
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.checkpoint import CHECKPOINTS, remove_all
from forgetmenot.cli.desk import Adapted, Desk
from forgetmenot.cli.fitting import fit
from forgetmenot.cli.objective import objective_section
from forgetmenot.cli.penalties import check_penalties
from forgetmenot.cli.prompting import drawn_shots, encode_shown, prompt
from forgetmenot.cli.resuming import as_it_was_cut, check_goes_on, go_on, restore_record
from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.cli.trainable import check_trainable
from forgetmenot.cli.wiring import BaseScores, answers_of, check_interval, encode, score_base, steps_per_epoch
from forgetmenot.config.retained import expand_retained, retain_targets_of_base
from forgetmenot.config.save import save_config
from forgetmenot.config.words import pasted
from forgetmenot.data.examples import EncodedRun
from forgetmenot.loggers import METRICS, JsonlLogger, close_wandb, log_outcome, open_logger, quiet_libraries
from forgetmenot.lost_ranks import lost_ranks_told, resuming
from forgetmenot.outcome import data_section, metrics, record_drift, record_scores
from forgetmenot.record import on_rank_zero, record_interrupted, recording, write_predictions
from forgetmenot.report.table import print_result
from forgetmenot.result import RunResult
from forgetmenot.signals import ending_on_signals


def run(config: DictConfig) -> float | None:
    """Runs one adaptation in Hydra's output folder and returns its objective, for sweepers."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    console = Console()
    quiet_libraries()

    words, goes_on = list(hydra.overrides.task), config.get("resume") is not None
    result = RunResult(name=folder.name, overrides=words)
    way_on = partial(resuming, folder / CHECKPOINTS, setting=pasted("resume", str(folder)))
    interrupted = partial(record_interrupted, folder, result, since=time.perf_counter(), goes_on=goes_on)
    with (
        ending_on_signals() as ending,
        recording(folder, result, goes_on=goes_on),
        lost_ranks_told(way_on, interrupted=interrupted, heard=lambda: ending.signal is not None),
    ):
        config, last = go_on(config, folder, words=words, console=console)
        config = retain_targets_of_base(expand_retained(config))
        setup = as_it_was_cut(set_up(config), last, words=words)
        check_trainable(setup)
        check_penalties(setup)
        keep_settings = partial(on_rank_zero(save_config), config, folder, micro_batch_tokens=setup.micro_batch_tokens)
        if not goes_on:
            keep_settings()
        seed_everything(setup.settings.seed, verbose=False)
        shots = drawn_shots(setup)
        rows = encode(setup)
        shown = encode_shown(setup, rows, shots=shots)
        result.seed, result.model = setup.settings.seed, setup.model_section
        result.data = data_section(setup.targets, shown, mixing=setup.mixing)

        epoch = steps_per_epoch(setup, rows)
        check_interval(setup, epoch=epoch)
        check_goes_on(last, folder, setup=setup, epoch=epoch)
        loggers = _loggers(setup, folder)
        if goes_on:  # nothing that it left was touched before
            restore_record(last, folder, result=result, console=console)
            keep_settings()
        desk = Desk(folder=folder, result=result, loggers=loggers, console=console, ending=ending, last=last)
        before = score_base(setup, rows, result=result, console=console)

        if setup.method.trains:
            adapted = fit(setup, rows, before=before, config=config, desk=desk)
        else:
            adapted = prompt(setup, shown, before=before, shots=shots, desk=desk)

        _record(result, rows, before=before, adapted=adapted)
        result.objective = objective_section(setup, result=result, validation=adapted.validation)
        said = {"before": answers_of(before.tasks), "after": answers_of(adapted.scores.tasks)}
        on_rank_zero(write_predictions)(folder, rows.tests, **said)
        on_rank_zero(log_outcome)(desk.loggers, metrics(result), step=adapted.steps, tests=rows.tests, **said)
        sync_line = close_wandb(desk.loggers)

    on_rank_zero(remove_all)(folder / CHECKPOINTS)
    on_rank_zero(print_result)(result, folder=str(folder), console=console)
    if sync_line:
        on_rank_zero(console.print)(
            f"W&B kept the run offline; to upload it: {sync_line}", soft_wrap=True, markup=False
        )
    return result.objective["value"]


def _record(result: RunResult, rows: EncodedRun, *, before: BaseScores, adapted: Adapted) -> None:
    """Puts into `result` what the run came to: scores, gain, forgetting and drift."""
    after = adapted.scores
    record_scores(result, rows.tests, before=before.tasks, after=after.tasks, unchanged=after.unchanged)
    record_drift(result, rows.tests, after=after.tasks, weights=after.distance)


def _loggers(setup: Setup, folder: Path) -> list[Logger]:
    """Returns metrics.jsonl's logger always, and the one that was chosen."""
    own = JsonlLogger(folder / METRICS)
    chosen = None if setup.make_logger is None else open_logger(setup.make_logger, folder)
    return [own] if chosen is None else [own, chosen]

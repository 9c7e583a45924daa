"""`evaluate`: scores a finished run beside its base, or any model alone, on any tasks.

forgetmenot evaluate run=outputs/runs/DATE/RUN data=party num_shots=3
"""

import time
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import seed_everything
from omegaconf import DictConfig
from rich.console import Console

from forgetmenot.cli.prompting import encode_shown, kept_shots, score_prompted, tell_of_cut_prompts, tests_with
from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.cli.wiring import (
    answers_of,
    data_for,
    encode,
    load_adapted,
    score_adapted,
    score_base,
    trainer_for,
)
from forgetmenot.config.build import build
from forgetmenot.config.retained import expand_retained
from forgetmenot.config.save import save_evaluation_config
from forgetmenot.config.settings import Evaluation
from forgetmenot.config.source import asking_of, read_source
from forgetmenot.loggers import quiet_libraries
from forgetmenot.lost_ranks import lost_ranks_told
from forgetmenot.outcome import data_section, evaluation_cost, record_drift, record_scores
from forgetmenot.record import on_rank_zero, record_interrupted, recording, write_predictions
from forgetmenot.report.table import print_evaluation
from forgetmenot.result import RunResult
from forgetmenot.scoring import Scoring
from forgetmenot.trainer import ctrl_c_interrupts

_GROUPS = ("data", "trainer")
_NO_KEYS = (*_GROUPS, "model")  # of the root


def run(config: DictConfig) -> None:
    """Scores one model in Hydra's output folder."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    console = Console()
    quiet_libraries()

    result = RunResult(name=folder.name, overrides=list(hydra.overrides.task))
    interrupted = partial(record_interrupted, folder, result, since=time.perf_counter())
    begun_anew = lost_ranks_told(lambda: "the same command begins anew", interrupted=interrupted)
    with recording(folder, result), begun_anew:
        setup, learned = _setup(config)
        on_rank_zero(save_evaluation_config)(config, folder)
        seed_everything(setup.settings.seed, verbose=False)
        rows = encode(setup)
        shots = {} if learned is None else kept_shots(setup, learned)
        shown = encode_shown(setup, rows, shots=shots)
        result.seed, result.model = setup.settings.seed, setup.model_section
        result.data = data_section(setup.targets, shown, mixing=setup.mixing)
        on_rank_zero(tell_of_cut_prompts)(setup, shown.tests, console=console)

        before = score_base(setup, rows, result=result, console=console)

        after, seconds = None, before.seconds
        if learned is not None:
            module = load_adapted(setup, learned)
            result.method = RunResult.read(learned.parent).method  # what was trained, which loading does not tell
            scoring = Scoring(validation=shown.validation, tests=shown.tests)
            judge = trainer_for(setup, [scoring], [], console=console)
            tests = rows.tests if setup.method.trains else tests_with(shots, shown)
            data = data_for(setup, shown, tests=tests, virtual_tokens=setup.method.virtual_ids)
            with ctrl_c_interrupts():
                if setup.method.trains:
                    after = score_adapted(setup, module, data, judge=judge, scoring=scoring)
                else:
                    after = score_prompted(module, data, before=before.tasks, judge=judge, scoring=scoring)
            seconds += scoring.test_seconds
            record_scores(result, rows.tests, before=before.tasks, after=after.tasks, unchanged=after.unchanged)
            record_drift(result, rows.tests, after=after.tasks, weights=after.distance)

        result.cost = evaluation_cost(shown.tests, seconds=seconds, virtual_tokens=setup.method.virtual_tokens)
        said = None if after is None else answers_of(after.tasks)
        on_rank_zero(write_predictions)(folder, rows.tests, before=answers_of(before.tasks), after=said)

    on_rank_zero(print_evaluation)(result, folder=str(folder), console=console)


def _setup(config: DictConfig) -> tuple[Setup, Path | None]:
    """Returns the parts of the run that is evaluated, with this command's tasks, and the folder of what it learned."""
    asked = build(DictConfig({key: config[key] for key in config if key not in _NO_KEYS}), Evaluation, key="")
    changes = {name: config.get(name) for name in (*_GROUPS, "max_length", "precision")}
    source = read_source(asked.run, {**changes, "plugins": list(asked.plugins) or None}, asking=asking_of(config))
    setup = set_up(expand_retained(source.config)).for_scoring(num_shots=asked.num_shots, seed=asked.seed)
    if source.folder is None:
        return setup, None
    learned = source.folder / setup.method.folder
    if not learned.is_dir():
        raise ValueError(f"run must be a run that ended well, got {asked.run} without {setup.method.folder}/")
    return setup, learned

"""Prompting instead of training: the base, with shots before each prompt of the targets, is what a run came to."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer
from rich.console import Console

from forgetmenot.cli.desk import Adapted, Desk
from forgetmenot.cli.setup import Setup
from forgetmenot.cli.wiring import AdaptedScores, BaseScores, data_for, load_base, trainer_for
from forgetmenot.data.examples import EncodedRun, ScoringSet, encode_run, scoring_set
from forgetmenot.data.shots import draw_shots, put_before, read_shots, write_shots
from forgetmenot.datamodule import AdaptationData
from forgetmenot.module import AdaptationModule
from forgetmenot.outcome import evaluation_cost, method_section
from forgetmenot.record import on_rank_zero
from forgetmenot.scoring import Measured, Scoring
from forgetmenot.trainer import ctrl_c_interrupts


def prompt(setup: Setup, shown: EncodedRun, *, before: BaseScores, shots: Mapping[str, str], desk: Desk) -> Adapted:
    """Keeps the shots as text and scores the base with them before each prompt of the target."""
    warn_of_idle_settings(setup)
    result, learned = desk.result, desk.folder / setup.method.folder
    module = _module(setup)
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
    return Adapted(scores=scores, validation=validation, steps=0)


def drawn_shots(setup: Setup) -> dict[str, str]:
    """Returns what stands before the prompts of each target; nothing for a method without shots."""
    number, seed = setup.method.shots, setup.settings.seed
    return {data.task.name: draw_shots(data, number, seed=seed, key="method.num_shots") for data in setup.targets}


def kept_shots(setup: Setup, folder: Path) -> dict[str, str]:
    """Returns what a run put before the prompts of each target, as it wrote it into `folder`."""
    return {data.task.name: read_shots(folder, task=data.task.name) for data in setup.targets}


def tests_with(shots: Mapping[str, str], shown: EncodedRun) -> tuple[ScoringSet, ...]:
    """Returns the test sets that shots stand before: those that answer otherwise than before."""
    return tuple(data for data in shown.tests if shots.get(data.task.name))


def encode_shown(setup: Setup, rows: EncodedRun, *, shots: Mapping[str, str]) -> EncodedRun:
    """Returns the run's rows with the shots of each target before its prompts; without shots the rows themselves.

    Raises ValueError where max_length cuts every prompt, so that the shots would never stand there whole.
    """
    if not any(shots.values()):
        return rows
    targets = [replace(put_before(data, shots[data.task.name]), train=()) for data in setup.targets]
    shown = encode_run(
        targets, (), encoder=setup.encoder, embedding_rows=setup.facts.embedding_rows, seed=setup.settings.seed
    )
    for test in shown.tests:
        if test.rows.truncated == len(test.examples):
            raise ValueError(
                f"max_length must be at least {needed_length(setup, test)} to hold the prompts of {test.task.name} "
                f"with the shots before them, got {setup.settings.max_length}, which cuts every one of them; fewer "
                "method.num_shots need less"
            )
    return replace(rows, validation=shown.validation, tests=(*shown.tests, *rows.tests[len(targets) :]))


def needed_length(setup: Setup, data: ScoringSet) -> int:
    """Returns the max_length at which no prompt of `data` is cut."""
    whole = scoring_set(data.task, data.examples, encoder=replace(setup.encoder, max_length=2**30, cache=None))
    answers = data.task.max_new_tokens if data.task.answers else 0
    behind = np.maximum(whole.rows.rows.completion_lengths, answers)
    return int((whole.rows.rows.prompt_lengths + behind).max()) + setup.method.virtual_tokens


def tell_of_cut_prompts(setup: Setup, tests: Sequence[ScoringSet], *, console: Console) -> None:
    """Says which tasks have prompts that do not fit: shots may be why."""
    for data in tests:
        if data.task.answers and data.rows.truncated:
            told = f"{data.rows.truncated} of {len(data.examples)} prompts of {data.task.name}"
            limit = f"max_length={setup.settings.max_length}"
            console.print(
                f"{told} are longer than {limit} allows and were cut; {needed_length(setup, data)} holds them whole",
                soft_wrap=True, markup=False,
            )  # fmt: skip


def warn_of_idle_settings(setup: Setup) -> None:
    """Warns once, whatever the number of ranks, of all settings of training that a method without any was given."""
    settings = setup.settings
    chosen = {
        "select": settings.select != "last",
        "patience": settings.patience is not None,
        "max_steps": settings.max_steps is not None,
        **{f"regularizer.{regularizer.name}": True for regularizer in setup.regularizers},
        "replay": setup.replay is not None,
    }
    idle = ", ".join(name for name, given in chosen.items() if given)
    if idle:
        on_rank_zero(warnings.warn)(
            f"settings without effect, since {setup.method.name} trains nothing: {idle}; method=lora takes them",
            stacklevel=3,
        )


def _module(setup: Setup) -> AdaptationModule:
    """Returns the base as the method leaves it, to be scored."""
    return AdaptationModule(setup.method.apply(load_base(setup)), facts=setup.facts, tokenizer=setup.tokenizer)


def score_prompted(
    module: AdaptationModule,
    data: AdaptationData,
    *,
    before: Mapping[str, Measured],
    judge: Trainer,
    scoring: Scoring,
) -> AdaptedScores:
    """Scores the test sets of `data`, which are those with shots; every other task answers as `before`."""
    if data.tests:
        judge.test(module, data, verbose=False)
    unchanged = {name: measured.unchanged() for name, measured in before.items() if name not in scoring.measured}
    return AdaptedScores(tasks={**unchanged, **scoring.measured}, distance=0.0, unchanged=frozenset(unchanged))

"""Prompting instead of training: the base, with shots before each prompt of the target, is what a run came to."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from lightning.pytorch import Trainer
from rich.console import Console

from forgetmenot.cli.setup import Setup
from forgetmenot.cli.wiring import AdaptedScores, load_base
from forgetmenot.data.examples import EncodedRun, ScoringSet, encode_run, scoring_set
from forgetmenot.data.shots import put_before
from forgetmenot.datamodule import AdaptationData
from forgetmenot.module import AdaptationModule
from forgetmenot.scoring import Measured, Scoring


def encode_shown(setup: Setup, rows: EncodedRun, *, shots: str) -> EncodedRun:
    """Returns the run's rows with `shots` before each prompt of the target; without shots the rows themselves.

    Raises ValueError where max_length cuts every prompt, so that the shots would never stand there whole.
    """
    if not shots:
        return rows
    target = replace(put_before(setup.target, shots), train=())
    shown = encode_run(
        target, (), encoder=setup.encoder, embedding_rows=setup.facts.embedding_rows, seed=setup.settings.seed
    )
    test = shown.tests[0]
    if test.rows.truncated == len(test.examples):
        raise ValueError(
            f"max_length must be at least {needed_length(setup, test)} to hold the prompts of {test.task.name} with "
            f"the shots before them, got {setup.settings.max_length}, which cuts every one of them; fewer "
            "method.num_shots need less"
        )
    return replace(rows, validation=shown.validation, tests=(test, *rows.tests[1:]))


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
    """Warns once of all settings of training that were chosen for a method that trains nothing."""
    settings = setup.settings
    chosen = {
        "select": settings.select != "last",
        "patience": settings.patience is not None,
        "regularizer": bool(setup.regularizers),
    }
    idle = ", ".join(name for name, given in chosen.items() if given)
    if idle:
        warnings.warn(f"settings without effect, since {setup.method.name} trains nothing: {idle}", stacklevel=2)


def prompted_module(setup: Setup) -> AdaptationModule:
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

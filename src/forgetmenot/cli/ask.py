"""`ask`: what the base and the tuned model answer to a prompt, side by side.

forgetmenot ask run=outputs/runs/DATE/RUN prompt="Alba ate it. Who is named here?"
"""

import io
from dataclasses import replace

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forgetmenot.cli.checks import shortest_row
from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.cli.wiring import base_module, data_for, load_adapted, trainer_for
from forgetmenot.config.build import build
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.retained import expand_retained
from forgetmenot.config.settings import Question
from forgetmenot.config.source import asking_of, read_source
from forgetmenot.data.examples import EncodedRun, ScoringSet, no_examples, scoring_set
from forgetmenot.data.mix import Mixing
from forgetmenot.data.shots import read_shots
from forgetmenot.data.types import Example
from forgetmenot.loggers import quiet_libraries
from forgetmenot.model.facts import context_of
from forgetmenot.model.load import Model, read_config
from forgetmenot.module import AdaptationModule
from forgetmenot.scoring import Scoring

_NEW_TOKENS = 32  # of an answer, where no run says how long one may be
_ONE_PROCESS = {"devices": 1, "num_nodes": 1, "strategy": "auto"}


def run(config: DictConfig) -> None:
    """Prints the answers."""
    quiet_libraries()
    question = build(DictConfig({key: config[key] for key in config if key != "model"}), Question, key="")
    source = read_source(question.run, {}, asking=asking_of(config))
    source.config.trainer.update(_ONE_PROCESS)
    source.config.data.retained = []
    if source.folder is None:
        source.config.max_length = _fitting(source.config)
    setup = set_up(expand_retained(source.config), read=no_examples)
    setup = replace(setup, targets=setup.targets[:1], mixing=Mixing.of_one(setup.mixing.name), replay=None)
    default = setup.target.task.max_new_tokens if source.folder else _NEW_TOKENS
    asked = _asked(setup, question.prompt, max_new_tokens=question.max_new_tokens or default)

    table = Table("model", "answer")
    table.add_row(setup.model.name, escape(_answer(setup, base_module(setup), asked, virtual_tokens=0)))
    if source.folder is not None:
        learned = source.folder / setup.method.folder
        shots = read_shots(learned, task=setup.target.task.name)
        shown = _asked(setup, shots + question.prompt, max_new_tokens=asked.task.max_new_tokens) if shots else asked
        said = _answer(setup, load_adapted(setup, learned), shown, virtual_tokens=setup.method.virtual_ids)
        table.add_row(f"{setup.method.name} on {setup.mixing.name}", escape(said))
    Console().print(table)


def _fitting(config: DictConfig) -> int:
    """Returns `max_length`, or the context of a plain model that reads less."""
    context = context_of(read_config(build(config.model, Model, key="model")))
    return int(config.max_length if context is None else min(config.max_length, context))


def _asked(setup: Setup, prompt: str, *, max_new_tokens: int) -> ScoringSet:
    """Returns the prompt as one example, laid out as the run's own were; nothing of it is kept on disk.

    Raises ConfigError where it does not fit beside its answer: one that is cut would be another question.
    """
    task = replace(
        setup.target.task, prompt="prompt", prompts=(), metric="accuracy", choices=(), max_new_tokens=max_new_tokens
    )
    max_length = setup.settings.max_length
    most = max_length - shortest_row(setup.method, setup.chat)
    if max_new_tokens > most:
        raise ConfigError(f"max_new_tokens must be at most {most} within max_length={max_length}, got {max_new_tokens}")
    example = Example(prompt=prompt + task.separator, completion=" ", references=("",))
    asked = scoring_set(task, [example], encoder=replace(setup.encoder, cache=None))
    if asked.rows.truncated:
        raise ConfigError(
            f"prompt must fit into max_length={max_length} with {max_new_tokens} new tokens, got a "
            "longer one; a smaller max_new_tokens leaves it more room"
        )
    return asked


def _answer(setup: Setup, module: AdaptationModule, asked: ScoringSet, *, virtual_tokens: int) -> str:
    """Returns what a model answers, under the same path as in a run."""
    rows = EncodedRun(train=asked.rows, sizes=(1,), validation=(asked,), tests=(asked,))
    scoring = Scoring(validation=rows.validation, tests=rows.tests)
    judge = trainer_for(setup, [scoring], [], console=Console(file=io.StringIO()))
    judge.test(module, data_for(setup, rows, tests=rows.tests, virtual_tokens=virtual_tokens), verbose=False)
    return scoring.measured[asked.task.name].answers[0]

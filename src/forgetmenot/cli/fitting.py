"""Training: the base with the method applied is fitted, kept and scored."""

import shutil
from pathlib import Path

from lightning.pytorch import Callback
from omegaconf import DictConfig
from transformers import PreTrainedModel

from forgetmenot.checkpoint import CHECKPOINTS
from forgetmenot.checkpointing import Checkpointing, restore_best
from forgetmenot.cli.desk import Adapted, Desk
from forgetmenot.cli.resuming import told_at_checkpoints
from forgetmenot.cli.setup import Setup
from forgetmenot.cli.wiring import BaseScores, adapt, score_adapted, trainer_for
from forgetmenot.config.save import save_config
from forgetmenot.cost import Cost
from forgetmenot.data.examples import EncodedRun
from forgetmenot.datamodule import AdaptationData
from forgetmenot.durable import whole_folder
from forgetmenot.model.sharding import whole_weights
from forgetmenot.module import AdaptationModule
from forgetmenot.movement import Movement
from forgetmenot.outcome import cost_section, method_section
from forgetmenot.record import folder_bytes, on_rank_zero
from forgetmenot.scoring import Scoring
from forgetmenot.trainer import ctrl_c_interrupts, selection, take_best
from forgetmenot.trial import MicroBatchTrial


def fit(setup: Setup, rows: EncodedRun, *, before: BaseScores, config: DictConfig, desk: Desk) -> Adapted:
    """Trains, keeps what was learned and scores it; what that cost is noted on every way out."""
    result, folder, console = desk.result, desk.folder, desk.console
    module, data = adapt(setup, rows, result=result, console=console)
    result.method = method_section(setup.method.name, module.model, lr=setup.lr, parameters=setup.facts.parameters)
    cost, scoring = Cost(), Scoring(validation=rows.validation, tests=rows.tests)
    chosen = [*selection(setup.settings, setup.monitor, folder, mode=setup.direction), *_trial(setup)]
    epoch = data.plan.steps_per_epoch
    movement = Movement(console)
    keeping = _keeping(setup, data, config=config, desk=desk)
    trainer = trainer_for(
        setup, [keeping, cost, scoring, movement, *chosen], desk.loggers, console=console, epoch=epoch
    )
    last = desk.last
    if last is not None:
        data.first_step = last.step
        on_rank_zero(restore_best)(last)
    try:
        with ctrl_c_interrupts():
            trainer.fit(module, data, ckpt_path=None if last is None else str(last.state), weights_only=True)
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
    return Adapted(scores=scores, validation=validation, steps=trainer.global_step)


def _keeping(setup: Setup, data: AdaptationData, *, config: DictConfig, desk: Desk) -> Checkpointing:
    """Returns what keeps the run's state, so that it can go on."""
    settings, folder = setup.settings, desk.folder
    return Checkpointing(
        folder / CHECKPOINTS,
        every_steps=settings.checkpoint_steps,
        every_minutes=settings.checkpoint_minutes,
        facts=told_at_checkpoints(setup, data, config=config, desk=desk),
        ending=desk.ending,
    )


def _trial(setup: Setup) -> list[Callback]:
    """Returns what finds micro_batch_tokens by trial, where it was not given.

    Where weights are shared out, ranks cannot try each alone: the figure that the machine's memory gives stands.
    """
    given = setup.settings.micro_batch_tokens != "auto"
    return [] if given or setup.shares_weights else [MicroBatchTrial()]


def _saved(setup: Setup, module: AdaptationModule, folder: Path) -> int | None:
    """Keeps what was learned, before anything else can go wrong; returns its size in bytes, on the rank that writes."""
    with whole_weights(module.model):
        return on_rank_zero(_write)(setup, module.model, folder / setup.method.folder)


def _write(setup: Setup, model: PreTrainedModel, learned: Path) -> int:
    ended_early = (learned, *learned.parent.glob(f".{learned.name}.*"))  # while it was written, or scored
    for left in ended_early:
        shutil.rmtree(left, ignore_errors=True)
    with whole_folder(learned) as beside:
        setup.method.save(model, beside)
        size = folder_bytes(beside)
        setup.tokenizer.save_pretrained(beside)
    return size

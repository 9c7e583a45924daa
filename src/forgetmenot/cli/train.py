"""`train`: adapts a model and records what it gained, what that cost and what was forgotten.

python train.py method=lora data=sentiment
"""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from rich.console import Console
from transformers import PreTrainedModel

from forgetmenot.callbacks import Cost, Scoring
from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.config.retained import expand_retained
from forgetmenot.config.save import save_config
from forgetmenot.data.examples import EncodedRun, encode_run
from forgetmenot.data.plan import Plan
from forgetmenot.datamodule import AdaptationData
from forgetmenot.loggers import JsonlLogger, close_wandb, leave_wandb, open_logger, quiet_libraries
from forgetmenot.model.load import load
from forgetmenot.model.options import prepare, use_liger_kernels
from forgetmenot.model.packing import use_packed_attention
from forgetmenot.module import AdaptationModule, Optimization
from forgetmenot.outcome import Measured, cost_section, data_section, method_section, metrics, objective, record_scores
from forgetmenot.progress import ProgressDisplay
from forgetmenot.record import folder_bytes, hardware, on_rank_zero, recording, write_predictions
from forgetmenot.report.table import print_result
from forgetmenot.result import RunResult
from forgetmenot.trainer import base_dtype, build_trainer, ctrl_c_interrupts, selection, take_best
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
        on_rank_zero(save_config)(config, folder, micro_batch_tokens=setup.micro_batch_tokens)
        seed_everything(setup.settings.seed, verbose=False)
        encoded = _encoded(setup)
        result.seed, result.model = setup.settings.seed, setup.model_section
        result.data = data_section(setup.target, encoded)

        loggers = _loggers(setup, folder)
        before = _score_base(setup, encoded, result=result, console=console)
        record_scores(result, encoded.tests, before=before, after=None)

        module, data = _adapted(setup, encoded)
        result.method = method_section(setup.method.name, module.model, lr=setup.lr, parameters=setup.facts.parameters)
        cost, scoring = Cost(), Scoring(validation=encoded.validation, tests=encoded.tests)
        chosen = [*selection(setup.settings, setup.monitor, folder), *_trial(setup)]
        trainer = _trainer(setup, [cost, scoring, *chosen], loggers, console=console, epoch=data.plan.steps_per_epoch)
        try:
            with ctrl_c_interrupts():
                trainer.fit(module, data)
                on_rank_zero(save_config)(config, folder, micro_batch_tokens=data.plan.micro_batch_tokens)
                judge = _trainer(setup, [scoring], [], console=console)  # without loggers: these scores are of no step
                validation = judge.validate(module, data, verbose=False)[0]
                if take_best(trainer, module, last=validation):
                    validation = judge.validate(module, data, verbose=False)[0]
                judge.test(module, data, verbose=False)
        finally:
            result.cost = cost_section(
                cost,
                evaluate_seconds=before.seconds + scoring.test_seconds,
                data=data,
                virtual_tokens=setup.method.virtual_tokens,
            )
        after = Measured.of(scoring)

        learned = folder / setup.method.folder
        on_rank_zero(setup.method.save)(module.model, learned)
        result.method["saved_bytes"] = folder_bytes(learned)
        on_rank_zero(setup.tokenizer.save_pretrained)(learned)
        on_rank_zero(write_predictions)(folder, encoded.tests, before=before.answers, after=after.answers)
        record_scores(result, encoded.tests, before=before, after=after)
        for logger in loggers:
            logger.log_metrics(metrics(result), step=trainer.global_step)
            logger.save()
        sync_line = close_wandb(loggers)

    if trainer.is_global_zero:
        print_result(result, folder=str(folder), console=console)
        if sync_line:
            console.print(f"W&B kept the run offline; to upload it: {sync_line}", soft_wrap=True, markup=False)
    return objective(setup.objective, result=result, validation=validation)


def _trial(setup: Setup) -> list[Callback]:
    """Returns what finds micro_batch_tokens by trial, where it was not given."""
    return [MicroBatchTrial()] if setup.settings.micro_batch_tokens == "auto" else []


def _encoded(setup: Setup) -> EncodedRun:
    return encode_run(
        setup.target,
        setup.retained,
        encoder=setup.encoder,
        embedding_rows=setup.facts.embedding_rows,
        seed=setup.settings.seed,
    )


def _score_base(setup: Setup, encoded: EncodedRun, *, result: RunResult, console: Console) -> Measured:
    """Scores the pretrained model alone, under the same truncation, precision and path as the adapted one."""
    scoring = Scoring(validation=encoded.validation, tests=encoded.tests)
    module = AdaptationModule(_base(setup), facts=setup.facts, tokenizer=setup.tokenizer)
    data = _data(setup, encoded, virtual_tokens=0)
    trainer = _trainer(setup, [scoring], [], console=console, scoring="scoring the base")
    result.hardware = hardware(trainer.strategy.root_device, devices=trainer.world_size, precision=setup.precision)
    with ctrl_c_interrupts():
        trainer.test(module, data, verbose=False)
    return Measured.of(scoring)


def _adapted(setup: Setup, encoded: EncodedRun) -> tuple[AdaptationModule, AdaptationData]:
    """Returns the base loaded anew with the method applied, and the data laid out for it."""
    seed_everything(setup.settings.seed, verbose=False)
    model = setup.method.apply(_base(setup))
    model.train()
    prepare(model, setup.model)
    penalties = [regularizer.prepare(model) for regularizer in setup.regularizers]
    data = _data(setup, encoded, virtual_tokens=setup.method.virtual_tokens)
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


def _base(setup: Setup) -> PreTrainedModel:
    dtype = base_dtype(setup.precision, freezes_base=setup.method.freezes_base)
    base = load(setup.model, config=setup.model_config, dtype=dtype, seed=setup.settings.seed)
    if setup.packs:
        use_packed_attention(base)
    if setup.liger:
        use_liger_kernels(base)
    return base


def _data(setup: Setup, encoded: EncodedRun, *, virtual_tokens: int) -> AdaptationData:
    plan = Plan(
        lengths=encoded.train.lengths + virtual_tokens,
        batch_size=setup.settings.batch_size,
        micro_batch_tokens=setup.micro_batch_tokens,
        seed=setup.settings.seed,
        group_by_length=setup.settings.group_by_length,
        packed=setup.packs,
    )
    collator = setup.collator(virtual_tokens=virtual_tokens)
    return AdaptationData(
        encoded.train, validation=encoded.validation, tests=encoded.tests, plan=plan, collator=collator
    )


def _trainer(
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
    interval = setup.trainer.get("val_check_interval")
    if isinstance(interval, int) and interval > epoch > 1:
        raise ValueError(f"trainer.val_check_interval must be at most the {epoch} steps of an epoch, got {interval}")
    return build_trainer(
        {**({"val_check_interval": steps} if steps < epoch else {}), **setup.trainer},
        precision=setup.precision,
        callbacks=[*callbacks, ProgressDisplay(console, scoring=scoring)],
        loggers=loggers,
        max_epochs=setup.settings.epochs,
        max_steps=setup.settings.max_steps,
    )


def _loggers(setup: Setup, folder: Path) -> list[Logger]:
    """Returns metrics.jsonl's logger always, and the one that was chosen."""
    leave_wandb()
    own = JsonlLogger(folder / "metrics.jsonl")
    chosen = None if setup.make_logger is None else open_logger(setup.make_logger, folder)
    return [own] if chosen is None else [own, chosen]

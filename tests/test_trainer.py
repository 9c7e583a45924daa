"""From settings to lightning.Trainer, and what keeps the best weights."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from forgetmenot.config.settings import TRAINER_KEYS_OF_OURS, Settings
from forgetmenot.trainer import (
    base_dtype,
    build_trainer,
    check_names,
    choose_precision,
    ctrl_c_interrupts,
    selection,
    take_best,
    uses_cuda,
)


def _settings(**values: object) -> Settings:
    chosen: dict[str, object] = {
        "seed": 0,
        "epochs": 1,
        "max_steps": None,
        "batch_size": 1,
        "micro_batch_tokens": "auto",
        "max_length": 64,
        "precision": "fp32",
        "objective": None,
        "select": "last",
        "patience": None,
        "group_by_length": False,
        "plugins": (),
    }
    return Settings(**{**chosen, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "ours"), sorted(TRAINER_KEYS_OF_OURS.items()))
def test_a_trainer_key_that_we_own_is_refused_with_our_keys_name(name: str, ours: str) -> None:
    with pytest.raises(ValueError, match=rf"^trainer\.{name} must be set by {ours}, got trainer\.{name}=3$"):
        check_names({"devices": 1, name: 3})


@pytest.mark.parametrize(
    ("name", "meant"),
    [("devises", "trainer.devices"), ("max_epoch", "epochs"), ("gradient_clip", "optimizer.clip_norm")],
)
def test_a_trainer_key_that_lightning_does_not_take_tells_which_was_meant(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"^trainer\.{name} must be .*; did you mean {meant}\?$"):
        check_names({name: 3})


def test_lightnings_own_names_pass() -> None:
    check_names({"devices": 1, "detect_anomaly": True})
    with pytest.raises(ValueError, match=r"got zzzzzz$"):
        check_names({"zzzzzz": 1})


def test_every_key_that_the_design_owns_is_owned() -> None:
    assert {
        "precision",
        "max_epochs",
        "max_steps",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "limit_train_batches",
        "limit_val_batches",
        "limit_test_batches",
        "fast_dev_run",
        "overfit_batches",
        "logger",
        "callbacks",
        "plugins",
        "enable_checkpointing",
        "enable_progress_bar",
        "enable_model_summary",
        "use_distributed_sampler",
    } == set(TRAINER_KEYS_OF_OURS)


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_a_precision_that_was_asked_for_is_taken(wanted: str) -> None:
    assert choose_precision(wanted, on_cuda=False) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("instructions", "chosen"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_f": True, "avx512_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"neon": True}, "fp32"),
        ({"neon": True, "bf16": True}, "bf16"),
    ],
)
def test_precision_auto_is_bf16_where_the_processor_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], chosen: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert choose_precision("auto", on_cuda=False) == chosen


@pytest.mark.parametrize(("accelerator", "used"), [("auto", True), ("gpu", True), ("cpu", False)])
def test_a_run_on_the_cpu_uses_no_cuda_device_though_there_is_one(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, used: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert uses_cuda({"accelerator": accelerator}) is used


def test_only_a_frozen_base_is_held_in_low_precision() -> None:
    assert base_dtype("bf16", freezes_base=True) == torch.bfloat16
    assert base_dtype("bf16", freezes_base=False) == torch.float32
    assert base_dtype("fp32", freezes_base=True) == torch.float32


def test_the_trainer_takes_lightnings_own_names_and_our_length() -> None:
    values = {"accelerator": "cpu", "devices": 1, "limit_val_batches": 2}
    trainer = build_trainer(values, precision="fp32", callbacks=[], loggers=[], max_epochs=3, max_steps=5)
    assert (trainer.max_epochs, trainer.max_steps, trainer.limit_val_batches) == (3, 5, 2)
    assert trainer.precision == "32-true"
    assert trainer.checkpoint_callback is None and trainer.num_sanity_val_steps == 0


def test_a_trainer_without_an_end_by_epochs_ends_by_steps() -> None:
    trainer = build_trainer(
        {"accelerator": "cpu", "devices": 1}, precision="bf16", callbacks=[], loggers=[], max_steps=5
    )
    assert (trainer.max_epochs, trainer.max_steps, trainer.precision) == (-1, 5, "bf16-mixed")


def test_the_last_weights_need_no_callback(tmp_path: Path) -> None:
    assert selection(_settings(), "val/accuracy", tmp_path, mode="max") == []


@pytest.mark.parametrize(("monitor", "mode"), [("val/accuracy", "max"), ("val/loss", "min")])
def test_the_best_weights_are_those_with_the_highest_score_or_lowest_loss(
    tmp_path: Path, monitor: str, mode: Literal["min", "max"]
) -> None:
    keeper, stopper = selection(_settings(select="best", patience=2), monitor, tmp_path, mode=mode)
    assert isinstance(keeper, ModelCheckpoint) and isinstance(stopper, EarlyStopping)
    assert (keeper.monitor, keeper.mode, stopper.monitor, stopper.mode) == (monitor, mode, monitor, mode)
    assert stopper.patience == 2


def test_the_exit_that_lightning_answers_ctrl_c_with_is_an_interrupt() -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt), ctrl_c_interrupts():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise SystemExit(1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)


class _Weights(LightningModule):
    """A frozen weight and a trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.trained = nn.Parameter(torch.zeros(1))


def test_the_best_weights_are_taken_and_what_is_frozen_stays(tmp_path: Path) -> None:
    torch.save({"state_dict": {"trained": torch.tensor([2.0])}}, tmp_path / "best.ckpt")
    keeper = ModelCheckpoint(tmp_path, monitor="val/loss")
    keeper.best_model_path = str(tmp_path / "best.ckpt")
    keeper.best_model_score = torch.tensor(1.0)
    module = _Weights()
    last = {"val/loss": 1.5}
    assert take_best(SimpleNamespace(checkpoint_callback=keeper), module, last=last)  # type: ignore[arg-type]
    assert (module.trained.item(), module.frozen.item()) == (2.0, 0.0)


@pytest.mark.parametrize(("metric", "best", "last"), [("loss", 1.0, 0.5), ("accuracy", 0.5, 0.75)])
def test_the_last_weights_stay_where_they_are_the_best(metric: str, best: float, last: float) -> None:
    keeper = ModelCheckpoint(monitor=f"val/{metric}", mode="min" if metric == "loss" else "max")
    keeper.best_model_score = torch.tensor(best)
    trainer = SimpleNamespace(checkpoint_callback=keeper)
    assert not take_best(trainer, _Weights(), last={f"val/{metric}": last})  # type: ignore[arg-type]


def test_weights_stay_as_they_are_where_none_were_kept() -> None:
    module = _Weights()
    assert not take_best(SimpleNamespace(checkpoint_callback=None), module, last={})  # type: ignore[arg-type]
    assert module.trained.item() == 0.0

"""metrics.jsonl: every logged step once, numbers or null; and libraries that write to run.log alone."""

import json
import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from tiny_tasks import make_task

from forgetmenot.data.examples import ScoringSet
from forgetmenot.data.types import Example
from forgetmenot.loggers import JsonlLogger, check_places, close_wandb, log_outcome, open_logger, quiet_libraries


def _lines(file: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_a_step_logs_in_several_calls_stands_on_one_line(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": 2.0}, step=0)
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.log_metrics({"val/accuracy": 0.5}, step=1)
    logger.finalize("success")
    assert _lines(logger.file) == [{"step": 0, "train/loss": 2.0}, {"step": 1, "train/loss": 1.0, "val/accuracy": 0.5}]


def test_a_step_stands_on_one_line_even_when_lightning_saves_between_two_calls(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.save()
    logger.log_metrics({"val/accuracy": 0.5}, step=1)
    logger.finalize("success")
    steps = [line["step"] for line in _lines(logger.file)]
    assert steps == [1]


def test_a_line_is_appended_to_what_the_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0}\n')
    logger = JsonlLogger(file)
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.save()
    assert [line["step"] for line in _lines(file)] == [0, 1]


def test_saving_twice_writes_once(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.save()
    logger.finalize("success")
    assert len(_lines(logger.file)) == 1


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": float("nan"), "val/loss": float("inf")}, step=0)
    logger.save()
    assert logger.file.read_text() == '{"step": 0, "train/loss": null, "val/loss": null}\n'


def test_lightnings_epoch_is_no_metric(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"epoch": 0, "train/loss": 1.0}, step=0)
    logger.save()
    assert _lines(logger.file) == [{"step": 0, "train/loss": 1.0}]


def test_a_run_without_wandb_has_nothing_to_upload(tmp_path: Path) -> None:
    assert close_wandb([JsonlLogger(tmp_path / "m.jsonl"), CSVLogger(tmp_path)]) is None


class _FakeWandb(WandbLogger):
    """A WandbLogger with a run that only counts how often it is finished."""

    def __init__(self, *, offline: bool) -> None:
        self.finished = 0
        self.logged: dict[str, object] = {}
        self._run = SimpleNamespace(dir="/runs/offline-run-1/files", offline=offline, finish=self._finish)

    @property
    def experiment(self) -> SimpleNamespace:
        return self._run

    def _finish(self) -> None:
        self.finished += 1

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.logged |= {**metrics, "step": step}

    def log_table(self, key: str, columns: list[str], data: list[list[str]]) -> None:  # type: ignore[override]
        self.logged[key] = [dict(zip(columns, row, strict=True)) for row in data]

    def save(self) -> None:
        pass


@pytest.mark.parametrize(("offline", "line"), [(True, "wandb sync /runs/offline-run-1"), (False, None)])
def test_a_wandb_run_is_ended_and_tells_how_to_upload_what_was_kept_offline(offline: bool, line: str | None) -> None:
    logger = _FakeWandb(offline=offline)
    assert close_wandb([logger]) == line
    assert logger.finished == 1


def test_wandb_gets_the_outcome_and_a_table_of_every_task_that_answers(tmp_path: Path) -> None:
    examples = (Example(prompt="who?", completion="Ada", references=("Ada", "ada")),)
    sets = [
        ScoringSet(task=make_task(name, metric=metric), examples=examples, rows=None, num_bytes=np.ones(1))  # type: ignore[arg-type]  # answers alone are read
        for name, metric in (("names", "accuracy"), ("text", "loss"))
    ]  # fmt: skip
    wandb, own = _FakeWandb(offline=True), JsonlLogger(tmp_path / "metrics.jsonl")

    log_outcome(
        [own, wandb], {"gain/names": 0.5}, step=7, tests=sets, before={"names": ["Bob"]}, after={"names": ["Ada"]}
    )

    assert _lines(own.file) == [{"step": 7, "gain/names": 0.5}]
    row = {"prompt": "who?", "references": "Ada / ada", "before": "Bob", "after": "Ada"}
    assert wandb.logged == {"gain/names": 0.5, "step": 7, "predictions/names": [row]}


@pytest.fixture
def _loggers_kept() -> Iterator[None]:
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "transformers", "datasets")
    kept = {name: (list(logging.getLogger(name).handlers), logging.getLogger(name).propagate) for name in names}
    yield
    logging.captureWarnings(False)
    for name, (handlers, propagate) in kept.items():
        logging.getLogger(name).handlers[:], logging.getLogger(name).propagate = handlers, propagate


@pytest.mark.parametrize("name", ["lightning.pytorch", "lightning.fabric", "transformers", "datasets"])
@pytest.mark.usefixtures("_loggers_kept")
def test_what_libraries_say_goes_to_the_root_logger_alone(name: str) -> None:
    quiet_libraries()
    logger, handlers = logging.getLogger(name), []
    while logger is not None and logger is not logging.getLogger():
        handlers += logger.handlers
        assert logger.propagate
        logger = logger.parent
    assert handlers == []


def test_wandb_that_its_own_variable_disables_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert open_logger(partial(WandbLogger, offline=True), tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"version": "a/../../b"}, "logger.version must be a name or a path within the run's folder, got a/../../b"),
        ({"prefix": "~/mine"}, "logger.prefix must be a name or a path within the run's folder, got ~/mine"),
        ({"x": {"id": "file:y"}}, "logger.x.id must be a name or a path within the run's folder, got file:y"),
        ({"settings": {"root_dir": "here"}}, "logger.settings.root_dir must be left out, since a run is logged in its"),
    ],
)
def test_what_leads_a_logger_out_of_the_runs_folder_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        check_places(values)


def test_what_is_only_said_or_read_may_look_like_a_path() -> None:
    check_places({"notes": "~3% better", "tags": ["/ablation"], "config": {"data_dir": "/data"}, "version": "1/a"})

"""A config from anybody makes Hydra build, import and set nothing but what sweeps and logs need."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny_runs import logging_kept

from forgetmenot.config.app import run_app
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.harmless import check_hydra
from forgetmenot.config.paths import conf_folder

COPY = "{_target_: shutil.copyfile, src: own/config.yaml, dst: ran}"
HOSTILE = {
    "callbacks": f"callbacks: {{x: {COPY}}}",
    "callbacks.x": f"callbacks: {{x: '${{elsewhere}}'}}\nelsewhere: {COPY}",
    "sweeper._target_": "sweeper: {_target_: os.system}",
    "sweeper.params.x._target_": f"sweeper: {{params: {{x: {COPY}}}}}",
    "launcher._target_": "launcher: {_target_: hydra_plugins.forgetmenot_slurm.os.system}",
    "job_logging.handlers.evil.()": "job_logging: {handlers: {evil: {(): os.mkdir, path: ran}}}",
    "job_logging.handlers.evil.class": "job_logging: {handlers: {evil: {class: logging.handlers.SocketHandler}}}",
    "job_logging.handlers.file.filename": "job_logging: {handlers: {file: {filename: ../ran}}}",
    "job_logging.handlers.evil": "job_logging: {handlers: {evil: '${elsewhere}'}}",
    "job_logging.formatters.simple.format": "job_logging: {formatters: {simple: {format: 'ext://antigravity'}}}",
    "hydra_logging.root.level": "hydra_logging: {root: {level: 'ext://antigravity.fly'}}",
    "job.env_set": "job: {env_set: {PATH: own}}",
    "searchpath": "searchpath: ['pkg://theirs']",
    "sweeper.params.trusted": "mode: MULTIRUN\n  sweeper: {params: {++model.trust_remote_code: true}}",
    "sweeper.params.hydra": "mode: MULTIRUN\n  sweeper: {params: {hydra.searchpath: \"['pkg://theirs']\"}}",
    "overrides": "mode: MULTIRUN\n  overrides: {task: [model.trust_remote_code=true]}",
    "overrides.hydra": "mode: MULTIRUN\n  overrides: {hydra: [\"hydra.searchpath=['pkg://theirs']\"], task: [seed=1]}",
    "overrides.task": "overrides: {task: '${elsewhere}'}\nelsewhere: [model.trust_remote_code=true]",
    "sweeper.params.plugins": "mode: MULTIRUN\n  sweeper: {params: {plugins: '[theirs]'}}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_hydra_would_build_or_import_is_refused_before_it_does(tmp_path: Path, text: str) -> None:
    """By a command of its own, as README repeats a run from its config.yaml."""
    settings, _, elsewhere = text.partition("\nelsewhere: ")
    (tmp_path / "own").mkdir()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import os; os.mkdir('ran')")
    (tmp_path / "own" / "config.yaml").write_text(
        f"defaults: [train, _self_]\n{elsewhere and f'elsewhere: {elsewhere}'}\nhydra:\n  {settings}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "forgetmenot.cli.main", "train", "--config-dir", "own", "--config-name", "config"]
    done = subprocess.run(
        [*command, "model.path=no/model"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: hydra.") and " must be " in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "theirs"]


@pytest.mark.parametrize("written", ["true", "1", "'${oc.select:hydra.verbose,true}'", "'${schedule.last}'"])
def test_a_whole_config_runs_a_models_code_only_where_the_command_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    (tmp_path / "config.yaml").write_text(f"defaults: [train, _self_]\nmodel: {{trust_remote_code: {written}}}\n")
    words = ["--config-dir", str(tmp_path), "--config-name", "config", "model.path=no/model", "logger=none"]
    words.append(f"hydra.run.dir={tmp_path}/run")
    with pytest.raises(SystemExit), logging_kept():
        run_app(lambda: lambda config: None, config_name="train", arguments=words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model.trust_remote_code must be true on the command line too")
    with logging_kept():
        run_app(lambda: lambda config: None, config_name="train", arguments=[*words, "model.trust_remote_code=true"])


@pytest.mark.parametrize("way", ["--config-path", "../.."])
def test_a_config_is_ours_only_from_our_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    mine = shutil.copytree(conf_folder(), tmp_path / "conf")
    (mine / "model" / "causal.yaml").write_text(
        (mine / "model" / "causal.yaml").read_text().replace("trust_remote_code: false", "trust_remote_code: true")
    )
    flat = "# @package _global_\nmodel: {trust_remote_code: true}\n"
    (tmp_path / "flat.yaml").write_text(flat)
    elsewhere = os.path.relpath(tmp_path / "flat", conf_folder())
    words = [way, str(mine), "model.path=x"] if way == "--config-path" else ["--config-name", elsewhere]
    with pytest.raises(SystemExit), logging_kept():
        run_app(lambda: lambda config: None, config_name="train", arguments=words)
    assert "model.trust_remote_code must be true on the command line too" in capsys.readouterr().err


def test_a_whole_config_does_not_say_what_jobs_run_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "hydra: {launcher: {additional_parameters: {container: theirs}}}"
    (tmp_path / "config.yaml").write_text(f"defaults: [train, {{override hydra/launcher: slurm}}, _self_]\n{text}\n")
    words = ["-m", "--config-dir", str(tmp_path), "--config-name", "config", "logger=none"]
    with pytest.raises(SystemExit), logging_kept():
        run_app(lambda: lambda config: None, config_name="train", arguments=words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: hydra.launcher.additional_parameters.container must be on the command line too")


@pytest.mark.parametrize("key", ["job_logging", "hydra_logging"])
@pytest.mark.parametrize("chosen", ["disabled", "none"])
def test_no_log_at_all_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str], key: str, chosen: str) -> None:
    with pytest.raises(SystemExit), logging_kept():
        run_app(lambda: lambda config: None, config_name="train", arguments=["logger=none", f"hydra/{key}={chosen}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: hydra.{key}.handlers.") and line.endswith(f"got none; hydra/{key}=default has it")


@pytest.mark.parametrize("sampler", ["os.system", "optuna.samplers.os.system", "optuna.samplers"])
def test_of_optuna_samplers_are_built_and_nothing_else(sampler: str) -> None:
    basic = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    optuna = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    parts = {"job_logging": {}, "hydra_logging": {}, "launcher": {"_target_": basic}}
    sweeper = {"_target_": optuna, "sampler": {"_target_": "optuna.samplers.TPESampler"}, "custom_search_space": None}
    check_hydra(OmegaConf.create({**parts, "sweeper": sweeper}))
    for other in ({"sampler": {"_target_": sampler}}, {"custom_search_space": "os.system"}):
        with pytest.raises(ConfigError, match=r"hydra\.sweeper\..* must be .* got os|got optuna"):
            check_hydra(OmegaConf.create({**parts, "sweeper": {**sweeper, **other}}))

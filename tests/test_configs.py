"""Every YAML of conf/ composes and builds, and its keys are the fields of what it describes."""

import inspect
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from forgetmenot.config.build import build, build_partial, plain
from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.retained import expand_retained
from forgetmenot.config.settings import Settings
from forgetmenot.config.tasks import tasks_of
from forgetmenot.data.mix import Mixing, Replay
from forgetmenot.data.task import Task
from forgetmenot.method.base import Method
from forgetmenot.model.load import Model
from forgetmenot.regularizer.base import Regularizer
from forgetmenot.trainer import check_names

CONF = conf_folder()
GROUPS = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
OPTIMIZER_KEYS = ("lr", "weight_decay", "clip_norm")


def _names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)  # else the resolver imports wandb to look for one


@cache
def _composed(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=list(overrides))
    OmegaConf.set_struct(config, False)
    return config


CHOICES = ("model", "method", "data", "optimizer", "schedule", "trainer", "logger")


def _chosen(group: str, name: str) -> DictConfig:
    """Returns what a group holds where `name` is chosen: composed with other groups' choices, for many take long."""
    place = _names(group).index(name)
    return _composed(*(f"{each}={_names(each)[place % len(_names(each))]}" for each in CHOICES))[group]


def _given(node: DictConfig) -> DictConfig:
    """Fills in what a user has to give."""
    alone = OmegaConf.create(OmegaConf.to_container(node))
    return OmegaConf.merge(alone, dict.fromkeys(OmegaConf.missing_keys(alone), "given"))


def test_the_folder_holds_the_groups_that_are_tested_here() -> None:
    assert {
        "model", "method", "data", "regularizer", "replay", "optimizer", "schedule", "trainer", "logger", "experiment",
        "sweep", "hydra",
    } == GROUPS  # fmt: skip


@pytest.mark.parametrize(("group", "base"), [("method", Method), ("model", Model), ("data", Task)])
def test_every_component_builds_and_its_keys_are_its_fields(group: str, base: type) -> None:
    assert _names(group)
    for name in [name for name in _names(group) if name != "multitask"]:
        node = _given(_chosen(group, name))
        retained = node.pop("retained", None)
        part = build(node, base, key=group)
        assert {field.name for field in fields(part)} == set(node) - {"_target_"}, name
        assert (retained is not None) == (group == "data"), name


def test_several_data_sets_are_a_mixture_and_its_keys_are_its_fields() -> None:
    node = _composed("data=multitask").data
    assert {"retained", "tasks", *(field.name for field in fields(Mixing))} == set(node)
    config = _composed("data=multitask")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        mixing, targets, retained = tasks_of(expand_retained(config).data)
    assert (mixing.name, [task.name for task in targets]) == ("multitask", list(node.tasks))
    assert [task.name for task in retained] == ["text"]


@pytest.mark.parametrize("group", ["method", "model", "data"])
def test_a_component_is_named_as_its_file(group: str) -> None:
    assert {name: _chosen(group, name).name for name in _names(group)} == {n: n for n in _names(group)}


@pytest.mark.parametrize("name", _names("regularizer"))
def test_every_regularizer_builds_and_its_keys_are_its_fields(name: str) -> None:
    node = _composed(f"regularizer={name}").regularizer[name]
    part = build(node, Regularizer, key="regularizer")
    assert {field.name for field in fields(part)} == set(node) - {"_target_"}
    assert node.name == name


def test_regularizers_are_taken_alone_or_several_or_none() -> None:
    names = _names("regularizer")
    assert sorted(_composed(f"regularizer=[{','.join(names)}]").regularizer) == names
    assert "regularizer" not in _composed("regularizer=[]")
    assert "regularizer" not in _composed("method=full")
    assert list(_composed("method=regularized").regularizer) == ["l2_sp"]


@pytest.mark.parametrize("name", _names("replay"))
def test_every_way_to_replay_builds_and_its_keys_are_its_fields(name: str) -> None:
    node = _composed(f"replay={name}").replay
    assert not node or {field.name for field in fields(build(node, Replay, key="replay"))} == set(node)


@pytest.mark.parametrize("name", _names("optimizer"))
def test_every_optimizer_takes_its_keys(name: str) -> None:
    node = _chosen("optimizer", name)
    assert build_partial(node, Optimizer, key="optimizer", ours=OPTIMIZER_KEYS)
    assert set(OPTIMIZER_KEYS) <= set(node)


@pytest.mark.parametrize("name", _names("schedule"))
def test_every_schedule_takes_its_keys_and_lacks_none(name: str) -> None:
    node = _chosen("schedule", name)
    make = build_partial(node, LRScheduler, key="schedule")
    taken = set(inspect.signature(make.func).parameters) - {"self"}  # type: ignore[attr-defined]
    assert taken == {*node, "optimizer", "total_steps"} - {"_target_"}


@pytest.mark.parametrize("name", _names("trainer"))
def test_every_trainer_uses_lightnings_names_and_none_of_ours(name: str) -> None:
    values = plain(_chosen("trainer", name), key="trainer")
    check_names(values)
    assert "accelerator" in values and "devices" in values


@pytest.mark.parametrize("name", _names("logger"))
def test_every_logger_takes_its_keys(name: str) -> None:
    node = _chosen("logger", name)
    assert not node or callable(build_partial(node, Logger, key="logger"))


SEARCHES = {"search_lora"}  # sweeps of another sweeper than Hydra's own
WITHOUT_OPTUNA = pytest.mark.skipif(
    find_spec("hydra_plugins") is None or find_spec("hydra_plugins.hydra_optuna_sweeper") is None,
    reason="needs the extra optuna",
)


def _ready_made() -> list[object]:
    names = [(group, name) for group in ("experiment", "sweep") for name in _names(group)]
    return [pytest.param(f"{group}={name}", marks=WITHOUT_OPTUNA if name in SEARCHES else ()) for group, name in names]


@pytest.mark.parametrize("choice", _ready_made())
def test_every_experiment_and_sweep_composes_and_builds(choice: str) -> None:
    config = _composed(choice)
    assert build(_root(config), Settings, key="")
    assert build(config.method, Method, key="method")
    assert build(config.model, Model, key="model")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert tasks_of(expand_retained(config).data)
    assert build_partial(config.optimizer, Optimizer, key="optimizer", ours=OPTIMIZER_KEYS)
    assert build_partial(config.schedule, LRScheduler, key="schedule")
    check_names(plain(config.trainer, key="trainer"))


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in ("experiment", "sweep") for n in _names(g)])
def test_an_experiment_or_sweep_opens_with_its_purpose_and_command(group: str, name: str) -> None:
    file = CONF / group / f"{name}.yaml"
    comments = [line for line in file.read_text().splitlines() if line[:1] == "#"]
    assert f"{group}={name}" in "\n".join(comments)


@pytest.mark.parametrize("name", sorted(set(_names("sweep")) - SEARCHES))
def test_a_sweep_varies_a_key_that_its_config_has(name: str) -> None:
    sweep = yaml.safe_load((CONF / "sweep" / f"{name}.yaml").read_text())
    assert sweep["hydra"]["mode"] == "MULTIRUN"
    config = _composed(f"sweep={name}", "method=lora" if name != "prompt_length" else "method=prompt")
    for key, values in sweep["hydra"]["sweeper"]["params"].items():
        assert OmegaConf.select(config, key) is not None
        assert len(str(values).split(",")) >= 3


def _root(config: DictConfig) -> DictConfig:
    return OmegaConf.create({key: value for key, value in config.items() if key not in GROUPS})


def test_the_root_keys_are_the_fields_of_settings() -> None:
    assert set(_root(_composed())) == {field.name for field in fields(Settings)}
    assert build(_root(_composed()), Settings, key="").seed == 0


def test_every_command_of_the_console_has_its_primary_file() -> None:
    from forgetmenot.cli.main import COMMANDS, PLAIN

    assert {file.stem for file in CONF.glob("*.yaml")} == set(COMMANDS) - set(PLAIN)


@pytest.mark.parametrize("name", sorted(set(_names("data")) - {"local"}))
def test_every_data_set_retains_the_embedded_tasks_by_default(name: str) -> None:
    retained = _chosen("data", name).retained
    assert list(retained) == ["names", "party", "fact_or_opinion", "text"]
    assert set(retained) <= set(_names("data"))


FILES = sorted(CONF.rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONF)))
def test_a_yaml_opens_with_a_comment_that_says_what_it_is(file: Path) -> None:
    first = next(line for line in file.read_text(encoding="utf-8").splitlines() if "@package" not in line)
    assert first.startswith("# ") and first.rstrip().endswith((".", "?", ")"))

"""Names under data.retained become the settings of those data sets."""

from collections.abc import Iterator

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.retained import expand_retained


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """The settings of a run on `names`, which is one of the embedded tasks."""
    return compose("train", overrides=["data=names", "logger=none"])


def test_a_name_becomes_that_data_sets_own_settings(composed: DictConfig) -> None:
    first = expand_retained(composed).data.retained[0]
    assert first.name == "party" and first.path.endswith("data/party")
    assert "retained" not in first


def test_the_target_is_not_retained_itself(composed: DictConfig) -> None:
    assert [task.name for task in expand_retained(composed).data.retained] == ["party", "fact_or_opinion", "text"]


def test_what_is_written_out_stays_as_it_is(composed: DictConfig) -> None:
    once = expand_retained(composed)
    once.data.retained[0].prompt = "changed"
    assert expand_retained(once) == once


def test_the_config_that_was_given_is_left_alone(composed: DictConfig) -> None:
    before = OmegaConf.to_container(composed)
    expand_retained(composed)
    assert OmegaConf.to_container(composed) == before


@pytest.mark.parametrize("nothing", [None, []])
def test_nothing_retained_is_an_empty_list(composed: DictConfig, nothing: list[str] | None) -> None:
    config = composed.copy()
    config.data.retained = nothing
    assert expand_retained(config).data.retained == []


def test_a_name_that_is_no_data_set_tells_which_was_meant(composed: DictConfig) -> None:
    config = composed.copy()
    config.data.retained = ["nmaes"]
    with pytest.raises(ConfigError, match=r"^data\.retained must name data sets .*did you mean names\?$"):
        expand_retained(config)

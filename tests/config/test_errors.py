"""Hydra's errors as one sentence, and "did you mean"."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from forgetmenot.config.app import run_app
from forgetmenot.config.errors import HYDRA_ERRORS, ConfigError, did_you_mean, hydra_sentence
from forgetmenot.config.paths import conf_folder, register_resolvers


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small config folder: one primary file and a group of two."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "food").mkdir()
    (folder / "main.yaml").write_text("defaults: [_self_, food: apple]\nweight: 1\n")
    for name in ("apple", "pear"):
        (folder / "food" / f"{name}.yaml").write_text("colour: red\n")
    return folder


def _sentence(conf: Path, *overrides: str) -> str:
    with initialize_config_dir(str(conf), version_base="1.3"), pytest.raises(HYDRA_ERRORS) as error:
        compose("main", overrides=list(overrides))
    sentence = hydra_sentence(error.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(("word", "hint"), [("rnak", "; did you mean method.rank?"), ("zzzzzz", "")])
def test_the_closest_known_word_is_offered_and_nothing_far_off(word: str, hint: str) -> None:
    assert did_you_mean(word, ["rank", "alpha"], prefix="method.") == hint


def test_a_config_error_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)


def test_a_wrong_choice_lists_what_there_is(conf: Path) -> None:
    assert _sentence(conf, "food=aple") == "food must be one of apple, pear, got aple; did you mean food=apple?"


def test_a_wrong_key_lists_what_there_is(conf: Path) -> None:
    assert _sentence(conf, "food.color=1") == (
        "food.color must be a key of food (colour), got color; did you mean food.colour?"
    )


def test_a_wrong_root_key_is_told_as_a_key_of_the_run(conf: Path) -> None:
    sentence = _sentence(conf, "wieght=1")
    assert sentence.startswith("wieght must be a key of the run (") and sentence.endswith("did you mean weight?")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("resume=all", r"resume must be a key of the run \([\w, ]+\), got resume"),
        ("hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs must be set together with hydra/launcher=joblib, got .*"),
        ("hydra.launcher.qos=high", "hydra.launcher.qos must be set together with hydra/launcher=slurm, got a .*"),
    ],
)
def test_a_key_that_another_command_or_launcher_has_is_told_without_a_choice_of_ours(
    override: str, sentence: str
) -> None:
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"), pytest.raises(HYDRA_ERRORS) as error:
        compose("evaluate", overrides=["run=mine", override], return_hydra_config=True)
    assert re.fullmatch(sentence, hydra_sentence(error.value))


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "seed=1,2",
            "seed must be one value in a single run, got 1,2; -m sweeps over several, seed=[1,2] is a list and "
            "'seed=\"1,2\"' a text",
        ),
        (
            "method=choice(full,lora)",
            "method must be one value in a single run, got choice(full,lora); -m sweeps over several",
        ),
    ],
)
def test_several_values_in_a_single_run_are_told_of_sweeps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as exit_:
        run_app(lambda: lambda config: None, config_name="train", arguments=[word])
    assert (exit_.value.code, capsys.readouterr().err) == (1, f"error: {sentence}\n")


@pytest.mark.parametrize("override", ["food.colour={a} b", "food.colour='red", "food.colour"])
def test_what_does_not_parse_gets_a_hint_of_quoting(conf: Path, override: str) -> None:
    sentence = _sentence(conf, override)
    assert "quote" in sentence and override in sentence


def test_an_interpolation_that_leads_nowhere_names_its_key() -> None:
    config = OmegaConf.create({"a": "${nowhere}"})
    with pytest.raises(OmegaConfBaseException) as error:
        _ = config.a
    assert "a must be" in hydra_sentence(error.value) and "nowhere" in hydra_sentence(error.value)


def test_a_launcher_or_sweeper_that_is_not_installed_is_told_with_the_extra_that_brings_it() -> None:
    missing = MissingConfigException("not found", missing_cfg_file="hydra/launcher/joblib", options=["basic"])
    assert hydra_sentence(missing) == (
        "hydra/launcher must be one that is installed, got joblib; pip install 'forgetmenot-llm[sweep]'"
    )

"""The words of a command line."""

import shlex

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.words import names, parted, pasted, path_as_text, quoted, value_of


@pytest.mark.parametrize(
    "text",
    ["a fine film", 'is it "good", or {not}: [1], $x?', "back\\slash", "ends\\", "${oc.env:HOME}", "a='b' #c", "ä\nb"],
)
def test_a_quoted_text_arrives_as_it_is(text: str) -> None:
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = hydra_compose("ask", overrides=["run=a", quoted(f"prompt={text}", key="prompt")])
    assert config.prompt == text
    assert quoted("run=a b", key="prompt") == "run=a b"


@pytest.mark.parametrize(
    ("folder", "setting"),
    [
        ("outputs/sweeps/2026-11-27/10-00-00_ab12", "resume=outputs/sweeps/2026-11-27/10-00-00_ab12"),
        ("a b=c", """'resume="a b=c"'"""),
        ("läufe (1)", """'resume="läufe (1)"'"""),
        ("it's", """'resume="it'"'"'s"'"""),
    ],
)
def test_a_setting_to_paste_is_quoted_for_shell_and_hydra_where_it_has_to_be(folder: str, setting: str) -> None:
    assert pasted("resume", folder) == setting
    (word,) = shlex.split(setting)
    assert value_of("resume", [word]) == folder
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        assert hydra_compose("train", overrides=[word]).resume == folder


def test_options_stand_before_settings_with_their_values() -> None:
    words = ["seed=1", "-m", "--config-dir", "own", "method=lora"]
    assert parted(words) == (["-m", "--config-dir", "own"], ["seed=1", "method=lora"])


def test_an_option_by_its_beginning_is_the_option() -> None:
    words = ["--multi", "seed=1", "--config-d", "own", "--config-n=mine", "--config", "--nothing"]
    options = ["--multirun", "--config-dir", "own", "--config-name=mine", "--config", "--nothing"]
    assert parted(words) == (options, ["seed=1"])


def test_options_in_one_word_are_the_options() -> None:
    assert parted(["seed=1", "-mm", "-mr", "-cd", "-mm"]) == (["-m", "-m", "-m", "-r", "-cd", "-mm"], ["seed=1"])


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["seed=1"], None),
        (["resume=null"], None),
        (["resume=a", "resume='b c'"], "b c"),
        (["++resume=a=b"], "a=b"),
        (["~resume"], None),
    ],
)
def test_the_last_word_for_a_key_sets_its_value(words: list[str], value: str | None) -> None:
    assert value_of("resume", words) == value


def test_a_setting_is_named_without_its_signs() -> None:
    assert [names(word) for word in ("++a.b=1", "~c", "d")] == ["a.b", "c", "d"]


@pytest.mark.parametrize("path", ["2024", "2024_01", "1e5", "1.50", "007", "-3", "runs/2024"])
@pytest.mark.parametrize("key", ["resume", "model.path", "++model.path"])
def test_a_path_is_text_whatever_number_it_looks_like(key: str, path: str) -> None:
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = hydra_compose("train", overrides=[path_as_text(f"{key}={path}")])
    assert (config.resume if key == "resume" else config.model.path) == path


@pytest.mark.parametrize("word", ["seed=2024", "resume=null", "model.path=1,2", "~resume", "-m", "data.path=a"])
def test_what_is_no_number_or_no_path_is_left_as_it_is(word: str) -> None:
    assert path_as_text(word) == word


def test_a_run_that_is_resumed_is_found_from_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/her")
    assert path_as_text("resume=~/runs/a") == "resume=/home/her/runs/a"

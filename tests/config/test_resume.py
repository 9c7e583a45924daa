"""What must be as it was for a member to go on, and what is kept aside."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.resume import check_member, keep_aside
from forgetmenot.config.retained import expand_retained
from forgetmenot.config.save import save_config


@pytest.fixture(scope="module", autouse=True)
def _composing() -> Iterator[None]:
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield


def _resumed(folder: Path, *words: str) -> DictConfig:
    config = compose("train", overrides=["logger=none", *words])
    config.resume = str(folder.parent)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A member's folder with the settings that its earlier attempt was made with."""
    place = tmp_path_factory.mktemp("sweep") / "3_lora_sentiment"
    config = compose("train", overrides=["optimizer.lr=1e-05", "logger=none"])
    save_config(expand_retained(config), place, micro_batch_tokens=512)
    return place


@pytest.mark.parametrize("words", [[], ["trainer=ddp"], ["micro_batch_tokens=64"], ["+logger.project=mine"]])
def test_the_machine_and_the_record_may_be_others(folder: Path, words: list[str]) -> None:
    check_member(_resumed(folder, "optimizer.lr=1e-05", *words), folder, number=3, place=folder)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["epochs=2"], "epochs must be 6, as in the sweep that is resumed, got 2 for its member 3_lora_sentiment"),
        (["max_steps=2"], "max_steps must be null, as in"),
        (["method.target_modules=[q_proj]"], r"method.target_modules must be \['all-linear'\], as in"),
        (["data.retained=[names]"], r"data\.retained\[1\]\.\w+ must be .*, got null for its member"),
    ],
)
def test_another_setting_is_told_with_both_values_and_the_member(folder: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        check_member(_resumed(folder, "optimizer.lr=1e-05", *words), folder, number=3, place=folder)


def test_settings_that_an_older_attempt_did_not_know_count_as_null(folder: Path) -> None:
    file = folder / "config.yaml"
    whole = file.read_text()
    assert "direction: null\n" in whole
    file.write_text(whole.replace("direction: null\n", ""))
    check_member(_resumed(folder, "optimizer.lr=1e-05"), folder, number=3, place=folder)
    with pytest.raises(ValueError, match=r"^direction must be null, as in the sweep that is resumed, got min"):
        check_member(_resumed(folder, "optimizer.lr=1e-05", "direction=min"), folder, number=3, place=folder)
    file.write_text(whole)


def test_each_attempt_is_kept_aside_and_an_empty_log_is_none(tmp_path: Path) -> None:
    for attempt in range(2):
        (tmp_path / "result.json").write_text(str(attempt))
        (tmp_path / "wandb").mkdir()
        keep_aside(tmp_path)
    (tmp_path / "run.log").touch()
    keep_aside(tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.json")) == [
        "earlier_attempts/0/result.json",
        "earlier_attempts/1/result.json",
    ]

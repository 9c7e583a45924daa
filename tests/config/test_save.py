"""config.yaml: resolved, with the figures that were used, and written whole."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from forgetmenot.config.save import save_config, save_evaluation_config


def test_a_saved_config_is_resolved_and_holds_the_figure_that_was_found(tmp_path: Path) -> None:
    config = OmegaConf.create({"micro_batch_tokens": "auto", "a": 1, "b": "${a}", "text": "ä\n: #"})
    save_config(config, tmp_path, micro_batch_tokens=4096)
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert {key: saved[key] for key in config} == {"micro_batch_tokens": 4096, "a": 1, "b": 1, "text": "ä\n: #"}


def test_a_saved_config_brings_our_hydra_settings_and_tells_how_to_repeat_the_run(tmp_path: Path) -> None:
    save_config(OmegaConf.create({"a": 1}), tmp_path, micro_batch_tokens=1)
    text = (tmp_path / "config.yaml").read_text()
    assert "--config-dir THIS_FOLDER --config-name config" in text
    assert OmegaConf.load(tmp_path / "config.yaml").defaults == [{"hydra": "forgetmenot"}, "_self_"]


def test_saving_leaves_the_config_as_it_was(tmp_path: Path) -> None:
    config = OmegaConf.create({"micro_batch_tokens": "auto"})
    save_config(config, tmp_path, micro_batch_tokens=8)
    assert config.micro_batch_tokens == "auto"


def test_a_config_that_cannot_be_resolved_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nowhere"):
        save_config(OmegaConf.create({"a": "${nowhere}"}), tmp_path, micro_batch_tokens=8)
    assert list(tmp_path.iterdir()) == []


def test_an_evaluations_config_tells_how_to_repeat_it(tmp_path: Path) -> None:
    save_evaluation_config(OmegaConf.create({"run": "a", "again": "${run}"}), tmp_path)
    assert "forgetmenot evaluate --config-dir" in (tmp_path / "config.yaml").read_text()
    assert OmegaConf.load(tmp_path / "config.yaml") == {
        "defaults": [{"hydra": "evaluate"}, "_self_"], "run": "a", "again": "a",
    }  # fmt: skip

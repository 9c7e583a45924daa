"""What is read of a finished run: its settings, and for keys that it did not know yet what stands there today."""

from pathlib import Path

from hydra import initialize_config_dir
from omegaconf import OmegaConf

from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.source import read_source

RUN = {
    "model": {"name": "tiny", "path": "nowhere"},
    "method": {"name": "prompt", "_target_": "forgetmenot.method.prompt.Prompt", "lr": 0.5, "num_virtual_tokens": 3},
    "data": {"name": "mood", "path": "here.jsonl", "prompt": "text", "completion": "label", "retained": []},
    "regularizer": {},
}


def test_a_run_from_before_there_were_some_keys_gets_them_and_keeps_its_own(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    OmegaConf.save(OmegaConf.create(RUN), tmp_path / "config.yaml")
    register_resolvers()

    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = read_source(str(tmp_path), {}).config

    assert (config.method.start, config.method.lr, config.method.num_virtual_tokens) == (None, 0.5, 3)
    assert (config.data.choices, config.data.prompt, config.model.path) == ([], "text", "nowhere")


def test_a_preset_that_chooses_other_groups_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    method = {"name": "regularized", "_target_": "forgetmenot.method.full.Full", "lr": 0.5}
    OmegaConf.save(OmegaConf.create({**RUN, "method": method}), tmp_path / "config.yaml")
    register_resolvers()

    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        assert read_source(str(tmp_path), {}).config.method == method

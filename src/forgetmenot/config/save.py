"""Writes config.yaml: everything resolved, and a run can be repeated from it.

python train.py --config-dir RUN_FOLDER --config-name config
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from forgetmenot.durable import write_whole

_HEADER = """\
# The settings of this run, resolved. To repeat it: {command} --config-dir THIS_FOLDER --config-name config
defaults:
  - hydra: {hydra}
  - _self_

"""


def save_config(config: DictConfig, folder: Path, *, micro_batch_tokens: int) -> None:
    """Writes a run's `config` as it was used, the figure found for micro_batch_tokens in place of auto.

    That a run went on is no setting of it: who repeats it begins anew.
    """
    used = OmegaConf.merge(config, {"micro_batch_tokens": micro_batch_tokens, "resume": None})
    _write(_HEADER.format(command="python train.py", hydra="forgetmenot"), used, folder)


def save_evaluation_config(config: DictConfig, folder: Path) -> None:
    """Writes an evaluation's `config`."""
    _write(_HEADER.format(command="forgetmenot evaluate", hydra="evaluate"), config, folder)


def _write(header: str, config: BaseContainer, folder: Path) -> None:
    write_whole(folder / "config.yaml", header + OmegaConf.to_yaml(config, resolve=True))

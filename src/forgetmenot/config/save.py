"""Writes config.yaml: everything resolved, and a run can be repeated from it.

python train.py --config-dir RUN_FOLDER --config-name config
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from forgetmenot.result import write_whole

_HEADER = """\
# The settings of this run, resolved. To repeat it: python train.py --config-dir THIS_FOLDER --config-name config
defaults:
  - hydra: forgetmenot
  - _self_

"""


def save_config(config: DictConfig, folder: Path, *, micro_batch_tokens: int) -> None:
    """Writes `config` as it was used: the figure found for micro_batch_tokens in place of auto."""
    used = OmegaConf.merge(config, {"micro_batch_tokens": micro_batch_tokens})
    write_whole(folder / "config.yaml", _HEADER + OmegaConf.to_yaml(used, resolve=True))

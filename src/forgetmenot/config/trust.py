"""A run and a whole config may come from anybody: what of them runs code, or leads elsewhere, is refused."""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError

TRUST = "model.trust_remote_code"


def check_trusted(settings: DictConfig, *, of: str, trusted: bool) -> None:
    """Raises ConfigError where the `settings` of something run code that a model brings, and the user did not say so.

    They count as they are written: what ${...} stands for may be another value later.
    """
    written = OmegaConf.to_container(settings, resolve=False)
    model = written.get("model") if isinstance(written, dict) else None
    value = model.get("trust_remote_code") if isinstance(model, dict) else model
    if value not in (None, False) and not trusted:
        raise ConfigError(f"{TRUST} must be true on the command line too, since {of} runs code that its model brings")


def check_no_links(folder: Path) -> None:
    """Raises ConfigError where what is to be gone on with holds a link: it may come from anybody, and is written to.

    W&B keeps links of its own below its folder.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            if path.is_symlink():
                raise ConfigError(f"resume must be a folder without links, which lead elsewhere, got {path}")
        folders[:] = [name for name in folders if name != "wandb"]

"""Where the YAML files, the embedded assets and a run's folder lie."""

import netrc
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from omegaconf import OmegaConf

from forgetmenot.config.agree import agreed

_PACKAGE = Path(__file__).resolve().parents[1]
EMBEDDED_MODEL = _PACKAGE / "assets" / "tiny"
"""The model that is part of the package, with its tokenizer."""
_OF_A_RUN = ("run.log", "config.yaml")
_WANDB_HOST = "api.wandb.ai"  # where keys of older logins stand


def conf_folder() -> Path:
    """Returns the YAML files: inside an installed package, or at the top of a clone."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "conf"


def cache_folder() -> Path:
    """Returns where work is kept for the next run: FORGETMENOT_CACHE, or the place that the system has for caches."""
    own = os.environ.get("FORGETMENOT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "forgetmenot"


def is_run_folder(path: str) -> bool:
    """Tells whether a run began in the folder `path`."""
    return any((Path(str(path)) / name).is_file() for name in _OF_A_RUN)  # a file may name 2024, a number


def choices(group: str) -> list[str]:
    """Returns the names that conf/ has for a group; none where there is no such group."""
    return sorted(file.stem for file in (conf_folder() / group).glob("*.yaml"))


def register_resolvers() -> None:
    """Makes our resolvers known to OmegaConf: ${agreed:}, ${asset:}, ${or_else:}, ${short_id:} and others."""
    resolvers: dict[str, tuple[Callable[..., object], bool]] = {
        "agreed": (agreed, True),
        "asset": (lambda name: str(_PACKAGE / "assets" / name), False),
        "folder_name": (_folder_name, False),
        "last_part": (lambda path: Path(str(path)).name, False),
        "resumed_run": (lambda path: str(path) if path is not None and is_run_folder(path) else None, False),
        "or_else": (lambda value, other: other if value is None else value, True),
        "short_id": (lambda _: uuid.uuid4().hex[:6], True),  # cached: one id a run, however often it is resolved
        "wandb_offline": (_wandb_offline, True),
    }
    for name, (function, use_cache) in resolvers.items():
        OmegaConf.register_new_resolver(name, function, use_cache=use_cache, replace=True)


def _folder_name(text: str) -> str:
    """Keeps letters, digits, '_', '-' and '.', so that a name from the config never leaves its folder, 60 of them."""
    return "".join(c if c.isalnum() or c in "_-." else "-" for c in str(text)).lstrip(".")[:60]


def _wandb_offline() -> bool:
    """Tells whether Weights & Biases has no key to log in with, as `wandb login` keeps it."""
    if os.environ.get("WANDB_API_KEY"):
        return False
    import wandb

    hosts = {urlsplit(os.environ.get("WANDB_BASE_URL") or str(wandb.Settings().base_url)).hostname, _WANDB_HOST}
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
        return all(known.authenticators(host) is None for host in hosts if host)
    except (OSError, netrc.NetrcParseError):
        return True

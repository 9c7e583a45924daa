"""Whether the code that a model brings may run: a run and a whole config may come from anybody, and name any model."""

from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.errors import ConfigError

TRUST = "model.trust_remote_code"


def check_trusted(settings: DictConfig, *, of: str, trusted: bool) -> None:
    """Raises ConfigError where the `settings` of something have such code run, and the user has not said so.

    They count as they are written: what ${...} stands for may be another value later.
    """
    written = OmegaConf.to_container(settings, resolve=False)
    model = written.get("model") if isinstance(written, dict) else None
    value = model.get("trust_remote_code") if isinstance(model, dict) else model
    if value not in (None, False) and not trusted:
        raise ConfigError(f"{TRUST} must be true on the command line too, since {of} runs code that its model brings")

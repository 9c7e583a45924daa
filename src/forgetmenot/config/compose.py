"""compose(): from Python, the same object that the command line builds."""

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from forgetmenot.config.build import build
from forgetmenot.config.errors import HYDRA_ERRORS, ConfigError, hydra_sentence
from forgetmenot.config.paths import conf_folder, register_resolvers


def compose(choice: str, **values: object) -> object:
    """Returns what a YAML file describes: `compose("method/lora", rank=2)` is a Lora of rank 2.

    Groups: method, regularizer, data, model. Raises ConfigError.
    """
    from forgetmenot.data.task import Task
    from forgetmenot.method.base import Method
    from forgetmenot.model.load import Model
    from forgetmenot.regularizer.base import Regularizer

    bases: dict[str, type] = {"method": Method, "regularizer": Regularizer, "data": Task, "model": Model}
    group, _, name = choice.partition("/")
    if group not in bases:
        raise ConfigError(f"choice must be one of {', '.join(bases)} with a file's name behind it, got {choice}")
    register_resolvers()
    many = group == "regularizer"  # the one group of which several can be chosen
    override, key = (f"{group}=[{name}]", f"{group}.{name}") if many else (f"{group}={name}", group)
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            node = OmegaConf.select(hydra_compose("train", overrides=[override]), key)
    except HYDRA_ERRORS as error:
        raise ConfigError(hydra_sentence(error)) from error
    OmegaConf.set_struct(node, False)
    merged = OmegaConf.merge(node, values)
    assert isinstance(merged, DictConfig)
    merged.pop("retained", None)
    return build(merged, bases[group], key=group)

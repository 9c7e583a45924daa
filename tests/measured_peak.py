"""A process of its own that trains a few steps, and says what they took above what was resident before the model was.

python tests/measured_peak.py model=tiny method=full trainer=cpu logger=none max_steps=3
"""

import sys

import psutil
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from forgetmenot.cli.setup import Setup, set_up
from forgetmenot.cli.wiring import adapt, encode, trainer_for
from forgetmenot.config.paths import conf_folder, register_resolvers
from forgetmenot.config.retained import expand_retained
from forgetmenot.cost import Cost
from forgetmenot.result import RunResult


def _setup(overrides: list[str]) -> Setup:
    register_resolvers()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", overrides=overrides)
        OmegaConf.set_struct(config, False)
        return set_up(expand_retained(config))


def main() -> None:
    """Prints the bytes of the peak during fit, as every run measures it, above the resident size before loading."""
    setup = _setup(sys.argv[1:])
    rows, console, cost = encode(setup), Console(quiet=True), Cost()
    before = psutil.Process().memory_info().rss
    module, data = adapt(setup, rows, result=RunResult(name="measured", overrides=[]), console=console)
    trainer_for(setup, [cost], [], console=console, epoch=data.plan.steps_per_epoch).fit(module, data)
    assert cost.peak_memory_bytes is not None
    print(f"peak {cost.peak_memory_bytes - before}")


if __name__ == "__main__":
    main()

"""The launcher of `hydra/launcher=slurm`: Hydra takes launchers from the package hydra_plugins alone.

Hydra imports this file at every start, so what it needs is imported when it launches.
"""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class SlurmLauncher(Launcher):
    """Prepares the members of a sweep one after another, and runs all of them as jobs of Slurm."""

    def __init__(self, **settings: object) -> None:
        """Takes the settings as Hydra gives them; they are read from the config, where they have their place."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what Hydra tells a launcher before it launches."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Returns what each member came to, once all have ended."""
        from forgetmenot.config.app import Task
        from forgetmenot.config.sbatch import JobOptions, refuse_earlier
        from forgetmenot.config.slurm import run_as_jobs

        setup_globals()
        assert isinstance(self._task, Task), "run_app gives it to Hydra"
        configs = [self._config_of(number, words) for number, words in enumerate(job_overrides, initial_job_idx)]
        options = JobOptions.of(self._config.hydra.launcher)
        for config in configs:
            options.check_ranks(config)  # of all, before anything is written for one
        refuse_earlier(Path(self._config.hydra.sweep.dir))
        returned = [
            run_job(
                hydra_context=self._context,
                task_function=self._task.prepare,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            for config in configs
        ]
        objectives = run_as_jobs([each.return_value for each in returned], sweep=self._task.sweep, options=options)
        for each, objective in zip(returned, objectives, strict=True):
            each.return_value = objective
        return returned

    def _config_of(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

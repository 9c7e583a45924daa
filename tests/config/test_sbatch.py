"""What Slurm is asked for: settings that cannot be are told of, and a job asks to be queued again where it should."""

import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import forgetmenot.config.sbatch
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.paths import conf_folder
from forgetmenot.config.sbatch import JobOptions

END = Path(forgetmenot.config.sbatch.__file__).with_name("member.sbatch").read_text()


@pytest.mark.parametrize(
    ("settings", "trainer", "sentence"),
    [
        ({}, {"devices": 8}, "tasks_per_node must be 8, since a task is a rank and trainer.devices asks for 8, got 1"),
        ({}, {"num_nodes": 2}, "nodes must be 2, since a task is a rank and trainer.num_nodes asks for 2, got 1"),
        ({}, {"devices": [0, 1]}, "tasks_per_node must be 2, since"),
        ({}, {"devices": "0,1"}, "tasks_per_node must be 2, since"),
        ({"gpus_per_node": 4}, {"devices": "auto"}, "tasks_per_node must be 4, since"),
        ({"gpus_per_node": 4}, {"devices": -1}, "tasks_per_node must be 4, since"),
        ({"signal_delay_s": 3600}, {}, "signal_delay_s must be above 0 and below the 3600 seconds of"),
        ({"cpus_per_task": 0}, {}, "cpus_per_task must be at least 1, got 0"),
        ({"mem_gb": 0}, {}, "mem_gb must be above 0, got 0.0"),
        ({"timeout_min": "long"}, {}, "timeout_min must be a whole number, got long"),
        ({"additional_parameters": {"comment": "mine"}}, {}, "additional_parameters must leave comment to the sweep"),
        ({"additional_parameters": "--x"}, {}, "additional_parameters must be options of sbatch by name, got --x"),
        ({"additional_parameters": {"wrap": "x"}}, {}, "additional_parameters must leave wrap to the sweep, got wrap"),
        ({"additional_parameters": {"wra": "x"}}, {}, "additional_parameters must leave wrap to the sweep, got wra"),
        ({"additional_parameters": {"export_f": "x"}}, {}, "additional_parameters must leave export-file to the sweep"),
        ({"additional_parameters": {"error": "x"}}, {}, "additional_parameters must leave error to the sweep"),
        ({"additional_parameters": {"test_only": True}}, {}, "additional_parameters must leave test-only to the sweep"),
        ({"additional_parameters": {"wrap=x": 1}}, {}, "additional_parameters must be options of sbatch by name"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_a_sentence(
    cluster: Path, settings: dict[str, object], trainer: dict[str, object], sentence: str
) -> None:
    own = OmegaConf.load(conf_folder() / "hydra" / "launcher" / "slurm.yaml")
    assert isinstance(own, DictConfig)
    with pytest.raises(ConfigError) as error:
        JobOptions.of(DictConfig({**own, **settings})).check_ranks(DictConfig({"trainer": trainer}))
    assert str(error.value).startswith(f"hydra.launcher.{sentence}")


def test_other_options_of_sbatch_are_passed_on(cluster: Path) -> None:
    own = OmegaConf.load(conf_folder() / "hydra" / "launcher" / "slurm.yaml")
    assert isinstance(own, DictConfig)
    given = {"gpus": 2, "constraint": "a100", "mail_type": "END", "exclusive": True, "container-image": "here.sqsh"}
    words = JobOptions.of(DictConfig({**own, "additional_parameters": given})).words
    assert words[-5:] == [
        "--gpus=2", "--constraint=a100", "--mail-type=END", "--exclusive", "--container-image=here.sqsh"
    ]  # fmt: skip


@pytest.mark.parametrize("nodes", [None, "two", 0])
def test_nodes_that_are_no_number_are_refused_in_a_sentence(cluster: Path, nodes: object) -> None:
    own = OmegaConf.load(conf_folder() / "hydra" / "launcher" / "slurm.yaml")
    assert isinstance(own, DictConfig)
    with pytest.raises(ConfigError, match=f"trainer.num_nodes must be a whole number of at least 1, got {nodes}"):
        JobOptions.of(own).check_ranks(DictConfig({"trainer": {"num_nodes": nodes}}))


@pytest.mark.parametrize(
    ("code", "job", "steps", "queued"),
    [
        (138, "JobState=RUNNING PreemptTime=None", 1, True),
        (138, "JobState=RUNNING PreemptTime=None", 0, False),
        (143, "JobState=RUNNING PreemptTime=2026-11-27T05:40:54", 0, True),
        (143, "JobState=CANCELLED PreemptTime=None", 1, False),
        (1, "JobState=RUNNING PreemptTime=None", 1, False),
        (0, "JobState=RUNNING PreemptTime=None", 1, False),
    ],
    ids=["time is up", "time is up without a step", "preempted", "cancelled", "failed", "complete"],
)
def test_a_job_is_queued_again_where_its_member_can_go_on(
    cluster: Path, tmp_path: Path, code: int, job: str, steps: int, queued: bool
) -> None:
    (tmp_path / "member.sh").write_text(f"mkdir -p {tmp_path}/run/checkpoints/step-{steps}; exit {code}\n")
    (tmp_path / "run" / "checkpoints" / "step-0").mkdir(parents=True)
    (tmp_path / "commands" / "scontrol").write_text(
        f'#!/usr/bin/env bash\necho "$@" >> {cluster}/asked\necho "JobId=8 ArrayJobId=7 {job} Eligible=None"\n'
    )
    (tmp_path / "job.sh").write_text(
        f"folder={tmp_path}/run goes_on=false resume=resume=run words=(seed=5) command=(bash {tmp_path}/member.sh)\n"
        + END
    )
    given = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1"}
    done = subprocess.run(["bash", str(tmp_path / "job.sh")], env={**os.environ, **given}, check=False)
    assert done.returncode == code
    asked = (cluster / "asked").read_text() if (cluster / "asked").is_file() else ""
    assert ("requeue 7_1" in asked) == queued

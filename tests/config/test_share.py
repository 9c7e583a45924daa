"""What a member gets of the machine where several run at once."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from forgetmenot.config.errors import ConfigError
from forgetmenot.config.share import check_gpus, place_among, share


@pytest.mark.parametrize(
    ("trainer", "place", "at_once", "visible", "threads", "gpus"),
    [
        ({"accelerator": "cpu", "devices": 1}, 0, 2, "0,1", "8", None),
        ({"accelerator": "cpu", "devices": 2}, 1, 4, "0,1", "2", None),
        ({"accelerator": "auto", "devices": "auto"}, 0, 2, "0,1,2,3", "4", "0,1"),
        ({"accelerator": "auto", "devices": "auto"}, 1, 2, "0,1,2,3", "4", "2,3"),
        ({"accelerator": "gpu", "devices": 1}, 2, 3, "GPU-a,GPU-b", "5", "GPU-a"),
        ({"accelerator": "gpu", "devices": [1]}, 0, 2, "0,1", "8", None),
        ({"accelerator": "auto", "devices": "auto"}, 1, 32, "", "1", None),
        ({"accelerator": "gpu", "devices": "2"}, 1, 2, "0,1,2,3", "4", "2,3"),
        ({"accelerator": "gpu", "devices": "0,1"}, 1, 2, "0,1,2,3", "4", None),
        ({"accelerator": "gpu", "devices": [0, 1]}, 1, 2, "0,1,2,3", "4", None),
        ({"accelerator": "gpu", "devices": -1}, 0, 2, "0,1,2,3", "4", "0,1"),
        ({}, 0, 2, "", "8", None),
    ],
)
def test_cores_and_gpus_are_shared_out(
    trainer: dict[str, object], place: int, at_once: int, visible: str, threads: str, gpus: str | None
) -> None:
    got = share(
        DictConfig(trainer), place=place, at_once=at_once, environment={"CUDA_VISIBLE_DEVICES": visible}, cores=16
    )
    assert (got["OMP_NUM_THREADS"], got.get("CUDA_VISIBLE_DEVICES")) == (threads, gpus)


@pytest.mark.parametrize(
    ("devices", "gpus", "at_once"), [(2, "0,1", 2), ("4", "0,1,2,3,4,5,6,7", 4), ([0, 1], "0,1", 3)]
)
def test_members_that_ask_for_more_gpus_than_their_part_are_refused(devices: object, gpus: str, at_once: int) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": gpus}
    with pytest.raises(
        ConfigError, match=r"^hydra\.launcher\.n_jobs must be at most [12] for members of [24] GPUs each"
    ):
        check_gpus(DictConfig({"devices": devices}), at_once=at_once, environment=environment)


@pytest.mark.parametrize(
    "trainer",
    [{"devices": 1}, {"devices": "auto"}, {"devices": 2}, {"devices": 8}, {"devices": 4, "accelerator": "cpu"}, {}],
)
def test_members_whose_part_is_enough_or_that_no_n_jobs_would_help_are_not(trainer: dict[str, object]) -> None:
    check_gpus(DictConfig(trainer), at_once=2, environment={"CUDA_VISIBLE_DEVICES": "0,1,2,3"})


def test_threads_that_the_user_has_set_stay() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "3"}
    assert share(DictConfig({}), place=0, at_once=2, environment=environment, cores=16) == {}


def test_each_place_is_taken_once_and_is_free_again(tmp_path: Path) -> None:
    with place_among(2, notes=tmp_path) as first:
        with place_among(2, notes=tmp_path) as second:
            assert (first, second) == (0, 1)
        with place_among(2, notes=tmp_path) as again:
            assert again == 1

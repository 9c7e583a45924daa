"""The machine that is planned for: its devices are counted as they are told, whatever this machine has."""

import pytest
import torch
from omegaconf import DictConfig

from forgetmenot.cli.machine import for_this_machine
from forgetmenot.config.errors import ConfigError
from forgetmenot.config.settings import Planning


@pytest.fixture(autouse=True)
def _no_gpu_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def _on(device: str) -> Planning:
    return Planning(device=device, memory_gb=None, flops_per_second=None, lengths="data")  # type: ignore[arg-type]


def _config(**trainer: object) -> DictConfig:
    whole = {"accelerator": "auto", "devices": "auto", "strategy": "auto", "num_nodes": 1, **trainer}
    return DictConfig({"trainer": whole, "precision": "auto"})


@pytest.mark.parametrize(
    ("devices", "number"),
    [([0, 1], 2), ([3], 1), ("0,1", 2), ("0, 1,", 2), ("4,", 1), (8, 8), ("8", 8), (" 8 ", 8), ("auto", "auto")],
)
def test_devices_of_the_planned_machine_are_counted(devices: object, number: object) -> None:
    config = _config(devices=devices)
    assert for_this_machine(config, _on("cuda"))
    assert config.trainer.devices == number


@pytest.mark.parametrize(
    ("devices", "number"), [("auto", 2), (-1, 2), ("-1", 2), (1, 1), (8, 8), ("0,1,2,3", 4), ([5], 1)]
)
def test_a_machine_with_fewer_gpus_plans_for_more(
    monkeypatch: pytest.MonkeyPatch, devices: object, number: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    config = _config(devices=devices)
    assert for_this_machine(config, _on("auto"))
    assert (config.trainer.devices, config.trainer.accelerator, config.precision) == (number, "cpu", "fp32")


GPUS = "trainer.devices must be auto, a number of GPUs, at least 1, or a list of different ones"
PROCESSES = "trainer.devices must be auto or a number of processes, at least 1, for a CPU"


@pytest.mark.parametrize("devices", [0, "0", -2, 2.5, "two", "", "0,x", "0,0", [0, 0], [], [-1], ["0"], True, None])
def test_devices_that_no_gpus_can_be_are_refused(devices: object) -> None:
    shown = "null" if devices is None else devices if devices != "" else "nothing"
    with pytest.raises(ConfigError) as error:
        for_this_machine(_config(devices=devices), _on("cuda"))
    assert str(error.value) == f"{GPUS}, got {shown}"


@pytest.mark.parametrize("devices", [-1, "-1"])
def test_all_devices_of_a_machine_that_is_not_here_need_their_number(devices: object) -> None:
    with pytest.raises(ConfigError) as error:
        for_this_machine(_config(devices=devices), _on("cuda"))
    assert str(error.value) == "trainer.devices must be a number where this machine has no GPUs to count, got -1"


@pytest.mark.parametrize("devices", [0, "two", 2.5, None])
def test_devices_that_no_processes_can_be_are_refused(devices: object) -> None:
    with pytest.raises(ConfigError) as error:
        for_this_machine(_config(devices=devices), _on("cpu"))
    assert str(error.value) == f"{PROCESSES}, got {'null' if devices is None else devices}"


@pytest.mark.parametrize("devices", [-1, "-1", [0, 1], "0,1"])
def test_gpus_on_a_cpu_are_refused_with_the_way_out(devices: object) -> None:
    with pytest.raises(ConfigError) as error:
        for_this_machine(_config(devices=devices), _on("auto"))
    assert str(error.value) == f"{PROCESSES}, got {devices}; device=cuda plans for GPUs"


@pytest.mark.parametrize(
    ("device", "accelerator", "sentence"),
    [
        ("cuda", "cpu", "device must be auto or cpu with trainer.accelerator=cpu, got cuda"),
        ("cpu", "gpu", "device must be auto or cuda with trainer.accelerator=gpu, got cpu"),
        ("cpu", "cuda", "device must be auto or cuda with trainer.accelerator=cuda, got cpu"),
        ("auto", "tpu", "trainer.accelerator must be auto, cpu, gpu or cuda for a plan, got tpu"),
        ("cuda", "gpus", "trainer.accelerator must be auto, cpu, gpu or cuda for a plan, got gpus"),
        ("cpu", None, "trainer.accelerator must be auto, cpu, gpu or cuda for a plan, got null"),
    ],
)
def test_another_device_than_the_run_would_train_on_is_refused(
    device: str, accelerator: str | None, sentence: str
) -> None:
    with pytest.raises(ConfigError) as error:
        for_this_machine(_config(accelerator=accelerator), _on(device))
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("device", "accelerator", "on_cuda"),
    [
        ("cuda", "auto", True),
        ("cuda", "gpu", True),
        ("cuda", "cuda", True),
        ("auto", "cuda", True),
        ("auto", "gpu", True),
        ("auto", "auto", False),
        ("auto", "cpu", False),
        ("cpu", "auto", False),
        ("cpu", "cpu", False),
    ],
)
def test_the_device_is_the_one_that_the_run_would_train_on(device: str, accelerator: str, on_cuda: bool) -> None:
    assert for_this_machine(_config(accelerator=accelerator), _on(device)) is on_cuda


@pytest.mark.parametrize("name", ["devices", "num_nodes"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("number", [1_000_001, 10**9])
def test_more_devices_than_any_cluster_has_are_refused(name: str, device: str, number: int) -> None:
    with pytest.raises(ConfigError) as error:
        for_this_machine(_config(**{name: number}), _on(device))
    assert str(error.value) == f"trainer.{name} must be at most 1,000,000 for a plan, got {number}"

"""Several nodes: torchrun on each, which here are two processes of one machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import read_result

pytestmark = pytest.mark.slow

SHIM = Path(__file__).resolve().parents[2] / "train.py"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_nodes_train_one_run_in_one_folder(tmp_path: Path, tiny_arguments: list[str], strategy: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    place = ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    nodes = [f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.num_nodes=2", "trainer.devices=1"]
    started = [
        subprocess.Popen(
            [*torchrun, "--node_rank", str(rank), *place, str(SHIM), *tiny_arguments, *nodes],
            cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        errors = [node.communicate(timeout=300)[1] for node in started]
    finally:
        for node in started:
            node.kill()
    assert [node.returncode for node in started] == [0, 0], errors

    (folder,) = tmp_path.glob("outputs/runs/*/*")
    result = read_result(folder)
    assert (result["status"], result["hardware"]["devices"]) == ("complete", 2)
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()

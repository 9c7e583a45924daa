"""What only a GPU can show: packed attention by its kernels, and runs that train there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import collator_of, facts_of, packing, rows_for, tiny
from tiny_runs import finish, read_lines, read_result

from forgetmenot.loss import loss_sum

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SHIM = Path(__file__).resolve().parents[1] / "train.py"  # a file: Lightning starts other ranks by its path
LENGTHS = [(9, 3), (2, 5), (5, 1), (4, 4), (12, 2), (30, 9)]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma2", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_rows_have_the_loss_and_gradient_of_padded_ones(family: str, dtype: torch.dtype) -> None:
    model = tiny(family).to("cuda", dtype)
    facts, rows = facts_of(tiny(family)), rows_for(tiny(family), LENGTHS)
    gradients, losses = [], []
    for packs in (False, True):
        own = packing(model) if packs else model
        batch = collator_of(tiny(family), packs=packs).rows(rows).to(torch.device("cuda"))
        loss = loss_sum(own, batch, facts)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten().float() for p in own.parameters() if p.grad is not None]))
    most = 1e-4 if dtype == torch.float32 else 3e-2
    assert losses[1] == pytest.approx(losses[0], rel=most)
    assert (gradients[0] - gradients[1]).norm() <= most * gradients[0].norm()


@pytest.mark.parametrize(
    "arguments",
    [
        ["method=lora"],
        ["method=full"],
        ["method=prompt"],
        ["method=lora", "model.activation_checkpointing=true"],
        ["method=lora", "model.compile=true"],
        ["method=lora", "micro_batch_tokens=300"],
    ],
    ids=" ".join,
)
def test_a_run_on_a_gpu_learns_and_says_what_it_used(arguments: list[str], tmp_path: Path) -> None:
    run = finish(["trainer=gpu", "logger=none", "epochs=1", "max_steps=60", *arguments], tmp_path)
    assert run.code == 0, run.stderr
    result = read_result(run.folder)
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)  # from Ampere on
    assert result["hardware"]["precision"] == ("bf16" if has_bf16 else "fp32")
    assert result["tasks"]["sentiment"]["after"]["loss"] < result["tasks"]["sentiment"]["before"]["loss"]
    assert result["cost"]["peak_memory_bytes"] > 0
    assert "micro_batch_tokens: auto" not in (run.folder / "config.yaml").read_text(encoding="utf-8")


def spread(place: Path, *arguments: str) -> Path:
    """Returns the folder of a run on all GPUs there are, in a process of its own, which starts others."""
    place.mkdir()
    chosen = ["trainer.accelerator=gpu", "logger=none", "epochs=1", "max_steps=40", "data.retained=[names]"]
    done = subprocess.run(
        [sys.executable, str(SHIM), *chosen, *arguments],
        cwd=place, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = place.glob("outputs/runs/*/*")
    return folder


def losses(folder: Path) -> list[float]:
    return [float(str(line["train/loss"])) for line in read_lines(folder / "metrics.jsonl") if "train/loss" in line]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("method", ["full", "lora", "prompt"])
def test_all_gpus_learn_in_fp32_what_one_learns(tmp_path: Path, strategy: str, method: str) -> None:
    same = [f"method={method}", "method.dropout=0"] if method == "lora" else [f"method={method}"]
    same += ["precision=fp32", "micro_batch_tokens=600"]
    alone = spread(tmp_path / "one", *same, "trainer=gpu")
    ours = spread(tmp_path / "all", *same, f"trainer={strategy}")
    assert losses(ours)[:6] == pytest.approx(losses(alone)[:6], rel=1e-4)
    assert losses(ours) == pytest.approx(losses(alone), rel=0.05), "sums in another order drift apart"
    assert read_result(ours)["hardware"]["devices"] == torch.cuda.device_count()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("method", ["lora", "pissa", "qlora"])
def test_a_frozen_base_in_low_precision_learns_on_all_gpus(tmp_path: Path, strategy: str, method: str) -> None:
    arguments = [f"method={method}", f"trainer={strategy}", "model.activation_checkpointing=true"]
    task = read_result(spread(tmp_path / "all", *arguments))["tasks"]["sentiment"]
    assert task["after"]["loss"] < task["before"]["loss"]

"""`plan` as its users call it: parts, time, whether a run fits, and the cheapest change; no weight is read."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_runs import Finished, finish
from transformers import LlamaConfig

Plan = Callable[..., Finished]

SHAPES = LlamaConfig(
    vocab_size=32000, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4
)
OF_SHAPES = ["model=causal", "model.path=shapes", "model.weights=random", "device=cuda", "micro_batch_tokens=1024"]


@pytest.fixture
def plan(tmp_path: Path, tiny_arguments: list[str]) -> Plan:
    """Plans the tiny run with the arguments given."""
    return lambda *arguments: finish([*tiny_arguments, *arguments], tmp_path, command="plan")


@pytest.fixture
def of_shapes(tmp_path: Path) -> Plan:
    """Plans a model of which there is a config.json alone."""
    SHAPES.save_pretrained(tmp_path / "shapes")
    return lambda *arguments: finish([*OF_SHAPES, *arguments], tmp_path, command="plan")


def _gigabytes(done: Finished, part: str) -> float:
    assert done.code == 0, done.stderr
    row = re.search(rf"│ {part} +│ +([\d.,]+) │", done.stdout)
    assert row, done.stdout
    return float(row[1].replace(",", ""))


def _work(done: Finished) -> float:
    row = re.search(r"A step computes ([\d.,]+) GFLOP", done.stdout)
    assert row, done.stdout
    return float(row[1].replace(",", ""))


def test_a_plan_tells_parts_rows_and_time_and_leaves_nothing_behind(plan: Plan) -> None:
    done = plan("method=lora", "method.rank=2", "flops_per_second=1e9")
    assert done.code == 0, done.stderr
    assert re.search(r"lora trains [\d,]+ weights, [\d.]+% of the 0.0 M parameters of causal, in fp32", done.stdout)
    assert "A step of 4 rows holds" in done.stdout and "lengths are the data's" in done.stdout
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "allocator"):
        assert _gigabytes(done, part) >= 0
    assert re.search(r"1,000 steps take [\d.]+ (s|minutes) at 1.0 GFLOP a second and device", done.stdout)
    assert "It fits: " in done.stdout
    assert not list(done.place.iterdir())


def test_no_weight_is_read(plan: Plan, tiny_model: Path, tmp_path: Path) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "copy" / "model.safetensors").write_bytes(b"no weights")
    assert plan(f"model.path={tmp_path / 'copy'}").code == 0


def test_a_folder_of_shapes_alone_is_planned_at_max_length(of_shapes: Plan) -> None:
    done = of_shapes("method=full", "max_length=128", "memory_gb=80")
    assert "lengths are of max_length=128, since no data is read" in done.stdout
    assert "A step of 8 rows holds 1,024 tokens, its largest micro-batch 1,024" in done.stdout
    assert _gigabytes(done, "weights") == pytest.approx(19.0e6 * 4 / 1e9, rel=0.1)


def test_what_does_not_fit_is_told_with_the_cheapest_change_that_does(of_shapes: Plan) -> None:
    done = of_shapes("method=full", "max_length=128", "memory_gb=0.44")
    assert "It does not fit" in done.stdout
    assert re.search(r"The cheapest change that fits: micro_batch_tokens=\d+ \(", done.stdout), done.stdout


def test_where_weights_alone_are_too_many_another_method_is_the_change(of_shapes: Plan) -> None:
    done = of_shapes("method=full", "max_length=128", "micro_batch_tokens=128", "memory_gb=0.28")
    assert "The cheapest change that fits: method=lora (" in done.stdout, done.stdout


def test_several_changes_are_told_together_where_none_alone_is_enough(of_shapes: Plan) -> None:
    done = of_shapes("method=full", "max_length=128", "memory_gb=0.28")
    together = "micro_batch_tokens=128 model.activation_checkpointing=true method=lora"
    assert f"The cheapest change that fits: {together} (" in done.stdout, done.stdout


def test_fsdp_shares_out_and_ddp_does_not(of_shapes: Plan) -> None:
    spread = ["method=full", "max_length=128", "memory_gb=80", "trainer.devices=4"]
    shared, copied = of_shapes(*spread, "trainer=fsdp"), of_shapes(*spread, "trainer=ddp")
    assert _gigabytes(shared, "optimizer") == pytest.approx(_gigabytes(copied, "optimizer") / 4, rel=0.1)
    assert _gigabytes(shared, "exchange") > 0
    assert "memory of each of 4 devices" in shared.stdout


def test_listed_devices_are_as_many_as_there_are_numbers(of_shapes: Plan) -> None:
    least = ["method=lora", "max_length=128", "memory_gb=80", "trainer=ddp"]
    listed, counted = of_shapes(*least, "trainer.devices=[0,1]"), of_shapes(*least, "trainer.devices=2")
    assert listed.code == 0, listed.stderr
    assert "memory of each of 2 devices" in listed.stdout and listed.stdout == counted.stdout


def test_a_million_devices_are_planned_as_a_few_are(of_shapes: Plan) -> None:
    done = of_shapes("method=lora", "max_length=128", "memory_gb=80", "trainer=fsdp", "trainer.devices=1000000")
    assert "memory of each of 1000000 devices" in done.stdout, done.stderr
    assert "A step of 8 rows holds 128,000,000 tokens, its largest micro-batch 128 " in done.stdout  # 8 rows, repeated


def test_four_bits_take_a_fraction_of_the_weights(of_shapes: Plan) -> None:
    least = ["max_length=128", "memory_gb=80"]
    quantized, plain = of_shapes("method=qlora", *least), of_shapes("method=lora", *least)
    assert _gigabytes(quantized, "weights") < _gigabytes(plain, "weights")


def test_what_penalties_on_weights_hold_is_counted(of_shapes: Plan) -> None:
    least = ["method=full", "max_length=128", "memory_gb=80"]
    l2_sp, ewc = of_shapes(*least, "regularizer=l2_sp"), of_shapes(*least, "regularizer=ewc")
    weights = _gigabytes(l2_sp, "weights")
    assert _gigabytes(l2_sp, "penalties") == pytest.approx(weights, rel=0.05)
    assert _gigabytes(ewc, "penalties") == pytest.approx(2 * weights, rel=0.05)  # the start and the Fisher


def test_a_reference_model_is_held_and_computes(of_shapes: Plan) -> None:
    least = ["method=lora", "max_length=128", "memory_gb=80"]
    held, plain = of_shapes(*least, "regularizer=kl"), of_shapes(*least)
    assert _gigabytes(held, "penalties") == pytest.approx(_gigabytes(plain, "weights"), rel=0.1)
    assert _work(held) == pytest.approx((3 + 2) / 2 * _work(plain), rel=0.15)  # two readings, and one without backward


@pytest.mark.filterwarnings("ignore:model.liger has no effect on a CPU")
@pytest.mark.parametrize("option", ["compile", "liger"])
def test_what_an_option_saves_is_told_as_not_counted(of_shapes: Plan, option: str) -> None:
    done = of_shapes("method=lora", "max_length=128", "memory_gb=80", f"model.{option}=true")
    assert f"What model.{option} saves is not counted: the plan is that of a run without it." in done.stdout


def test_a_change_of_method_keeps_what_the_command_line_says_of_it(of_shapes: Plan) -> None:
    least = ["max_length=128", "micro_batch_tokens=128", "model.activation_checkpointing=true", "method.rank=128"]
    plain, quantized = (
        _gigabytes(of_shapes(*least, f"method={name}", "memory_gb=80"), "all") for name in ("lora", "qlora")
    )
    between = (plain + quantized) / 2 / 0.9
    done = of_shapes(*least, "method=lora", f"memory_gb={between}")
    assert f"The cheapest change that fits: method=qlora ({quantized:.2f} GB)" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("memory_gb=0", "memory_gb must be a finite number above 0, got 0.0"),
        ("memory_gb=1e300", "memory_gb must be at most 1,000,000 GB, got 1e+300"),
        ("memory_gb=80e9", "memory_gb must be at most 1,000,000 GB, got 80000000000.0"),
        ("flops_per_second=1e-300", "flops_per_second must be from 1 to 1e+21, got 1e-300"),
        ("flops_per_second=1e300", "flops_per_second must be from 1 to 1e+21, got 1e+300"),
        (f"flops_per_second={10**400}", "flops_per_second must be a finite number above 0, got inf"),
        ("flops_per_second=fast", "flops_per_second must be a number or null, got fast"),
        ("device=cuda", "device must be auto or cpu with trainer.accelerator=cpu, got cuda"),
        ("device=tpu", "device must be one of auto, cpu, cuda, got tpu"),
        ("lengths=short", "lengths must be one of data, max_length, got short"),
        ("method=zero_shot", "method must be one that trains, got zero_shot, which needs no plan"),
    ],
)
def test_bad_input_is_one_sentence(plan: Plan, argument: str, sentence: str) -> None:
    done = plan(argument)
    assert done.code == 1
    assert done.stderr.strip() == f"error: {sentence}"


def test_a_gpu_that_is_not_here_needs_its_memory(of_shapes: Plan) -> None:
    done = of_shapes("max_length=128")
    assert (done.code, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: memory_gb must be given where this machine has no GPU, got null")


def test_one_gpu_here_plans_for_eight_as_none_does(of_shapes: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("trainer=fsdp", "trainer.devices=8", "max_length=128", "micro_batch_tokens=auto")
    nowhere = of_shapes(*words, "memory_gb=1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=10**9))
    here = of_shapes(*words)
    assert here.code == 0 and "memory of each of 8 devices" in here.stdout
    assert here.stdout == nowhere.stdout


def test_a_plan_of_data_looks_at_its_lengths(plan: Plan, tmp_path: Path) -> None:
    record = json.dumps({"text": "a fine film " * 8, "label": "positive"}) + "\n"
    (tmp_path / "long").mkdir()
    for name in ("train", "validation", "test"):
        (tmp_path / "long" / f"{name}.jsonl").write_text(record * 8)
    held = [
        re.search(r"rows holds ([\d,]+) tokens", plan(*more).stdout) for more in ([], [f"data.path={tmp_path}/long"])
    ]
    assert held[0] and held[1] and int(held[1][1].replace(",", "")) > 1.5 * int(held[0][1].replace(",", ""))

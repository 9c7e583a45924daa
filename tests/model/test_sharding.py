"""A sharded model beside the same one whole: on one rank, where all that differs is who holds the weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_generate import answers, prompts_for
from tiny_models import tiny
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from forgetmenot.config.compose import compose
from forgetmenot.config.paths import choices
from forgetmenot.method.base import Method
from forgetmenot.method.lora import Lora
from forgetmenot.model.sharding import check_repeatable, is_sharded, shard, whole_weights
from forgetmenot.model.shares import optimizer_shares, shared_state, shared_weights, shares

METHODS = sorted(set(choices("method")) - {"qlora", "regularized"})  # a base in 4 bits; full with a penalty
CHANGES = {"lora": {"rank": 2}, "rslora": {"rank": 2}, "last_layers": {"num_layers": 1}}


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    """One rank that shares with itself."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "t5", "bart"])
def test_a_sharded_model_answers_and_is_gathered_as_the_whole_one(family: str, mesh: DeviceMesh) -> None:
    whole, shared = tiny(family), tiny(family)
    prompts = prompts_for(whole)
    shard(shared, mesh)
    names = [name for name, _ in whole.named_parameters(remove_duplicate=False)]

    assert is_sharded(shared) and not is_sharded(whole)
    assert all(isinstance(parameter.data, DTensor) for parameter in shared.parameters())
    assert answers(shared, prompts, most=8) == answers(whole, prompts, most=8)
    with whole_weights(shared):
        torch.testing.assert_close(dict(shared.named_parameters()), dict(whole.named_parameters()), rtol=0, atol=0)
        assert [name for name, _ in shared.named_parameters(remove_duplicate=False)] == names
    assert all(isinstance(parameter.data, DTensor) for parameter in shared.parameters())


def test_a_gathered_model_is_written_as_the_whole_one(mesh: DeviceMesh, tmp_path: Path) -> None:
    shared = tiny("llama")
    shard(shared, mesh)
    with whole_weights(shared):
        shared.save_pretrained(tmp_path / "shared")
    tiny("llama").save_pretrained(tmp_path / "whole")

    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "shared" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize("name", METHODS)
def test_what_every_method_learned_is_written_from_shares_as_from_whole_weights(
    name: str, mesh: DeviceMesh, tmp_path: Path
) -> None:
    method = compose(f"method/{name}", **CHANGES.get(name, {}))
    assert isinstance(method, Method)
    distances = []
    for is_shared in (False, True):
        torch.manual_seed(0)
        model = method.apply(tiny("gpt2"))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * parameter.requires_grad)
        if is_shared:
            shard(model, mesh)
        with whole_weights(model):
            method.save(model, tmp_path / str(is_shared))
            distances.append(method.distance(model, tiny("gpt2")))
    for file in (tmp_path / "False").iterdir():
        assert (tmp_path / "True" / file.name).read_bytes() == file.read_bytes(), file.name
    assert distances[0] == distances[1]


def test_shares_that_were_written_come_back_and_what_is_frozen_stays(mesh: DeviceMesh, tmp_path: Path) -> None:
    method = Lora(name="lora", lr=1e-3, rank=2, alpha=4, dropout=0.0, target_modules=("all-linear",))
    model = method.apply(tiny("llama"))
    shard(model, mesh)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    before = [parameter.full_tensor().clone() for parameter in learned]
    torch.save({n: w for n, w in shares(model.state_dict()).items() if n in names}, tmp_path / "shares.ckpt")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)

    read = torch.load(tmp_path / "shares.ckpt", weights_only=True)
    model.load_state_dict(shared_weights(model, read), strict=False)

    torch.testing.assert_close([parameter.full_tensor() for parameter in learned], before, rtol=0, atol=0)
    base = tiny("llama").get_parameter("model.norm.weight")
    kept = model.get_base_model().get_parameter("model.norm.weight")
    torch.testing.assert_close(kept.full_tensor(), base + 1.0, rtol=0, atol=0)


def test_what_an_optimizer_keeps_of_shares_comes_back_as_it_was(mesh: DeviceMesh, tmp_path: Path) -> None:
    model = tiny("llama")
    shard(model, mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.save(optimizer_shares(optimizer.state_dict()), tmp_path / "state.ckpt")
    other = torch.optim.AdamW(model.parameters(), lr=0.1)

    read = torch.load(tmp_path / "state.ckpt", weights_only=True)
    other.load_state_dict(shared_state(read, list(model.parameters())))

    for parameter in model.parameters():
        was, now = optimizer.state[parameter], other.state[parameter]
        assert was.keys() == now.keys() and all(torch.equal(was[name], now[name]) for name in ("step",))
        for name in ("exp_avg", "exp_avg_sq"):
            assert was[name].placements == now[name].placements == parameter.placements
            assert torch.equal(was[name].full_tensor(), now[name].full_tensor())


def test_a_step_without_memory_ends_a_run_whose_ranks_wait_for_each_other(mesh: DeviceMesh) -> None:
    model = tiny("llama")
    check_repeatable(model, torch.OutOfMemoryError("none left"), step=3)
    shard(model, mesh)
    with pytest.raises(ValueError, match=r"^micro_batch_tokens must be .* got too many at step 3 \(none left\)"):
        check_repeatable(model, torch.OutOfMemoryError("none left"), step=3)

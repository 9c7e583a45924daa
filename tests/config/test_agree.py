"""Ranks that torchrun started, each with a run folder of its own composing, take rank 0's."""

import pytest
from torch.distributed import TCPStore

from forgetmenot.config.agree import agreed


def test_a_process_of_its_own_keeps_its_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    assert agreed("outputs/a") == "outputs/a"


def test_every_rank_of_torchrun_takes_what_rank_0_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    kept = {"WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**kept, "MASTER_PORT": str(agents.port)}.items():
        monkeypatch.setenv(name, value)
    taken = []
    for rank, own in enumerate(["outputs/a", "outputs/b"]):
        monkeypatch.setenv("RANK", str(rank))
        taken.append(agreed(own))
    assert taken == ["outputs/a", "outputs/a"]


def test_without_a_store_a_folder_has_to_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "TORCHELASTIC_USE_AGENT_STORE": "False"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"^hydra\.run\.dir must be given .* for its 4 ranks, got none; "):
        agreed("outputs/a")

"""Probes for real: a twentieth of the table and what changed since it was made, and what a probe must not let pass."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from capabilities.__main__ import main
from capabilities.answer import NotYes
from capabilities.bench import Bench

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench.at(tmp_path_factory.mktemp("bench"))


def test_a_seeded_twentieth_and_every_row_whose_code_changed_answer_as_the_table_says() -> None:
    main(["--check", "--changed", "--share", "20"])


def test_a_refusal_that_reads_weights_first_is_a_fault(bench: Bench, tmp_path: Path) -> None:
    weights = bench.place / "qwen2" / "model.safetensors"
    whole = load_file(weights)
    try:
        save_file({name: whole[name] for name in list(whole)[1:]}, weights, metadata={"format": "pt"})
        with pytest.raises(NotYes, match=r"^fault: refused with 'model\.path must hold all weights .*but without weig"):
            bench.train("full")
    finally:
        save_file(whole, weights, metadata={"format": "pt"})


def test_a_refusal_is_the_commands_own_sentence_and_the_weights_are_there_again(bench: Bench) -> None:
    before = (bench.place / "t5" / "model.safetensors").read_bytes()
    with pytest.raises(NotYes) as refused:
        bench.train("bitfit", model="t5")
    assert refused.value.answer.kind == "refused"
    assert refused.value.answer.reason.startswith("method must be one that needs no bias terms")
    assert (bench.place / "t5" / "model.safetensors").read_bytes() == before

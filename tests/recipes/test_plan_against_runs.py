"""A plan beside the resident peak that runs come to, each in a fresh process: within a fifth.

The smallest runs are taken always; FORGETMENOT_PLANS=1 takes the others too, which need up to a quarter of an hour.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import finish
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from forgetmenot.config.paths import EMBEDDED_MODEL
from forgetmenot.heap import fits_badly

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not fits_badly() or torch.cuda.is_available(), reason="needs a CPU and the C library that was measured"
    ),
]

CHILD = Path(__file__).resolve().parents[1] / "measured_peak.py"
ROW = 256  # tokens
WORDS = "the a old red little wind house river bird and but so then went sang saw gave found over under near".split()
SHAPE = LlamaConfig(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
    vocab_size=49152, tie_word_embeddings=True, initializer_range=0.0416, max_position_embeddings=2048,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
LONG = pytest.mark.skipif(
    "FORGETMENOT_PLANS" not in os.environ, reason="takes up to a quarter of an hour: FORGETMENOT_PLANS=1"
)
CASES = [
    pytest.param(model, method, tokens, marks=[] if (model, tokens) == ("tiny", 1024) else LONG)
    for method in ("full", "lora", "qlora")
    for model, tokens in (("tiny", 1024), ("tiny", 4096), ("135m", 256), ("135m", 512))
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that all come to max_length: prompts are longer, and cut."""
    folder, draw = tmp_path_factory.mktemp("long_rows"), np.random.default_rng(0)
    for name, number in (("train", 64), ("validation", 4), ("test", 4)):
        texts = [[" ".join(draw.choice(WORDS, size=size)) for size in (900, 60)] for _ in range(number)]
        lines = [json.dumps({"asked": asked, "said": said}) + "\n" for asked, said in texts]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shape_135m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of SmolLM2's shape, with the embedded model's tokenizer."""
    folder = tmp_path_factory.mktemp("shape_135m")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(SHAPE).save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED_MODEL).save_pretrained(folder)
    return folder


Arguments = Callable[..., list[str]]


@pytest.fixture
def arguments(data: Path, request: pytest.FixtureRequest) -> Arguments:
    """Returns the settings of a run of a few steps, each of several micro-batches."""

    def chosen(model: str, method: str, *, tokens: int, batch_size: int, steps: int = 2) -> list[str]:
        large = [] if model == "tiny" else ["model=causal", f"model.path={request.getfixturevalue('shape_135m')}"]
        return [
            *(large or ["model=tiny"]), f"method={method}", f"micro_batch_tokens={tokens}", f"batch_size={batch_size}",
            "data=local", "data.name=long", f"data.path={data}", "data.prompt=asked", "data.completion=said",
            "data.metric=loss", "data.retained=[]", "trainer=cpu", "logger=none", f"max_steps={steps}",
            f"max_length={ROW}", "precision=fp32",
        ]  # fmt: skip

    return chosen


def _measured(settings: list[str], place: Path) -> int:
    """Returns the bytes of a run's peak, in a fresh process of one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(CHILD), *settings]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^peak (\d+)$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return int(found[1])


def _planned(settings: list[str], place: Path) -> float:
    """Returns the bytes that a plan tells."""
    done = finish(settings, place, command="plan")
    assert done.code == 0, done.stderr
    found = re.search(r"│ all +│ +([\d.,]+) │", done.stdout)
    assert found, done.stdout
    return float(found[1].replace(",", "")) * 1e9


@pytest.mark.parametrize(("model", "method", "tokens"), CASES)
def test_a_plan_is_within_a_fifth_of_the_measured_peak(
    model: str, method: str, tokens: int, arguments: Arguments, tmp_path: Path
) -> None:
    settings = arguments(model, method, tokens=tokens, batch_size=2 * tokens // ROW)
    planned, measured = _planned(settings, tmp_path), _measured(settings, tmp_path)
    print(f"\n{model} {method} {tokens}: planned {planned / 1e6:,.0f} MB, measured {measured / 1e6:,.0f} MB")
    assert planned == pytest.approx(measured, rel=0.2)


@LONG
def test_batch_size_alone_changes_neither(arguments: Arguments, tmp_path: Path) -> None:
    # steps enough for the heap to grow no more: it does so for some twenty micro-batches
    both = [arguments("tiny", "full", tokens=1024, batch_size=size, steps=8) for size in (12, 32)]
    planned, measured = [[tell(each, tmp_path) for each in both] for tell in (_planned, _measured)]
    print(f"\nplanned {planned}, measured {measured}")
    assert planned[1] == pytest.approx(planned[0], rel=0.05)
    assert measured[1] == pytest.approx(measured[0], rel=0.05)

"""The head's memory, measured in a process of its own; what it computes is tested beside the loss."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import tiny
from torch import Tensor
from transformers import PreTrainedModel

from forgetmenot.model.head import BYTES_PER_LOGIT, LOGITS_AT_ONCE, exact_rivals

PROGRAM = Path(__file__).with_name("head_memory.py")
ALL_LOGITS = 152_000 * 400 * 8
REST = 1.2  # the other layers' activations, and what the allocator keeps


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of resident memory")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_head_of_152000_entries_stays_within_its_budget_for_summaries_of_400_tokens(dtype: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), dtype],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[1])},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    budget = LOGITS_AT_ONCE * BYTES_PER_LOGIT

    assert int(done.stdout) <= REST * budget
    assert 10 * budget < ALL_LOGITS * BYTES_PER_LOGIT, "without a budget it would be ten times as much"


def last_logits(model: PreTrainedModel, *, bf16: bool) -> Tensor:
    """Returns (B, V): logits after the last of some tokens, of which the two likeliest differ by a thousandth."""
    ids_BT = torch.arange(4 * 6).view(4, 6) + 3
    kind = {"decoder_input_ids": ids_BT} if model.config.is_encoder_decoder else {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return model(ids_BT, **kind).logits[:, -1]


def with_twins(model: PreTrainedModel) -> PreTrainedModel:
    """Doubles each token's output weights, the second of two a thousandth larger: in bf16 they are the same."""
    head = model.get_output_embeddings()
    with torch.no_grad():
        weight_VD = head.weight.detach().clone()
        weight_VD[1::2] = 1.001 * weight_VD[::2]
    head.weight = torch.nn.Parameter(weight_VD)
    return model.eval()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "t5", "bart"])
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_of_tokens_that_tie_in_bf16_the_likelier_is_said(family: str, how: str) -> None:
    model = with_twins(tiny(family))
    if how == "weights":
        model.bfloat16()

    tied = last_logits(model, bf16=how == "autocast")
    with exact_rivals(model):
        exact = last_logits(model, bf16=how == "autocast")
    after = last_logits(model, bf16=how == "autocast")

    first_B, second_B = tied.topk(2).values.T
    assert (first_B == second_B).any()
    best_B, next_B = exact.topk(2).values.T
    assert (best_B > next_B).all()
    torch.testing.assert_close(exact.float(), tied.float(), rtol=0.02, atol=0.02)
    assert torch.equal(after, tied)


def test_in_fp32_and_where_the_weights_are_packed_the_head_stays_as_it_is() -> None:
    model = tiny("llama").eval()
    plain = last_logits(model, bf16=False)

    with exact_rivals(model):
        assert torch.equal(last_logits(model, bf16=False), plain)
    model.get_output_embeddings().weight = torch.nn.Parameter(torch.zeros(8, 1))
    with exact_rivals(model):
        assert "forward" not in vars(model.get_output_embeddings())
